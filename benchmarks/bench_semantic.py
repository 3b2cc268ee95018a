"""What a near look-up costs: FLAT against HNSW, one scope against many, answers in the reply against a second trip.

    python -m benchmarks.bench_semantic --entries 1000 10000 --scopes 1 100 --algorithms flat hnsw

Starts a private Redis, writes entries with random unit vectors through `store/exact.py`, and asks `store/semantic.py`
one look-up after the other, so figures are latencies of an idle proxy, Redis and client sharing the machine's cores.
Random vectors are the worst case for HNSW's graph; real questions lie in clusters. Columns:

    near     Semantic.nearest, five neighbours with their answers, decoded
    keys     the same query without answers: what the answers add is the difference
    trips    the same, then HMGET of the nearest: what a second round trip costs
    policy   `near`'s query with HYBRID_POLICY BATCHES (HNSW only)
    rebuilt  FT.CREATE over the entries until all are indexed: how long near answers are away after a flush
    memory   what Redis holds for an entry, index included
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cacheproxy import config
from cacheproxy.clock import SystemClock
from cacheproxy.flow.vectors import Vectors
from cacheproxy.metrics import Metrics
from cacheproxy.model import Answer, Entry
from cacheproxy.store import entry as entry_codec
from cacheproxy.store.connection import Connection
from cacheproxy.store.embedded import Embedded
from cacheproxy.store.exact import Exact
from cacheproxy.store.half import halved
from cacheproxy.store.search import Algorithm, Index, index_for
from cacheproxy.store.semantic import NEIGHBOURS, Semantic
from embeddings.load import load

PREFIX = "bench"
DIMS = 384
TIMEOUT_S = 5.0


def unit_vectors(count: int, seed: int) -> Iterator[bytes]:
    """Random directions, float32 little endian."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        row = random.standard_normal(DIMS)
        yield (row / np.linalg.norm(row)).astype("<f4").tobytes()


async def percentiles(ask: Callable[[bytes], Awaitable[Any]], count: int) -> str:
    """Median and 99th percentile of `count` calls after a few for warming up, in ms."""
    times = []
    for number, vector in enumerate(unit_vectors(count + 20, seed=2)):
        begun = time.perf_counter()
        await ask(vector)
        if number >= 20:
            times.append((time.perf_counter() - begun) * 1000)
    return f"{statistics.median(times):6.2f} /{statistics.quantiles(times, n=100)[98]:6.2f}"


async def fill(connection: Connection, index: Index, entries: int, scopes: int, answer_bytes: int) -> float:
    """Write entries into the index; ms for one write."""
    exact, now = Exact(connection, PREFIX), time.time()
    begun = time.perf_counter()
    for number, vector in enumerate(unit_vectors(entries, seed=1)):
        entry = Entry(
            key=f"{PREFIX}:answer:{number:032x}:0123456789ab:0.7",
            check=bytes(32),
            partition="",
            scope=f"{number % scopes:032x}",
            digest="0" * 64,
            answer=Answer("a" * answer_bytes, final={"eval_count": 300, "total_duration": 1_000_000_000}),
            made=now,
            expires=now + 3600,
            question=f"What is the answer to question number {number}?",
            vector=vector,
            space=index.space,
        )
        await exact.put(entry, stale_s=0, epoch=exact.epoch)
    return (time.perf_counter() - begun) * 1000 / entries


async def command(connection: Connection, *words: Any) -> Any:
    """One command, without the deadline of an ask."""
    return await connection.run(lambda redis: redis.execute_command(*words), timeout_s=600)  # type: ignore[no-untyped-call]


async def rebuild(connection: Connection, index: Index) -> float:
    """Seconds from FT.CREATE until everything is indexed."""
    await command(connection, "FT.DROPINDEX", index.name)
    begun = time.perf_counter()
    await command(connection, *index.create)
    while True:
        about = await command(connection, "FT.INFO", index.name)
        if float(about[about.index(b"percent_indexed") + 1]) >= 1:
            return time.perf_counter() - begun
        await asyncio.sleep(0.02)


