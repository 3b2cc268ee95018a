"""Equal epochs mean that nobody has purged in between, whatever has become of Redis' data."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from cacheproxy import config
from cacheproxy.errors import StoreRefusedError, StoreUnavailableError
from cacheproxy.model import Answer, Entry, Plan
from cacheproxy.store import contact
from cacheproxy.store.connection import Connection
from cacheproxy.store.epoch import BEGIN, END, NONE, STEP_MAX, is_news, number
from cacheproxy.store.exact import Doomed, Exact
from tests.fakes.house import until
from tests.fakes.redis_server import PATIENT_S, RedisServer, free_port, running_redis
from tests.store.test_connection import opened, up, wait_for_cluster

KEY = "cacheproxy:epoch"
NO_EPOCHS = [
    "0",
    "-5",
    "1.5",
    "0x10",
    "1e3",
    " 7 ",
    "+7",
    "007",
    "1_000",
    "",
    "seven",
    "\xff",
    "nan",
    str(END),
    "9" * 30,
]
"""What somebody else may have put under our key. Python and Lua would read some of it, and each its own way."""
OLD_WRITE = """
local epoch = tonumber(redis.call('GET', KEYS[2]) or 0) or 0
if epoch ~= tonumber(ARGV[1]) then return epoch end
redis.call('HSET', KEYS[1], 'v', 'old')
return epoch
"""
"""How the version before looks at the epoch."""


@pytest_asyncio.fixture
async def connection(clean_redis: RedisServer) -> AsyncIterator[Connection]:
    """An open connection to an empty Redis."""
    async with up(clean_redis.settings(timeout=PATIENT_S)) as opened:
        yield opened


def entry(letters: int = 1) -> Entry:
    """An entry of one minute, with an answer of so many letters."""
    now, answer = round(time.time(), 3), Answer("x" * letters)
    return Entry(f"cacheproxy:answer:{1:032x}:abc:default", b"c" * 32, "", "", "abc", answer, now, now + 60)


async def stop_the_heart(connection: Connection) -> None:
    """No heartbeat from now on, as if one had just been."""
    await connection._heart.stop()


@pytest.mark.parametrize("text", NO_EPOCHS)
def test_what_redis_does_not_count_by_is_no_epoch(text: str) -> None:
    """Nor is a missing one."""
    assert number(text.encode("latin-1")) == number(text) == number(None) == NONE


@pytest.mark.parametrize("epoch", [1, 57, BEGIN, END - 1])
def test_an_epoch_is_read_from_any_reply(epoch: int) -> None:
    """Of a GET, with either protocol, and of a script."""
    assert number(str(epoch).encode()) == number(str(epoch)) == number(epoch) == epoch


@pytest.mark.parametrize(
    ("epoch", "known", "before", "news"),
    [
        (7, 7, 7, False),
        (9, 7, 7, True),
        (3, 7, 7, True),  # Redis has lost its data
        (9, 7, 5, True),
        (5, 7, 5, False),  # it was on its way when 7 was heard
        (NONE, 7, 7, True),
        (NONE, 7, 5, False),
    ],
)
def test_a_lower_epoch_is_news_only_alone(epoch: int, known: int, before: int, *, news: bool) -> None:
    """Two replies that were on their way at once may overtake each other."""
    assert is_news(epoch, known, before) is news


@pytest.mark.fault(10)
async def test_an_answer_from_before_a_loss_of_data_is_not_kept_after_as_many_purges(
    connection: Connection, clean_redis: RedisServer
) -> None:
    """It was purged, twice even: no number comes again."""
    exact = Exact(connection, "cacheproxy")
    await exact.purge(Doomed())
    asked_in = exact.epoch
    clean_redis.call("FLUSHALL")
    await exact.purge(Doomed())

    assert exact.epoch != asked_in
    assert await exact.put(entry(), stale_s=0, epoch=asked_in) is None
    assert clean_redis.call("EXISTS", entry().key) == 0
    assert await exact.put(entry(), stale_s=0, epoch=exact.epoch) is not None


@pytest.mark.fault(10)
async def test_an_answer_from_before_redis_went_back_to_older_data_is_not_kept_after_as_many_purges(
    broken_redis: RedisServer,
) -> None:
    """As from its last snapshot, or on a replica that lagged behind."""
    async with up(broken_redis.settings(timeout=PATIENT_S)) as connection:
        exact = Exact(connection, "cacheproxy")
        broken_redis.call("SAVE")
        await exact.purge(Doomed())
        asked_in = exact.epoch
        await asyncio.to_thread(broken_redis.kill)
        await asyncio.to_thread(broken_redis.start)
        await until(lambda: connection.state == "up" and exact.epoch < asked_in)
        await exact.purge(Doomed())

        assert await exact.put(entry(), stale_s=0, epoch=asked_in) is None
        assert broken_redis.call("EXISTS", entry().key) == 0


@pytest.mark.fault(12)
@pytest.mark.parametrize("letters", [1, 1_000_000])
async def test_what_was_being_fetched_during_a_flush_is_not_kept(
    connection: Connection, clean_redis: RedisServer, letters: int
) -> None:
    """Although no heartbeat has noticed; the next one begins a new epoch, in which answers are kept."""
    exact, heard = Exact(connection, "cacheproxy"), list[int]()
    connection.on_change.append(lambda: heard.append(connection.epoch))
    await stop_the_heart(connection)
    asked_in = exact.epoch
    clean_redis.call("FLUSHALL")

    assert await exact.put(entry(letters), stale_s=0, epoch=asked_in) is None
    assert (clean_redis.call("KEYS", "*"), heard) == ([], [NONE])
    await connection._beat()
    assert heard[1:] == [number(clean_redis.call("GET", KEY))]
    assert exact.epoch not in (NONE, asked_in)
    assert await exact.put(entry(letters), stale_s=0, epoch=exact.epoch) is not None


async def test_whoever_finds_no_epoch_has_one_begun_at_once(
    clean_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not when a heartbeat is due: a flush costs those answers that were being fetched, not a second's."""
    monkeypatch.setattr(contact, "HEARTBEAT_S", 3600.0)
    async with up(clean_redis.settings(timeout=PATIENT_S)) as connection:
        exact = Exact(connection, "cacheproxy")
        clean_redis.call("FLUSHALL")
        assert await exact.put(entry(), stale_s=0, epoch=exact.epoch) is None
        await until(lambda: exact.epoch != NONE)

        assert await exact.put(entry(), stale_s=0, epoch=exact.epoch) is not None


