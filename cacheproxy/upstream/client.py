"""Talk to Ollama: one request out, one reply back as bytes arrive, every failure as one of our own errors.

It stands on aiohttp's client protocol (its parser, flow control and read timeout) and not on `ClientSession`, because a
proxy must not do what a session does for applications: add headers, keep cookies, follow redirects, decode bodies,
rewrite the target, send a DELETE twice, or hand bytes that came on an idle connection to the next request
(aio-libs/aiohttp #13656). It refuses to know what a request means; the caller says whether it may be repeated.

Three rules keep one caller's bytes from another:

1. A connection that receives anything while nobody awaits a reply on it is aborted (`connection.py`).
2. A pooled connection with anything readable on its socket, data or FIN, is not used again (`pool.py`).
3. A request that must not run twice never meets a connection that carried another. It gets one made for it: now, or,
   so that a miss does not wait for it, a moment ahead (the *spare*, see `pool.py`).

A spare may be closed from the other side just as it is taken. If the system knows that none of the request's bytes was
taken there (`Wire.acknowledged`), the request is sent on a new connection; else it may have been acted on, and is not.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from aiohttp import StreamReader
from aiohttp.http import RawResponseMessage, StreamWriter

from cacheproxy import config
from cacheproxy.errors import (
    CallerError,
    UpstreamAwayError,
    UpstreamBrokenError,
    UpstreamDroppedError,
    UpstreamStaleError,
    UpstreamUnreachableError,
)
from cacheproxy.upstream.address import Address
from cacheproxy.upstream.connection import Wire
from cacheproxy.upstream.pool import Pool
from cacheproxy.upstream.reply import UpstreamReply
from cacheproxy.upstream.request import UpstreamRequest, written_head
from cacheproxy.upstream.trouble import told, translated, unreachable

_BODY_SLICE_BYTES = 64 * 1024
_JSON_BYTES_MAX = 16 * 1024**2
_JSON_HEADERS = (("Content-Type", "application/json"),)

_Protocol = TypeVar("_Protocol", bound=asyncio.Protocol)


class UpstreamClient:
    """Connections to one upstream. `settings.url` may carry a path prefix; anything unusable in it is a ConfigError.

    `setting`: the key that the URL comes from, for that error.
    """

    def __init__(self, settings: config.Upstream, *, instance_id: str = "", setting: str = "upstream.url") -> None:
        self._settings = settings
        self._address = address = Address.of(settings.url, setting)
        self._authority = address.authority
        self.name = address.name
        """The upstream in logs, metrics and `/stats`."""
        self.instance_id = instance_id or secrets.token_hex(8)
        """Marks our requests; workers of one listener share it, or a loop through another worker goes unseen."""
        self._tls: ssl.SSLContext | None = None
        self._busy: set[Wire] = set()
        self._pool = Pool(self._connect)

    async def open(self) -> None:
        """Load certificates where TLS is spoken. Connects to nothing: Ollama may be started later."""
        if self._address.scheme == "https":
            self._tls = ssl.create_default_context()

    async def close(self) -> None:
        """Abort every connection; replies still being read end with UpstreamBrokenError."""
        self._pool.close()
        for wire in self._busy:
            wire.fail(ConnectionResetError("the client was closed"))

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
        wire = self._pool.take_idle()
        try:
            return await self._exchange(await self._connect() if wire is None else wire, head, request)
        except UpstreamDroppedError:
            return await self._exchange(await self._connect(), head, request)

    async def _send_once(self, head: bytes, request: UpstreamRequest) -> UpstreamReply:
        """Over the spare, or a new connection if there is none or if nobody took a byte of what it was given."""
        wire = self._pool.take_spare()
        if wire is None:
            return await self._exchange(await self._connect(), head, request, spare=True)
        before = wire.acknowledged()
        try:
            return await self._exchange(wire, head, request, spare=True)
        except UpstreamDroppedError as error:
            held = request.body is None or isinstance(request.body, bytes)
            if not held or before is None or wire.acknowledged_at_loss != before:
                raise UpstreamStaleError(str(error)) from error
        return await self._exchange(await self._connect(), head, request, spare=True)

    async def get_json(self, target: str, *, timeout_s: float, body: Any = None) -> Any:
        """The JSON under `target` (`/api/tags`), or what a POST of `body` gives, which may be sent twice.

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
                    told = await reply.read(_JSON_BYTES_MAX)
                finally:
                    await reply.close()
        except TimeoutError as error:
            raise UpstreamUnreachableError(f"{request.method} {target}: no answer in {timeout_s:g} s") from error
        if reply.status != 200:
            raise UpstreamBrokenError(f"{request.method} {target}: status {reply.status}")
        try:
            return json.loads(told)
        except ValueError as error:
            raise UpstreamBrokenError(f"{request.method} {target}: the answer is not JSON") from error

    async def _connect(self) -> Wire:
        loop = asyncio.get_running_loop()
        timeout_s = self._settings.connect_timeout
        if self._pool.closed:
            raise UpstreamUnreachableError("the proxy is stopping")
        try:
            async with asyncio.timeout(timeout_s or None):
                return await self._dial(lambda: Wire(loop))
        except TimeoutError as error:
            raise UpstreamAwayError(unreachable(f"no connection in {timeout_s:g} s")) from error
        except OSError as error:
            raise UpstreamAwayError(unreachable(told(error))) from error

    async def _dial(self, protocol: Callable[[], _Protocol]) -> _Protocol:
        """A new connection. Raises OSError."""
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_connection(protocol, self._address.host, self._address.port, ssl=self._tls)
        return wire

    async def _exchange(
        self, wire: Wire, head: bytes, request: UpstreamRequest, *, spare: bool = False
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
            if (ours := translated(error, answered=wire.answered)) is error:
                raise
            raise ours from error
        finished = False

        def finish(clean: bool) -> None:
            nonlocal finished
            if not finished:
                finished = True
                self._release(wire, upload, reusable=clean)
                if spare and clean:
                    self._pool.spare_nowait()

        return UpstreamReply(message, payload, finish)

    def _release(self, wire: Wire, upload: asyncio.Task[None] | None, *, reusable: bool) -> None:
        self._busy.discard(wire)
        if upload is not None and not upload.done():
            # Upstream answered before it had the whole body; the rest of it has nowhere to go.
            upload.cancel()
            reusable = False
        wire.expecting = False
        if not reusable or self._pool.closed or wire.should_close or not wire.is_connected():
            wire.fail(ConnectionAbortedError("the reply was closed before its end"))
            return
        self._pool.keep(wire)

    def _head(self, request: UpstreamRequest) -> bytes:
        """Request line and headers. Raises CallerError."""
        address = self._address
        return written_head(request, prefix=address.prefix, authority=self._authority, instance_id=self.instance_id)


def _write(wire: Wire, head: bytes, request: UpstreamRequest, go: asyncio.Event | None) -> asyncio.Task[None] | None:
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


async def _upload(wire: Wire, request: UpstreamRequest, go: asyncio.Event | None) -> None:
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


async def _final_head(wire: Wire, go: asyncio.Event | None) -> tuple[RawResponseMessage, StreamReader]:
    """The reply's head; interim ones (1xx) are passed over, the first lets the body go."""
    while True:
        message, payload = await wire.read()
        if message.code >= 200:
            return message, payload
        if message.code == 101:
            raise UpstreamBrokenError("Ollama switched protocols, which nobody asked for")
        if go is not None:
            go.set()