async def measure(connection: Connection, algorithm: Algorithm, entries: int, scopes: int, args: Any) -> None:
    """One row of the table."""
    index = index_for(PREFIX, "bench-1", DIMS, algorithm)
    scope = f"{0:032x}"
    await command(connection, "FLUSHALL")
    await connection.bump_epoch()  # without one, nothing is kept
    await command(connection, *index.create)
    empty = int((await command(connection, "INFO", "memory"))["used_memory"])
    write_ms = await fill(connection, index, entries, scopes, args.answer_bytes)
    held = (int((await command(connection, "INFO", "memory"))["used_memory"]) - empty) / entries / 1000

    semantic = Semantic(connection, PREFIX, SystemClock(), Metrics(SystemClock()), timeout_s=TIMEOUT_S)
    semantic.use("bench-1", DIMS)

    def query(vector: bytes, *, answers: bool = False, text: str = index.query) -> Awaitable[Any]:
        words = list(index.search(scope, halved(vector), alias="distance_0", k=NEIGHBOURS, timeout_ms=5000))
        words[2] = text.replace("{alias}", "distance_0")
        if not answers:
            at = words.index("RETURN")
            words[at : words.index("SORTBY")] = ["RETURN", 3, "question", "scope", "distance_0"]
        return command(connection, *words)

    async def two_trips(vector: bytes) -> None:
        reply = await query(vector)
        await command(connection, "HMGET", reply[1], *entry_codec.FIELDS)

    batches = index.query.replace("$vector AS", "$vector HYBRID_POLICY BATCHES AS")
    assert len(await semantic.nearest(scope, "", next(unit_vectors(1, seed=3)), space=index.space)) == NEIGHBOURS
    near = await percentiles(lambda v: semantic.nearest(scope, "", v, space=index.space), args.asks)
    keys = await percentiles(query, args.asks)
    trips = await percentiles(two_trips, args.asks)
    policy = "-"
    if algorithm == "hnsw":
        policy = await percentiles(lambda v: query(v, answers=True, text=batches), args.asks)
    rebuilt_s = await rebuild(connection, index)
    print(
        f"{algorithm:5} {entries:7} {scopes:6}   {near}   {keys}   {trips}   {policy:>14}"
        f"   {write_ms:8.2f} ms {rebuilt_s:8.2f} s {held:7.1f} kB",
        flush=True,
    )


async def embedding(asks: int) -> None:
    """What stands before each look-up."""
    vectors = Vectors(load, window_s=0.003, batch_max=32, timeout_s=10, memo_max=0)
    await vectors.open()
    await vectors.wait_ready(60)
    times = []
    for number in range(asks):
        begun = time.perf_counter()
        await vectors.embed(f"What is the answer to question number {number}?")
        times.append((time.perf_counter() - begun) * 1000)
    begun = time.perf_counter()
    await asyncio.gather(*(vectors.embed(f"How do I get to place number {number}?") for number in range(64)))
    together_ms = (time.perf_counter() - begun) * 1000
    await vectors.close()
    p99 = statistics.quantiles(times, n=100)[98]
    print(f"embedding, ms: one after another {statistics.median(times):.2f} / {p99:.2f}, 64 at once {together_ms:.0f}")


async def main(args: argparse.Namespace) -> None:
    """All rows."""
    await embedding(args.asks)
    with tempfile.TemporaryDirectory() as folder:
        settings = config.Redis(data_dir=str(Path(folder) / "r"), memory=2 * 1024**3)
        embedded = Embedded(settings)
        await embedded.open()
        connection = Connection(settings, SystemClock(), embedded=embedded)
        await connection.open()
        columns = ("near", "keys", "trips", "policy")
        print("ms, p50 / p99:      ", *(f"{column:>16}" for column in columns), "        write   rebuilt    memory")
        for algorithm in args.algorithms:
            for entries in args.entries:
                for scopes in args.scopes:
                    await measure(connection, algorithm, entries, scopes, args)
        await connection.close()
        await embedded.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--scopes", type=int, nargs="+", default=[1, 100])
    parser.add_argument("--algorithms", nargs="+", choices=["flat", "hnsw"], default=["flat"])
    parser.add_argument("--answer-bytes", type=int, default=2000, help="length of each stored answer")
    parser.add_argument("--asks", type=int, default=400, help="look-ups measured for each figure")
    asyncio.run(main(parser.parse_args()))
