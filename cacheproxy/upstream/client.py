"""Talk to Ollama: one request out, one reply back as bytes arrive, every failure as one of our own errors.

It stands on aiohttp's client protocol (its parser, flow control and read timeout) and not on `ClientSession`, because a
proxy must not do what a session does for applications: add headers, keep cookies, follow redirects, decode bodies,
rewrite the target, send a DELETE twice, or hand bytes that came on an idle connection to the next request
(aio-libs/aiohttp #13656). It refuses to know what a request means; the caller says whether it may be repeated.

Three rules keep one caller's bytes from another:

1. A connection that receives anything while nobody awaits a reply on it is aborted (`_Wire.data_received`).
2. A pooled connection with anything readable on its socket, data or FIN, is not used again (`_readable`).
3. A request that must not run twice never meets a connection that carried another. It gets one made for it: now, or,
   so that a miss does not wait for it, a moment ahead (the *spare*: one, silent, at most `SPARE_S` old).

A spare may be closed from the other side just as it is taken. If the system knows that none of the request's bytes was
taken there (`_acknowledged`), the request is sent on a new connection; else it may have been acted on, and is not.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import select
import socket
import ssl
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from aiohttp import ClientError, EofStream, SocketTimeoutError, StreamReader
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError, RawResponseMessage, StreamWriter

from cacheproxy import config
from cacheproxy.errors import (
    CallerError,
    ConfigError,
    UpstreamAwayError,
    UpstreamBrokenError,
    UpstreamDroppedError,
    UpstreamError,
    UpstreamStaleError,
    UpstreamUnreachableError,
)

VIA = "1.1 cacheproxy"
"""Our entry in `Via` (RFC 9110 section 7.6.3). Requests carry it with the instance's id as comment, see `loops`."""

HEAD_BYTES_MAX = 1024**2
"""Longest line and longest header field, bytes: what Go's server, and so Ollama, takes for a whole head."""

HEADER_FIELDS_MAX = 1000
_READ_BYTES = 64 * 1024
_BODY_SLICE_BYTES = 64 * 1024
_BYTES_ACKED = struct.Struct("120xQ")
"""Where `tcpi_bytes_acked` stands in Linux' `struct tcp_info` (since 4.1)."""
_IDLE_MAX = 64
_IDLE_S = 30.0
SPARE_S = 2.0
"""How long a connection made ahead waits for its request: until the next miss of a proxy that is at work, and less than
what stands before an Ollama allows a new connection to be silent (HAProxy's `timeout http-request`: some seconds).
"""
_JSON_BYTES_MAX = 16 * 1024**2
_JSON_HEADERS = (("Content-Type", "application/json"),)

_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "http2-settings", "host", "origin"}
)
# A client may not make the proxy drop these by naming them in Connection: the request Ollama acts on would no longer be
# the request whose credentials and framing were judged.
_NEVER_NAMED_AWAY = frozenset(
    {
        "authorization",
        "cache-control",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "via",
        "x-api-key",
    }
)
_SET_BY_US = frozenset({"accept-encoding", "content-length", "expect"})
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_DEFAULT_PORTS = {"http": 80, "https": 443}

Headers = tuple[tuple[str, str], ...]
_Protocol = TypeVar("_Protocol", bound=asyncio.Protocol)


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """What to send. Texts hold bytes that are not UTF-8 as surrogate escapes and go out as the bytes they came as."""

    method: str
    target: str
    """Raw path and query, exactly as the client sent them."""
    headers: Headers
    """The client's; what must not travel further is taken out when sending."""
    body: bytes | AsyncIterator[bytes] | None = None
    content_length: int | None = None
    """Bytes in a streamed body; None: it goes out chunked. Ignored for `bytes`."""
    expect_continue: bool = False
    """Do not touch the body before upstream asked for it (`Expect: 100-continue`)."""


