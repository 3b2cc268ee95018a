"""A look-up and its reply for an ask whose plan is known, before the server has a task or a request object for it.

The same look-up, the same rendering and the same count as on the long way (`cached.py`, `front.py`), which goes on with
what was found here where that is no reply yet. A hit that Redis has just given is repeated while Redis says the same of
it, letter by letter: then there is nothing to read, to prove or to render, and such hits are counted together as those
of the repeat lane are. Refuses to plan, and to ask Ollama.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from cacheproxy.clock import Clock
from cacheproxy.decisions import Decisions
from cacheproxy.edge.lane import BYTES_MAX, Record, Repeatable
from cacheproxy.edge.plans import Last, Planned, Plans
from cacheproxy.edge.tally import Tally
from cacheproxy.flow.found import Hit, Looked
from cacheproxy.flow.lookup import LookUp
from cacheproxy.model import Ask, Decision, Identity, Outcome
from cacheproxy.store.exact import Values
from cacheproxy.trail import Trail

SAME = "plan:known exact:same"
"""Trail of a hit that is repeated, for Redis held what it held for the last."""
LAST_BYTES = 2_900
"""Python objects around a hit that may be repeated, besides three times what Redis holds of it and once its reply:
measured with tracemalloc over 200 short chats on CPython 3.11 (4.9 kB each, all told; 0.4 kB of it in Redis)."""


@dataclass(frozen=True, slots=True)
class Sought:
    """A reply to a request that waits for one. `tell` counts it; call it once that is on its way or its caller gone."""

    writes: Sequence[bytes]
    tell: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Seek:
    """What it takes. `step` gets the name and the seconds of each timed step of a hit.

    `note` hears what the caller of an ask chose itself of a model; `count` gets each hit that is repeated, with its
    seconds.
    """

    lookup: LookUp
    plans: Plans
    decisions: Decisions
    clock: Clock
    step: Callable[[str, float], None]
    note: Callable[[Identity, Ask], None]
    count: Callable[[Record, float], None]

    async def seek(self, planned: Planned, ask: Ask, read_s: float) -> Sought | Looked:
        """The reply from memory or Redis, if there is one that goes out at once; else what was found.

        `ask`: as its caller put it; `read_s`: what reading it took. Waits for Redis as long as `redis.timeout`. Steps
        are told with the reply, or by the long way, which goes on with what was found; a search that is broken off
        tells none.
        """
        self.note(planned.identity, ask)
        began_s, last = self.clock.monotonic(), planned.last
        if last is None:
            return await self._look(planned, self._trail(began_s, read_s))
        same = await self.lookup.holds(planned.plan, last.values)
        if same and last.record.hit.entry.expires > (now := self.clock.now()):
            return self._again(last.record, now, began_s)
        trail = self._trail(began_s, read_s)
        trail.mark("exact", self.clock.monotonic() - began_s)
        if same is None:
            trail.note("exact", "away")
            return Looked(planned.plan, None, trail)
        trail.note("exact", "over" if same else "other")
        self.plans.drop_last(planned, last)
        return await self._look(planned, trail)

    async def _look(self, planned: Planned, trail: Trail) -> Sought | Looked:
        found = await self.lookup.look(planned.plan, trail)
        if found is None or found.outcome is not Outcome.EXACT:
            return Looked(planned.plan, found, trail)
        rendering_s = self.clock.monotonic()
        writes = planned.form.hit(found, self.clock.now()).writes()
        reply_bytes = sum(map(len, writes))
        if reply_bytes > BYTES_MAX:
            return Looked(planned.plan, found, trail)
        trail.mark("reply", self.clock.monotonic() - rendering_s)
        return Sought(writes, lambda: self._tell(planned, found, trail, reply_bytes))

    def _trail(self, began_s: float, read_s: float) -> Trail:
        trail = Trail(self.clock)
        trail.began = began_s
        trail.note("plan", "known")
        trail.mark("parse", read_s)
        return trail

    def _again(self, record: Record, now: float, began_s: float) -> Sought:
        """The last hit once more."""
        took_s = self.clock.monotonic() - began_s
        record.refresh(now)
        return Sought(record.writes, lambda: self._count(record, began_s, took_s))

    def _count(self, record: Record, began_s: float, took_s: float) -> None:
        self.step("exact", took_s)
        self.count(record, self.clock.monotonic() - began_s)

    def _tell(self, planned: Planned, hit: Hit, trail: Trail, reply_bytes: int) -> None:
        trail.tell_to(self.step)
        tally = Tally(model=planned.identity.short, partition=planned.plan.partition, at_once=True)
        tally.hit(hit, self.clock)
        decision = tally.decision(planned.form.dialect.NAME, trail, self.clock)
        self.decisions.tell(decision)
        if hit.values is not None and not planned.unrepeatable:
            self._remember(planned, hit, hit.values, decision, reply_bytes)

    def _remember(self, planned: Planned, hit: Hit, values: Values, decision: Decision, reply_bytes: int) -> None:
        held_bytes = sum(map(len, filter(None, values)))
        if self.lookup.memory.takes(held_bytes):
            return
        repeatable = Repeatable(hit.entry, planned.identity, decision, partial(planned.form.repeat, hit))
        size_bytes = LAST_BYTES + 3 * held_bytes + reply_bytes
        self.plans.keep_last(planned, Last(values, Record(repeatable, SAME, size_bytes=size_bytes)))
