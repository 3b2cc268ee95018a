"""The client sends what it was given, gives what came, and never mixes two replies."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from cacheproxy import config
from cacheproxy.errors import (
    CallerError,
    ConfigError,
    UpstreamBrokenError,
    UpstreamStaleError,
    UpstreamUnreachableError,
)
from cacheproxy.upstream import pool
from cacheproxy.upstream.client import UpstreamClient
from cacheproxy.upstream.connection import Wire
from cacheproxy.upstream.reply import UpstreamReply
from cacheproxy.upstream.request import UpstreamRequest, end_to_end, loops
from tests.fakes.scripted import Peer, ScriptedServer
from tests.fakes.stopwatch import Stopwatch

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextlib.asynccontextmanager
async def client_of(url: str, **settings: object) -> AsyncIterator[UpstreamClient]:
    """An open client of the upstream at `url`."""
    client = UpstreamClient(config.Upstream(url=url, **settings), instance_id="me")
    await client.open()
    try:
        yield client
    finally:
        await client.close()


async def text(reply: UpstreamReply) -> bytes:
    """The reply's whole body; the reply is closed."""
    try:
        return await reply.read(10**6)
    finally:
        await reply.close()


async def ask(
    client: UpstreamClient,
    target: str = "/",
    method: str = "GET",
    body: bytes | None = None,
    *,
    safe_to_repeat: bool = True,
) -> bytes:
    """Send one request and give the body of its reply."""
    return await text(await client.send(UpstreamRequest(method, target, (), body), safe_to_repeat=safe_to_repeat))


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    """A streamed body."""
    for part in parts:
        yield part


async def until(holds: Callable[[], bool]) -> None:
    """Wait, for a second at most, for a state of a connection that nobody announces."""
    async with asyncio.timeout(1.0):
        while not holds():  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0)


async def always_ok(peer: Peer) -> None:
    """Answer every request on every connection."""
    while True:
        await peer.request()
        await peer.send(OK)


async def test_head_holds_the_clients_headers_host_via_and_nothing_else() -> None:
    """A miss cannot be told from the client's own request, but for Host, Via and the refusal of compression."""
    heads = []

    async def script(peer: Peer) -> None:
        heads.append((await peer.request()).head)
        await peer.send(OK)

    async with ScriptedServer(script) as server, client_of(server.url) as client:
        headers = (
            ("host", "proxy.example:1"),
            ("X-App", "a"),
            ("accept-encoding", "gzip"),
            ("Authorization", "Bearer caf\udce9"),
            ("x-app", "b"),
            ("Origin", "http://localhost"),
            ("content-length", "99"),
        )
        request = UpstreamRequest("POST", "/api/chat", headers, b"{}")
        assert await text(await client.send(request, safe_to_repeat=True)) == b"ok"
    assert heads == [
        b"POST /api/chat HTTP/1.1\r\n"
        + f"Host: 127.0.0.1:{server.port}\r\n".encode()
        + b"X-App: a\r\nAuthorization: Bearer caf\xe9\r\nx-app: b\r\nAccept-Encoding: identity\r\n"
        b"Via: 1.1 cacheproxy (me)\r\nContent-Length: 2\r\n\r\n"
    ]


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "//v1/chat/completions",
        "/api/blobs/sha256:abc",
        "/api/blobs/sha256%3Aabc",
        "/a%2Fb/../c;d=%2e",
        "/v1/messages?beta=true",
        "/x?",
        "/x?q=%3a%3A&&q=+ä",
        "/caf\udce9?\udcff",
    ],
)
async def test_target_reaches_upstream_byte_for_byte(target: str) -> None:
    """Neither path nor query is decoded, normalised or re-encoded, not even bytes that are no UTF-8."""
    seen = []

    async def script(peer: Peer) -> None:
        seen.append((await peer.request()).target)
        await peer.send(OK)

    async with ScriptedServer(script) as server:
        async with client_of(server.url) as client:
            await ask(client, target)
        async with client_of(server.url + "/prefix/") as client:
            await ask(client, target)
    raw = target.encode("utf-8", "surrogateescape")
    assert seen == [raw, b"/prefix" + raw]


