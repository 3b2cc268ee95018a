"""The story of one ask for vectors: each text is looked up by itself, and only those that are missing are asked for.

    texts ──► memory ──► Redis, one round trip for the rest ──► one call to Ollama for what is still missing
                                                                └─► each vector kept under its own key

A reply in which no text was known is Ollama's own, byte for byte; one in which some were is put together in the order
of the texts. Whatever is not a plain good reply (an error, another number of vectors) is passed on and not kept.
Equal asks in flight are not joined; on request those that wait share one call (`flow/together.py`). Refuses to know
HTTP heads beyond a status, and what vectors look like.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from cacheproxy.clock import Clock
from cacheproxy.config import Cache
from cacheproxy.errors import CacheError, UpstreamError, UpstreamUnreachableError
from cacheproxy.flow.coalesce import LANDING_S_MAX, Head, Reply
from cacheproxy.flow.together import Batch, Batches, Member
from cacheproxy.metrics import Fault, Metrics
from cacheproxy.model import Entry, Identity, Outcome, Plan
from cacheproxy.rules import keep
from cacheproxy.store.exact import Exact
from cacheproxy.store.memory import Memory
from cacheproxy.trail import Trail
from cacheproxy.upstream.catalog import Catalog
from cacheproxy.wire.dialects import EmbedDialect
from cacheproxy.wire.embedding import Cost, EmbedAsk, Made, Vector, answer_of, seconds, vector_of

KEEPING_MAX = 64
"""Replies whose vectors are being written at once; of more, nothing is kept."""


@dataclass(frozen=True, slots=True)
class EmbedCall:
    """A cacheable ask for vectors with all it takes to answer it."""

    embed: EmbedAsk
    dialect: EmbedDialect
    plan: Plan
    """What holds for all texts; its key names none of them."""
    plans: Sequence[Plan]
    """One a text."""
    identity: Identity
    body: bytes
    """The request as it goes to Ollama when no text is known."""
    fetch: Callable[[Callable[[], bytes]], Awaitable[Reply]]
    """Sends a body to Ollama, made when its turn has come; returns when the reply's head has come.

    Raises UpstreamError.
    """
    trail: Trail
    company: Hashable = None
    """Texts of asks for which this is equal may go to Ollama in one call; None: this one goes by itself."""


@dataclass(frozen=True, slots=True)
class Assembled:
    """A reply that was put together, at least in part from stored vectors."""

    body: bytes
    outcome: Outcome
    entries: Sequence[Entry]
    """The stored vectors in it."""
    tier: str
    saved_s: float = 0.0
    """What Ollama once took for the vectors, where all of them are stored and their durations known."""
    asks: int = 1
    """How many asks the call to Ollama was made for, if one was."""


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


@dataclass(frozen=True, slots=True)
class NotStored:
    """Not every vector is stored, and the caller wants nothing else (`only-if-cached`)."""

    outcome: Outcome = Outcome.MISS


EmbedServed: TypeAlias = Assembled | Passed | NotStored
Brought: TypeAlias = Passed | Shared | None
"""What one call brought: the reply to a single ask, or the vectors of several asks' texts; None if those failed."""


