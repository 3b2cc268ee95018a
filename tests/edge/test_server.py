"""The server refuses what only smugglers send, waits for nobody for ever, and stops without losing a reply."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from cacheproxy import config
from cacheproxy.counting.faults import Fault
from cacheproxy.edge.body import Body, read_body
from cacheproxy.edge.connection import Handler
from cacheproxy.edge.plain import REPLY_HEADERS, Plain, PlainStream, error_reply
from cacheproxy.edge.server import HALF_CLOSED_S, Server
from cacheproxy.errors import BodyTimeoutError, CallerError
from tests.fakes.stopwatch import Stopwatch
from tests.fakes.wire import Wire, ask, chunked, connect, request

OK = b"ok"


@contextlib.asynccontextmanager
async def serving(handler: Handler, *, faults: list[Fault] | None = None, **settings: object) -> AsyncIterator[Server]:
    """An open server with this handler; what it counts goes to `faults`."""
    counted: list[Fault] = [] if faults is None else faults
    server = Server(handler, "127.0.0.1:0", config.Server(**settings), fault=counted.append)
    await server.open()
    try:
        yield server
    finally:
        await server.close()


async def say_ok(_: web.BaseRequest) -> web.StreamResponse:
    """A handler."""
    return Plain(body=OK)


async def closed(wire: Wire) -> bytes:
    """What still comes until the server closes."""
    return await wire.rest(timeout_s=5.0)


async def test_replies_hold_no_header_nobody_asked_for() -> None:
    """Ollama sends neither Server nor a Content-Type it does not know; nor do we, streamed, whole or failed."""

    async def handler(req: web.BaseRequest) -> web.StreamResponse:
        if req.path == "/whole":
            return Plain(body=OK)
        if req.path == "/fail":
            raise RuntimeError("secret")
        stream = PlainStream()
        await stream.prepare(req)
        await stream.write(OK)
        return stream

    async with serving(handler) as server:
        whole = await ask(server.port, "GET", "/whole")
        streamed = await ask(server.port, "GET", "/stream")
        failed = await ask(server.port, "GET", "/fail")
    assert sorted(name for name, _ in whole.headers) == ["Content-Length", "Date"]
    assert sorted(name for name, _ in streamed.headers) == ["Date", "Transfer-Encoding"]
    assert (failed.status, failed.header("server")) == (500, None)
    assert "secret" not in failed.text
    assert "error" in failed.json()


@pytest.mark.parametrize("path", ["/at-once", "/begun"])
@pytest.mark.parametrize("error", [RuntimeError, FileNotFoundError, TimeoutError])
async def test_a_defect_in_a_handler_is_counted_and_said_in_the_log(path: str, error: type[Exception], caplog) -> None:
    """Also one that ends a reply midway, which its caller sees as a broken connection."""

    async def handler(req: web.BaseRequest) -> web.StreamResponse:
        if req.path == "/begun":
            await PlainStream().prepare(req)
        raise error("a defect")

    faults: list[Fault] = []
    async with serving(handler, faults=faults) as server, await connect(server.port) as wire:
        await wire.send(request("GET", path))
        await closed(wire)
    assert faults == [Fault.INTERNAL]
    assert "a handler failed" in caplog.text


async def test_a_caller_who_leaves_is_no_defect(caplog) -> None:
    """What the handler meets then is a ConnectionError."""

    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        raise ConnectionResetError

    faults: list[Fault] = []
    async with serving(handler, faults=faults) as server:
        await ask(server.port, "GET", "/")
    assert (faults, caplog.text) == ([], "")


async def test_headers_left_on_the_request_are_on_every_reply() -> None:
    """A ruling made before the handler ran reaches replies that know nothing of it; only Vary and Via gather."""

    async def handler(req: web.BaseRequest) -> web.StreamResponse:
        req[REPLY_HEADERS] = (("X-Rule", "ours"), ("Vary", "Origin"))
        return Plain(body=OK, headers=[("X-Rule", "theirs"), ("Vary", "Accept")])

    async with serving(handler) as server:
        reply = await ask(server.port, "GET", "/")
    assert [value for name, value in reply.headers if name == "Vary"] == ["Accept", "Origin"]
    assert reply.header("x-rule") == "ours"


@pytest.mark.parametrize(
    ("path", "status", "shape"),
    [
        ("/api/chat", 502, {"error": "why"}),
        ("/v1/chat/completions", 502, {"error": {"message": "why", "type": "api_error", "param": None, "code": None}}),
        ("/v1/models/x", 404, {"error": {"message": "why", "type": "not_found_error", "param": None, "code": None}}),
        ("/v1/messages", 400, {"type": "error", "error": {"type": "invalid_request_error", "message": "why"}}),
        ("/v1/messages", 503, {"type": "error", "error": {"type": "overloaded_error", "message": "why"}}),
    ],
)
async def test_errors_have_the_shape_that_clients_of_the_path_know(path: str, status: int, shape: object) -> None:
    """Each client library finds the message where it looks for it."""

    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        return error_reply(path, status, "why")

    async with serving(handler) as server:
        reply = await ask(server.port, "POST", path)
    told = reply.json()
    assert told.pop("request_id", "").startswith("req_") == path.startswith("/v1/messages")
    assert (reply.status, told) == (status, shape)
    assert reply.text.endswith("\n") == path.startswith("/v1/")
    native = "application/json; charset=utf-8"
    assert reply.header("content-type") == (native if path.startswith("/api") else "application/json")


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLING = {
    "length and chunked": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "signed length": b"Content-Length: +5\r\n\r\nhello",
    "unknown coding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked not last": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "folded line": b"X-A: 1\r\n 2\r\n\r\n",
    "space before colon": b"X-A : 1\r\n\r\n",
    "NUL": b"X-A: a\0b\r\n\r\n",
    "second host": b"Host: b\r\n\r\n",
    "hex prefix": CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
    "signed chunk": CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n",
    "chunk too long": CHUNKED + b"2\r\nhello\r\n0\r\n\r\n",
    "many headers": b"".join(b"X-%d: 1\r\n" % n for n in range(200)) + b"\r\n",
}


@pytest.mark.fault(74)
@pytest.mark.parametrize("name", SMUGGLING)
async def test_ambiguous_requests_are_refused_before_any_handler_sees_them(name: str) -> None:
    """400 and close; two servers could read these in two ways."""
    handled = []

    async def handler(req: web.BaseRequest) -> web.StreamResponse:
        handled.append(req)
        return Plain(body=OK)

    async with serving(handler) as server, await connect(server.port) as wire:
        await wire.send(b"POST /api/chat HTTP/1.1\r\nHost: a\r\n" + SMUGGLING[name])
        assert (await wire.response()).status == 400
        await closed(wire)
    assert not handled


@pytest.mark.fault(74)
@pytest.mark.parametrize("head", [b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\nHost: a\n\n", b"\x16\x03\x01\r\n\r\n"])
async def test_heads_that_are_no_http_are_refused(head: bytes) -> None:
    """No Host, bare line feeds, a TLS handshake."""
    async with serving(say_ok) as server, await connect(server.port) as wire:
        await wire.send(head)
        assert (await wire.response()).status == 400
        await closed(wire)


@pytest.mark.fault(75)
@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET http://evil.test/api/tags HTTP/1.1", 400),
        ("OPTIONS * HTTP/1.1", 400),
        ("CONNECT evil.test:443 HTTP/1.1", 405),
        ("TRACE / HTTP/1.1", 405),
    ],
)
async def test_requests_meant_for_other_kinds_of_proxy_are_refused(line: str, status: int) -> None:
    """The target is a path of Ollama's, or nothing."""
    handled = []

    async def handler(req: web.BaseRequest) -> web.StreamResponse:
        handled.append(req)
        return Plain(body=OK)

    async with serving(handler) as server, await connect(server.port) as wire:
        await wire.send(f"{line}\r\nHost: a\r\n\r\n".encode())
        assert (await wire.response()).status == status
        await closed(wire)
    assert not handled


