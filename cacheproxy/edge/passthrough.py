"""Byte-faithful relay: what the client sent goes to Ollama, what Ollama sends goes to the client, both as they come.

Nothing is parsed, stored or held beyond a small body that may be sent twice; each side is read only as fast as the
other takes it. A reply that breaks off upstream breaks off downstream too, never ending like a whole one.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.http import HttpVersion11

from cacheproxy import config
from cacheproxy.edge.server import Body, Headers, PlainStream, error_reply, expects_continue, header_pairs
from cacheproxy.errors import CallerError, UpstreamBrokenError, UpstreamError
from cacheproxy.upstream.batcher import Fetch, PlacedReply
from cacheproxy.upstream.client import VIA, UpstreamClient, UpstreamReply, UpstreamRequest, loops

log = logging.getLogger(__name__)

HELD_BYTES_MAX = 64 * 1024
"""A body up to this size is held, to be sent again when a keep-alive connection turns out to be dead, or to be read
by the gate."""

BeforeEnd = Callable[[], Awaitable[None]]
Reply = UpstreamReply | PlacedReply
InTurn = Callable[[Fetch], Awaitable[PlacedReply]]
Gate = Callable[[str, bytes], InTurn | None]
"""Path and whole body to a way of sending that waits for a place at Ollama, or None if the request needs none."""

_SUCCESS = b'"success"'
"""The status on the last line of Ollama's progress streams; clients need not wait for the end after it."""

_REPEATABLE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_REPEATABLE_POSTS = frozenset({"/api/show"})
"""POSTs that may use a pooled connection and be sent again when it turns out to be dead.

All others run once, on a connection of their own. Those that change something must; those that answer a prompt could
be repeated, but nothing that was left on a pooled connection may ever be taken for somebody's answer (0.2 ms each).
"""


class Passthrough:
    """Relays requests to `client`; `settings` give the deadlines for bodies."""

    def __init__(self, client: UpstreamClient, settings: config.Server) -> None:
        self._client = client
        self._settings = settings

    async def handle(
        self,
        request: web.BaseRequest,
        body: Body | None = None,
        *,
        extra_headers: Headers = (),
        before_end: BeforeEnd | None = None,
        gate: Gate | None = None,
    ) -> web.StreamResponse:
        """Relay one request; returns when the reply's last byte is written, but before its end is.

        `body`: where it was already read in part; its `prefix` may have been replaced if it is complete.
        `extra_headers` replace upstream's of the same name. `before_end` is awaited before a client can learn that a
        pull or the like has succeeded, and before the end of any other reply. `gate` is asked about a body that is
        held; a larger one is sent at once, and Ollama itself finds it a place.
        """
        body = Body(request, self._settings) if body is None else body
        headers = header_pairs(request)
        path = request.raw_path.partition("?")[0]
        if loops(headers, self._client.instance_id):
            return error_reply(path, 508, "upstream.url leads back to this proxy; set it to Ollama's address")
        try:
            reply = await self._send(request, path, headers, body, gate)
        except (CallerError, UpstreamError) as error:
            if isinstance(error, UpstreamError):
                log.warning("%s", error)
            refusal = error_reply(path, error.status, str(error))
            refusal.add_headers(extra_headers)
            if not body.complete:
                refusal.force_close()
            return refusal
        try:
            return await relay(request, body, reply, (("Via", VIA), *extra_headers), before_end)
        finally:
            await reply.close()

    async def _send(
        self, request: web.BaseRequest, path: str, headers: Headers, body: Body, gate: Gate | None
    ) -> Reply:
        repeatable = request.method in _REPEATABLE_METHODS or path in _REPEATABLE_POSTS
        waits = expects_continue(request) and not body.complete and not body.prefix
        if (repeatable or gate is not None) and not waits:
            await body.fill(HELD_BYTES_MAX)
        upstream_request = UpstreamRequest(
            request.method,
            request.raw_path,
            headers,
            (body.prefix if request.body_exists else None) if body.complete else body.chunks(),
            body.length,
            expect_continue=waits,
        )
        in_turn = gate(path, body.prefix) if gate is not None and body.complete else None
        if in_turn is None:
            return await self._client.send(upstream_request, safe_to_repeat=repeatable)
        return await in_turn(lambda: self._client.send(upstream_request, safe_to_repeat=repeatable))


async def relay(
    request: web.BaseRequest, body: Body, reply: Reply, extra: Headers, before_end: BeforeEnd | None = None
) -> web.StreamResponse:
    """Write a reply as it comes, to its end or its break; `extra` replaces headers of the same name."""
    response = PlainStream(status=reply.status, reason=reply.reason)
    response.headers.extend(reply.headers)
    response.add_headers(extra)
    unframed = request.version < HttpVersion11 and "Content-Length" not in response.headers
    if unframed or not body.complete:
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
        log.warning("%s", error)
        break_off(request.transport, unframed=unframed)
    return response


def break_off(transport: asyncio.Transport | None, *, unframed: bool) -> None:
    """End the connection so that the client can tell the reply is not whole.

    What was written is still delivered. With framing, its missing end tells; without, only a reset can.
    """
    if transport is None:
        return
    sock = transport.get_extra_info("socket")
    if unframed and sock is not None:
        # Closing with a linger of 0 s sends RST instead of FIN.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.close()
