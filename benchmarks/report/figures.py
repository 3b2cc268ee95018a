"""What was measured, round by round, and what follows from it. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Shown = Literal["ratio", "difference", "value"]
"""What is judged: ours through the other's, ours less the other's, or ours alone."""


class UnavailableError(Exception):
    """A row cannot be measured here; the text says why, and what would help."""


@dataclass(frozen=True, slots=True)
class Aim:
    """What a figure should be."""

    value: float
    at_least: bool = True
    """False: at most."""

    def met_by(self, value: float) -> bool:
        """Whether `value` is good enough."""
        return value >= self.value if self.at_least else value <= self.value

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.value:g}"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two that are compared: a value a round."""

    name: str
    values: tuple[float, ...]
    details: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """What else was read in the same rounds, by a name that ends in its unit: `p99_us`, `cpu_us`, `noise_share`."""

    @property
    def median(self) -> float:
        """Of the rounds."""
        return statistics.median(self.values)

    def detail(self, name: str) -> float | None:
        """The median of a detail; None if it was not read."""
        values = self.details.get(name)
        return statistics.median(values) if values else None


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    row: str
    """The name of the row it belongs to (`--only`)."""
    name: str
    unit: str
    """Of both sides' values."""
    ours: Side
    other: Side | None = None
    shown: Shown = "value"
    aim: Aim | None = None

    @property
    def rounds(self) -> tuple[float, ...]:
        """What is judged, round by round: both sides of one round met the same noise."""
        if self.other is None or self.shown == "value":
            return self.ours.values
        pairs = zip(self.ours.values, self.other.values, strict=True)
        if self.shown == "ratio":
            return tuple(ours / other for ours, other in pairs)
        return tuple(ours - other for ours, other in pairs)

    @property
    def median(self) -> float:
        """Of the rounds."""
        return statistics.median(self.rounds)

    @property
    def spread(self) -> tuple[float, float]:
        """Least and most of the rounds."""
        return min(self.rounds), max(self.rounds)

    @property
    def verdict(self) -> str:
        """Against the aim; empty without one."""
        if self.aim is None:
            return ""
        return "pass" if self.aim.met_by(self.median) else "short"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row, or a side of one, that could not be measured here."""

    row: str
    reason: str


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the values do not exceed, with no value made up between two."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def transposed(rounds: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, ...]]:
    """Readings by round to readings by name. What one round lacks is left out."""
    names = [name for name in rounds[0] if all(name in each for each in rounds)] if rounds else []
    return {name: tuple(each[name] for each in rounds) for name in names}


def side(name: str, value: str, rounds: Sequence[Mapping[str, float]]) -> Side:
    """A side from its readings by round, of which `value` is the one that counts."""
    readings = transposed(rounds)
    return Side(name, readings.pop(value), readings)


def as_json(figure: Figure) -> dict[str, Any]:
    """A figure with every round of it."""

    def one(side: Side) -> dict[str, Any]:
        return {
            "name": side.name,
            "median": side.median,
            "rounds": list(side.values),
            "details": {name: list(values) for name, values in side.details.items()},
        }

    return {
        "row": figure.row,
        "name": figure.name,
        "unit": figure.unit,
        "ours": one(figure.ours),
        "other": one(figure.other) if figure.other else None,
        "shown": figure.shown,
        "median": figure.median,
        "range": list(figure.spread),
        "aim": {"value": figure.aim.value, "at_least": figure.aim.at_least} if figure.aim else None,
        "verdict": figure.verdict or None,
    }
