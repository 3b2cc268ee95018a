"""What counting costs: an ask, a batch, a fortnight in Redis, and reading it back.

    python -m benchmarks.ledger

One process, listeners with and without the ledger in turn, medians of rounds; then a private Redis. Columns say what.
`tracer`: what OpenTelemetry's own tracer would cost an ask on the event loop, if it is installed.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cacheproxy import config
from cacheproxy.clock import SystemClock
from cacheproxy.decisions import Decisions
from cacheproxy.metrics import Metrics
from cacheproxy.model import Decision, Neighbour, Outcome
from cacheproxy.spans import ask_span, step_spans
from cacheproxy.store.account import Account
from cacheproxy.store.connection import Connection
from cacheproxy.store.embedded import Embedded
from cacheproxy.store.ledger import Ledger

ROUNDS, TOLD = 15, 5_000
MINUTES = 14 * 24 * 60
NEAR = Neighbour("ab" * 16, 0.944, 0.92, "serve")
TIMINGS = {"parse": 1e-4, "memory": 1e-5, "exact": 1e-3, "embed": 5e-3, "semantic": 1e-3, "reply": 1e-4}


def decisions_of(at: float) -> list[Decision]:
    """Some asks as they come: most are exact, some near, of several models and callers."""
    outcomes = [Outcome.EXACT] * 6 + [Outcome.SEMANTIC, Outcome.MISS, Outcome.MISS, Outcome.BYPASS]
    return [
        Decision(
            outcome,
            ("chat", "openai_chat")[number % 2],
            at,
            0.002,
            model=f"model-{number % 3}:latest",
            partition=("", "0123456789abcdef")[number % 2],
            neighbour=NEAR if outcome is Outcome.SEMANTIC else None,
            saved_s=1.0,
            saved_tokens=100,
            trail="memory:no exact:hit",
            timings_s=TIMINGS,
        )
        for number, outcome in enumerate(outcomes)
    ]


def each_ns(told: Callable[[Decision, int], None], empty: Callable[[], None]) -> float:
    """Nanoseconds a decision takes; `empty` is called between rounds, untimed."""
    asks = list(itertools.islice(itertools.cycle(decisions_of(time.time())), TOLD))
    times = []
    for _ in range(ROUNDS):
        began = time.thread_time_ns()  # the processor's time: that of others on a busy machine does not count
        for ask in asks:
            told(ask, 1)
        times.append((time.thread_time_ns() - began) / TOLD)
        empty()
    return statistics.median(times)


def tracer_ns() -> float | None:
    """The same with OpenTelemetry's tracer and its batching processor; None where it is not installed."""
    with suppress(ImportError):
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from opentelemetry.trace import set_span_in_context

        provider, exporter = TracerProvider(), InMemorySpanExporter()
        provider.add_span_processor(BatchSpanProcessor(exporter))
        tracer = provider.get_tracer("bench")

        def told(decision: Decision, _count: int) -> None:
            whole = ask_span(decision)
            root = tracer.start_span(whole.name, start_time=whole.start_ns, attributes=dict(whole.attributes))
            context = set_span_in_context(root)
            for step in step_spans(decision):
                tracer.start_span(step.name, context=context, start_time=step.start_ns).end(step.end_ns)
            root.end(whole.end_ns)

        found = each_ns(told, exporter.clear)
        provider.shutdown()
        return found
    return None


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = config.Redis(data_dir=str(Path(folder) / "r"), timeout=5.0)
        server = Embedded(settings)
        await server.open()
        connection = Connection(settings, SystemClock(), embedded=server)
        await connection.open()
        await connection.wait_up(10)
        try:
            await measure(connection)
        finally:
            await connection.close()
            await server.close()


async def measure(connection: Connection) -> None:
    metrics = Metrics(SystemClock())
    ledger = Ledger(connection, "bench", SystemClock(), metrics)
    alone, both = Decisions(), Decisions()
    alone.listeners.append(metrics.decided)
    both.listeners += [metrics.decided, ledger.decided]
    rounds = [(each_ns(alone.tell, lambda: None), each_ns(both.tell, ledger._gather)) for _ in range(3)]
    without, with_it = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(f"a decision told:   {without:8.0f} ns without the ledger, {with_it:8.0f} ns with it")
    if tracer := tracer_ns():
        print(f"                   {tracer:8.0f} ns more with OpenTelemetry's tracer")

    await ledger.flush()
    before = await memory(connection)
    times, now = [], time.time()
    for minute in range(MINUTES):
        for decision in decisions_of(now - minute * 60):
            ledger.decided(decision, 1)
        began = time.perf_counter()
        await ledger.flush()
        times.append((time.perf_counter() - began) * 1000)
    print(f"a batch:           {statistics.median(times):8.2f} ms, slowest {max(times):.1f} ms (round trip included)")
    grown = await memory(connection) - before
    print(f"a fortnight:       {grown / 1024**2:8.1f} MiB in Redis, asks in each minute")

    account = Account(connection, "bench", SystemClock(), prompts=False)
    for name, read in (
        ("fleet, first", account.fleet),
        ("fleet, again", account.fleet),
        ("series 336 h", lambda: account.series(336, 7200, None)),
        ("series 24 h", lambda: account.series(24, 600, None)),
        ("similarity 336 h", lambda: account.similarity(336, None)),
        ("series 35 h in minutes", lambda: account.series(34.9, 60, None)),
    ):
        began = time.perf_counter()
        longest = asyncio.create_task(stall())
        await asyncio.sleep(0)
        await read()
        took = (time.perf_counter() - began) * 1000
        longest.cancel()
        with suppress(asyncio.CancelledError):
            await longest
        print(f"{name + ':':24}{took:8.1f} ms, loop held up for at most {STALLS.pop():.1f} ms")


STALLS: list[float] = []


async def stall() -> None:
    """The longest the event loop was away, ms."""
    worst = 0.0
    try:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0)
            worst = max(worst, (time.perf_counter() - began) * 1000)
    finally:
        STALLS.append(worst)


async def memory(connection: Connection) -> int:
    """Bytes that Redis uses."""
    info = await connection.run(lambda redis: redis.info("memory"))
    return int(info["used_memory"])


if __name__ == "__main__":
    asyncio.run(main())