@pytest.mark.fault(75)
async def test_offers_to_upgrade_are_ignored() -> None:
    """h2c and websocket requests are served as what they are without the offer, and the connection goes on."""
    async with serving(say_ok) as server, await connect(server.port) as wire:
        for protocol in ("h2c", "websocket"):
            headers = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", protocol), ("HTTP2-Settings", "AAM")]
            await wire.send(request("POST", "/", b"{}", headers=headers))
            assert (await wire.response()).body == OK


@pytest.mark.fault(68)
@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: "])
async def test_heads_that_do_not_come_are_not_waited_for(sent: bytes) -> None:
    """A connection without a whole head is closed after header_timeout."""
    async with serving(say_ok, header_timeout=0.1) as server, await connect(server.port) as wire:
        watch = Stopwatch()
        await wire.send(sent)
        assert await closed(wire) == b""
        assert watch.seconds < 1.0


async def test_second_head_has_a_deadline_and_a_pause_between_requests_has_another() -> None:
    """Keep-alive lasts idle_timeout; a head begun on it lasts header_timeout."""
    async with serving(say_ok, header_timeout=0.1, idle_timeout=30.0) as server, await connect(server.port) as wire:
        await wire.send(request("GET", "/"))
        await wire.response()
        await asyncio.sleep(0.2)
        await wire.send(request("GET", "/"))
        assert (await wire.response()).body == OK
        await wire.send(b"GET / HTTP/1.1\r\n")
        assert await closed(wire) == b""
    async with serving(say_ok, header_timeout=30.0, idle_timeout=0.1) as server, await connect(server.port) as wire:
        await wire.send(request("GET", "/"))
        await wire.response()
        assert await closed(wire) == b""


