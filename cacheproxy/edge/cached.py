"""One cacheable call: bounded read, parse, admit, serve, reply; and exactly one count of how it was answered.

What cannot or must not take part in the cache is handed to the passthrough with the bytes already read, so nothing a
client may send to Ollama is refused here for the cache's sake.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from cacheproxy.clock import Clock
from cacheproxy.config import Config
from cacheproxy.edge import headers, reply
from cacheproxy.edge.admission import Admission, unloads
from cacheproxy.edge.body import Body, read_body
from cacheproxy.edge.calls import Calls
from cacheproxy.edge.plain import error_reply
from cacheproxy.edge.refusal import unanswered
from cacheproxy.edge.replay import Replay
from cacheproxy.edge.request import looked_up
from cacheproxy.edge.tally import Tally
from cacheproxy.errors import UpstreamBrokenError, UpstreamError
from cacheproxy.flow.feedback import Feedback
from cacheproxy.flow.found import Absent, Hit, Kin, Looked, Relay
from cacheproxy.flow.record import Recorder
from cacheproxy.flow.serve import Call, Serve
from cacheproxy.metrics import Fault, Metrics
from cacheproxy.model import Ask, Outcome
from cacheproxy.rules.question import Template
from cacheproxy.trail import Trail
from cacheproxy.upstream.fleet import Fleet
from cacheproxy.wire.dialects import Dialect

ERRANDS_MAX = 64
"""Things done behind the replies of hits at once (unloading a model, noting what was served); more are left out."""


@dataclass(frozen=True, slots=True)
class Cached:
    """Handler of the paths that have a dialect."""

    calls: Calls
    admission: Admission
    replay: Replay
    serve: Serve
    fleet: Fleet
    config: Config
    metrics: Metrics
    clock: Clock
    templates: Sequence[Template]
    feedback: Feedback
    _errands: set[asyncio.Task[None]] = field(default_factory=set)

    async def handle(self, request: web.BaseRequest, dialect: Dialect) -> web.StreamResponse:
        """Answer one call. Raises CallerError for a body that does not come as it should."""
        looked = looked_up(request)
        body = await read_body(request, self.config.cache.body_max, self.config.server)
        await self.fleet.models.wait_settled()
        generation = self.admission.generation()
        trail = Trail(self.clock) if looked is None else looked.trail
        with self.calls.one(request, dialect.NAME, trail) as tally:
            call = await self._admit(request, body, dialect, trail, tally, looked=looked)
            if isinstance(call, str):
                response = await self.calls.around(request, body, call, tally)
            else:
                response = await self._serve(request, call, generation, dialect, tally)
            tally.replied(response)
            return response

    async def _admit(
        self,
        request: web.BaseRequest,
        body: Body,
        dialect: Dialect,
        trail: Trail,
        tally: Tally,
        *,
        looked: Looked | None,
    ) -> Call | str:
        """The call as the cache will treat it, or the reason to go around it."""
        admitted = await self.admission.admit(request, body, dialect, trail, tally)
        if isinstance(admitted, str):
            return admitted
        ask, plan, identity = admitted.ask, admitted.plan, admitted.identity
        reason = self.calls.reason(request, ask, plan, identity)
        if reason or identity is None:
            body.prefix = admitted.forward
            return reason
        return Call(
            ask=ask,
            plan=plan,
            plan_near=lambda: self.admission.admit_near(admitted, identity, self.templates),
            identity=identity,
            looked=looked,
            fetch=lambda: self.calls.fetch(request, ask, identity, lambda: ask.sent(admitted.forward), trail),
            recorder=lambda: Recorder(dialect.fold(), bytes_max=self.config.cache.answer_max),
            trail=trail,
        )

    async def _serve(
        self, request: web.BaseRequest, call: Call, generation: int, dialect: Dialect, tally: Tally
    ) -> web.StreamResponse:
        if call.ask.dropped:
            self.metrics.dropped(call.ask.dropped)
        try:
            found = await self.serve.serve(call)
        except UpstreamError as error:
            return unanswered(request, error, call.plan, self.metrics)
        tally.outcome = found.outcome
        if isinstance(found, Absent):
            return reply.absent(request)
        extra = headers.trail(call.trail) if self.config.cache.headers == "trail" else ()
        extra += headers.dropped(call.ask)
        caller = reply.Caller(request, call.ask, dialect, extra)
        with call.trail.timed("reply"):
            if isinstance(found, Hit):
                tally.hit(found, self.clock)
                self._after_hit(call, found)
                return await self.replay.send(
                    caller,
                    found,
                    generation=generation,
                    plan=call.plan,
                    identity=call.identity,
                    tally=tally,
                    trail=call.trail,
                )
            if found.kin is not None:
                tally.entry = found.kin.answered.entry_id
            return await self._relay(caller, found, call)

    async def _relay(self, caller: reply.Caller, found: Relay, call: Call) -> web.StreamResponse:
        if found.follower.flight.head.status >= 500:
            self.metrics.fault(Fault.UPSTREAM_ERROR)
        try:
            if found.kin is not None:
                self._after_near_join(call, found.kin)
            return await reply.send_relay(caller, found, call.plan, self.clock)
        except UpstreamBrokenError:
            refusal = error_reply(caller.request.path, 502, "the answer of Ollama's that this ask had joined broke off")
            refusal.add_headers(headers.relayed(found.outcome, call.plan, found.follower.flight.head.status))
            return refusal
        finally:
            if found.follower.flight.reason == "broken":
                self.metrics.fault(Fault.UPSTREAM_BROKEN)
            self.serve.flights.leave(found.follower)
            if found.outcome is Outcome.JOINED:
                self.unload_behind(call.ask)

    def _after_hit(self, call: Call, found: Hit) -> None:
        """Run the errands of a hit behind the reply."""
        self.unload_behind(call.ask)
        if found.outcome is Outcome.SEMANTIC:
            self._run(self.feedback.remember(found.entry, found.question))

    def _after_near_join(self, call: Call, kin: Kin) -> None:
        """Count it, and note who got whose answer, so that it can be taken back."""
        self.metrics.near_joined()
        answered = kin.answered
        self._run(
            self.feedback.note(answered.entry_id, answered.scope, answered.text, kin.asked, ttl_s=call.plan.ttl_s)
        )

    def unload_behind(self, ask: Ask) -> None:
        """Unload the model behind a reply that was not asked for, if the ask says `keep_alive: 0`."""
        if unloads(ask.keep_alive):
            self._run(self._unload(ask.model))

    def _run(self, errand: Coroutine[Any, Any, None]) -> None:
        """Do something behind the reply; beyond `ERRANDS_MAX` at once it is left out."""
        if len(self._errands) >= ERRANDS_MAX:
            errand.close()
            return
        task = asyncio.create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    async def _unload(self, model: str) -> None:
        try:
            await self.fleet.unload(model)
        except UpstreamError:
            self.metrics.fault(Fault.UPSTREAM_UNREACHABLE)
