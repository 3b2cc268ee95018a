"""A lone miss: what the proxy adds to an answer that nobody has stored, before an origin that answers at once.

Each question is new, and asked directly and through the proxy in turn, one ask at a time on kept connections; between
two of them the proxy has time to store. A figure is the difference of the same percentile of both. Streams come token
by token, as Ollama sends them though faster, and all in one write, which no model does and which shows what is
done before the first byte is passed on.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.bench import Bench, Row
from benchmarks.load import servers
from benchmarks.load.asks import chat, request
from benchmarks.load.processes import Cores, Meter
from benchmarks.load.servers import Target
from benchmarks.load.wire import Client, Reply
from benchmarks.report.figures import Aim, Figure, Skipped, UnavailableError, percentile, side

PAUSE_S = 0.004
WARM_ASKS = 20
TOKEN_BY_TOKEN = ("--gap-us", "500", "--tokens", "40")
"""2,000 tokens/s: more than models give, and 20 ms an answer."""
_NUMBERS = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of miss."""

    name: str
    stream: bool
    near: bool = False
    origin: Sequence[str] = ()
    aims: tuple[Aim | None, Aim | None] = (None, None)
    """For the first byte: p50, p99."""


CASES = (
    Case("streamed", stream=True, origin=TOKEN_BY_TOKEN, aims=(Aim(1.0, at_least=False), Aim(3.0, at_least=False))),
    Case("whole", stream=False),
    Case("300 tokens in one write", stream=True),
    Case("streamed, near tier on", stream=True, near=True, origin=TOKEN_BY_TOKEN),
    Case("whole, near tier on", stream=False, near=True),
)


def lone(bench: Bench) -> Iterator[Figure | Skipped]:
    """First byte and total by case. With the near tier on, the question is embedded before Ollama is asked."""
    for case in CASES:
        with ExitStack() as stack:
            origin = stack.enter_context(servers.origin(bench.folder, bench.cores, *case.origin))
            redis_port = stack.enter_context(servers.redis(bench.folder, bench.cores))
            proxy = stack.enter_context(
                servers.proxy(bench.folder, bench.cores.server, origin, redis_port=redis_port, near=case.near)
            )
            _one_round(proxy.target, origin.target, case, WARM_ASKS, bench.cores)
            rounds = [
                _one_round(proxy.target, origin.target, case, bench.asks, bench.cores) for _ in range(bench.rounds)
            ]
            yield from _figures(case, [ours for ours, _ in rounds], [direct for _, direct in rounds])


def _one_round(
    proxy: Target, origin: Target, case: Case, asks: int, cores: Cores
) -> tuple[dict[str, float], dict[str, float]]:
    """Readings through the proxy, and direct ones. Raises UnavailableError if an ask was no miss."""
    meter = Meter(proxy.pid, cores)
    clients = [Client(target.port) for target in (proxy, origin)]
    replies: tuple[list[Reply], list[Reply]] = [], []
    for number in range(asks):
        raw = request(chat(f"What is the answer to question number {next(_NUMBERS)}?", stream=case.stream))
        for place in (0, 1) if number % 2 else (1, 0):
            replies[place].append(clients[place].ask(raw))
        time.sleep(PAUSE_S)
    for client in clients:
        client.close()
    outcomes = {reply.headers.get("x-cache", "") for reply in replies[0]}
    if outcomes != {"MISS"}:
        raise UnavailableError(f"some asks were no misses: {', '.join(sorted(outcomes))}")
    return readings(replies[0]) | meter.readings(asks), readings(replies[1])


def readings(replies: Sequence[Reply]) -> dict[str, float]:
    """Percentiles of both times, ms."""
    times = {"first": [reply.first_s for reply in replies], "total": [reply.total_s for reply in replies]}
    return {
        f"{name}_{level}_ms": percentile(values, share) * 1000
        for name, values in times.items()
        for level, share in (("p50", 0.5), ("p99", 0.99))
    }


def _figures(case: Case, ours: list[dict[str, float]], direct: list[dict[str, float]]) -> Iterator[Figure]:
    parts = ("first", "total") if case.stream else ("total",)
    for part in parts:
        for level, aim in zip(("p50", "p99"), case.aims if part == "first" else (None, None), strict=True):
            name = f"{part}_{level}_ms"
            what = f"added to a miss, {case.name}, {'first byte' if part == 'first' else 'total'}, {level}"
            both = side("cacheproxy", name, ours), side("direct", name, direct)
            yield Figure("lone", what, "ms", *both, shown="difference", aim=aim)


ROWS = (Row("lone", "what a lone miss takes beyond a direct ask: first byte and total, streamed and whole", lone),)