async def test_all_proxies_agree_on_the_epoch_that_begins(clean_redis: RedisServer) -> None:
    """Those that start at once on an empty Redis, and after it was flushed under them."""
    async with contextlib.AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(opened(clean_redis.settings(timeout=PATIENT_S))) for _ in range(6)]
        await until(lambda: all(proxy.state == "up" for proxy in proxies))
        first = number(clean_redis.call("GET", KEY))
        assert {proxy.epoch for proxy in proxies} == {first}
        clean_redis.call("FLUSHALL")
        await until(lambda: all(proxy.epoch != first for proxy in proxies))

        assert {proxy.epoch for proxy in proxies} == {number(clean_redis.call("GET", KEY))}
        assert BEGIN <= proxies[0].epoch < END


async def test_a_proxy_of_the_version_before_goes_on_beside_us(clean_redis: RedisServer) -> None:
    """Its number stays, its purges are heard of and ours by it, and it writes in the epoch it knows."""
    clean_redis.call("SET", KEY, 57)
    async with up(clean_redis.settings(timeout=PATIENT_S)) as connection:
        exact = Exact(connection, "cacheproxy")
        assert (exact.epoch, clean_redis.call("GET", KEY)) == (57, b"57")
        assert clean_redis.call("INCR", KEY) == 58
        assert await exact.put(entry(), stale_s=0, epoch=57) is None
        assert exact.epoch == 58
        assert await exact.put(entry(), stale_s=0, epoch=58) is not None
        await exact.purge(Doomed())
        assert 58 < exact.epoch <= 58 + 2 * STEP_MAX
        assert clean_redis.call("EVAL", OLD_WRITE, 2, entry().key, KEY, 58) != 58
        assert clean_redis.call("EXISTS", entry().key) == 0
        clean_redis.call("FLUSHALL")
        await until(lambda: exact.epoch >= BEGIN)
        for epoch in (exact.epoch, clean_redis.call("INCR", KEY)):
            stays = clean_redis.call("EVAL", OLD_WRITE, 2, entry().key, KEY, epoch)
        assert stays == epoch
        assert clean_redis.call("HGET", entry().key, "v") == b"old"


