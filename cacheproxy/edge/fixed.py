"""Replies that are known to the last byte before the first is sent, framed as Go's server would frame them.

A body of up to 2 KiB has a Content-Length, all else goes out in chunks, each of which is one write. For the common
caller (HTTP/1.1, keeps the connection) the bytes are made here, once, and handed to the connection as they are, which
costs a third of what the HTTP server takes to write the same; the repeat lane sends these bytes too.
Refuses to know how the reply came about.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self, TypeAlias

from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http_writer import _serialize_headers
from multidict import CIMultiDict

from cacheproxy.edge.plain import Plain, PlainStream, note_first_byte
from cacheproxy.edge.request import Headers, is_plain

CHUNKED_ABOVE_BYTES = 2048
"""Go's server gives a body up to this size a Content-Length and sends a larger one in chunks; so do we."""
WRITE_BYTES = 48 * 1024
"""Lines of a replayed stream written at once: few writes, each below the 64 KiB that some clients take in one go."""

Writes: TypeAlias = tuple[bytes, ...]
"""A reply, head and framing included, in the pieces in which it is handed to the connection."""

_STATUS_LINE = "HTTP/1.1 200 OK"


@dataclass(frozen=True, slots=True)
class Fixed:
    """A reply of status 200. `headers`: all but those of framing, and `Date`."""

    headers: Headers
    pieces: Writes
    """The body, in what is written at once."""
    sized: bool
    """With a Content-Length; then there is one piece."""

    @classmethod
    def whole(cls, body: bytes, headers: Headers) -> Self:
        """A body that is one thing."""
        return cls(headers, (body,), sized=len(body) <= CHUNKED_ABOVE_BYTES)

    @classmethod
    def stream(cls, lines: Iterable[bytes], headers: Headers) -> Self:
        """Lines of a stream in few pieces, the last line in one of its own, as it arrives from Ollama."""
        pieces: list[bytes] = []
        held: list[bytes] = []
        held_bytes = 0
        last = b""
        for line in lines:
            if last:
                held.append(last)
                held_bytes += len(last)
            if held_bytes + len(line) > WRITE_BYTES and held:
                pieces.append(b"".join(held))
                held, held_bytes = [], 0
            last = line
        if held:
            pieces.append(b"".join(held))
        return cls(headers, (*pieces, last), sized=False)

    @property
    def size_bytes(self) -> int:
        """Bytes of the body."""
        return sum(map(len, self.pieces))

    def writes(self) -> Writes:
        """The reply to a caller who speaks HTTP/1.1 and keeps the connection, with the present second as `Date`."""
        framing = ("Content-Length", str(len(self.pieces[0]))) if self.sized else ("Transfer-Encoding", "chunked")
        head = CIMultiDict((*self.headers, framing, ("Date", rfc822_formatted_time())))
        if self.sized:
            return (_serialize_headers(_STATUS_LINE, head) + self.pieces[0],)
        chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in self.pieces]
        chunks[0] = _serialize_headers(_STATUS_LINE, head) + chunks[0]
        chunks[-1] += b"0\r\n\r\n"
        return tuple(chunks)

    async def send(self, request: web.BaseRequest) -> web.StreamResponse:
        """Reply with it, back-pressure included. Headers that every reply to the request carries are among its own."""
        if len(self.pieces) > 2 or len(self.pieces[0]) > WRITE_BYTES:  # its end may wait for a slow caller
            note_first_byte(request)
        if is_plain(request):
            return await Sent.send(request, self.writes())
        kind, *more = self.headers
        if self.sized:
            reply: PlainStream = Plain(status=200, body=self.pieces[0], headers=dict([kind]))
        else:
            reply = PlainStream(status=200, headers=dict([kind]))
        reply.add_headers(tuple(more))
        await reply.prepare(request)
        if not self.sized:
            for piece in self.pieces:
                await reply.write(piece)
        return reply


class Sent(web.StreamResponse):
    """A reply whose bytes are on their way already: the HTTP server finds nothing left to do."""

    @classmethod
    async def send(cls, request: web.BaseRequest, writes: Sequence[bytes]) -> Self:
        """Hand the bytes to the connection; waits while the caller takes them too slowly."""
        reply = cls(status=200)
        reply._keep_alive = True
        for data in writes:
            await request.writer.write(data)
        reply._eof_sent = True
        return reply