def end_to_end(headers: Iterable[tuple[str, str]]) -> Headers:
    """The headers that may cross a proxy, order and case kept.

    Left out: the hop-by-hop ones, those named in `Connection` (except credentials and framing), all `Proxy-*`, and
    `Host` and `Origin`, which the proxy answers for itself.
    """
    headers = tuple(headers)
    named = {
        token.strip().lower() for name, value in headers if name.lower() == "connection" for token in value.split(",")
    }
    dropped = _HOP_BY_HOP | (named - _NEVER_NAMED_AWAY)
    return tuple(
        (name, value)
        for name, value in headers
        if (lower := name.lower()) not in dropped and not lower.startswith("proxy-")
    )


def loops(headers: Iterable[tuple[str, str]], instance_id: str) -> bool:
    """True when this very proxy forwarded the request before, that is, its upstream leads back to itself.

    Another cacheproxy in the chain has another id and is no loop.
    """
    mark = f"cacheproxy ({instance_id})"
    return any(name.lower() == "via" and mark in value for name, value in headers)


class _Wire(ResponseHandler):
    """One connection to upstream: aiohttp's protocol, deaf while nobody awaits a reply."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.expecting = False
        self.answered = False
        """True once a byte of the awaited reply has come."""
        self.idle_since_s = 0.0
        self.acknowledged_at_loss: int | None = None
        """As `_acknowledged`, when the connection was lost."""

    def begin(self, *, bodyless: bool, read_timeout_s: float | None) -> None:
        """Get ready for one reply; `bodyless` for HEAD."""
        self.expecting = True
        self.answered = False
        self.set_response_params(
            skip_payload=bodyless,
            read_until_eof=True,
            auto_decompress=False,
            read_timeout=read_timeout_s,
            read_bufsize=_READ_BYTES,
            max_line_size=HEAD_BYTES_MAX,
            max_field_size=HEAD_BYTES_MAX,
            max_headers=HEADER_FIELDS_MAX,
        )

    def data_received(self, data: bytes) -> None:
        if not self.expecting:
            self.abort()
            return
        if data:
            self.answered = True
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.acknowledged_at_loss = _acknowledged(self.transport)  # the socket is closed next
        # aiohttp ends a body without length cleanly at any loss of the connection; a reset is no end.
        if exc is not None:
            self._break_body(exc)
        super().connection_lost(exc)

    def set_exception(self, exc: BaseException, exc_cause: BaseException | None = None) -> None:
        # aiohttp tells only who awaits a head; who reads the body of a reply whose chunks turn to garbage would wait
        # for ever.
        super().set_exception(exc, exc_cause or exc)
        self._break_body(exc)

    def fail(self, error: BaseException) -> None:
        """End the exchange with `error`, for whoever awaits the reply or its body."""
        self.set_exception(error)
        if self.transport is not None:
            self.transport.abort()

    def _break_body(self, error: BaseException) -> None:
        if self._payload is not None and not self._payload.is_eof() and self._payload.exception() is None:
            self._payload.set_exception(error)


class UpstreamReply:
    """Upstream's answer: the head is there, the body comes as it arrives. Whoever holds one must `close` it."""

    __slots__ = ("_finish", "_payload", "headers", "reason", "source", "status")
    waited_s = 0.0

    def __init__(self, message: RawResponseMessage, payload: StreamReader, finish: Callable[[bool], None]) -> None:
        self.status: int = message.code
        self.reason: str = message.reason
        self.headers: Headers = end_to_end(_decoded(message.raw_headers))
        """End-to-end headers, order and case as upstream wrote them; `Content-Length` is among them when it came."""
        self.source = ""
        """Name of the Ollama it came from; whoever knows several of them says so."""
        self._payload = payload
        self._finish = finish

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, never decoded. Raises UpstreamBrokenError unless it ends as HTTP says it must.

        What came before the break is handed out first.
        """
        try:
            while piece := await self._payload.readany():
                yield piece
        except (ClientError, HttpProcessingError, OSError) as error:
            if rest := self._payload._read_nowait(-1):  # the public reads raise before they give what had come
                yield rest
            self._finish(False)
            raise UpstreamBrokenError(f"Ollama's reply broke off ({_told(error)})") from error
        self._finish(True)

    async def read(self, bytes_max: int) -> bytes:
        """The whole body. Raises UpstreamBrokenError also when it is longer than `bytes_max`."""
        parts: list[bytes] = []
        size = 0
        async for piece in self.chunks():
            size += len(piece)
            if size > bytes_max:
                self._finish(False)
                raise UpstreamBrokenError(f"Ollama's reply is longer than {bytes_max} bytes")
            parts.append(piece)
        return b"".join(parts)

    async def close(self) -> None:
        """Be done with the reply. A body not read to its end costs the connection, which stops Ollama's work."""
        self._finish(self._payload.at_eof() and self._payload.exception() is None)


