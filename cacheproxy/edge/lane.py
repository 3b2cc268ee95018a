"""The repeat lane: a request whose every byte is known is answered before it is a request.

It answers only if all of this holds, else the server goes on as if there were no lane:

* Nothing else is in progress on the connection: no request served, waiting or half read, no reply that the system has
  not taken, no end; and the server does not drain (`LaneConnection._free`).
* What came is one whole request and nothing else, at once or as head and body, and equals byte for byte one that came
  so before, that the slow way has parsed as one (`LaneConnection._feed`) and answered by an exact hit from memory
  (`Replay`). The bytes are found by themselves, not by a hash: the lane never parses, so no request can mean another.
* That hit would be repeated now: memory holds the very same entry, so that no purge, expiry, feedback, newer answer or
  change of Redis lies between; no answer to the same ask is under way; no model has changed or is changing
  (`Lane.find`).

What it sends is what the slow way would send: the same code renders it, anew whenever a header would read otherwise, so
at least once a second. An ask that wants more than a reply, or another reply each time, gets no record (`Replay`).

Requests that are equal only in what is read of them (`edge/admission.py`: the body, and few headers) are requests like
any other, but have the same records under another key: they too need no parsing of the body, no plan and no look-up.
It is counted like any other hit, several at a time (`Lane.flush`). Refuses to parse, to wait, and to know what is in a
reply.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Container, Hashable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Protocol, TypeAlias

from aiohttp import web
from aiohttp.http import HttpVersion11, RawRequestMessage
from aiohttp.streams import StreamReader

from cacheproxy.clock import Clock
from cacheproxy.decisions import Decisions
from cacheproxy.model import Decision, Entry
from cacheproxy.store.memory import Memory

Handler: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

BYTES_MAX = 64 * 1024
"""Longest request and longest reply of a record: each comes or goes at once, and neither fills a buffer."""
OVERHEAD_BYTES = 8_000
"""Python objects around one record, the parsed ask among them, besides twice its request and once its reply: measured
with tracemalloc over 1,000 short chats on CPython 3.11 (7.6 kB)."""
MET_MAX = 8192
"""Keys that are remembered as met once; a record is made at the second meeting, so that requests which never come again
(each with a number of its own) push out none that do."""
LANE_SHARE = 4
"""Requests and replies that the repeat lane knows may take `cache.memory` divided by this, beside what is in there."""
FLUSH_S = 0.1
"""Hits of one record are told together, at most this long after the first of them."""
HOLD_S = 0.02
"""A known head waits this long for its body, which then is as good as known; most follow within 0.1 ms. Nothing is lost
by waiting: nobody can answer before the body is there."""
SLOW_S = 0.0005
"""A hit that took longer is told by itself, so that no mean hides it."""


@dataclass(frozen=True, slots=True)
class Repeatable:
    """A hit of the slow way's, and what it takes to repeat it."""

    entry: Entry
    flight_key: str
    """Under which an answer to the same ask would be under way."""
    decision: Decision
    """As it was told; time, duration, age and trail are those of the repetition."""
    render: Callable[[float], tuple[Sequence[bytes], float]]
    """The reply at a Unix time (s), as the writes that send it, and the time from which on it would read otherwise."""
    also: Callable[[], None]
    """What the slow way does besides replying. Once does for several hits."""


class _Record:
    """A hit with the reply as it reads now, and how often it was repeated but not told."""

    __slots__ = (
        "head",
        "hit",
        "models_mark",
        "rendered",
        "size_bytes",
        "trail",
        "until",
        "untold",
        "untold_s",
        "writes",
    )

    def __init__(self, hit: Repeatable, trail: str, head: bytes, models_mark: Hashable, size_bytes: int) -> None:
        self.hit = hit
        self.trail = trail
        self.head = head
        self.models_mark = models_mark
        self.size_bytes = size_bytes
        self.writes: Sequence[bytes] = ()
        self.rendered = self.until = 0.0
        self.untold = 0
        self.untold_s = 0.0

    @property
    def reply_bytes(self) -> int:
        """Of the reply as it reads now, head included."""
        return sum(map(len, self.writes))

    def render(self, now: float) -> None:
        """Make the reply anew."""
        self.rendered = now
        self.writes, self.until = self.hit.render(now)


class Marked(Protocol):
    """Who knows what model names stand for (`upstream.models.Models`)."""

    @property
    def mark(self) -> Hashable | None:
        """Stays equal as long as every name stands for what it stood for; None while no name has an identity."""
        ...


