"""Who is told how an ask was answered: one decision an ask, told to each listener in turn.

Metrics, the ledger and whatever else counts or shows asks listens here, so that none of them can count another number
of asks than the rest. Refuses to wait and to let a listener's defect reach the ask: it is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeAlias

from cacheproxy.model import Decision

Listener: TypeAlias = Callable[[Decision, int], None]
"""Gets a decision and how many asks were decided so; must not wait, block or keep the caller."""

_log = logging.getLogger("cacheproxy")


class Decisions:
    """Tells decisions to listeners, in the order in which these were added. Event loop's thread only."""

    def __init__(self) -> None:
        self.listeners: list[Listener] = []

    def tell(self, decision: Decision, count: int = 1) -> None:
        """`count` asks ended so. More than one where equal asks were answered alike within a moment."""
        for listener in self.listeners:
            try:
                listener(decision, count)
            except Exception:  # noqa: BLE001 - a defect in counting must not cost the ask its reply
                _log.exception("a listener to decisions failed")
