"""What a row is given: where it may write, how long it may take, which cores it has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load.processes import Cores
from benchmarks.report.figures import Figure, Skipped


@dataclass(frozen=True, slots=True)
class Bench:
    """One run of the benchmarks."""

    folder: Path
    """Temporary; gone when the run ends."""
    cache_folder: Path
    """Stays between runs: what was installed for a peer."""
    cores: Cores
    rounds: int
    seconds: int
    """Of load a round and side."""
    asks: int
    """Asks a round where latencies are read one by one."""
    entries: tuple[int, ...]
    """How many entries a semantic look-up has to choose from."""


@dataclass(frozen=True, slots=True)
class Row:
    """A subject of the benchmarks. `run` gives figures, and a `Skipped` for a side that is not there."""

    name: str
    about: str
    run: Callable[[Bench], Iterator[Figure | Skipped]]
