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
from cacheproxy.store.served import Pairing, Pairings


@dataclass(frozen=True, slots=True)
class Feedback:
    """The parts of it."""

    exact: Exact
    memory: Memory
    apart: Apart
    served: Pairings
    metrics: Metrics
    clock: Clock

    async def remember(self, entry: Entry, asked: str) -> None:
        """Note that `entry` answered the question `asked`. Never raises; a failure is counted."""
        await self.note(entry.id, entry.scope, entry.question, asked, ttl_s=entry.expires - self.clock.now())

    async def note(self, entry_id: str, scope: str, answered: str, asked: str, *, ttl_s: float) -> None:
        """The same of an entry that may yet be to come: its answer to the question `answered` went to `asked` too."""
        pairing = Pairing(scope, self.apart.hashed(answered), self.apart.hashed(asked))
        try:
            await self.served.put(entry_id, pairing, ttl_s=max(1.0, ttl_s))
        except CacheError:
            self.metrics.fault(Fault.STORE_FAILED)

    async def bad(self, entry_id: str, asked: str | None = None) -> tuple[int, int]:
        """Take an entry out, and keep its question apart from one that it answered. Raises CacheError.

        `asked` is that question, word for word; without it, the one served last, which its caller has just seen.
        Returns how many entries went and how many pairs are now apart. The pair comes first: should the deletion
        fail, the wrong match is over all the same. What was served is forgotten last, so that it can be called again;
        not where the question was named, for somebody else may name another.
        """
        last = await self.served.last(entry_id)
        if last is not None:
            hashed = last.asked if asked is None else self.apart.hashed(asked)
            await self.apart.put(last.stored, hashed, last.scope)
        deleted = await self.exact.purge(Doomed(entry_id=entry_id))
        self.memory.clear()
        if asked is None:
            await self.served.forget(entry_id)
        return deleted, int(last is not None)