class UpstreamClient:
    """Connections to one upstream. `settings.url` may carry a path prefix; anything unusable in it is a ConfigError.

    `setting`: the key that the URL comes from, for that error.
    """

    def __init__(self, settings: config.Upstream, *, instance_id: str = "", setting: str = "upstream.url") -> None:
        self._settings = settings
        self._scheme, self._host, self._port, self._prefix = _split_url(settings.url, setting)
        bracketed = f"[{self._host}]" if ":" in self._host else self._host
        self._authority = bracketed if self._port == _DEFAULT_PORTS[self._scheme] else f"{bracketed}:{self._port}"
        self.name = f"{bracketed}:{self._port}{self._prefix}"
        """The upstream in logs, metrics and `/stats`."""
        self.instance_id = instance_id or secrets.token_hex(8)
        """Marks our requests; workers of one listener share it, or a loop through another worker goes unseen."""
        self._tls: ssl.SSLContext | None = None
        self._idle: deque[_Wire] = deque()
        self._busy: set[_Wire] = set()
        self._spare: _Wire | None = None
        self._spare_ends: asyncio.TimerHandle | None = None
        self._sparing: asyncio.Task[None] | None = None
        self._closed = False

    async def open(self) -> None:
        """Load certificates where TLS is spoken. Connects to nothing: Ollama may be started later."""
        if self._scheme == "https":
            self._tls = ssl.create_default_context()

    async def close(self) -> None:
        """Abort every connection; replies still being read end with UpstreamBrokenError."""
        self._closed = True
        if self._sparing is not None:
            self._sparing.cancel()
        self._drop_spare()
        for wire in self._busy:
            wire.fail(ConnectionResetError("the client was closed"))
        while self._idle:
            self._idle.pop().abort()

    async def send(self, request: UpstreamRequest, *, safe_to_repeat: bool) -> UpstreamReply:
        """Send and await the head of the reply.

        `safe_to_repeat`: the request may run twice. Then it may use a pooled connection, and is sent once more on a
        fresh one if the first was lost before any byte of a reply; a streamed body rules both out.
        Raises UpstreamAwayError (no connection), UpstreamStaleError (lost, after it had been idle),
        UpstreamUnreachableError (no byte came), UpstreamBrokenError (what came is not HTTP), and whatever the body's
        iterator raises.
        """
        head = self._head(request)
        if not safe_to_repeat or not (request.body is None or isinstance(request.body, bytes)):
            return await self._send_once(head, request)
        wire = self._take_idle()
        try:
            return await self._exchange(await self._connect() if wire is None else wire, head, request)
        except UpstreamDroppedError:
            return await self._exchange(await self._connect(), head, request)

    async def _send_once(self, head: bytes, request: UpstreamRequest) -> UpstreamReply:
        """Over the spare, or a new connection if there is none or if nobody took a byte of what it was given."""
        wire = self._take_spare()
        if wire is None:
            return await self._exchange(await self._connect(), head, request, spare=True)
        before = _acknowledged(wire.transport)
        try:
            return await self._exchange(wire, head, request, spare=True)
        except UpstreamDroppedError as error:
            held = request.body is None or isinstance(request.body, bytes)
            if not held or before is None or wire.acknowledged_at_loss != before:
                raise UpstreamStaleError(str(error)) from error
        return await self._exchange(await self._connect(), head, request, spare=True)

    async def get_json(self, target: str, *, timeout_s: float, body: Any = None) -> Any:
        """The JSON under `target` (`/api/tags`), or what a POST of `body` gives.

        Raises UpstreamError, also for another status than 200.
        """
        if body is None:
            request = UpstreamRequest("GET", target, ())
        else:
            request = UpstreamRequest("POST", target, _JSON_HEADERS, json.dumps(body).encode())
        try:
            async with asyncio.timeout(timeout_s):
                reply = await self.send(request, safe_to_repeat=True)
                try:
                    body = await reply.read(_JSON_BYTES_MAX)
                finally:
                    await reply.close()
        except TimeoutError as error:
            raise UpstreamUnreachableError(f"{request.method} {target}: no answer in {timeout_s:g} s") from error
        if reply.status != 200:
            raise UpstreamBrokenError(f"{request.method} {target}: status {reply.status}")
        try:
            return json.loads(body)
        except ValueError as error:
            raise UpstreamBrokenError(f"{request.method} {target}: the answer is not JSON") from error

    def _take_idle(self) -> _Wire | None:
        """The most recently used pooled connection that is still silent and open."""
        now_s = asyncio.get_running_loop().time()
        while self._idle:
            wire = self._idle.pop()
            if wire.is_connected() and now_s - wire.idle_since_s < _IDLE_S and not _readable(wire.transport):
                return wire
            wire.abort()
        return None

    def _take_spare(self) -> _Wire | None:
        """The connection made ahead, if there is one and it is still silent and open."""
        wire, self._spare = self._spare, None
        if self._spare_ends is not None:
            self._spare_ends.cancel()
        if wire is None or (wire.is_connected() and not _readable(wire.transport)):
            return wire
        wire.abort()
        return None

    def _spare_nowait(self) -> None:
        """Begin to make a spare, unless there is one or one is being made."""
        if not self._closed and self._spare is None and self._sparing is None:
            self._sparing = asyncio.get_running_loop().create_task(self._make_spare())

    async def _make_spare(self) -> None:
        try:
            self._spare = await self._connect()
            self._spare_ends = asyncio.get_running_loop().call_later(SPARE_S, self._drop_spare)
        except UpstreamUnreachableError:
            pass  # the next request will say so
        finally:
            self._sparing = None

    def _drop_spare(self) -> None:
        if (wire := self._take_spare()) is not None:
            wire.abort()

    async def _connect(self) -> _Wire:
        loop = asyncio.get_running_loop()
        timeout_s = self._settings.connect_timeout
        if self._closed:
            raise UpstreamUnreachableError("the proxy is stopping")
        try:
            async with asyncio.timeout(timeout_s or None):
                return await self._dial(lambda: _Wire(loop))
        except TimeoutError as error:
            raise UpstreamAwayError(_unreachable(f"no connection in {timeout_s:g} s")) from error
        except OSError as error:
            raise UpstreamAwayError(_unreachable(_told(error))) from error

    async def _dial(self, protocol: Callable[[], _Protocol]) -> _Protocol:
        """A new connection. Raises OSError."""
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_connection(protocol, self._host, self._port, ssl=self._tls)
        return wire

    async def _exchange(
        self, wire: _Wire, head: bytes, request: UpstreamRequest, *, spare: bool = False
    ) -> UpstreamReply:
        """Send over `wire` and await the head. `spare`: once the reply is over, make a connection for the next one."""
        go = asyncio.Event() if request.expect_continue else None
        self._busy.add(wire)
        upload: asyncio.Task[None] | None = None
        try:
            wire.begin(bodyless=request.method == "HEAD", read_timeout_s=self._settings.read_timeout or None)
            upload = _write(wire, head, request, go)
            message, payload = await _final_head(wire, go)
        except BaseException as error:
            self._release(wire, upload, reusable=False)
            if (ours := _translated(error, answered=wire.answered)) is error:
                raise
            raise ours from error
        finished = False

        def finish(clean: bool) -> None:
            nonlocal finished
            if not finished:
                finished = True
                self._release(wire, upload, reusable=clean)
                if spare and clean:
                    self._spare_nowait()

        return UpstreamReply(message, payload, finish)

    def _release(self, wire: _Wire, upload: asyncio.Task[None] | None, *, reusable: bool) -> None:
        self._busy.discard(wire)
        if upload is not None and not upload.done():
            # Upstream answered before it had the whole body; the rest of it has nowhere to go.
            upload.cancel()
            reusable = False
        wire.expecting = False
        if not reusable or self._closed or wire.should_close or not wire.is_connected():
            wire.fail(ConnectionAbortedError("the reply was closed before its end"))
            return
        wire.idle_since_s = asyncio.get_running_loop().time()
        self._idle.append(wire)
        while len(self._idle) > _IDLE_MAX or wire.idle_since_s - self._idle[0].idle_since_s > _IDLE_S:
            self._idle.popleft().abort()

    def _head(self, request: UpstreamRequest) -> bytes:
        """Request line and headers: the client's end-to-end ones, and no others than `Host`, `Via` and framing."""
        lines = [f"{request.method} {self._prefix}{request.target} HTTP/1.1", f"Host: {self._authority}"]
        lines += [f"{name}: {value}" for name, value in end_to_end(request.headers) if name.lower() not in _SET_BY_US]
        lines += ["Accept-Encoding: identity", f"Via: {VIA} ({self.instance_id})", *framing(request)]
        if " " in request.target or any(_FORBIDDEN.search(line) for line in lines):
            raise CallerError("the request's head holds a character that HTTP forbids there")
        return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")


