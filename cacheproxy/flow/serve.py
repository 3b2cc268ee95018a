"""The story of one ask: memory, Redis, an answer near enough, a flight already under way, Ollama.

Everything it calls does one thing; what the cache cannot do is noted in the trail and costs a step, never the answer.
Refuses to know HTTP: it says what was found, and the edge words it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from cacheproxy.clock import Clock
from cacheproxy.errors import UpstreamError, UpstreamUnreachableError
from cacheproxy.flow.coalesce import Fetch, Flights, Follower
from cacheproxy.flow.found import Absent, Found, Hit, Kin, Looked, Relay
from cacheproxy.flow.keep import AskedAt, Keeper
from cacheproxy.flow.lookup import LookUp
from cacheproxy.flow.near import Near, Nearness
from cacheproxy.flow.nearby import Question
from cacheproxy.flow.record import Recorder
from cacheproxy.model import Ask, Identity, NearPlan, Outcome, Plan
from cacheproxy.store.exact import Exact
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
    looked: Looked | None = None
    """A look-up by key that was made already, maybe for an earlier plan."""


@dataclass(frozen=True, slots=True)
class Serve:
    """The parts of the story, joined once by `whole/answering.py`."""

    lookup: LookUp
    exact: Exact
    near: Near
    flights: Flights
    keeper: Keeper
    clock: Clock

    async def serve(self, call: Call) -> Found:
        """Answer a cacheable ask. Raises UpstreamError where Ollama must be asked and cannot be.

        A `Relay` holds a follower: the caller must leave it through `flights.leave`.
        """
        plan, trail = call.plan, call.trail
        if call.looked is None:  # else there would be no second look, and joining what lands is as good
            await self.flights.wait_landed(self.flight_key(plan), plan.needs)
        found = await self.lookup.look(plan, trail, call.looked) if plan.read else None
        if found is not None and found.outcome is Outcome.EXACT:
            return found

        near = await self._look_near(call)
        if (landed := self._landed(call, near)) is not None:
            return landed
        if near.acceptable and self.near.serves:
            assert near.match is not None  # noqa: S101 - it is served
            return Hit.near(near.match, near.plan)
        if plan.only_if_cached:
            return Absent()

        try:
            return await self._join_near(call, near) or await self._ask_ollama(call, near)
        except UpstreamUnreachableError:
            if found is None:
                raise
            trail.note("upstream", "away")
            return found

    def _landed(self, call: Call, near: Nearness) -> Hit | None:
        """The answer to an equal ask, where that was kept while this one looked."""
        if not call.plan.read:
            return None
        entry = self.lookup.memory.get(call.plan)
        if entry is None:
            return Hit(near.itself, Outcome.EXACT, "redis") if near.itself is not None else None
        call.trail.note("memory", "landed")
        return Hit(entry, Outcome.EXACT, "memory")

    def is_under_way(self, plan: Plan) -> bool:
        """Whether an equal ask is being answered right now, so that this one would join it."""
        return self.flights.flying(self.flight_key(plan), plan.needs)

    def flight_key(self, plan: Plan) -> str:
        """Who shares it may share a flight: its ask is proven as an entry's is, and no purge lies between."""
        return f"{plan.key} {plan.check.hex()} {self.exact.epoch}"

    async def _look_near(self, call: Call) -> Nearness:
        """What is known of near answers; nothing if the ask is just being answered, for it will join that."""
        if self.is_under_way(call.plan):
            return Nearness(NearPlan(off="in-flight"))
        return await self.near.look(await call.plan_near(), call.plan, call.trail)

    async def _join_near(self, call: Call, near: Nearness) -> Relay | None:
        """Follow a flight of a question that means the same, if there is one and it begins well.

        If it fails before anything of it has been passed on, the ask goes to Ollama as if there had been none: what
        went wrong may lie with the other question, and this one's caller must get its own error.
        """
        plan, trail = call.plan, call.trail
        if not near.embedded.fits or self.is_under_way(plan):
            return None
        kin = self.kin(plan, near, trail)
        if kin is None:
            return None
        follower = self.flights.join(kin.flight)
        try:
            with trail.timed("upstream_first_byte"):
                good = await self._begins_well(follower, call)
        except UpstreamError:
            good = False
        except BaseException:
            self.flights.leave(follower)
            raise
        trail.note("joined", str(kin.flight.head.status) if good else "failed")
        if good:
            trail.neighbour = self.near.joined(kin)
            return Relay(follower, Outcome.JOINED, kin)
        self.flights.leave(follower)
        return None

    def kin(self, plan: Plan, near: Nearness, trail: Trail) -> Kin | None:
        """The question that is being answered right now and means the same, if there is one."""
        return self.near.kin(near, self._in_flight(plan, near), plan, self.flights, trail)

    async def _begins_well(self, follower: Follower, call: Call) -> bool:
        """Whether the flight of another question can answer the ask; for what is no stream, once all of it is there."""
        flight = follower.flight
        if (await follower.wait_head()).status != 200:
            return False
        if call.ask.stream and flight.ask.stream and not flight.ended:
            return True
        answer = await follower.wait_end()
        return answer is not None and not answer.missing & call.plan.needs and not self.keeper.refuses(answer)

    def _in_flight(self, plan: Plan, near: Nearness) -> Question | None:
        return near.in_flight(plan.entry_id, self.exact.epoch)

    async def _ask_ollama(self, call: Call, near: Nearness) -> Relay:
        """Follow the flight for this ask, starting one if there is none, until its head has come."""
        asked = AskedAt(self.exact.epoch, self.clock.now())
        follower, started = self.flights.follow(
            self.flight_key(call.plan),
            call.ask,
            call.recorder(),
            call.fetch,
            lambda flight: self.keeper.keep(flight, call.plan, near, call.identity, asked),
            needs=call.plan.needs,
            question=self._in_flight(call.plan, near) if self.near.joins else None,
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
