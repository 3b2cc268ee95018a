"""Connections that are kept for the next request: those that carried one, and the spare.

Two rules keep one caller's bytes from another: a connection with anything readable on its socket, data or FIN, is not
used again (`Wire.silent`); and the spare has carried nothing yet, so a request that must not run twice may use it. It
is made ahead so that a miss does not wait for it: one, silent, at most `SPARE_S` old.
Refuses to dial by itself, and to send anything.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from cacheproxy.errors import UpstreamUnreachableError
from cacheproxy.upstream.connection import Wire

IDLE_MAX = 64
_IDLE_S = 30.0
SPARE_S = 2.0
"""How long a connection made ahead waits for its request: until the next miss of a proxy that is at work, and less than
what stands before an Ollama allows a new connection to be silent (HAProxy's `timeout http-request`: some seconds).
"""


class Pool:
    """What is kept; `connect` makes a connection, or raises UpstreamUnreachableError."""

    def __init__(self, connect: Callable[[], Awaitable[Wire]]) -> None:
        self._connect = connect
        self._idle: deque[Wire] = deque()
        self._spare: Wire | None = None
        self._spare_ends: asyncio.TimerHandle | None = None
        self._sparing: asyncio.Task[None] | None = None
        self.closed = False

    def __len__(self) -> int:
        return len(self._idle)

    @property
    def has_spare(self) -> bool:
        """Whether one was made ahead."""
        return self._spare is not None

    def close(self) -> None:
        """Abort them all, and keep none from now on."""
        self.closed = True
        if self._sparing is not None:
            self._sparing.cancel()
        self._drop_spare()
        while self._idle:
            self._idle.pop().abort()

    def keep(self, wire: Wire) -> None:
        """`wire` is free for the next request. The oldest give way beyond `IDLE_MAX` and after `_IDLE_S`."""
        wire.idle_since_s = asyncio.get_running_loop().time()
        self._idle.append(wire)
        while len(self._idle) > IDLE_MAX or wire.idle_since_s - self._idle[0].idle_since_s > _IDLE_S:
            self._idle.popleft().abort()

    def take_idle(self) -> Wire | None:
        """The most recently used pooled connection that is still silent and open."""
        now_s = asyncio.get_running_loop().time()
        while self._idle:
            wire = self._idle.pop()
            if now_s - wire.idle_since_s < _IDLE_S and wire.silent():
                return wire
            wire.abort()
        return None

    def take_spare(self) -> Wire | None:
        """The connection made ahead, if there is one and it is still silent and open."""
        wire, self._spare = self._spare, None
        if self._spare_ends is not None:
            self._spare_ends.cancel()
        if wire is None or wire.silent():
            return wire
        wire.abort()
        return None

    def spare_nowait(self) -> None:
        """Begin to make a spare, unless there is one or one is being made."""
        if not self.closed and self._spare is None and self._sparing is None:
            self._sparing = asyncio.get_running_loop().create_task(self._make_spare())

    async def _make_spare(self) -> None:
        try:
            self._spare = await self._connect()
            self._spare_ends = asyncio.get_running_loop().call_later(SPARE_S, self._drop_spare)
        except UpstreamUnreachableError:
            pass  # the next request will say so
        finally:
            self._sparing = None

    def _drop_spare(self) -> None:
        if (wire := self.take_spare()) is not None:
            wire.abort()
