"""How full Redis is, asked when somebody looks: its memory, its keys, and what it threw out to make room.

Redis' own figures for all that lies in it, other programs' keys included. Refuses to speak for a cluster: one node's
figures would be read as the whole's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cacheproxy.errors import CacheError
from cacheproxy.store.connection import Connection


@dataclass(frozen=True, slots=True)
class Size:
    """Redis at one moment."""

    memory_bytes: int
    memory_max_bytes: int
    """`maxmemory`; 0: there is no limit."""
    keys: int
    """In the database that is used here."""
    evicted: int
    """Keys thrown out since Redis was started; those that expired are not among them."""


class Sizes:
    """Looks at Redis over one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.last: Size | None = None
        """What was seen last; None while Redis is away, and of a cluster."""

    async def look(self) -> None:
        """Look now, for as long as an ask may wait for Redis."""

        async def read(redis: Any) -> tuple[dict[str, Any], int]:
            return await redis.info(), int(await redis.dbsize())

        try:
            about, keys = await self._connection.run(read)
        except CacheError:
            self.last = None
            return
        self.last = None if about.get("redis_mode") == "cluster" else _size(about, keys)


def _size(about: dict[str, Any], keys: int) -> Size:
    return Size(
        memory_bytes=int(about.get("used_memory", 0)),
        memory_max_bytes=int(about.get("maxmemory", 0)),
        keys=keys,
        evicted=int(about.get("evicted_keys", 0)),
    )
