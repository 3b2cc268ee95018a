"""Redis answers within the deadline or is away; it never answers one ask with another's reply."""

import asyncio
import contextlib
import logging
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import NoReturn, Self

import pytest
import redis.asyncio

from cacheproxy import behind, config
from cacheproxy.clock import SystemClock
from cacheproxy.errors import ConfigError, StoreRefusedError, StoreUnavailableError
from cacheproxy.store.capabilities import capabilities
from cacheproxy.store.connection import Connection
from cacheproxy.store.contact import HEARTBEAT_S, OPEN_WAIT_S_MAX
from cacheproxy.store.pool import Client
from tests.fakes.redis_proxy import RedisProxy
from tests.fakes.redis_server import PATIENT_S, RedisServer, free_port, running_redis
from tests.fakes.stopwatch import Stopwatch, now

pytestmark = pytest.mark.usefixtures("redis_server")  # skips everything where no server is installed

EPOCH = "cacheproxy:epoch"
SLACK_S = 1.0
"""What a busy machine may add to a deadline. Without our limits a fault costs 3 to 59 s, so this hides none."""
LEAVE_S_MAX = 0.008
"""Clients in a storm leave within this time: before, while and after their command is under way."""
BACK_S_MAX = 0.5
"""First answer after Redis answers again."""


@contextlib.asynccontextmanager
async def opened(settings: config.Redis) -> AsyncIterator[Connection]:
    """A connection for one `with` block."""
    connection = Connection(settings, SystemClock())
    await connection.open()
    try:
        yield connection
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def up(settings: config.Redis) -> AsyncIterator[Connection]:
    """The same, once it is up."""
    async with opened(settings) as connection:
        await eventually(lambda: connection.state == "up")
        yield connection


async def eventually(holds: Callable[[], bool], within_s: float = 5.0) -> float:
    """Seconds until it holds."""
    watch = Stopwatch()
    while not holds():
        assert watch.seconds < within_s, "it never came to hold"
        await asyncio.sleep(0.002)
    return watch.seconds


def get(key: str = "k") -> Callable[[Client], Awaitable[bytes | None]]:
    """What `run` takes to read one key."""

    async def use(client: Client) -> bytes | None:
        value = await client.get(key)
        assert not isinstance(value, str)
        return value

    return use


Way = Callable[[Connection, str], Awaitable[bytes | None]]
WAYS: dict[str, Way] = {
    "run": lambda connection, key: connection.run(get(key)),
    "ask": lambda connection, key: connection.ask("GET", key),
    "slow": lambda connection, key: connection.ask("GET", key, slow=True),
}
"""A key is read through the pool and through either line; what Redis does must show in all of them alike."""
both_ways = pytest.mark.parametrize("way", WAYS)


class Load:
    """Workers that ask all the time, and what became of each ask."""

    def __init__(self, connection: Connection, workers: int = 20, way: str = "run") -> None:
        self._read = WAYS[way]
        self.answers: list[tuple[float, float]] = []
        """When each answer came, and how long it took (s)."""
        self.failures: list[tuple[float, float]] = []
        self.reasons: set[str] = set()
        self._connection = connection
        self._tasks = [asyncio.create_task(self._work(number)) for number in range(workers)]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        for result in results:
            if not isinstance(result, asyncio.CancelledError):
                raise AssertionError("an ask ended in an error that is not ours") from result

    async def _work(self, number: int) -> None:
        while True:
            watch = Stopwatch()
            try:
                value = await self._read(self._connection, f"k{number}")
            except StoreUnavailableError as failure:
                self.failures.append((now(), watch.seconds))
                self.reasons.add(str(failure))
            else:
                assert value in (b"v%d" % number, None)
                self.answers.append((now(), watch.seconds))
            await asyncio.sleep(0.002)

    def answered_since(self, moment: float) -> bool:
        """Whether an answer came after that moment."""
        return bool(self.answers) and self.answers[-1][0] > moment


async def fill(connection: Connection, count: int = 20) -> None:
    """Store `vN` under `kN`."""
    for number in range(count):
        await connection.run(lambda client, n=number: client.set(f"k{n}", b"v%d" % n), timeout_s=1)  # type: ignore[misc]


