"""Asks by outcome: their sum, the hit rate, and those of the last minutes.

Refuses to be exact to the second: the windows are made of rows of five seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from cacheproxy.clock import Clock
from cacheproxy.model import Outcome

HITS = (Outcome.EXACT, Outcome.SEMANTIC, Outcome.JOINED, Outcome.STALE)
"""Asks that cost Ollama nothing. Hit rate = these / (these + misses); a bypass is in neither."""
WINDOWS_S = {"1m": 60, "5m": 300, "15m": 900}


def hit_rate(outcomes: Mapping[str, float]) -> float | None:
    """Hits / (hits + misses), 0..1; None while there is neither. An outcome that is absent counts as 0."""
    hits = sum(outcomes.get(outcome, 0) for outcome in HITS)
    looked_up = hits + outcomes.get(Outcome.MISS, 0)
    return hits / looked_up if looked_up else None


def totals(found: Mapping[str, float]) -> dict[str, Any]:
    """The number of asks, the hit rate, and the asks of every outcome, those of none included."""
    outcomes = {outcome.value: found.get(outcome, 0) for outcome in Outcome}
    return {"asks": sum(outcomes.values()), "hit_rate": hit_rate(outcomes), "outcomes": outcomes}


class Window:
    """Outcomes of the last quarter of an hour in rows of five seconds; a row without asks is never made."""

    ROW_S = 5

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._start_s = clock.monotonic()
        self._rows: deque[tuple[int, dict[str, int]]] = deque(maxlen=max(WINDOWS_S.values()) // self.ROW_S)
        self._slot = -1
        self._row: dict[str, int] = {}

    def count(self, outcome: Outcome, count: int = 1) -> None:
        """So many asks ended so, now."""
        slot = int(self._clock.monotonic() / self.ROW_S)
        if slot != self._slot:
            self._slot = slot
            self._row = dict.fromkeys(Outcome, 0)
            self._rows.append((slot, self._row))
        self._row[outcome] += count

    def summary(self, length_s: int) -> dict[str, Any]:
        """Asks of the last `length_s` (to within one row) and their rate over the time really covered."""
        now_s = self._clock.monotonic()
        first_slot = int(now_s / self.ROW_S) - length_s // self.ROW_S + 1
        covered_s = now_s - max(first_slot * self.ROW_S, self._start_s)
        outcomes: dict[str, float] = {}
        for slot, row in self._rows:
            if slot >= first_slot:
                for outcome, number in row.items():
                    outcomes[outcome] = outcomes.get(outcome, 0) + number
        found = totals(outcomes)
        # At least a second, so that the first ask of all does not read as thousands a second.
        return {"asks_per_s": found["asks"] / max(covered_s, 1.0), **found}
