"""The operator's page that goes on: what is counted once a second, and asks as they end, as server-sent events.

One ticker serves all who listen, and nothing is done while nobody does. A listener that does not keep up is let go:
its browser comes back by itself. Events of this proxy only; the ledger's figures in them are of all proxies.
Refuses to send what was before: `/asks` has that.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from cacheproxy.behind import end
from cacheproxy.clock import Clock
from cacheproxy.edge.admin import HEADERS, Page, Unnamed, answer
from cacheproxy.model import Decision, Outcome
from cacheproxy.store import recent

_log = logging.getLogger("cacheproxy.edge")

LISTENERS_MAX = 16
ASKS_A_SECOND = 50
"""Single asks sent in a second; the rest is a number."""
TICKS_A_SECOND = 4
"""How often asks are sent; counts go once a second."""
WAITING_MAX = 8
"""Frames that may wait for one listener: two seconds."""
CLOSE_S_MAX = 1.0
RETRY_MS = 2000
"""After how long a browser that lost us comes back."""


@dataclass(eq=False, slots=True)
class _Listener:
    """One open stream. None in the queue ends it."""

    abort: Callable[[], None]
    frames: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(WAITING_MAX))
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Live:
    """`/events`. `stats` gives what a `stats` event shows; it must not raise."""

    def __init__(self, stats: Callable[[], Awaitable[dict[str, Any]]], clock: Clock) -> None:
        self._stats = stats
        self._clock = clock
        self._listeners: set[_Listener] = set()
        self._ticker: asyncio.Task[None] | None = None
        self._closed = False
        self._number = 0
        self._asks: list[tuple[Decision, int]] = []
        self._begin_second()

    def pages(self) -> Mapping[str, Page]:
        """By path."""
        return {"/events": Page("counts once a second and asks as they end, as server-sent events", {"GET": self._get})}

    def decided(self, decision: Decision, count: int = 1) -> None:
        """An ask has ended. Listens on `Decisions`."""
        if not self._listeners:
            return
        self._counts[decision.outcome] += count
        if self._room > 0:
            self._room -= 1
            self._asks.append((decision, count))
        else:
            self._left_out += count

    async def close(self) -> None:
        """End all streams as streams end. Safe to call twice."""
        self._closed = True
        await end(self._ticker)
        self._ticker = None
        leaving = list(self._listeners)
        for listener in leaving:
            self._hand(listener, None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S_MAX):
                for listener in leaving:
                    await listener.done.wait()

    async def _get(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._closed or len(self._listeners) >= LISTENERS_MAX:
            why = "this proxy is stopping" if self._closed else f"{LISTENERS_MAX} listen already"
            return answer({"error": f"{why}, come back later"}, 503)
        head = {**HEADERS, "Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}
        response = Unnamed(headers=head)
        await response.prepare(request)
        if request.method == "GET":
            await self._stream(request, response)
        return response

    async def _stream(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Send frames until the end; whoever leaves cancels this handler."""
        listener = _Listener(lambda: request.transport.abort() if request.transport else None)
        self._listeners.add(listener)
        if self._ticker is None:
            self._begin_second()
            self._ticker = asyncio.create_task(self._tick_forever(), name="live")
        try:
            await response.write(f"retry: {RETRY_MS}\n\n".encode())
            while (frame := await listener.frames.get()) is not None:
                await response.write(frame)
            await response.write_eof()
        finally:
            self._listeners.discard(listener)
            listener.done.set()

    async def _tick_forever(self) -> None:
        """Send what there is, four times a second; ends when nobody listens any more."""
        tick = 0
        while self._listeners:
            frames = self._ask_frames()
            if tick % TICKS_A_SECOND == 0:
                frames += await self._stats_frame()
            if frames:
                for listener in list(self._listeners):
                    self._hand(listener, frames)
            tick += 1
            await asyncio.sleep(1 / TICKS_A_SECOND)
        self._ticker = None

    async def _stats_frame(self) -> bytes:
        counts, left_out = self._counts, self._left_out
        self._begin_second()
        told = self._frame("ask", {"left_out": left_out}) if left_out else b""
        try:
            stats = await self._stats()
        except Exception:  # noqa: BLE001 - a defect in one figure must not end the stream of all
            _log.exception("no stats for those who listen")
            return told
        return told + self._frame("stats", {"at": self._clock.now(), "per_s": counts, "stats": stats})

    def _ask_frames(self) -> bytes:
        asks, self._asks = self._asks, []
        return b"".join(self._frame("ask", recent.ask(decision, count)) for decision, count in asks)

    def _begin_second(self) -> None:
        self._counts = dict.fromkeys(Outcome, 0)
        self._asks = []
        self._room = ASKS_A_SECOND
        self._left_out = 0

    def _frame(self, event: str, body: Mapping[str, Any]) -> bytes:
        self._number += 1
        return f"id: {self._number}\nevent: {event}\ndata: {json.dumps(body)}\n\n".encode()

    def _hand(self, listener: _Listener, frame: bytes | None) -> None:
        """Queue a frame; a listener that reads nothing loses its connection, which cancels its handler."""
        try:
            listener.frames.put_nowait(frame)
        except asyncio.QueueFull:
            self._listeners.discard(listener)
            listener.abort()
