"""What every ask needs goes over two shared connections, and means what it means through redis-py."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
import redis

from cacheproxy import config
from cacheproxy.errors import StoreRefusedError, StoreUnavailableError
from cacheproxy.model import Answer, Entry, Plan
from cacheproxy.store.connection import Connection
from cacheproxy.store.entry import FIELDS
from cacheproxy.store.exact import Doomed, Exact
from cacheproxy.store.pool import Client
from tests.fakes.house import until
from tests.fakes.redis_proxy import RedisProxy
from tests.fakes.redis_server import PATIENT_S, RedisServer, free_port, running_redis
from tests.store.test_connection import up, wait_for_cluster


@pytest_asyncio.fixture
async def connection(clean_redis: RedisServer) -> AsyncIterator[Connection]:
    """An open connection to an empty Redis."""
    async with up(clean_redis.settings(timeout=PATIENT_S)) as opened:
        yield opened


def entry(number: int = 1) -> Entry:
    """An entry of one minute."""
    now = round(time.time(), 3)
    return Entry(f"cacheproxy:answer:{number:032x}:abc:default", b"c" * 32, "", "", "abc", Answer("x"), now, now + 60)


async def test_each_of_them_is_one_call_that_is_answered(connection: Connection) -> None:
    """However many commands it takes."""
    await connection.ask_all((("SET", "a", "1"), ("SET", "b", "2")), atomic=True)
    assert await connection.ask("GET", "a") == b"1"
    assert await connection.ask_all((("GET", "a"), ("GET", "b"), ("GET", "c"))) == [b"1", b"2", None]

    statistics = connection.statistics()
    assert (statistics.calls, statistics.answered) == (3, 3)


async def test_look_ups_of_one_moment_use_two_connections(connection: Connection, clean_redis: RedisServer) -> None:
    """Nothing is taken from the pool."""
    before = len(clean_redis.call("CLIENT", "LIST").splitlines())

    await asyncio.gather(*(connection.ask("GET", f"k{number}", slow=number % 2 == 0) for number in range(500)))

    assert len(clean_redis.call("CLIENT", "LIST").splitlines()) == before


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("HGETALL", "text"), "WRONGTYPE"),
        (("FT.SEARCH", "nowhere", "*"), "NOINDEX"),
        (("NONSENSE", "my secret prompt"), "ERR"),
    ],
)
async def test_a_refusal_is_told_apart_and_opens_no_breaker(
    connection: Connection, clean_redis: RedisServer, command: tuple[str, ...], code: str
) -> None:
    """Redis' own text, which may quote a prompt, is not repeated. Those of the same moment have their replies."""
    clean_redis.call("SET", "text", "x")
    for _ in range(10):
        found = await asyncio.gather(
            connection.ask("GET", "text"),
            connection.ask(*command),
            connection.ask_all((("GET", "text"), command)),
            connection.ask("GET", "text"),
            return_exceptions=True,
        )
        assert (found[0], found[3]) == (b"x", b"x")
        for error in found[1:3]:
            assert isinstance(error, StoreRefusedError)
            assert error.code == code
            assert "my secret prompt" not in str(error)
            assert error.__suppress_context__

    assert connection.state == "up"
    statistics = connection.statistics()
    assert (statistics.refused, statistics.answered, statistics.failed) == (20, 20, 0)


async def test_one_who_leaves_is_counted_and_no_evidence(connection: Connection, clean_redis: RedisServer) -> None:
    """Neither for nor against Redis."""
    clean_redis.freeze()
    try:
        tasks = [asyncio.create_task(connection.ask("GET", "k")) for _ in range(10)]
        await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        clean_redis.thaw()

    assert connection.statistics().left == 10
    assert await connection.ask("GET", "k") is None
    assert connection.state == "up"


