"""What an entry takes in Redis and in the process, and what a connection takes that says nothing.

Entries are answers of 300 tokens (1.5 kB of text), each to a question of its own, stored through the proxy.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import redis

from benchmarks.bench import Bench, Row
from benchmarks.load import servers
from benchmarks.load.asks import chat, question, request
from benchmarks.load.processes import rss_bytes
from benchmarks.load.servers import Proxy
from benchmarks.load.wire import Client, ask_all
from benchmarks.report.figures import Figure, Side, Skipped, UnavailableError

ENTRIES = 2000
WARM_ENTRIES = 200
"""Asked before the first look, so that buffers and pools that come with the first asks are not counted as entries."""
CONNECTIONS = (1000, 5000)
IDLE_TIMEOUT: dict[str, Any] = {"server__idle_timeout": "10m"}
PATIENT: dict[str, Any] = {"redis__timeout": "2s", "embedding__timeout": "30s"}
"""On a busy machine the deadlines that are shipped would leave some answers without a vector, or out of the process."""
SPARE_FILES = 200
KB = 1000.0


def entries(bench: Bench) -> Iterator[Figure | Skipped]:
    """Size of an entry: in Redis without and with its vector, and in the process's memory tier."""
    for near in (False, True):
        with ExitStack() as stack:
            origin = stack.enter_context(servers.origin(bench.folder, bench.cores))
            redis_port = stack.enter_context(servers.redis(bench.folder, bench.cores))
            proxy = stack.enter_context(
                servers.proxy(bench.folder, bench.cores.server, origin, redis_port=redis_port, near=near, **PATIENT)
            )
            _store(proxy, 0, WARM_ENTRIES)
            before, kept, resident = _in_redis(redis_port), _kept(proxy), rss_bytes(proxy.target.pid)
            _store(proxy, WARM_ENTRIES, ENTRIES)
            after = _in_redis(redis_port)
            each = (after.held_bytes - before.held_bytes) / (after.entries - before.entries) / KB
            name = "with vector and index" if near else "without vector"
            yield Figure("footprint", f"an entry in Redis, {name}", "kB", Side("cacheproxy", (each,)))
            if near:
                continue
            if (more := _kept(proxy) - kept) <= 0:
                yield Skipped(
                    "footprint", "an entry in the process: it forgot its entries, Redis was away for a moment"
                )
                continue
            in_process = (rss_bytes(proxy.target.pid) - resident) / more / KB
            yield Figure("footprint", "an entry in the process", "kB", Side("cacheproxy", (in_process,)))


def _store(proxy: Proxy, first: int, count: int) -> None:
    raws = [request(chat(question(number))) for number in range(first, first + count)]
    ask_all(proxy.target.port, raws, connections=4)
    time.sleep(0.2)  # the last answers are stored behind their replies


@dataclass(frozen=True, slots=True)
class Held:
    """What Redis has, and in how much memory."""

    entries: int
    held_bytes: int


def _in_redis(redis_port: int) -> Held:
    with redis.Redis(port=redis_port) as client:
        count = sum(1 for _ in client.scan_iter(match="*:answer:*", count=1000))
        return Held(count, int(client.info("memory")["used_memory"]))


def _kept(proxy: Proxy) -> int:
    return int(proxy.stats()["memory"]["entries"])


def connections(bench: Bench) -> Iterator[Figure | Skipped]:
    """What the process takes for each kept connection that has had one hit and is idle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        for count in CONNECTIONS:
            if hard != resource.RLIM_INFINITY and hard < count + SPARE_FILES:
                yield Skipped("footprint", f"{count} connections need as many open files; `ulimit -Hn` says {hard}")
                continue
            idle_kb = _idle_kb(bench, count)
            yield Figure("footprint", f"one of {count:,} idle connections", "kB", Side("cacheproxy", (idle_kb,)))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _idle_kb(bench: Bench, count: int) -> float:
    with (
        servers.origin(bench.folder, bench.cores) as origin,
        servers.redis(bench.folder, bench.cores) as redis_port,
        servers.proxy(
            bench.folder, bench.cores.server, origin, redis_port=redis_port, **IDLE_TIMEOUT
        ) as proxy,  # fmt: skip
    ):
        raw = request(chat())
        servers.learn(proxy.target, chat())
        clients: list[Client] = []
        try:
            resident = rss_bytes(proxy.target.pid)
            for _ in range(count):
                clients.append(Client(proxy.target.port))
                clients[-1].ask(raw)
            if any(client.ask(raw).status != 200 for client in clients[:: count // 10]):
                raise UnavailableError("a connection was not kept")
            return (rss_bytes(proxy.target.pid) - resident) / count / KB
        finally:
            for client in clients:
                client.close()


def footprint(bench: Bench) -> Iterator[Figure | Skipped]:
    """Entries and connections. One reading each: memory does not vary as times do."""
    yield from entries(bench)
    yield from connections(bench)


ROWS = (Row("footprint", "memory of an entry, in Redis and in the process, and of an idle connection", footprint),)
