"""Semantic hits: how long the whole takes, how much of it is the embedding, and what more entries cost.

A few hundred real questions go in through the proxy. The rest are copies of one entry with random vectors of the same
scope: a look-up compares the question with each of them, and none is ever near. Every ask is a rewording that was
never asked before, so no memory of vectors helps. Asks that were not served by meaning are left out, and counted.
The embedding's share comes from the same replies (`Server-Timing`); it is the time the ask waits for its vector, the
window in which vectors are gathered included.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import numpy as np
import redis

from benchmarks.bench import Bench, Row
from benchmarks.load import servers
from benchmarks.load.asks import WORDINGS, chat, question, request, reworded
from benchmarks.load.processes import Meter
from benchmarks.load.servers import Origin, Proxy, learn
from benchmarks.load.wire import Reply, ask_all
from benchmarks.report.figures import Aim, Figure, Side, Skipped, UnavailableError, percentile, side

REAL_MAX = 400
"""Real questions among the entries."""
TOGETHER = 8
SETTINGS: dict[str, Any] = {"cache__headers": "trail", "redis__timeout": "1s", "embedding__timeout": "5s"}
"""With the deadlines that are shipped, what takes longer is no hit, and would be missing among the slowest."""
SERVED_SHARE_MIN = 0.9
AIM_ENTRIES = 10_000
_COPY_BATCH = 1000


def semantic(bench: Bench) -> Iterator[Figure | Skipped]:
    """Total and beyond the embedding, by the number of entries; the embedding alone and with eight at once."""
    for entries in bench.entries:
        with ExitStack() as stack:
            origin = stack.enter_context(servers.origin(bench.folder, bench.cores))
            redis_port = stack.enter_context(servers.redis(bench.folder, bench.cores))
            proxy = stack.enter_context(_proxy(bench, origin, redis_port))
            real = min(REAL_MAX, entries)
            learn_questions(proxy, real)
            fill(redis_port, entries - real)
            wordings = iter(range(real * WORDINGS))
            alone = [_round(bench, proxy, wordings, real, 1) for _ in range(bench.rounds)]
            yield from _figures(f"{entries:,} entries", alone, aimed=entries == AIM_ENTRIES)
            if entries == bench.entries[0]:
                together = [_round(bench, proxy, wordings, real, TOGETHER) for _ in range(bench.rounds)]
                yield from _embedding(alone, together)


def _proxy(bench: Bench, origin: Origin, redis_port: int) -> AbstractContextManager[Proxy]:
    return servers.proxy(bench.folder, bench.cores.server, origin, redis_port=redis_port, near=True, **SETTINGS)


def learn_questions(proxy: Proxy, count: int) -> None:
    """Ask `count` questions, so that each is stored with its vector. Raises UnavailableError if the last is not."""
    ask_all(proxy.target.port, [request(chat(question(number))) for number in range(count)], connections=4)
    learn(proxy.target, chat(question(count - 1)))


def fill(redis_port: int, count: int) -> None:
    """Add `count` entries of the same scope, near to no question. Raises UnavailableError without one to copy."""
    client = redis.Redis(port=redis_port)
    pattern = next(
        (key for key in client.scan_iter(match="*:answer:*", count=1000) if client.type(key) == b"hash"), None
    )
    fields: dict[Any, Any] = client.hgetall(pattern) if pattern else {}
    vector = next((name for name in fields if name.startswith(b"vector")), None)
    if pattern is None or vector is None:
        raise UnavailableError("no stored entry has a vector")
    entry_id = re.search(rb"[0-9a-f]{32}", pattern)
    assert entry_id is not None, pattern
    numbers = np.random.default_rng(7)
    lifetime_ms = client.pttl(pattern)
    for start in range(0, count, _COPY_BATCH):
        pipe = client.pipeline(transaction=False)
        size = min(_COPY_BATCH, count - start)
        rows = numbers.standard_normal((size, len(fields[vector]) // 2))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        for number, row in enumerate(rows.astype("<f2"), start):
            key = pattern.replace(entry_id[0], b"%032x" % (number + 1))
            pipe.hset(key, mapping={**fields, vector: row.tobytes(), b"question": b"filler %d" % number})
            pipe.pexpire(key, lifetime_ms)
        pipe.execute()
    client.close()


def _round(bench: Bench, proxy: Proxy, wordings: Iterator[int], real: int, connections: int) -> dict[str, float]:
    """Readings of `bench.asks` rewordings. Raises UnavailableError when too few were served."""
    meter = Meter(proxy.target.pid, bench.cores)
    numbers = [next(wordings, None) for _ in range(bench.asks)]
    raws = [request(chat(reworded(number % real, number // real))) for number in numbers if number is not None]
    replies = ask_all(proxy.target.port, raws, connections=connections)
    used = meter.readings(max(1, len(raws)))
    served = [reply for reply in replies if reply.headers.get("x-cache") == "SEMANTIC"]
    if len(served) < len(raws) * SERVED_SHARE_MIN or not raws:
        raise UnavailableError(f"only {len(served)} of {len(raws)} rewordings were served; fewer --asks or --rounds?")
    total_ms = [reply.total_s * 1000 for reply in served]
    embedding_ms = [_embedding_ms(reply) for reply in served]
    beyond_ms = [total - embedding for total, embedding in zip(total_ms, embedding_ms, strict=True)]
    return {
        f"{name}_{level}_ms": value
        for name, values in (("total", total_ms), ("embedding", embedding_ms), ("beyond", beyond_ms))
        for level, value in (("p50", statistics.median(values)), ("p99", percentile(values, 0.99)))
    } | {"served_share": len(served) / len(raws), **used}


def _embedding_ms(reply: Reply) -> float:
    found = re.search(r"embed;dur=([0-9.]+)", reply.headers.get("server-timing", ""))
    if found is None:
        raise UnavailableError(f"no time of the embedding in {reply.headers.get('server-timing')!r}")
    return float(found[1])


def _figures(what: str, rounds: list[dict[str, float]], *, aimed: bool) -> Iterator[Figure]:
    for name, level, aim in (
        ("total", "p50", None),
        ("total", "p99", None),
        ("beyond", "p50", Aim(3.0, at_least=False)),
        ("beyond", "p99", Aim(10.0, at_least=False)),
    ):
        ours = side("cacheproxy", f"{name}_{level}_ms", rounds)
        said = "beyond the embedding" if name == "beyond" else name
        yield Figure("semantic", f"{what}, {said}, {level}", "ms", ours, aim=aim if aimed else None)


def _embedding(alone: list[dict[str, float]], together: list[dict[str, float]]) -> Iterator[Figure]:
    for level in ("p50", "p99"):
        name = f"embedding_{level}_ms"
        values: Side = side(f"{TOGETHER} at once", name, together)
        yield Figure("semantic", f"embedding, one at a time, {level}", "ms", side("cacheproxy", name, alone))
        yield Figure("semantic", f"embedding, {TOGETHER} at once, {level}", "ms", values)


ROWS = (Row("semantic", "hits by meaning, by the number of entries; the embedding alone and under load", semantic),)
