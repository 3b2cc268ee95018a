"""The exact tier of one ask: the process's own memory, then Redis, and whether what lies there may be served.

Refuses to fail: what the cache cannot do is noted in the trail, counted, and nothing was found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cacheproxy.clock import Clock
from cacheproxy.errors import CacheError, EntryCorruptError
from cacheproxy.flow.found import Hit, Looked
from cacheproxy.metrics import Fault
from cacheproxy.model import Entry, Outcome, Plan
from cacheproxy.rules.standing import CHECK_MISMATCH, EXPIRED, HIT, standing
from cacheproxy.store.exact import Exact, Values
from cacheproxy.store.memory import Memory
from cacheproxy.trail import Trail


@dataclass(frozen=True, slots=True)
class LookUp:
    """Where answers are found by key. `fault` counts what went wrong."""

    memory: Memory
    exact: Exact
    fault: Callable[[Fault], None]
    clock: Clock

    async def look(self, plan: Plan, trail: Trail, looked: Looked | None = None) -> Hit | None:
        """The entry for a plan: fresh (`exact`), or expired but good enough if Ollama is away (`stale`).

        What has been looked up for this very plan is not looked up again.
        """
        if looked is not None and looked.plan == plan:
            return looked.hit
        with trail.timed("memory"):
            entry = self.memory.get(plan)
        trail.note("memory", "no" if entry is None else "hit")
        if entry is not None:
            return Hit(entry, Outcome.EXACT, "memory")
        clears = self.memory.clears
        try:
            with trail.timed("exact"):
                stored = await self.exact.get(plan)
        except EntryCorruptError:
            self.fault(Fault.ENTRY_CORRUPT)
            trail.note("exact", "corrupt")
            return None
        except CacheError:
            self.fault(Fault.REDIS_UNAVAILABLE)
            trail.note("exact", "away")
            return None
        if stored.entry is None:
            trail.note("exact", "no")
            return None
        hit = self._judge(stored.entry, stored.values, plan, trail)
        if hit is not None and hit.outcome is Outcome.EXACT and clears == self.memory.clears:
            self.memory.put(hit.entry, stored.size_bytes)
        return hit

    async def holds(self, plan: Plan, values: Values) -> bool | None:
        """Whether Redis holds these values for a plan, letter by letter; None, counted, if it cannot be asked."""
        try:
            return await self.exact.read(plan) == values
        except CacheError:
            self.fault(Fault.REDIS_UNAVAILABLE)
            return None

    def _judge(self, entry: Entry, values: Values, plan: Plan, trail: Trail) -> Hit | None:
        """Whether an entry found by its key is the plan's, young enough, and tells all the plan needs."""
        now = self.clock.now()
        word = standing(entry, plan, now)
        trail.note("exact", word)
        if word == CHECK_MISMATCH:
            self.fault(Fault.CHECK_MISMATCH)
        if word == HIT:
            return Hit(entry, Outcome.EXACT, "redis", values=values)
        stale = word == EXPIRED and now - entry.expires <= plan.stale_if_error_s
        return Hit(entry, Outcome.STALE, "redis") if stale else None
