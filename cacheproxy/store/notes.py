"""Small values that outlive the process: one Redis key each, JSON inside.

For what is handy after a restart and harmless to lose. Raises CacheError only.
"""

from __future__ import annotations

from typing import Any

import orjson

from cacheproxy.errors import EntryCorruptError
from cacheproxy.store.connection import Connection


class Notes:
    """Values by name, below `{prefix}:note:`."""

    def __init__(self, connection: Connection, prefix: str) -> None:
        self._connection = connection
        self._prefix = prefix

    async def put(self, name: str, value: Any, *, ttl_s: float) -> None:
        """Write a value. Raises StoreUnavailableError."""
        key, text, ttl_ms = self._key(name), orjson.dumps(value), max(1, round(ttl_s * 1000))

        async def write(redis: Any) -> None:
            await redis.set(key, text, px=ttl_ms)

        await self._connection.run(write)

    async def get(self, name: str) -> Any:
        """The value, or None. Raises StoreUnavailableError, or EntryCorruptError for what is not JSON."""
        key = self._key(name)

        async def read(redis: Any) -> Any:
            return await redis.get(key)

        text = await self._connection.run(read)
        try:
            return None if text is None else orjson.loads(text)
        except orjson.JSONDecodeError:
            raise EntryCorruptError(f"{key}: not JSON") from None

    def _key(self, name: str) -> str:
        return f"{self._prefix}:note:{name}"
