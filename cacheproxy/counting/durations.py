"""A histogram of durations: fixed memory, any percentile, and Prometheus's buckets as exact sums.

Refuses nothing it is given: a figure that no duration can have is counted as the nearest that one can.
"""

from __future__ import annotations

import math

PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


class Histogram:
    """Durations in log-linear bins: fixed memory (8 kB), any percentile within 1.6 % from 1 µs to 2.3 h.

    Each doubling of a millisecond is cut into 32 equal bins, so a bin is at most 1/32 of its lower bound wide and its
    middle is at most 1/64 off. A bin holds (lower, upper], as Prometheus's `le` demands; bounds that are powers of two
    of a millisecond are bounds of bins, so the exported buckets are exact sums.
    """

    BINS_PER_DOUBLING = 32
    LOWEST_EXPONENT = -10
    HIGHEST_EXPONENT = 23
    LONGEST_S = 2.0**HIGHEST_EXPONENT / 1000
    SHORTEST_S = 2.0**LOWEST_EXPONENT / 1000
    BOUNDS_MS = tuple(2.0**exponent for exponent in range(-3, 20))
    """Upper bounds of the exported buckets: 0.125 ms to 524 s, each twice the last."""

    __slots__ = ("bins", "count", "longest_s", "total_s")

    def __init__(self) -> None:
        doublings = self.HIGHEST_EXPONENT - self.LOWEST_EXPONENT
        self.bins = [0] * (doublings * self.BINS_PER_DOUBLING + 1)
        self.count = 0
        self.total_s = 0.0
        self.longest_s = 0.0

    def record(self, seconds: float, count: int = 1) -> None:
        """Count a duration so many times.

        What is negative or not a number counts as 0, what is too long as the longest.
        """
        if not 0.0 <= seconds <= self.LONGEST_S:
            seconds = self.LONGEST_S if seconds > 0 else 0.0
        self.bins[bin_of(seconds)] += count
        self.count += count
        self.total_s += seconds * count
        self.longest_s = max(self.longest_s, seconds)

    @property
    def total(self) -> float:
        """Seconds of all together."""
        return self.total_s

    def percentile(self, share: float) -> float | None:
        """Duration in seconds that `share` (0..1) of those recorded did not exceed; None when there are none."""
        if not self.count:
            return None
        rank = max(1, math.ceil(share * self.count))
        seen = 0
        for index, number in enumerate(self.bins):
            seen += number
            if seen >= rank:
                return min(self._middle_s(index), self.longest_s)
        raise AssertionError("the bins always add up to the count")

    def buckets(self) -> list[tuple[str, float]]:
        """Upper bound in seconds and cumulative count, as Prometheus wants them."""
        found: list[tuple[str, float]] = []
        seen, start = 0, 0
        for bound_ms in self.BOUNDS_MS:
            end = bin_of(bound_ms / 1000) + 1
            seen += sum(self.bins[start:end])
            start = end
            found.append((repr(bound_ms / 1000), seen))
        found.append(("+Inf", self.count))
        return found

    def summary(self) -> dict[str, float | None]:
        """Count, mean, percentiles and longest, all in seconds, since the start of the process."""
        figures: dict[str, float | None] = {
            "count": self.count,
            "mean_s": self.total_s / self.count if self.count else None,
        }
        for name, share in PERCENTILES.items():
            figures[f"{name}_s"] = self.percentile(share)
        figures["longest_s"] = self.longest_s
        return figures

    def _middle_s(self, index: int) -> float:
        if index == 0:
            return self.SHORTEST_S
        doubling, within = divmod(index - 1, self.BINS_PER_DOUBLING)
        lower_ms = 2.0 ** (doubling + self.LOWEST_EXPONENT)
        return lower_ms * (1 + (within + 0.5) / self.BINS_PER_DOUBLING) / 1000


def bin_of(seconds: float) -> int:
    """Number of the bin of a `Histogram` that counts a duration of 0 to `LONGEST_S` seconds."""
    if seconds <= Histogram.SHORTEST_S:
        return 0
    mantissa, exponent = math.frexp(seconds * 1000.0)
    within = math.ceil((mantissa - 0.5) * (2 * Histogram.BINS_PER_DOUBLING))
    return (exponent - 1 - Histogram.LOWEST_EXPONENT) * Histogram.BINS_PER_DOUBLING + within
