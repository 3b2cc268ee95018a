"""Measure a hit, a miss, a start and what they take in memory, each beside its rival: one command runs all.

    python -m benchmarks [--only repeat,memory] [--rounds 5] [--seconds 2] [--json FILE] [--png FILE]

The server under test has the first core, its load, its Redis and the stand-in for Ollama the second. Both sides of each
comparison run in turns within one run. A figure is the median of its rounds, the range stands beside it. What is not
installed is said and left out; benchmarks/README.md has the list and what each row means.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, Row
from benchmarks.load.pace import Pace, pace
from benchmarks.load.processes import ROOT, Cores, find_cores
from benchmarks.report import figures, plot, table
from benchmarks.report.figures import Figure, Skipped, UnavailableError
from benchmarks.rows import footprint, hits, lone, semantic, start, workers

ROWS: tuple[Row, ...] = (
    *hits.ROWS, *semantic.ROWS, *lone.ROWS, *start.ROWS, *footprint.ROWS, *workers.ROWS
)  # fmt: skip
QUICK = {"rounds": 1, "seconds": 1, "asks": 20, "entries": (1_000,)}
"""Shows that everything runs; no figure of it means anything."""


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, read. Exits with 2 where it makes no sense."""
    rows = "\n".join(f"  {row.name:10} {row.about}" for row in ROWS)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=f"rows:\n{rows}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", default="", metavar="NAME,…", help="these rows alone")
    parser.add_argument("--rounds", type=int, default=5, help="of each comparison (default 5)")
    parser.add_argument("--seconds", type=int, default=2, help="of load, a round and side (default 2)")
    parser.add_argument("--asks", type=int, default=200, help="timed one by one, a round and side (default 200)")
    parser.add_argument(
        "--entries",
        default="1000,10000,100000",
        metavar="N,…",
        help="stored when semantic hits are timed (default 1000,10000,100000)",
    )
    parser.add_argument("--quick", action="store_true", help="one short round of all: does it run?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round of every figure")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw the figures (needs matplotlib)")
    parser.add_argument(
        "--cache-folder",
        type=Path,
        default=Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cacheproxy-benchmarks",
        help="where LiteLLM is installed once (default ~/.cache/cacheproxy-benchmarks)",
    )
    read = parser.parse_args(given)
    read.entries = tuple(int(number) for number in read.entries.split(","))
    names = [row.name for row in ROWS]
    read.only = read.only.split(",") if read.only else names
    if unknown := sorted(set(read.only) - set(names)):
        parser.error(f"no row {', '.join(unknown)}; there are {', '.join(names)}")
    if min(read.rounds, read.seconds, read.asks, *read.entries) < 1:
        parser.error("all numbers are 1 or more")
    if read.quick:
        vars(read).update(QUICK)
    return read


def limits(cores: Cores, usable: int, rounds: int) -> list[str]:
    """What no run on this machine can say. `usable`: cores that there are for us."""
    lines = []
    if not cores.apart:
        lines.append("one core: server and load take it from each other, so no req/s here means anything")
    elif usable == 2:
        lines.append("two cores: load, Redis and origin share one, so a server that outruns wrk is shown too slow")
    if rounds < 5:
        lines.append(f"{rounds} rounds: a median wants five")
    lines.append(
        "not measured: a real Ollama, a GPU, a network; the origin answers at once and clients are on 127.0.0.1"
    )
    return lines


def paces(before: Pace, after: Pace) -> str:
    """How fast the machine was, in a line."""
    return (
        f"this machine before and after: a million additions in {before.adding_ms:.0f} and {after.adding_ms:.0f} ms, "
        f"a sleeping process woken in {before.waking_us:.0f} and {after.waking_us:.0f} µs; figures in ms go with both"
    )


def run(rows: Sequence[Row], bench: Bench) -> tuple[list[Figure], list[Skipped]]:
    """Measure row by row, saying each figure as it comes; what is not there is said and left out."""
    found: list[Figure] = []
    skipped: list[Skipped] = []
    print(table.HEAD)
    for row in rows:
        try:
            for each in row.run(bench):
                if isinstance(each, Figure):
                    found.append(each)
                    print(table.line(each), flush=True)
                else:
                    skipped.append(each)
        except UnavailableError as error:
            skipped.append(Skipped(row.name, str(error)))
        except Exception as error:  # noqa: BLE001 - one row's fault must not cost the figures of the others
            traceback.print_exc()
            skipped.append(Skipped(row.name, f"failed: {type(error).__name__}: {error}"))
    return found, skipped


def machine() -> dict[str, Any]:
    """Where and of what the figures are."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": os.getloadavg(),
    }


def main(given: Sequence[str] | None = None) -> int:
    """Run what was asked for; 0 unless nothing at all could be measured."""
    read = arguments(given)
    if sys.platform != "linux":
        print("these benchmarks pin processes and read /proc: they need Linux", file=sys.stderr)
        return 1
    # What was started ends with the block that started it, and a signal that kills would leave it running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    cores, about = find_cores(), machine()
    os.sched_setaffinity(0, cores.load)
    before = pace(cores)
    with tempfile.TemporaryDirectory(prefix="cacheproxy-bench-") as folder:
        bench = Bench(
            Path(folder), read.cache_folder, cores, read.rounds, read.seconds, read.asks, read.entries
        )  # fmt: skip
        found, skipped = run([row for row in ROWS if row.name in read.only], bench)
    after = pace(cores)
    said = table.remarks(found, skipped, [*limits(cores, about["cores"], read.rounds), paces(before, after)])
    print("\n" + "\n".join(f"- {line}" for line in said))
    if read.json:
        whole = {
            "machine": about | {"before": asdict(before), "after": asdict(after)},
            "rounds": read.rounds,
            "seconds": read.seconds,
            "figures": [figures.as_json(each) for each in found],
            "remarks": said,
        }
        read.json.write_text(json.dumps(whole, indent=1))
    if read.png and found:
        plot.plot(found, read.png)
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
