"""Entries by key: one Redis hash an answer, written whole with its lifetime, found by its name.

Hash and lifetime are written in one MULTI, so a crash between them cannot leave an entry that never dies; a hit does
not prolong it. Every command names one key, so Redis Cluster works as it is. Only purging scans.
Raises CacheError only; callers go on without the cache.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any, cast

from redis.asyncio import Redis

from cacheproxy.errors import EntryCorruptError
from cacheproxy.model import Entry, Plan
from cacheproxy.store import entry as entry_codec
from cacheproxy.store.connection import Connection
from cacheproxy.store.line import Command

SCAN_COUNT = 500
"""Keys looked at in one step of a purge: about 0.2 ms of Redis's time each, so others are not held up."""
PURGE_TIMEOUT_S = 5.0
"""Deadline of one step of a purge, which is an operator's call and may take longer than an ask's look-up."""
MANY = 64
"""Entries read in one round trip: 3 MB of vectors of 4,096 numbers, which come well within the deadline."""


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

    @property
    def epoch(self) -> int:
        """Grows with every purge, by any proxy; an answer asked for in an older epoch is not kept.

        Another proxy's purge is heard of within a second, by whoever has put an entry at once.
        """
        return self._connection.epoch

    @staticmethod
    def proves(entry: Entry, plan: Plan) -> bool:
        """Whether an entry is the plan's: equal keyed digest and equal partition."""
        return compare_digest(entry.check, plan.check) and entry.partition == plan.partition

    async def get(self, plan: Plan) -> tuple[Entry | None, int]:
        """The entry under the plan's key, unproven and perhaps expired, with its size in bytes; None if there is none.

        Raises StoreUnavailableError, or EntryCorruptError, after which the key is gone.
        """
        values = await self._connection.ask(*_look_up(plan))
        try:
            return _entry(plan.key, values)
        except EntryCorruptError:
            await self.delete(plan.key)
            raise

    async def get_many(self, plans: Sequence[Plan]) -> tuple[list[tuple[Entry | None, int]], int]:
        """As `get` for each plan, in order, `MANY` in one round trip; the second value counts corrupt entries.

        Those are None, and their keys are gone. Raises StoreUnavailableError.
        """
        found: list[tuple[Entry | None, int]] = []
        corrupt: list[bytes] = []
        for start in range(0, len(plans), MANY):
            await self._read(plans[start : start + MANY], found, corrupt)
        if corrupt:
            await self._delete(corrupt)
        return found, len(corrupt)

    async def _read(self, plans: Sequence[Plan], found: list[tuple[Entry | None, int]], corrupt: list[bytes]) -> None:
        commands = [_look_up(plan) for plan in plans]
        for plan, values in zip(plans, await self._connection.ask_all(commands), strict=True):
            try:
                found.append(_entry(plan.key, values))
            except EntryCorruptError:
                found.append((None, 0))
                corrupt.append(plan.key.encode())

    async def put(self, entry: Entry, *, stale_s: float) -> tuple[int, int]:
        """Write an entry, to be forgotten `stale_s` after it expires; its size in bytes, and the epoch afterwards.

        If the answer was asked for in another epoch, some proxy has purged since, maybe too early to find this entry:
        it must be deleted. Raises StoreUnavailableError; Redis then holds the entry whole or not at all.
        """
        fields = entry_codec.encode(entry)
        lifetime_ms = max(1, round((entry.expires - entry.made + stale_s) * 1000))
        epoch = await self._connection.write(
            (
                ("DEL", entry.key),
                ("HSET", entry.key, *(part for field in fields.items() for part in field)),
                ("PEXPIRE", entry.key, lifetime_ms),
            )
        )
        return entry_codec.size_bytes(fields), epoch

    async def delete(self, key: str) -> None:
        """Delete the entry of this key. Raises StoreUnavailableError."""
        await self._connection.ask("UNLINK", key)

    async def purge(self, doomed: Doomed) -> int:
        """Delete entries; return how many. Answers being fetched meanwhile are not kept, by any proxy.

        The epoch moves before and after: an answer that is written too late to be found is then taken back by whoever
        wrote it, and a copy that was read too early is forgotten.
        Raises StoreUnavailableError; what was deleted until then stays deleted.
        """
        await self._connection.bump_epoch()
        deleted = 0
        pattern = f"{self._prefix}:answer:{doomed.entry_id or '*'}:{doomed.digest[:12] or '*'}:*"
        found: list[bytes] = []

        async def scan(redis: Redis) -> None:
            found.extend([key async for key in redis.scan_iter(match=pattern, count=SCAN_COUNT)])

        await self._connection.run(scan, timeout_s=PURGE_TIMEOUT_S)
        for start in range(0, len(found), SCAN_COUNT):
            keys = found[start : start + SCAN_COUNT]
            if doomed.partition is not None or doomed.made_before is not None:
                keys = await self._looked_into(keys, doomed)
            deleted += await self._delete(keys)
        await self._connection.bump_epoch()
        return deleted

    async def _looked_into(self, keys: list[bytes], doomed: Doomed) -> list[bytes]:
        """Those of the keys whose entries match in what their names do not tell."""

        async def read(redis: Redis) -> list[list[bytes | None]]:
            return [await _awaitable(redis.hmget(cast("str", key), ["partition", "made"])) for key in keys]

        facts = await self._connection.run(read, timeout_s=PURGE_TIMEOUT_S)
        return [key for key, (partition, made) in zip(keys, facts, strict=True) if _dooms(doomed, partition, made)]

    async def _delete(self, keys: list[bytes]) -> int:
        async def unlink(redis: Redis) -> int:
            return sum([int(await _awaitable(redis.unlink(key))) for key in keys])

        return await self._connection.run(unlink, timeout_s=PURGE_TIMEOUT_S)


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


def _awaitable(result: Any) -> Awaitable[Any]:
    """redis-py types its commands as sync or async at once; ours are always async."""
    return cast("Awaitable[Any]", result)
