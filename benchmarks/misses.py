"""What the queue before Ollama does to misses: bursts and lone ones, through the proxy and directly, in one run.

    python -m benchmarks.misses
    python -m benchmarks.misses --scale 1 --rounds 5 --only burst-apart    # in real time: several minutes

Clients, proxy and a simulated Ollama (4 slots a model, 1 s to load or swap a model, 20 ms a token, 12 tokens) share one
process, so what the proxy computes also delays the rest: the figures are worse for it than in life. `--scale` shortens
loading and generating alike (0.1: 100 ms and 2 ms), which makes the proxy's own time weigh more. A Redis of its own is
started; the near tier is off unless a row says otherwise. Each figure is the median of the rounds; each round asks
new questions of a freshly started Ollama, first directly, then through a fresh proxy.

Rows: `burst` is 64 asks at once, of which half repeat another, shuffled over two models; *apart*: Ollama holds one
model at a time, *together*: both fit. `queue` is 32 different asks for one model at once. `lone` is one ask after the
other on a loaded model, alternately direct and proxied (each after the answer before is kept; the seconds are those to
the first bytes). Columns: seconds until the last reply ended, model loads, asks that reached Ollama, median and 99th
percentile of the time to the first byte of the body in ms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from cacheproxy.app import App, running
from cacheproxy.config import Config, Redis
from cacheproxy.demo.ollama import SimulatedOllama
from cacheproxy.store.embedded import Embedded

MODELS = ("llama3", "llama3.2")
PARALLEL = 4
LOAD_S = 1.0
TOKEN_S = 0.02
TOKENS = 12


@dataclass(frozen=True)
class Asked:
    """One ask: the model, the question."""

    model: str
    question: str


@dataclass(frozen=True)
class Figures:
    """What one round, or the median of several, took."""

    seconds: float
    loads: float
    upstream_calls: float
    first_byte_p50_ms: float
    first_byte_p99_ms: float


@dataclass(frozen=True)
class Row:
    """One line of the table: Ollama's limits and the proxy's, and who asks what."""

    name: str
    asks: Callable[[str], list[Asked]]
    loaded_max: int
    upstream: dict[str, Any] = field(default_factory=dict)
    semantic: str = "off"
    one_by_one: bool = False
    before: Callable[[str], list[Asked]] | None = None
    """What was asked before, which is not measured."""
    restarts: bool = False
    """The proxy is started anew after that."""


def burst(round_name: str) -> list[Asked]:
    """64 asks, 32 different ones, two models, shuffled."""
    asks = [Asked(model, f"{round_name}: question {number}?") for model in MODELS for number in range(16)] * 2
    random.Random(round_name).shuffle(asks)
    return asks


def queue(round_name: str) -> list[Asked]:
    """32 different asks for one model."""
    return [Asked(MODELS[0], f"{round_name}: question {number}?") for number in range(32)]


def lone(round_name: str) -> list[Asked]:
    """One ask to load the model and make connections, and 100 more."""
    return [Asked(MODELS[0], f"{round_name}: question {number}?") for number in range(101)]


ROWS = (
    Row("burst-apart", burst, 1, {"parallel": PARALLEL, "models_at_once": 1}),
    Row("burst-apart, auto", burst, 1, {"parallel": PARALLEL}),
    Row("burst-apart, auto, the burst after it", burst, 1, {"parallel": PARALLEL}, before=burst),
    Row("burst-apart, auto, after a restart", burst, 1, {"parallel": PARALLEL}, before=burst, restarts=True),
    Row("burst-apart, models_at_once 3", burst, 1, {"parallel": PARALLEL, "models_at_once": 3}),
    Row("burst-together", burst, 3, {"parallel": PARALLEL}),
    Row("burst-together, models_at_once 1", burst, 3, {"parallel": PARALLEL, "models_at_once": 1}),
    Row("queue", queue, 3, {"parallel": PARALLEL}),
    Row("queue, parallel left at 1", queue, 3),
    Row("lone", lone, 3, {"parallel": PARALLEL}, one_by_one=True),
    Row("lone, near tier on", lone, 3, {"parallel": PARALLEL}, semantic="serve", one_by_one=True),
)


async def ask(port: int, asked: Asked) -> float:
    """One streamed chat on a connection of its own; seconds to the first byte of its body."""
    body = json.dumps({"model": asked.model, "messages": [{"role": "user", "content": asked.question}]}).encode()
    began_s = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = b"POST /api/chat HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    writer.write(head % len(body) + body)
    status = await reader.readuntil(b"\r\n\r\n")
    first_s = 0.0
    received = b""
    while piece := await reader.read(65536):
        first_s = first_s or time.perf_counter() - began_s
        received += piece
    writer.close()
    if not status.startswith(b"HTTP/1.1 200") or b'"done":true' not in received or not received.endswith(b"0\r\n\r\n"):
        raise SystemExit(f"no whole answer: {status!r} {received[-200:]!r}")
    return first_s


async def fire(port: int, asks: Sequence[Asked], ollama: SimulatedOllama) -> Figures:
    """Ask all at once, and say what it took."""
    loads, calls = ollama.scheduler.loads, ollama.calls["/api/chat"]
    began_s = time.perf_counter()
    first_s = await asyncio.gather(*(ask(port, asked) for asked in asks))
    seconds = time.perf_counter() - began_s
    return figures(seconds, first_s, ollama.scheduler.loads - loads, ollama.calls["/api/chat"] - calls)


async def alternate(ports: Sequence[int], asks: Sequence[Asked], app: App) -> list[Figures]:
    """Ask one after the other, each question at all ports in turn; the first one only loads and connects."""
    first_s: list[list[float]] = [[] for _ in ports]
    for asked in asks:
        for port, taken_s in zip(ports, first_s, strict=True):
            taken_s.append(await ask(port, asked))
            while len(app.flights):  # noqa: ASYNC110 - nobody announces that an answer is kept
                await asyncio.sleep(0.001)
    if (await app.stats())["outcomes"]["miss"] != len(asks):
        raise SystemExit("some asks were no misses")
    return [figures(sum(each[1:]), each[1:], 0, len(each) - 1) for each in first_s]


def figures(seconds: float, first_s: Sequence[float], loads: int, calls: int) -> Figures:
    """One round's."""
    p50_ms, p99_ms = statistics.median(first_s) * 1000, statistics.quantiles(first_s, n=100)[98] * 1000
    return Figures(seconds, loads, calls, p50_ms, p99_ms)


