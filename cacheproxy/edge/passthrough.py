"""Byte-faithful relay: what the client sent goes to Ollama, what Ollama sends goes to the client, both as they come.

Nothing is parsed, stored or held beyond a small body that may be sent twice; each side is read only as fast as the
other takes it. A reply that breaks off upstream breaks off downstream too, never ending like a whole one.
"""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from aiohttp import web
from aiohttp.http import HttpVersion11

from cacheproxy import config
from cacheproxy.counting.faults import Fault
from cacheproxy.counting.labels import OTHER
from cacheproxy.edge.body import Body
from cacheproxy.edge.plain import PlainStream, error_reply
from cacheproxy.edge.request import Headers, expects_continue, header_pairs
from cacheproxy.errors import CallerError, UpstreamBrokenError, UpstreamBusyError, UpstreamError
from cacheproxy.upstream.fleet import Reply, reads
from cacheproxy.upstream.request import VIA, UpstreamRequest, loops
from cacheproxy.wire import runner

_log = logging.getLogger("cacheproxy.edge")

HELD_BYTES_MAX = 64 * 1024
"""A body up to this size is held, to be sent again when a keep-alive connection turns out to be dead, or for what is
to be known of an ask."""

BeforeEnd = Callable[[], Awaitable[None]]
Counted = Callable[[str, int], None]
"""Told the class of a path (one of `PATH_CLASSES` or `other`) and the status of the reply."""

PATH_CLASSES: Mapping[str, str] = {
    "/": "root",
    "/api/blobs": "blobs",
    "/api/copy": "copy",
    "/api/create": "create",
    "/api/delete": "delete",
    "/api/ps": "ps",
    "/api/pull": "pull",
    "/api/push": "push",
    "/api/show": "show",
    "/api/tags": "tags",
    "/api/version": "version",
    "/v1/models": "models",
}
"""What requests that are no asks are counted by. Paths below one of these belong to it."""

_SUCCESS = b'"success"'
"""The status on the last line of Ollama's progress streams; clients need not wait for the end after it."""


class Upstream(Protocol):
    """Where requests go (`upstream.fleet.Fleet`)."""

    @property
    def instance_id(self) -> str:
        """Marks our requests."""
        ...

    async def pass_on(self, request: UpstreamRequest) -> Reply:
        """Send one; returns when the reply's head has come. Raises UpstreamError."""
        ...


class Passthrough:
    """Relays requests to `upstream`; `settings` give the deadlines for bodies.

    `counted` is told of all but asks, `fault` of whatever goes wrong at Ollama.
    """

    def __init__(
        self,
        upstream: Upstream,
        settings: config.Server,
        counted: Counted | None = None,
        fault: Callable[[Fault], None] | None = None,
    ) -> None:
        self._upstream = upstream
        self._settings = settings
        self._counted = counted
        self._fault = fault

    async def handle(
        self,
        request: web.BaseRequest,
        body: Body | None = None,
        *,
        extra_headers: Headers = (),
        before_end: BeforeEnd | None = None,
    ) -> web.StreamResponse:
        """Relay one request; returns when the reply's last byte is written, but before its end is.

        `body`: of an ask, where it was already read in part; its `prefix` may have been replaced if it is complete.
        `extra_headers` replace upstream's of the same name. `before_end` is awaited before a client can learn that a
        pull or the like has succeeded, and before the end of any other reply. An ask waits for its place if its body is
        held; a larger one is sent at once, and Ollama itself finds it a place.
        """
        path = request.raw_path.partition("?")[0]
        if body is not None:  # an ask, which is counted as one
            return await self._handle(request, path, body, extra_headers, before_end)
        reply = await self._handle(request, path, Body(request, self._settings), extra_headers, before_end)
        if self._counted is not None:
            self._counted(path_class(path), reply.status)
        return reply

    async def _handle(
        self, request: web.BaseRequest, path: str, body: Body, extra_headers: Headers, before_end: BeforeEnd | None
    ) -> web.StreamResponse:
        headers = header_pairs(request)
        if loops(headers, self._upstream.instance_id):
            return error_reply(path, 508, "upstream.url leads back to this proxy; set it to Ollama's address")
        try:
            reply = await self._send(request, path, headers, body)
        except (CallerError, UpstreamError) as error:
            if isinstance(error, UpstreamError):
                self._failed(error)
            refusal = error_reply(path, error.status, str(error))
            refusal.add_headers(extra_headers)
            if not body.complete:
                refusal.force_close()
            return refusal
        if reply.status >= 500 and self._fault is not None and _asks(request, path):
            self._fault(Fault.UPSTREAM_ERROR)
        try:
            return await relay(request, body, reply, (("Via", VIA), *extra_headers), before_end, failed=self._failed)
        finally:
            await reply.close()

    def _failed(self, error: UpstreamError) -> None:
        """Log and count it."""
        _warn(error)
        fault = fault_of(error)
        if self._fault is not None and fault is not None:
            self._fault(fault)

    async def _send(self, request: web.BaseRequest, path: str, headers: Headers, body: Body) -> Reply:
        waits = expects_continue(request) and not body.complete and not body.prefix
        if (_asks(request, path) or reads(request.method, path)) and not waits:
            await body.fill(HELD_BYTES_MAX)
        upstream_request = UpstreamRequest(
            request.method,
            request.raw_path,
            headers,
            (body.prefix if request.body_exists else None) if body.complete else body.chunks(),
            body.length,
            expect_continue=waits,
        )
        return await self._upstream.pass_on(upstream_request)


def _asks(request: web.BaseRequest, path: str) -> bool:
    """Whether it has Ollama run a model."""
    return request.method == "POST" and path in runner.PATHS


def path_class(path: str) -> str:
    """What a request's path counts as; callers cannot make new ones."""
    return PATH_CLASSES.get(path) or PATH_CLASSES.get("/".join(path.split("/", 3)[:3]), OTHER)


def fault_of(error: UpstreamError) -> Fault | None:
    """What a failure at Ollama counts as; None for a full queue, which is counted where it is found."""
    if isinstance(error, UpstreamBusyError):
        return None
    return Fault.UPSTREAM_BROKEN if isinstance(error, UpstreamBrokenError) else Fault.UPSTREAM_UNREACHABLE


def _warn(error: UpstreamError) -> None:
    _log.warning("%s", error)


async def relay(
    request: web.BaseRequest,
    body: Body,
    reply: Reply,
    extra: Headers,
    before_end: BeforeEnd | None = None,
    *,
    failed: Callable[[UpstreamError], None] = _warn,
) -> web.StreamResponse:
    """Write a reply as it comes, to its end or its break, which `failed` is told of.

    `extra` replaces headers of the same name.
    """
    response = PlainStream(status=reply.status, reason=reply.reason)
    response.headers.extend(reply.headers)
    response.add_headers(extra)
    if not body.complete:
        response.force_close()
    await response.prepare(request)
    try:
        async for piece in reply.chunks():
            if before_end is not None and _SUCCESS in piece:
                await before_end()
                before_end = None
            await response.write(piece)
        if before_end is not None:
            await before_end()
    except UpstreamBrokenError as error:
        failed(error)
        break_off(request, response)
    return response


def break_off(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """End the connection so that the client can tell the reply is not whole.

    What was written is still delivered. With framing, its missing end tells; without, only a reset can.
    """
    transport = request.transport
    if transport is None:
        return
    unframed = request.version < HttpVersion11 and "Content-Length" not in response.headers
    sock = transport.get_extra_info("socket")
    if unframed and sock is not None:
        # Closing with a linger of 0 s sends RST instead of FIN.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.close()
