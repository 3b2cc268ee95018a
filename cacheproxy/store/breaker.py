"""When to stop asking a Redis that does not answer, and when to try again. No I/O, no async, no randomness of its own.

    closed ──5 failures in a row, or more than half of the last 20──► open ──its time is over──► half-open
       ▲                                                               ▲                            │
       │                                                               └────── the probe fails ─────┤
       └──────────────────────────────────── the probe succeeds ────────────────────────────────────┘

Every permitted call holds a ticket and hands it back with `succeeded`, `failed` or `cancelled`. A ticket is void once
the state has changed, so a late result of an older time can neither open, close nor prolong anything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import StrEnum

from cacheproxy.clock import Clock

FAILURES_IN_A_ROW = 5
"""So many failures one after the other open the breaker: few enough that a dead Redis costs five deadlines."""
WINDOW = 20
"""Results remembered; when full, more than half of them failing opens the breaker too."""
OPEN_S = 0.25
"""First time without calls; each failed probe doubles it."""
OPEN_S_MAX = 5.0
PROBE_S_MAX = 5.0
"""A probe that has not reported by then is taken for lost, and another one may go."""

_JITTER = 0.2


class State(StrEnum):
    """What a breaker lets through: everything, nothing, or one probe."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """Counts results of calls and says whether the next one may go.

    `random` returns 0..1 and shortens each open time by up to a fifth, so that many proxies do not probe in step.
    `on_change` is called once when it opens and once when it closes, not for the probes between.
    """

    def __init__(
        self,
        clock: Clock,
        random: Callable[[], float],
        on_change: Callable[[State], None] = lambda _state: None,
        *,
        open_s: float = OPEN_S,
        open_s_max: float = OPEN_S_MAX,
    ) -> None:
        self._clock = clock
        self._random = random
        self._on_change = on_change
        self._open_s_first = open_s
        self._open_s_max = open_s_max
        self._open_s = open_s
        self._state = State.CLOSED
        self._until = 0.0
        self._ticket = 0
        self._failures = 0
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self.opened = 0
        """How often it went from closed to open."""

    @property
    def state(self) -> State:
        """The present state; it only changes inside the other methods."""
        return self._state

    @property
    def wait_s(self) -> float:
        """Seconds until the next probe may go; 0 when a call may go now."""
        return 0.0 if self._state is State.CLOSED else max(0.0, self._until - self._clock.monotonic())

    def admit(self) -> int | None:
        """A ticket for one call, or None: do not call. In the open state the first to come after its end probes."""
        if self._state is State.CLOSED:
            return self._ticket
        if self._clock.monotonic() < self._until:
            return None
        self._become(State.HALF_OPEN, PROBE_S_MAX)
        return self._ticket

    def succeeded(self, ticket: int) -> None:
        """The call was answered, if only with a refusal: Redis is there."""
        if ticket != self._ticket:
            return
        if self._state is State.HALF_OPEN:
            self._open_s = self._open_s_first
            self._become(State.CLOSED, 0.0)
            self._on_change(State.CLOSED)
            return
        self._failures = 0
        self._recent.append(True)

    def failed(self, ticket: int) -> None:
        """The call was not answered in time, or Redis said that it cannot serve anyone now."""
        if ticket != self._ticket:
            return
        if self._state is State.HALF_OPEN:
            self._open_s = min(self._open_s * 2, self._open_s_max)
            self._become(State.OPEN, self._jittered())
            return
        self._failures += 1
        self._recent.append(False)
        if self._failures >= FAILURES_IN_A_ROW or (len(self._recent) == WINDOW and sum(self._recent) < WINDOW / 2):
            self.trip()

    def cancelled(self, ticket: int) -> None:
        """The caller left before an answer: no evidence either way. A cancelled probe makes room for the next one."""
        if ticket == self._ticket and self._state is State.HALF_OPEN:
            self._become(State.OPEN, 0.0)

    def trip(self) -> None:
        """Open now, without waiting for more failures. Does nothing unless closed."""
        if self._state is not State.CLOSED:
            return
        self.opened += 1
        self._become(State.OPEN, self._jittered())
        self._on_change(State.OPEN)

    def _become(self, state: State, for_s: float) -> None:
        self._state = state
        self._until = self._clock.monotonic() + for_s
        self._ticket += 1
        self._failures = 0
        self._recent.clear()

    def _jittered(self) -> float:
        return self._open_s * (1 - _JITTER * self._random())