async def test_large_replies_over_a_slow_link_are_no_evidence_against_redis(clean_redis: RedisServer) -> None:
    """Neither for those who asked for them nor for those behind."""
    clean_redis.call("SET", "large", bytes(3_000_000))
    async with (
        RedisProxy(clean_redis.port, lambda: 0.005) as proxy,
        up(config.Redis(url=f"redis://127.0.0.1:{proxy.port}", timeout=0.08)) as connection,
    ):
        for _ in range(3):
            await connection.ask("PING", timeout_s=1)
            asks = (connection.ask("GET", key) for key in ("large", *["small"] * 10))
            for error in await asyncio.gather(*asks, return_exceptions=True):
                assert isinstance(error, StoreUnavailableError)
                assert "still sending a large reply" in str(error)

        assert connection.state == "up"
        statistics = connection.statistics()
        assert (statistics.failed, statistics.breaker_opened) == (33, 0)


async def test_a_full_redis_keeps_nothing_of_an_entry(broken_redis: RedisServer) -> None:
    """Refused, and what was there before is still there, with its lifetime; reads go on."""
    async with up(broken_redis.settings(timeout=PATIENT_S)) as connection:
        exact = Exact(connection, "cacheproxy")
        await exact.put(entry(1), stale_s=0, epoch=exact.epoch)
        broken_redis.call("CONFIG", "SET", "maxmemory", 1)
        for number in (1, 2):
            with pytest.raises(StoreRefusedError, match="out of memory"):
                await exact.put(replace(entry(number), answer=Answer("new")), stale_s=0, epoch=exact.epoch)

        found = (await exact.get(Plan(key=entry(1).key, check=b""))).entry
        assert found is not None
        assert found.answer == Answer("x")
        assert broken_redis.call("PTTL", entry(1).key) > 0
        assert broken_redis.call("EXISTS", entry(2).key) == 0


async def test_an_entry_is_written_with_its_lifetime_and_whole_in_the_place_of_another_value(
    connection: Connection, clean_redis: RedisServer
) -> None:
    """Fields of an older one do not stay, nor what somebody else has put under the key."""
    exact = Exact(connection, "cacheproxy")
    clean_redis.call("HSET", entry().key, "vector_of_old", "x")
    size_bytes = await exact.put(entry(), stale_s=5, epoch=exact.epoch)

    assert size_bytes is not None
    assert size_bytes > 30
    assert 60_000 < clean_redis.call("PTTL", entry().key) <= 65_000
    assert clean_redis.call("HLEN", entry().key) == len(FIELDS)
    clean_redis.call("SET", entry().key, "foreign")
    assert await exact.put(entry(), stale_s=5, epoch=exact.epoch) == size_bytes


async def test_nothing_of_before_a_purge_by_another_proxy_is_written_after_it(
    connection: Connection, clean_redis: RedisServer
) -> None:
    """Not for a moment; and what copies were held here go at once."""
    heard: list[int] = []
    connection.on_change.append(lambda: heard.append(1))
    exact, asked_in = Exact(connection, "cacheproxy"), connection.epoch
    async with up(clean_redis.settings(timeout=PATIENT_S)) as other:
        await Exact(other, "cacheproxy").purge(Doomed())
        now = other.epoch
    for answer in ("x", "x" * 1_000_000):
        assert await exact.put(replace(entry(), answer=Answer(answer)), stale_s=5, epoch=asked_in) is None

    assert clean_redis.call("EXISTS", entry().key) == 0
    assert (connection.epoch, len(heard)) == (now, 1)
    assert await exact.put(entry(), stale_s=5, epoch=now) is not None


async def test_a_reply_from_before_a_purge_does_not_take_the_epoch_back(clean_redis: RedisServer) -> None:
    """Replies of two connections have no order; a flushed Redis is heard of all the same."""
    delays: list[float] = []
    async with (
        RedisProxy(clean_redis.port, lambda: delays.pop() if delays else 0.0) as proxy,
        up(config.Redis(url=f"redis://127.0.0.1:{proxy.port}", timeout=2.0)) as connection,
    ):
        await connection._heart.stop()
        exact = Exact(connection, "cacheproxy")
        await exact.put(entry(2), stale_s=0, epoch=exact.epoch)
        delays.append(0.3)
        put = asyncio.create_task(exact.put(entry(), stale_s=0, epoch=exact.epoch))
        await until(lambda: not delays)
        await exact.purge(Doomed())
        assert not put.done()

        assert await put is not None
        assert connection.epoch == int(clean_redis.call("GET", "cacheproxy:epoch"))
        assert clean_redis.call("EXISTS", entry().key) == 0
        clean_redis.call("FLUSHALL")
        assert (await connection.read_epoch(), connection.epoch) == (0, 0)