async def test_slow_handler_is_not_cut_by_any_deadline() -> None:
    """A model may think for as long as it likes (contract case 133)."""

    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(0.4)
        return Plain(body=OK)

    async with serving(handler, header_timeout=0.1, body_timeout=0.1, idle_timeout=0.1) as server:
        assert (await ask(server.port, "POST", "/", b"{}")).body == OK


@pytest.mark.fault(69)
async def test_dripping_body_is_ended_by_its_average_rate() -> None:
    """Each byte comes in time, but the body as a whole does not."""
    raised = asyncio.Event()

    async def handler(req: web.BaseRequest) -> web.StreamResponse:
        try:
            async for _ in Body(req, settings).rest():
                pass
        except BodyTimeoutError as error:
            raised.set()
            reply = error_reply(req.path, error.status, str(error))
            reply.force_close()
            return reply
        return Plain(body=OK)

    settings = config.Server(body_timeout=0.3)
    async with serving(handler) as server, await connect(server.port) as wire:
        await wire.send(request("POST", "/", headers=[("Content-Length", "1000")]))
        watch = Stopwatch()
        with contextlib.suppress(ConnectionError):
            while not raised.is_set() and watch.seconds < 3:
                await wire.send(b"x")
                await asyncio.sleep(0.05)
        assert (await wire.response()).status == 408
        assert watch.seconds < 1.0


async def test_pauses_of_the_handler_do_not_count_against_the_client() -> None:
    """A body is only late while somebody waits for it: upstream may be the slow one."""

    async def handler(req: web.BaseRequest) -> web.StreamResponse:
        size = 0
        async for piece in Body(req, settings).rest():
            size += len(piece)
            await asyncio.sleep(0.05)
        return Plain(body=b"%d" % size)

    settings = config.Server(body_timeout=0.04)
    async with serving(handler) as server:
        assert (await ask(server.port, "POST", "/", chunked(*[b"x"] * 5), headers=[CHUNKED_HEADER])).body == b"5"


CHUNKED_HEADER = ("Transfer-Encoding", "chunked")


@pytest.mark.parametrize(
    ("body", "headers", "complete"),
    [
        (b"", [], True),
        (b"12345678", [], True),
        (b"123456789", [], False),
        (chunked(b"1234", b"5678"), [CHUNKED_HEADER], True),
        (b"x" * 500_000, [], False),
        (chunked(b"x" * 300_000, b"y" * 300_000), [CHUNKED_HEADER], False),
    ],
)
async def test_large_bodies_are_handed_on_without_losing_a_byte(
    body: bytes, headers: list[tuple[str, str]], complete: bool
) -> None:
    """`read_body` holds small ones; of large ones the prefix and the rest are the whole."""
    seen = []

    async def handler(req: web.BaseRequest) -> web.StreamResponse:
        got = await read_body(req, 8, config.Server())
        seen.append(got.complete)
        return Plain(body=b"".join([piece async for piece in got.chunks()]))

    async with serving(handler) as server:
        reply = await ask(server.port, "POST", "/", body, headers=headers)
    sent = body if not headers else b"12345678" if complete else b"x" * 300_000 + b"y" * 300_000
    assert (seen, reply.body) == ([complete], sent)


async def test_body_declared_too_large_is_neither_read_nor_invited() -> None:
    """With Expect the client is spared the upload that nobody wants (fault 79)."""

    async def handler(req: web.BaseRequest) -> web.StreamResponse:
        body = await read_body(req, 8, config.Server())
        reply = Plain(status=413 if not body.complete else 200)
        reply.force_close()
        return reply

    async with serving(handler) as server, await connect(server.port) as wire:
        await wire.send(request("POST", "/", headers=[("Expect", "100-continue"), ("Content-Length", "9")]))
        assert (await wire.response()).status == 413


