"""The story of one ask for vectors: each text is looked up by itself, and only those that are missing are asked for.

    texts ──► the shelf ──► calls under way that bring them ──► one call to Ollama for what is still missing

A reply in which no text was known is Ollama's own, byte for byte, also to an equal ask that joined its call; one in
which some were is put together in the order of the texts. Whatever is not a plain good reply (an error, another number
of vectors) is passed on and not kept: to the ask that got it, and to those that would have sent the same. An ask that
shares only some texts with a call that fails sends them itself, for what went wrong may lie with the others.
Refuses to know HTTP heads beyond a status, and what vectors look like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from cacheproxy.clock import Clock
from cacheproxy.errors import UnkeyableError, UpstreamError, UpstreamUnreachableError
from cacheproxy.flow.embed_flights import EmbedFlights, Flight, Joins, Passed
from cacheproxy.flow.embed_shelf import EmbedCall, OnShelf, VectorShelf
from cacheproxy.model import Entry, Outcome
from cacheproxy.wire.embedding import Cost, Made, Vector, seconds


@dataclass(frozen=True, slots=True)
class Assembled:
    """A reply that was put together from vectors."""

    body: bytes
    outcome: Outcome
    entries: Sequence[Entry]
    """The stored vectors in it."""
    tier: str
    saved_s: float = 0.0
    """What Ollama once took for the vectors, where all of them are stored and their durations known."""
    asks: int = 1
    """How many asks the call to Ollama was made for, if one was."""
    joined: int = 0
    """How many of the vectors came with calls of other asks."""


@dataclass(frozen=True, slots=True)
class NotStored:
    """Not every vector is stored, and the caller wants nothing else (`only-if-cached`)."""

    outcome: Outcome = Outcome.MISS


EmbedServed: TypeAlias = Assembled | Passed | NotStored


@dataclass(slots=True)
class _Gathered:
    """The vectors of one reply as they come together, by place; at first those that are stored."""

    call: EmbedCall
    vectors: list[Vector | None]
    stored: Sequence[int] = ()
    joined: set[int] = field(default_factory=set)
    """The places whose vectors came with calls of other asks."""
    called: bool = False
    """Whether a call was made for this ask."""
    asks: int = 1
    """How many asks that call was made for."""
    fresh: Cost | None = None
    """That call, or the first that was joined."""

    def __post_init__(self) -> None:
        self.stored = [place for place, vector in enumerate(self.vectors) if vector is not None]

    @property
    def missing(self) -> list[int]:
        """The places that have no vector yet."""
        return [place for place, vector in enumerate(self.vectors) if vector is None]

    @property
    def size(self) -> int:
        """Characters of all vectors."""
        return sum(len(vector.text) for vector in self.vectors if vector is not None)

    def put(self, vectors: Mapping[str, Vector], places: Sequence[int]) -> None:
        """Fill these places."""
        for place in places:
            vector = self.vectors[place] = vectors[self.call.embed.inputs[place]]
            self.fresh = self.fresh or vector.cost

    def take_back_unusable(self) -> bool:
        """Empty the places that others' calls have filled with what this reply may not use; whether there were any."""
        usable = self.call.dialect.usable(list(zip(self.call.embed.inputs, self.vectors, strict=True)))
        unusable = {place for place in self.joined if usable[place] is None}
        for place in unusable:
            self.vectors[place] = None
        self.joined -= unusable
        return bool(unusable)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Answers asks for vectors."""

    shelf: VectorShelf
    flights: EmbedFlights
    clock: Clock

    @property
    def keeping(self) -> int:
        """Replies whose vectors are on their way, or being written."""
        return len(self.flights) + self.shelf.keeping

    async def close(self) -> None:
        """End what is under way; wait until all is written."""
        await self.flights.close()
        await self.shelf.close()

    async def serve(self, call: EmbedCall) -> EmbedServed:
        """Answer a cacheable ask. Raises UpstreamError where Ollama must be asked and cannot be.

        The caller closes the `rest` of a `Passed`.
        """
        await self.shelf.wait_landed(call.plans)
        found = await self.shelf.look_up(call) if call.plan.read else OnShelf()
        vectors = self.shelf.usable(call, found.fresh)
        if None not in vectors:
            return self._from_store(call, vectors, found, Outcome.EXACT)
        if call.plan.only_if_cached:
            return NotStored()
        try:
            return await self._ask_ollama(call, vectors, found)
        except UpstreamUnreachableError:
            vectors = self.shelf.usable(call, found.stale | found.fresh)
            if None in vectors:
                raise
            call.trail.note("upstream", "away")
            return self._from_store(call, vectors, found, Outcome.STALE)

    def _from_store(
        self, call: EmbedCall, vectors: Sequence[Vector | None], found: OnShelf, outcome: Outcome
    ) -> Assembled:
        """The reply to an ask each of whose vectors is stored."""
        there = [vector for vector in vectors if vector is not None]
        made = Made(call.embed, there, None, call.trail.elapsed_s())
        entries = [(found.stale | found.fresh)[plan.key] for plan in call.plans]
        return Assembled(call.dialect.whole(made), outcome, entries, found.tier, saved_s=seconds(made.stored))

    async def _ask_ollama(self, call: EmbedCall, vectors: Sequence[Vector | None], found: OnShelf) -> EmbedServed:
        """Join what is under way, fetch the rest in one call, and put all in its place."""
        gathered, joins = _Gathered(call, list(vectors)), Joins.ANY
        while gathered.missing:
            join = self.flights.under_way(call, gathered.vectors, joins)
            own = self._start(gathered, [place for place in gathered.missing if place not in join])
            began_s = self.clock.monotonic()
            async with self.flights.following({*join.values(), *own}):
                if not own:
                    call.trail.mark("upstream_first_byte", self.clock.monotonic() - began_s)
                passed = await self._take_own(gathered, own) or self._take_twin(gathered, join)
                if passed is not None:
                    return passed
                joins = self._take_joined(gathered, join)
        if gathered.size > self.shelf.settings.answer_max:  # putting it together would hold up other callers
            return await self.flights.fetch(call, call.body)
        return self._assembled(gathered, found)

    def _start(self, gathered: _Gathered, places: Sequence[int]) -> dict[Flight, Sequence[int]]:
        """The call for what nobody else asks for, if there is such, with the places that it fills."""
        if not places:
            return {}
        call = gathered.call
        body = call.body
        if len(places) < len(call.plans):
            try:
                body = call.dialect.ask_for(call.body, [call.embed.inputs[place] for place in places])
            except UnkeyableError:  # only the caller can spell the rest of it (a number of 30 digits)
                places = range(len(call.plans))
        gathered.called = True
        return {self.flights.start(call, places, body): places}

    async def _take_own(self, gathered: _Gathered, own: Mapping[Flight, Sequence[int]]) -> Passed | None:
        """Put in place what the ask's own call brought, or give what is to be passed on. Raises its error."""
        call = gathered.call
        for flight, places in own.items():
            if flight.error is not None:
                raise flight.error
            whole = len(places) == len(call.plans)
            if (whole or flight.refused) and (reply := flight.take_reply(Outcome.MISS)) is not None:
                return reply
            vectors = self.flights.vectors(flight)
            if not vectors:  # what came cannot be part of a reply, so none is
                return await self.flights.fetch(call, call.body)
            gathered.asks = flight.asks
            gathered.put(vectors, places)
        return None

    def _take_twin(self, gathered: _Gathered, join: Mapping[int, Flight]) -> Passed | None:
        """The reply of a joined call that would have been the ask's own, if that is to be passed on as it is.

        Raises its UpstreamError.
        """
        call, flights = gathered.call, set(join.values())
        texts = {call.embed.inputs[place] for place in gathered.missing}
        if len(flights) != 1 or not (flight := flights.pop()).is_for(call.dialect, texts):
            return None
        if isinstance(flight.error, UpstreamError):
            call.trail.note("joined", "failed")
            raise flight.error
        if not flight.refused and (flight.body != call.body or len(gathered.missing) < len(call.plans)):
            return None
        reply = flight.take_reply(Outcome.JOINED)
        if reply is not None:
            call.trail.note("joined", str(reply.head.status))
        return reply

    def _take_joined(self, gathered: _Gathered, join: Mapping[int, Flight]) -> Joins:
        """Put in place what the joined calls brought; and which may be joined for what is missing still.

        After a call that failed, for one of its other texts perhaps, those that need the same may share the next one.
        After one that brought nothing to share (a reply too large to hold, say), each is on its own, or they would be
        served one after the other.
        """
        call, joins = gathered.call, Joins.TWINS
        for flight in set(join.values()):
            places = [place for place, joined in join.items() if joined is flight]
            vectors = {} if flight.refused else self.flights.vectors(flight)
            call.trail.note("joined", "200" if vectors else "failed")
            if vectors:
                gathered.put(vectors, places)
                gathered.joined.update(places)
            elif not flight.refused:
                joins = Joins.NONE
        if gathered.take_back_unusable():
            joins = Joins.NONE
        return joins

    def _assembled(self, gathered: _Gathered, found: OnShelf) -> Assembled:
        """The reply to an ask each of whose vectors is there, not all of them from the store."""
        call = gathered.call
        there = [vector for vector in gathered.vectors if vector is not None]
        made = Made(call.embed, there, gathered.fresh, call.trail.elapsed_s())
        return Assembled(
            body=call.dialect.whole(made),
            outcome=Outcome.MISS if gathered.called else Outcome.JOINED,
            entries=[found.fresh[call.plans[place].key] for place in gathered.stored],
            tier="none",
            asks=gathered.asks,
            joined=len(gathered.joined),
        )
