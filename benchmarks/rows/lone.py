"""A lone miss: what the proxy adds to an answer that nobody has stored, before an origin that answers at once.

One ask at a time on kept connections, each question new; between two of them the proxy has time to store. Streams come
token by token, as Ollama sends them though faster, and all in one write, which no model does and which shows what is
done before the first byte is passed on. A figure is the difference of the same percentile of two sides: a direct ask,
or one through a forwarder made of the same framework, which looks up, keeps and counts nothing.

Each side is asked by itself, one ask after the other, as a caller does who goes on; or, where it says so, all sides in
turns, so that each has been idle for as long as two streams of the others take. Between two asks the cores have nothing
to do and go to sleep, and waking up is then half of what is read; where it says so they are kept awake.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.bench import Bench, Row
from benchmarks.load import peers, servers
from benchmarks.load.asks import chat, request
from benchmarks.load.processes import Cores, Meter, awake
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
    in_turns: bool = False
    awake: bool = False
    origin: Sequence[str] = ()
    aims: tuple[Aim | None, Aim | None] = (None, None)
    """For the first byte: p50, p99."""


AIMS = Aim(1.0, at_least=False), Aim(3.0, at_least=False)
"""p50 and p99 of the first byte, ms."""
CASES = (
    Case("streamed", stream=True, origin=TOKEN_BY_TOKEN, aims=AIMS),
    Case("streamed, cores kept awake", stream=True, awake=True, origin=TOKEN_BY_TOKEN, aims=AIMS),
    Case("streamed, after 50 ms of quiet", stream=True, in_turns=True, origin=TOKEN_BY_TOKEN),
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
            targets = [proxy.target, origin.target]
            if not case.near:
                targets.append(stack.enter_context(peers.aiohttp_forwarder(bench.folder, bench.cores, origin)))
            if case.awake:
                stack.enter_context(awake(bench.folder, bench.cores.both))
            _one_round(targets, case, WARM_ASKS, bench.cores)
            rounds = [
                _one_round(targets if number % 2 else targets[::-1], case, bench.asks, bench.cores)
                for number in range(bench.rounds)
            ]
            yield from _figures(case, *([found[target.name] for found in rounds] for target in targets))


def _one_round(targets: Sequence[Target], case: Case, asks: int, cores: Cores) -> dict[str, dict[str, float]]:
    """Readings by the target's name, the sides asked in this order. Raises UnavailableError if an ask was no miss."""
    meters = [Meter(target.pid, cores) for target in targets]
    clients: dict[int, Client] = {}
    replies: list[list[Reply]] = [[] for _ in targets]
    questions = [f"What is the answer to question number {next(_NUMBERS)}?" for _ in range(asks)]
    places = [(place, question) for place in range(len(targets)) for question in questions]
    if case.in_turns:
        places = [(place, question) for question in questions for place in range(len(targets))]
    for place, question in places:
        if place not in clients:  # not before it asks: a connection that says nothing for 10 s is closed
            clients[place] = Client(targets[place].port)
        replies[place].append(clients[place].ask(request(chat(question, stream=case.stream))))
        time.sleep(PAUSE_S)
    for client in clients.values():
        client.close()
    outcomes = {reply.headers.get("x-cache", "") for each in replies for reply in each} - {""}
    if outcomes != {"MISS"}:
        raise UnavailableError(f"some asks were no misses: {', '.join(sorted(outcomes))}")
    return {
        target.name: readings(found) | meter.readings(asks)
        for target, meter, found in zip(targets, meters, replies, strict=True)
    }


def readings(replies: Sequence[Reply]) -> dict[str, float]:
    """Percentiles of both times, ms."""
    times = {"first": [reply.first_s for reply in replies], "total": [reply.total_s for reply in replies]}
    return {
        f"{name}_{level}_ms": percentile(values, share) * 1000
        for name, values in times.items()
        for level, share in (("p50", 0.5), ("p99", 0.99))
    }


def _figures(
    case: Case,
    ours: list[dict[str, float]],
    direct: list[dict[str, float]],
    forwarded: list[dict[str, float]] | None = None,
) -> Iterator[Figure]:
    parts = {"first": "first byte", "total": "total"} if case.stream else {"total": "total"}
    for part, words in parts.items():
        for level, aim in zip(("p50", "p99"), case.aims if part == "first" else (None, None), strict=True):
            name, what = f"{part}_{level}_ms", f"added to a miss, {case.name}, {words}, {level}"
            both = side("cacheproxy", name, ours), side("direct", name, direct)
            yield Figure("lone", what, "ms", *both, shown="difference", aim=aim)
    if forwarded is not None:
        part, words = next(iter(parts.items()))
        name, what = f"{part}_p50_ms", f"the same, beyond a forwarder of aiohttp, {case.name}, {words}, p50"
        both = side("cacheproxy", name, ours), side("aiohttp, forwarding", name, forwarded)
        yield Figure("lone", what, "ms", *both, shown="difference")


ROWS = (Row("lone", "what a lone miss takes beyond a direct ask: first byte and total, streamed and whole", lone),)
