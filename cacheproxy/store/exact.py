"""Entries by key: one Redis hash an answer, written whole with its lifetime, found by its name.

A script writes hash and lifetime together, and only if nobody has purged since the answer was asked for: so an entry
never lacks its end, and one whose write was given up, yet is done late, never outlives a purge. A hit does not prolong
it. With Redis Cluster every command names one key, and a MULTI takes the script's place. Only purging scans.
Raises CacheError only; callers go on without the cache.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from cacheproxy.errors import CacheError, EntryCorruptError, StoreUnavailableError
from cacheproxy.model import Entry, Plan
from cacheproxy.store import entry as entry_codec
from cacheproxy.store import keys
from cacheproxy.store.connection import Connection
from cacheproxy.store.epoch import NONE
from cacheproxy.store.line import Command

MANY = 64
"""Entries read in one round trip: 3 MB of vectors of 4,096 numbers, which come well within the deadline."""
LARGE_BYTES = 256 * 1024
"""A longer entry is written beside what asks send, which would else wait behind it."""
WRITE = """
local epoch = redis.call('GET', KEYS[2])
if epoch ~= ARGV[1] then return epoch end
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('SET', KEYS[1], '')
  redis.call('DEL', KEYS[1])
end
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
local ends = redis.pcall('PEXPIRE', KEYS[1], ARGV[2])
if type(ends) == 'table' and ends.err then
  redis.call('DEL', KEYS[1])
  return ends