class Lane:
    """Records by what they answer: the bytes of a request, or what is read of one. The least recently used make room.

    `bytes_max`: of all records.
    """

    def __init__(
        self,
        memory: Memory,
        models: Marked,
        flights: Container[str],
        decisions: Decisions,
        clock: Clock,
        *,
        bytes_max: int,
    ) -> None:
        self._memory = memory
        self._models = models
        self._flights = flights
        self._decisions = decisions
        self._clock = clock
        self._bytes_max = bytes_max
        self._records: OrderedDict[Hashable, _Record] = OrderedDict()
        self._met: OrderedDict[int, None] = OrderedDict()
        """Hashes of keys that were met and have no record; equal ones cost a record made early."""
        self._heads: Counter[bytes] = Counter()
        """Of the records whose heads came before their bodies."""
        self._untold: list[_Record] = []
        self._timer: asyncio.TimerHandle | None = None
        self.size_bytes = 0
        self.generation = 0
        """Of the settings; what came under another must not be learned."""

    def __len__(self) -> int:
        return len(self._records)

    def learn(
        self, key: Hashable, hit: Repeatable, trail: str, *, key_bytes: int, reply_bytes: int, head: bytes = b""
    ) -> None:
        """From the second time on that this is said, repeat this hit for this key.

        `trail`: of the decision that is then told. `head`: of a request whose body came apart.
        """
        mark = self._models.mark
        if mark is None or max(key_bytes, reply_bytes) > BYTES_MAX or self._is_new(key):
            return
        self._drop(key)
        record = _Record(hit, trail, head, mark, OVERHEAD_BYTES + 2 * key_bytes + reply_bytes)
        self._records[key] = record
        if head:
            self._heads[head] += 1
        self.size_bytes += record.size_bytes
        self._make_room()

    def renew(self, bytes_max: int) -> None:
        """Other settings hold from now on: forget all, and learn nothing that was admitted under the old ones."""
        self._bytes_max = bytes_max
        self.generation += 1
        self._met.clear()
        for key in list(self._records):
            self._drop(key)

    def _make_room(self) -> None:
        while self.size_bytes > self._bytes_max:
            self._drop(next(iter(self._records)))

    def _is_new(self, key: Hashable) -> bool:
        number = hash(key)
        if key in self._records or number in self._met:
            self._met.pop(number, None)
            return False
        self._met[number] = None
        if len(self._met) > MET_MAX:
            self._met.popitem(last=False)
        return True

    def knows_head(self, data: bytes) -> bool:
        """Whether these bytes are the head of a request of which the body came apart."""
        return data in self._heads

    def find(self, key: Hashable) -> _Record | None:
        """The record for this key, its reply as of now, if the hit would be repeated now."""
        record = self._records.get(key)
        if record is None:
            return None
        hit, now, mark = record.hit, self._clock.now(), self._models.mark
        if mark is None or hit.flight_key in self._flights:
            return None
        if mark != record.models_mark or hit.entry.expires <= now or not self._memory.touch(hit.entry):
            self._drop(key)
            return None
        self._records.move_to_end(key)
        if not record.rendered <= now < record.until:
            record.render(now)
        return record

    def count(self, record: _Record, seconds: float) -> None:
        """One more hit was answered from a record."""
        if seconds > SLOW_S:
            self._tell(record, 1, seconds)
            return
        if not record.untold:
            self._untold.append(record)
        record.untold += 1
        record.untold_s += seconds
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)

    def flush(self) -> None:
        """Tell all hits that are not told yet: before somebody looks at the counts, and at the end."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        untold, self._untold = self._untold, []
        for record in untold:
            count, seconds = record.untold, record.untold_s
            record.untold, record.untold_s = 0, 0.0
            self._tell(record, count, seconds / count)

    def _tell(self, record: _Record, count: int, seconds: float) -> None:
        record.hit.also()
        hit, now = record.hit, self._clock.now()
        told = replace(
            hit.decision, at=now, seconds=seconds, age_s=now - hit.entry.made, trail=record.trail, timings_s={}
        )
        self._decisions.tell(told, count)

    def _drop(self, key: Hashable) -> None:
        record = self._records.pop(key, None)
        if record is None:
            return
        self.size_bytes -= record.size_bytes
        if record.head:
            self._heads[record.head] -= 1
            if not self._heads[record.head]:
                del self._heads[record.head]


@dataclass(frozen=True, slots=True)
class Arrival:
    """The bytes of a request as they came: at once (`head` is empty), or its whole head and then its whole body."""

    head: bytes
    rest: bytes

    @property
    def request(self) -> bytes:
        """All of them."""
        return self.head + self.rest


@dataclass(frozen=True, slots=True)
class _Begun:
    """A request of which the head alone has come. `plain`: a record may be made for it."""

    head: bytes
    body_bytes: int
    payload: StreamReader
    plain: bool


class LaneConnection(web.RequestHandler):
    """aiohttp's connection with a lane beside it. `lane` None: without."""

    __slots__ = ("_at_start", "_begun", "_between", "_held", "_holds", "_lane", "_release_timer", "received")

    def __init__(self, manager: web.Server, *, lane: Lane | None, **kwargs: Any) -> None:
        super().__init__(manager, **kwargs)
        self._lane = lane if kwargs.get("keepalive_timeout", 1) > 0 else None
        self._at_start = True
        """The parser has taken whole requests only: the next byte begins one."""
        self._between = True
        """Every request that came has its whole reply, and the connection goes on."""
        self._begun: _Begun | None = None
        self._held = b""
        """A head that the lane knows, whose body is due; nothing else has seen it yet."""
        self._holds = True
        self._release_timer: asyncio.TimerHandle | None = None
        self.received: Arrival | None = None
        """The request being served, if a record may be made for it."""

    @property
    def leaving(self) -> bool:
        """True while the server drains."""
        return False

    def data_received(self, data: bytes) -> None:
        """Bytes came: the lane's, or the parser's. None are a call of aiohttp's own to take what it has held back."""
        if self._lane is None or not data:
            super().data_received(data)
            return
        held = self._take_held()
        if self._free() and len(held) + len(data) <= BYTES_MAX:
            if self._repeat(self._lane, held + data):
                return
            if not held and self._holds and self._lane.knows_head(data):
                self._held = data
                self._release_timer = self._loop.call_later(HOLD_S, self.release)
                return
        if held:
            self._feed(held)
        self._feed(data)

    def release(self) -> None:
        """Let the server see a head that was held for its body."""
        if held := self._take_held():
            self._holds = False
            self.data_received(held)
            self._holds = True

    def connection_lost(self, exc: BaseException | None) -> None:
        """The caller has gone, and needs nothing any more."""
        self._take_held()
        super().connection_lost(exc)

    def _take_held(self) -> bytes:
        if self._release_timer is not None:
            self._release_timer.cancel()
            self._release_timer = None
        held, self._held = self._held, b""
        return held

    def _feed(self, data: bytes) -> None:
        """Give bytes to the parser, and see what they were to it."""
        free, at_start, count, begun = self._free(), self._at_start, self._request_count, self._begun
        self._at_start, self._begun, self.received = False, None, None
        super().data_received(data)
        made = self._request_count - count
        if made:
            self._between = False
        if at_start and made == 1:
            self._note(data, free=free)
        elif begun is not None and not made and begun.body_bytes == len(data) and begun.payload.is_eof():
            self._at_start = True
            self.received = Arrival(begun.head, data) if begun.plain else None

    def _note(self, data: bytes, *, free: bool) -> None:
        """`data` began where a request begins, and one request was made of it: see whether that is all of it."""
        message, payload = self._messages[-1]
        if not isinstance(message, RawRequestMessage) or message.upgrade or message.chunked:
            return
        head_end = data.find(b"\r\n\r\n") + 4
        lengths = message.headers.getall("Content-Length", ["0"])
        one_end = data.count(b"\n", 0, head_end) == data.count(b"\r\n", 0, head_end)  # so the head has no earlier one
        if not one_end or len(lengths) != 1:
            return
        body_bytes = int(lengths[0])
        plain = free and message.version == HttpVersion11 and message.method == "POST" and not message.should_close
        plain = plain and "Expect" not in message.headers
        if head_end + body_bytes == len(data) and payload.is_eof():
            self._at_start = True
            self.received = Arrival(b"", data) if plain else None
        elif head_end == len(data):
            self._begun = _Begun(data, body_bytes, payload, plain)

    async def _handle_request(
        self, request: web.BaseRequest, start_time: float | None, request_handler: Handler
    ) -> tuple[web.StreamResponse, bool]:
        reply, reset = await super()._handle_request(request, start_time, request_handler)
        self.received = None
        # Under load the next request is here before aiohttp waits for it, so its waiting is no sign.
        self._between = not reset and bool(reply.keep_alive) and request.content.is_eof()
        return reply, reset

    def _free(self) -> bool:
        """Whether a request that comes now would be served at once, and is the only thing on this connection."""
        transport = self.transport
        return (
            self._at_start
            and self._between
            and not self._messages
            and transport is not None
            and not transport.is_closing()
            and not transport.get_write_buffer_size()
            and not (self._close or self._force_close or self._upgraded or self.leaving)
            and not (self._paused or self._reading_paused or self._buffer_paused)
            and self._payload_parser is None
        )

    def _repeat(self, lane: Lane, data: bytes) -> bool:
        """Answer from the lane; False where it has nothing. aiohttp's counts and timers go on as after any reply."""
        began = perf_counter()
        record = lane.find(data)
        transport, manager = self.transport, self._manager
        if record is None or transport is None or manager is None:
            return False
        self._request_count += 1
        manager.requests_count += 1
        for written in record.writes:
            transport.write(written)
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        lane.count(record, perf_counter() - began)
        return True
