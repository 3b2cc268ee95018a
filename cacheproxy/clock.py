"""The two clocks the program reads, as one argument.

Decisions about age and expiry take wall time (they are compared across machines); durations and deadlines take
monotonic time (they must not jump). Everything that needs a clock is given one, so tests give a `FakeClock`.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Source of time. Both methods return seconds and never raise."""

    def now(self) -> float:
        """Unix time in seconds."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never goes back."""
        ...


class SystemClock:
    """The machine's clocks. An ask reads them a dozen times, so nothing stands between."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
