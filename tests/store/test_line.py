"""One connection for all: each asker gets its own reply, in time or not at all, whatever happens to the others."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import random
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import redis.exceptions
import uvloop

from cacheproxy.store.address import parse
from cacheproxy.store.line import HeldUpError, Line, LostError, RefusedError
from cacheproxy.store.pool import clients, dial, lines
from tests.fakes.house import until
from tests.fakes.redis_proxy import RedisProxy
from tests.fakes.redis_server import RedisServer, running_redis
from tests.fakes.stopwatch import Stopwatch

SLACK_S = 0.5
"""What a busy machine may add to a deadline."""

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def on_both_loops(test: Callable[..., Coroutine[object, object, None]]) -> Callable[..., None]:
    """Run it on each event loop, whose transports are not the same."""

    @pytest.mark.parametrize("loop", LOOPS)
    @functools.wraps(test)
    def run(loop: str, **fixtures: object) -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(test(**fixtures))

    signature = inspect.signature(test)
    loop = inspect.Parameter("loop", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), loop])  # type: ignore[attr-defined]
    del run.__wrapped__
    return run


@pytest.fixture
def broken_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of this test's own, to be frozen and killed."""
    with running_redis(tmp_path, search=False) as server:
        yield server


@contextlib.asynccontextmanager
async def line_to(url: str) -> AsyncIterator[Line]:
    """A line for one `with` block."""
    through = clients(parse(url), 4)
    found = lines(through)
    assert found is not None
    try:
        yield found.quick
    finally:
        found.close()
        await through.close()
        await asyncio.sleep(0)


Says = Callable[[bytes], list[bytes]]


@contextlib.asynccontextmanager
async def line_to_a_fake(says: Says) -> AsyncIterator[tuple[Line, list[bytes]]]:
    """A line to a server that says what it is told to, and the pieces in which it was asked."""
    heard: list[bytes] = []
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            serving.add(task)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            while piece := await reader.read(65536):
                heard.append(piece)
                for words in says(piece):
                    writer.write(words)
                    await asyncio.sleep(0.02)
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, line_to(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}") as line:
        yield line, heard
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving)


@on_both_loops
async def test_a_thousand_at_once_get_their_own_values_over_one_connection(clean_redis: RedisServer) -> None:
    """Whatever order the tasks run in."""
    async with line_to(clean_redis.url) as line:
        await asyncio.gather(*(line.ask(("SET", f"k{number}", number), 5) for number in range(1000)))
        clients_then = len(clean_redis.call("CLIENT", "LIST").splitlines())
        order = random.Random(1).sample(range(1000), 1000)

        found = await asyncio.gather(*(line.ask(("GET", f"k{number}"), 5) for number in order))

        assert found == [str(number).encode() for number in order]
        assert (
            len(clean_redis.call("CLIENT", "LIST").splitlines()) <= clients_then
        )  # those of tests before may just be closing


@on_both_loops
async def test_the_first_ask_goes_out_at_once_and_the_others_of_its_turn_together() -> None:
    """One alone waits for nobody; two system calls for all."""
    ping, written = b"*1\r\n$4\r\nPING\r\n", []
    async with line_to_a_fake(lambda piece: [b"+OK\r\n" * piece.count(b"PING")]) as (line, _):
        await line.connect()
        wire = line._wire
        assert wire is not None
        transport = wire._transport
        wire._transport = SimpleNamespace(write=lambda data: (written.append(data), transport.write(data)))  # type: ignore[assignment]
        try:
            await asyncio.gather(*(line.ask(("PING",), 5) for _ in range(50)))
        finally:
            wire._transport = transport

        assert written == [ping, ping * 49]


