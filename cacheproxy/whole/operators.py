"""What operators do to all that is stored: entries taken out and listed, opinions on hits acted upon.

What is forgotten is forgotten everywhere: in Redis, in memory here, and at the fronts. Refuses to know the pages that
ask for it (`edge/entries.py`, `edge/opinions.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cacheproxy.clock import Clock
from cacheproxy.edge.entries import Query, Selection
from cacheproxy.edge.opinions import Opinion
from cacheproxy.flow.feedback import Feedback
from cacheproxy.metrics import Metrics
from cacheproxy.store.exact import Doomed, Exact
from cacheproxy.store.memory import Memory
from cacheproxy.store.shelf import Listing, Shelf, Wanted
from cacheproxy.upstream.catalog import Catalog
from cacheproxy.workers.fronts import Fronts


@dataclass(frozen=True, slots=True)
class Operators:
    """The callables behind the operator's pages that change or list entries."""

    exact: Exact
    memory: Memory
    shelf: Shelf
    fronts: Fronts
    models: Catalog
    feedback: Feedback
    metrics: Metrics
    clock: Clock

    async def purge(self, selection: Selection) -> int:
        """Delete entries from Redis and forget them here. Raises CacheError."""
        doomed = self._doomed(selection)
        if not doomed:
            return 0
        self.memory.clear()
        try:
            return sum([await self.exact.purge(each) for each in doomed])
        finally:
            self.memory.clear()
            await self.fronts.clear()

    def _doomed(self, selection: Selection) -> list[Doomed]:
        """What the store must delete; nothing for a model nobody has installed."""
        match selection.by:
            case "model":
                return [Doomed(digest=digest) for digest in self.models.digests(selection.value)]
            case "id":
                return [Doomed(entry_id=selection.value)]
            case "partition":
                return [Doomed(partition=selection.value)]
            case "older":
                return [Doomed(made_before=self.clock.now() - int(selection.value))]
            case "all":
                return [Doomed()]

    async def list_entries(self, query: Query) -> Listing | None:
        """The newest entries; None for a model nobody has installed. Raises CacheError."""
        digests = frozenset(self.models.digests(query.model)) if query.model else frozenset()
        if query.model and not digests:
            return None
        return await self.shelf.newest(query.limit, Wanted(digests, query.question))

    async def take_feedback(self, opinion: Opinion) -> dict[str, Any] | None:
        """Act on what somebody said of a hit; None if nothing is known of it. Raises CacheError."""
        if opinion.good:
            self.metrics.feedback(good=True)
            return {}
        try:
            deleted, apart = await self.feedback.bad(opinion.entry, opinion.question)
        finally:
            await self.fronts.clear()
        if not deleted and not apart:
            return None
        self.metrics.feedback(good=False)
        return {"deleted": deleted, "kept_apart": apart}
