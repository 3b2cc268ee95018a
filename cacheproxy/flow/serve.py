"""The story of one ask: memory, Redis, an answer near enough, a flight already under way, Ollama.

Everything it calls does one thing; what the cache cannot do is noted in the trail and costs a step, never the answer.
Refuses to know HTTP: it says what was found, and the edge words it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from cacheproxy.clock import Clock
from cacheproxy.errors import CacheError, EntryCorruptError, UpstreamUnreachableError
from cacheproxy.flow.coalesce import Fetch, Flights, Follower
from cacheproxy.flow.keep import Asked, Keeper
from cacheproxy.flow.near import Near, Nearness
from cacheproxy.flow.record import Recorder
from cacheproxy.metrics import Fault, Metrics
from cacheproxy.model import Ask, Entry, Identity, NearPlan, Outcome, Plan
from cacheproxy.store.exact import Exact
from cacheproxy.store.memory import Memory
from cacheproxy.trail import Trail


@dataclass(frozen=True, slots=True)
class Call:
    """A cacheable ask with all it takes to answer it; `recorder` makes a recorder for what `fetch` brings."""

    ask: Ask
    plan: Plan
    plan_near: Callable[[], Awaitable[NearPlan]]
    """Decides about near answers; called only when there is no exact one."""
    identity: Identity
    fetch: Fetch
    recorder: Callable[[], Recorder]
    trail: Trail


@dataclass(frozen=True, slots=True)
class Hit:
    """An entry to replay. `tier` is where it was found."""

    entry: Entry
    outcome: Outcome
    tier: str
    similarity: float = 1.0
    """Of the question asked to the one that was answered; 1 for exact hits."""
    threshold: float = 1.0
    question: str = ""
    """The question asked, where that is not the one that was answered."""

    @classmethod
    def near(cls, nearness: Nearness) -> Hit:
        """A semantic hit. What belongs to the other question alone (its tokens as context) is cut."""
        assert nearness.match is not None  # noqa: S101 - it is served
        entry = nearness.match.entry
        answer = replace(entry.answer, context=None, logprobs=())
        return cls(
            replace(entry, answer=answer),
            Outcome.SEMANTIC,
            "redis",
            similarity=nearness.match.similarity,
            threshold=nearness.plan.threshold,
            question=nearness.plan.question,
        )


@dataclass(frozen=True, slots=True)
class Relay:
    """A flight to follow; its head has come. `started`: this ask is the one that asked Ollama."""

    follower: Follower
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Absent:
    """Nothing stored, and the caller wants nothing else (`only-if-cached`)."""

    outcome: Outcome = Outcome.MISS


Served: TypeAlias = Hit | Relay | Absent


@dataclass(frozen=True, slots=True)
class Serve:
    """The parts of the story, joined once by `app.py`."""

    memory: Memory
    exact: Exact
    near: Near
    flights: Flights
    keeper: Keeper
    metrics: Metrics
    clock: Clock

    async def serve(self, call: Call) -> Served:
        """Answer a cacheable ask. Raises UpstreamError where Ollama must be asked and cannot be.

        A `Relay` holds a follower: the caller must leave it through `flights.leave`.
        """
        plan, trail = call.plan, call.trail
        await self.flights.wait_landed(self.flight_key(plan), plan.needs)
        found = await self._look_up(plan, trail) if plan.read else None
        if found is not None and found.outcome is Outcome.EXACT:
            return found

        near = await self._look_near(call)
        if near.acceptable and self.near.serves:
            return Hit.near(near)
        if plan.only_if_cached:
            return Absent()

        try:
            return await self._ask_ollama(call, near)
        except UpstreamUnreachableError:
            if found is None:
                raise
            trail.note("upstream", "away")
            return found

    def flight_key(self, plan: Plan) -> str:
        """Who shares it may share a flight: its ask is proven as an entry's is, and no purge lies between."""
        return f"{plan.key} {plan.check.hex()} {self.exact.epoch}"

    async def _look_near(self, call: Call) -> Nearness:
        """What is known of near answers; nothing if the ask is just being answered, for it will join that."""
        if self.flights.flying(self.flight_key(call.plan), call.plan.needs):
            return Nearness(NearPlan(off="in-flight"))
        return await self.near.look(await call.plan_near(), call.plan, call.trail)

    async def _ask_ollama(self, call: Call, near: Nearness) -> Relay:
        """Follow the flight for this ask, starting one if there is none, until its head has come."""
        asked = Asked(self.exact.epoch, self.clock.now())
        follower, started = self.flights.follow(
            self.flight_key(call.plan),
            call.ask,
            call.recorder(),
            call.fetch,
            lambda flight: self.keeper.keep(flight, call.plan, near, call.identity, asked),
            needs=call.plan.needs,
        )
        began_s = self.clock.monotonic()
        try:
            head = await follower.wait_head()
        except BaseException:
            self.flights.leave(follower)
            raise
        finally:
            sent_s = began_s + call.trail.timings_s.get("queue", 0.0)
            call.trail.mark("upstream_first_byte", max(0.0, self.clock.monotonic() - sent_s))
        call.trail.note("upstream" if started else "joined", str(head.status))
        return Relay(follower, Outcome.MISS if started else Outcome.JOINED)

    async def _look_up(self, plan: Plan, trail: Trail) -> Hit | None:
        """The entry for a plan: fresh (`exact`), or expired but good enough if Ollama is away (`stale`)."""
        with trail.timed("memory"):
            entry = self.memory.get(plan)
        trail.note("memory", "no" if entry is None else "hit")
        if entry is not None:
            return Hit(entry, Outcome.EXACT, "memory")
        clears = self.memory.clears
        try:
            with trail.timed("exact"):
                entry, size_bytes = await self.exact.get(plan)
        except EntryCorruptError:
            self.metrics.fault(Fault.ENTRY_CORRUPT)
            trail.note("exact", "corrupt")
            return None
        except CacheError:
            self.metrics.fault(Fault.REDIS_UNAVAILABLE)
            trail.note("exact", "away")
            return None
        if entry is None:
            trail.note("exact", "no")
            return None
        hit = self._judge(entry, plan, trail)
        if hit is not None and hit.outcome is Outcome.EXACT and clears == self.memory.clears:
            self.memory.put(entry, size_bytes)
        return hit

    def _judge(self, entry: Entry, plan: Plan, trail: Trail) -> Hit | None:
        """Whether an entry found by its key is the plan's, young enough, and tells all the plan needs."""
        now = self.clock.now()
        if not self.exact.proves(entry, plan):
            self.metrics.fault(Fault.CHECK_MISMATCH)
            trail.note("exact", "check-mismatch")
            return None
        if plan.max_age_s is not None and now - entry.made > plan.max_age_s:
            trail.note("exact", "too-old")
            return None
        if entry.answer.missing & plan.needs:
            trail.note("exact", "lacks-" + min(entry.answer.missing & plan.needs))
            return None
        if entry.expires > now:
            trail.note("exact", "hit")
            return Hit(entry, Outcome.EXACT, "redis")
        trail.note("exact", "expired")
        return Hit(entry, Outcome.STALE, "redis") if now - entry.expires <= plan.stale_if_error_s else None
