"""Sums over the last day, forgotten hour by hour.

For figures of which a counter since the start would tell nothing new after a week. Refuses to be exact to the second.
"""

from __future__ import annotations

from collections import deque

from cacheproxy.clock import Clock

HOUR_S = 3600


class Lately:
    """What was added by name in this hour and in the 23 before it."""

    HOURS = 24

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rows: deque[tuple[int, dict[str, int]]] = deque(maxlen=self.HOURS)

    def add(self, name: str, number: int) -> None:
        """Add to a name's sum, now."""
        hour = int(self._clock.monotonic() // HOUR_S)
        if not self._rows or self._rows[-1][0] != hour:
            self._rows.append((hour, {}))
        row = self._rows[-1][1]
        row[name] = row.get(name, 0) + number

    def sum(self, name: str) -> int:
        """The sum of the last day."""
        first = int(self._clock.monotonic() // HOUR_S) - self.HOURS + 1
        return sum(row.get(name, 0) for hour, row in self._rows if hour >= first)
