"""A request's body, read as far as it may be held, with deadlines.

Refuses to read one that nobody asked for: `Expect: 100-continue` is answered when a handler starts to read, so an early
reply spares the upload. Refuses to decode.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.http import HttpProcessingError

from cacheproxy import config
from cacheproxy.edge.request import arrival, expects_continue
from cacheproxy.errors import BodyTimeoutError, CallerError

BODY_RATE_MIN = 1024
"""Least average rate of a request body, bytes/s, once `server.body_timeout` seconds were spent waiting for it."""


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


async def read_body(request: web.BaseRequest, bytes_max: int, settings: config.Server) -> Body:
    """The body, whole in `prefix` if it has at most `bytes_max` bytes (`complete`), else as far as it was read."""
    body = Body(request, settings)
    arrived = arrival(request)
    if arrived is not None and len(whole := arrived.body) <= bytes_max:
        body.prefix, body.complete = whole, True
    else:
        await body.fill(bytes_max)
    return body
