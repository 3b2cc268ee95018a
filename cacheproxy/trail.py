"""What happened to one ask, step by step: `memory:no exact:no upstream:200`.

The log, the debug header and the tests read it; the metrics get each step's time. A note is one word of the code's
own, never prompt text; only `neighbour` may hold some, where `log.prompts` allows it.
"""

from __future__ import annotations

from collections.abc import Callable

from cacheproxy.clock import Clock
from cacheproxy.model import Neighbour


class Trail:
    """The steps of one ask. `on_step` gets each timed step's name and its seconds; without it `tell_to` does, later."""

    def __init__(self, clock: Clock, on_step: Callable[[str, float], None] | None = None) -> None:
        self._clock = clock
        self._on_step = on_step
        self._untold: list[tuple[str, float]] = []
        self._notes: list[str] = []
        self.began = clock.monotonic()
        self.timings_s: dict[str, float] = {}
        """By step; of one that was taken twice, the last time."""
        self.neighbour: Neighbour | None = None
        """What was weighed by meaning, if anything was."""
        self.first_byte_s: float | None = None
        """When the reply's body began, in seconds since the ask came in; None for one that goes out in one go."""

    def tell_to(self, on_step: Callable[[str, float], None]) -> None:
        """Tell the steps to this from now on, and those that were told to nobody until now."""
        self._on_step = on_step
        untold, self._untold = self._untold, []
        for step, seconds in untold:
            on_step(step, seconds)

    def note(self, step: str, result: str) -> None:
        """Add `step:result`."""
        self._notes.append(f"{step}:{result}")

    def timed(self, step: str) -> _Timed:
        """Context that times what happens inside as one step, also when it raises."""
        return _Timed(self, step, self._clock)

    def mark(self, step: str, seconds: float) -> None:
        """Record a step that was timed elsewhere."""
        self.timings_s[step] = seconds
        if self._on_step is None:
            self._untold.append((step, seconds))
        else:
            self._on_step(step, seconds)

    def first_byte(self) -> None:
        """The first byte of the reply's body goes out now, unless one did before."""
        if self.first_byte_s is None:
            self.first_byte_s = self.elapsed_s()

    def elapsed_s(self) -> float:
        """Seconds since the ask came in."""
        return self._clock.monotonic() - self.began

    def __str__(self) -> str:
        return " ".join(self._notes)


class _Timed:
    """One timed step. A class, for a generator as context costs three times as much, several times an ask."""

    __slots__ = ("_began", "_clock", "_step", "_trail")

    def __init__(self, trail: Trail, step: str, clock: Clock) -> None:
        self._trail = trail
        self._step = step
        self._clock = clock
        self._began = 0.0

    def __enter__(self) -> None:
        self._began = self._clock.monotonic()

    def __exit__(self, *_: object) -> None:
        self._trail.mark(self._step, self._clock.monotonic() - self._began)
