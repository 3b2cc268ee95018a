"""One call to Ollama for vectors, shared by all asks that want a text of it while it is under way.

A *flight* is one call. Whoever follows it has its reply, or its error, once and true; it is nobody's own, so who leaves
harms nobody, and the last to leave ends it. What it brought is given to the shelf before it is forgotten, so an equal
ask finds it in flight, being kept, or stored, and never none of these.

On request the calls that wait for one place are made as one (`flow/together.py`); each is then part of that one.
Refuses to look anything up, to word a reply, and to try again.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from cacheproxy.clock import Clock
from cacheproxy.config import Cache
from cacheproxy.errors import CacheproxyError, UpstreamBrokenError
from cacheproxy.flow.coalesce import Head, Reply
from cacheproxy.flow.embed_shelf import EmbedCall, VectorShelf
from cacheproxy.flow.together import Batch, Batches, Member
from cacheproxy.metrics import Fault, Metrics
from cacheproxy.model import Outcome, Plan
from cacheproxy.upstream.catalog import Catalog
from cacheproxy.wire.dialects import EmbedDialect
from cacheproxy.wire.embedding import TOKENS, Cost, Vector

_log = logging.getLogger("cacheproxy.flow")

TRIED_MAX = 4
"""Flights of one text that are looked at for one that tells all the reply must tell."""


class Joins(Enum):
    """Which calls under way an ask may join."""

    ANY = "any"
    TWINS = "twins"
    """Those for just the texts that it lacks."""
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Rest:
    """What is still to be read of a reply that is too large to keep. Whoever has it closes `reply`."""

    reply: Reply
    pieces: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Passed:
    """Ollama's own reply. `rest` is what comes after `body`, where that is not all."""

    head: Head
    body: bytes
    rest: Rest | None = None
    outcome: Outcome = Outcome.MISS

    @property
    def source(self) -> str:
        """Name of the Ollama that gave it."""
        return self.head.source


@dataclass(frozen=True, slots=True)
class Shared:
    """What a call that was made for several asks brought: the vectors by their texts, and who gave them."""

    vectors: Mapping[str, Vector]
    source: str


Brought: TypeAlias = Passed | Shared | None
"""What one call brought: the reply to a single ask, or the vectors of several asks' texts; None if those failed."""


@dataclass(slots=True, eq=False)
class Flight:
    """One call for texts that are missing. `leader` is the ask that started it."""

    leader: EmbedCall
    texts: Sequence[str]
    plans: Sequence[Plan]
    """One a text."""
    body: bytes
    """What it sends when it is a call by itself."""
    epoch: int
    """Of the store, when it began."""
    asks: int = 1
    """How many asks the call was made for, where several that waited were made one."""
    brought: Passed | Shared | None = None
    error: Exception | None = None
    """Why nothing came; one that is no UpstreamError lies with its leader."""
    followers: int = 0
    keys: frozenset[str] = frozenset()
    """What its texts are found by."""
    _to_come: dict[str, Vector] = field(default_factory=dict)
    _task: asyncio.Task[None] | None = None
    _read: dict[str, Vector] | None = None
    _rest_taken: bool = False

    def __post_init__(self) -> None:
        self.keys = frozenset(_key(plan, self.epoch) for plan in self.plans)
        final = {} if self.leader.company is not None else {TOKENS: 0}
        cost = Cost(repr(id(self)), self.leader.dialect.NAME, len(self.texts), final)
        self._to_come = {text: Vector("[]", cost, times) for text, times in Counter(self.texts).items()}

    def __repr__(self) -> str:
        state = "ended" if self._task is None or self._task.done() else "flying"
        return f"<Flight {self.leader.dialect.NAME} {state}, {len(self.texts)} texts, {self.followers} followers>"

    @property
    def reply(self) -> Passed | None:
        """Ollama's own reply, where the call was made for this flight alone."""
        return self.brought if isinstance(self.brought, Passed) else None

    @property
    def refused(self) -> bool:
        """Whether there is no reply, or one that says what went wrong."""
        return self.error is not None or (self.reply is not None and self.reply.head.status != 200)

    def to_come(self, text: str) -> Vector:
        """What a text of it will be to a reply, as far as that is known now: all but the numbers."""
        return self._to_come[text]

    def is_for(self, dialect: EmbedDialect, texts: AbstractSet[str]) -> bool:
        """Whether a call made for these texts over this dialect would have the same fate."""
        return self.leader.dialect is dialect and self._to_come.keys() == texts

    def take_reply(self, outcome: Outcome) -> Passed | None:
        """Ollama's own reply to be passed on; None for one that is not held whole and that another has taken."""
        reply = self.reply
        if reply is None or (reply.rest is not None and self._rest_taken):
            return None
        self._rest_taken = True
        return Passed(reply.head, reply.body, reply.rest, outcome)

    def break_off(self) -> None:
        """End without a reply, unless there is one: nobody who follows may take nothing for something."""
        if self.brought is None and self.error is None:
            self.error = UpstreamBrokenError("the request to Ollama was ended before its reply was complete")


