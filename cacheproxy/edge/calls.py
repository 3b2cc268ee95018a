"""What all calls for answers and for vectors have in common: one count each, the way around the cache, and Ollama's.

Refuses to read a call, and to know what is stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import web

from cacheproxy.clock import Clock
from cacheproxy.decisions import Decisions
from cacheproxy.edge import headers
from cacheproxy.edge.body import Body
from cacheproxy.edge.passthrough import Passthrough
from cacheproxy.edge.plain import ASK_TRAIL
from cacheproxy.edge.request import header_pairs
from cacheproxy.edge.tally import InFlight, Tally
from cacheproxy.flow.coalesce import Reply
from cacheproxy.metrics import Metrics
from cacheproxy.model import Ask, Identity, Plan
from cacheproxy.trail import Trail
from cacheproxy.upstream.fleet import Fleet
from cacheproxy.upstream.member import Errand
from cacheproxy.upstream.order import Group
from cacheproxy.upstream.request import UpstreamRequest, loops
from cacheproxy.wire import runner


@dataclass(frozen=True, slots=True)
class Calls:
    """What it takes."""

    fleet: Fleet
    passthrough: Passthrough
    metrics: Metrics
    decisions: Decisions
    clock: Clock
    _now: InFlight = field(default_factory=InFlight)

    @property
    def in_flight(self) -> int:
        """Calls being answered right now."""
        return self._now.count

    @contextmanager
    def one(self, request: web.BaseRequest, dialect: str, trail: Trail) -> Iterator[Tally]:
        """One call, told as what its tally says when it has ended."""
        tally = Tally()
        request[ASK_TRAIL] = trail
        self._now.count += 1
        try:
            yield tally
        except asyncio.CancelledError:
            trail.note("reply", "cut")
            raise
        finally:
            self._now.count -= 1
            trail.tell_to(self.metrics.step)  # behind the reply, which waits for nothing that is only counted
            self.decisions.tell(tally.decision(dialect, trail, self.clock))

    def reason(self, request: web.BaseRequest, ask: Ask, plan: Plan, identity: Identity | None) -> str:
        """Why a planned ask goes around the cache, one word; empty if it does not.

        For an unknown name the list of models is read again; of a known model it is noted how long it shall stay.
        """
        if identity is None:
            self.fleet.models.unknown_nowait()
        elif not plan.cacheable:
            self.fleet.note_stay(identity, ask)
        elif "Via" in request.headers and loops(header_pairs(request), self.fleet.instance_id):
            return "loop"  # the passthrough words the refusal
        return plan.reason

    async def around(self, request: web.BaseRequest, body: Body, reason: str, tally: Tally) -> web.StreamResponse:
        """Answer a call that goes around the cache."""
        tally.bypass(reason)
        try:
            return await self.passthrough.handle(request, body, extra_headers=headers.bypassed(reason))
        finally:
            if reason == "load":
                self.fleet.forget_loaded()

    def fetch(
        self, request: web.BaseRequest, ask: Ask, identity: Identity, body: Callable[[], bytes], trail: Trail
    ) -> Awaitable[Reply]:
        """Ask Ollama: in turn, unless the model runs elsewhere. `body` is made when the turn has come."""
        self.fleet.note_stay(identity, ask)
        return self.fleet.send(
            lambda: UpstreamRequest(request.method, request.raw_path, header_pairs(request), body()),
            Errand(identity, group_of(ask, identity)),
            trail,
        )


def group_of(ask: Ask, identity: Identity) -> Group | None:
    """Whose place at Ollama an ask waits for; None where the model runs elsewhere."""
    return None if identity.remote else Group(identity.digest, runner.options(ask.body))
