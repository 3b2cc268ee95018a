"""Places at Ollama: an ask waits here for its turn, holds its place until the last byte of its reply, and frees it.

`upstream/order.py` decides who goes next; this is the driver: tasks that wait, one timer for the end of a window, and
places given back whatever happens. A caller who leaves while waiting costs Ollama nothing. Where nothing has to wait,
no task is switched and no timer set. Refuses to know what an ask means: whoever asks says to which group it belongs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from cacheproxy.clock import Clock
from cacheproxy.errors import UpstreamBusyError
from cacheproxy.metrics import Fault, Metrics
from cacheproxy.trail import Trail
from cacheproxy.upstream.order import Group, Limits, Order, Pairs, Ticket
from cacheproxy.upstream.reply import UpstreamReply

BUSY = "server busy, please try again.  maximum pending requests exceeded"
"""Ollama's own words (its ErrMaxQueue), two spaces included: clients compare them."""

Fetch = Callable[[], Awaitable[UpstreamReply]]


class Timer(Protocol):
    """What `loop.call_later` gives."""

    def cancel(self) -> None:
        """Let it not happen."""
        ...


CallLater = Callable[[float, Callable[[], None]], Timer]


class PlacedReply:
    """An upstream reply that gives its place back when it is closed."""

    __slots__ = ("_give_back", "_reply", "headers", "reason", "source", "status", "waited_s")

    def __init__(self, reply: UpstreamReply, waited_s: float, give_back: Callable[[], None]) -> None:
        self.status = reply.status
        self.reason = reply.reason
        self.headers = reply.headers
        self.waited_s = waited_s
        self.source = ""
        """As `UpstreamReply.source`."""
        self._reply = reply
        self._give_back = give_back

    def chunks(self) -> AsyncIterator[bytes]:
        """Bytes as they arrive. Raises UpstreamBrokenError."""
        return self._reply.chunks()

    async def close(self) -> None:
        """Be done with the reply; if it had not ended, Ollama stops working on it."""
        try:
            await self._reply.close()
        finally:
            self._give_back()


class Batcher:
    """Hands out the places at one Ollama. `call_later` stands for the event loop's."""

    def __init__(self, limits: Limits, clock: Clock, metrics: Metrics, *, call_later: CallLater | None = None) -> None:
        self._order = Order(limits)
        self._clock = clock
        self._metrics = metrics
        self._call_later = call_later
        self._turns: dict[Ticket, asyncio.Future[None]] = {}
        self._timer: Timer | None = None

    def __repr__(self) -> str:
        return f"<Batcher {self._order!r}>"

    @property
    def waiting(self) -> int:
        """Asks that wait for a place."""
        return self._order.waiting

    @property
    def in_flight(self) -> int:
        """Asks that hold one."""
        return self._order.in_flight

    @property
    def model_changes(self) -> int:
        """How often Ollama was sent an ask that made it load a model, as far as its settings here tell."""
        return self._order.changes

    @property
    def models_at_once(self) -> int:
        """How many models may be in flight."""
        return self._order.models_at_once

    def learn(self, models_at_once: int, apart: Pairs = frozenset(), *, unsure: bool = False) -> None:
        """So many models may be in flight from now on, and these two never together; `unsure`: as is assumed."""
        self._order.learn(models_at_once, apart, unsure=unsure)
        self._start(self._clock.monotonic())

    def rounds(self, group: Group) -> int:
        """How many rounds of asks would go before one of `group` that came now; 0: it would go at once."""
        return self._order.rounds(group)

    def runs(self, model: str) -> bool:
        """Whether an ask for the model (digest) holds a place."""
        return self._order.runs(model)

    async def send(self, group: Group, fetch: Fetch, trail: Trail | None = None) -> PlacedReply:
        """Wait for a place, then `fetch`; whoever gets the reply must close it.

        Raises UpstreamBusyError if too many wait already, and what `fetch` raises. Cancelling leaves the queue, or ends
        the fetch, and frees the place.
        """
        ticket, waited_s = await self._wait_turn(group)
        self._note(waited_s, trail)
        try:
            reply = await fetch()
        except BaseException:
            self._leave(ticket)
            raise
        return PlacedReply(reply, waited_s, lambda: self._leave(ticket))

    async def close(self) -> None:
        """Stop the timer. Who still waits is cancelled by whoever runs it."""
        self._set_timer(None)

    async def _wait_turn(self, group: Group) -> tuple[Ticket, float]:
        """A ticket that has its place, and the seconds that took."""
        came_s = self._clock.monotonic()
        ticket = self._order.come(group, came_s)
        self._start(came_s)
        if ticket.in_flight:
            return ticket, 0.0
        if self._order.overfull:
            self._leave(ticket)
            self._metrics.fault(Fault.QUEUE_FULL)
            raise UpstreamBusyError(BUSY)
        await self._wait(ticket)
        return ticket, self._clock.monotonic() - came_s

    def _note(self, waited_s: float, trail: Trail | None) -> None:
        if trail is None:
            self._metrics.step("queue", waited_s)
            return
        trail.mark("queue", waited_s)
        if waited_s:
            trail.note("queue", f"{waited_s * 1000:.0f}ms")

    async def _wait(self, ticket: Ticket) -> None:
        turn = self._turns[ticket] = asyncio.get_running_loop().create_future()
        try:
            await turn
        except BaseException:  # its turn may have come in the same moment, so it leaves in either case
            self._turns.pop(ticket, None)
            self._leave(ticket)
            raise

    def _leave(self, ticket: Ticket) -> None:
        if ticket.left:
            return
        now_s = self._clock.monotonic()
        self._order.leave(ticket, now_s)
        self._start(now_s)

    def _start(self, now_s: float) -> None:
        """Let go who may go now, in order: the tasks run in the order in which their futures are set."""
        changes = self._order.changes
        started = self._order.start(now_s)
        for _ in range(self._order.changes - changes):
            self._metrics.model_changed()
        for ticket in started:
            turn = self._turns.pop(ticket, None)
            if turn is not None and not turn.done():
                turn.set_result(None)
        self._set_timer(self._order.wake_s(now_s))

    def _set_timer(self, wake_s: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if wake_s is not None:
            call_later = self._call_later or asyncio.get_running_loop().call_later
            self._timer = call_later(max(0.0, wake_s - self._clock.monotonic()), self._woken)

    def _woken(self) -> None:
        self._timer = None
        self._start(self._clock.monotonic())
