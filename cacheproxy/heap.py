"""When Python looks for garbage in a process that serves: seldom, and only among what came since it was ready.

CPython stops everything to go through all objects that live long: those of this program and its libraries take it 40
to 60 ms, and under load it did so once a second, which was the slowest 1 % of hits. What is there when the process is
ready stays there, so it is not gone through again. Refuses to switch the search off: cycles do arise.
"""

from __future__ import annotations

import gc

YOUNG_MAX, TURNS_MAX, FULL_TURNS = 5_000, 20, 20
"""Objects made, less those freed, before the youngest are gone through; of those turns one in 20 takes the next age
too, and of these one in 20 may take all. CPython's own 700 are what seven asks make."""


def settle() -> None:
    """Take what is there for what stays: it is gone through once more, now, and never again. Takes up to 0.1 s."""
    gc.unfreeze()  # what has become garbage since the last time goes now
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, TURNS_MAX, FULL_TURNS)