@on_both_loops
async def test_several_commands_bring_their_replies_together(clean_redis: RedisServer) -> None:
    """Also one alone, and none."""
    async with line_to(clean_redis.url) as line:
        several = line.ask_all((("SET", "a", b"\r\n\0"), ("GET", "a"), ("HMGET", "b", "x", "y")), 5)
        found = await asyncio.gather(line.ask(("GET", "z"), 5), several, line.ask(("PING",), 5))

        assert found == [None, [b"OK", b"\r\n\0", [None, None]], b"PONG"]
        assert await line.ask_all((("GET", "a"),), 5) == [b"\r\n\0"]
        assert await line.ask_all((), 5) == []
        assert await line.ask(("PING",), 5) == b"PONG"


@on_both_loops
async def test_a_refusal_is_for_its_own_asker_alone(clean_redis: RedisServer) -> None:
    """Also inside several, and inside a transaction."""
    clean_redis.call("SET", "text", "x")
    transaction = (("MULTI",), ("SET", "a", "1"), ("HGETALL", "text"), ("EXEC",))
    async with line_to(clean_redis.url) as line:
        before, refused, several, inside, after = await asyncio.gather(
            line.ask(("GET", "text"), 5),
            line.ask(("HGETALL", "text"), 5),
            line.ask_all((("GET", "text"), ("NONSENSE",), ("GET", "text")), 5),
            line.ask_all(transaction, 5),
            line.ask(("GET", "text"), 5),
            return_exceptions=True,
        )

        assert (before, after) == (b"x", b"x")
        assert isinstance(refused, RefusedError)
        assert str(refused).startswith("WRONGTYPE")
        assert isinstance(several, RefusedError)
        assert str(several).startswith("ERR unknown command")
        assert isinstance(inside, RefusedError)
        assert str(inside).startswith("WRONGTYPE")


@on_both_loops
async def test_large_values_come_whole_among_small_ones(clean_redis: RedisServer) -> None:
    """In as many pieces as they take."""
    large = random.Random(2).randbytes(8_000_000)
    async with line_to(clean_redis.url) as line:
        await asyncio.gather(line.ask(("SET", "large", large), 10), line.ask(("SET", "small", b"s"), 10))
        small, found, again = await asyncio.gather(*(line.ask(("GET", key), 10) for key in ("small", "large", "small")))

        assert (small, again) == (b"s", b"s")
        assert found == large


@pytest.mark.fault(9)
@on_both_loops
async def test_callers_that_leave_at_any_moment_never_shift_a_reply(clean_redis: RedisServer) -> None:
    """Before the command is sent, while it is under way, while several replies are half there."""
    chance = random.Random(4)
    async with RedisProxy(clean_redis.port, lambda: chance.uniform(0, 0.004)) as proxy:
        async with line_to(f"redis://127.0.0.1:{proxy.port}") as line:
            await asyncio.gather(*(line.ask(("SET", f"k{number}", number), 5) for number in range(200)))

            async def ask(number: int) -> object:
                if number % 3:
                    return await line.ask(("GET", f"k{number}"), 5)
                return (await line.ask_all((("GET", f"k{199 - number}"), ("GET", f"k{number}")), 5))[1]

            async def worker() -> tuple[int, int]:
                answered = left = 0
                for _ in range(100):
                    number = chance.randrange(200)
                    task = asyncio.create_task(ask(number))  # type: ignore[arg-type]
                    if chance.random() < 0.5:
                        asyncio.get_running_loop().call_later(chance.uniform(0, 0.01), task.cancel)
                    try:
                        assert await task == str(number).encode()
                        answered += 1
                    except asyncio.CancelledError:
                        left += 1
                return answered, left

            counts = await asyncio.gather(*(worker() for _ in range(50)))

        assert sum(answered for answered, _ in counts) > 1000
        assert sum(left for _, left in counts) > 500
        assert proxy.connections == 1


