"""HTTP/1.1 bytes for the simulated Ollama, as Go's net/http puts them on the wire.

One `Connection` serves one TCP connection on a bare asyncio protocol: order of header fields, Content-Length for
bodies that fit Go's 2048-byte buffer and chunks above, one chunk per flush, `100 Continue` only when a handler reads
the body, and the handler is cancelled as soon as the client closes its side, even half.
It knows no routes and no JSON; `cacheproxy.demo.ollama` does.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from operator import itemgetter
from typing import NoReturn
from urllib.parse import unquote_to_bytes

HEAD_BYTES_MAX = 1 << 20
"""Go's http.DefaultMaxHeaderBytes: a longer head is answered with 431."""

WHOLE_BODY_BYTES_MAX = 2048
"""A body of one write up to this size gets a Content-Length; Go chunks longer ones (net/http server.go)."""

UNREAD_BODY_BYTES_MAX = 256 << 10
"""How much of a body nobody read Go swallows to keep the connection (net/http server.go)."""

_RESET_AVOIDANCE_S = 0.5  # how long Go goes on reading before it closes over unread bytes (net/http server.go)
_BUFFER_BYTES_MAX = 256 << 10
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")

Headers = list[tuple[str, str]]


class BadRequestError(Exception):
    """The bytes are no HTTP that Go would take: answer `status` in plain text and close."""

    def __init__(self, status: int, detail: str = "") -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


@dataclass(slots=True)
class Request:
    """One request as it came: names and target are raw, `body` is empty until a handler read it."""

    method: str
    target: str
    minor: int
    """Minor version: 0 for HTTP/1.0, 1 for HTTP/1.1."""
    headers: Headers
    body: bytes = b""
    path: str = field(init=False)
    """Percent-decoded path without query."""
    query: str = field(init=False)

    def __post_init__(self) -> None:
        target = self.target
        if "://" in target.partition("?")[0] and not target.startswith("/"):
            target = "/" + target.partition("://")[2].partition("/")[2]
        path, _, self.query = target.partition("?")
        if "%" in path:
            if _BAD_ESCAPE.search(path):
                raise BadRequestError(400)
            path = unquote_to_bytes(path).decode("utf-8", "surrogateescape")
        self.path = path

    def header(self, name: str) -> str:
        """Return the first value of a header, case-insensitively, or an empty string."""
        wanted = name.lower()
        for key, value in self.headers:
            if key.lower() == wanted:
                return value
        return ""