@pytest.mark.parametrize("text", NO_EPOCHS)
async def test_a_foreign_value_in_the_epochs_place_is_replaced(
    connection: Connection, clean_redis: RedisServer, text: str
) -> None:
    """By a purge and by a heartbeat; nothing is written by what it could be read as."""
    exact = Exact(connection, "cacheproxy")
    await stop_the_heart(connection)
    before = exact.epoch
    clean_redis.call("SET", KEY, text.encode("latin-1"))
    for asked_in in (before, 7, 1, 10, 16, 1000):
        assert await exact.put(entry(), stale_s=0, epoch=asked_in) is None
    with pytest.raises(StoreUnavailableError, match="no epoch"):
        await exact.put(entry(), stale_s=0, epoch=exact.epoch)
    assert (exact.epoch, clean_redis.call("EXISTS", entry().key)) == (NONE, 0)
    await connection._beat()
    assert exact.epoch == number(clean_redis.call("GET", KEY)) != NONE

    clean_redis.call("SET", KEY, text.encode("latin-1"))
    await exact.purge(Doomed())
    assert exact.epoch == number(clean_redis.call("GET", KEY)) != NONE


async def test_a_full_redis_without_an_epoch_is_read_and_begins_one_when_it_has_room(
    broken_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Until then nothing is kept, the log says why, and a purge is refused."""
    broken_redis.call("SET", "k", "v")
    broken_redis.call("CONFIG", "SET", "maxmemory", 1)
    async with up(broken_redis.settings(timeout=PATIENT_S)) as connection:
        exact = Exact(connection, "cacheproxy")
        assert await connection.ask("GET", "k") == b"v"
        assert exact.epoch == NONE
        with pytest.raises(StoreUnavailableError, match="no epoch"):
            await exact.put(entry(), stale_s=0, epoch=exact.epoch)
        with pytest.raises(StoreRefusedError, match="out of memory"):
            await exact.purge(Doomed())
        await connection._beat()
        assert (connection.state, caplog.text.count("out of memory")) == ("up", 1)
        broken_redis.call("CONFIG", "SET", "maxmemory", 0)
        await until(lambda: exact.epoch != NONE)

        assert await exact.put(entry(), stale_s=0, epoch=exact.epoch) is not None


async def test_a_replica_without_an_epoch_is_read_and_dialled_anew(broken_redis: RedisServer) -> None:
    """It may have been the primary a moment ago: its name, or the sentinels, then lead to the new one."""
    broken_redis.call("SET", "k", "v")
    broken_redis.call("REPLICAOF", "127.0.0.1", 1)
    async with up(broken_redis.settings(timeout=PATIENT_S)) as connection:
        assert await connection.ask("GET", "k") == b"v"
        assert connection.epoch == NONE
        gone = b"id=%d " % await connection.ask("CLIENT", "ID")
        await until(lambda: gone not in broken_redis.call("CLIENT", "LIST"))
        assert (connection.state, await connection.ask("GET", "k")) == ("up", b"v")
        broken_redis.call("REPLICAOF", "NO", "ONE")
        await until(lambda: connection.epoch != NONE)

        assert await Exact(connection, "cacheproxy").put(entry(), stale_s=0, epoch=connection.epoch) is not None


async def test_on_a_cluster_no_epoch_comes_twice_either(tmp_path: Path) -> None:
    """What is found written too late is taken back."""
    options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with running_redis(tmp_path, *options, search=False) as server:
        server.call("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        await asyncio.to_thread(wait_for_cluster, server)
        async with up(config.Redis(url=f"redis+cluster://127.0.0.1:{server.port}", timeout=PATIENT_S)) as connection:
            exact = Exact(connection, "cacheproxy")
            await exact.purge(Doomed())
            asked_in = exact.epoch
            await stop_the_heart(connection)
            server.call("FLUSHALL")
            assert await exact.put(entry(), stale_s=0, epoch=asked_in) is None
            assert exact.epoch == NONE
            await exact.purge(Doomed())
            assert await exact.put(entry(), stale_s=0, epoch=asked_in) is None
            assert server.call("EXISTS", entry().key) == 0
            assert await exact.put(entry(), stale_s=0, epoch=exact.epoch) is not None
            found = (await exact.get(Plan(key=entry().key, check=b""))).entry
            assert found is not None