@dataclass(slots=True)
class _Shelf:
    """What is stored, by key."""

    fresh: dict[str, Entry] = field(default_factory=dict)
    stale: dict[str, Entry] = field(default_factory=dict)
    """Expired, but good enough if Ollama is away."""
    tier: str = "memory"
    """The farthest tier that gave something."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Answers asks for vectors. `spread` gives random numbers in 0..1 for the jitter of lifetimes."""

    memory: Memory
    exact: Exact
    models: Catalog
    settings: Cache
    metrics: Metrics
    clock: Clock
    batches: Batches[Brought]
    spread: Callable[[], float] = random.random
    _keeping: set[asyncio.Task[None]] = field(default_factory=set)
    _landing: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    """What is being written, by key."""

    @property
    def keeping(self) -> int:
        """Replies whose vectors are being written."""
        return len(self._keeping)

    async def close(self) -> None:
        """Wait until all is written."""
        await asyncio.gather(*self._keeping, return_exceptions=True)

    async def serve(self, call: EmbedCall) -> EmbedServed:
        """Answer a cacheable ask. Raises UpstreamError where Ollama must be asked and cannot be.

        The caller closes the `rest` of a `Passed`.
        """
        await self._wait_landed(call.plans)
        shelf = await self._look_up(call) if call.plan.read else _Shelf()
        vectors = self._usable(call, shelf.fresh)
        if None not in vectors:
            return self._assembled(call, vectors, shelf, Outcome.EXACT, None)
        if call.plan.only_if_cached:
            return NotStored()
        try:
            return await self._ask_ollama(call, vectors, shelf)
        except UpstreamUnreachableError:
            vectors = self._usable(call, shelf.stale | shelf.fresh)
            if None in vectors:
                raise
            call.trail.note("upstream", "away")
            return self._assembled(call, vectors, shelf, Outcome.STALE, None)

    async def _wait_landed(self, plans: Sequence[Plan]) -> None:
        """If one of the vectors is just being written, wait for that, at most `LANDING_S_MAX`."""
        if landing := {self._landing[plan.key] for plan in plans if plan.key in self._landing}:
            await asyncio.wait(landing, timeout=LANDING_S_MAX)

    async def _look_up(self, call: EmbedCall) -> _Shelf:
        shelf = _Shelf()
        plans = {plan.key: plan for plan in call.plans}
        with call.trail.timed("memory"):
            for key, plan in plans.items():
                if (entry := self.memory.get(plan)) is not None:
                    shelf.fresh[key] = entry
        call.trail.note("memory", f"{len(shelf.fresh)}/{len(plans)}")
        missing = [plan for key, plan in plans.items() if key not in shelf.fresh]
        if not missing:
            return shelf
        try:
            with call.trail.timed("exact"):
                found, corrupt = await self.exact.get_many(missing)
        except CacheError:
            self.metrics.fault(Fault.REDIS_UNAVAILABLE)
            call.trail.note("exact", "away")
            return shelf
        for _ in range(corrupt):
            self.metrics.fault(Fault.ENTRY_CORRUPT)
        here = len(shelf.fresh)
        for plan, (entry, size_bytes) in zip(missing, found, strict=True):
            if entry is not None:
                self._judge(entry, size_bytes, plan, shelf)
        call.trail.note("exact", f"{len(shelf.fresh) - here}/{len(missing)}")
        return shelf

    def _judge(self, entry: Entry, size_bytes: int, plan: Plan, shelf: _Shelf) -> None:
        """Put an entry found by its key on the shelf if it is the plan's and young enough."""
        now = self.clock.now()
        if not self.exact.proves(entry, plan):
            self.metrics.fault(Fault.CHECK_MISMATCH)
        elif plan.max_age_s is not None and now - entry.made > plan.max_age_s:
            return
        elif entry.expires > now:
            self.memory.put(entry, size_bytes)
            shelf.fresh[plan.key] = entry
            shelf.tier = "redis"
        elif now - entry.expires <= plan.stale_if_error_s:
            shelf.stale[plan.key] = entry
            shelf.tier = "redis"

    def _usable(self, call: EmbedCall, entries: dict[str, Entry]) -> list[Vector | None]:
        """The stored vectors that the reply may use, in the order of the texts.

        None where they are more than `cache.answer_max` together: putting them together would hold up other callers.
        """
        vectors = [_vector(entries.get(plan.key)) for plan in call.plans]
        if sum(len(vector.text) for vector in vectors if vector is not None) > self.settings.answer_max:
            return [None] * len(vectors)
        return call.dialect.usable(list(zip(call.embed.inputs, vectors, strict=True)))

    def _assembled(
        self,
        call: EmbedCall,
        vectors: Sequence[Vector | None],
        shelf: _Shelf,
        outcome: Outcome,
        fresh: Cost | None,
        *,
        asks: int = 1,
    ) -> Assembled:
        """The reply to an ask each of whose vectors is there; `fresh` is the call made for it, if one was."""
        there = [vector for vector in vectors if vector is not None]
        stored = shelf.stale | shelf.fresh
        used = [
            stored[plan.key]
            for plan, vector in zip(call.plans, there, strict=True)
            if fresh is None or vector.cost.call != fresh.call
        ]
        made = Made(call.embed, there, fresh, call.trail.elapsed_s())
        return Assembled(
            body=call.dialect.whole(made),
            outcome=outcome,
            entries=used,
            tier="none" if fresh else shelf.tier,
            saved_s=0.0 if fresh else seconds(made.stored),
            asks=asks,
        )

    async def _ask_ollama(self, call: EmbedCall, vectors: Sequence[Vector | None], shelf: _Shelf) -> EmbedServed:
        """Fetch what is missing, in one call; keep it; and put it in its place."""
        places = [place for place, vector in enumerate(vectors) if vector is None]
        in_part = len(places) < len(vectors)
        texts = [call.embed.inputs[place] for place in places]
        epoch = self.exact.epoch
        body = call.dialect.ask_for(call.body, texts) if in_part else call.body
        reply, asks = await self._ask_together(call, texts, body)
        if isinstance(reply, Passed):
            if not in_part:
                self._keep_behind(call, places, lambda: self._read(call, reply, texts), epoch, reply.source)
                return reply
            made = self._read(call, reply, texts)
            if not made:
                if reply.head.status != 200:
                    return reply
                await _drop(reply)
                return await self._fetch(call, lambda: call.body)  # what came cannot be part of a reply, so none is
        else:
            made = [reply.vectors[text] for text in texts]
        self._keep_behind(call, places, lambda: made, epoch, reply.source)
        filled = list(vectors)
        for place, vector in zip(places, made, strict=True):
            filled[place] = vector
        return self._assembled(call, filled, shelf, Outcome.MISS, made[0].cost, asks=asks)

    async def _ask_together(self, call: EmbedCall, texts: Sequence[str], body: bytes) -> tuple[Passed | Shared, int]:
        """Send what is missing, in one call with others' that wait for the same place; and for how many asks it was.

        If that call fails, each of its asks is sent by itself: one's bad text must not fail another, and everybody gets
        the error that is his own.
        """
        if call.company is None:
            return await self._fetch(call, lambda: body), 1
        member = Member(texts, body)
        batch, brought = await self.batches.send(call.company, member, lambda batch: self._send(call, batch), _abandon)
        if batch.asks > 1:
            call.trail.note("merged", str(batch.asks) if brought is not None else "failed")
        if brought is None:
            return await self._fetch(call, lambda: body), 1
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
        except UpstreamError:
            batch.close()
            if batch.asks == 1:
                raise
            return None
        if batch.asks == 1:
            return reply
        made = self._read(call, reply, batch.texts)
        await _drop(reply)
        return Shared(dict(zip(batch.texts, made, strict=True)), reply.source) if made else None

    async def _fetch(self, call: EmbedCall, body: Callable[[], bytes]) -> Passed:
        """Send a body and read the reply, up to `cache.answer_max` bytes."""
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

    def _read(self, call: EmbedCall, reply: Passed, texts: Sequence[str]) -> list[Vector]:
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
            return []
        times = Counter(texts)
        cost = Cost(secrets.token_hex(8), call.dialect.NAME, len(texts), final)
        return [Vector(spelt, cost, times[text]) for text, spelt in zip(texts, found, strict=True)]

    def _keep_behind(
        self, call: EmbedCall, places: Sequence[int], read: Callable[[], Sequence[Vector]], epoch: int, source: str
    ) -> None:
        """Write what `read` gives, one vector for each of the ask's `places`, behind the reply that `source` gave."""
        if len(self._keeping) >= KEEPING_MAX:
            self.metrics.fault(Fault.STORE_DROPPED)
            self.metrics.not_kept("busy")
            return
        plans = [call.plans[place] for place in places]
        task = asyncio.create_task(self._keep(call, plans, read, epoch, source))
        self._keeping.add(task)
        keys = {plan.key for plan in plans}
        self._landing.update(dict.fromkeys(keys, task))
        task.add_done_callback(lambda done: self._landed(done, keys))

    def _landed(self, task: asyncio.Task[None], keys: Iterable[str]) -> None:
        self._keeping.discard(task)
        for key in keys:
            if self._landing.get(key) is task:
                del self._landing[key]

    async def _keep(
        self, call: EmbedCall, plans: Sequence[Plan], read: Callable[[], Sequence[Vector]], epoch: int, source: str
    ) -> None:
        """Store the vectors of one call if they may be. All get one lifetime, so that their call stays whole.

        No template is in play here, so none can print the date.
        """
        vectors = read()
        if not vectors:
            return
        lifetime_s = keep.lifetime_s(call.plan, self.settings, spread=self.spread())
        reason = ""
        if lifetime_s < 1:
            reason = "ttl"
        elif not await self.models.still(call.embed.ask.model, call.identity, source):
            reason = "digest-changed"
        if reason:
            self.metrics.not_kept(reason)
            return
        now = self.clock.now()
        for plan, vector in {plan.key: (plan, vector) for plan, vector in zip(plans, vectors, strict=True)}.values():
            if epoch != self.exact.epoch:
                self.metrics.not_kept("purged")
                return
            entry = Entry(
                key=plan.key,
                check=plan.check,
                partition=plan.partition,
                scope="",
                digest=call.identity.digest,
                answer=answer_of(vector),
                made=now,
                expires=now + lifetime_s,
            )
            if not await self._put(entry, plan, epoch):
                return

    async def _put(self, entry: Entry, plan: Plan, epoch: int) -> bool:
        """Write one entry; False if Redis would not, or if somebody has purged since this epoch."""
        stale_s = max(plan.stale_if_error_s, self.settings.stale_if_error)
        try:
            size_bytes, now = await self.exact.put(entry, stale_s=stale_s)
            if now != epoch:  # maybe too early to find it, and maybe by another proxy
                await self.exact.delete(entry.key)
                self.metrics.not_kept("purged")
                return False
        except CacheError:
            self.metrics.fault(Fault.STORE_FAILED)
            self.metrics.not_kept("redis")
            return False
        self.memory.put(entry, size_bytes)
        self.metrics.kept(size_bytes)
        return True


async def _abandon(brought: Brought) -> None:
    if isinstance(brought, Passed):
        await _drop(brought)


async def _drop(reply: Passed) -> None:
    """Be done with a reply of which nothing more is wanted."""
    if reply.rest is not None:
        await reply.rest.reply.close()


def _vector(entry: Entry | None) -> Vector | None:
    try:
        return None if entry is None else vector_of(entry.answer)
    except ValueError:
        return None  # written by another program, or another version of this one
