"""Entries as operators look at them: the newest in a list, one by its id, all for a file, and put back from one.

Redis keeps no order of entries by age, and none is made for this: a list is found by scanning, in steps that hold
nobody up, and says whether it saw every key. Nothing here is part of answering an ask.
Raises CacheError only. Refuses to decide who may see what an entry says.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio import Redis

from cacheproxy.errors import EntryCorruptError
from cacheproxy.model import Entry
from cacheproxy.store import entry as entry_codec
from cacheproxy.store import keys
from cacheproxy.store.connection import OPERATOR_TIMEOUT_S, Connection

KEYS_MAX = 100_000
"""Entries that a list is made from; of more it tells that it did not see all. Their names take 10 MB for a moment."""
BATCH = 64
"""Entries read whole in one round trip."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries to list: those for which every given field matches."""

    digests: frozenset[str] = frozenset()
    """Of the models that answered; empty: any."""
    question: str = ""
    """A part of the question, case ignored."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An entry with the bytes of its values in Redis."""

    entry: Entry
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Listing:
    """The newest of those looked at, newest first. `complete`: no key was left out, so they are the newest of all."""

    kept: list[Kept]
    looked_at: int
    complete: bool


class Shelf:
    """All entries under `prefix`, which is `redis.prefix`, over one connection. A list sees at most `keys_max`."""

    def __init__(self, connection: Connection, prefix: str, *, keys_max: int = KEYS_MAX) -> None:
        self._connection = connection
        self._prefix = prefix
        self._keys_max = keys_max

    async def newest(self, limit: int, wanted: Wanted = Wanted()) -> Listing:
        """At most `limit` entries, in several round trips; no unreadable ones. Raises StoreUnavailableError."""
        names, complete = await self._names(wanted.digests, keys_max=self._keys_max)
        found: list[tuple[float, bytes]] = []
        for start in range(0, len(names), keys.SCAN_COUNT):
            ages = await self._ages(names[start : start + keys.SCAN_COUNT], wanted.question.casefold())
            found = heapq.nlargest(limit, itertools.chain(found, ages))
        kept = [one async for batch in self._read([name for _, name in found]) for one in batch]
        return Listing(kept, len(names), complete)

    async def find(self, entry_id: str) -> Kept | None:
        """The entry with this id, 32 hex digits; None if there is none, or it cannot be read. It scans.

        Raises StoreUnavailableError.
        """
        names, _ = await self._names(entry_id=entry_id)
        kept = [one async for batch in self._read(names[:1]) for one in batch]
        return kept[0] if kept else None

    async def get(self, key: str) -> Entry | None:
        """The entry of a key, with its vector; None where there is none. Nothing is changed, corrupt ones stay.

        Raises StoreUnavailableError, EntryCorruptError.
        """
        (fields,) = await keys.asked(self._connection, [("HGETALL", key)])
        return _decoded(key, fields) if fields else None

    async def every(self) -> AsyncIterator[list[Kept]]:
        """All entries, a batch at a time, in no order; unreadable ones left out. Raises StoreUnavailableError."""
        names, _ = await self._names()
        async for batch in self._read(names):
            yield batch

    async def is_empty(self) -> bool:
        """Whether nothing here was proven or kept apart by the store's secret. Raises StoreUnavailableError."""
        names, _ = await self._names(keys_max=1)
        apart = f"{self._prefix}:apart"
        return not names and not await self._connection.run(lambda redis: _awaitable(redis.exists(apart)))

    async def adopt(self, secret: bytes) -> None:
        """Make another store's secret this one's; proxies notice within a second. Raises StoreUnavailableError."""
        name = f"{self._prefix}:secret"
        await keys.asked(self._connection, [("SET", name, secret)])

    async def put_new(self, entries: Sequence[Entry]) -> set[str]:
        """Keep each until it expires, unless an entry of its key is there already; the keys that were put.

        Two round trips, so at most some dozens at once. Raises StoreUnavailableError.
        """
        there = await keys.asked(self._connection, [("EXISTS", entry.key) for entry in entries])
        new = {entry.key: entry for entry, count in zip(entries, there, strict=True) if not count}

        async def write(redis: Redis) -> None:
            async with redis.pipeline(transaction=True) as pipe:
                for entry in new.values():
                    pipe.delete(entry.key)
                    pipe.hset(entry.key, mapping=cast("dict[Any, Any]", entry_codec.encode(entry)))
                    pipe.pexpireat(entry.key, round(entry.expires * 1000))
                await pipe.execute()

        if new:
            await self._connection.run(write, timeout_s=OPERATOR_TIMEOUT_S)
        return set(new)

    async def _names(
        self, digests: frozenset[str] = frozenset(), *, entry_id: str = "", keys_max: int | None = None
    ) -> tuple[list[bytes], bool]:
        """Keys of entries, and whether these are all."""
        shown = {digest[:12] for digest in digests}
        names: dict[bytes, None] = {}
        async for step in keys.scanned(self._connection, keys.pattern(self._prefix, entry_id=entry_id)):
            for name in step:
                if keys_max is not None and len(names) >= keys_max:
                    return list(names), False
                if not shown or keys.digest_of(name) in shown:
                    names[name] = None
        return list(names), True

    async def _ages(self, names: list[bytes], question: str) -> list[tuple[float, bytes]]:
        """When each was made; those whose question lacks `question` (case folded) are left out, unreadable ones too."""
        fields = ("made", "question") if question else ("made",)
        told = await keys.asked(self._connection, [("HMGET", name, *fields) for name in names])
        found = []
        for name, (made, *text) in zip(names, told, strict=True):
            if text and question not in (text[0] or b"").decode(errors="replace").casefold():
                continue
            try:
                found.append((float(made or b""), name))
            except ValueError:
                continue  # deleted meanwhile, or a foreign writer's
        return found

    async def _read(self, names: Iterable[bytes]) -> AsyncIterator[list[Kept]]:
        names = list(names)
        for start in range(0, len(names), BATCH):
            batch = names[start : start + BATCH]
            found = await keys.asked(self._connection, [("HGETALL", name) for name in batch])
            yield [kept for name, fields in zip(batch, found, strict=True) if (kept := _kept(name.decode(), fields))]


def _kept(key: str, fields: dict[bytes, bytes]) -> Kept | None:
    try:
        return Kept(_decoded(key, fields), sum(map(len, fields.values()))) if fields else None
    except EntryCorruptError:
        return None


def _decoded(key: str, fields: dict[bytes, bytes]) -> Entry:
    return entry_codec.decode(key, {name.decode(errors="replace"): value for name, value in fields.items()})


def _awaitable(result: Any) -> Awaitable[Any]:
    """redis-py types its commands as sync or async at once; ours are always async."""
    return cast("Awaitable[Any]", result)
