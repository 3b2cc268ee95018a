"""The HTTP server: sockets, deadlines, framing, and a clean end.

It wraps aiohttp's low-level server (no application, no router: a proxy has one handler), refuses what no client of
Ollama sends and only smugglers do, and bounds how long a client may take over a head or a body. What a request means
is for the handler. It refuses to read a body nobody asked for: `Expect: 100-continue` is answered when a handler
starts to read, so an early reply spares the upload.

A client that closes its sending half counts as gone, as with Ollama, and its handler is cancelled.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from secrets import token_hex
from typing import Any

from aiohttp import http_parser, web
from aiohttp.http import HttpProcessingError, HttpVersion11, RawRequestMessage

from cacheproxy import config
from cacheproxy.edge.connection import Arrival, Handler, Known, KnownConnection
from cacheproxy.errors import BodyTimeoutError, CallerError

log = logging.getLogger(__name__)

HEAD_BYTES_MAX = 1024**2
"""Longest line and longest header field, bytes: what Go's server, and so Ollama, takes for a whole head."""

BODY_RATE_MIN = 1024
"""Least average rate of a request body, bytes/s, once `server.body_timeout` seconds were spent waiting for it."""

_BACKLOG = 1024
_READ_BYTES = 64 * 1024
_LINGER_S = 5.0
_CANCEL_S = 5.0

Headers = tuple[tuple[str, str], ...]

REPLY_HEADERS: web.RequestKey[Headers] = web.RequestKey("REPLY_HEADERS", tuple)
"""Headers that every `Plain` reply to a request carries, whoever makes it; set on the request."""

_APPENDED = frozenset({"vary", "via"})


class PlainStream(web.StreamResponse):
    """A streamed reply with the headers it was given, `Date` and framing; no `Server`, no invented `Content-Type`."""

    def add_headers(self, headers: Headers) -> None:
        """Put `headers` on the reply, in place of those it has of the same name (`Vary` and `Via` gather)."""
        for name in {name.lower() for name, _ in headers} - _APPENDED:
            self.headers.popall(name, None)
        for name, value in headers:
            self.headers.add(name, value)

    async def begin(self, request: web.BaseRequest, *, with_first: bool) -> None:
        """Send the head; `with_first`: in one packet with the first piece of the body, which must be at hand."""
        self._send_headers_immediately = not with_first
        await self.prepare(request)

    async def _prepare_headers(self) -> None:
        request = self._req
        if request is not None:
            self.add_headers(request.get(REPLY_HEADERS, ()))
            unframed = request.version < HttpVersion11 and self.content_length is None
            if is_leaving(request) or unframed:
                self.force_close()
        given = {name.lower() for name in self.headers}
        await super()._prepare_headers()
        for name in {"content-type", "server"} - given:
            self.headers.popall(name, None)


class Plain(PlainStream, web.Response):
    """A whole reply with the headers it was given, `Date` and `Content-Length`; no `Server`."""


_OVERLOADED = 503


def error_reply(path: str, status: int, message: str) -> Plain:
    """An error in the shape that clients of `path` know: Ollama's, OpenAI's below `/v1/`, Anthropic's for messages."""
    content_type, end = "application/json", "\n"
    body: dict[str, Any]
    if path.startswith("/v1/messages"):
        kind = "overloaded_error" if status == _OVERLOADED else _v1_error_type(status)
        body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": f"req_{token_hex(12)}"}
    elif path.startswith("/v1/"):
        body = {"error": {"message": message, "type": _v1_error_type(status), "param": None, "code": None}}
    else:
        body = {"error": message}
        content_type, end = "application/json; charset=utf-8", ""
    text = json.dumps(body, separators=(",", ":")) + end
    return Plain(status=status, body=text.encode(), headers={"Content-Type": content_type})


def _v1_error_type(status: int) -> str:
    if status == 404:
        return "not_found_error"
    return "invalid_request_error" if status < 500 else "api_error"


