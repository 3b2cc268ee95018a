"""What became of the calls to Redis, counted so that the sums add up."""

from __future__ import annotations

from dataclasses import dataclass

from cacheproxy.store.pool import Bounded


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts since the start."""

    calls: int
    """All `ask`s, `write`s and `run`s: = answered + refused + failed + not_tried + left."""
    answered: int
    refused: int
    """Redis refused the command (StoreRefusedError)."""
    failed: int
    """No answer in time, no connection, or Redis serves nobody."""
    not_tried: int
    """Turned away at once because the breaker was open."""
    left: int
    """Cancelled by their caller, ended by an error of the caller's own code, or under way when it was closed."""
    breaker_opened: int
    contacts: int
    """First contacts and those after a break."""
    connections_idle: int
    connections_used: int
    """Of the pool: the two lines come on top. Both 0 with a cluster, whose client keeps its own."""


@dataclass(slots=True)
class Counts:
    """The same while they grow."""

    answered: int = 0
    refused: int = 0
    failed: int = 0
    not_tried: int = 0
    left: int = 0
    contacts: int = 0

    def told(self, breaker_opened: int, pool: Bounded | None) -> Statistics:
        """The counts as they are now."""
        return Statistics(
            calls=self.answered + self.refused + self.failed + self.not_tried + self.left,
            answered=self.answered,
            refused=self.refused,
            failed=self.failed,
            not_tried=self.not_tried,
            left=self.left,
            breaker_opened=breaker_opened,
            contacts=self.contacts,
            connections_idle=pool.idle if pool else 0,
            connections_used=pool.used if pool else 0,
        )