@pytest.mark.fault(2)
@on_both_loops
async def test_a_frozen_redis_costs_each_its_deadline_and_a_new_connection_is_used_afterwards(
    broken_redis: RedisServer,
) -> None:
    """Who has more time may still get the reply over the old one."""
    async with line_to(broken_redis.url) as line:
        await line.ask(("SET", "k", "v"), 5)
        (before,) = {await line.ask(("CLIENT", "ID"), 5)}
        broken_redis.freeze()
        watch = Stopwatch()
        patient = asyncio.create_task(line.ask(("GET", "k"), 20))
        hasty = [asyncio.create_task(line.ask(("GET", "k"), 0.05)) for _ in range(100)]
        late = await asyncio.gather(*hasty, return_exceptions=True)
        took_s = watch.seconds
        broken_redis.thaw()

        assert {type(error) for error in late} == {TimeoutError}
        assert 0.04 < took_s < 0.05 + SLACK_S
        assert await patient == b"v"
        assert await line.ask(("CLIENT", "ID"), 5) != before
        await until(lambda: len(broken_redis.call("CLIENT", "LIST").splitlines()) == 2)


@on_both_loops
async def test_a_shorter_deadline_behind_a_longer_one_counts(broken_redis: RedisServer) -> None:
    """One timer serves all, and it is set to the nearest."""
    async with line_to(broken_redis.url) as line:
        await line.connect()
        broken_redis.freeze()
        tasks = [asyncio.create_task(line.ask(("PING",), timeout_s)) for timeout_s in (20, 0.5, 0.05, 0.2)]
        loop = asyncio.get_running_loop()
        began = loop.time()
        ends: list[tuple[int, float]] = []
        for number, task in enumerate(tasks):
            task.add_done_callback(lambda _, number=number: ends.append((number, loop.time() - began)))
        await asyncio.gather(*tasks[1:], return_exceptions=True)
        broken_redis.thaw()
        await tasks[0]

        assert [number for number, _ in ends] == [2, 3, 1, 0]


@on_both_loops
async def test_a_busy_event_loop_makes_no_redis_late(clean_redis: RedisServer) -> None:
    """The reply was there before the deadline, only nobody could read it."""
    async with line_to(clean_redis.url) as line:
        await line.ask(("SET", "k", "v"), 5)
        for _ in range(5):
            asked = asyncio.create_task(line.ask(("GET", "k"), 0.02))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            subprocess.run(["sleep", "0.2"], check=True)  # noqa: ASYNC221 - the point

            assert await asked == b"v"


@on_both_loops
async def test_a_large_reply_over_a_slow_link_costs_only_those_who_were_already_behind_it(
    clean_redis: RedisServer,
) -> None:
    """They are told that Redis is not to blame; who comes a moment later has a connection of its own."""
    async with RedisProxy(clean_redis.port, lambda: 0.005) as proxy, line_to(f"redis://127.0.0.1:{proxy.port}") as line:
        await line.ask(("SET", "small", "s"), 5)
        clean_redis.call("SET", "large", bytes(3_000_000))
        tasks = [asyncio.create_task(line.ask(("GET", key), 0.08)) for key in ("large", "small")]
        patient = asyncio.create_task(line.ask(("GET", "small"), 20))
        await until(lambda: not line.connected)

        assert await line.ask(("GET", "small"), 1) == b"s"
        assert not tasks[0].done()
        assert {type(error) for error in await asyncio.gather(*tasks, return_exceptions=True)} == {HeldUpError}
        assert await patient == b"s"
        assert proxy.connections == 2


@on_both_loops
async def test_a_reply_that_stalls_half_way_is_late_as_one_that_never_came() -> None:
    """Nothing is arriving then."""
    async with line_to_a_fake(lambda _: [b"$100\r\nhalf ", b"a reply"]) as (line, _):
        with pytest.raises(TimeoutError) as caught:
            await line.ask(("GET", "k"), 0.2)

        assert type(caught.value) is TimeoutError


