"""Bounds on elapsed time that a machine busy with others does not break.

A thread sleeps a moment again and again; by how much it oversleeps is time in which the machine ran nothing of this
process, and the stopwatch leaves it out. What the event loop is held up by counts: the thread goes on meanwhile.
"""

from __future__ import annotations

import threading
import time

_NAP_S = 0.01
_LATE_S = 0.02
"""Oversleeping by less is how threads are, more so while another one holds Python's lock."""

_stalled_s = 0.0


def now() -> float:
    """Monotonic seconds, of which those do not count in which this process got no processor."""
    return time.monotonic() - _stalled_s


class Stopwatch:
    """Runs from the moment it is made."""

    def __init__(self) -> None:
        self._began = now()

    @property
    def seconds(self) -> float:
        """Since then; see `now`."""
        return max(0.0, now() - self._began)


def _watch() -> None:
    global _stalled_s  # noqa: PLW0603 - the machine is one for all tests of a process
    while True:
        began = time.monotonic()
        time.sleep(_NAP_S)
        late_s = time.monotonic() - began - _NAP_S
        if late_s > _LATE_S:
            _stalled_s += late_s


threading.Thread(target=_watch, name="stopwatch", daemon=True).start()
