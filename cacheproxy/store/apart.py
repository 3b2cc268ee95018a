"""Pairs of questions that must not be matched, because somebody said that one was no answer to the other.

Kept in Redis as a bounded sorted set of keyed hashes, so no question can be read out of it, and copied into each
process, so that asking costs no round trip. A new pair moves the epoch, at which every proxy reads the set again.
A pair lasts `LIFETIME_S`, and no purge takes it out: the answers go, what people said of two questions stays.
Refuses to say that two questions may meet before the set has been read.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any, cast

from redis.asyncio import Redis

from cacheproxy.behind import Behind
from cacheproxy.clock import Clock
from cacheproxy.errors import CacheError
from cacheproxy.store.connection import Connection

PAIRS_MAX = 10_000
"""The oldest go first: 1 MB in Redis, and as much in each process."""
LIFETIME_S = 400 * 86_400.0
"""Much longer than entries live, and than what is asked once a year takes to come again."""
READ_TIMEOUT_S = 1.0
"""Deadline for reading the set, which no ask waits for (10,000 pairs: 10 ms)."""
RETRY_S = 1.0
"""Pause before it is read again after a failure."""


class Apart:
    """The pairs, over one connection. `prefix` is `redis.prefix`."""

    def __init__(self, connection: Connection, prefix: str, clock: Clock) -> None:
        self._connection = connection
        self._key = f"{prefix}:apart"
        self._clock = clock
        self._pairs: frozenset[bytes] = frozenset()
        self._changed = asyncio.Event()
        self._reader = Behind(self._follow, 0, "apart")
        self.known = False
        """Whether the set has been read; until then all questions are apart."""

    def __len__(self) -> int:
        return len(self._pairs)

    async def open(self) -> None:
        """Begin to follow the set; returns at once."""
        self._connection.on_change.append(self._changed.set)
        self._changed.set()
        self._reader.start()

    async def close(self) -> None:
        """Stop following. Safe to call twice."""
        if await self._reader.stop():
            self._connection.on_change.remove(self._changed.set)

    def hashed(self, question: str) -> str:
        """The question as `put` is to be given it; see `Contact.hashed`."""
        return self._connection.hashed(question)

    def is_apart(self, question: str, other: str, scope: str) -> bool:
        """Whether these two must not be matched; true for all while the set is not known. Waits for nothing."""
        if not self.known:
            return True
        return bool(self._pairs) and self._pair(self.hashed(question), self.hashed(other), scope) in self._pairs

    async def put(self, hashed: str, other: str, scope: str) -> None:
        """Keep two questions, each given `hashed`, apart within a scope, in either order.

        This process knows at once, others within the heartbeat's second. Raises StoreUnavailableError.
        """
        pair, now = self._pair(hashed, other, scope), self._clock.now()

        async def write(redis: Redis) -> None:
            async with redis.pipeline(transaction=True) as pipe:
                pipe.zadd(self._key, {pair: now})
                pipe.zremrangebyscore(self._key, "-inf", now - LIFETIME_S)
                pipe.zremrangebyrank(self._key, 0, -PAIRS_MAX - 1)
                pipe.expire(self._key, round(LIFETIME_S))
                await pipe.execute()

        await self._connection.run(write)
        self._pairs |= {pair}
        await self._connection.bump_epoch()

    def _pair(self, hashed: str, other: str, scope: str) -> bytes:
        first, second = sorted((hashed, other))
        text = f"{scope}\n{first}\n{second}".encode()
        return hashlib.blake2b(text, digest_size=16, key=self._connection.secret).digest()

    async def _follow(self) -> None:
        """Read the set once it may have changed; what could not be read may have."""
        await self._changed.wait()
        self._changed.clear()
        try:
            self._pairs = await self._read()
            self.known = True
        except CacheError:
            self._changed.set()
            await asyncio.sleep(RETRY_S)
        except Exception:
            self._changed.set()
            raise

    async def _read(self) -> frozenset[bytes]:
        since = self._clock.now() - LIFETIME_S

        async def read(redis: Any) -> list[bytes]:
            return cast("list[bytes]", await redis.zrangebyscore(self._key, since, "+inf"))

        return frozenset(await self._connection.run(read, timeout_s=READ_TIMEOUT_S))
