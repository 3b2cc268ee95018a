"""One ask for vectors: bounded read, parse, admit, serve, reply; and exactly one count of how it was answered.

What cannot or must not take part in the cache is handed to the passthrough with the bytes already read. Refuses to
know near answers: a vector of a text in other words is another vector.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Hashable
from dataclasses import dataclass

from aiohttp import web

from cacheproxy.clock import Clock
from cacheproxy.config import Config
from cacheproxy.edge import headers, reply
from cacheproxy.edge.admission import Admission, worked
from cacheproxy.edge.body import Body, read_body
from cacheproxy.edge.calls import Calls, group_of
from cacheproxy.edge.refusal import unanswered
from cacheproxy.edge.request import header_pairs
from cacheproxy.edge.tally import Tally
from cacheproxy.errors import UnkeyableError, UpstreamBrokenError, UpstreamError
from cacheproxy.flow.embed import Assembled, Embeddings, NotStored
from cacheproxy.flow.embed_flights import Passed, drop
from cacheproxy.flow.embed_shelf import EmbedCall
from cacheproxy.metrics import Fault, Metrics
from cacheproxy.model import Ask, Identity, Outcome, Plan
from cacheproxy.rules.admit import admit, admit_each
from cacheproxy.trail import Trail
from cacheproxy.upstream.fleet import Fleet
from cacheproxy.wire.dialects import EmbedDialect

SAYS_NOTHING_OF_WHO = frozenset({
    "accept", "accept-encoding", "cache-control", "connection", "content-length", "content-type", "host",
    "idempotency-key", "pragma", "traceparent", "tracestate", "user-agent", "x-cache-mode", "x-cache-threshold",
    "x-cache-ttl", "x-request-id",
})  # fmt: skip
"""Headers in which the asks of one call may differ: all others might tell somebody before Ollama who asks."""


@dataclass(frozen=True, slots=True)
class Embed:
    """Handler of the paths that give vectors.

    `after_hit` does what else an ask wants of Ollama when no request was sent for it.
    """

    calls: Calls
    admission: Admission
    embeddings: Embeddings
    fleet: Fleet
    config: Config
    metrics: Metrics
    clock: Clock
    after_hit: Callable[[Ask], None]

    async def handle(self, request: web.BaseRequest, dialect: EmbedDialect) -> web.StreamResponse:
        """Answer one call. Raises CallerError for a body that does not come as it should."""
        body = await read_body(request, self.config.cache.body_max, self.config.server)
        await self.fleet.models.wait_settled()
        trail = Trail(self.clock)
        with self.calls.one(request, dialect.NAME, trail) as tally:
            call = await self._admit(request, body, dialect, trail, tally)
            if isinstance(call, str):
                response = await self.calls.around(request, body, call, tally)
            else:
                response = await self._serve(request, call, tally)
            tally.replied(response)
            return response

    async def _admit(
        self, request: web.BaseRequest, body: Body, dialect: EmbedDialect, trail: Trail, tally: Tally
    ) -> EmbedCall | str:
        """The call as the cache will treat it, or the reason to go around it."""
        if reason := self.admission.unreadable(request, body):
            return reason
        size_bytes = len(body.prefix)
        try:
            with trail.timed("parse"):
                embed = await worked(size_bytes, lambda: dialect.parse(body.prefix))
        except UnkeyableError as error:
            return error.reason
        ask, config = embed.ask, self.config
        sent, controls = self.admission.heard(request, ask)
        identity = self.fleet.models.identify(ask.model)
        tally.model = identity.short if identity else ""
        secret = self.admission.secret()
        plan = admit(ask, identity, controls, config=config, headers=sent, secret=secret)
        tally.partition = plan.partition
        body.prefix = ask.sent(body.prefix)
        reason = self.calls.reason(request, ask, plan, identity)
        if reason or identity is None:
            return reason
        plans = await worked(
            size_bytes,
            lambda: admit_each(ask, plan, identity, embed.canonical_inputs, config=config, secret=secret),
        )
        merges = dialect.MERGES and config.batching.merge_embeds and not identity.remote
        return EmbedCall(
            embed=embed,
            dialect=dialect,
            plan=plan,
            plans=plans,
            identity=identity,
            body=body.prefix,
            fetch=lambda wanted: self.calls.fetch(request, ask, identity, wanted, trail),
            trail=trail,
            company=_company(request, ask, plan, identity) if merges else None,
        )

    async def _serve(self, request: web.BaseRequest, call: EmbedCall, tally: Tally) -> web.StreamResponse:
        try:
            found = await self.embeddings.serve(call)
        except UpstreamError as error:
            return unanswered(request, error, call.plan, self.metrics)
        tally.outcome = found.outcome
        if isinstance(found, NotStored):
            return reply.absent(request)
        if found.outcome is not Outcome.MISS:
            self.after_hit(call.embed.ask)
        with call.trail.timed("reply"):
            extra = headers.trail(call.trail) if self.config.cache.headers == "trail" else ()
            if isinstance(found, Passed):
                return await self._pass_on(
                    request, found, headers.relayed(found.outcome, call.plan, found.head.status) + extra
                )
            tally.tier = found.tier
            tally.save_s(found.saved_s)
            return await self._send(request, call, found, extra)

    async def _send(
        self, request: web.BaseRequest, call: EmbedCall, found: Assembled, extra: headers.Headers
    ) -> web.StreamResponse:
        """A reply that was put together."""
        if found.outcome in (Outcome.MISS, Outcome.JOINED):
            head = headers.in_part(found.outcome, len(call.plans), len(found.entries), found.joined, found.asks)
        else:
            head = headers.stored(found.entries, found.outcome, self.clock.now())
        return await reply.send_whole(request, found.body, head + extra, content_type=call.dialect.CONTENT_TYPE)

    async def _pass_on(self, request: web.BaseRequest, found: Passed, head: headers.Headers) -> web.StreamResponse:
        """Ollama's own reply."""
        if found.head.status >= 500:
            self.metrics.fault(Fault.UPSTREAM_ERROR)
        try:
            return await reply.pass_on(request, found.head, self._pieces(found), head, with_first=bool(found.body))
        finally:
            await drop(found)

    async def _pieces(self, found: Passed) -> AsyncIterator[bytes]:
        """The body of Ollama's reply as it comes; a break is counted."""
        yield found.body
        if found.rest is None:
            return
        try:
            async for piece in found.rest.pieces:
                yield piece
        except UpstreamBrokenError:
            self.metrics.fault(Fault.UPSTREAM_BROKEN)
            raise


def _company(request: web.BaseRequest, ask: Ask, plan: Plan, identity: Identity) -> Hashable:
    """What the asks of one call to Ollama have in common, with all in their headers that may tell who asks."""
    lowered = ((name.lower(), value) for name, value in header_pairs(request))
    who = tuple(sorted(pair for pair in lowered if pair[0] not in SAYS_NOTHING_OF_WHO))
    return group_of(ask, identity), plan.partition, ask.canonical, repr(ask.keep_alive), request.raw_path, who
