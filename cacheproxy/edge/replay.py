"""A hit on its way to the caller, and to the repeat lane where the same bytes would get it again.

Refuses to know how a hit was found, and to count it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from aiohttp import web

from cacheproxy.clock import Clock
from cacheproxy.config import Config
from cacheproxy.edge import headers, reply
from cacheproxy.edge.admission import Names, Running, unloads
from cacheproxy.edge.lane import Lane, Repeatable
from cacheproxy.edge.server import arrival
from cacheproxy.edge.tally import Tally
from cacheproxy.flow.found import Hit
from cacheproxy.model import Identity, Outcome, Plan
from cacheproxy.trail import Trail
from cacheproxy.upstream.tuning import Fills
from cacheproxy.wire.dialects import UNIQUE_IDS


@dataclass(frozen=True, slots=True)
class Replay:
    """What it takes. `flight_key` tells under which key an answer to the ask of a plan would be under way."""

    lane: Lane | None
    """Learns hits that it may repeat; None: there is none."""
    names: Names
    running: Running
    fills: Fills
    config: Config
    flight_key: Callable[[Plan], str]
    clock: Clock

    async def send(
        self, caller: reply.Caller, found: Hit, *, plan: Plan, identity: Identity, tally: Tally, trail: Trail
    ) -> web.StreamResponse:
        """Reply with a hit for `plan`."""
        form = reply.Form.of(caller)
        fixed = form.hit(found, self.clock.now())
        arrived = arrival(caller.request)
        if self.lane is not None and arrived is not None and self._repeats(caller, found, plan, identity):
            told = tally.decision(caller.dialect.NAME, trail, self.clock)
            ask = caller.ask  # not the caller: a record must not hold the request
            repeatable = Repeatable(
                found.entry,
                self.flight_key(plan),
                replace(told, trail="lane:hit", timings_s={}),
                lambda now: (form.hit(found, now).writes(), headers.alike_until(found.entry, now)),
                lambda: self.running.note(identity, ask),
            )
            self.lane.learn(arrived, repeatable, fixed.size_bytes)
        return await fixed.send(caller.request)

    def _repeats(self, caller: reply.Caller, found: Hit, plan: Plan, identity: Identity) -> bool:
        """Whether the same bytes get this hit again as long as entry and models stay, and nothing else is to be done.

        What Ollama has loaded must not matter to how the ask is read, nor the time to whether the entry is too old.
        """
        fill = self.fills.of(identity.short)
        return (
            (found.outcome, found.tier) == (Outcome.EXACT, "memory")
            and plan.max_age_s is None
            and not unloads(caller.ask.keep_alive)
            and caller.ask.dialect not in UNIQUE_IDS
            and self.config.cache.headers != "trail"
            and not (self.config.context.budget or fill.pins_num_ctx)
            and self.names.identify(caller.ask.model) == identity
        )