def framing(request: UpstreamRequest) -> list[str]:
    """The lines of a request's head that say where its body ends."""
    expect = ["Expect: 100-continue"] if request.expect_continue else []
    if request.body is None:
        return ["Content-Length: 0"] if request.method in {"POST", "PUT", "PATCH"} else []
    if isinstance(request.body, bytes):
        return [f"Content-Length: {len(request.body)}", *expect]
    if request.content_length is not None:
        return [f"Content-Length: {request.content_length}", *expect]
    return ["Transfer-Encoding: chunked", *expect]


def _write(wire: _Wire, head: bytes, request: UpstreamRequest, go: asyncio.Event | None) -> asyncio.Task[None] | None:
    """Write the request; returns the task that sends the body where that can take time."""
    body = request.body
    if wire.transport is None:
        raise ConnectionResetError("the connection was lost before the request was written")
    if go is None and (body is None or (isinstance(body, bytes) and len(body) <= _BODY_SLICE_BYTES)):
        wire.transport.write(head + (body or b""))
        wire.start_timeout()
        return None
    wire.transport.write(head)
    return asyncio.get_running_loop().create_task(_upload(wire, request, go))


async def _upload(wire: _Wire, request: UpstreamRequest, go: asyncio.Event | None) -> None:
    """Send the body as fast as upstream takes it. What the body's iterator raises ends the whole exchange."""
    body = request.body
    writer = StreamWriter(wire, asyncio.get_running_loop())
    length = len(body) if isinstance(body, bytes) else request.content_length
    if length is None:
        writer.enable_chunking()
    sent = 0
    try:
        if go is not None:
            await go.wait()
        async for piece in _slices(body) if body is None or isinstance(body, bytes) else body:
            sent += len(piece)
            await writer.write(piece)
        _check_length(sent, length)
        await writer.write_eof()
        wire.start_timeout()
    except ConnectionError:
        return  # Upstream takes no more: its answer, or the loss of the connection, reaches whoever awaits the reply.
    except Exception as error:  # noqa: BLE001 - the iterator is the caller's; its error belongs to whoever awaits
        wire.fail(error)


