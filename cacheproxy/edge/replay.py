"""A hit on its way to the caller, and to the repeat lane where the same request would get it again.

Refuses to know how a hit was found, and to count it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

from aiohttp import web

from cacheproxy.clock import Clock
from cacheproxy.config import Config
from cacheproxy.edge import headers, reply
from cacheproxy.edge.admission import Names, Running, Said, unloads
from cacheproxy.edge.fixed import Sent, is_plain
from cacheproxy.edge.lane import Arrival, Lane, Repeatable
from cacheproxy.edge.server import Body, arrival
from cacheproxy.edge.tally import Tally
from cacheproxy.flow.found import Hit
from cacheproxy.model import Identity, Outcome, Plan
from cacheproxy.trail import Trail
from cacheproxy.upstream.tuning import Fills
from cacheproxy.wire.dialects import UNIQUE_IDS

REPEATED, SAID_AGAIN = "lane:hit", "lane:said"
"""Trails of hits from a record: the same bytes, and other bytes that say the same."""


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

    async def again(self, request: web.BaseRequest, body: Body, said: Said) -> web.StreamResponse | None:
        """The reply to a request that says what one before said, if it would get the same hit; told by the lane."""
        began = perf_counter()
        record = self.lane.find(said) if self.lane is not None and body.complete and is_plain(request) else None
        if record is None or self.lane is None:
            return None
        self._learn(arrival(request), record.hit, record.reply_bytes)
        reply = await Sent.send(request, record.writes)
        self.lane.count(record, perf_counter() - began)
        return reply

    async def send(
        self,
        caller: reply.Caller,
        found: Hit,
        said: Said,
        *,
        plan: Plan,
        identity: Identity,
        tally: Tally,
        trail: Trail,
    ) -> web.StreamResponse:
        """Reply with a hit for `plan`."""
        form = reply.Form.of(caller)
        fixed = form.hit(found, self.clock.now())
        lane = self.lane
        current = lane is not None and said.generation == lane.generation
        if lane is not None and current and self._repeats(caller, found, plan, identity):
            ask = caller.ask  # not the caller: a record must not hold the request
            repeatable = Repeatable(
                found.entry,
                self.flight_key(plan),
                tally.decision(caller.dialect.NAME, trail, self.clock),
                lambda now: (form.hit(found, now).writes(), headers.alike_until(found.entry, now)),
                lambda: self.running.note(identity, ask),
            )
            lane.learn(said, repeatable, SAID_AGAIN, key_bytes=len(said.body), reply_bytes=fixed.size_bytes)
            self._learn(arrival(caller.request), repeatable, fixed.size_bytes)
        return await fixed.send(caller.request)

    def _learn(self, arrived: Arrival | None, hit: Repeatable, reply_bytes: int) -> None:
        """Repeat the hit for the very bytes of a request, if the lane may."""
        if self.lane is not None and arrived is not None:
            request = arrived.request
            size_bytes = len(request)
            self.lane.learn(request, hit, REPEATED, key_bytes=size_bytes, reply_bytes=reply_bytes, head=arrived.head)

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
