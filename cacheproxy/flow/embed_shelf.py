"""The vectors of texts as they are stored: looked up, and kept, each under its own key.

    look-up:  texts ──► memory ──► Redis, one round trip for the rest
    keeping:  behind the reply; who asks for such a text meanwhile waits a moment for it

What the cache cannot do is noted in the trail, counted, and costs a look-up or an entry, never the reply. Refuses to
know what is done about texts that are not there.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field

from cacheproxy.clock import Clock
from cacheproxy.config import Cache
from cacheproxy.errors import CacheError
from cacheproxy.flow.coalesce import LANDING_S_MAX, Reply
from cacheproxy.flow.storing import store
from cacheproxy.metrics import Fault, Metrics
from cacheproxy.model import Entry, Identity, Plan
from cacheproxy.rules import keep
from cacheproxy.rules.standing import CHECK_MISMATCH, EXPIRED, HIT, standing
from cacheproxy.store.exact import Exact
from cacheproxy.store.memory import Memory
from cacheproxy.trail import Trail
from cacheproxy.upstream.catalog import Catalog
from cacheproxy.wire.dialects import EmbedDialect
from cacheproxy.wire.embedding import EmbedAsk, Vector, answer_of, vector_of

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


@dataclass(slots=True)
class OnShelf:
    """What is stored of an ask's texts, by key."""

    fresh: dict[str, Entry] = field(default_factory=dict)
    stale: dict[str, Entry] = field(default_factory=dict)
    """Expired, but good enough if Ollama is away."""
    tier: str = "memory"
    """The farthest tier that gave something."""


@dataclass(frozen=True, slots=True)
class VectorShelf:
    """Where vectors lie. `spread` gives random numbers in 0..1 for the jitter of lifetimes."""

    memory: Memory
    exact: Exact
    models: Catalog
    settings: Cache
    metrics: Metrics
    clock: Clock
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

    async def wait_landed(self, plans: Sequence[Plan]) -> None:
        """If one of the vectors is just being written, wait for that, at most `LANDING_S_MAX`."""
        if landing := {self._landing[plan.key] for plan in plans if plan.key in self._landing}:
            await asyncio.wait(landing, timeout=LANDING_S_MAX)

    async def look_up(self, call: EmbedCall) -> OnShelf:
        """What is stored of the ask's texts and young enough for it; raises nothing."""
        on_shelf = OnShelf()
        plans = {plan.key: plan for plan in call.plans}
        with call.trail.timed("memory"):
            for key, plan in plans.items():
                if (entry := self.memory.get(plan)) is not None:
                    on_shelf.fresh[key] = entry
        call.trail.note("memory", f"{len(on_shelf.fresh)}/{len(plans)}")
        missing = [plan for key, plan in plans.items() if key not in on_shelf.fresh]
        if not missing:
            return on_shelf
        clears = self.memory.clears
        try:
            with call.trail.timed("exact"):
                found, corrupt = await self.exact.get_many(missing)
        except CacheError:
            self.metrics.fault(Fault.REDIS_UNAVAILABLE)
            call.trail.note("exact", "away")
            return on_shelf
        for _ in range(corrupt):
            self.metrics.fault(Fault.ENTRY_CORRUPT)
        here = len(on_shelf.fresh)
        for plan, (entry, size_bytes) in zip(missing, found, strict=True):
            if entry is not None:
                self._judge(entry, plan, on_shelf)
                if plan.key in on_shelf.fresh and clears == self.memory.clears:
                    self.memory.put(entry, size_bytes)
        call.trail.note("exact", f"{len(on_shelf.fresh) - here}/{len(missing)}")
        return on_shelf

    def _judge(self, entry: Entry, plan: Plan, on_shelf: OnShelf) -> None:
        """Put an entry found by its key on the shelf if it is the plan's and young enough."""
        now = self.clock.now()
        word = standing(entry, plan, now)
        if word == CHECK_MISMATCH:
            self.metrics.fault(Fault.CHECK_MISMATCH)
        elif word == HIT:
            on_shelf.fresh[plan.key] = entry
            on_shelf.tier = "redis"
        elif word == EXPIRED and now - entry.expires <= plan.stale_if_error_s:
            on_shelf.stale[plan.key] = entry
            on_shelf.tier = "redis"

    def usable(self, call: EmbedCall, entries: dict[str, Entry]) -> list[Vector | None]:
        """The stored vectors that the reply may use, in the order of the texts.

        None where they are more than `cache.answer_max` together: putting them together would hold up other callers.
        """
        vectors = [_vector(entries.get(plan.key)) for plan in call.plans]
        if sum(len(vector.text) for vector in vectors if vector is not None) > self.settings.answer_max:
            return [None] * len(vectors)
        return call.dialect.usable(list(zip(call.embed.inputs, vectors, strict=True)))

    def keep_behind(
        self, call: EmbedCall, plans: Sequence[Plan], read: Callable[[], Sequence[Vector]], epoch: int, source: str
    ) -> None:
        """Write what `read` gives, one vector for each of the ask's `plans`, behind the reply that `source` gave.

        `epoch` is that of the store when Ollama was asked: after a purge nothing older is written.
        """
        if len(self._keeping) >= KEEPING_MAX:
            self.metrics.fault(Fault.STORE_DROPPED)
            self.metrics.not_kept("busy")
            return
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
            written = await store(
                entry,
                plan,
                epoch,
                exact=self.exact,
                memory=self.memory,
                settings=self.settings,
                metrics=self.metrics,
            )
            if not written:
                return


def _vector(entry: Entry | None) -> Vector | None:
    try:
        return None if entry is None else vector_of(entry.answer)
    except ValueError:
        return None  # written by another program, or another version of this one