@asynccontextmanager
async def simulated(row: Row, scale: float) -> AsyncIterator[SimulatedOllama]:
    """An Ollama that has nothing loaded."""
    ollama = SimulatedOllama(
        parallel=PARALLEL,
        loaded_max=row.loaded_max,
        load_s=LOAD_S * scale,
        tokens_per_second=1 / (TOKEN_S * scale),
        answer_tokens=TOKENS,
    )
    await ollama.open()
    try:
        yield ollama
    finally:
        await ollama.close()


@asynccontextmanager
async def proxied(row: Row, ollama: SimulatedOllama, redis_url: str) -> AsyncIterator[App]:
    """A proxy that is ready."""
    config = {
        "server": {"listen": "127.0.0.1:0"},
        "admin": {"listen": "127.0.0.1:0"},
        "upstream": {"url": ollama.url, **row.upstream},
        "redis": {"url": redis_url},
        "semantic": {"mode": row.semantic},
    }
    async with running(Config.model_validate(config)) as app:
        await app.wait_ready(10)
        if row.semantic == "serve":
            await app.vectors.wait_ready(60)
        yield app


async def one_round(row: Row, scale: float, number: int, redis_url: str) -> tuple[Figures, Figures, float]:
    """Directly, then through the proxy; and the longest that an ask waited in the proxy's queue, s."""
    asks, before = row.asks(f"{row.name} {number}"), row.before(f"{row.name} {number}, before") if row.before else []
    async with simulated(row, scale) as ollama:
        if before:
            await fire(ollama.port, before, ollama)
        if not row.one_by_one:
            direct = await fire(ollama.port, asks, ollama)
    async with simulated(row, scale) as ollama:
        if row.restarts:
            async with proxied(row, ollama, redis_url) as app:
                await fire(port_of(app), before, ollama)
        async with proxied(row, ollama, redis_url) as app:
            if row.one_by_one:
                direct, through = await alternate((ollama.port, port_of(app)), asks, app)
            else:
                if before and not row.restarts:
                    await fire(port_of(app), before, ollama)
                through = await fire(port_of(app), asks, ollama)
            waited = (await app.stats())["latency"]["steps"]["queue"]["longest_s"]
    return direct, through, waited


def port_of(app: App) -> int:
    """Where the proxy listens."""
    return int(app.proxy_url.rsplit(":", 1)[1])


def middle(rounds: Sequence[Figures]) -> Figures:
    """The median of each figure."""
    table = [asdict(each) for each in rounds]
    return Figures(**{name: statistics.median(each[name] for each in table) for name in table[0]})


def line(name: str, figures: Figures) -> str:
    """As a row of a Markdown table."""
    return (
        f"| {name} | {figures.seconds:.2f} | {figures.loads:.0f} | {figures.upstream_calls:.0f} "
        f"| {figures.first_byte_p50_ms:.1f} | {figures.first_byte_p99_ms:.1f} |"
    )


async def main(args: argparse.Namespace) -> None:
    """All rows, then everything again as JSON."""
    found: dict[str, Any] = {"scale": args.scale, "rounds": args.rounds, "rows": {}}
    print("| | s | loads | asks at Ollama | first byte, ms | 99th percentile |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        redis = Embedded(Redis(data_dir=folder))
        await redis.open()
        try:
            for row in [row for row in ROWS if args.only in row.name]:
                rounds = [await one_round(row, args.scale, number, redis.url) for number in range(args.rounds)]
                direct, through = middle([each[0] for each in rounds]), middle([each[1] for each in rounds])
                waited_ms = max(each[2] for each in rounds) * 1000
                print(line(f"{row.name}: direct", direct), line(f"{row.name}: proxied", through), sep="\n", flush=True)
                found["rows"][row.name] = {
                    "direct": asdict(direct), "proxied": asdict(through), "longest_queued_ms": waited_ms
                }  # fmt: skip
        finally:
            await redis.close()
    print(json.dumps(found))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=0.1, help="times Ollama takes, as a share of the real ones")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="only rows whose name contains this")
    asyncio.run(main(parser.parse_args()))
