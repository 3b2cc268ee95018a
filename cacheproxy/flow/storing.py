"""An entry written to Redis, and from there into the process's memory: the same for answers and for vectors.

After a purge nothing older is written, nor does it stay in memory. What cannot be written is counted, never raised:
the caller has his reply. Refuses to decide what is worth storing, and for how long.
"""

from __future__ import annotations

from cacheproxy.config import Cache
from cacheproxy.errors import CacheError
from cacheproxy.metrics import Fault, Metrics
from cacheproxy.model import Entry, Plan
from cacheproxy.store.exact import Exact
from cacheproxy.store.memory import Memory


async def store(
    entry: Entry, plan: Plan, epoch: int, *, exact: Exact, memory: Memory, settings: Cache, metrics: Metrics
) -> bool:
    """Whether the entry was written. `epoch`: of the store when Ollama was asked."""
    clears = memory.clears
    stale_s = max(plan.stale_if_error_s, settings.stale_if_error)
    try:
        known = epoch == exact.epoch  # another proxy's purge may not have been heard of: Redis looks as well
        size_bytes = await exact.put(entry, stale_s=stale_s, epoch=epoch) if known else None
    except CacheError:
        metrics.fault(Fault.STORE_FAILED)
        metrics.not_kept("redis")
        return False
    if size_bytes is None:
        metrics.not_kept("purged")
        return False
    if clears == memory.clears:
        memory.put(entry, size_bytes)
    metrics.kept(size_bytes)
    return True