@on_both_loops
async def test_nobody_who_waits_is_left_when_the_connection_is_cut(clean_redis: RedisServer) -> None:
    """All are told at once, and who asks next has a new one."""
    async with RedisProxy(clean_redis.port, lambda: 0.2) as proxy, line_to(f"redis://127.0.0.1:{proxy.port}") as line:
        await line.connect()
        waiting = [asyncio.create_task(line.ask(("GET", "k"), 5)) for _ in range(10)]
        await until(lambda: proxy.connections == 1)
        await asyncio.sleep(0.02)
        await proxy.down()
        lost = await asyncio.gather(*waiting, return_exceptions=True)
        with pytest.raises(redis.exceptions.ConnectionError):
            await line.ask(("GET", "k"), 5)
        await proxy.up()

        assert {type(error) for error in lost} == {LostError}
        assert await line.ask(("GET", "k"), 5) is None


@on_both_loops
async def test_a_connection_cut_while_nobody_waits_costs_nobody_anything(clean_redis: RedisServer) -> None:
    """Redis's own `timeout`, or an operator's CLIENT KILL."""
    async with line_to(clean_redis.url) as line:
        number = await line.ask(("CLIENT", "ID"), 5)
        clean_redis.call("CLIENT", "KILL", "ID", number)
        await until(lambda: not line.connected)

        assert await line.ask(("PING",), 5) == b"PONG"


@pytest.mark.parametrize(
    "says",
    [
        lambda _: [b"HTTP/1.1 400 Bad Request\r\n\r\n"],
        lambda _: [b"+OK\r\n+AND MORE\r\n"],
        lambda _: [b"+OK\r\n", b"+UNASKED\r\n"],
        lambda _: [b"+OK\r\n", b"$100\r\nhalf a reply"],
        lambda _: [b">2\r\n+invalidate\r\n*0\r\n+OK\r\n"],
        lambda _: [b"%1\r\n*1\r\n+a\r\n+b\r\n"],
    ],
    ids=["no RESP", "two for one", "later", "half", "push", "list as key"],
)
@on_both_loops
async def test_a_line_that_says_what_nobody_asked_for_is_never_used_again(says: Says) -> None:
    """One reply too many would make every later one somebody else's."""
    async with line_to_a_fake(says) as (line, heard):
        with contextlib.suppress(LostError):
            assert await line.ask(("PING",), 5) == b"OK"
        await until(lambda: not line.connected)
        await asyncio.sleep(0.05)

        assert len(heard) == 1


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"%1\r\n*1\r\n+a\r\n+b\r\n"], ids=["no RESP", "list as key"]
)
@on_both_loops
async def test_those_who_wait_are_told_that_it_is_no_redis(said: bytes) -> None:
    """In words that an operator can use."""
    async with line_to_a_fake(lambda _: [said]) as (line, _):
        with pytest.raises(LostError, match="does not speak as Redis does"):
            await line.ask(("PING",), 5)


@on_both_loops
async def test_any_bytes_are_replies_or_the_end_of_the_line() -> None:
    """Random ones: no error but ours, and nobody waits for ever."""
    chance = random.Random(6)
    alphabet = b"*$+-:%~>_#(,\r\n0123456789abc"
    pieces = [bytes(chance.choices(alphabet, k=chance.randrange(1, 40))) for _ in range(150)]
    async with line_to_a_fake(lambda _: [pieces.pop()]) as (line, _):
        while pieces:
            with contextlib.suppress(LostError, RefusedError, TimeoutError):
                await line.ask(("PING",), 0.03)


class Dial:
    """A way to dial that waits until it may, and counts."""

    def __init__(self, url: str) -> None:
        self.begun = self.ended = 0
        self.may = asyncio.Event()
        self.error: Exception | None = None
        self._through = clients(parse(url), 4)

    async def __call__(self) -> asyncio.StreamWriter:
        """As `dial`."""
        self.begun += 1
        try:
            await self.may.wait()
            if self.error is not None:
                raise self.error
            assert self._through.pool is not None
            return await dial(self._through.pool)
        finally:
            self.ended += 1


