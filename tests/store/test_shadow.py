"""What would have been served is written down, bounded, and without prompts unless they are allowed."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from cacheproxy.clock import SystemClock
from cacheproxy.errors import StoreUnavailableError
from cacheproxy.store import shadow as module
from cacheproxy.store.connection import Connection
from cacheproxy.store.shadow import LIFETIME_S, Shadow, ShadowRecord
from tests.fakes.house import until
from tests.fakes.redis_server import PATIENT_S, RedisServer

RECORD = ShadowRecord(
    similarity=0.944123,
    reason="guard:comparison",
    guards=("comparison", "negation"),
    likeness=0.25,
    scope="aa" * 16,
    model="llama3.2",
    question="how do I enable dark mode",
    stored="how do I disable dark mode\n| é \u2028",
    time=1_700_000_000.125,
)


@contextlib.asynccontextmanager
async def opened(server: RedisServer, *, prompts: bool, protocol: int = 2) -> AsyncIterator[Shadow]:
    """A stream over an open connection."""
    connection = Connection(
        server.settings(url=f"{server.unix_url}?protocol={protocol}", timeout=PATIENT_S), SystemClock()
    )
    await connection.open()
    await until(lambda: connection.state == "up")
    try:
        yield Shadow(connection, "cacheproxy", prompts=prompts)
    finally:
        await connection.close()


@pytest.mark.fault(42)
@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_record_comes_back_as_it_went(clean_redis, protocol):
    """The newest first, as many as were asked for."""
    async with opened(clean_redis, prompts=True, protocol=protocol) as shadow:
        assert await shadow.read(10) == []
        served = ShadowRecord(1.0, "", (), 1.0, "", "m", "", "", 0.0)
        await shadow.put(served)
        await shadow.put(RECORD)

        assert await shadow.read(10) == [RECORD, served]
        assert await shadow.read(1) == [RECORD]


async def test_without_leave_no_prompt_is_written(clean_redis):
    """Equal questions still have equal hashes, so they can be counted."""
    async with opened(clean_redis, prompts=False) as shadow:
        await shadow.put(RECORD)
        await shadow.put(RECORD)
        one, other = await shadow.read(10)
        raw = repr(clean_redis.call("XRANGE", "cacheproxy:shadow", "-", "+"))

        assert "dark" not in raw
        assert one.question == other.question != one.stored
        assert len(one.question) == 32
        assert (one.similarity, one.guards) == (RECORD.similarity, RECORD.guards)


async def test_the_stream_is_bounded_in_number_and_time(clean_redis, monkeypatch):
    """Redis drops whole blocks of a hundred, so a few more may stay."""
    monkeypatch.setattr(module, "RECORDS_MAX", 100)
    async with opened(clean_redis, prompts=True) as shadow:
        for _ in range(450):
            await shadow.put(RECORD)

        assert 100 <= clean_redis.call("XLEN", "cacheproxy:shadow") <= 200
        assert 0 < clean_redis.call("TTL", "cacheproxy:shadow") <= LIFETIME_S


@pytest.mark.parametrize(
    "changes", [("similarity", "nan"), ("likeness", "x"), ("time", b"\xff"), ("guards", b"\xff\xfe")]
)
async def test_a_record_that_cannot_be_read_is_left_out(clean_redis, changes):
    """The others are evidence all the same."""
    async with opened(clean_redis, prompts=True) as shadow:
        await shadow.put(RECORD)
        ((_id, fields),) = clean_redis.call("XRANGE", "cacheproxy:shadow", "-", "+")
        name, value = changes
        row = [part for pair in (fields | {name.encode(): value}).items() for part in pair]
        clean_redis.call("XADD", "cacheproxy:shadow", "*", *row)
        clean_redis.call("XADD", "cacheproxy:shadow", "*", "something", "else")

        assert await shadow.read(10) == [RECORD]


async def test_without_redis_a_record_is_lost_with_one_known_error(clean_redis):
    """Its writer goes on."""
    connection = Connection(clean_redis.settings(timeout=PATIENT_S), SystemClock())
    shadow = Shadow(connection, "cacheproxy", prompts=True)
    with pytest.raises(StoreUnavailableError):
        await shadow.put(RECORD)
    with pytest.raises(StoreUnavailableError):
        await shadow.read(1)
