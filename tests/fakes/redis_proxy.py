"""A TCP proxy that holds back, cuts and refuses, to stand between a client and a real Redis."""

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Self


class RedisProxy:
    """Forwards 127.0.0.1:`port` to `target_port`; each piece of a reply waits `delay_s()` seconds.

    Orders of pieces are kept, as TCP does. `connections` counts what was accepted since the start.
    """

    def __init__(self, target_port: int, delay_s: Callable[[], float] = lambda: 0.0) -> None:
        self._target_port = target_port
        self._delay_s = delay_s
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self.port = 0
        self.connections = 0

    async def __aenter__(self) -> Self:
        await self.up()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.down()

    async def up(self) -> None:
        """Listen: the first time on a port the OS chooses, afterwards on the same."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Stop listening and cut all connections, as a dead server does."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        if (task := asyncio.current_task()) is not None:
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            self._writers.discard(writer)
            return
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pump(reader, back, lambda: 0.0))
                tasks.create_task(self._pump(there, writer, self._delay_s))
        finally:
            self._writers.discard(writer)
            for end in (back, writer):
                end.transport.abort()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, delay_s: Callable[[], float]
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := await source.read(65536):
                if wait_s := delay_s():
                    await asyncio.sleep(wait_s)
                sink.write(piece)
                await sink.drain()
        sink.transport.abort()
