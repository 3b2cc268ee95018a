"""The pool is bounded, and no cancellation at any moment costs it a connection or another task its turn."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator

import pytest
import redis.asyncio
from redis.asyncio.retry import Retry

from cacheproxy.store.address import parse
from cacheproxy.store.pool import Client, Clients, clients, within
from tests.fakes.redis_server import RedisServer


@contextlib.asynccontextmanager
async def opened(url: str, bound: int) -> AsyncIterator[Clients]:
    """Clients for one `with` block."""
    through = clients(parse(url), bound)
    try:
        yield through
    finally:
        await through.close()


async def test_more_tasks_than_connections_take_turns(redis_server: RedisServer) -> None:
    """Never more than allowed, and all are served."""
    async with opened(redis_server.url, 4) as through:
        assert through.pool is not None
        most = 0

        async def ask() -> None:
            nonlocal most
            await through.client.ping()
            assert through.pool is not None
            most = max(most, through.pool.used + through.pool.idle)

        await asyncio.gather(*(ask() for _ in range(100)))

        assert most <= 4
        assert (through.pool.used, through.pool.idle) == (0, 4)


@pytest.mark.fault(9)
async def test_cancellation_at_any_moment_loses_no_connection_and_no_turn(redis_server: RedisServer) -> None:
    """While waiting, connecting, sending, reading, giving back, and twice in a row; the one who stays is served."""
    chance = random.Random(3)
    async with opened(redis_server.url, 2) as through:
        assert through.pool is not None

        async def ask() -> None:
            await through.client.ping()

        for _ in range(500):
            *leaving, staying = [asyncio.create_task(ask()) for _ in range(8)]
            for _ in range(chance.randrange(40)):
                await asyncio.sleep(0)
                chance.choice(leaving).cancel()
            async with asyncio.timeout(5):
                await staying
            await asyncio.gather(*leaving, return_exceptions=True)

        assert through.pool.used == 0


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "rediss://h",
        "unix:///s",
        "redis+sentinel://h/main",
        "rediss+sentinel://h/main",
        "redis+cluster://h",
    ],
)
async def test_no_client_retries_or_waits_on_its_own(url: str) -> None:
    """The library's defaults made one GET on a frozen Redis take 59 s."""
    async with opened(url, 7) as through:
        if through.pool is None:
            assert isinstance(through.client, redis.asyncio.RedisCluster)
            options = through.client.connection_kwargs
            retry, timeout_s, bound = through.client.retry, options["socket_timeout"], options["max_connections"]
        else:
            connection = through.pool.make_connection()  # type: ignore[no-untyped-call]
            retry, timeout_s, bound = connection.retry, connection.socket_timeout, through.pool.max_connections
        assert isinstance(retry, Retry)
        assert retry.get_retries() == 0
        assert timeout_s is None  # the deadline around the call is the only one
        assert bound == 7


async def test_what_came_in_time_counts_though_the_event_loop_was_busy_until_after_the_deadline(
    redis_server: RedisServer,
) -> None:
    """Redis is late only if it was late: else a machine that stands still for a moment would open the breaker."""
    async with opened(redis_server.url, 1) as through:
        await through.client.ping()
        loop = asyncio.get_running_loop()

        async def ask(client: Client) -> bool:
            loop.call_soon(time.sleep, 0.3)
            return await client.ping()

        assert await within(ask, through.client, 0.1)


async def test_redis_that_says_nothing_costs_the_deadline(broken_redis: RedisServer) -> None:
    """And no more than that."""
    async with opened(broken_redis.url, 1) as through:
        await through.client.ping()
        broken_redis.freeze()
        began = time.perf_counter()

        with pytest.raises(TimeoutError):
            await within(lambda client: client.ping(), through.client, 0.1)

        assert 0.1 <= time.perf_counter() - began < 0.5
