"""Replies that are made in one turn of the event loop, sent together where there are many.

Callers who wait in a system call must be woken for a reply, and who wakes them pays: 18 of the 49 us of processor time
that a hit took with 64 connections, whose caller (on another core) slept again between two of them. Woken once, it
finds several. So under load the first reply of a turn is sent at once and the others when the turn ends: 31,000 hits
a second instead of 20,000 (docs/explain/repeat-lane.md tells how that was measured).

Waiting must not cost more than it saves. A few replies go out as they are made, for those that came first would wait
for those that came last. And so do all, where turns have more to do than to answer hits and their ends come late.
Refuses to know what is sent, and to whom.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Protocol

from cacheproxy.counting.faults import Fault
from cacheproxy.edge.contained import contained

MANY = 20
"""Replies wait for the others if turns had so many of late. Bursts of 16 hits beside 24 streams gained nothing by it:
those that were sent together came after 0.6 ms instead of 0.5 at the median, 2.8 instead of 1.8 for the slowest 1 %."""
TOGETHER_MAX = 32
"""With hits alone, at 30 us each, the first of so many waits for a millisecond; 8 made 29,000 hits/s of the 33,000."""
LATE_S = 0.0005
"""Replies wait for the ends of turns if these came, of late, no longer than this after the last reply. With hits alone
it is 4 us in 9 of 10 turns, and up to a millisecond when hits are told to counters."""
LATELY = 8
"""So many turns make up what was of late, the last ones weighing most."""

_FAILED = "a reply from the outbox failed"


class Sender(Protocol):
    """Who has a reply to send."""

    def send(self) -> Callable[[], None]:
        """Send it, unless nobody is there any more; returns what counts it."""
        ...


class Outbox:
    """Of one listening port. Event loop's thread only. What a sender or a count raises harms no other.

    `fault` counts that. `now_s` gives seconds that go on within a turn of the loop, as uvloop's own clock does not.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        fault: Callable[[Fault], None],
        now_s: Callable[[], float] = perf_counter,
    ) -> None:
        self._loop = loop
        self._fault = fault
        self._now_s = now_s
        self._waiting: list[Sender] = []
        self._in_turn = 0
        """Replies in the present turn, and"""
        self._last_s = 0.0
        """when the last of them was made."""
        self._count = self._late_s = 0.0
        """Replies in a turn of late, and how long after the last of them its end came."""

    def add(self, sender: Sender) -> None:
        """Have it send its reply, now or when this turn of the loop ends, and count it then."""
        self._last_s = self._now_s()
        self._in_turn += 1
        if self._in_turn == 1:
            self._loop.call_soon(self._end_turn)
            self._send([sender])
        elif self._count < MANY or self._late_s > LATE_S:
            self._send([sender])
        else:
            self._waiting.append(sender)
            if len(self._waiting) >= TOGETHER_MAX:
                self.flush()

    def flush(self) -> None:
        """Send all that waits, in the order in which it came; what is counted is counted behind the last."""
        waiting, self._waiting = self._waiting, []
        self._send(waiting)

    def _end_turn(self) -> None:
        self._count += (self._in_turn - self._count) / LATELY
        self._late_s += (self._now_s() - self._last_s - self._late_s) / LATELY
        self._in_turn = 0
        self.flush()

    def _send(self, senders: list[Sender]) -> None:
        for tell in [contained(self._fault, _FAILED, sender.send) for sender in senders]:
            if tell is not None:
                contained(self._fault, _FAILED, tell)