@dataclass(frozen=True, slots=True)
class EmbedFlights:
    """The calls for vectors that are under way, by the keys of their texts."""

    shelf: VectorShelf
    models: Catalog
    settings: Cache
    metrics: Metrics
    clock: Clock
    batches: Batches[Brought]
    _flying: dict[str, list[Flight]] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __len__(self) -> int:
        return len({flight for flights in self._flying.values() for flight in flights})

    @property
    def followers(self) -> int:
        """Asks that wait for what is under way; one that waits for two calls counts twice."""
        return sum(flight.followers for flight in {flight for flights in self._flying.values() for flight in flights})

    async def close(self) -> None:
        """End what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def under_way(self, call: EmbedCall, vectors: Sequence[Vector | None], joins: Joins) -> dict[int, Flight]:
        """Flights that bring what is missing among `vectors`, by its place, where the reply may use what they bring.

        Nothing may be awaited between this and `following`.
        """
        missing = [place for place, vector in enumerate(vectors) if vector is None]
        texts = {call.embed.inputs[place] for place in missing}
        flights = {place: self._of(call.plans[place]) for place in missing}
        chosen: dict[int, Flight] = {}
        for number in range(TRIED_MAX if joins is not Joins.NONE else 0):
            tried = {place: flights[place][number] for place in missing if number < len(flights[place])}
            if joins is Joins.TWINS:
                tried = {place: flight for place, flight in tried.items() if flight.is_for(call.dialect, texts)}
            tried = {place: flight for place, flight in tried.items() if place not in chosen}
            if tried:
                chosen |= {place: tried[place] for place in self._usable(call, vectors, chosen | tried) & tried.keys()}
        return chosen

    def _of(self, plan: Plan) -> Sequence[Flight]:
        return self._flying.get(_key(plan, self.shelf.exact.epoch), ()) if self._flying else ()

    def _usable(self, call: EmbedCall, vectors: Sequence[Vector | None], flights: Mapping[int, Flight]) -> set[int]:
        """The places that the reply may have from these flights."""
        texts = call.embed.inputs
        stored = [
            (text, flights[place].to_come(text) if place in flights else vector)
            for place, (text, vector) in enumerate(zip(texts, vectors, strict=True))
        ]
        return {place for place, vector in enumerate(call.dialect.usable(stored)) if vector is not None}

    def start(self, call: EmbedCall, places: Sequence[int], body: bytes) -> Flight:
        """Make a call for the texts at these places; whoever does so follows it."""
        texts, plans = [call.embed.inputs[place] for place in places], [call.plans[place] for place in places]
        flight = Flight(call, texts, plans, body, self.shelf.exact.epoch)
        for key in flight.keys:
            self._flying.setdefault(key, []).append(flight)
        task = flight._task = asyncio.create_task(self._fly(flight))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return flight

    @asynccontextmanager
    async def following(self, flights: Collection[Flight]) -> AsyncIterator[None]:
        """Wait until all have ended. Inside, what they brought is there; the last to leave one ends it."""
        for flight in flights:
            flight.followers += 1
        try:
            await asyncio.wait({flight._task for flight in flights if flight._task is not None})
            for flight in flights:
                flight.break_off()  # one that was cancelled has brought nothing
            yield
        finally:
            for flight in flights:
                flight.followers -= 1
                if not flight.followers:
                    await self._end(flight)

    async def _end(self, flight: Flight) -> None:
        """The last one has left."""
        self._forget(flight)
        if flight._task is not None and not flight._task.done():
            flight._task.cancel()
        elif not flight._rest_taken:
            await drop(flight.reply)

    def _forget(self, flight: Flight) -> None:
        for key in flight.keys:
            others = [other for other in self._flying.get(key, ()) if other is not flight]
            if others:
                self._flying[key] = others
            else:
                self._flying.pop(key, None)

    async def _fly(self, flight: Flight) -> None:
        """Make the call, and give what it brought to the shelf. Raises nothing but when it is cancelled."""
        try:
            flight.brought, flight.asks = await self._ask_together(flight)
        except Exception as error:  # noqa: BLE001 - whoever follows raises it
            flight.error = error
        else:
            self._keep(flight, flight.brought.source)
        finally:
            self._forget(flight)

    def _keep(self, flight: Flight, source: str) -> None:
        def read() -> list[Vector]:
            vectors = self.vectors(flight)
            return [vectors[text] for text in flight.texts] if vectors else []

        self.shelf.keep_behind(flight.leader, flight.plans, read, flight.epoch, source)

    def vectors(self, flight: Flight) -> Mapping[str, Vector]:
        """What it brought, by text; nothing where that is no plain good reply, which is counted."""
        if flight._read is None:
            flight._read = self._vectors(flight)
        return flight._read

    def _vectors(self, flight: Flight) -> dict[str, Vector]:
        if isinstance(flight.brought, Passed):
            return self._read(flight.leader, flight.brought, flight.texts)
        if isinstance(flight.brought, Shared):
            return {text: flight.brought.vectors[text] for text in flight.texts}
        return {}

    async def _ask_together(self, flight: Flight) -> tuple[Passed | Shared, int]:
        """Make the call, as one with others that wait for the same place; and for how many asks it was.

        If that call fails, each of its asks is sent by itself: one's bad text must not fail another, and everybody gets
        the error that is his own.
        """
        call = flight.leader
        if call.company is None:
            return await self.fetch(call, flight.body), 1
        member = Member(flight.texts, flight.body)
        batch, brought = await self.batches.send(call.company, member, lambda batch: self._send(call, batch), _abandon)
        if batch.asks > 1:
            call.trail.note("merged", str(batch.asks) if brought is not None else "failed")
        if brought is None:
            return await self.fetch(call, flight.body), 1
        if batch.asks > 1:
            self.metrics.embed_merged()
        return brought, batch.asks

    async def _send(self, call: EmbedCall, batch: Batch[Brought]) -> Brought:
        """Make the call of a batch; `call` is its first ask."""

        def body() -> bytes:
            batch.close()
            return batch.bodies[0] if batch.asks == 1 else call.dialect.ask_for(call.body, batch.texts)

        try:
            reply = await self._fetch(call, body)
            if batch.asks == 1:
                return reply
            await drop(reply)
            vectors = self._read(call, reply, batch.texts)
        except Exception as error:
            batch.close()
            if batch.asks == 1:
                raise
            if not isinstance(error, CacheproxyError):
                _log.exception("a call for %d asks failed; each is sent by itself", batch.asks)
                self.metrics.fault(Fault.INTERNAL)
            return None  # what is wrong, a defect too, may lie with one of them
        return Shared(vectors, reply.source) if vectors else None

    async def fetch(self, call: EmbedCall, body: bytes) -> Passed:
        """Send a body, which nobody shares, and read the reply, up to `cache.answer_max` bytes."""
        return await self._fetch(call, lambda: body)

    async def _fetch(self, call: EmbedCall, body: Callable[[], bytes]) -> Passed:
        began_s = self.clock.monotonic()
        with call.trail.timed("upstream_first_byte"):
            reply = await call.fetch(body)
        call.trail.note("upstream", str(reply.status))
        head, pieces = Head(reply.status, reply.reason, reply.headers, reply.source), reply.chunks()
        parts: list[bytes] = []
        size_bytes = 0
        try:
            async for piece in pieces:
                parts.append(piece)
                size_bytes += len(piece)
                if size_bytes > self.settings.answer_max:
                    return Passed(head, b"".join(parts), Rest(reply, pieces))
        except BaseException:
            await reply.close()
            raise
        await reply.close()
        self.metrics.step("upstream_total", self.clock.monotonic() - began_s)
        return Passed(head, b"".join(parts))

    def _read(self, call: EmbedCall, reply: Passed, texts: Sequence[str]) -> dict[str, Vector]:
        """The vectors of a reply to `texts`; none where it is no plain good one, which is counted."""
        reason = ""
        if reply.head.status != 200:
            reason = "status"
            if reply.head.status == 404:
                self.models.unknown_nowait()
        elif reply.rest is not None:
            reason = "too-large"
        else:
            try:
                found, final = call.dialect.split(reply.body, len(texts))
            except ValueError:
                reason = "malformed"
        if reason:
            self.metrics.not_kept(reason)
            return {}
        times = Counter(texts)
        cost = Cost(secrets.token_hex(8), call.dialect.NAME, len(texts), final)
        return {text: Vector(spelt, cost, times[text]) for text, spelt in zip(texts, found, strict=True)}


def _key(plan: Plan, epoch: int) -> str:
    """Who shares it may share a flight: its text is proven as an entry's is, and no purge lies between."""
    return f"{plan.key} {plan.check.hex()} {epoch}"


async def _abandon(brought: Brought) -> None:
    if isinstance(brought, Passed):
        await drop(brought)


async def drop(reply: Passed | None) -> None:
    """Be done with a reply of which nothing more is wanted."""
    if reply is not None and reply.rest is not None:
        await reply.rest.reply.close()
