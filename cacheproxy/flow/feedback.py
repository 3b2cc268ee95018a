"""What people say of semantic hits: a bad one is taken out, and its pair of questions is never matched again.

Refuses to learn from praise: it is counted, and moves no threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

from cacheproxy.clock import Clock
from cacheproxy.errors import CacheError
from cacheproxy.metrics import Fault, Metrics
from cacheproxy.model import Entry
from cacheproxy.store.apart import Apart
from cacheproxy.store.exact import Doomed, Exact
from cacheproxy.store.memory import Memory
from cacheproxy.store.served import Pairing, Served


@dataclass(frozen=True, slots=True)
class Feedback:
    """The parts of it."""

    exact: Exact
    memory: Memory
    apart: Apart
    served: Served
    metrics: Metrics
    clock: Clock

    async def remember(self, entry: Entry, asked: str) -> None:
        """Note that `entry` answered the question `asked`. Never raises; a failure is counted."""
        pairing = Pairing(entry.scope, self.apart.digest(entry.question), self.apart.digest(asked))
        try:
            await self.served.put(entry.id, pairing, ttl_s=max(1.0, entry.expires - self.clock.now()))
        except CacheError:
            self.metrics.fault(Fault.STORE_FAILED)

    async def bad(self, entry_id: str) -> tuple[int, int]:
        """Take an entry out, and keep its question apart from all that it answered. Raises CacheError.

        Returns how many entries went and how many pairs are now apart. The pairs come first: should the deletion
        fail, the wrong match is over all the same. They are forgotten last, so that it can be called again.
        """
        pairings = await self.served.get(entry_id)
        for pairing in pairings:
            await self.apart.put(pairing.stored, pairing.asked, pairing.scope)
        deleted = await self.exact.purge(Doomed(entry_id=entry_id))
        self.memory.clear()
        await self.served.forget(entry_id)
        return deleted, len(pairings)
