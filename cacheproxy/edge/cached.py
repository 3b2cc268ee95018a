"""One cacheable call: bounded read, parse, admit, serve, reply; and exactly one count of how it was answered.

What cannot or must not take part in the cache is handed to the passthrough with the bytes already read, so nothing a
client may send to Ollama is refused here for the cache's sake.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from aiohttp import web
from multidict import CIMultiDict

from cacheproxy.clock import Clock
from cacheproxy.config import Config, parse_duration
from cacheproxy.decisions import Decisions
from cacheproxy.edge import headers, reply
from cacheproxy.edge.lane import Lane, Repeatable
from cacheproxy.edge.passthrough import Gate, Passthrough
from cacheproxy.edge.server import Body, arrival, error_reply, header_pairs, read_body
from cacheproxy.edge.tally import Tally
from cacheproxy.errors import CallerError, UnkeyableError, UpstreamBrokenError, UpstreamBusyError, UpstreamError
from cacheproxy.flow.coalesce import Fetch, Reply
from cacheproxy.flow.feedback import Feedback
from cacheproxy.flow.record import Recorder
from cacheproxy.flow.serve import Absent, Call, Hit, Relay, Serve
from cacheproxy.metrics import Fault, Metrics
from cacheproxy.model import Ask, Identity, Outcome
from cacheproxy.rules import context
from cacheproxy.rules.admit import admit, admit_near
from cacheproxy.rules.controls import CONTROL_HEADERS, read_controls
from cacheproxy.rules.question import Template
from cacheproxy.trail import Trail
from cacheproxy.upstream import tuning
from cacheproxy.upstream.batcher import Batcher
from cacheproxy.upstream.client import UpstreamClient, UpstreamReply, UpstreamRequest, loops
from cacheproxy.upstream.loaded import Loaded
from cacheproxy.upstream.models import Models
from cacheproxy.upstream.order import Group
from cacheproxy.upstream.preload import Preloader
from cacheproxy.wire import runner
from cacheproxy.wire.dialects import UNIQUE_IDS, Dialect
from cacheproxy.wire.jsontext import write

ASIDE_ABOVE_BYTES = 512 * 1024
"""Larger bodies are read and keyed in a thread: it takes up to 15 ms a MiB, and others would wait for it."""
ERRANDS_MAX = 64
"""Things done behind the replies of hits at once (unloading a model, noting what was served); more are left out."""


_Result = TypeVar("_Result")


class InFlight:
    """How many calls are being answered."""

    def __init__(self) -> None:
        self.count = 0


@dataclass(frozen=True, slots=True)
class Cached:
    """Handler of the paths that have a dialect. `secret` gives the store's present secret."""

    serve: Serve
    models: Models
    loaded: Loaded
    preload: Preloader
    client: UpstreamClient
    batcher: Batcher
    passthrough: Passthrough
    gate: Gate
    config: Config
    metrics: Metrics
    decisions: Decisions
    clock: Clock
    templates: Sequence[Template]
    feedback: Feedback
    fills: tuning.Fills
    secret: Callable[[], bytes]
    lane: Lane | None = None
    """Learns hits that it may repeat; None: there is none."""
    _errands: set[asyncio.Task[None]] = field(default_factory=set)
    _now: InFlight = field(default_factory=InFlight)

    @property
    def in_flight(self) -> int:
        """Calls being answered right now."""
        return self._now.count

    async def handle(self, request: web.BaseRequest, dialect: Dialect) -> web.StreamResponse:
        """Answer one call. Raises CallerError for a body that does not come as it should."""
        body = await read_body(request, self.config.cache.body_max, self.config.server)
        await self.models.wait_settled()
        trail = Trail(self.clock, self.metrics.step)
        tally = Tally()
        self._now.count += 1
        try:
            call = await self._admit(request, body, dialect, trail, tally)
            if isinstance(call, str):
                return await self._bypass(request, body, call, tally)
            return await self._serve(request, call, dialect, tally)
        except Exception as error:
            if not isinstance(error, CallerError | OSError):  # an OSError is a caller who left
                self.metrics.fault(Fault.INTERNAL)
            raise
        finally:
            self._now.count -= 1
            self.decisions.tell(tally.decision(dialect.NAME, trail, self.clock))

    async def _admit(
        self, request: web.BaseRequest, body: Body, dialect: Dialect, trail: Trail, tally: Tally
    ) -> Call | str:
        """The call as the cache will treat it, or the reason to go around it."""
        if not body.complete:
            return "too-large"
        if "Content-Encoding" in request.headers:
            return "content-encoding"
        size_bytes = len(body.prefix)
        try:
            with trail.timed("parse"):
                ask = await worked(size_bytes, lambda: dialect.parse(body.prefix))
        except UnkeyableError as error:
            return error.reason
        honor = self.config.cache.cache_control == "honor"
        headers_sent = joined(request, (*CONTROL_HEADERS, *self.config.cache.partition_headers, "Authorization"))
        controls = read_controls(headers_sent, ask.controls, honor_cache_control=honor)
        identity = self.models.identify(ask.model)
        tally.model = identity.short if identity else ""
        forward = body.prefix if ask.forward is None else ask.forward
        if identity is not None:
            ask = self._fit(ask, identity, forward, dialect)
        secret, fitted_ask = self.secret(), ask
        plan = await worked(
            size_bytes,
            lambda: admit(fitted_ask, identity, controls, config=self.config, headers=headers_sent, secret=secret),
        )
        tally.partition = plan.partition
        if plan.reason == "unknown-model" or identity is None:
            self.models.unknown_nowait()
        if not plan.cacheable or identity is None:
            body.prefix = forward
            if identity is not None:
                self.preload.asked(identity)
            return plan.reason
        if "Via" in request.headers and loops(header_pairs(request), self.client.instance_id):
            return "loop"  # the passthrough words the refusal
        fitted = forward if ask.forward is None else ask.forward
        return Call(
            ask=ask,
            plan=plan,
            plan_near=lambda: worked(
                size_bytes,
                lambda: admit_near(
                    ask, plan, identity, controls, config=self.config, templates=self.templates, secret=secret
                ),
            ),
            identity=identity,
            fetch=self._fetch(request, fitted, ask, identity, trail),
            recorder=lambda: Recorder(dialect.fold(), bytes_max=self.config.cache.answer_max),
            trail=trail,
        )

    def _fetch(self, request: web.BaseRequest, body: bytes, ask: Ask, identity: Identity, trail: Trail) -> Fetch:
        """How Ollama is asked: in turn, unless the model runs elsewhere. What is being loaded ahead gives way."""

        def fetch() -> Awaitable[Reply]:
            sent = UpstreamRequest(request.method, request.raw_path, header_pairs(request), body)

            def send() -> Awaitable[UpstreamReply]:
                return self.client.send(sent, safe_to_repeat=False)

            self.preload.asked(identity)
            if identity.remote:
                return send()
            return self.batcher.send(Group(identity.digest, runner.options(ask.body)), send, trail)

        return fetch

    def _fit(self, ask: Ask, identity: Identity, body: bytes, dialect: Dialect) -> Ask:
        """The ask as it will be sent if it is a miss. `body`: what would be sent as it is."""
        if dialect.NAME not in tuning.DIALECTS or identity.remote:
            return ask
        fill = self.fills.of(identity.short)
        self.loaded.note(identity.digest, ask)
        found, wish = self.loaded.of(identity.digest), self.loaded.wish(identity.digest)
        options = tuning.added_options(fill, ask, found, wish)
        keep_alive = tuning.added_keep_alive(fill, ask, found, wish, self.clock.now())
        ask = tuning.tune(ask, body, dialect.parse, options, keep_alive)
        if not self.config.context.budget:
            return ask
        limit = context.limit(ask, found.context_length if found else 0)
        body = body if ask.forward is None else ask.forward
        return context.trim(ask, body, dialect.parse, self.config.context.budget * limit)

    async def _bypass(self, request: web.BaseRequest, body: Body, reason: str, tally: Tally) -> web.StreamResponse:
        tally.bypass(reason)
        extra = headers.bypassed(reason)
        try:
            return await self.passthrough.handle(request, body, extra_headers=extra, gate=self.gate)
        finally:
            if reason == "load":
                self.loaded.forget()

    async def _serve(self, request: web.BaseRequest, call: Call, dialect: Dialect, tally: Tally) -> web.StreamResponse:
        if call.ask.dropped:
            self.metrics.dropped(call.ask.dropped)
        try:
            found = await self.serve.serve(call)
        except UpstreamError as error:
            if not isinstance(error, UpstreamBusyError):  # that one is counted where it is found
                broken = isinstance(error, UpstreamBrokenError)
                self.metrics.fault(Fault.UPSTREAM_BROKEN if broken else Fault.UPSTREAM_UNREACHABLE)
            refusal = error_reply(request.path, error.status, str(error))
            refusal.add_headers(headers.failed(call.plan))
            return refusal
        tally.outcome = found.outcome
        if isinstance(found, Absent):
            return reply.absent(request)
        extra = headers.trail(call.trail) if self.config.cache.headers == "trail" else ()
        extra += headers.dropped(call.ask)
        caller = reply.Caller(request, call.ask, dialect, extra)
        with call.trail.timed("reply"):
            if isinstance(found, Hit):
                tally.tier, tally.entry = found.tier, found.entry.id
                tally.save(found.entry.answer)
                self._after_hit(call, found)
                return await self._replay(caller, found, call, tally)
            return await self._relay(caller, found, call)

    async def _replay(self, caller: reply.Caller, found: Hit, call: Call, tally: Tally) -> web.StreamResponse:
        form = reply.Form.of(caller)
        fixed = form.hit(found, self.clock.now())
        arrived = arrival(caller.request)
        if self.lane is not None and arrived is not None and self._repeats(call, found):
            told = tally.decision(caller.dialect.NAME, call.trail, self.clock)
            ask, digest = call.ask, call.identity.digest  # not the call: a record must not hold the request
            repeatable = Repeatable(
                found.entry,
                self.serve.flight_key(call.plan),
                replace(told, trail="lane:hit", timings_s={}),
                lambda now: (form.hit(found, now).writes(), headers.alike_until(found.entry, now)),
                lambda: self.loaded.note(digest, ask),
            )
            self.lane.learn(arrived, repeatable, fixed.size_bytes)
        return await fixed.send(caller.request)

    def _repeats(self, call: Call, found: Hit) -> bool:
        """Whether the same bytes get this hit again as long as entry and models stay, and nothing else is to be done.

        What Ollama has loaded must not matter to how the ask is read, nor the time to whether the entry is too old.
        """
        fill = self.fills.of(call.identity.short)
        return (
            (found.outcome, found.tier) == (Outcome.EXACT, "memory")
            and call.plan.max_age_s is None
            and not unloads(call.ask.keep_alive)
            and call.ask.dialect not in UNIQUE_IDS
            and self.config.cache.headers != "trail"
            and not (self.config.context.budget or fill.pins_num_ctx)
            and self.models.identify(call.ask.model) == call.identity
        )

    async def _relay(self, caller: reply.Caller, found: Relay, call: Call) -> web.StreamResponse:
        if found.follower.flight.head.status >= 500:
            self.metrics.fault(Fault.UPSTREAM_ERROR)
        try:
            return await reply.send_relay(caller, found, call.plan, self.clock)
        except UpstreamBrokenError:
            refusal = error_reply(caller.request.path, 502, "the answer of Ollama's that this ask had joined broke off")
            refusal.add_headers(headers.relayed(found.outcome, call.plan, found.follower.flight.head.status))
            return refusal
        finally:
            if found.follower.flight.reason == "broken":
                self.metrics.fault(Fault.UPSTREAM_BROKEN)
            self.serve.flights.leave(found.follower)

    def _after_hit(self, call: Call, found: Hit) -> None:
        """Run the errands of a hit behind the reply."""
        self.unload_behind(call.ask)
        if found.outcome is Outcome.SEMANTIC:
            self._run(self.feedback.remember(found.entry, found.question))

    def unload_behind(self, ask: Ask) -> None:
        """Unload the model behind the reply of a hit, if the ask says `keep_alive: 0`."""
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
        """What `keep_alive: 0` asks for besides the answer; it never loads a model (contract: no prompt)."""
        body = write({"model": model, "keep_alive": 0})
        request = UpstreamRequest("POST", "/api/generate", (("Content-Type", "application/json"),), body)
        try:
            answer = await self.client.send(request, safe_to_repeat=False)
            await answer.close()
        except UpstreamError:
            self.metrics.fault(Fault.UPSTREAM_UNREACHABLE)


async def worked(size_bytes: int, work: Callable[[], _Result]) -> _Result:
    """What `work` on a body of this size returns; it must be pure, and is done in a thread if it would take long."""
    return await asyncio.to_thread(work) if size_bytes > ASIDE_ABOVE_BYTES else work()


def joined(request: web.BaseRequest, names: Iterable[str]) -> CIMultiDict[str]:
    """These of the request's headers, the values of one that came several times joined as RFC 9110 section 5.3 says."""
    sent = request.headers
    return CIMultiDict({name: ", ".join(sent.getall(name)) for name in names if name in sent})


def unloads(keep_alive: object) -> bool:
    """Whether a `keep_alive` tells Ollama to unload the model after the request."""
    try:
        return keep_alive is not None and not isinstance(keep_alive, bool) and parse_duration(keep_alive) == 0
    except ValueError:
        return False
