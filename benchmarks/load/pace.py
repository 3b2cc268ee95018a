"""How fast the machine is at this moment: every figure in milliseconds goes with it, and a ratio does not.

Others on the same hardware take from it what no load average shows. Refuses to correct a figure by it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import time
from dataclasses import dataclass

from benchmarks.load.processes import Cores

ADDITIONS = 1_000_000
HOPS = 200
QUIET_S = 0.004
"""Between two hops: as long as between two asks of the row `lone`."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Medians. `adding_ms`: a million additions in Python. `waking_us`: one byte to a process that sleeps, and back."""

    adding_ms: float
    waking_us: float


def pace(cores: Cores) -> Pace:
    """Measure it from where the caller is pinned; takes about two seconds. Raises OSError if what is woken ends."""
    return Pace(statistics.median(_adding_ms() for _ in range(5)), statistics.median(_waking_us(cores)))


def _adding_ms() -> float:
    began, total = time.perf_counter(), 0
    for number in range(ADDITIONS):
        total += number
    return (time.perf_counter() - began) * 1000


def _waking_us(cores: Cores) -> list[float]:
    """The times of `HOPS` hops to a process on the server's core."""
    near, far = socket.socketpair()
    with near, far:
        child = os.fork()
        if child == 0:
            _echo_and_exit(near, far, cores)
        far.close()
        try:
            return [_hop_us(near) for _ in range(HOPS)]
        finally:
            near.close()
            os.waitpid(child, 0)


def _echo_and_exit(near: socket.socket, far: socket.socket, cores: Cores) -> None:
    """Send back what comes until nothing does; never returns, whatever happens."""
    with contextlib.suppress(BaseException):  # the parent tells: no byte comes back
        near.close()
        os.sched_setaffinity(0, cores.server)
        while byte := far.recv(1):
            far.send(byte)
    os._exit(0)


def _hop_us(near: socket.socket) -> float:
    time.sleep(QUIET_S)
    began = time.perf_counter()
    near.send(b"x")
    if not near.recv(1):
        raise ConnectionError("the process that is woken has ended")
    return (time.perf_counter() - began) * 1e6
