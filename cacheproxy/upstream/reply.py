"""Ollama's answer: its head is there, its body comes as it arrives.

Refuses to decode, and to know what it says.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from aiohttp import ClientError, StreamReader
from aiohttp.http import HttpProcessingError, RawResponseMessage

from cacheproxy.errors import UpstreamBrokenError
from cacheproxy.upstream.request import Headers, decoded, end_to_end
from cacheproxy.upstream.trouble import told


class UpstreamReply:
    """Upstream's answer: the head is there, the body comes as it arrives. Whoever holds one must `close` it."""

    __slots__ = ("_finish", "_payload", "headers", "reason", "source", "status")
    waited_s = 0.0

    def __init__(self, message: RawResponseMessage, payload: StreamReader, finish: Callable[[bool], None]) -> None:
        self.status: int = message.code
        self.reason: str = message.reason
        self.headers: Headers = end_to_end(decoded(message.raw_headers))
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
            raise UpstreamBrokenError(f"Ollama's reply broke off ({told(error)})") from error
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