async def test_a_heartbeat_begun_before_a_purge_does_not_take_the_epoch_back(
    connection: Connection, clean_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it found was true when it began."""
    await connection._heart.stop()
    look = connection._look

    async def look_then_purge(client: Client) -> object:
        found = await look(client)
        await Exact(connection, "cacheproxy").purge(Doomed())
        return found

    monkeypatch.setattr(connection, "_look", look_then_purge)
    await connection._beat()

    assert connection.epoch == int(clean_redis.call("GET", "cacheproxy:epoch"))


async def test_a_primary_that_became_a_replica_is_dialled_anew(broken_redis: RedisServer) -> None:
    """So that its name, or the sentinels, lead to the new primary."""
    async with up(broken_redis.settings(timeout=PATIENT_S)) as connection:
        before = await connection.ask("CLIENT", "ID"), await connection.ask("CLIENT", "ID", slow=True)
        broken_redis.call("REPLICAOF", "127.0.0.1", 1)
        with pytest.raises(StoreRefusedError, match="is a replica") as caught:
            await connection.ask_all((("SET", "a", "1"),), atomic=True)
        broken_redis.call("REPLICAOF", "NO", "ONE")
        assert caught.value.code == "READONLY"
        gone = [b"id=%d " % number for number in before]
        await until(lambda: not any(number in broken_redis.call("CLIENT", "LIST") for number in gone))

        assert await connection.ask("PING") == b"PONG"


async def test_a_slow_line_that_was_dropped_silently_is_found_out_before_an_ask_needs_it(
    clean_redis: RedisServer,
) -> None:
    """A firewall forgets what is idle, and tells nobody; the heartbeat looks."""
    delays: dict[str, float] = {"s": 0.0}
    async with (
        RedisProxy(clean_redis.port, lambda: delays["s"]) as proxy,
        up(config.Redis(url=f"redis://127.0.0.1:{proxy.port}", timeout=0.2)) as connection,
    ):
        await connection._heart.stop()
        before = await connection.ask("CLIENT", "ID", slow=True)
        delays["s"] = 1.5
        stuck = asyncio.create_task(connection.ask("PING", slow=True, timeout_s=30.0))
        await asyncio.sleep(0.05)
        delays["s"] = 0.0
        await connection._beat()

        assert connection.state == "up"
        assert connection.statistics().failed == 0
        assert await connection.ask("CLIENT", "ID", slow=True) != before
        stuck.cancel()


async def refused() -> object:
    """No connection."""
    raise ConnectionRefusedError


async def hung() -> object:
    """Nothing at all, for longer than anybody waits."""
    await asyncio.sleep(60)
    raise AssertionError


@pytest.mark.parametrize(("dial", "why"), [(refused, "cannot be reached"), (hung, "gave no answer")])
async def test_a_redis_whose_slow_line_cannot_be_dialled_is_up(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, dial: Callable[[], Awaitable[object]], why: str
) -> None:
    """Look-ups by key go on, and the look at Redis does not wait to the end; who needs the other line hears why."""
    assert connection._lines is not None
    await connection._heart.stop()
    monkeypatch.setattr(connection._lines.slow, "_dial", dial)
    connection._lines.redial()
    await connection._beat()

    assert connection.state == "up"
    assert await connection.ask("PING") == b"PONG"
    with pytest.raises(StoreUnavailableError, match=why):
        await connection.ask("PING", slow=True)


async def test_large_writes_that_come_too_late_are_no_evidence_against_redis(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link may be slow; small asks go on."""

    async def late(*_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr("cacheproxy.store.connection.within", late)
    for _ in range(8):
        with pytest.raises(StoreUnavailableError, match="gave no answer"):
            await connection.write("return 0", "k", epoch=0, large=True)
    monkeypatch.undo()

    assert connection.state == "up"
    assert connection.statistics().breaker_opened == 0


@pytest.mark.fault(18)
async def test_a_redis_without_a_connection_for_a_line_is_away_until_it_has_one(broken_redis: RedisServer) -> None:
    """`maxclients` reached: the reason says so."""
    operator = redis.Redis(port=broken_redis.port, single_connection_client=True)
    async with up(broken_redis.settings()) as connection:
        operator.config_set("maxclients", 1)
        operator.client_kill_filter(_type="normal", skipme=True)
        await until(lambda: connection.state == "down")
        reasons = set()
        while not any("no connection left for us" in reason for reason in reasons):
            with pytest.raises(StoreUnavailableError) as caught:
                await connection.ask("GET", "k")
            reasons.add(str(caught.value))
            await asyncio.sleep(0.01)
        operator.config_set("maxclients", 100)
        await until(lambda: connection.state == "up")

        assert await connection.ask("GET", "k") is None
    operator.close()


async def test_asks_under_way_when_it_is_closed_are_no_evidence(
    broken_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """They end at once, and so do those that come while it closes; nothing says that Redis is away."""
    async with up(broken_redis.settings(timeout=20.0)) as connection:
        broken_redis.freeze()
        asks = [asyncio.create_task(connection.ask("GET", "k")) for _ in range(10)]
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(connection.close())
        late = []
        while not closing.done():
            late.append(asyncio.create_task(connection.ask("GET", "k")))
            await asyncio.sleep(0)
        broken_redis.thaw()
        ended = await asyncio.gather(*asks, *late, return_exceptions=True)

    assert {type(error) for error in ended} == {StoreUnavailableError}
    statistics = connection.statistics()
    assert (statistics.left, statistics.failed, statistics.breaker_opened) == (10, 0, 0)
    assert statistics.not_tried == len(late) > 0
    assert "serving without cache" not in caplog.text


async def test_after_close_nothing_is_tried(clean_redis: RedisServer) -> None:
    """Nobody hangs on a closed store, and no connection is left."""
    before = len(clean_redis.call("CLIENT", "LIST").splitlines())
    async with up(clean_redis.settings(timeout=PATIENT_S)) as connection:
        await connection.ask("PING")

    for call in (connection.ask("PING"), connection.ask_all((("PING",),)), connection.write("", "k", epoch=0)):
        with pytest.raises(StoreUnavailableError):
            await call
    await until(lambda: len(clean_redis.call("CLIENT", "LIST").splitlines()) <= before)


async def test_a_cluster_is_asked_through_redis_py_with_the_same_results(tmp_path: Path) -> None:
    """Each key has a server of its own there, so there is no one connection for all."""
    options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with running_redis(tmp_path, *options, search=False) as server:
        server.call("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        await asyncio.to_thread(wait_for_cluster, server)
        async with up(config.Redis(url=f"redis+cluster://127.0.0.1:{server.port}", timeout=PATIENT_S)) as connection:
            exact = Exact(connection, "cacheproxy")
            kept = [entry(number) for number in range(10)]
            asked_in = exact.epoch
            for one in kept:
                assert await exact.put(one, stale_s=0, epoch=asked_in) is not None
            plans = [Plan(key=one.key, check=b"") for one in kept]

            assert [(await exact.get(plan)).entry for plan in plans] == kept
            assert [found for found, _ in (await exact.get_many(plans))[0]] == kept
            assert server.call("PTTL", kept[0].key) > 0
            await connection.bump_epoch()
            assert await exact.put(kept[0], stale_s=0, epoch=asked_in) is None
            assert server.call("EXISTS", kept[0].key) == 0
            server.call("SET", "text", "x")
            with pytest.raises(StoreRefusedError):
                await connection.ask("HGETALL", "text")


async def test_a_call_that_fails_leaves_nothing_for_the_garbage_collector(connection: Connection) -> None:
    """Its error would hold its frame, which holds the error: and with it what was to be written."""

    async def failing() -> None:
        raise ConnectionError

    async def ask_in_vain() -> None:
        with pytest.raises(StoreUnavailableError, match="cannot be reached"):
            await connection._counted(0, failing(), 0.05)
        with pytest.raises(StoreUnavailableError, match="cannot be reached"):
            await connection._translated(failing(), 0.05)

    await ask_in_vain()
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            await ask_in_vain()
        assert gc.collect() < 20
    finally:
        gc.enable()
