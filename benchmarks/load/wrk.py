"""`wrk` as the source of load: closed loop, so its p99 at 64 connections is queueing at saturation, no service time.

Beside what wrk says, a run reads the CPU time of the server's processes, which other load on the machine hardly moves,
and the share of the server's core that somebody else used.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load.processes import Cores, Meter, program
from benchmarks.load.servers import Origin, Target
from benchmarks.report.figures import UnavailableError

SCRIPT = Path(__file__).parent / "asks.lua"
WARM_S = 1
MISSES_SHARE_MAX = 0.005
"""More than this share of asks at the origin, and what was measured were not hits."""
_FIRST_NUMBERS = itertools.count(100_000_000, 1_000_000)
"""Each run numbers its asks from one of these on, so that no number comes twice: there are 900 of them."""


@dataclass(frozen=True, slots=True)
class Load:
    """What to send, and on how many connections for how long."""

    raw: bytes
    connections: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Result:
    """What wrk said."""

    requests: int
    duration_s: float
    errors: int
    p50_us: float
    p99_us: float


def parse(output: str) -> Result:
    """The line that `asks.lua` writes. Raises UnavailableError if it is not there."""
    found = re.search(r"^RESULT (\{.*\})$", output, re.MULTILINE)
    if found is None:
        raise UnavailableError(f"wrk gave no result: {output.strip()[-300:] or '(nothing)'}")
    said = json.loads(found[1])
    return Result(said["requests"], said["duration_us"] / 1e6, said["errors"], said["p50_us"], said["p99_us"])


def run(target: Target, load: Load, folder: Path, cores: frozenset[int]) -> Result:
    """One run of wrk. Raises UnavailableError where it is not installed, or where asks failed."""
    file = folder / "ask.http"
    file.write_bytes(load.raw)
    pinned = ["taskset", "-c", ",".join(map(str, sorted(cores))), program("wrk", "wrk")]
    options = ["-t1", f"-c{load.connections}", f"-d{load.seconds}s", "--timeout", "30s", "-s", str(SCRIPT)]
    command = [*pinned, *options, f"http://127.0.0.1:{target.port}", "--", str(file), str(next(_FIRST_NUMBERS))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=load.seconds + 60)
    result = parse(done.stdout + done.stderr)
    if result.errors:
        raise UnavailableError(f"{target.name}: {result.errors} errors in {result.requests} requests")
    return result


def measure(target: Target, load: Load, folder: Path, cores: Cores, origin: Origin | None) -> dict[str, float]:
    """One run and what it took of the server. With `origin`, raises UnavailableError if asks got through to it."""
    answers = origin.answers() if origin else 0
    meter = Meter(target.pid, cores)
    result = run(target, load, folder, cores.load)
    if not result.requests:
        raise UnavailableError(f"{target.name}: no reply in {load.seconds} s; more --seconds may help")
    used = meter.readings(result.requests)
    if origin and origin.answers() - answers > result.requests * MISSES_SHARE_MAX:
        raise UnavailableError(f"{target.name}: {origin.answers() - answers} of {result.requests} asks were no hits")
    rate = result.requests / result.duration_s
    return {"requests_per_s": rate, "p50_us": result.p50_us, "p99_us": result.p99_us, **used}


@dataclass(frozen=True, slots=True)
class Lane:
    """One of those compared, and what it is sent."""

    target: Target
    raw: bytes


def compare(
    lanes: Sequence[Lane], connections: int, *, rounds: int, seconds: int, folder: Path, cores: Cores,
    origin: Origin | None
) -> list[list[dict[str, float]]]:  # fmt: skip
    """Readings by lane and round. In each round all are measured, every other round in reverse order."""
    found: list[list[dict[str, float]]] = [[] for _ in lanes]
    for lane in lanes:
        run(lane.target, Load(lane.raw, connections, WARM_S), folder, cores.load)
    for number in range(rounds):
        order = range(len(lanes)) if number % 2 == 0 else reversed(range(len(lanes)))
        for position in order:
            lane = lanes[position]
            load = Load(lane.raw, connections, seconds)
            found[position].append(measure(lane.target, load, folder, cores, origin))
    return found