def test_hop_by_hop_headers_stay_behind() -> None:
    """What concerns one connection only is dropped; credentials and framing cannot be named away."""
    headers = (
        ("Connection", "close, X-Hop, Authorization, Host"),
        ("connection", "Content-Length"),
        ("X-Hop", "1"),
        ("Authorization", "a"),
        ("Content-Length", "3"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Authorization", "p"),
        ("TE", "trailers"),
        ("Trailer", "x"),
        ("Transfer-Encoding", "chunked"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "AAM"),
        ("Host", "h"),
        ("Origin", "o"),
        ("X-End", "2"),
        ("X-End", "3"),
    )
    assert end_to_end(headers) == (("Authorization", "a"), ("Content-Length", "3"), ("X-End", "2"), ("X-End", "3"))


def test_loop_is_seen_by_instance_and_two_proxies_in_a_row_are_none() -> None:
    """Via with our own id means our upstream is ourselves; another cacheproxy's does not."""
    assert loops((("via", "1.0 nginx, 1.1 cacheproxy (me)"),), "me")
    assert not loops((("Via", "1.1 cacheproxy (other)"), ("X", "cacheproxy (me)")), "me")


@pytest.mark.parametrize(
    ("method", "body", "length", "framing", "sent"),
    [
        ("GET", None, None, [], b""),
        ("POST", None, None, ["Content-Length: 0"], b""),
        ("DELETE", b'{"model":"m"}', None, ["Content-Length: 13"], b'{"model":"m"}'),
        ("POST", b"x" * 300_000, None, ["Content-Length: 300000"], b"x" * 300_000),
        ("POST", (b"ab", b"", b"cd"), 4, ["Content-Length: 4"], b"abcd"),
        ("POST", (b"ab", b"", b"cd"), None, ["Transfer-Encoding: chunked"], b"abcd"),
    ],
)
async def test_body_arrives_whole_in_its_framing(
    method: str, body: bytes | tuple[bytes, ...] | None, length: int | None, framing: list[str], sent: bytes
) -> None:
    """A body held goes out with its length; a streamed one with the length it was declared with, else chunked."""
    seen = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.send(OK)

    async with ScriptedServer(script) as server, client_of(server.url) as client:
        given = pieces(*body) if isinstance(body, tuple) else body
        request = UpstreamRequest(method, "/", (), given, length)
        await text(await client.send(request, safe_to_repeat=False))
    said = [f"{name}: {value}" for name, value in seen[0].headers if name in {"Content-Length", "Transfer-Encoding"}]
    assert (framing, sent) == (said, seen[0].body)


async def test_chunks_come_as_upstream_sends_them() -> None:
    """Each piece is handed out before the next is sent."""
    got = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 Fine\r\nX-Raw: 1\r\nx-raw: 2\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in (b"one\n", b"two\n"):
            await peer.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            await got.wait()
            got.clear()
        await peer.send(b"0\r\n\r\n")
        await peer.gone()

    async with ScriptedServer(script) as server, client_of(server.url) as client:
        reply = await client.send(UpstreamRequest("GET", "/", ()), safe_to_repeat=True)
        assert (reply.status, reply.reason, reply.headers) == (200, "Fine", (("X-Raw", "1"), ("x-raw", "2")))
        seen = []
        async for piece in reply.chunks():
            seen.append(piece)
            got.set()
        await reply.close()
        await reply.close()
    assert seen == [b"one\n", b"two\n"]


FRAMINGS = {
    "length": ("GET", OK),
    "chunked": ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    "no content": ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
    "not modified": ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"),
    "head": ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n"),
}
EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"


@pytest.mark.fault(51)
@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("when", ["in one piece", "seen by the loop", "still in the socket"])
async def test_bytes_nobody_asked_for_never_answer_the_next_request(framing: str, when: str) -> None:
    """A second response on an idle connection costs that connection, and the next request gets its own answer."""
    method, answer = FRAMINGS[framing]
    sent = asyncio.Event()
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number > 1:
            await peer.send(OK)
            return
        await peer.send(answer + (EVIL if when == "in one piece" else b""))
        if when != "in one piece":
            await go.wait()
            os.write(peer.writer.get_extra_info("socket").fileno(), EVIL)  # at once, on any event loop
        sent.set()
        await peer.gone()

    async with ScriptedServer(script) as server, client_of(server.url) as client:
        with contextlib.suppress(UpstreamBrokenError):  # a body behind a HEAD's reply is no HTTP, and may say so
            await text(await client.send(UpstreamRequest(method, "/", ()), safe_to_repeat=True))
        go.set()
        await sent.wait()
        if when == "seen by the loop":
            await asyncio.sleep(0.01)
        assert await ask(client) == b"ok"
    assert server.connections == 2


@pytest.mark.fault(61)
async def test_connections_that_upstream_closed_after_replying_cause_no_error() -> None:
    """A restarting upstream leaves dead connections in the pool; no request is lost on one."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)

    async with ScriptedServer(script) as server, client_of(server.url) as client:
        assert [await ask(client, method="POST", body=b"{}") for _ in range(20)] == [b"ok"] * 20


async def test_idle_connection_is_used_again() -> None:
    """Requests that may be repeated share a connection while upstream keeps it open."""
    async with ScriptedServer(always_ok) as server, client_of(server.url) as client:
        assert [await ask(client) for _ in range(5)] == [b"ok"] * 5
        assert server.connections == 1


@pytest.mark.fault(44)
async def test_request_lost_on_a_dying_connection_is_sent_once_more_on_a_fresh_one() -> None:
    """Keep-alive races end well for requests that may run twice."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        if peer.number == 1:
            await peer.request()
        else:
            await always_ok(peer)

    async with ScriptedServer(script) as server, client_of(server.url) as client:
        await ask(client)
        assert await ask(client, "/api/chat", "POST", b"{}") == b"ok"
        assert server.connections == 2


@pytest.mark.fault(44)
@pytest.mark.parametrize(("safe", "attempts"), [(True, 2), (False, 1)])
async def test_upstream_that_never_answers_is_asked_twice_at_most(safe: bool, attempts: int) -> None:
    """One retry where it is safe, none where the request must not run twice."""

    async def script(peer: Peer) -> None:
        await peer.request()

    async with ScriptedServer(script) as server, client_of(server.url) as client:
        with pytest.raises(UpstreamUnreachableError):
            await ask(client, "/api/delete", "DELETE", b"{}", safe_to_repeat=safe)
        assert server.connections == attempts


async def test_request_that_must_not_run_twice_takes_a_fresh_connection() -> None:
    """It never meets a pooled connection, so it never meets a dying one."""
    async with ScriptedServer(always_ok) as server, client_of(server.url) as client:
        await ask(client)
        await ask(client, "/api/pull", "POST", b"{}", safe_to_repeat=False)
        assert server.connections == 2


async def chat(client: UpstreamClient) -> bytes:
    """One request that must not run twice."""
    return await ask(client, "/api/chat", "POST", b"{}", safe_to_repeat=False)


async def test_request_that_must_not_run_twice_finds_a_connection_made_ahead() -> None:
    """Each still has one to itself: a connection carries one of them at most."""
    requests: list[int] = []

    async def script(peer: Peer) -> None:
        await peer.request()
        requests.append(peer.number)
        await peer.send(OK)
        await peer.gone()

    async with ScriptedServer(script) as server, client_of(server.url) as client:
        for count in range(1, 4):
            assert await chat(client) == b"ok"
            await until(lambda count=count: server.connections == count + 1)

    assert requests == [1, 2, 3]


@pytest.mark.fault(51)
@pytest.mark.parametrize("trouble", [EVIL, b""], ids=["unasked bytes", "closed"])
async def test_a_connection_made_ahead_that_is_not_silent_is_not_used(trouble: bytes) -> None:
    """What came on it before it was asked anything answers nobody, and its end costs no request."""
    troubled = asyncio.Event()

    async def script(peer: Peer) -> None:
        if peer.number == 2:
            if trouble:
                await peer.send(trouble)
            else:
                peer.writer.close()
            troubled.set()
            return
        await peer.request()
        await peer.send(OK)
        await peer.gone()

    async with ScriptedServer(script) as server, client_of(server.url) as client:
        assert await chat(client) == b"ok"
        await troubled.wait()
        assert await chat(client) == b"ok"


@pytest.mark.parametrize("system_tells", [True, False])
@pytest.mark.parametrize("taken", [False, True], ids=["nothing was taken", "the request was taken"])
async def test_a_connection_made_ahead_that_is_closed_as_it_is_taken_costs_no_request(
    monkeypatch: pytest.MonkeyPatch, taken: bool, system_tells: bool
) -> None:
    """If it is sure that nobody took it, the request is sent anew; else it may have run, and must not run twice."""
    requests: list[int] = []
    ahead: list[Peer] = []

    async def script(peer: Peer) -> None:
        if peer.number == 2:
            ahead.append(peer)
            if taken:
                await peer.head()
                requests.append(peer.number)
                peer.writer.transport.abort()
            return
        while True:
            await peer.request()
            requests.append(peer.number)
            await peer.send(OK)

    monkeypatch.setattr(Wire, "silent", Wire.is_connected)
    if not system_tells:
        monkeypatch.setattr(Wire, "acknowledged", lambda _wire: None)
    async with ScriptedServer(script) as server, client_of(server.url) as client:
        assert await chat(client) == b"ok"
        await until(lambda: bool(ahead) and client._pool.has_spare)
        if not taken:
            ahead[0].writer.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        if system_tells and not taken and hasattr(socket, "TCP_INFO"):
            assert await chat(client) == b"ok"
            assert requests == [1, 3]
        else:
            with pytest.raises(UpstreamStaleError):
                await chat(client)
            assert requests == ([1, 2] if taken else [1])


async def test_a_connection_made_ahead_does_not_outlive_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy at rest holds none; it would die of old age somewhere on the way, unseen."""
    monkeypatch.setattr(pool, "SPARE_S", 0.01)
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        if peer.number == 2:
            await peer.gone()
            gone.set()
            return
        await peer.request()
        await peer.send(OK)
        await peer.gone()

    async with ScriptedServer(script) as server, client_of(server.url) as client:
        assert await chat(client) == b"ok"
        await asyncio.wait_for(gone.wait(), 5)


async def test_an_upstream_that_is_gone_is_told_as_such_though_a_connection_was_made_ahead() -> None:
    """The dead one is not used, and a new one cannot be had."""
    async with ScriptedServer(always_ok) as server:
        client = UpstreamClient(config.Upstream(url=server.url))
        await client.open()
        assert await chat(client) == b"ok"
        await until(lambda: server.connections == 2)

    with pytest.raises(UpstreamUnreachableError):
        await chat(client)
    await client.close()


@pytest.mark.fault(50)
@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 20",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nok",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
)
async def test_head_that_is_not_http_is_an_error_and_not_asked_again(answer: bytes) -> None:
    """A reply whose head or framing is ambiguous is refused; a byte of it rules the retry out."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)

    async with ScriptedServer(script) as server, client_of(server.url) as client:
        with pytest.raises(UpstreamBrokenError):
            await ask(client)
        assert server.connections == 1


@pytest.mark.fault(45)
@pytest.mark.parametrize(
    ("head", "end"),
    [
        (b"Content-Length: 10\r\n\r\nhalf", "fin"),
        (b"Content-Length: 10\r\n\r\nhalf", "rst"),
        (b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "fin"),
        (b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n5\r\n", "rst"),
        (b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "garbage"),
        (b"Connection: close\r\n\r\nhalf", "rst"),
    ],
)
async def test_body_that_breaks_off_gives_what_came_and_then_an_error(head: bytes, end: str) -> None:
    """No truncated body ends like a whole one."""
    received = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n" + head)
        if end == "rst":
            await received.wait()
            peer.reset()
        elif end == "garbage":
            await received.wait()
            await peer.send(b"zz\r\n")
            await peer.gone()

    got = b""
    async with ScriptedServer(script) as server, client_of(server.url) as client:
        reply = await client.send(UpstreamRequest("GET", "/", ()), safe_to_repeat=True)
        with pytest.raises(UpstreamBrokenError):  # noqa: PT012 - the break comes while iterating
            async for piece in reply.chunks():
                got += piece
                received.set()
        await reply.close()
    assert got == b"half"


@pytest.mark.fault(45)
async def test_bytes_that_came_before_a_break_are_given_to_a_late_reader() -> None:
    """The break may be known before anyone reads; what Ollama had said is still said."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

    async with ScriptedServer(script) as server, client_of(server.url) as client:
        reply = await client.send(UpstreamRequest("GET", "/", ()), safe_to_repeat=True)
        await until(lambda: reply._payload.exception() is not None)
        chunks = reply.chunks()
        assert await anext(chunks) == b"half"
        with pytest.raises(UpstreamBrokenError):
            await anext(chunks)
        await reply.close()


async def test_leaving_an_upstream_that_reads_nothing_does_not_wait_for_it() -> None:
    """Unsent bytes of an upload are dropped with the connection."""
    started, over = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.reader._transport.pause_reading()
        started.set()
        await over.wait()

    async with ScriptedServer(script) as server, client_of(server.url) as client:
        task = asyncio.create_task(
            client.send(UpstreamRequest("POST", "/", (), b"x" * 50_000_000), safe_to_repeat=True)
        )
        await started.wait()
        (wire,) = client._busy
        await asyncio.sleep(0.2)  # the kernel's buffers fill up, which nobody announces
        assert wire.writing_paused
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: wire.transport is None)
        over.set()


async def test_body_without_length_ends_with_the_connection() -> None:
    """An HTTP/1.0 style reply that is closed in order is whole."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.0 200 OK\r\n\r\nall of it")

    async with ScriptedServer(script) as server, client_of(server.url) as client:
        assert await ask(client) == b"all of it"


@pytest.mark.fault(65)
@pytest.mark.parametrize("moment", ["head awaited", "body half read", "upload stuck"])
async def test_leaving_closes_the_upstream_socket_at_once(moment: str) -> None:
    """Ollama stops working when its client goes, so it must see us go."""
    started = asyncio.Event()
    closed = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        if moment == "body half read":
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        started.set()
        await peer.gone()
        closed.set()

    async with ScriptedServer(script) as server, client_of(server.url) as client:
        body = b"x" * 50_000_000 if moment == "upload stuck" else None
        request = UpstreamRequest("POST", "/", (), body)
        watch = Stopwatch()
        if moment == "body half read":
            reply = await client.send(request, safe_to_repeat=True)
            await anext(reply.chunks())
            await reply.close()
        else:
            task = asyncio.create_task(client.send(request, safe_to_repeat=True))
            await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await asyncio.wait_for(closed.wait(), 1.0)
        assert watch.seconds < 2.0
        assert client._busy == set()


async def test_closing_a_reply_wakes_whoever_reads_it() -> None:
    """A reader in another task gets an error and does not wait for ever."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
        await peer.gone()

    async with ScriptedServer(script) as server, client_of(server.url) as client:
        reply = await client.send(UpstreamRequest("GET", "/", ()), safe_to_repeat=True)
        reading = asyncio.create_task(reply.read(100))
        await asyncio.sleep(0)
        await reply.close()
        with pytest.raises(UpstreamBrokenError):
            await asyncio.wait_for(reading, 1.0)


async def test_error_of_the_bodys_source_ends_the_exchange() -> None:
    """When the client's upload dies, upstream's connection does too, and the caller sees the real reason."""
    closed = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.gone()
        closed.set()

    async def source() -> AsyncIterator[bytes]:
        yield b"half"
        raise CallerError("too slow")

    async with ScriptedServer(script) as server, client_of(server.url) as client:
        with pytest.raises(CallerError, match="too slow"):
            await client.send(UpstreamRequest("POST", "/", (), source(), 10), safe_to_repeat=False)
        await asyncio.wait_for(closed.wait(), 1.0)
        with pytest.raises(CallerError, match="4 bytes, its Content-Length says 10"):
            await client.send(UpstreamRequest("POST", "/", (), pieces(b"half"), 10), safe_to_repeat=False)


async def test_reply_before_the_end_of_the_upload_is_taken_and_the_connection_not_reused() -> None:
    """Ollama may refuse a blob while it is still being sent."""
    stop = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno")
        await peer.gone()

    async def endless() -> AsyncIterator[bytes]:
        yield b"some"
        await stop.wait()

    async with ScriptedServer(script) as server, client_of(server.url) as client:
        reply = await client.send(UpstreamRequest("POST", "/", (), endless()), safe_to_repeat=False)
        assert (reply.status, await text(reply)) == (400, b"no")
        assert not client._pool


@pytest.mark.parametrize(("answer", "asked"), [(b"HTTP/1.1 100 Continue\r\n\r\n", True), (OK, False)])
async def test_body_waits_for_upstreams_continue(answer: bytes, asked: bool) -> None:
    """With Expect the body is not touched before upstream wants it, and not at all if it answers without."""
    touched = []

    async def body() -> AsyncIterator[bytes]:
        touched.append(True)
        yield b"blob"

    async def script(peer: Peer) -> None:
        assert (await peer.head()).values("expect") == ["100-continue"]
        assert not touched
        await peer.send(answer)
        if asked:
            assert await peer.reader.readexactly(4) == b"blob"
            await peer.send(OK)

    async with ScriptedServer(script) as server, client_of(server.url) as client:
        request = UpstreamRequest("POST", "/", (("expect", "100-continue"),), body(), 4, expect_continue=True)
        assert await text(await client.send(request, safe_to_repeat=False)) == b"ok"
    assert bool(touched) == asked


async def test_interim_replies_are_passed_over() -> None:
    """103 and the like are not the answer (fault 64)."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + OK)
        await peer.gone()

    async with ScriptedServer(script) as server, client_of(server.url) as client:
        assert await ask(client) == b"ok"


async def test_long_headers_and_many_of_them_pass() -> None:
    """Ollama takes heads up to 1 MiB; so do we, both ways."""
    big = "v" * 200_000

    async def script(peer: Peer) -> None:
        assert (await peer.request()).values("x-big") == [big]
        many = b"".join(b"X-%d: %d\r\n" % (n, n) for n in range(300))
        await peer.send(b"HTTP/1.1 200 OK\r\nX-Big: " + big.encode() + b"\r\n" + many + b"Content-Length: 0\r\n\r\n")

    async with ScriptedServer(script) as server, client_of(server.url) as client:
        server_limit_free = UpstreamRequest("GET", "/", (("X-Big", big),))
        reply = await client.send(server_limit_free, safe_to_repeat=False)
        assert dict(reply.headers)["X-Big"] == big
        assert len(reply.headers) == 302
        await reply.close()


async def test_silent_upstream_is_given_up_after_read_timeout_only_where_set() -> None:
    """Without the setting a model may load for as long as it needs; with it, silence is an error."""

    async def script(peer: Peer) -> None:
        seen = await peer.request()
        if seen.target == b"/mid":
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await peer.gone()

    async with ScriptedServer(script) as server, client_of(server.url, read_timeout=0.05) as client:
        with pytest.raises(UpstreamUnreachableError, match="read_timeout"):
            await ask(client)
        assert server.connections == 1
        with pytest.raises(UpstreamBrokenError):
            await ask(client, "/mid")


@pytest.mark.fault(43)
async def test_closed_port_is_told_with_a_remedy_and_without_the_address() -> None:
    """The text may be shown to clients, who need not know where Ollama is; the cause keeps the detail."""
    async with ScriptedServer(always_ok) as server:
        pass
    async with client_of(server.url) as client:
        with pytest.raises(UpstreamUnreachableError, match=r"\(connection refused\).*upstream\.url") as caught:
            await ask(client)
    assert str(server.port) not in str(caught.value)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


async def test_connection_that_does_not_come_about_is_given_up_after_connect_timeout() -> None:
    """A listener whose queue is full accepts nobody; the wait for it has a bound."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            async with client_of(f"http://127.0.0.1:{port}", connect_timeout=0.05) as client:
                with pytest.raises(UpstreamUnreachableError):
                    await asyncio.wait_for(asyncio.gather(*(client._connect() for _ in range(4))), 2.0)


async def test_get_json_reads_json_and_refuses_the_rest() -> None:
    """Names and digests come from here: anything but a JSON 200 is an upstream error."""
    answers = {
        b"/ok": b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"models":[]}',
        b"/bad": OK,
        b"/missing": b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}",
    }

    posted = []

    async def script(peer: Peer) -> None:
        while True:
            seen = await peer.request()
            if seen.target == b"/silent":
                await peer.gone()
                return
            posted.append((seen.line.split()[0], seen.body))
            await peer.send(answers[seen.target])

    async with ScriptedServer(script) as server, client_of(server.url) as client:
        assert await client.get_json("/ok", timeout_s=1) == {"models": []}
        assert await client.get_json("/ok", timeout_s=1, body={"model": "m"}) == {"models": []}
        assert posted == [(b"GET", b""), (b"POST", b'{"model": "m"}')]
        for target in ("/bad", "/missing"):
            with pytest.raises(UpstreamBrokenError):
                await client.get_json(target, timeout_s=1)
        with pytest.raises(UpstreamUnreachableError):
            await client.get_json("/silent", timeout_s=0.05)


async def test_characters_that_would_split_a_request_are_refused() -> None:
    """Nothing in a head can start another line."""
    async with client_of("http://127.0.0.1:9") as client:
        for request in (
            UpstreamRequest("GET", "/a b", ()),
            UpstreamRequest("GET", "/a\r\nX: y", ()),
            UpstreamRequest("GET", "/", (("X", "a\r\nY: b"),)),
            UpstreamRequest("GET /", "/", (("X\n", "a"),)),
        ):
            if request.method == "GET":
                with pytest.raises(CallerError):
                    await client.send(request, safe_to_repeat=True)


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:11434",
        "ftp://127.0.0.1",
        "http://",
        "http://user:secret@127.0.0.1",
        "http://h:99999",
        "http://h/?q=1",
        "http://h/a b",
    ],
)
def test_unusable_upstream_url_is_a_config_error_that_shows_no_secret(url: str) -> None:
    """Only http and https without credentials can be an upstream."""
    with pytest.raises(ConfigError, match=r"upstream\.url") as caught:
        UpstreamClient(config.Upstream(url=url))
    assert "secret" not in str(caught.value)


async def test_hundred_concurrent_requests_get_their_own_answers() -> None:
    """No limit on connections, and no answer goes to another request."""

    async def script(peer: Peer) -> None:
        while True:
            target = (await peer.request()).target
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(target), target))

    async with ScriptedServer(script) as server, client_of(server.url) as client:
        for _ in range(3):
            targets = [f"/{n}" for n in range(100)]
            answers = await asyncio.gather(*(ask(client, target) for target in targets))
            assert answers == [target.encode() for target in targets]
        assert len(client._pool) <= 64


async def test_a_host_name_nobody_knows_is_told_as_such() -> None:
    """The name itself stays in the proxy's config."""
    async with client_of("http://nowhere.invalid:1") as client:
        with pytest.raises(UpstreamUnreachableError, match="host name not found") as caught:
            await ask(client)
    assert "nowhere" not in str(caught.value)
