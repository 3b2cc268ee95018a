"""The relay gives each side the other's bytes, as they come, and no end that was not there."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from cacheproxy import config
from cacheproxy.counting.faults import Fault
from cacheproxy.edge.body import read_body
from cacheproxy.edge.passthrough import Passthrough
from cacheproxy.edge.request import Headers
from cacheproxy.edge.server import Server
from cacheproxy.upstream.client import UpstreamClient
from cacheproxy.upstream.fleet import reads
from cacheproxy.upstream.reply import UpstreamReply
from cacheproxy.upstream.request import UpstreamRequest
from tests.fakes.house import House
from tests.fakes.ollama import Fault as OllamaFault
from tests.fakes.scripted import Peer, Script, ScriptedServer
from tests.fakes.stopwatch import Stopwatch
from tests.fakes.wire import ask, chunked, connect, request

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Alone(UpstreamClient):
    """One Ollama of which nothing is known."""

    async def pass_on(self, request: UpstreamRequest) -> UpstreamReply:
        """Send it."""
        return await self.send(request, safe_to_repeat=reads(request.method, request.target.partition("?")[0]))


@contextlib.asynccontextmanager
async def relaying(
    upstream: str, extra: Headers = (), settings: config.Server | None = None, *, read_first: int | None = None
) -> AsyncIterator[Server]:
    """A proxy that only relays; `read_first`: up to so many bytes of each body are read before."""
    settings = settings or config.Server()
    client = Alone(config.Upstream(url=upstream), instance_id="me")
    passthrough = Passthrough(client, settings)

    async def handle(req: web.BaseRequest) -> web.StreamResponse:
        body = None if read_first is None else await read_body(req, read_first, settings)
        return await passthrough.handle(req, body, extra_headers=extra)

    server = Server(handle, "127.0.0.1:0", settings, fault=none_expected)
    await client.open()
    await server.open()
    try:
        yield server
    finally:
        await server.close()
        await client.close()


def none_expected(kind: Fault) -> None:
    """Nothing here is a defect of ours."""
    raise AssertionError(kind)


@contextlib.asynccontextmanager
async def between(script: Script, extra: Headers = ()) -> AsyncIterator[tuple[ScriptedServer, int]]:
    """A scripted upstream and the port of a proxy before it."""
    async with ScriptedServer(script) as upstream, relaying(upstream.url, extra) as server:
        yield upstream, server.port


def resident_bytes() -> int:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


async def test_upstreams_head_is_passed_with_via_and_what_the_caller_adds() -> None:
    """Status, reason and headers are upstream's own, its Server and cookies too; nothing is invented."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(
            b"HTTP/1.1 418 Short And Stout\r\nserver: teapot\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nDate: then\r\n"
            b"Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nVary: A\r\nX-Cache: THEIRS\r\nContent-Length: 2\r\n\r\nok"
        )
        await peer.gone()

    async with between(script, (("X-Cache", "BYPASS"), ("Vary", "B"))) as (_, port):
        reply = await ask(port, "GET", "/")
    assert (reply.status, reply.reason, reply.body) == (418, "Short And Stout", b"ok")
    assert reply.headers == [
        ("server", "teapot"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("Date", "then"),
        ("Vary", "A"),
        ("Content-Length", "2"),
        ("Via", "1.1 cacheproxy"),
        ("X-Cache", "BYPASS"),
        ("Vary", "B"),
    ]


async def test_cookies_of_one_caller_do_not_reach_another() -> None:
    """There is no cookie jar (fault 55)."""
    cookies = []

    async def script(peer: Peer) -> None:
        while True:
            cookies.append((await peer.request()).values("cookie"))
            await peer.send(b"HTTP/1.1 200 OK\r\nSet-Cookie: who=a\r\nContent-Length: 0\r\n\r\n")

    async with between(script) as (_, port):
        await ask(port, "GET", "/", headers=[("Cookie", "mine=1")])
        await ask(port, "GET", "/")
    assert cookies == [["mine=1"], []]


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_replies_without_body_leave_the_connection_usable(status: bytes) -> None:
    """No framing is added where HTTP allows no body."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(b"HTTP/1.1 " + status + b"\r\n\r\n")

    async with between(script) as (_, port), await connect(port) as wire:
        for _ in range(2):
            await wire.send(request("GET", "/"))
            reply = await wire.response()
            assert reply.status == int(status[:3])
            assert reply.header("transfer-encoding") is None


BROKEN = {
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhalf\n\r\n",
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf\n",
}


@pytest.mark.fault(45)
@pytest.mark.parametrize("framing", BROKEN)
@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_reply_that_breaks_off_upstream_breaks_off_downstream(framing: str, version: str) -> None:
    """What came is delivered; the end is none that a client could take for whole."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(BROKEN[framing])

    async with between(script) as (_, port), await connect(port) as wire:
        await wire.send(request("GET", "/", version=version))
        unframed = version == "1.0" and framing == "chunked"
        if not unframed:
            reply = await wire.response()
            assert (reply.body, reply.complete) == (b"half\n", False)
            return
        await wire.head()
        assert await wire.reader.readexactly(5) == b"half\n"
        with pytest.raises(ConnectionResetError):
            await wire.reader.read()


async def test_http_1_0_client_that_wants_keep_alive_gets_it_only_where_a_length_tells_the_end() -> None:
    """An unframed body ends with the connection, whatever was asked for."""
    replies = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", OK]

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(replies.pop())

    async with between(script) as (_, port), await connect(port) as wire:
        for length in ("2", None):
            await wire.send(request("GET", "/", version="1.0", headers=[("Connection", "keep-alive")]))
            reply = await wire.response()
            assert (reply.body, reply.header("content-length")) == (b"ok", length)
            assert reply.header("transfer-encoding") is None


@pytest.mark.fault(45)
async def test_no_cut_of_a_reply_ever_looks_whole() -> None:
    """Upstream dies after each possible byte of a chunked reply."""
    whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab\n\r\n3\r\ncd\n\r\n0\r\n\r\n"
    cut = 0

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(whole[:cut])

    async with between(script) as (_, port):
        for cut in range(len(whole)):
            async with await connect(port) as wire:
                await wire.send(request("GET", "/"))
                reply = await wire.response()
                assert reply.status == 502 or not reply.complete, cut
    assert cut == len(whole) - 1


@pytest.mark.fault(43)
@pytest.mark.parametrize("path", ["/api/tags", "/v1/models"])
async def test_unreachable_ollama_is_502_with_a_remedy(path: str) -> None:
    """In the shape of the path, naming the setting, not the address; the connection stays usable."""
    async with ScriptedServer(lambda _: asyncio.sleep(0)) as upstream:
        pass
    async with relaying(upstream.url) as server, await connect(server.port) as wire:
        for _ in range(2):
            await wire.send(request("GET", path))
            reply = await wire.response()
            assert reply.status == 502
            error = reply.json()["error"]
            text = error if path.startswith("/api") else error["message"]
            assert "upstream.url" in text
            assert str(upstream.port) not in text


async def test_loop_is_told_and_ended() -> None:
    """A proxy that is its own upstream would ask itself for ever."""
    asked = []

    async def script(peer: Peer) -> None:
        asked.append(await peer.request())
        await peer.send(OK)

    async with between(script) as (_, port):
        looped = await ask(port, "GET", "/api/tags", headers=[("Via", "1.1 cacheproxy (me)")])
        chained = await ask(port, "GET", "/api/tags", headers=[("Via", "1.1 cacheproxy (other)")])
    assert (looped.status, chained.status) == (508, 200)
    assert asked[0].values("via") == ["1.1 cacheproxy (other)", "1.1 cacheproxy (me)"]


@pytest.mark.fault(65)
@pytest.mark.parametrize("moment", ["before the head", "within the body", "within the upload"])
async def test_client_that_leaves_takes_upstream_along_within_a_second(moment: str) -> None:
    """Or a model would go on for nobody."""
    started, closed = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        if moment == "within the body":
            await peer.send(BROKEN["length"])
        started.set()
        await peer.gone()
        closed.set()

    async with between(script) as (_, port), await connect(port) as wire:
        length = [("Content-Length", "100")] if moment == "within the upload" else []
        target = "/api/blobs/sha256:a" if length else "/api/chat"
        await wire.send(request("POST", target, headers=length))
        await started.wait()
        watch = Stopwatch()
        wire.close()
        await asyncio.wait_for(closed.wait(), 1.0)
        assert watch.seconds < 1.0


@pytest.mark.parametrize(
    ("method", "target", "attempts"),
    [
        ("GET", "/api/tags", 2),
        ("POST", "/api/show", 2),
        ("POST", "/api/chat?x=1", 1),
        ("POST", "/api/pull", 1),
        ("POST", "/api/create", 1),
        ("POST", "/api/copy", 1),
        ("DELETE", "/api/delete", 1),
        ("POST", "/api/new", 1),
    ],
)
async def test_only_what_changes_nothing_is_sent_twice(method: str, target: str, attempts: int) -> None:
    """A lost connection is tried once more for questions, never for commands or what is not known."""

    async def script(peer: Peer) -> None:
        await peer.request()

    async with between(script) as (upstream, port):
        reply = await ask(port, method, target, b"{}" if method != "GET" else b"")
    assert (reply.status, upstream.connections) == (502, attempts)


async def test_refused_upload_gets_upstreams_answer_and_a_close() -> None:
    """Ollama may say no before it has read all; the client hears it, and its rest is not taken for a request."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno")
        await peer.gone()

    async with between(script) as (_, port), await connect(port) as wire:
        await wire.send(request("POST", "/api/blobs/sha256:a", headers=[("Content-Length", "100")]) + b"begin")
        reply = await wire.response()
        assert (reply.status, reply.body, reply.header("connection")) == (400, b"no", "close")


@pytest.mark.fault(69)
async def test_stalled_upload_is_408_and_ends_upstream_too() -> None:
    """The deadline for bodies holds while they are streamed."""
    closed = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.gone()
        closed.set()

    settings = config.Server(body_timeout=0.1)
    async with ScriptedServer(script) as upstream, relaying(upstream.url, settings=settings) as server:
        async with await connect(server.port) as wire:
            await wire.send(request("POST", "/api/blobs/sha256:a", headers=[("Content-Length", "100")]) + b"begin")
            reply = await wire.response()
        assert (reply.status, reply.header("connection")) == (408, "close")
        await asyncio.wait_for(closed.wait(), 1.0)


@pytest.mark.parametrize("read_first", [4, 10**6])
@pytest.mark.parametrize("framed", ["length", "chunked"])
async def test_body_read_in_part_before_arrives_whole(read_first: int, framed: str) -> None:
    """A handler that looked at a body and gave up on it loses nothing."""
    bodies = []
    text = bytes(range(256)) * 1000

    async def script(peer: Peer) -> None:
        bodies.append((await peer.request()).body)
        await peer.send(OK)

    async with ScriptedServer(script) as upstream, relaying(upstream.url, read_first=read_first) as server:
        headers = [] if framed == "length" else [("Transfer-Encoding", "chunked")]
        sent = text if framed == "length" else chunked(text[:100_000], text[100_000:])
        assert (await ask(server.port, "POST", "/api/chat", sent, headers=headers)).status == 200
    assert bodies == [text]


@pytest.mark.fault(60)
async def test_reply_faster_than_its_reader_is_not_piled_up() -> None:
    """Upstream is held back when the client does not read; memory stays flat."""
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n")
        for _ in range(200):
            await peer.send(b"x" * 1_000_000)
            sent += 1_000_000

    async with between(script) as (_, port), await connect(port) as wire:
        before = resident_bytes()
        wire.writer.transport.pause_reading()
        await wire.send(request("GET", "/"))
        seen = -1
        while seen != sent:
            seen = sent
            await asyncio.sleep(0.2)
        assert sent < 30_000_000  # socket buffers of the kernel
        assert resident_bytes() - before < 16 * 1024**2


@pytest.mark.fault(63)
async def test_upload_of_200_mb_is_streamed_in_flat_memory() -> None:
    """Neither the proxy nor its client of upstream holds more than a few buffers."""
    received = 0
    piece = b"x" * 250_000

    async def script(peer: Peer) -> None:
        nonlocal received
        await peer.head()
        while received < 200_000_000:
            received += len(await peer.reader.read(1 << 20))
        await peer.send(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

    async with between(script) as (_, port), await connect(port) as wire:
        await wire.send(request("POST", "/api/blobs/sha256:a", headers=[("Content-Length", "200000000")]))
        before = highest = resident_bytes()
        for _ in range(800):
            await wire.send(piece)
            highest = max(highest, resident_bytes())
        assert (await wire.response()).status == 201
    assert highest - before < 24 * 1024**2


async def test_last_hook_runs_before_a_client_can_know_of_success() -> None:
    """What a pull changed is known here before anyone can act on it."""
    order = []

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b'HTTP/1.1 200 OK\r\n\r\n{"status":"success"}\n')

    async def before_end() -> None:
        order.append("hook")

    async with ScriptedServer(script) as upstream:
        client = Alone(config.Upstream(url=upstream.url))
        passthrough = Passthrough(client, config.Server())

        async def handle(req: web.BaseRequest) -> web.StreamResponse:
            return await passthrough.handle(req, before_end=before_end)

        server = Server(handle, "127.0.0.1:0", config.Server(), fault=none_expected)
        await server.open()
        async with await connect(server.port) as wire:
            await wire.send(request("POST", "/api/pull", b"{}"))
            reply = await wire.head()
            assert await wire.chunk(reply)
            order.append("success seen")
            assert not await wire.chunk(reply)
        await server.close()
        await client.close()
    assert order == ["hook", "success seen"]


async def test_what_is_no_ask_is_counted_by_path_and_status_and_callers_make_no_new_names(house: House) -> None:
    """Asks are counted elsewhere, those that go around the cache too."""
    for path in ("/api/tags", "/api/tags?x=1", "/v1/models/llama3.2", "/api/made-up", "/api/tags-of-mine"):
        await house.ask("GET", path)
    await house.ask("HEAD", "/api/blobs/sha256:" + "0" * 64)
    await house.chat("why?")
    await house.chat("why?", headers=[("Cache-Control", "no-store")])
    stats = await house.stats()

    assert stats["passed_through"]["paths"] == {"tags": 2, "models": 1, "other": 2, "blobs": 1}
    assert stats["passed_through"]["statuses"] == {"200": 3, "404": 3}
    assert stats["asks"] == 2


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        (OllamaFault(close_before_answer=True), "upstream_unreachable"),
        (OllamaFault(cut_after_bytes=300), "upstream_broken"),
        (OllamaFault(error_first=(500, "the runner has ended")), "upstream_error"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_goes_wrong_with_an_ask_that_goes_around_the_cache_is_counted(
    house: House, trouble: OllamaFault, kind: str
) -> None:
    """Once, and as what it is: while a model has no identity all asks go that way."""
    before = dict((await house.stats())["faults"])
    house.ollama.always(trouble)
    with contextlib.suppress(EOFError, OSError):
        await house.chat("why?", headers=[("Cache-Control", "no-store")])
    after = (await house.stats())["faults"]

    assert {name: after[name] - before[name] for name in after if after[name] != before[name]} == {kind: 1}