async def test_continue_is_sent_when_a_handler_starts_to_read() -> None:
    """Not before: an early reply spares the upload. Other expectations are refused."""
    go = asyncio.Event()

    async def handler(req: web.BaseRequest) -> web.StreamResponse:
        await go.wait()
        return Plain(body=(await read_body(req, 100, config.Server())).prefix)

    async with serving(handler) as server, await connect(server.port) as wire:
        await wire.send(request("POST", "/", headers=[("Expect", "100-Continue"), ("Content-Length", "2")]))
        with pytest.raises(TimeoutError):
            await wire.head(timeout_s=0.05)
        go.set()
        assert (await wire.head()).status == 100
        await wire.send(b"hi")
        assert (await wire.response()).body == b"hi"
        await wire.send(request("POST", "/", b"hi", headers=[("Expect", "tea")]))
        assert (await wire.response()).status == 417


async def test_compressed_request_bodies_are_not_unpacked() -> None:
    """What Ollama decodes is Ollama's to decode; nothing here can be blown up (fault 73)."""

    async def handler(req: web.BaseRequest) -> web.StreamResponse:
        return Plain(body=(await read_body(req, 1000, config.Server())).prefix)

    async with serving(handler) as server:
        reply = await ask(server.port, "POST", "/", b"no gzip", headers=[("Content-Encoding", "gzip")])
    assert reply.body == b"no gzip"


