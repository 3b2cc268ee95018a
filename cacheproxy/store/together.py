"""Reads of hashes that are wanted in one turn of the event loop, made in one round trip.

A further key in a round trip costs a small part of another round trip, to redis-py more than to Redis. Each caller
still waits no longer than `redis.timeout`, gets an error of its own key alone, and may leave: the others' read goes on.
Refuses to write, to retry, and to know what the hashes hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, TypeAlias, cast

from redis.asyncio import Redis

from cacheproxy.store.connection import Connection

TOGETHER_MAX = 32
"""Keys in one round trip; more go side by side in others, so that a large entry holds up few."""

Values: TypeAlias = list[bytes | None]
_Waiters: TypeAlias = list["asyncio.Future[Values]"]


class Together:
    """Reads `fields` of hashes over one connection."""

    def __init__(self, connection: Connection, fields: Sequence[str]) -> None:
        self._connection = connection
        self._fields = list(fields)
        self._wanted: dict[str, _Waiters] = {}
        self._reading: set[asyncio.Task[None]] = set()

    async def read(self, key: str) -> Values:
        """The values of a hash, None for each that is missing. Raises StoreUnavailableError."""
        loop = asyncio.get_running_loop()
        if not self._wanted:
            loop.call_soon(self._start)
        waiter: asyncio.Future[Values] = loop.create_future()
        self._wanted.setdefault(key, []).append(waiter)
        return await waiter

    def _start(self) -> None:
        wanted, self._wanted = list(self._wanted.items()), {}
        for start in range(0, len(wanted), TOGETHER_MAX):
            task = asyncio.create_task(self._read(wanted[start : start + TOGETHER_MAX]))
            self._reading.add(task)
            task.add_done_callback(self._reading.discard)

    async def _read(self, wanted: list[tuple[str, _Waiters]]) -> None:
        wanted = [(key, waiters) for key, waiters in wanted if any(not waiter.done() for waiter in waiters)]
        if len(wanted) < 2:
            for key, waiters in wanted:
                await self._read_alone(key, waiters)
            return
        try:
            found = await self._connection.run(lambda redis: self._pipelined(redis, [key for key, _ in wanted]))
        except Exception as error:  # noqa: BLE001 - theirs who wait
            for _, waiters in wanted:
                _fail(waiters, error)
            return
        for (key, waiters), values in zip(wanted, found, strict=True):
            if isinstance(values, Exception):  # refused for this key: a foreign value under it
                await self._read_alone(key, waiters)
            else:
                _give(waiters, values)

    async def _pipelined(self, redis: Redis, keys: list[str]) -> list[Any]:
        async with redis.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hmget(key, self._fields)
            return await pipe.execute(raise_on_error=False)

    async def _read_alone(self, key: str, waiters: _Waiters) -> None:
        try:
            _give(waiters, await self._connection.run(lambda redis: cast("Any", redis.hmget(key, self._fields))))
        except Exception as error:  # noqa: BLE001 - theirs who wait
            _fail(waiters, error)


def _give(waiters: _Waiters, values: Values) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(values)


def _fail(waiters: _Waiters, error: Exception) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_exception(error)
