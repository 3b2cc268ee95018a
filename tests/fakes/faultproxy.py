"""A user-land TCP proxy that breaks connections on purpose, for Redis and for the upstream.

    proxy = FaultProxy(target_port)
    await proxy.open()
    proxy.toxic = Toxic(latency_s=0.01, jitter_s=0.005)

What it does to a connection is read from `proxy.toxic` piece by piece, so a change meets open connections too.
Names follow Toxiproxy's toxics.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass

_PIECE_BYTES_MAX = 65536


@dataclass(frozen=True, slots=True)
class Toxic:
    """What happens to bytes. Delays hit each piece in both directions; the rest the direction it names."""

    latency_s: float = 0.0
    jitter_s: float = 0.0
    """Up to so much more latency, drawn evenly for each piece; order is kept."""
    slice_bytes: int = 0
    """Answers go on in pieces of this size, each with the latency again; 0: as they come."""
    limit_bytes: int | None = None
    """A clean end (FIN) after so many bytes of answers, counted over the connection."""
    reset_after_bytes: int | None = None
    """A TCP reset after so many bytes of answers, counted over the connection."""
    black_hole: bool = False
    """Bytes are taken and go nowhere, in both directions; connections stay open."""


CLEAN = Toxic()


class FaultProxy:
    """Listens on a port of its own and relays to 127.0.0.1:`target_port`. `seed` fixes the jitter."""

    def __init__(self, target_port: int, *, target_host: str = "127.0.0.1", seed: int = 0) -> None:
        self.target_host = target_host
        self.target_port = target_port
        self.toxic = CLEAN
        self.port = 0
        self.accepted = 0
        """Connections taken so far."""
        self._random = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        """Listen; the port is chosen once and kept over `down` and `up`."""
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and drop all connections."""
        await self.down()

    async def down(self) -> None:
        """Refuse new connections and reset the open ones, as a killed server does."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.reset_all()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def up(self) -> None:
        """Listen again on the same port."""
        await self.open()

    def reset_all(self) -> None:
        """Reset the connections open now; new ones are taken."""
        for writer in list(self._writers):
            _reset(writer)

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self._tasks)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.accepted += 1
        self._tasks.add(task)
        self._writers.add(writer)
        target: asyncio.StreamWriter | None = None
        try:
            target_reader, target = await asyncio.open_connection(self.target_host, self.target_port)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._questions(reader, target))
                group.create_task(self._answers(target_reader, writer))
        except* (ConnectionError, OSError):
            _reset(writer)
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            for end in (writer, target):
                if end is not None:
                    end.close()

    async def _questions(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(_PIECE_BYTES_MAX):
            await self._pass_on(data, sink)
        with suppress(OSError):
            sink.write_eof()

    async def _answers(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        passed = 0
        while data := await source.read(self.toxic.slice_bytes or _PIECE_BYTES_MAX):
            reset_after, limit = self.toxic.reset_after_bytes, self.toxic.limit_bytes
            ends = [end for end in (reset_after, limit) if end is not None]
            left = min(ends) - passed if ends else len(data)
            await self._pass_on(data[: max(0, left)], sink)
            passed += len(data)
            if left > len(data) or not ends:
                continue
            if reset_after is not None and reset_after == min(ends):
                raise ConnectionResetError
            break
        if self.toxic.black_hole:
            await asyncio.Event().wait()  # not even a FIN comes out; `down` and `close` cancel this
        sink.write_eof()

    async def _pass_on(self, data: bytes, sink: asyncio.StreamWriter) -> None:
        toxic = self.toxic
        if toxic.black_hole or not data:
            return
        delay_s = toxic.latency_s + self._random.uniform(0, toxic.jitter_s)
        if delay_s:
            await asyncio.sleep(delay_s)
        sink.write(data)
        await sink.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST: linger of zero throws away what is queued."""
    with suppress(OSError):
        raw: socket.socket | None = writer.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
