"""A histogram over given bounds, for what is no duration: similarities, ages.

Fixed memory, one bisection a figure. Refuses percentiles: its bounds are too coarse for them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


class Buckets:
    """Counts of figures by upper bound. `bounds` go up; what lies beyond the last is counted all the same."""

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        """The sum of all figures."""

    def record(self, figure: float, count: int = 1) -> None:
        """Count a figure so many times; one that equals a bound lies below it, as Prometheus's `le` demands."""
        self._counts[bisect_left(self._bounds, figure)] += count
        self.total += figure * count

    def buckets(self) -> list[tuple[str, float]]:
        """Upper bound and cumulative count, as Prometheus wants them."""
        found: list[tuple[str, float]] = []
        seen = 0
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            seen += count
            found.append(("+Inf" if bound == float("inf") else repr(bound), seen))
        return found
