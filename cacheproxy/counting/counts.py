"""The counts of one proxy, by family and labels: plain numbers, added to and summed.

What an event means is `metrics.py`'s to say. Bounds every family: refuses a series past `SERIES_MAX`, whatever names
callers think of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cacheproxy.buckets import Buckets
from cacheproxy.counting.durations import Histogram
from cacheproxy.counting.families import FAMILIES
from cacheproxy.counting.labels import OTHER, STEPS, Group, Labels

SERIES_MAX = 4096
"""Series of one family; past it, new combinations count under `other` (50 models need about 1,000)."""

SIMILARITY_BOUNDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, *(at / 100 for at in range(80, 101)))
AGE_BOUNDS_S = (1, 10, 60, 300, 900, 3600, 10_800, 21_600, 43_200, 86_400, 259_200, 604_800, 1_209_600, 2_592_000)


class Counts:
    """Counters and histograms. Event loop's thread only."""

    def __init__(self) -> None:
        # A counter that exists from the start shows its first increase; one born at 1 does not.
        self.counters: dict[str, dict[Labels, float]] = {
            family.name: {} if family.labels else {(): 0}
            for family in FAMILIES
            if family.kind == "counter" and not family.read
        }
        self.asks: dict[Labels, Histogram] = {}
        """How long they took, by outcome and tier."""
        self.first_bytes: dict[Labels, Histogram] = {}
        """When the bodies of their replies began, by the same."""
        self.steps = {step: Histogram() for step in STEPS}
        self.similarities = {group.value: Buckets(SIMILARITY_BOUNDS) for group in Group}
        self.ages: dict[str, Buckets] = {}
        """Of the entries that answered, by outcome."""

    def add(self, name: str, labels: Labels = (), amount: float = 1, *, past_bound: Labels = ()) -> None:
        """Add to a counter; where the family is full, to the series `past_bound` (default: `other` throughout)."""
        series = self.counters[name]
        if labels in series:
            series[labels] += amount
            return
        labels = tuple(map(plain, labels))
        if labels not in series and len(series) >= SERIES_MAX:
            labels = tuple(map(plain, past_bound or (OTHER,) * len(labels)))
        series[labels] = series.get(labels, 0) + amount

    def begin(self, name: str, values: Iterable[str]) -> None:
        """Let a counter with one label be there with these values of it, at 0 where it is new."""
        for value in values:
            self.counters[name].setdefault((value,), 0)

    def was_old(self, outcome: str, age_s: float, count: int) -> None:
        """So many asks were answered from an entry of this age."""
        ages = self.ages.get(outcome)
        if ages is None:
            ages = self.ages[str(outcome)] = Buckets(AGE_BOUNDS_S)
        ages.record(age_s, count)

    def total(self, name: str) -> float:
        """A counter, all its series together."""
        return sum(self.counters[name].values())

    def by_label(self, name: str, position: int = 0) -> dict[str, float]:
        """A counter by the values of one of its labels, the others summed."""
        sums: dict[str, float] = {}
        for labels, number in self.counters[name].items():
            sums[labels[position]] = sums.get(labels[position], 0) + number
        return sums

    def distributions(self) -> Mapping[str, Mapping[Labels, Histogram | Buckets]]:
        """The histograms by family and labels."""
        return {
            "ask_duration_seconds": self.asks,
            "first_byte_seconds": self.first_bytes,
            "step_duration_seconds": {(step,): found for step, found in self.steps.items()},
            "similarity": {(group,): found for group, found in self.similarities.items()},
            "entry_age_seconds": {(outcome,): found for outcome, found in self.ages.items()},
        }


def durations(found: dict[Labels, Histogram], outcome: str, tier: str) -> Histogram:
    """Those of asks of this outcome and tier; made if they are not there yet."""
    return found.get((outcome, tier)) or found.setdefault((str(outcome), tier), Histogram())


def plain(label: str) -> str:
    """`label` as text that UTF-8 can carry: a lone surrogate would end every later scrape with an error."""
    return str(label).encode("utf-8", "backslashreplace").decode("utf-8")
