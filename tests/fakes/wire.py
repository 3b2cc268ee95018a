"""A raw HTTP/1.1 client for tests: what goes out is the bytes given, what comes in is kept with its framing and times.

async with await connect(fake.port) as wire:
    await wire.send(request("POST", "/api/chat", body))
    response = await wire.response()
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

Headers = list[tuple[str, str]]


@dataclass(slots=True)
class Chunk:
    """One HTTP chunk (or one read of an unchunked body) and when it was complete."""

    data: bytes
    at: float
    """Monotonic seconds."""


@dataclass(slots=True)
class Response:
    """A response as it came."""

    version: str
    status: int
    reason: str
    headers: Headers
    """In order, names as sent."""
    head_at: float
    """Monotonic seconds when the head was complete."""
    chunks: list[Chunk] = field(default_factory=list)
    complete: bool = False
    """The body ended as its framing promises."""

    @property
    def body(self) -> bytes:
        """The body without framing."""
        return b"".join(chunk.data for chunk in self.chunks)

    @property
    def text(self) -> str:
        """The body as UTF-8."""
        return self.body.decode()

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def lines(self) -> list[Any]:
        """The body as NDJSON."""
        return [json.loads(line) for line in self.body.split(b"\n") if line]

    def header(self, name: str) -> str | None:
        """The only value of a header, None if absent; fails if it came twice."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None


class Wire:
    """One TCP connection. Reading raises asyncio.IncompleteReadError where the peer ends too early."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    def half_close(self) -> None:
        """Send FIN and go on reading."""
        self.writer.write_eof()

    def close(self) -> None:
        """Close both directions."""
        self.writer.close()

    def reset(self) -> None:
        """Drop the connection without a goodbye (RST if bytes are unread)."""
        self.writer.transport.abort()

    async def head(self, *, timeout_s: float = 10.0) -> Response:
        """Read one head (interim 100 ones too); the body is left on the wire."""
        raw = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), timeout_s)
        status_line, *lines = raw[:-4].decode("latin-1").split("\r\n")
        version, status, reason = status_line.split(" ", 2)
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        return Response(version, int(status), reason, headers, time.monotonic())

    async def response(self, *, method: str = "POST", timeout_s: float = 10.0) -> Response:
        """Read one whole response; one that ends early comes back with `complete` false."""
        response = await self.head(timeout_s=timeout_s)
        if method == "HEAD" or response.status in (204, 304) or response.status < 200:
            response.complete = True
            return response
        try:
            async with asyncio.timeout(timeout_s):
                await self._body(response)
        except (asyncio.IncompleteReadError, ConnectionError):
            return response
        response.complete = True
        return response

    async def _body(self, response: Response) -> None:
        length = response.header("content-length")
        if response.header("transfer-encoding") == "chunked":
            while await self.chunk(response):
                pass
        elif length is not None:
            left = int(length)
            while left:
                data = await self.reader.read(min(left, 65536))
                if not data:
                    raise asyncio.IncompleteReadError(b"", left)
                left -= len(data)
                response.chunks.append(Chunk(data, time.monotonic()))
        else:
            while data := await self.reader.read(65536):
                response.chunks.append(Chunk(data, time.monotonic()))

    async def chunk(self, response: Response) -> bool:
        """Read one HTTP chunk into `response`; false for the last one, trailers swallowed."""
        size = int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16)
        if size == 0:
            while await self.reader.readuntil(b"\r\n") != b"\r\n":
                pass
            return False
        data = await self.reader.readexactly(size)
        assert await self.reader.readexactly(2) == b"\r\n", "a chunk does not end where its size says"
        response.chunks.append(Chunk(data, time.monotonic()))
        return True

    async def rest(self, *, timeout_s: float = 10.0) -> bytes:
        """Read until the peer ends its side; a reset counts as the end."""
        try:
            return await asyncio.wait_for(self.reader.read(-1), timeout_s)
        except ConnectionError:
            return b""


async def connect(port: int, host: str = "127.0.0.1") -> Wire:
    """Open a connection; lines and reads of any size are taken."""
    return Wire(*await asyncio.open_connection(host, port, limit=64 << 20))


def request(
    method: str,
    target: str,
    body: bytes | Any = b"",
    *,
    headers: Iterable[tuple[str, str]] = (),
    version: str = "1.1",
    host: str | None = "127.0.0.1",
) -> bytes:
    """Return the bytes of one request; a body that is not bytes is written as JSON. `host` None leaves Host out."""
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method} {target} HTTP/{version}"]
    if host is not None:
        lines.append(f"Host: {host}")
    lines += [f"{name}: {value}" for name, value in headers]
    given = {name.lower() for name, _ in headers}
    if payload and not given & {"content-length", "transfer-encoding"}:
        lines.append(f"Content-Length: {len(payload)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + payload


def chunked(*pieces: bytes) -> bytes:
    """Return a chunked body of these chunks."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


async def ask(port: int, method: str, target: str, body: bytes | Any = b"", **more: Any) -> Response:
    """Send one request on a connection of its own and return the whole response."""
    async with await connect(port) as wire:
        await wire.send(request(method, target, body, **more))
        return await wire.response(method=method)