async def test_a_command_is_answered_and_counted(clean_redis: RedisServer) -> None:
    """The plain case, over TCP and over a Unix socket."""
    for url in (clean_redis.url, clean_redis.unix_url):
        async with up(clean_redis.settings(url=url, timeout=PATIENT_S)) as connection:
            await connection.run(lambda client: client.set("k", b"v"))

            assert await connection.run(get()) == b"v"
            assert connection.reason == ""
            statistics = connection.statistics()
            assert (statistics.calls, statistics.answered, statistics.contacts) == (2, 2, 1)


async def test_what_redis_can_do_is_found_out(clean_redis: RedisServer) -> None:
    """Version, search module, memory limit; and what is missing, with its remedy."""
    async with up(clean_redis.settings(timeout=PATIENT_S)) as connection:
        found = connection.capabilities

        assert found.server_version.startswith("8.")
        assert found.search_version is not None
        assert found.search_version.startswith("2.10.")
        assert "maxmemory is not set" in found.note


@pytest.mark.parametrize(
    ("version", "told"),
    [(20812, "2.8.12 is too old; use redis:8, or load redisearch 2.10.0 or newer"), (21000, ""), (80001, "")],
)
def test_a_search_module_too_old_for_near_answers_is_named_with_its_remedy(version: int, told: str) -> None:
    """Their index holds float16, which came with 2.10."""
    found = capabilities({"modules": [{"name": "search", "ver": version}], "maxmemory": 1, "maxmemory_policy": "x"})

    assert found.near_lack == (f"search module {told}" if told else "")
    assert found.note == (f"near answers are off: search module {told}" if told else "")


async def test_a_redis_without_search_is_used_and_the_note_says_what_to_do(tmp_path: Path) -> None:
    """Exact answers work on any Redis."""
    with running_redis(tmp_path, "--maxmemory", "100mb", search=False) as server:
        async with up(server.settings()) as connection:
            assert connection.capabilities.search_version is None
            assert "no search module" in connection.capabilities.note
            assert "redis:8" in connection.capabilities.note
            assert "noeviction" in connection.capabilities.note
            assert await connection.run(get()) is None


async def test_proxies_on_one_redis_share_a_secret_and_it_survives_them(clean_redis: RedisServer) -> None:
    """The first puts it there, the others take it over; with another prefix there is another one."""
    async with (
        up(clean_redis.settings(timeout=PATIENT_S)) as first,
        up(clean_redis.settings(timeout=PATIENT_S)) as second,
    ):
        shared = first.secret
        assert len(shared) == 32
        assert second.secret == shared
        assert second.generation == 1
    async with (
        up(clean_redis.settings(timeout=PATIENT_S)) as third,
        up(clean_redis.settings(prefix="other", timeout=PATIENT_S)) as stranger,
    ):
        assert third.secret == shared
        assert stranger.secret != shared


async def test_a_raised_epoch_reaches_the_other_proxies_within_a_heartbeat(clean_redis: RedisServer) -> None:
    """One purges, all drop their copies."""
    async with (
        up(clean_redis.settings(timeout=PATIENT_S)) as first,
        up(clean_redis.settings(timeout=PATIENT_S)) as second,
    ):
        heard: list[str] = []
        first.on_change.append(lambda: heard.append("first"))
        second.on_change.append(lambda: heard.append("second"))

        before = first.epoch
        raised = await first.bump_epoch()

        assert raised > before
        assert heard == ["first"]
        await eventually(lambda: second.epoch == raised, HEARTBEAT_S + SLACK_S)
        assert heard == ["first", "second"]


async def test_a_flush_is_noticed_even_if_the_epoch_looks_the_same(clean_redis: RedisServer) -> None:
    """Somebody has put it back: the missing secret tells, and the old one is put back too."""
    async with up(clean_redis.settings(timeout=PATIENT_S)) as connection:
        heard: list[int] = []
        connection.on_change.append(lambda: heard.append(1))
        secret = connection.secret
        clean_redis.call(
            "EVAL", "redis.call('FLUSHALL') redis.call('SET', KEYS[1], ARGV[1])", 1, EPOCH, connection.epoch
        )

        await eventually(lambda: heard == [1], HEARTBEAT_S + SLACK_S)

        assert connection.secret == secret
        assert clean_redis.call("GET", "cacheproxy:secret") == secret


