"""Several entries are read at once as one would be alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from cacheproxy.clock import SystemClock
from cacheproxy.config import Redis
from cacheproxy.errors import EntryCorruptError, StoreUnavailableError
from cacheproxy.model import Answer, Entry, Plan
from cacheproxy.store.connection import Connection
from cacheproxy.store.exact import MANY, Exact
from tests.fakes.house import until
from tests.fakes.redis_server import PATIENT_S, RedisServer


@pytest_asyncio.fixture
async def exact(clean_redis: RedisServer) -> AsyncIterator[Exact]:
    """The exact tier on an empty Redis."""
    connection = Connection(Redis(url=clean_redis.unix_url, timeout=PATIENT_S), SystemClock())
    await connection.open()
    yield Exact(connection, "cacheproxy")
    await connection.close()


def plan(number: int) -> Plan:
    """A plan with a key of its own."""
    return Plan(key=f"cacheproxy:answer:{number:032x}:abc:default", check=b"c" * 32)


async def put(exact: Exact, number: int) -> Entry:
    """An entry for it."""
    now = SystemClock().now()
    entry = Entry(plan(number).key, b"c" * 32, "", "", "abc", Answer(str(number)), round(now, 3), round(now + 60, 3))
    await exact.put(entry, stale_s=0, epoch=exact.epoch)
    return entry


async def test_many_come_in_the_order_asked_for(exact: Exact) -> None:
    """None where there is none, over several round trips."""
    numbers = range(2 * MANY + 3)
    stored = {number: await put(exact, number) for number in numbers if number % 3}

    found, corrupt = await exact.get_many([plan(number) for number in reversed(numbers)])

    assert [entry for entry, _ in found] == [stored.get(number) for number in reversed(numbers)]
    assert all((size_bytes > 0) == (entry is not None) for entry, size_bytes in found)
    assert corrupt == 0
    assert found[1] == (await exact.get(plan(numbers[-2])))[:2]


async def test_a_corrupt_one_among_many_is_gone_and_counted(exact: Exact, clean_redis: RedisServer) -> None:
    """The others are found."""
    kept = await put(exact, 1)
    await put(exact, 2)
    clean_redis.call("HSET", plan(2).key, "v", "999")

    found, corrupt = await exact.get_many([plan(1), plan(2)])

    assert ([entry for entry, _ in found], corrupt) == ([kept, None], 1)
    await until(lambda: clean_redis.call("EXISTS", plan(2).key) == 0)


async def test_a_corrupt_one_is_a_miss_and_gone(exact: Exact, clean_redis: RedisServer) -> None:
    """What is put in its place stays."""
    await put(exact, 1)
    clean_redis.call("HSET", plan(1).key, "v", "999")

    with pytest.raises(EntryCorruptError):
        await exact.get(plan(1))
    entry = await put(exact, 1)
    await asyncio.sleep(0.05)
    assert (await exact.get(plan(1))).entry == entry


async def test_a_corrupt_one_that_redis_will_not_delete_costs_nobody_what_was_found(
    exact: Exact, clean_redis: RedisServer
) -> None:
    """Nor a moment."""
    kept = await put(exact, 1)
    await put(exact, 2)
    clean_redis.call("HSET", plan(2).key, "v", "999")
    clean_redis.call("ACL", "SETUSER", "default", "-unlink")
    try:
        found, corrupt = await exact.get_many([plan(1), plan(2)])
        with pytest.raises(EntryCorruptError):
            await exact.get(plan(2))
        await until(lambda: exact._connection.statistics().refused == 2)
    finally:
        clean_redis.call("ACL", "SETUSER", "default", "+unlink")

    assert ([entry for entry, _ in found], corrupt) == ([kept, None], 1)


async def test_a_large_entry_is_written_beside_what_others_ask(exact: Exact, clean_redis: RedisServer) -> None:
    """Whole, with its lifetime, and in the place of an older one; what goes out with it has its reply meanwhile."""
    await put(exact, 1)
    now = SystemClock().now()
    large = Answer("x" * 8_000_000)
    entry = Entry(plan(1).key, b"c" * 32, "", "", "abc", large, round(now, 3), round(now + 60, 3))
    size_bytes, stored = await asyncio.gather(exact.put(entry, stale_s=5, epoch=exact.epoch), exact.get(plan(1)))

    assert stored.entry is not None
    assert stored.entry.answer == Answer("1")
    assert size_bytes is not None
    assert size_bytes > 8_000_000
    assert (await exact.get(plan(1))).entry == entry
    assert 60_000 < clean_redis.call("PTTL", plan(1).key) <= 65_000


async def test_many_from_a_redis_that_is_away_are_one_error() -> None:
    """As for one."""
    connection = Connection(Redis(url="redis://127.0.0.1:1/0", timeout=0.05), SystemClock())
    await connection.open()
    try:
        with pytest.raises(StoreUnavailableError):
            await Exact(connection, "cacheproxy").get_many([plan(1), replace(plan(2), check=b"")])
    finally:
        await connection.close()


async def test_a_lifetime_without_measure_is_an_end_all_the_same(exact: Exact, clean_redis: RedisServer) -> None:
    """Redis counts milliseconds in 64 bits, and refuses what does not fit."""
    entry = await put(exact, 1)
    await exact.put(entry, stale_s=1e300, epoch=exact.epoch)

    assert clean_redis.call("PTTL", entry.key) > 0


async def test_an_entry_that_may_not_be_given_an_end_is_not_kept(clean_redis: RedisServer) -> None:
    """An access list may permit all the rest."""
    clean_redis.call("ACL", "SETUSER", "writer", "on", ">secret", "~*", "+@all", "-pexpire")
    url = clean_redis.unix_url.replace("unix://", "unix://writer:secret@")
    connection = Connection(Redis(url=url, timeout=PATIENT_S), SystemClock())
    try:
        await connection.open()
        with pytest.raises(StoreUnavailableError, match="does not permit this command"):
            await put(Exact(connection, "cacheproxy"), 1)
        assert clean_redis.call("EXISTS", plan(1).key) == 0
    finally:
        await connection.close()
        clean_redis.call("ACL", "DELUSER", "writer")
