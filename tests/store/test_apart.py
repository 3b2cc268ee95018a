"""Two questions that somebody told apart are never matched again, by any proxy on this Redis."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from cacheproxy import behind
from cacheproxy.clock import Clock, SystemClock
from cacheproxy.errors import StoreUnavailableError
from cacheproxy.store import apart as module
from cacheproxy.store.apart import LIFETIME_S, Apart
from cacheproxy.store.connection import Connection
from tests.fakes.clock import FakeClock
from tests.fakes.house import until
from tests.fakes.redis_server import PATIENT_S, RedisServer, running_redis

ENABLE, DISABLE, SCOPE = "how do I enable dark mode", "how do I disable dark mode", "aa" * 16


@contextlib.asynccontextmanager
async def followed(server: RedisServer, clock: Clock | None = None, *, wait: bool = True) -> AsyncIterator[Apart]:
    """The set, as one proxy has it once it has read it."""
    connection = Connection(server.settings(url=server.unix_url, timeout=PATIENT_S), SystemClock())
    apart = Apart(connection, "cacheproxy", clock or SystemClock())
    await connection.open()
    await apart.open()
    try:
        if wait:
            await until(lambda: apart.known)
        yield apart
    finally:
        await apart.close()
        await connection.close()


async def put(apart: Apart, one: str, other: str, scope: str = SCOPE) -> None:
    """What feedback does: it has hashes, not questions."""
    await apart.put(apart.hashed(one), apart.hashed(other), scope)


async def test_a_pair_is_apart_in_either_order_and_in_its_scope_only(clean_redis):
    """And nothing else is."""
    async with followed(clean_redis) as apart:
        assert not apart.is_apart(ENABLE, DISABLE, SCOPE)
        await put(apart, ENABLE, DISABLE)

        assert apart.is_apart(ENABLE, DISABLE, SCOPE)
        assert apart.is_apart(DISABLE, ENABLE, SCOPE)
        assert not apart.is_apart(ENABLE, DISABLE, "bb" * 16)
        assert not apart.is_apart(ENABLE, ENABLE, SCOPE)
        assert not apart.is_apart(ENABLE, DISABLE.upper(), SCOPE)
        assert len(apart) == 1


async def test_every_proxy_hears_of_it(clean_redis):
    """Those that run, within the heartbeat's second; those that start later, before they match anything."""
    async with followed(clean_redis) as one, followed(clean_redis) as other:
        await put(one, ENABLE, DISABLE)
        await until(lambda: other.is_apart(ENABLE, DISABLE, SCOPE), 5)
        async with followed(clean_redis) as third:
            assert third.is_apart(ENABLE, DISABLE, SCOPE)


async def test_until_the_set_has_been_read_all_are_apart(clean_redis):
    """A proxy that has just started must not serve what somebody has forbidden."""
    clean_redis.call("SET", "cacheproxy:apart", "not a set")
    async with followed(clean_redis, wait=False) as apart:
        await asyncio.sleep(0.05)
        assert not apart.known
        assert apart.is_apart(ENABLE, DISABLE, SCOPE)
        clean_redis.call("DEL", "cacheproxy:apart")
        await until(lambda: apart.known)

        assert not apart.is_apart(ENABLE, DISABLE, SCOPE)


async def test_while_redis_is_away_what_is_known_holds(tmp_path):
    """A new pair is refused, since it could not be kept."""
    with running_redis(tmp_path) as server:
        async with followed(server) as apart:
            await put(apart, ENABLE, DISABLE)
            server.kill()
            with pytest.raises(StoreUnavailableError):
                await put(apart, "x", "y")

            assert apart.is_apart(ENABLE, DISABLE, SCOPE)
            assert not apart.is_apart("x", "y", SCOPE)


async def test_after_a_flush_there_are_no_pairs(clean_redis):
    """They went with the answers they were about."""
    async with followed(clean_redis) as apart:
        await put(apart, ENABLE, DISABLE)
        clean_redis.call("FLUSHALL")
        await until(lambda: not apart.is_apart(ENABLE, DISABLE, SCOPE), 5)

        assert len(apart) == 0


async def test_the_oldest_pairs_go_first(clean_redis, monkeypatch):
    """The number of pairs is bounded, in Redis and here."""
    monkeypatch.setattr(module, "PAIRS_MAX", 3)
    clock = FakeClock()
    async with followed(clean_redis, clock) as apart:
        for number in range(5):
            clock.advance(1)
            await put(apart, "q", str(number))
        await until(lambda: len(apart) == 3)

        assert [apart.is_apart("q", str(number), SCOPE) for number in range(5)] == [False, False, True, True, True]
        assert clean_redis.call("ZCARD", "cacheproxy:apart") == 3


async def test_a_pair_is_forgotten_after_its_time(clean_redis):
    """Long after the answers it was about."""
    clock = FakeClock()
    async with followed(clean_redis, clock) as apart:
        await put(apart, "old", "pair")
        clock.advance(LIFETIME_S + 1)
        await put(apart, "new", "pair")
        await until(lambda: not apart.is_apart("old", "pair", SCOPE))

        assert apart.is_apart("new", "pair", SCOPE)
        assert 0 < clean_redis.call("TTL", "cacheproxy:apart") <= LIFETIME_S


async def test_no_question_can_be_read_in_redis(clean_redis):
    """Nor guessed without the secret of this Redis."""
    async with followed(clean_redis) as apart:
        await put(apart, ENABLE, DISABLE)
        stored = b"".join(clean_redis.call("ZRANGE", "cacheproxy:apart", 0, -1))
        hashed = apart.hashed(ENABLE)
        clean_redis.call("FLUSHALL")

        assert b"dark" not in stored
        assert len(stored) == 16
        async with followed(clean_redis) as another:
            clean_redis.call("SET", "cacheproxy:secret", b"s" * 32)
            await until(lambda: another.hashed(ENABLE) != hashed)


async def test_a_defect_does_not_end_the_reads(clean_redis, monkeypatch, caplog):
    """What was put meanwhile is known as soon as it has passed."""
    monkeypatch.setattr(behind, "REST_S", 0.01)
    async with followed(clean_redis) as one, followed(clean_redis) as other:
        read = other._read

        async def fail_once():
            monkeypatch.setattr(other, "_read", read)
            raise KeyError

        monkeypatch.setattr(other, "_read", fail_once)
        await put(one, ENABLE, DISABLE)
        await until(lambda: other.is_apart(ENABLE, DISABLE, SCOPE), 5)

    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [KeyError]


async def test_closing_twice_is_closing_once(clean_redis):
    """And leaves no listener behind."""
    connection = Connection(clean_redis.settings(timeout=PATIENT_S), SystemClock())
    apart = Apart(connection, "cacheproxy", SystemClock())
    await apart.open()
    await apart.close()
    await apart.close()

    assert connection.on_change == []