async def test_a_defect_does_not_stop_the_heartbeat(
    clean_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Other proxies' purges are heard of as soon as it has passed."""
    monkeypatch.setattr(behind, "REST_S", 0.01)
    async with (
        up(clean_redis.settings(timeout=PATIENT_S)) as first,
        up(clean_redis.settings(timeout=PATIENT_S)) as second,
    ):
        look = second._look

        async def fail_once(_client: Client) -> NoReturn:
            monkeypatch.setattr(second, "_look", look)
            raise KeyError

        monkeypatch.setattr(second, "_look", fail_once)
        await eventually(lambda: second._look == look, HEARTBEAT_S + SLACK_S)
        raised = await first.bump_epoch()
        await eventually(lambda: second.epoch == raised, HEARTBEAT_S + SLACK_S)

    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [KeyError]


async def test_a_listener_that_fails_does_not_stop_the_heartbeat(
    clean_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Its error is logged, and the next one is called."""
    async with up(clean_redis.settings(timeout=PATIENT_S)) as connection:
        heard: list[int] = []
        connection.on_change.append(lambda: heard.remove(99))
        connection.on_change.append(lambda: heard.append(1))

        await connection.bump_epoch()

        assert heard == [1]
        assert "a listener of the redis connection failed" in caplog.text


@pytest.mark.parametrize(
    ("prepare", "use", "code"),
    [
        (("SET", "k", "v"), lambda client: client.hgetall("k"), "WRONGTYPE"),
        (("PING",), lambda client: client.execute_command("FT.SEARCH", "nowhere", "*"), "NOINDEX"),
        (("PING",), lambda client: client.execute_command("NONSENSE", "my secret prompt"), "ERR"),
        (("PING",), lambda client: client.set("k", object()), "ERR"),
    ],
)
async def test_a_refused_command_is_told_apart_and_does_not_open_the_breaker(
    clean_redis: RedisServer, prepare: tuple[str, ...], use: Callable[[Client], Awaitable[object]], code: str
) -> None:
    """Redis is well: others must not suffer. Its own text, which may quote a prompt, is not repeated."""
    clean_redis.call(*prepare)
    async with up(clean_redis.settings(timeout=PATIENT_S)) as connection:
        for _ in range(10):
            with pytest.raises(StoreRefusedError) as caught:
                await connection.run(use)

        assert caught.value.code == code
        assert "my secret prompt" not in str(caught.value)
        assert caught.value.__suppress_context__
        assert connection.state == "up"
        assert connection.statistics().refused == 10


async def test_a_full_redis_refuses_writes_and_goes_on_answering_reads(
    broken_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Refusals of writes say nothing about reads; the log has one line for them."""
    async with up(broken_redis.settings()) as connection:
        await connection.run(lambda client: client.set("k", b"v"))
        broken_redis.call("CONFIG", "SET", "maxmemory", 1)
        for _ in range(10):
            with pytest.raises(StoreRefusedError, match="out of memory"):
                await connection.run(lambda client: client.set("other", b"v"))

        assert await connection.run(get()) == b"v"
        assert caplog.text.count("out of memory") == 1


async def test_errors_of_the_callers_own_code_pass_through(clean_redis: RedisServer) -> None:
    """A bug is not dressed up as a fault of Redis."""

    async def buggy(client: Client) -> int:
        await client.ping()
        return int({"present": 1}["missing"])

    async with up(clean_redis.settings(timeout=PATIENT_S)) as connection:
        with pytest.raises(KeyError):
            await connection.run(buggy)
        assert connection.statistics().left == 1
        assert connection.state == "up"


async def test_after_close_calls_fail_at_once_and_no_connection_is_left(clean_redis: RedisServer) -> None:
    """Nothing hangs on a closed store, and closing twice is fine."""
    before = len(clean_redis.call("CLIENT", "LIST").splitlines())
    async with up(clean_redis.settings(timeout=PATIENT_S)) as connection:
        await asyncio.gather(*(connection.run(get()) for _ in range(10)))
    await connection.close()

    with pytest.raises(StoreUnavailableError):
        await connection.run(get())
    await eventually(lambda: len(clean_redis.call("CLIENT", "LIST").splitlines()) <= before)


@both_ways
@pytest.mark.fault(1)
async def test_killed_under_load_it_is_a_miss_and_comes_back_by_itself(broken_redis: RedisServer, way: str) -> None:
    """SIGKILL, half a second of nothing, start: only our errors, none slow, answers again within half a second."""
    async with up(broken_redis.settings()) as connection:
        await fill(connection)
        async with Load(connection, way=way) as load:
            await eventually(lambda: len(load.answers) > 200)
            failed_before = connection.statistics().failed
            await asyncio.to_thread(broken_redis.kill)
            await eventually(lambda: connection.state == "down")
            await asyncio.sleep(0.5)
            assert connection.statistics().failed - failed_before <= 5 + 20  # those under way when the fifth failed
            await asyncio.to_thread(broken_redis.start)
            ready = now()
            await eventually(lambda: load.answered_since(ready), BACK_S_MAX + SLACK_S)

        assert max(seconds for _, seconds in load.failures) < 0.05 + SLACK_S


@both_ways
@pytest.mark.fault(2)
async def test_frozen_it_costs_one_deadline_and_comes_back_by_itself(broken_redis: RedisServer, way: str) -> None:
    """SIGSTOP under load: no ask waits longer than its deadline, hardly any waits at all, then it is used again."""
    async with up(broken_redis.settings()) as connection:
        await fill(connection)
        async with Load(connection, way=way) as load:
            await eventually(lambda: len(load.answers) > 200)
            broken_redis.freeze()
            await eventually(lambda: connection.state == "down")
            paid = connection.statistics().failed
            await asyncio.sleep(1.2)
            assert connection.statistics().failed - paid <= 20
            broken_redis.thaw()
            thawed = now()
            await eventually(lambda: load.answered_since(thawed), BACK_S_MAX + SLACK_S)

        assert max(seconds for _, seconds in load.failures) < 0.05 + SLACK_S
        free = [seconds for _, seconds in load.failures if seconds < 0.03]  # far from a deadline, also where it is busy
        assert len(free) > 0.8 * len(load.failures)


@both_ways
@pytest.mark.fault(4)
async def test_a_closed_port_at_start_is_no_error_and_the_store_connects_later(tmp_path: Path, way: str) -> None:
    """The proxy starts without Redis and finds it when it is there."""
    server = RedisServer(tmp_path)
    watch = Stopwatch()
    async with opened(server.settings()) as connection:
        assert watch.seconds < OPEN_WAIT_S_MAX + SLACK_S
        assert connection.state == "down"
        assert connection.reason == f"redis at 127.0.0.1:{server.port} cannot be reached"
        with pytest.raises(StoreUnavailableError, match="cannot be reached"):
            await WAYS[way](connection, "k")
        try:
            await asyncio.to_thread(server.start)
            await eventually(lambda: connection.state == "up", BACK_S_MAX + SLACK_S)
            assert await WAYS[way](connection, "k") is None
        finally:
            server.stop()


@both_ways
@pytest.mark.fault(5)
async def test_a_black_hole_costs_one_deadline_and_not_a_minute(way: str) -> None:
    """A port that accepts and never answers: the library's defaults would wait 59 s."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as hole:
        watch = Stopwatch()
        async with opened(config.Redis(url=f"redis://127.0.0.1:{hole.getsockname()[1]}")) as connection:
            assert watch.seconds < OPEN_WAIT_S_MAX + SLACK_S
            assert connection.state == "connecting"
            watch = Stopwatch()
            with pytest.raises(StoreUnavailableError, match=r"gave no answer in 0\.05 s"):
                await WAYS[way](connection, "k")
            assert 0.04 < watch.seconds < 0.05 + SLACK_S


async def storm(ask: Callable[[int], Awaitable[bytes | None]], count: int) -> tuple[int, int, int]:
    """Ask `count` times, leaving half at a random moment; how many were answered, left, and answered wrongly."""
    chance = random.Random(9)
    answered = left = wrong = 0

    async def worker(share: int) -> None:
        nonlocal answered, left, wrong
        for _ in range(share):
            number = chance.randrange(200)
            task = asyncio.ensure_future(ask(number))
            if chance.random() < 0.5:
                asyncio.get_running_loop().call_later(chance.uniform(0, LEAVE_S_MAX), task.cancel)
            try:
                value = await task
            except asyncio.CancelledError:
                left += 1
            else:
                answered += 1
                wrong += value != b"v%d" % number

    await asyncio.gather(*(worker(count // 50) for _ in range(50)))
    return answered, left, wrong


@pytest.mark.fault(9)
@pytest.mark.parametrize("form", ["plain", "pipeline"])
async def test_thousands_of_cancelled_commands_never_shift_a_reply(clean_redis: RedisServer, form: str) -> None:
    """The ChatGPT incident of March 2023 (CVE-2023-28858): clients leave in mid-command, others must get their own."""
    chance = random.Random(8)

    async def both(client: Client, number: int) -> bytes | None:
        async with client.pipeline(transaction=number % 2 == 0) as pipe:
            pipe.get(f"k{199 - number}")
            pipe.get(f"k{number}")
            replies = await pipe.execute()
        assert replies[0] == b"v%d" % (199 - number)
        return replies[1]  # type: ignore[no-any-return]

    async with RedisProxy(clean_redis.port, lambda: chance.uniform(0, 0.004)) as proxy:
        settings = config.Redis(url=f"redis://127.0.0.1:{proxy.port}", connections=32, timeout=PATIENT_S)
        async with up(settings) as connection:
            await fill(connection, 200)

            async def ask(number: int) -> bytes | None:
                if form == "plain":
                    return await connection.run(get(f"k{number}"))
                return await connection.run(lambda client: both(client, number))

            answered, left, wrong = await storm(ask, 10_000)

            assert wrong == 0
            assert answered > 3000
            assert left > 3000
            assert connection.state == "up"
            # No connection was lost: all 32 can be lent out at once, and none is lent out now.
            assert connection.statistics().connections_used == 0
            gate = asyncio.Barrier(32)
            await asyncio.gather(*(connection.run(lambda client: hold(client, gate)) for _ in range(32)))


async def hold(client: Client, gate: asyncio.Barrier) -> None:
    """Keep one connection until 32 are kept."""
    async with client.pipeline() as pipe:
        await pipe.watch("k")
        await gate.wait()


class CarelessClient:
    """Gives connections back with their replies unread when it is cancelled, as redis-py 4.5.1 did."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._all: list[asyncio.StreamWriter] = []

    async def get(self, number: int) -> bytes | None:
        """The value of `kN`, or of another key."""
        if self._idle:
            reader, writer = self._idle.pop()
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            self._all.append(writer)
        try:
            writer.write(b"GET k%d\r\n" % number)
            await reader.readline()
            return (await reader.readline()).strip()
        finally:
            self._idle.append((reader, writer))

    def close(self) -> None:
        """Cut all connections."""
        for writer in self._all:
            writer.transport.abort()


@pytest.mark.fault(9)
async def test_the_storm_would_find_a_client_that_shifts_replies(clean_redis: RedisServer) -> None:
    """The proof that the test above can fail."""
    chance = random.Random(8)
    async with RedisProxy(clean_redis.port, lambda: chance.uniform(0, 0.004)) as proxy:
        async with up(clean_redis.settings()) as connection:
            await fill(connection, 200)
        careless = CarelessClient(proxy.port)
        try:
            _, _, wrong = await storm(careless.get, 1000)
        finally:
            careless.close()

    assert wrong > 50


@both_ways
@pytest.mark.fault(8)
async def test_a_reply_that_comes_after_the_deadline_reaches_nobody(clean_redis: RedisServer, way: str) -> None:
    """Some replies take longer than the deadline: those asks miss, and no other ask gets them."""
    chance = random.Random(7)
    late = 0

    def delay_s() -> float:
        return chance.uniform(0.04, 0.08) if chance.random() < 0.1 else 0.0

    async with RedisProxy(clean_redis.port, delay_s) as proxy:
        settings = config.Redis(url=f"redis://127.0.0.1:{proxy.port}", connections=16)
        async with up(clean_redis.settings()) as straight:
            await fill(straight, 200)
        async with opened(settings) as connection:

            def enough() -> bool:
                statistics = connection.statistics()
                return statistics.failed > 50 and statistics.answered > 1000

            async def worker() -> None:
                nonlocal late
                while not enough():
                    number = chance.randrange(200)
                    try:
                        value = await WAYS[way](connection, f"k{number}")
                    except StoreUnavailableError:
                        late += 1
                        await asyncio.sleep(0.005)
                    else:
                        assert value == b"v%d" % number

            async with asyncio.timeout(30):
                await asyncio.gather(*(worker() for _ in range(30)))
            statistics = connection.statistics()

    assert late == statistics.failed + statistics.not_tried


@both_ways
@pytest.mark.fault(10)
async def test_restarted_empty_it_is_filled_again_and_the_secret_is_kept(broken_redis: RedisServer, way: str) -> None:
    """No answer is wrong, copies are dropped, and what this proxy keyed stays verifiable by its peers."""
    async with up(broken_redis.settings()) as connection:
        heard: list[int] = []
        connection.on_change.append(lambda: heard.append(1))
        last = await connection.bump_epoch()
        secret = connection.secret
        async with Load(connection, way=way) as load:
            await fill(connection)
            await eventually(lambda: len(load.answers) > 50)
            await asyncio.to_thread(broken_redis.kill)
            await asyncio.to_thread(broken_redis.start)
            await eventually(lambda: len(heard) >= 2, HEARTBEAT_S + SLACK_S)
            ready = now()
            await eventually(lambda: load.answered_since(ready), BACK_S_MAX + SLACK_S)

        assert connection.epoch not in (0, last)  # none of those that were
        assert connection.epoch == int(broken_redis.call("GET", EPOCH))
        assert connection.secret == secret
        assert broken_redis.call("GET", "cacheproxy:secret") == secret
        assert await connection.run(get("k1")) is None


@both_ways
@pytest.mark.fault(11)
async def test_while_it_loads_its_data_it_is_away_and_afterwards_it_is_used(tmp_path: Path, way: str) -> None:
    """LOADING is a miss with its reason, not an error of the ask."""
    with running_redis(tmp_path, "--loading-process-events-interval-bytes", "1024") as server:
        server.call("EVAL", "for i = 1, 1500 do redis.call('SET', 'n' .. i, 'v') end", 0)
        server.call("SAVE")
        async with up(server.settings()) as connection, Load(connection, way=way) as load:
            await asyncio.to_thread(server.kill)
            server.start("--key-load-delay", "500", wait=False)
            await eventually(lambda: connection.reason.endswith("is loading its data"))
            with pytest.raises(StoreUnavailableError, match="is loading its data"):
                await connection.run(get())
            await asyncio.to_thread(server.wait_ready)
            ready = now()
            await eventually(lambda: load.answered_since(ready), BACK_S_MAX + SLACK_S)
            # Asks that hung during the load may still open it once more.
            await eventually(lambda: connection.state == "up", BACK_S_MAX + SLACK_S)
            assert await connection.run(get("n1500"), timeout_s=1) == b"v"


async def test_one_that_loads_its_data_is_waited_for_and_one_that_is_gone_is_not(tmp_path: Path) -> None:
    """What `cacheproxy check` and `tune` do, whose embedded server has only just been started."""
    with running_redis(tmp_path, "--loading-process-events-interval-bytes", "1024") as server:
        server.call("EVAL", "for i = 1, 1500 do redis.call('SET', 'n' .. i, 'v') end", 0)
        server.call("SAVE")
        server.kill()
        async with opened(server.settings()) as gone:
            watch = Stopwatch()
            assert not await gone.wait_up(30)
            assert watch.seconds < 5
        server.start("--key-load-delay", "500", wait=False)
        async with opened(server.settings()) as watcher:
            await eventually(lambda: watcher.reason.endswith("is loading its data"))
        async with opened(server.settings()) as loading:
            assert loading.state != "up"
            assert await loading.wait_up(30)
            assert await loading.run(get("n1500"), timeout_s=1) == b"v"


@pytest.mark.fault(17)
@pytest.mark.parametrize(
    ("user_part", "says"),
    [("", "wants a password"), (":wr0ng-secret@", "refused the user name or password")],
)
async def test_a_wrong_password_stops_the_start_with_a_clear_message(tmp_path: Path, user_part: str, says: str) -> None:
    """Waiting would not cure it. The password itself is in no message."""
    with running_redis(tmp_path) as server:
        server.call("CONFIG", "SET", "requirepass", "right-secret")
        connection = Connection(config.Redis(url=f"redis://{user_part}127.0.0.1:{server.port}"), SystemClock())

        with pytest.raises(ConfigError, match=says) as caught:
            await connection.open()

        assert "secret" not in str(caught.value)
        async with up(config.Redis(url=f"redis://:right-secret@127.0.0.1:{server.port}")) as connection:
            assert "secret" not in repr(connection.where)


@both_ways
@pytest.mark.fault(17)
async def test_a_password_changed_while_running_opens_the_breaker_without_a_storm(
    broken_redis: RedisServer, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    """One log line, a few attempts a second, and no password in any of them."""
    caplog.set_level(logging.DEBUG)
    async with up(broken_redis.settings()) as connection, Load(connection, way=way) as load:
        await eventually(lambda: len(load.answers) > 50)
        broken_redis.call("CONFIG", "SET", "requirepass", "new-secret")
        operator = redis.Redis(port=broken_redis.port, password="new-secret", single_connection_client=True)
        operator.client_kill_filter(_type="normal", skipme=True)
        before = operator.info("stats")["total_connections_received"]
        await eventually(lambda: connection.state == "down")
        await asyncio.sleep(1.0)
        attempts = operator.info("stats")["total_connections_received"] - before
        operator.close()

    assert connection.reason.endswith("wants a password")
    assert attempts <= 20 + 8
    ours = [record.getMessage() for record in caplog.records if record.name == "cacheproxy.store"]
    assert len([line for line in ours if "serving without cache" in line]) == 1
    assert "new-secret" not in caplog.text


@pytest.mark.fault(18)
async def test_when_redis_has_no_connection_left_asks_miss_and_nothing_else(broken_redis: RedisServer) -> None:
    """`maxclients` reached: our error with its reason; and it recovers when there is room."""
    operator = redis.Redis(port=broken_redis.port, single_connection_client=True)
    async with up(broken_redis.settings()) as connection:
        operator.config_set("maxclients", 2)
        async with Load(connection, workers=10) as load:
            await eventually(lambda: any("no connection left for us" in reason for reason in load.reasons))
            operator.config_set("maxclients", 100)
            failed = connection.statistics().failed
            await eventually(lambda: connection.statistics().connections_idle >= 5, BACK_S_MAX + SLACK_S)
            await eventually(lambda: connection.state == "up", BACK_S_MAX + SLACK_S)

        # Redis says why and hangs up at once; on uvloop the broken pipe is sometimes seen before the words.
        assert all("no connection left" in reason or "cannot be reached" in reason for reason in load.reasons)
        assert failed > 0
    operator.close()


@both_ways
@pytest.mark.fault(22)
async def test_a_thousand_asks_on_a_hung_redis_wait_one_deadline_on_a_bounded_pool(
    broken_redis: RedisServer, way: str
) -> None:
    """The wait for a connection is inside the same deadline, and no more connections are opened than allowed."""
    async with up(broken_redis.settings(connections=16)) as connection:
        broken_redis.freeze()
        watch = Stopwatch()
        results = await asyncio.gather(*(WAYS[way](connection, "k") for _ in range(1000)), return_exceptions=True)
        took_s = watch.seconds
        used = connection.statistics()
        broken_redis.thaw()
        await eventually(lambda: connection.state == "up", BACK_S_MAX + SLACK_S)

        assert all(isinstance(result, StoreUnavailableError) for result in results)
        assert took_s < 0.05 + SLACK_S  # a thousand timeouts take the loop some time of their own
        assert used.connections_used <= 1  # the heartbeat may be looking whether Redis is back
        assert used.connections_idle + used.connections_used <= 16
        assert len(broken_redis.call("CLIENT", "LIST").splitlines()) <= 16 + 1


@both_ways
@pytest.mark.fault(23)
async def test_asks_cancelled_while_it_is_away_do_not_keep_it_away(broken_redis: RedisServer, way: str) -> None:
    """Clients that leave, before and during the outage, wedge nothing."""
    async with up(broken_redis.settings()) as connection:
        broken_redis.freeze()
        for _ in range(40):
            tasks = [asyncio.create_task(WAYS[way](connection, "k")) for _ in range(5)]
            await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        broken_redis.thaw()

        await eventually(lambda: connection.state == "up", BACK_S_MAX + SLACK_S)

        assert await WAYS[way](connection, "k") is None
        assert connection.statistics().left > 0


@both_ways
@pytest.mark.fault(24)
async def test_flapping_makes_no_storm_of_connections_or_log_lines(
    clean_redis: RedisServer, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    """Up and down eight times: at most one attempt for each pause, one line for each change."""
    caplog.set_level(logging.INFO, "cacheproxy.store")
    async with RedisProxy(clean_redis.port) as proxy:
        async with up(config.Redis(url=f"redis://127.0.0.1:{proxy.port}", connections=4)) as connection:
            async with Load(connection, workers=20, way=way):
                for _ in range(8):
                    await proxy.down()
                    await asyncio.sleep(0.2)
                    await proxy.up()
                    await asyncio.sleep(0.2)
            await eventually(lambda: connection.state == "up", BACK_S_MAX + SLACK_S)
        statistics = connection.statistics()

    assert statistics.breaker_opened <= 8
    # Each time it comes back, the pool fills up to its four connections, and two lines are dialled; probes in between
    # find the port closed.
    assert proxy.connections <= (4 + 2) * (statistics.breaker_opened + 1) + 8
    lines = [record.getMessage() for record in caplog.records if record.name == "cacheproxy.store"]
    assert len(lines) <= 2 * statistics.breaker_opened + 1


async def test_a_plain_port_behind_a_tls_url_never_sees_plain_text() -> None:
    """`rediss://` speaks TLS or nothing: the password must not leave in the clear."""
    seen: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read(1000))
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with opened(config.Redis(url=f"rediss://:secret@127.0.0.1:{port}")) as connection:
            await eventually(lambda: connection.state == "down" and len(seen) > 0)

    assert all(piece[:1] in (b"\x16", b"") for piece in seen)  # 0x16: a TLS handshake record
    assert b"secret" not in b"".join(seen)


async def test_sentinels_name_the_primary(clean_redis: RedisServer, tmp_path: Path) -> None:
    """`redis+sentinel://` asks the sentinels for the address, also when the first of them is dead."""
    conf = tmp_path / "sentinel.conf"
    conf.write_text(f"sentinel monitor main 127.0.0.1 {clean_redis.port} 1\n")
    conf.chmod(0o600)
    with running_sentinel(tmp_path, conf) as port:
        url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{port}/main/0"
        async with opened(config.Redis(url=url)) as connection:
            await eventually(lambda: connection.state == "up")
            await connection.run(lambda client: client.set("k", b"from sentinel"))
        assert clean_redis.call("GET", "k") == b"from sentinel"


@contextlib.contextmanager
def running_sentinel(folder: Path, conf: Path) -> Iterator[int]:
    """A sentinel's port, for one `with` block."""
    server = RedisServer(folder, search=False)
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop)
        server.start_as(str(conf), "--sentinel")
        yield server.port


async def test_a_cluster_is_spoken_to_as_one_and_refused_behind_a_plain_url(tmp_path: Path) -> None:
    """`redis+cluster://` works; `redis://` to a cluster node is told so at the start."""
    options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with running_redis(tmp_path, *options, search=False) as server:
        server.call("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        await asyncio.to_thread(wait_for_cluster, server)
        async with up(config.Redis(url=f"redis+cluster://127.0.0.1:{server.port}")) as connection:
            for number in range(20):
                await connection.run(lambda client, n=number: client.set(f"k{n}", b"v"))  # type: ignore[misc]
            assert await connection.run(get("k7")) == b"v"
            before = connection.epoch
            assert await connection.bump_epoch() > before > 0
            assert connection.capabilities.server_version.startswith("8.")
        with pytest.raises(ConfigError, match=r"redis\+cluster"):
            await Connection(server.settings(), SystemClock()).open()


def wait_for_cluster(server: RedisServer) -> None:
    """Until the node calls its slots covered."""
    for _ in range(1000):
        if b"cluster_state:ok" in server.call("CLUSTER", "INFO"):
            return
        time.sleep(0.005)
    pytest.fail("the cluster did not come up")


def test_the_embedded_url_needs_the_embedded_server() -> None:
    """A wiring fault is told at once."""
    with pytest.raises(ConfigError, match="embedded"):
        Connection(config.Redis(url="embedded"), SystemClock())
