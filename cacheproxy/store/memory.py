"""Small bounded in-process tier over Redis: the answers given a moment ago, here.

Least recently used entries go first once `bytes_max` is passed. It holds nothing that Redis does not also hold, so
dropping it at any time is safe; whoever learns that Redis was purged calls `clear`.
Single-threaded by design: only the event loop touches it, and nothing here waits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from cacheproxy.clock import Clock
from cacheproxy.model import Entry, Plan
from cacheproxy.rules.standing import HIT, standing

ENTRY_OVERHEAD_BYTES = 2_000
"""Python objects around one entry, measured with tracemalloc over 10,000 small answers on CPython 3.11 (1.7 kB)."""


@dataclass(frozen=True, slots=True)
class _Held:
    entry: Entry
    size_bytes: int


class Memory:
    """Entries by key. `bytes_max` of 0 switches the tier off."""

    def __init__(self, bytes_max: int, clock: Clock) -> None:
        self._bytes_max = bytes_max
        self._clock = clock
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self.size_bytes = 0
        self.clears = 0
        """How often something was forgotten. What was read from Redis before the last time must not be put."""

    def __len__(self) -> int:
        return len(self._held)

    def get(self, plan: Plan) -> Entry | None:
        """The entry for a plan if it is here, proven to belong to it, young enough, and with all the plan needs."""
        held = self._held.get(plan.key)
        if held is None:
            return None
        entry, now = held.entry, self._clock.now()
        if entry.expires <= now:
            self._drop(plan.key)
            return None
        if standing(entry, plan, now) != HIT:
            return None
        self._held.move_to_end(plan.key)
        return entry

    def touch(self, entry: Entry) -> bool:
        """Whether this very entry is still here; then it was used now. Whoever holds it judges its age."""
        held = self._held.get(entry.key)
        if held is None or held.entry is not entry:
            return False
        self._held.move_to_end(entry.key)
        return True

    def takes(self, size_bytes: int) -> bool:
        """Whether an entry whose stored form has this size can be held: one giant must not push out everything else."""
        return size_bytes + ENTRY_OVERHEAD_BYTES <= self._bytes_max // 8

    def put(self, entry: Entry, size_bytes: int) -> None:
        """Hold an entry whose stored form has `size_bytes`; make room by dropping the least recently used."""
        self._drop(entry.key)
        if not self.takes(size_bytes):
            return
        size_bytes += ENTRY_OVERHEAD_BYTES
        self._held[entry.key] = _Held(entry, size_bytes)
        self.size_bytes += size_bytes
        while self.size_bytes > self._bytes_max:
            self._drop(next(iter(self._held)))

    def resize(self, bytes_max: int) -> None:
        """Hold so much from now on; what is here and too much goes with the next `put`."""
        self._bytes_max = bytes_max

    def clear(self) -> None:
        """Forget everything."""
        self._held.clear()
        self.size_bytes = 0
        self.clears += 1

    def forget_key(self, key: str) -> None:
        """Forget the entry under a key, also one that is just being read from Redis."""
        self._drop(key)
        self.clears += 1

    def forget(self, doomed: Callable[[Entry], bool]) -> None:
        """Forget the entries for which `doomed` says so."""
        for key in [key for key, held in self._held.items() if doomed(held.entry)]:
            self._drop(key)

    def _drop(self, key: str) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            self.size_bytes -= held.size_bytes