class Body:
    """A request's body: what was read of it, and the rest as it comes.

    A handler that finds it too large to hold passes `chunks()` on instead, and nothing is lost or held twice.
    Reading raises BodyTimeoutError when the client is too slow and CallerError when the framing is broken.
    """

    def __init__(self, request: web.BaseRequest, settings: config.Server) -> None:
        self._request = request
        self._timeout_s = settings.body_timeout
        self._waited_s = 0.0
        self._received = 0
        self._invited = False
        self.prefix = b""
        """What `fill` has read."""
        self.complete = not request.body_exists
        """True when there is no more than `prefix`, or all was read."""

    @property
    def length(self) -> int | None:
        """Bytes the whole body has, as the client declared them; None when it comes chunked. Raises CallerError."""
        try:
            return self._request.content_length
        except ValueError:  # Python reads no number of over 4,300 digits, be they zeros
            raise CallerError("the request's Content-Length cannot be read") from None

    async def fill(self, bytes_max: int) -> bool:
        """Read until the end or until more than `bytes_max` bytes came; True when `prefix` then is the whole body.

        It may then be longer than `bytes_max` by less than one read. A body declared longer is not touched at all.
        """
        if self.complete or (self.length or 0) > bytes_max:
            return self.complete
        parts = [self.prefix]
        size = len(self.prefix)
        while size <= bytes_max and (piece := await self._next()):
            parts.append(piece)
            size += len(piece)
        self.prefix = b"".join(parts)
        return self.complete

    async def chunks(self) -> AsyncIterator[bytes]:
        """The whole body: `prefix`, then `rest`."""
        if self.prefix:
            yield self.prefix
        async for piece in self.rest():
            yield piece

    async def rest(self) -> AsyncIterator[bytes]:
        """What comes after `prefix`, as it comes."""
        while piece := await self._next():
            yield piece

    async def _next(self) -> bytes:
        if self.complete:
            return b""
        content = self._request.content
        try:
            # All of it is there as a rule, and needs neither deadline nor invitation.
            piece = content.read_nowait(-1) if content.is_eof() else await self._wait_next()
        except TimeoutError as error:
            raise BodyTimeoutError(f"the request's body came too slowly: {self._received} bytes so far") from error
        except (web.RequestPayloadError, HttpProcessingError) as error:
            raise CallerError("the request's body does not end as its head says") from error
        self._received += len(piece)
        self.complete = not piece or content.at_eof()
        return piece

    async def _wait_next(self) -> bytes:
        await self._invite()
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        async with asyncio.timeout(self._patience_s()):
            piece = await self._request.content.readany()
        self._waited_s += loop.time() - began_s
        return piece

    def _patience_s(self) -> float | None:
        """How long the next piece may take. Only time spent waiting for the client counts, not for upstream."""
        if not self._timeout_s:
            return None
        return max(0.0, min(self._timeout_s, self._timeout_s + self._received / BODY_RATE_MIN - self._waited_s))

    async def _invite(self) -> None:
        if self._invited:
            return
        self._invited = True
        if expects_continue(self._request):
            await self._request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._request.writer.output_size = 0  # an interim reply does not keep an error reply from being sent


