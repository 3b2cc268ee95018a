"""One client connection, on which a request that is known is answered as soon as its last byte is there.

aiohttp wakes a task for each request, which makes a request object, calls a handler and writes a reply; that costs more
than a known reply itself. This connection answers before, and only if all of this holds, else aiohttp goes on as if
there were nothing else:

* Nothing else is in progress on the connection: no request served, waiting or half read, no reply that the system has
  not taken, no end; and the server does not drain (`_free`).
* What came is one whole request and nothing else, at once or as head and body (`_feed`).
* Its bytes have a record, and it need not even be parsed; or aiohttp has parsed it, and what it says has a record, or
  a plan by which its reply is sought (`edge/seek.py`), while aiohttp's task does not see it. Whatever else happens on
  the connection meanwhile ends the search, and the task goes on; as it does, with what was found, when the search
  brings no reply.

A head whose body is due is held back for a moment: nobody can answer it before. Refuses to parse, and to know what is
in a request or a reply.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import Any, Protocol, TypeAlias

from aiohttp import hdrs, web
from aiohttp.http import HttpVersion11, RawRequestMessage

from cacheproxy.counting.faults import Fault
from cacheproxy.edge.arrival import Arrival, Begun
from cacheproxy.edge.lane import BYTES_MAX, Lane, Record
from cacheproxy.edge.outbox import Outbox

Handler: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

HOLD_S = 0.02
"""What has begun waits this long for its end, if anything may be known of it; most heads have their body within 0.1 ms.
"""


LENGTH_DIGITS_MAX = 20
"""Of a Content-Length; the parser takes any number of leading zeros."""


class SoughtReply(Protocol):
    """A reply that was sought (`edge/seek.py`)."""

    @property
    def writes(self) -> Sequence[bytes]:
        """The reply, in the pieces in which it is sent."""
        ...

    @property
    def tell(self) -> Callable[[], None]:
        """Counts it, once it is on its way or there is nobody to send it to."""
        ...


Search: TypeAlias = Callable[[], Awaitable[SoughtReply | None]]


class Known(Protocol):
    """Who knows hits that may be repeated (`edge/replay.py`)."""

    @property
    def lane(self) -> Lane:
        """Where they are."""
        ...

    @property
    def fault(self) -> Callable[[Fault], None]:
        """Counts what went wrong."""
        ...

    def find(self, message: RawRequestMessage, arrived: Arrival) -> Record | None:
        """The record that answers a request, by what it says. May set `arrived.read`; waits for nothing."""
        ...

    def seek(self, arrived: Arrival) -> Search | None:
        """What finds the reply to a request for which `find` had no record, if its plan is known. It raises nothing."""
        ...


class KnownConnection(web.RequestHandler):
    """aiohttp's connection, with known requests answered before it serves them. `known` None: without."""

    __slots__ = (
        "_aside",
        "_at_start",
        "_begun",
        "_between",
        "_held",
        "_holds",
        "_known",
        "_outbox",
        "_search",
        "_seeking",
        "_sleeper",
        "_timer",
        "_unsent",
        "received",
    )

    def __init__(self, manager: web.Server, *, known: Known | None, outbox: Outbox, **kwargs: Any) -> None:
        super().__init__(manager, **kwargs)
        self._known = known if kwargs.get("keepalive_timeout", 1) > 0 else None
        self._outbox = outbox
        self._unsent: tuple[Sequence[bytes], Callable[[], None]] | None = None
        """A reply that is in the outbox, and what counts it."""
        self._at_start = True
        """The parser has taken whole requests only: the next byte begins one."""
        self._between = True
        """Every request that came has its whole reply, and the connection goes on."""
        self._begun: Begun | None = None
        self._held = b""
        """A head that the lane knows, whose body is due; nothing else has seen it yet."""
        self._holds = True
        self._sleeper: asyncio.Future[None] | None = None
        """What aiohttp's task waits on, while it must not wake: what has come may be answered without it."""
        self._aside: Any = None
        """The one request that is here, taken from aiohttp's task while its reply is sought."""
        self._search: Search | None = None
        """What seeks that reply, in a task of its own."""
        self._seeking: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.received: Arrival | None = None
        """The request that came last, if a record may be made for it."""

    @property
    def leaving(self) -> bool:
        """True while the server drains."""
        return False

    def data_received(self, data: bytes) -> None:
        """Bytes came: a known request's, or the parser's. None are aiohttp's own call to take what it held back."""
        known = self._known
        if self._unsent is not None:
            self._outbox.flush()
        if known is None or not data:
            super().data_received(data)
            return
        held = self._take_held()
        free = self._free()
        if free and len(held) + len(data) <= BYTES_MAX:
            began = perf_counter()
            if record := known.lane.find(held + data):
                self._request_count += 1
                self._repeat(known.lane, record, began)
                return
            if not held and self._holds and known.lane.knows_head(data):
                self._held = data
                self._wait(self._loop.time() + HOLD_S)
                return
        if held:
            self._feed(known, held, free=free)
            free = False
        self._feed(known, data, free=free)

    def release(self) -> None:
        """Let go of a reply that waits for others, and of a head that waits for its body: the server then sees it."""
        if self._unsent is not None:
            self._outbox.flush()
        if held := self._take_held():
            self._holds = False
            self.data_received(held)
            self._holds = True
        self._rouse()

    def _process_keepalive(self) -> None:
        """The time of an idle connection is over; one that holds a head is not idle."""
        self.release()
        super()._process_keepalive()

    def eof_received(self) -> None:
        """The caller sends no more: what is made for it goes out before the connection may close."""
        if self._unsent is not None:
            self._outbox.flush()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The caller has gone, and needs nothing any more."""
        self._take_held()
        self._rouse()
        super().connection_lost(exc)

    def _wait(self, until: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(until, self.release)

    def _take_held(self) -> bytes:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        held, self._held = self._held, b""
        return held

    def _rouse(self) -> None:
        """Let the task wait again as ever, and wake it if a request is there or the connection ends."""
        seeking, self._seeking, self._search = self._seeking, None, None
        if seeking is not None:
            seeking.cancel()
        aside, self._aside = self._aside, None
        if aside is not None:
            self._messages.appendleft(aside)
        sleeper, self._sleeper = self._sleeper, None
        if sleeper is not None:
            self._waiter = sleeper
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        if self._close or self._force_close:
            waiter.cancel()
        elif self._messages:
            waiter.set_result(None)

    def _feed(self, known: Known, data: bytes, *, free: bool) -> None:
        """Give bytes to the parser, see what they were to it, and answer if that is known. `free`: before they came."""
        if self._search is not None:
            self._rouse()
        at_start, count, begun = self._at_start, self._request_count, self._begun
        self._at_start, self._begun, self.received = False, None, None
        if free and self._waiter is not None and not self._waiter.done():
            self._sleeper, self._waiter = self._waiter, None
        super().data_received(data)
        made = self._request_count - count
        if made:
            self._between = False
        if at_start and made == 1:
            self._begin(data, free=free)
        elif begun is not None and not made and begun.add(data):
            self._go_on(begun)
        if self._answer(known) or self._sleeper is None:
            return
        if self._begun is not None and self._begun.plain and self._begun.until > self._loop.time():
            self._wait(self._begun.until)
        else:
            self._rouse()

    def _begin(self, data: bytes, *, free: bool) -> None:
        """`data` began where a request begins, and one request was made of it: see how much of that it is."""
        message, payload = self._messages[-1]
        if not isinstance(message, RawRequestMessage) or message.upgrade or message.chunked:
            return
        head_bytes = data.find(b"\r\n\r\n") + 4
        bare_ends = data.count(b"\n", 0, head_bytes) - data.count(b"\r\n", 0, head_bytes)  # the head may end earlier
        lengths = message.headers.getall(hdrs.CONTENT_LENGTH, ["0"])
        if bare_ends or len(lengths) != 1 or len(lengths[0]) > LENGTH_DIGITS_MAX:
            return
        missing_bytes = head_bytes + int(lengths[0]) - len(data)
        plain = free and message.version == HttpVersion11 and message.method == "POST" and not message.should_close
        plain = plain and hdrs.EXPECT not in message.headers and len(data) + missing_bytes <= BYTES_MAX
        if not missing_bytes and payload.is_eof():
            self._at_start = True
            self.received = Arrival(data, head_bytes, payload, apart=False) if plain else None
        elif missing_bytes > 0:
            until, apart = self._loop.time() + HOLD_S, head_bytes == len(data)
            self._begun = Begun(data if plain else b"", head_bytes, missing_bytes, payload, plain, until, apart)

    def _go_on(self, begun: Begun) -> None:
        """More of the request came that had begun: see whether that is all."""
        if begun.complete:
            self._at_start, self.received = True, begun.arrival
        else:
            self._begun = begun

    def _answer(self, known: Known) -> bool:
        """Answer the request that was just parsed, or seek its reply; False where the task has to, or is about to."""
        arrived = self.received
        mine = len(self._messages) == 1 and self._waiter is None
        if arrived is None or not mine or not self._open():
            return False
        began = perf_counter()
        message = self._messages[0][0]
        if not isinstance(message, RawRequestMessage):
            return False
        record = known.find(message, arrived)
        if record is None:
            return self._seek(known, arrived)
        self._take()
        self._repeat(known.lane, record, began)
        self._rouse()
        return True

    def _seek(self, known: Known, arrived: Arrival) -> bool:
        """Seek the reply while the task does not know of the request; False if nothing is known of it."""
        search = known.seek(arrived)
        if search is None:
            return False
        self._aside, self._search = self._messages.popleft(), search
        self._seeking = self._loop.create_task(self._reply_with(search))
        return True

    async def _reply_with(self, search: Search) -> None:
        """Reply with what is found, unless the caller has gone or the task has to see to it."""
        found = await search()
        if self._search is not search:
            return
        self._seeking = None
        if found is not None and self._open():
            self._take()
            self._reply(found.writes, found.tell)
        self._rouse()

    def _take(self) -> None:
        """The request that is here is answered now, and not by the task."""
        self._messages.clear()
        self._aside = None
        if self._parser is not None:
            self._parser.message_consumed()
        self.received = None
        self._between = True

    async def _handle_request(
        self, request: web.BaseRequest, start_time: float | None, request_handler: Handler
    ) -> tuple[web.StreamResponse, bool]:
        reply, reset = await super()._handle_request(request, start_time, request_handler)
        if self.received is not None and self.received.payload is request.content:
            self.received = None  # an idle connection holds no request
        # Under load the next request is here before aiohttp waits for it, so its waiting is no sign.
        self._between = not self._messages and not reset and bool(reply.keep_alive) and request.content.is_eof()
        return reply, reset

    def _free(self) -> bool:
        """Whether a request that comes now would be served at once, and is the only thing on this connection."""
        busy = self._messages or self._request_in_progress or self._search is not None
        return self._at_start and self._between and not busy and self._open()

    def _open(self) -> bool:
        """Whether a reply can be sent now, and the connection goes on after it."""
        transport = self.transport
        return (
            transport is not None
            and not transport.is_closing()
            and not transport.get_write_buffer_size()
            and not (self._close or self._force_close or self._upgraded or self.leaving)
            and not (self._paused or self._reading_paused or self._buffer_paused)
            and self._payload_parser is None
        )

    def _repeat(self, lane: Lane, record: Record, began: float) -> None:
        """Reply with a record, as found since `began` (`perf_counter`)."""
        self._reply(record.writes, lambda: lane.count(record, perf_counter() - began))

    def _reply(self, writes: Sequence[bytes], tell: Callable[[], None]) -> None:
        """Have a reply sent and then counted, also if its caller has gone; aiohttp's timers go on as after any."""
        manager = self._manager
        if manager is None:
            return
        manager.requests_count += 1
        close_time = self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(close_time, self._process_keepalive)
        self._unsent = writes, tell
        self._outbox.add(self)

    def send(self) -> Callable[[], None]:
        """Send the reply that is in the outbox, unless the caller has gone; returns what counts it."""
        assert self._unsent is not None  # noqa: S101 - who is asked to has one
        (writes, tell), self._unsent = self._unsent, None
        if self.transport is not None and not self.transport.is_closing():
            self.transport.writelines(writes)
        return tell