end
return epoch
"""
"""Keys: entry, epoch. Arguments: epoch, lifetime in ms, fields. Epochs are compared letter by letter: a missing one
equals none, and nothing equals ours that `epoch.number` would read otherwise. The SET is there to be refused by a full
Redis, which would let a script go on that has deleted something. An entry that may not be given an end is taken
back."""
LIFETIME_MS_MAX = 10**15
"""Thirty thousand years: Redis counts milliseconds in 64 bits."""


Values: TypeAlias = list[bytes | None]
"""Of an entry's fields, in the codec's order; all None where there is no entry."""


class Stored(NamedTuple):
    """What was read under a key."""

    entry: Entry | None
    size_bytes: int
    values: Values
    """As they were read."""


@dataclass(frozen=True, slots=True)
class Doomed:
    """Which entries to delete: those for which every given field matches; none given means all."""

    entry_id: str = ""
    digest: str = ""
    partition: str | None = None
    made_before: float | None = None
    """Unix time, s."""


class Exact:
    """The exact tier over one connection. `prefix` is `redis.prefix`."""

    def __init__(self, connection: Connection, prefix: str) -> None:
        self._connection = connection
        self._prefix = prefix
        self._dropping: set[asyncio.Task[None]] = set()

    @property
    def epoch(self) -> int:
        """Another after every purge, by any proxy, and after a loss of data; what was asked for in another is not kept.

        Another proxy's purge is heard of within a second, by whoever wants to put an entry at once.
        """
        return self._connection.epoch

    def read(self, plan: Plan) -> Awaitable[Values]:
        """What Redis holds under the plan's key, as it is. Raises StoreUnavailableError."""
        return self._connection.ask(*_look_up(plan))

    async def get(self, plan: Plan) -> Stored:
        """The entry under the plan's key, unproven and perhaps expired; None if there is none.

        Raises StoreUnavailableError, or EntryCorruptError, behind which the key is deleted.
        """
        values = await self.read(plan)
        try:
            return Stored(*_entry(plan.key, values), values)
        except EntryCorruptError:
            await self._drop_behind([plan.key])
            raise

    async def get_many(self, plans: Sequence[Plan]) -> tuple[list[tuple[Entry | None, int]], int]:
        """As `get` for each plan, in order, `MANY` in one round trip; the second value counts corrupt entries.

        Those are None, and their keys are deleted behind this. Raises StoreUnavailableError.
        """
        found: list[tuple[Entry | None, int]] = []
        corrupt: list[str] = []
        for start in range(0, len(plans), MANY):
            await self._read(plans[start : start + MANY], found, corrupt)
        if corrupt:
            await self._drop_behind(corrupt)
        return found, len(corrupt)

    async def _read(self, plans: Sequence[Plan], found: list[tuple[Entry | None, int]], corrupt: list[str]) -> None:
        commands = [_look_up(plan) for plan in plans]
        for plan, values in zip(plans, await self._connection.ask_all(commands), strict=True):
            try:
                found.append(_entry(plan.key, values))
            except EntryCorruptError:
                found.append((None, 0))
                corrupt.append(plan.key)

    async def _drop_behind(self, keys: Sequence[str]) -> None:
        """Delete corrupt entries, if Redis will. It is sent, and so before what is put later; nobody waits for it."""
        task = asyncio.create_task(self._drop(keys))
        self._dropping.add(task)
        task.add_done_callback(self._dropping.discard)
        await asyncio.sleep(0)

    async def _drop(self, keys: Sequence[str]) -> None:
        with contextlib.suppress(CacheError):
            await self._connection.ask_all([("UNLINK", key) for key in keys])

    async def put(self, entry: Entry, *, stale_s: float, epoch: int) -> int | None:
        """Write an entry, to be forgotten `stale_s` after it expires; its size in bytes.

        `epoch` is that in which its answer was asked for. If it has passed, some proxy has purged since, maybe too
        early to find this entry: then nothing is written, and the result is None.
        Raises StoreUnavailableError, also where no epoch was known then; Redis holds the entry whole or not at all, and
        not after a purge.
        """
        if epoch == NONE:
            raise StoreUnavailableError("redis had told no epoch when this was asked for")
        fields = entry_codec.encode(entry)
        lifetime_ms = round(min(max((entry.expires - entry.made + stale_s) * 1000, 1), LIFETIME_MS_MAX))
        size_bytes = entry_codec.size_bytes(fields)
        parts = [part for field in fields.items() for part in field]
        if self._connection.one_server:
            large = size_bytes > LARGE_BYTES
            kept = await self._connection.write(WRITE, entry.key, lifetime_ms, *parts, epoch=epoch, large=large)
        else:
            kept = await self._put_in_cluster(entry.key, lifetime_ms, parts, epoch)
        return size_bytes if kept else None

    async def _put_in_cluster(self, key: str, lifetime_ms: int, parts: Sequence[str | bytes], epoch: int) -> bool:
        """The same where the epoch lies on another server: what was written too late is taken back."""
        commands: tuple[Command, ...] = (("DEL", key), ("HSET", key, *parts), ("PEXPIRE", key, lifetime_ms))
        await self._connection.ask_all(commands, atomic=True)
        if await self._connection.read_epoch() == epoch:
            return True
        await self.delete(key)
        return False

    async def delete(self, key: str) -> None:
        """Delete the entry of this key. Raises StoreUnavailableError."""
        await self._connection.ask("UNLINK", key)

    async def purge(self, doomed: Doomed) -> int:
        """Delete entries; return how many. Answers being fetched meanwhile are not kept, by any proxy.

        The epoch moves before and after: an answer that comes too late to be found is then not written, and a copy that
        was read too early is forgotten.
        Raises StoreUnavailableError; what was deleted until then stays deleted.
        """
        await self._connection.bump_epoch()
        deleted = 0
        pattern = keys.pattern(self._prefix, entry_id=doomed.entry_id, digest=doomed.digest)
        found = [key async for step in keys.scanned(self._connection, pattern) for key in step]
        for start in range(0, len(found), keys.SCAN_COUNT):
            some = found[start : start + keys.SCAN_COUNT]
            if doomed.partition is not None or doomed.made_before is not None:
                some = await self._looked_into(some, doomed)
            deleted += await self._delete(some)
        await self._connection.bump_epoch()
        return deleted

    async def _looked_into(self, some: list[bytes], doomed: Doomed) -> list[bytes]:
        """Those of the keys whose entries match in what their names do not tell."""
        facts = await keys.asked(self._connection, [("HMGET", key, "partition", "made") for key in some])
        return [key for key, (partition, made) in zip(some, facts, strict=True) if _dooms(doomed, partition, made)]

    async def _delete(self, some: list[bytes]) -> int:
        return sum(await keys.asked(self._connection, [("UNLINK", key) for key in some]))


def _dooms(doomed: Doomed, partition: bytes | None, made: bytes | None) -> bool:
    if doomed.partition is not None and partition != doomed.partition.encode():
        return False
    try:
        return doomed.made_before is None or float(made or b"nan") < doomed.made_before
    except ValueError:  # a foreign writer's
        return False


def _look_up(plan: Plan) -> Command:
    return ("HMGET", plan.key, *entry_codec.FIELDS)


def _entry(key: str, values: Sequence[bytes | None]) -> tuple[Entry | None, int]:
    """What was read under a key, with its size in bytes. Raises EntryCorruptError."""
    if values[0] is None and values[1] is None:  # neither version nor answer
        return None, 0
    return entry_codec.decode_values(key, values), sum(map(len, filter(None, values)))
