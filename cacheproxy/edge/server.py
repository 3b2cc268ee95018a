"""The HTTP server: sockets, deadlines for heads, refusals, and a clean end.

It wraps aiohttp's low-level server (no application, no router: a proxy has one handler), refuses what no client of
Ollama sends and only smugglers do, and bounds how long a client may take over a head. What a request means is for the
handler, and so is its body (`body.py`).

A client that closes its sending half gets what is at hand, a hit or a list; what then still waits is cancelled, as with
Ollama, for it looks the same as a client that has gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import http_parser, web
from aiohttp.http import RawRequestMessage

from cacheproxy import config
from cacheproxy.counting.faults import Fault
from cacheproxy.edge.connection import Handler, Known, KnownConnection
from cacheproxy.edge.outbox import Outbox
from cacheproxy.edge.plain import Plain, error_reply

_log = logging.getLogger("cacheproxy.edge")

HEAD_BYTES_MAX = 1024**2
"""Longest line and longest header field, bytes: what Go's server, and so Ollama, takes for a whole head."""

_BACKLOG = 1024
_READ_BYTES = 64 * 1024
_LINGER_S = 5.0
_CANCEL_S = 5.0
HALF_CLOSED_S = 0.1
"""What a client that sends no more has asked for may take this long to reach it. A hit takes a millisecond or a few,
and one that has gone costs Ollama no more than some tokens."""


class _Connection(KnownConnection):
    """One client connection. Adds to aiohttp's a deadline for heads and a way to leave after the present request."""

    __slots__ = ("_half_closed", "_head_deadline", "_head_timeout_s", "_listener")

    def __init__(self, listener: _Listener, *, head_timeout_s: float, **kwargs: Any) -> None:
        super().__init__(listener, **kwargs)
        self._listener = listener
        self._head_timeout_s = head_timeout_s
        self._head_deadline: asyncio.TimerHandle | None = None
        self._half_closed = False

    @property
    def leaving(self) -> bool:
        """True while the server drains: each connection closes after the request it serves."""
        return self._listener.leaving

    @property
    def idle(self) -> bool:
        """True when no request is being served, read or waiting, and no reply sought."""
        return not self._request_in_progress and not self._messages and self._aside is None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._await_head()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio asks for it, aiohttp says None
        """The caller sends no more: keep the connection for what is under way, if that does not have to wait."""
        super().eof_received()
        self._half_closed = True
        self._loop.call_soon(self._loop.call_soon, self._end_half)  # what came just now has begun by then
        return True

    def _end_half(self) -> None:
        waiter = self._sleeper or self._waiter  # there while aiohttp's task waits for a request
        if self.idle and waiter is not None and not waiter.done():
            self._close_half(after_writing=False)
        else:
            self._loop.call_later(HALF_CLOSED_S, self._close_half, False)

    def _close_half(self, after_writing: bool) -> None:
        """Close, unless the reply is on its way: `after_writing`, who waited for room has its turn first."""
        transport = self.transport
        if transport is None:
            return
        if transport.get_write_buffer_size():  # somebody still reads
            self._loop.call_later(HALF_CLOSED_S, self._close_half, True)
        elif after_writing and not self.idle:
            self._loop.call_later(HALF_CLOSED_S, self._close_half, False)
        else:
            transport.close()

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
        if self.leaving or (self._half_closed and not self._messages):
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
        if status == 400:
            _log.debug("malformed request refused: %s", message)
            reply = Plain(status=400, text="400 Bad Request")
        else:
            if isinstance(exc, ConnectionError):
                _log.debug("a caller left before the reply had begun: %r", exc)
            else:
                _log.error("a handler failed", exc_info=exc)
                self._listener.fault(Fault.INTERNAL)
            reply = error_reply(request.path, status, "cacheproxy failed on this request; its log says why")
        if request.writer.output_size > 0:
            raise ConnectionError("a reply had begun when the handler failed")
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

    def __init__(
        self,
        handler: Handler,
        *,
        head_timeout_s: float,
        known: Known | None,
        fault: Callable[[Fault], None],
        **kwargs: Any,
    ) -> None:
        super().__init__(handler, handler_cancellation=True, **kwargs)
        self._head_timeout_s = head_timeout_s
        self._known = known
        self.fault = fault
        self._outbox = Outbox(self._loop, fault)
        self._serving = _Serving()
        self.leaving = False

    def __call__(self) -> _Connection:
        return _Connection(
            self,
            loop=self._loop,
            head_timeout_s=self._head_timeout_s,
            known=self._known,
            outbox=self._outbox,
            **self._kwargs,
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
            _log.warning("%d requests were cut off after %g s of draining", self._serving.count, timeout_s)
        for connection in self._ours():
            if not connection.idle and connection.transport is not None:
                connection.transport.abort()
        try:
            async with asyncio.timeout(_CANCEL_S):
                await self._serving.empty.wait()
        except TimeoutError:
            _log.warning("%d handlers did not end within %g s of being cancelled", self._serving.count, _CANCEL_S)

    def _ours(self) -> list[_Connection]:
        return [connection for connection in self.connections if isinstance(connection, _Connection)]


class Server:
    """One listening port. `listen`: HOST:PORT, port 0 lets the system choose.

    Every request goes to `handler`, but for those that `known` answers; `fault` counts a defect that ends one. With
    `path` it listens on a Unix socket there instead; with `reuse_port` other processes may listen beside it.
    """

    def __init__(
        self,
        handler: Handler,
        listen: str,
        settings: config.Server,
        *,
        fault: Callable[[Fault], None],
        known: Known | None = None,
        reuse_port: bool = False,
        path: Path | None = None,
    ) -> None:
        self._handler = handler
        self._host, self._port = config.split_listen(listen)
        self._settings = settings
        self._fault = fault
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
            _log.warning("aiohttp runs without its C parser: slower, and looser about malformed requests")
        self._listener = _Listener(
            self._guarded,
            head_timeout_s=self._settings.header_timeout,
            known=self._known,
            fault=self._fault,
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