@on_both_loops
async def test_all_who_wait_for_a_connection_share_one_attempt(clean_redis: RedisServer) -> None:
    """One of them leaving does not end it."""
    connect = Dial(clean_redis.url)
    line = Line(connect)
    tasks = [asyncio.create_task(line.ask(("PING",), 5)) for _ in range(20)]
    await until(lambda: connect.begun == 1)
    tasks[0].cancel()
    await asyncio.sleep(0)
    connect.may.set()

    assert await asyncio.gather(*tasks[1:]) == [b"PONG"] * 19
    assert connect.begun == 1
    line.close()


@on_both_loops
async def test_the_last_who_gives_up_ends_the_attempt(clean_redis: RedisServer) -> None:
    """The next begins another one; no connection is left behind."""
    connect = Dial(clean_redis.url)
    line = Line(connect)
    late = await asyncio.gather(*(line.ask(("PING",), 0.02) for _ in range(5)), return_exceptions=True)
    await until(lambda: connect.ended == 1)
    connect.may.set()

    assert {type(error) for error in late} == {TimeoutError}
    assert await line.ask(("PING",), 5) == b"PONG"
    assert connect.begun == 2
    line.close()


@on_both_loops
async def test_a_failed_attempt_is_told_to_all_who_waited_and_the_next_ask_tries_again(
    clean_redis: RedisServer,
) -> None:
    """Nothing is tried twice for one ask."""
    connect = Dial(clean_redis.url)
    connect.error = redis.exceptions.ConnectionError("no")
    line = Line(connect)
    connect.may.set()
    failed = await asyncio.gather(*(line.ask(("PING",), 5) for _ in range(5)), return_exceptions=True)
    connect.error = None

    assert {type(error) for error in failed} == {redis.exceptions.ConnectionError}
    assert connect.begun == 1
    assert await line.ask(("PING",), 5) == b"PONG"
    line.close()


@on_both_loops
async def test_attempts_given_up_at_any_moment_leave_no_connection_open(clean_redis: RedisServer) -> None:
    """In TCP's handshake, in Redis's, in the handing over."""
    chance = random.Random(5)
    before = len(clean_redis.call("CLIENT", "LIST").splitlines())
    for _ in range(150):
        async with line_to(f"{clean_redis.url}/1") as line:
            task = asyncio.create_task(line.ask(("PING",), 5))
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)
            await asyncio.sleep(chance.choice([0, chance.uniform(0, 0.002)]))
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    await until(lambda: len(clean_redis.call("CLIENT", "LIST").splitlines()) <= before)


@on_both_loops
async def test_a_line_that_is_dialled_anew_serves_those_who_wait_over_the_old_connection(
    clean_redis: RedisServer,
) -> None:
    """After a failover the name is resolved again; replies under way are good."""
    async with line_to(clean_redis.url) as line:
        before = await line.ask(("CLIENT", "ID"), 5)
        waiting = asyncio.create_task(line.ask(("CLIENT", "ID"), 5))
        await asyncio.sleep(0)
        line.redial()

        assert await line.ask(("CLIENT", "ID"), 5) != before
        assert await waiting == before
        await until(lambda: b"id=%d " % before not in clean_redis.call("CLIENT", "LIST"))


@on_both_loops
async def test_who_asks_in_the_moment_in_which_all_is_dialled_anew_has_the_newer_connection(
    clean_redis: RedisServer,
) -> None:
    """The older one was made for it, and ended before it was used."""
    connect = Dial(clean_redis.url)
    line = Line(connect)
    asked = asyncio.create_task(line.ask(("PING",), 5))
    await until(lambda: connect.begun == 1)
    made = line._dialling
    assert made is not None
    made.add_done_callback(lambda _: line.redial())
    connect.may.set()

    assert await asked == b"PONG"
    assert connect.begun == 2
    line.close()


@on_both_loops
async def test_closing_tells_also_those_who_wait_on_an_older_connection(broken_redis: RedisServer) -> None:
    """At once, not at their deadline."""
    async with line_to(broken_redis.url) as line:
        await line.connect()
        broken_redis.freeze()
        waiting = asyncio.create_task(line.ask(("PING",), 20))
        await asyncio.sleep(0.01)
        line.redial()
        line.close()
        with pytest.raises(LostError):
            await asyncio.wait_for(waiting, 1)
        broken_redis.thaw()
        await until(lambda: not line._wires)


