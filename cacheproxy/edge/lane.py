"""The repeat lane: hits that are known to the last byte, each found by what asks for it.

A record is found in two ways (`edge/connection.py` uses both before there is a task or a request object):

* by the bytes of a whole request. They are compared in full, not by a hash, with those of a request that the server has
  parsed as one and that was an exact hit from memory: nothing is parsed, so no request can mean another;
* by what is read of a request (`edge/admission.py`, `Said`): the ask in its body and a few headers. It too is compared
  in full, so it needs a parse, but no plan, no keys and no look-up.

A record answers only if its hit would be found now: memory holds the very same entry, so that no purge, expiry,
feedback, newer answer or change of Redis lies between; no answer to the same ask is under way; no model has changed or
is changing (`Lane.find`). What it sends is what the slow way would send: the same code renders it, anew whenever a
header would read otherwise, so at least once a second. An ask that wants more than a reply, or another reply each time,
gets no record (`edge/replay.py`).

It is counted like any other hit, several at a time (`Lane.flush`). Refuses to parse, to wait, and to know what is in a
reply.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Container, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from cacheproxy.clock import Clock
from cacheproxy.counting.durations import bin_of
from cacheproxy.decisions import Decisions
from cacheproxy.model import Decision, Entry, Identity
from cacheproxy.store.memory import Memory

BYTES_MAX = 64 * 1024
"""Longest request and longest reply of a record: each comes or goes at once, and neither fills a buffer."""
OVERHEAD_BYTES = 2_500
"""Python objects around one record, the parsed ask among them, besides twice its request and once its reply: measured
with tracemalloc over 300 chats (600 records) on CPython 3.11, 2.8 kB a record with request and reply, 7.7 kB with a
request of 2.7 kB."""
MET_MAX = 8192
"""Keys that are remembered as met once; a record is made at the second meeting, so that requests which never come again
(each with a number of its own) push out none that do."""
LANE_SHARE = 4
"""Requests and replies that the repeat lane knows may take `cache.memory` divided by this, beside what is in there."""
FLUSH_S = 0.1
"""Hits of one record are told together, at most this long after the first of them."""
QUICK_S = 0.0005
"""Hits up to this are told with their mean; slower ones only with those that fall into the same bin of a histogram, so
that no mean hides them."""


@dataclass(frozen=True, slots=True)
class Repeatable:
    """A hit of the slow way's, and what it takes to repeat it."""

    entry: Entry
    identity: Identity
    decision: Decision
    """As it was told; time, duration, age and trail are those of the repetition."""
    render: Callable[[float], tuple[Sequence[bytes], float]]
    """The reply at a Unix time (s), as the writes that send it, and the time from which on it would read otherwise."""
    flight_key: str = ""
    """Under which an answer to the same ask would be under way; empty where that is looked after elsewhere."""


class Record:
    """A hit with the reply as it reads now, and how often it was repeated but not told."""

    __slots__ = (
        "_also",
        "head",
        "hit",
        "models_mark",
        "rendered",
        "size_bytes",
        "trail",
        "until",
        "untold",
        "writes",
    )

    def __init__(
        self,
        hit: Repeatable,
        trail: str,
        also: Callable[[], None] = lambda: None,
        *,
        size_bytes: int,
        head: bytes = b"",
        models_mark: Hashable = None,
    ) -> None:
        self.hit = hit
        self.trail = trail
        self._also = also
        self.head = head
        self.models_mark = models_mark
        self.size_bytes = size_bytes
        self.writes: Sequence[bytes] = ()
        self.rendered = self.until = 0.0
        self.untold: dict[int, tuple[int, float]] = {}
        """Hits by how long they took (`Lane.count`): how many, and their seconds together."""

    @property
    def reply_bytes(self) -> int:
        """Of the reply as it reads now, head included."""
        return sum(map(len, self.writes))

    def refresh(self, now: float) -> None:
        """Make the reply anew if it reads otherwise by now (Unix time, s)."""
        if not self.rendered <= now < self.until:
            self.rendered = now
            self.writes, self.until = self.hit.render(now)

    def decision(self, now: float, seconds: float) -> Decision:
        """That of a hit repeated now (Unix time, s), and what the slow way does besides; once does for several."""
        self._also()
        age_s = now - self.hit.entry.made
        like = self.hit.decision
        return replace(like, at=now, seconds=seconds, first_byte_s=seconds, age_s=age_s, trail=self.trail, timings_s={})


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
        self._records: OrderedDict[Hashable, Record] = OrderedDict()
        self._met: OrderedDict[int, None] = OrderedDict()
        """Hashes of keys that were met and have no record; equal ones cost a record made early."""
        self._heads: Counter[bytes] = Counter()
        """Of the records whose heads came before their bodies."""
        self._untold: list[Record] = []
        self._timer: asyncio.TimerHandle | None = None
        self.size_bytes = 0
        self.generation = 0
        """Of the settings; what came under another must not be learned."""

    def __len__(self) -> int:
        return len(self._records)

    def learn(
        self,
        key: Hashable,
        hit: Repeatable,
        trail: str,
        also: Callable[[], None],
        *,
        key_bytes: int,
        reply_bytes: int,
        head: bytes = b"",
    ) -> None:
        """Repeat this hit for this key, from now on.

        `trail`: of the decision that is then told. `also`: what the slow way does besides replying; once does for
        several hits. `head`: of a request whose body came apart.
        """
        mark = self._models.mark
        if mark is None or max(key_bytes, reply_bytes) > BYTES_MAX:
            return
        self._drop(key)
        record = Record(
            hit, trail, also, head=head, models_mark=mark, size_bytes=OVERHEAD_BYTES + 2 * key_bytes + reply_bytes
        )
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

    def is_new(self, key: Hashable) -> bool:
        """Whether this key has not been met before; what is met once is not worth a record."""
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

    def find(self, key: Hashable) -> Record | None:
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
        record.refresh(now)
        return record

    def count(self, record: Record, seconds: float) -> None:
        """One more hit was answered from a record."""
        if not record.untold:
            self._untold.append(record)
        kind = 0 if seconds <= QUICK_S else bin_of(seconds)
        count, total_s = record.untold.get(kind, (0, 0.0))
        record.untold[kind] = count + 1, total_s + seconds
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)

    def flush(self) -> None:
        """Tell all hits that are not told yet: before somebody looks at the counts, and at the end."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        untold, self._untold = self._untold, []
        now = self._clock.now()
        for record in untold:
            kinds, record.untold = record.untold, {}
            for count, seconds in kinds.values():
                self._decisions.tell(record.decision(now, seconds / count), count)

    def _drop(self, key: Hashable) -> None:
        record = self._records.pop(key, None)
        if record is None:
            return
        self.size_bytes -= record.size_bytes
        if record.head:
            self._heads[record.head] -= 1
            if not self._heads[record.head]:
                del self._heads[record.head]
