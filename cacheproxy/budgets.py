"""Latency budgets: what a step of an ask may take, and a line in the log when steps take longer.

A budget is no deadline: nothing is cut short by it. It says which step to look at, before a user does.
The counting is `Metrics`'; here is the decision, and the line once a minute. Refuses to log each breach: a step that is
slow is slow thousands of times.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from cacheproxy.behind import Behind

_log = logging.getLogger("cacheproxy")

LINE_S = 60.0
"""Between two lines."""


@dataclass(frozen=True, slots=True)
class Budgets:
    """Limits in seconds by step; a step that is not in it has none."""

    limits_s: Mapping[str, float]

    @classmethod
    def of(cls, limits_s: Mapping[str, float]) -> Budgets:
        """From settings, in which 0 stands for none."""
        return cls({step: limit for step, limit in limits_s.items() if limit > 0})

    def broken(self, step: str, seconds: float) -> bool:
        """Whether a step took longer than it may."""
        limit = self.limits_s.get(step)
        return limit is not None and seconds > limit


NONE = Budgets({})


@dataclass(frozen=True, slots=True)
class Breaches:
    """Of one step since the last line."""

    count: int = 0
    worst_s: float = 0.0

    def and_one(self, seconds: float) -> Breaches:
        """With one more."""
        return Breaches(self.count + 1, max(self.worst_s, seconds))


def line(found: Mapping[str, Breaches], budgets: Budgets) -> str:
    """What the log says of a minute's breaches: the step, its limit, how many, and the worst."""
    return "; ".join(
        f"{step} {breaches.count}x over {_shown(budgets.limits_s[step])}, at worst {_shown(breaches.worst_s)}"
        for step, breaches in found.items()
    )


class Watch:
    """Gathers breaches and logs them once a minute. `note` listens on `Metrics.on_breach`."""

    def __init__(self, budgets: Budgets) -> None:
        self._budgets = budgets
        self._found: dict[str, Breaches] = {}
        self._behind = Behind(self._tell, LINE_S, "budgets")

    def use(self, budgets: Budgets) -> None:
        """Other limits hold from now on; what was gathered under the old ones is told first."""
        self.tell()
        self._budgets = budgets

    def note(self, step: str, seconds: float) -> None:
        """A step took longer than its budget."""
        self._found[step] = self._found.get(step, Breaches()).and_one(seconds)

    def tell(self) -> None:
        """Log what was gathered since the last line; nothing where nothing was."""
        found, self._found = self._found, {}
        if found:
            _log.warning("over budget: %s", line(found, self._budgets))

    async def open(self) -> None:
        """Begin to log once a minute; returns at once."""
        self._behind.start()

    async def close(self) -> None:
        """Log what is left. Safe to call twice."""
        await self._behind.stop()
        self.tell()

    async def _tell(self) -> None:
        self.tell()


def _shown(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
