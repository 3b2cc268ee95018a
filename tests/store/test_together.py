"""Look-ups of one turn of the event loop share a round trip, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from cacheproxy.clock import SystemClock
from cacheproxy.config import Redis
from cacheproxy.errors import StoreRefusedError, StoreUnavailableError
from cacheproxy.store.connection import Connection
from cacheproxy.store.together import TOGETHER_MAX, Together
from tests.fakes.redis_server import RedisServer


@pytest_asyncio.fixture
async def connection(clean_redis: RedisServer) -> AsyncIterator[Connection]:
    """An open connection to an empty Redis."""
    opened = Connection(Redis(url=clean_redis.unix_url, timeout=1), SystemClock())
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def together(connection: Connection) -> Together:
    """Reads of two fields."""
    return Together(connection, ("a", "b"))


def put(redis: RedisServer, number: int) -> None:
    """A hash whose field `a` is its number."""
    redis.call("HSET", f"k{number}", "a", str(number))


async def test_those_of_one_turn_take_one_round_trip(
    together: Together, connection: Connection, clean_redis: RedisServer
) -> None:
    """Each gets its own values, None for what is missing; equal keys are read once."""
    for number in range(3):
        put(clean_redis, number)
    before = connection.statistics().calls

    found = await asyncio.gather(*(together.read(key) for key in ("k0", "k1", "none", "k2", "k1")))

    assert found == [[b"0", None], [b"1", None], [None, None], [b"2", None], [b"1", None]]
    assert connection.statistics().calls - before == 1


async def test_many_take_several_round_trips_side_by_side(
    together: Together, connection: Connection, clean_redis: RedisServer
) -> None:
    """So that a large entry holds up few others."""
    for number in range(2 * TOGETHER_MAX + 1):
        put(clean_redis, number)
    before = connection.statistics().calls

    found = await asyncio.gather(*(together.read(f"k{number}") for number in range(2 * TOGETHER_MAX + 1)))

    assert [values[0] for values in found] == [str(number).encode() for number in range(2 * TOGETHER_MAX + 1)]
    assert connection.statistics().calls - before == 3


async def test_one_who_leaves_harms_no_other(together: Together, clean_redis: RedisServer) -> None:
    """Before and while the read is under way."""
    put(clean_redis, 1)
    clean_redis.freeze()
    try:
        early, late, stays = (asyncio.create_task(together.read(key)) for key in ("k0", "k2", "k1"))
        await asyncio.sleep(0)
        early.cancel()
        await asyncio.sleep(0.01)
        late.cancel()
        await asyncio.sleep(0)
    finally:
        clean_redis.thaw()

    assert await stays == [b"1", None]
    assert early.cancelled()
    assert late.cancelled()


async def test_a_foreign_value_is_an_error_for_its_own_key_alone(together: Together, clean_redis: RedisServer) -> None:
    """The others of the round trip have their values."""
    put(clean_redis, 1)
    clean_redis.call("SET", "foreign", "x")

    refused, found = await asyncio.gather(together.read("foreign"), together.read("k1"), return_exceptions=True)

    assert isinstance(refused, StoreRefusedError)
    assert found == [b"1", None]


async def test_a_redis_that_does_not_answer_is_an_error_for_each_within_the_deadline(clean_redis: RedisServer) -> None:
    """None waits for another's deadline."""
    connection = Connection(Redis(url=clean_redis.unix_url, timeout=0.2), SystemClock())
    await connection.open()
    together = Together(connection, ("a",))
    clean_redis.freeze()
    try:
        async with asyncio.timeout(5):
            found = await asyncio.gather(together.read("k1"), together.read("k2"), return_exceptions=True)
    finally:
        clean_redis.thaw()
        await connection.close()

    assert [type(error) for error in found] == [StoreUnavailableError, StoreUnavailableError]