@on_both_loops
async def test_closing_tells_those_who_wait_and_those_who_come(broken_redis: RedisServer) -> None:
    """Also who waits for the connection."""
    connect = Dial(broken_redis.url)
    dialling = Line(connect)
    async with line_to(broken_redis.url) as line:
        await line.connect()
        broken_redis.freeze()
        tasks = [asyncio.create_task(each.ask(("PING",), 20)) for each in (line, dialling)]
        await until(lambda: connect.begun == 1)
        line.close()
        dialling.close()
        for task in tasks:
            with pytest.raises(LostError):
                await task
        with pytest.raises(LostError):
            await line.ask(("PING",), 5)
        broken_redis.thaw()


@pytest.mark.parametrize("form", ["unix", "password", "database", "resp3"])
@on_both_loops
async def test_the_handshake_is_done_before_the_line_is_used(tmp_path: Path, form: str) -> None:
    """Whatever the URL asks for."""
    with running_redis(tmp_path, search=False) as server:
        urls = {
            "unix": server.unix_url,
            "password": f"redis://:secret@127.0.0.1:{server.port}",
            "database": f"{server.url}/7",
            "resp3": f"{server.url}?protocol=3",
        }
        server.call("SELECT", 0)
        if form == "password":
            server.call("CONFIG", "SET", "requirepass", "secret")
        async with line_to(urls[form]) as line:
            info: bytes = await line.ask(("CLIENT", "INFO"), 5)

            assert (b" db=7 " if form == "database" else b" db=0 ") in info
            assert (b" resp=3 " if form == "resp3" else b" resp=2 ") in info


@pytest.mark.parametrize("says", [b"+OK\r\n+AND MORE\r\n", b"+OK\r\n+half", b"+OK\r\n"], ids=["more", "half", "end"])
@on_both_loops
async def test_a_server_that_says_more_than_its_handshake_or_hangs_up_behind_it_gets_no_command(says: bytes) -> None:
    """redis-py has read it ahead."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            heard.append(piece)
            writer.write(says)
            if says == b"+OK\r\n":
                break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, line_to(f"redis://:pw@127.0.0.1:{server.sockets[0].getsockname()[1]}") as line:
        with pytest.raises((redis.exceptions.ConnectionError, LostError)):
            await line.ask(("PING",), 1)

        assert all(b"AUTH" in piece for piece in heard)


@on_both_loops
async def test_a_wrong_password_is_an_error_of_the_attempt(broken_redis: RedisServer) -> None:
    """No command goes out."""
    broken_redis.call("CONFIG", "SET", "requirepass", "secret")
    async with line_to(f"redis://:other@127.0.0.1:{broken_redis.port}") as line:
        with pytest.raises(redis.exceptions.AuthenticationError):
            await line.ask(("PING",), 5)


@on_both_loops
async def test_it_works_over_tls(clean_redis: RedisServer, tmp_path: Path) -> None:
    """A thousand at once and a large value, through TLS."""
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    try:
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1"]
        subprocess.run(  # noqa: ASYNC221 - nothing else runs yet
            [*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs openssl")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", clean_redis.port)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while piece := await source.read(65536):
                    sink.write(piece)
                    await sink.drain()
            sink.transport.abort()

        await asyncio.gather(pump(reader, back), pump(there, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    large = bytes(3_000_000)
    async with server:
        url = f"rediss://127.0.0.1:{server.sockets[0].getsockname()[1]}?ssl_cert_reqs=none&ssl_check_hostname=false"
        async with line_to(url) as line:
            await line.ask(("SET", "large", large), 10)
            found = await asyncio.gather(*(line.ask(("ECHO", number), 10) for number in range(1000)))

            assert found == [str(number).encode() for number in range(1000)]
            assert await line.ask(("GET", "large"), 10) == large
        await asyncio.sleep(0.05)