def _check_length(sent: int, length: int | None) -> None:
    if length is not None and sent != length:
        raise CallerError(f"the request's body has {sent} bytes, its Content-Length says {length}")


async def _slices(body: bytes | None) -> AsyncIterator[bytes]:
    whole = body or b""
    for start in range(0, len(whole), _BODY_SLICE_BYTES):
        yield whole[start : start + _BODY_SLICE_BYTES]


async def _final_head(wire: _Wire, go: asyncio.Event | None) -> tuple[RawResponseMessage, StreamReader]:
    """The reply's head; interim ones (1xx) are passed over, the first lets the body go."""
    while True:
        message, payload = await wire.read()
        if message.code >= 200:
            return message, payload
        if message.code == 101:
            raise UpstreamBrokenError("Ollama switched protocols, which nobody asked for")
        if go is not None:
            go.set()


def _translated(error: BaseException, *, answered: bool) -> BaseException:
    """The error of ours that stands for `error`; cancellation and the caller's own errors stay what they are."""
    if isinstance(error, UpstreamError):
        return error
    if isinstance(error, HttpProcessingError):
        return UpstreamBrokenError("Ollama's reply is not HTTP")
    if not isinstance(error, (ClientError, EofStream, OSError)):
        return error
    if answered:
        return UpstreamBrokenError(f"Ollama's reply broke off in its head ({_told(error)})")
    if isinstance(error, SocketTimeoutError):
        return UpstreamUnreachableError("Ollama gave no answer within upstream.read_timeout")
    return UpstreamDroppedError(f"Ollama closed the connection without an answer ({_told(error)}); its log may say why")


