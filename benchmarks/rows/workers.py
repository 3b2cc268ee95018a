"""Two workers on one port against one, both on the same two cores, with the load on these cores too.

Asks are exact hits whose bodies differ, which cost a worker about ten times what they cost `wrk`: so the cores are
filled by the workers, and what the load takes of them is part of both sides.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks.bench import Bench, Row
from benchmarks.load import servers
from benchmarks.load.asks import chat, request, respelt
from benchmarks.load.processes import Cores
from benchmarks.load.servers import Target, learn
from benchmarks.load.wrk import Lane, compare
from benchmarks.report.figures import Aim, Figure, Skipped, UnavailableError, side

CONNECTIONS = 64


def workers(bench: Bench) -> Iterator[Figure | Skipped]:
    """Requests a second by the number of workers."""
    if not bench.cores.apart:
        raise UnavailableError("needs two cores")
    both = Cores(bench.cores.both, bench.cores.both)
    with ExitStack() as stack:
        origin = stack.enter_context(servers.origin(bench.folder, both))
        lanes = []
        for count in (2, 1):
            redis_port = stack.enter_context(servers.redis(bench.folder, both))
            proxy = stack.enter_context(
                servers.proxy(bench.folder, both.server, origin, redis_port=redis_port, server__workers=str(count))
            )
            target = Target(f"{count} workers" if count > 1 else "one worker", proxy.target.port, proxy.target.pid)
            for _ in range(20):  # each worker has a memory of its own
                learn(target, chat())
            lanes.append(Lane(target, request(respelt())))
        found = compare(
            lanes, CONNECTIONS, rounds=bench.rounds, seconds=bench.seconds, folder=bench.folder, cores=both,
            origin=origin
        )  # fmt: skip
    two, one = (side(lane.target.name, "requests_per_s", rounds) for lane, rounds in zip(lanes, found, strict=True))
    yield Figure("workers", "two workers against one", "req/s", two, one, "ratio", Aim(1.7))


ROWS = (Row("workers", "two workers on one port against one, on two cores", workers),)
