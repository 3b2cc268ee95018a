"""Two workers on one port against one, both on the same two cores, with the load on these cores too.

Asks are exact hits whose bodies differ. What the load takes of the cores is part of both sides, and weighs more with
two workers, since one leaves a core free. So the figure that is judged is of hits that take the usual way, with
`server.repeat_lane` off: they cost a worker about twenty times what they cost `wrk`. With the lane it is about seven
times, and the two cores cannot give much more than 1.7.
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
    """Requests a second by the number of workers: hits the usual way, and with the repeat lane."""
    if not bench.cores.apart:
        raise UnavailableError("needs two cores")
    yield _compared(bench, "two workers against one, repeat lane off", Aim(1.7), repeat_lane=False)
    yield _compared(bench, "two workers against one, repeat lane on", None, repeat_lane=True)


def _compared(bench: Bench, what: str, aim: Aim | None, *, repeat_lane: bool) -> Figure:
    both = Cores(bench.cores.both, bench.cores.both)
    with ExitStack() as stack:
        origin = stack.enter_context(servers.origin(bench.folder, both))
        lanes = []
        for count in (2, 1):
            redis_port = stack.enter_context(servers.redis(bench.folder, both))
            proxy = stack.enter_context(
                servers.proxy(
                    bench.folder,
                    both.server,
                    origin,
                    redis_port=redis_port,
                    server__workers=str(count),
                    server__repeat_lane=str(repeat_lane).lower(),
                )
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
    return Figure("workers", what, "req/s", two, one, "ratio", aim)


ROWS = (Row("workers", "two workers on one port against one, on two cores", workers),)