def parse_head(head: bytes) -> Request:
    """Read a request line and its fields (without the empty line); raises BadRequestError as Go would answer."""
    request_line, *lines = head.decode("latin-1").split("\r\n")
    parts = request_line.split(" ")
    if len(parts) != 3 or not _TOKEN.match(parts[0]) or not parts[1]:
        raise BadRequestError(400)
    if parts[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise BadRequestError(505 if parts[2].startswith("HTTP/") else 400)
    headers: Headers = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.match(name):
            raise BadRequestError(400)
        headers.append((name, value.strip(" \t")))
    request = Request(parts[0], parts[1], int(parts[2][-1]), headers)
    hosts = sum(name.lower() == "host" for name, _ in headers)
    if hosts == 0 and request.minor:
        raise BadRequestError(400, ": missing required Host header")
    if hosts > 1:
        raise BadRequestError(400, ": too many Host headers")
    return request


def _body_length(request: Request) -> int | None:
    """Return the announced length of the body, None for a chunked one."""
    encodings = [value for name, value in request.headers if name.lower() == "transfer-encoding"]
    if encodings:
        if encodings != ["chunked"]:
            raise BadRequestError(501, ": unsupported transfer encoding")
        return None
    lengths = {value for name, value in request.headers if name.lower() == "content-length"}
    if not lengths:
        return 0
    if len(lengths) > 1 or not (length := lengths.pop()).isdecimal() or not length.isascii():
        raise BadRequestError(400, ": bad Content-Length")
    return int(length)


_date_cache = (0, "")


def http_date() -> str:
    """Return the current time as a Date header carries it."""
    global _date_cache  # noqa: PLW0603  # one text a second, shared by all connections
    now = int(time.time())
    if _date_cache[0] != now:
        _date_cache = (now, formatdate(now, usegmt=True))
    return _date_cache[1]


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"status code {status}"


class Exchange:
    """One request and the means to answer it. Handlers get it, answer once, and return.

    `send` puts bytes on the wire as they are; `headers` are added to every head (CORS).
    """

    __slots__ = ("_chunked", "close", "connection", "headers", "is_head", "remaining", "request", "send", "started")

    def __init__(self, request: Request, connection: Connection) -> None:
        self.request = request
        self.connection = connection
        self.send: Callable[[bytes], None] = connection.transport.write
        self.headers: Headers = []
        self.started = False
        self.is_head = request.method == "HEAD"
        self.remaining = _body_length(request)
        connections = request.header("connection").lower()
        self.close = "close" in connections or (not request.minor and "keep-alive" not in connections)
        self._chunked = False

    # --- reading ---

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes, after asking for it with `100 Continue` if the client waits for that."""
        if self.remaining != 0 and self.request.header("expect").lower() == "100-continue":
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        async for piece in self.unread():
            yield piece
        self.connection.body_taken()

    async def unread(self) -> AsyncIterator[bytes]:
        """Yield what is left of the body without asking for it."""
        if self.remaining is None:
            async for piece in self._chunks():
                yield piece
            self.remaining = 0
            return
        while self.remaining:
            piece = await self.connection.take(self.remaining)
            self.remaining -= len(piece)
            yield piece

    async def _chunks(self) -> AsyncIterator[bytes]:
        connection = self.connection
        while True:
            size_text = (await connection.take_line()).partition(b";")[0].strip()
            try:
                size = int(size_text, 16) if size_text.isalnum() else -1
            except ValueError:
                size = -1
            if size < 0:
                raise BadRequestError(400)
            if size == 0:
                while await connection.take_line():
                    pass
                return
            while size:
                piece = await connection.take(size)
                size -= len(piece)
                yield piece
            if await connection.take_line():
                raise BadRequestError(400)

    async def body(self) -> bytes:
        """Return the whole body (no limit: Ollama has none)."""
        if self.remaining != 0 or not self.request.body:
            self.request.body = b"".join([piece async for piece in self.pieces()])
        return self.request.body

    # --- writing ---

    def _head(self, status: int, content_type: str, extra: Headers, framing: Headers) -> bytes:
        fields = [*self.headers, *extra, *([("Content-Type", content_type)] if content_type else [])]
        fields.sort(key=itemgetter(0))  # by name, as Go does; several values of one name keep their order
        fields += [("Date", http_date()), *framing]
        version = f"HTTP/1.{self.request.minor}"
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
        return f"{version} {status} {_reason(status)}\r\n{lines}\r\n".encode("latin-1")

    def _ending(self) -> Headers:
        if self.remaining is not None and self.remaining > UNREAD_BODY_BYTES_MAX:
            self.close = True
        if self.remaining != 0 and self.request.header("expect"):
            self.close = True
        if not self.request.minor:
            return [] if self.close else [("Connection", "keep-alive")]
        return [("Connection", "close")] if self.close else []

    def answer(self, status: int, content_type: str = "", body: bytes = b"", *, extra: Headers | None = None) -> None:
        """Answer with one body, framed as Go frames a single write."""
        if len(body) > WHOLE_BODY_BYTES_MAX:
            self.begin(status, content_type, extra=extra)
            self.chunk(body)
            self.end()
            return
        self.started = True
        bodiless = status in (204, 304)
        length = [] if bodiless else [("Content-Length", str(len(body)))]
        head = self._head(status, content_type, extra or [], [*length, *self._ending()])
        self.send(head if self.is_head or bodiless else head + body)

    def begin(self, status: int, content_type: str, *, extra: Headers | None = None) -> None:
        """Send the head of an answer whose end is not known yet."""
        self.started = True
        self._chunked = bool(self.request.minor)
        if not self._chunked:
            self.close = True
        framing = [("Transfer-Encoding", "chunked")] if self._chunked and not self.is_head else []
        self.send(self._head(status, content_type, extra or [], [*self._ending(), *framing]))

    def chunk(self, data: bytes) -> None:
        """Send one HTTP chunk (or bare bytes to an HTTP/1.0 client)."""
        if not self.is_head:
            self.send(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def end(self) -> None:
        """End a chunked answer."""
        if self._chunked and not self.is_head:
            self.send(b"0\r\n\r\n")

    async def drain(self) -> None:
        """Wait until the client has taken enough of what was sent."""
        await self.connection.drain()

    def abort(self) -> NoReturn:
        """Drop the TCP connection with a reset, as a crashed server does; does not return."""
        self.connection.transport.abort()
        raise ConnectionAbortedError


Handler = Callable[[Exchange], Awaitable[None]]


class Connection(asyncio.Protocol):
    """One TCP connection: requests in order, each answered by `handle` before the next is looked at."""

    transport: asyncio.Transport

    def __init__(self, handle: Handler, live: set[Connection], abandoned: Callable[[Exchange], None]) -> None:
        self._handle = handle
        self._live = live
        self._abandoned = abandoned
        self._buffer = bytearray()
        self._wake: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._ended = False
        self._busy: Exchange | None = None
        self._gone = False
        self.task: asyncio.Task[None] | None = None

    # --- asyncio's calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start serving."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # narrows the type; TCP servers give no other
        self.transport = transport
        self._live.add(self)
        self.task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        """Keep bytes for whoever reads; stop reading from the socket when nobody does."""
        self._buffer += data
        if len(self._buffer) > _BUFFER_BYTES_MAX + HEAD_BYTES_MAX:
            self.transport.pause_reading()
        self._rouse()

    def eof_received(self) -> bool:
        """Treat a closed client side, half-closed too, as the end of its interest: that is what Go does."""
        self._ended = True
        if self._busy is not None and not self._buffer:
            self._leave()
        self._rouse()
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """Cancel a handler still at work."""
        self._ended = True
        self._leave()
        self._rouse()
        self.resume_writing()

    def pause_writing(self) -> None:
        """Make `drain` wait."""
        if self._writable is None:
            self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """Let `drain` go on."""
        if self._writable is not None:
            if not self._writable.done():
                self._writable.set_result(None)
            self._writable = None

    # --- reading ---

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _more(self) -> None:
        """Wait for more bytes; raises ConnectionError at the end of the client's side."""
        if self._ended:
            raise ConnectionResetError
        self._wake = asyncio.get_running_loop().create_future()
        self.transport.resume_reading()
        await self._wake
        self._wake = None

    async def take(self, at_most: int) -> bytes:
        """Return 1..at_most bytes."""
        while not self._buffer:
            await self._more()
        piece = bytes(self._buffer[:at_most])
        del self._buffer[:at_most]
        return piece

    async def take_line(self) -> bytes:
        """Return a line without its CRLF."""
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > HEAD_BYTES_MAX:
                raise BadRequestError(400)
            await self._more()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    async def _take_head(self) -> bytes | None:
        searched = 0
        while (end := self._buffer.find(b"\r\n\r\n", searched)) < 0:
            searched = max(0, len(self._buffer) - 3)
            if len(self._buffer) > HEAD_BYTES_MAX:
                raise BadRequestError(431)
            if self._ended:
                return None
            await self._more()
        head = bytes(self._buffer[:end])
        del self._buffer[: end + 4]
        if len(head) > HEAD_BYTES_MAX:
            raise BadRequestError(431)
        return head

    # --- serving ---

    def _leave(self) -> None:
        """The client is gone: stop the work done for it."""
        self._gone = True
        if self._busy is not None and self.task is not None:
            self.task.cancel()

    def body_taken(self) -> None:
        """Notice a client that closed its side together with its request; pipelined bytes hide that from Go too."""
        if self._ended and not self._buffer:
            self._leave()

    async def drain(self) -> None:
        """Wait while the socket's send buffer is full."""
        if self._writable is not None:
            await self._writable

    async def _serve(self) -> None:
        try:
            while (head := await self._take_head()) is not None:
                exchange = Exchange(parse_head(head), self)
                await self._serve_one(exchange)
                if exchange.close:
                    break
        except BadRequestError as refusal:
            text = f"{refusal.status} {_reason(refusal.status)}{refusal.detail}"
            head_text = f"HTTP/1.1 {text}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
            self.transport.write(f"{head_text}{text}".encode())
        except ConnectionError:
            pass
        finally:
            self._live.discard(self)
            self.transport.close()

    async def _serve_one(self, exchange: Exchange) -> None:
        self._busy = exchange
        try:
            await self._handle(exchange)
            if exchange.remaining != 0:
                await self._swallow(exchange)
        except asyncio.CancelledError:
            if not self._gone:
                raise
            exchange.close = True
            self._abandoned(exchange)
        finally:
            self._busy = None

    async def _swallow(self, exchange: Exchange) -> None:
        """Take what is left of a body nobody read: to keep the connection, or so that closing it resets nothing."""
        left = UNREAD_BODY_BYTES_MAX
        try:
            async with asyncio.timeout(_RESET_AVOIDANCE_S if exchange.close else None):
                async for piece in exchange.unread():
                    left -= len(piece)
                    if left < 0:
                        break
        except TimeoutError:
            pass
        exchange.close = exchange.close or exchange.remaining != 0
