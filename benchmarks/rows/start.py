"""From the start of the process to its first hits, over a data folder that a proxy before it has filled.

The machine is warm: code and weights are in the page cache. The process may use both cores, as it may in life. Both
hits are asked for again and again with `only-if-cached`, so nothing is stored meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.bench import Bench, Row
from benchmarks.load import servers
from benchmarks.load.asks import chat, question, reworded
from benchmarks.load.servers import Origin, Proxy
from benchmarks.report.figures import Aim, Figure, Skipped, UnavailableError, side
from benchmarks.rows.semantic import learn_questions

QUESTIONS = 500
FIRST_S_MAX = 60.0
POLL_S = 0.01
ONLY_STORED = {"Cache-Control": "only-if-cached"}


def start(bench: Bench) -> Iterator[Figure | Skipped]:
    """Seconds to the first exact hit and to the first semantic one."""
    with servers.origin(bench.folder, bench.cores) as origin:
        folder = str(bench.folder / "start")
        with servers.proxy(bench.folder, bench.cores.both, origin, near=True, redis__data_dir=folder) as proxy:
            learn_questions(proxy, QUESTIONS)
        rounds = [_one_start(bench, origin, folder) for _ in range(bench.rounds + 1)][1:]
    for name, most in (("exact", 1.5), ("semantic", 4.0)):
        ours = side("cacheproxy", f"{name}_s", rounds)
        yield Figure("start", f"start to first {name} hit", "s", ours, aim=Aim(most, at_least=False))


def _one_start(bench: Bench, origin: Origin, folder: str) -> dict[str, float]:
    began_s = time.perf_counter()
    with servers.proxy(
        bench.folder, bench.cores.both, origin, near=True, wait=False, redis__data_dir=folder
    ) as proxy:  # fmt: skip
        exact_s = _first(proxy, question(1), "EXACT", began_s)
        return {"exact_s": exact_s, "semantic_s": _first(proxy, reworded(1, 0), "SEMANTIC", began_s)}


def _first(proxy: Proxy, text: str, wanted: str, began_s: float) -> float:
    """Seconds from `began_s` until an ask gets `wanted`."""
    said = "nobody listened"
    while (now_s := time.perf_counter() - began_s) < FIRST_S_MAX:
        try:
            reply = proxy.target.ask(chat(text), ONLY_STORED)
        except OSError:
            pass
        else:
            said = f"{reply.status} {reply.headers.get('x-cache', '')}"
            if reply.headers.get("x-cache") == wanted:
                return time.perf_counter() - began_s
        time.sleep(POLL_S)
    raise UnavailableError(f"no {wanted} hit in {now_s:.0f} s after the start ({said}); {proxy.running.last_words()}")


ROWS = (Row("start", "process start to first exact and first semantic hit, over a filled data folder", start),)
