"""A TCP server that plays a script of the test's own: for tests that need control over every byte and every close."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

STEP_S = 5.0
"""How long a script waits for anything before the test fails."""


@dataclass
class Seen:
    """One request as it arrived. `body` is what its framing carried, chunked bodies already joined."""

    head: bytes
    body: bytes = b""

    @property
    def line(self) -> bytes:
        """The request line."""
        return self.head.split(b"\r\n", 1)[0]

    @property
    def target(self) -> bytes:
        """Path and query, raw."""
        return self.line.split(b" ")[1]

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Name and value of each field, in order."""
        pairs = [line.split(b": ", 1) for line in self.head.strip().split(b"\r\n")[1:]]
        return [(name.decode(), value.decode("utf-8", "surrogateescape")) for name, value in pairs]

    def values(self, name: str) -> list[str]:
        """Every value of one field."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


@dataclass
class Peer:
    """One accepted connection, in the hands of the script."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int

    async def head(self) -> Seen:
        """Read a request's head only."""
        return Seen(await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), STEP_S))

    async def request(self) -> Seen:
        """Read a whole request."""
        seen = await self.head()
        if length := seen.values("content-length"):
            seen.body = await asyncio.wait_for(self.reader.readexactly(int(length[0])), STEP_S)
        elif seen.values("transfer-encoding"):
            while size := int(await asyncio.wait_for(self.reader.readline(), STEP_S), 16):
                seen.body += await asyncio.wait_for(self.reader.readexactly(size), STEP_S)
                await self.reader.readexactly(2)
            await self.reader.readexactly(2)
        return seen

    async def send(self, data: bytes) -> None:
        """Write these very bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def gone(self) -> None:
        """Wait until the other side has closed."""
        with contextlib.suppress(ConnectionError):
            while await asyncio.wait_for(self.reader.read(65536), STEP_S):
                pass

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


@dataclass
class ScriptedServer:
    """Runs `script` for each connection and closes it when the script ends; a script that raises fails the test."""

    script: Script
    connections: int = 0
    errors: list[BaseException] = field(default_factory=list)
    port: int = 0
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=4 * 1024**2)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if error is None and self.errors:
            raise self.errors[0]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            await self.script(Peer(reader, writer, self.connections))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the other side left, or the test is over
        except BaseException as error:  # noqa: BLE001 - shown by __aexit__
            self.errors.append(error)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()
            self._tasks.discard(task)