def _unreachable(reason: str) -> str:
    return f"cannot reach Ollama ({reason}); check that it runs and that upstream.url is its address"


def _told(error: BaseException) -> str:
    """A reason that may be shown to a client: an OSError's kind in words, since its text holds upstream's address."""
    if isinstance(error, socket.gaierror):
        return "host name not found"
    if isinstance(error, ssl.SSLCertVerificationError):
        return "its certificate is not trusted"
    if isinstance(error, ssl.SSLError):
        return "TLS failed"
    if isinstance(error, OSError):
        # asyncio joins the failures of several addresses in one text, without a number of its own.
        numbered = re.search(r"\[Errno (\d+)\]", str(error))
        number = error.errno or (int(numbered[1]) if numbered else 0)
        if number > 0:
            return os.strerror(number).lower()
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__.removesuffix("Error")).lower()


def _decoded(raw: Iterable[tuple[bytes, bytes]]) -> Headers:
    return tuple(
        (name.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")) for name, value in raw
    )


def _acknowledged(transport: asyncio.Transport | None) -> int | None:
    """Bytes of this connection that the other side's system has taken; None where ours does not tell (Linux does).

    A closed socket takes none: what is sent there is answered with a reset.
    """
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None or not hasattr(socket, "TCP_INFO"):
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.size)
        acknowledged: int = _BYTES_ACKED.unpack(info)[0]
    except (OSError, ValueError, struct.error):
        return None
    return acknowledged


def _readable(transport: asyncio.Transport | None) -> bool:
    """True when the socket holds something nobody asked for, or its end, that the event loop has not seen yet."""
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None:
        return True
    poller = select.poll()
    poller.register(sock.fileno(), select.POLLIN)
    return bool(poller.poll(0))


def _split_url(url: str, setting: str) -> tuple[str, str, int, str]:
    """Scheme, host, port and path prefix of a URL in the config. Raises ConfigError."""
    hint = 'expected for example "http://127.0.0.1:11434"'
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f'{setting} = "{url}": {error}; {hint}') from error
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"{setting} holds a user or password; clients send their own Authorization header instead")
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError(f'{setting} = "{url}": {hint}')
    if _FORBIDDEN.search(url) or " " in url:
        raise ConfigError(f"{setting} = {url!r}: holds a space or control character; {hint}")
    return parts.scheme, parts.hostname, port or _DEFAULT_PORTS[parts.scheme], parts.path.rstrip("/")
