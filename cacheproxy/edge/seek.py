"""A look-up and its reply for an ask whose plan is known, before the server has a task or a request object for it.

The same look-up, the same rendering and the same count as on the long way (`cached.py`, `front.py`), which goes on with
what was found here where that is no reply yet. Refuses to plan, and to ask Ollama.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cacheproxy.clock import Clock
from cacheproxy.decisions import Decisions
from cacheproxy.edge.lane import BYTES_MAX
from cacheproxy.edge.plans import Planned
from cacheproxy.edge.tally import Tally
from cacheproxy.flow.found import Hit, Looked
from cacheproxy.flow.lookup import LookUp
from cacheproxy.model import Outcome
from cacheproxy.trail import Trail


@dataclass(frozen=True, slots=True)
class Sought:
    """A reply to a request that waits for one. `tell` counts it; call it once the reply is on its way."""

    writes: Sequence[bytes]
    tell: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Seek:
    """What it takes. `step` gets the name and the seconds of each timed step of a hit."""

    lookup: LookUp
    decisions: Decisions
    clock: Clock
    step: Callable[[str, float], None]

    async def seek(self, planned: Planned, read_s: float) -> Sought | Looked:
        """The reply from memory or Redis, if there is one that goes out at once; else what was found.

        `read_s`: what reading the ask took. Waits for Redis as long as `redis.timeout`. Steps are told with the reply,
        or by the long way, which goes on with what was found; a search that is broken off tells none.
        """
        trail = Trail(self.clock)
        trail.note("plan", "known")
        trail.mark("parse", read_s)
        found = await self.lookup.look(planned.plan, trail)
        if found is None or found.outcome is not Outcome.EXACT:
            return Looked(planned.plan, found, trail)
        began_s = self.clock.monotonic()
        writes = planned.form.hit(found, self.clock.now()).writes()
        if sum(map(len, writes)) > BYTES_MAX:
            return Looked(planned.plan, found, trail)
        trail.mark("reply", self.clock.monotonic() - began_s)
        return Sought(writes, lambda: self._tell(planned, found, trail))

    def _tell(self, planned: Planned, hit: Hit, trail: Trail) -> None:
        trail.tell_to(self.step)
        tally = Tally(model=planned.identity.short, partition=planned.plan.partition, at_once=True)
        tally.hit(hit, self.clock)
        self.decisions.tell(tally.decision(planned.form.dialect.NAME, trail, self.clock))
