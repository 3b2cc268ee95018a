"""Which questions were answered from which entry, so that one word of feedback can tell them apart for good.

A small Redis set beside each entry that has served somebody else's question, gone with the entry. It holds keyed
hashes only. Raises CacheError only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cacheproxy.store.connection import Connection

ASKED_MAX = 1000
"""Questions remembered for one entry; what comes later is served all the same, and not remembered."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """A stored question and one that got its answer, as `Apart.digest` gives them, with their scope."""

    scope: str
    stored: str
    asked: str


class Served:
    """The sets, over one connection. `prefix` is `redis.prefix`."""

    def __init__(self, connection: Connection, prefix: str) -> None:
        self._connection = connection
        self._prefix = prefix

    async def put(self, entry_id: str, pairing: Pairing, *, ttl_s: float) -> None:
        """Remember a pairing for as long as the entry lives. Raises StoreUnavailableError."""
        key, member = self._key(entry_id), f"{pairing.scope} {pairing.stored} {pairing.asked}"

        async def write(redis: Any) -> None:
            async with redis.pipeline(transaction=True) as pipe:
                pipe.sadd(key, member)
                pipe.scard(key)
                pipe.pexpire(key, max(1, round(ttl_s * 1000)))
                _, count, _ = await pipe.execute()
            if count > ASKED_MAX:
                await redis.srem(key, member)

        await self._connection.run(write)

    async def get(self, entry_id: str) -> list[Pairing]:
        """The pairings of an entry. Raises StoreUnavailableError."""
        key = self._key(entry_id)

        async def read(redis: Any) -> set[bytes]:
            return set(await redis.smembers(key))

        found = await self._connection.run(read)
        parts = [member.decode("ascii", "replace").split(" ") for member in found]
        return [Pairing(*three) for three in parts if len(three) == 3]

    async def forget(self, entry_id: str) -> None:
        """Drop the pairings of an entry. Raises StoreUnavailableError."""
        key = self._key(entry_id)

        async def delete(redis: Any) -> None:
            await redis.unlink(key)

        await self._connection.run(delete)

    def _key(self, entry_id: str) -> str:
        return f"{self._prefix}:served:{entry_id}"