async def test_body_whose_chunks_turn_to_garbage_is_the_callers_error() -> None:
    """The handler is told, and no request is made of what followed."""
    raised: list[Exception] = []
    started = asyncio.Event()

    async def handler(req: web.BaseRequest) -> web.StreamResponse:
        try:
            async for _ in Body(req, config.Server()).rest():
                started.set()
        except CallerError as error:
            raised.append(error)
        return Plain(status=400)

    async with serving(handler) as server, await connect(server.port) as wire:
        await wire.send(request("POST", "/", chunked(b"x")[:-5], headers=[CHUNKED_HEADER]))
        await started.wait()
        await wire.send(b"zz\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await wire.response()).status == 400
        assert b"200" not in await closed(wire)
    assert len(raised) == 1


@pytest.mark.parametrize("half_closed", [False, True])
async def test_client_that_leaves_cancels_its_handler(half_closed: bool) -> None:
    """In a moment; who closes only the sending half and has to wait counts as gone too, as Ollama sees it."""
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        started.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return Plain()

    async with serving(handler) as server, await connect(server.port) as wire:
        await wire.send(request("GET", "/"))
        await started.wait()
        if half_closed:
            wire.half_close()
        else:
            wire.close()
        await asyncio.wait_for(cancelled.wait(), 1.0)


@pytest.mark.fault(81)
@pytest.mark.parametrize("seconds", [0.0, 0.01])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
async def test_who_sends_no_more_gets_what_is_at_hand(seconds: float, count: int) -> None:
    """Each of its requests is answered, and then the connection ends without a wait."""

    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        if seconds:
            await asyncio.sleep(seconds)
        return Plain(body=OK)

    async with serving(handler) as server, await connect(server.port) as wire:
        wire.writer.write(request("GET", "/") * count)
        wire.half_close()
        watch = Stopwatch()
        assert [(await wire.response()).body for _ in range(count)] == [OK] * count
        assert await closed(wire) == b""
        assert watch.seconds < 1.0


@pytest.mark.fault(81)
async def test_who_sends_no_more_may_take_its_time_to_read() -> None:
    """What lies between server and caller is waited for as for anybody else."""
    body, piece = bytes(8 * 1024 * 1024), bytes(20_000)

    async def handler(req: web.BaseRequest) -> web.StreamResponse:
        if req.path == "/whole":
            return Plain(body=body)
        stream = PlainStream()
        await stream.prepare(req)
        for _ in range(len(body) // len(piece)):
            await stream.write(piece)
        return stream

    async def read(server: Server, path: str) -> int:
        async with await connect(server.port) as wire:
            wire.writer.write(request("GET", path))
            wire.half_close()
            await asyncio.sleep(5 * HALF_CLOSED_S)
            return len((await wire.response()).body)

    async with serving(handler) as server:
        assert await read(server, "/whole") == len(body)
        sizes = await asyncio.gather(*(read(server, "/pieces") for _ in range(8)))
    assert sizes == [len(body) // len(piece) * len(piece)] * 8


@pytest.mark.fault(80)
async def test_pipelined_requests_are_answered_in_order() -> None:
    """A thousand on one socket, none lost or swapped."""

    async def handler(req: web.BaseRequest) -> web.StreamResponse:
        return Plain(body=req.raw_path.encode())

    async with serving(handler) as server, await connect(server.port) as wire:
        await wire.send(b"".join(request("GET", f"/{n}") for n in range(1000)))
        answers = [(await wire.response()).body for _ in range(1000)]
    assert answers == [b"/%d" % n for n in range(1000)]


@pytest.mark.fault(78)
async def test_bytes_that_are_no_utf8_do_no_harm() -> None:
    """In a header they are just bytes; a target of them is the client's mistake, and never ours."""
    async with serving(say_ok) as server:
        assert (await ask(server.port, "GET", "/", headers=[("X-A", "\xe9")])).status == 200
        assert (await ask(server.port, "GET", "/caf\xe9?\xff")).status == 400


async def test_long_headers_are_taken() -> None:
    """As long as Ollama takes them; 2 MiB it does not take either."""

    async def handler(req: web.BaseRequest) -> web.StreamResponse:
        return Plain(body=b"%d" % len(req.headers.get("X-Big", "")))

    async with serving(handler) as server:
        assert (await ask(server.port, "GET", "/", headers=[("X-Big", "v" * 500_000)])).body == b"500000"
        async with await connect(server.port) as wire:
            with contextlib.suppress(ConnectionError):
                await wire.send(request("GET", "/", headers=[("X-Big", "v" * 2 * 1024**2)]))
            assert (await wire.head()).status == 400


async def test_draining_loses_no_reply_and_no_upload() -> None:
    """Idle connections close, an upload in flight goes on to its reply, nobody new is let in."""
    reading = asyncio.Event()

    async def handler(req: web.BaseRequest) -> web.StreamResponse:
        if req.path == "/":
            return Plain(body=OK)
        size = 0
        async for piece in Body(req, config.Server()).rest():
            size += len(piece)
            reading.set()
        return Plain(body=b"%d" % size)

    async with serving(handler) as server, await connect(server.port) as idle, await connect(server.port) as busy:
        await idle.send(request("GET", "/"))
        await idle.response()
        await busy.send(request("POST", "/upload", headers=[("Content-Length", "10")]) + b"half.")
        await reading.wait()
        draining = asyncio.create_task(server.drain(10.0))
        assert await closed(idle) == b""
        with pytest.raises(ConnectionError):
            await connect(server.port)
        await busy.send(b"whole")
        reply = await busy.response()
        assert (reply.body, reply.header("connection")) == (b"10", "close")
        await asyncio.wait_for(draining, 1.0)
        await server.drain(1.0)


async def test_draining_lets_a_stream_end_and_closes_its_connection() -> None:
    """A reply whose head went out before the drain began still ends whole, and no request follows it."""
    started, go, other = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handler(req: web.BaseRequest) -> web.StreamResponse:
        if req.path == "/other":
            await other.wait()
            return Plain(body=OK)
        stream = PlainStream()
        await stream.prepare(req)
        await stream.write(b"first\n")
        started.set()
        await go.wait()
        await stream.write(b"last\n")
        return stream

    async with serving(handler) as server, await connect(server.port) as wire, await connect(server.port) as slow:
        await slow.send(request("GET", "/other"))
        await wire.send(request("GET", "/"))
        await started.wait()
        draining = asyncio.create_task(server.drain(10.0))
        await asyncio.sleep(0)
        go.set()
        reply = await wire.response()
        assert (reply.body, reply.complete) == (b"first\nlast\n", True)
        assert await closed(wire) == b""
        assert not draining.done()
        other.set()
        assert (await slow.response()).body == OK
        await asyncio.wait_for(draining, 1.0)


async def test_drain_that_takes_too_long_cancels_what_is_left() -> None:
    """The bound holds, and handlers get to clean up."""
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        started.set()
        try:
            await asyncio.sleep(30)
        finally:
            cancelled.set()
        return Plain()

    async with serving(handler) as server, await connect(server.port) as wire:
        await wire.send(request("GET", "/"))
        await started.wait()
        watch = Stopwatch()
        await server.drain(0.05)
        assert cancelled.is_set()
        assert watch.seconds < 1.0


async def test_port_is_known_once_open_and_taken_ports_are_an_error() -> None:
    """Port 0 becomes a real one; two servers cannot share it by accident."""
    async with serving(say_ok) as server:
        assert server.port > 0
        second = Server(say_ok, f"127.0.0.1:{server.port}", config.Server(), fault=[].append)
        with pytest.raises(OSError, match="in use"):
            await second.open()
        await second.close()