def header_pairs(request: web.BaseRequest) -> Headers:
    """The request's headers in order and in the client's spelling; bytes that are not UTF-8 as surrogate escapes."""
    return tuple(
        (name.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape"))
        for name, value in request.raw_headers
    )


def expects_continue(request: web.BaseRequest) -> bool:
    """True when the client waits for `100 Continue` before it sends the body."""
    return request.version >= HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue"


def read_chunks(request: web.BaseRequest, settings: config.Server) -> AsyncIterator[bytes]:
    """The body as it comes, with the deadlines of `Body`."""
    return Body(request, settings).rest()


async def read_body(request: web.BaseRequest, bytes_max: int, settings: config.Server) -> Body:
    """The body, whole in `prefix` if it has at most `bytes_max` bytes (`complete`), else as far as it was read."""
    body = Body(request, settings)
    arrived = arrival(request)
    if arrived is not None and len(arrived.body) <= bytes_max:
        body.prefix, body.complete = arrived.body, True
    else:
        await body.fill(bytes_max)
    return body


def is_leaving(request: web.BaseRequest) -> bool:
    """True while the server drains: the connection ends with the reply to this request, which must say so."""
    return isinstance(request.protocol, _Connection) and request.protocol.leaving


def arrival(request: web.BaseRequest) -> Arrival | None:
    """The request as it came, if it may be repeated."""
    arrived = request.protocol.received if isinstance(request.protocol, _Connection) else None
    return arrived if arrived is not None and arrived.payload is request.content else None


class _Connection(KnownConnection):
    """One client connection. Adds to aiohttp's a deadline for heads and a way to leave after the present request."""

    __slots__ = ("_head_deadline", "_head_timeout_s", "_listener")

    def __init__(self, listener: _Listener, *, head_timeout_s: float, **kwargs: Any) -> None:
        super().__init__(listener, **kwargs)
        self._listener = listener
        self._head_timeout_s = head_timeout_s
        self._head_deadline: asyncio.TimerHandle | None = None

    @property
    def leaving(self) -> bool:
        """True while the server drains: each connection closes after the request it serves."""
        return self._listener.leaving

    @property
    def idle(self) -> bool:
        """True when no request is being served, read or waiting."""
        return not self._request_in_progress and not self._messages

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._head_done()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        count = self._request_count
        super().data_received(data)
        if self._request_count != count:
            self._head_done()
            self._break_body_nowait()
        elif data and self.idle:
            self._await_head()

    def _break_body_nowait(self) -> None:
        """Tell the handler when the body it reads turned to garbage.

        aiohttp queues a 400 for that, to be sent when the handler is done, and lets the handler wait for ever.
        """
        request = self._current_request
        refused = bool(self._messages) and not isinstance(self._messages[-1][0], RawRequestMessage)
        if refused and request is not None and not request.content.is_eof():
            request.content.set_exception(web.RequestPayloadError("malformed body"))
            request.content.feed_eof()  # nothing is left to linger for
            self.close()

    def _await_head(self) -> None:
        if self._head_timeout_s and self._head_deadline is None:
            self._head_deadline = self._loop.call_later(self._head_timeout_s, self.force_close)

    def _head_done(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None

    async def _handle_request(
        self, request: web.BaseRequest, start_time: float | None, request_handler: Handler
    ) -> tuple[web.StreamResponse, bool]:
        with self._listener.serving():
            outcome = await super()._handle_request(request, start_time, request_handler)
        if self.leaving:
            self.close()
        return outcome

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Say what Go's server says to a malformed request, and nothing about our insides to anyone."""
        if request.writer.output_size > 0:
            raise ConnectionError("a reply had begun when the handler failed")
        if status == 400:
            log.debug("malformed request refused: %s", message)
            reply = Plain(status=400, text="400 Bad Request")
        else:
            log.error("a handler failed", exc_info=exc)
            reply = error_reply(request.path, status, "cacheproxy failed on this request; its log says why")
        reply.force_close()
        return reply


class _Serving:
    """Counts requests in flight; `empty` is set while there are none."""

    __slots__ = ("count", "empty")

    def __init__(self) -> None:
        self.count = 0
        self.empty = asyncio.Event()
        self.empty.set()

    def __enter__(self) -> None:
        self.count += 1
        self.empty.clear()

    def __exit__(self, *_: object) -> None:
        self.count -= 1
        if not self.count:
            self.empty.set()


class _Listener(web.Server):
    """aiohttp's factory of connections, making ours."""

    def __init__(self, handler: Handler, *, head_timeout_s: float, known: Known | None, **kwargs: Any) -> None:
        super().__init__(handler, handler_cancellation=True, **kwargs)
        self._head_timeout_s = head_timeout_s
        self._known = known
        self._serving = _Serving()
        self.leaving = False

    def __call__(self) -> _Connection:
        return _Connection(
            self, loop=self._loop, head_timeout_s=self._head_timeout_s, known=self._known, **self._kwargs
        )

    def serving(self) -> _Serving:
        """Context of one request in flight."""
        return self._serving

    async def leave(self, timeout_s: float) -> None:
        """Close idle connections, wait for requests in flight, then cancel what is left."""
        self.leaving = True
        for connection in self._ours():
            connection.release()
        for _ in range(2):  # what was released is taken up, and then its handler begins: from there on it is waited for
            await asyncio.sleep(0)
        for connection in self._ours():
            if connection.idle:
                connection.force_close()
        try:
            async with asyncio.timeout(timeout_s):
                await self._serving.empty.wait()
        except TimeoutError:
            log.warning("%d requests were cut off after %g s of draining", self._serving.count, timeout_s)
        for connection in self._ours():
            if not connection.idle and connection.transport is not None:
                connection.transport.abort()
        try:
            async with asyncio.timeout(_CANCEL_S):
                await self._serving.empty.wait()
        except TimeoutError:
            log.warning("%d handlers did not end within %g s of being cancelled", self._serving.count, _CANCEL_S)

    def _ours(self) -> list[_Connection]:
        return [connection for connection in self.connections if isinstance(connection, _Connection)]


class Server:
    """One listening port. `listen`: HOST:PORT, port 0 lets the system choose.

    Every request goes to `handler`, but for those that `known` answers. With `path` it listens on a Unix socket there
    instead; with `reuse_port` other processes may listen beside it.
    """

    def __init__(
        self,
        handler: Handler,
        listen: str,
        settings: config.Server,
        *,
        known: Known | None = None,
        reuse_port: bool = False,
        path: Path | None = None,
    ) -> None:
        self._handler = handler
        self._host, self._port = config.split_listen(listen)
        self._settings = settings
        self._known = known
        self._reuse_port = reuse_port
        self._path = path
        self._listener: _Listener | None = None
        self._runner: web.ServerRunner | None = None
        self._site: web.TCPSite | web.UnixSite | None = None

    @property
    def port(self) -> int:
        """The port in use; before `open` the one asked for."""
        return self._site.port if isinstance(self._site, web.TCPSite) else self._port

    @property
    def host(self) -> str:
        """The address listened on, as configured."""
        return self._host

    async def open(self) -> None:
        """Listen. Raises OSError when the address cannot be had."""
        if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
            log.warning("aiohttp runs without its C parser: slower, and looser about malformed requests")
        self._listener = _Listener(
            self._guarded,
            head_timeout_s=self._settings.header_timeout,
            known=self._known,
            keepalive_timeout=self._settings.idle_timeout,
            access_log=None,
            max_line_size=HEAD_BYTES_MAX,
            max_field_size=HEAD_BYTES_MAX,
            read_bufsize=_READ_BYTES,
            lingering_time=_LINGER_S,
            auto_decompress=False,
        )
        self._runner = web.ServerRunner(self._listener)
        await self._runner.setup()
        if self._path is not None:
            self._site = web.UnixSite(self._runner, self._path, backlog=_BACKLOG)
        else:
            self._site = web.TCPSite(
                self._runner, self._host, self._port, backlog=_BACKLOG, reuse_port=self._reuse_port or None
            )
        await self._site.start()

    @property
    def in_flight(self) -> int:
        """Requests being served."""
        return self._listener.serving().count if self._listener is not None else 0

    async def wait_idle(self) -> None:
        """Wait until no request is under way; before `open`, return at once."""
        if self._listener is not None:
            await self._listener.serving().empty.wait()

    async def drain(self, timeout_s: float) -> None:
        """Stop accepting, let requests in flight end for up to `timeout_s`, cancel the rest. Idempotent."""
        if self._runner is None or self._listener is None or self._site is None:
            return
        runner, self._runner = self._runner, None
        await self._site.stop()
        await asyncio.sleep(0)  # what was accepted just now starts to be served before idle connections are closed
        await self._listener.leave(timeout_s)
        await runner.cleanup()

    async def close(self) -> None:
        """Stop at once."""
        await self.drain(0.0)

    async def _guarded(self, request: web.BaseRequest) -> web.StreamResponse:
        reply = _refusal(request)
        if reply is None:
            return await self._handler(request)
        reply.force_close()
        return reply


def _refusal(request: web.BaseRequest) -> Plain | None:
    """The answer to requests that only make sense to other kinds of proxy, or to attackers."""
    if request.method in {"CONNECT", "TRACE"}:
        return Plain(status=405, text="405 method not allowed")
    if not request.raw_path.startswith("/"):
        return Plain(status=400, text="400 Bad Request: the target must be a path")
    expect = request.headers.get("Expect")
    if expect is not None and expect.lower() != "100-continue":
        return Plain(status=417, text="417 Expectation Failed")
    return None
