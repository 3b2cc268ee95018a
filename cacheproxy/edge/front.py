"""A front's one handler: exact answers from here, everything else from the main process, byte for byte.

It answers what needs nobody else: an ask whose exact answer lies in its own memory or in Redis. Whatever else an ask
may be, or if in doubt, it is relayed, and the main process answers and counts it as if the client had come there.
So each ask is counted once: here if it is answered here. Refuses to ask Ollama.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiohttp import web

from cacheproxy import config
from cacheproxy.clock import Clock
from cacheproxy.decisions import Decisions
from cacheproxy.edge import headers, reply
from cacheproxy.edge.admission import Admission, unloads
from cacheproxy.edge.body import Body, read_body
from cacheproxy.edge.contained import wait_contained
from cacheproxy.edge.origin import Origins
from cacheproxy.edge.passthrough import relay
from cacheproxy.edge.plain import ASK_TRAIL, REPLY_HEADERS, error_reply
from cacheproxy.edge.replay import Replay
from cacheproxy.edge.request import expects_continue, header_pairs, looked_up
from cacheproxy.edge.tally import Tally
from cacheproxy.errors import CallerError, UpstreamError
from cacheproxy.flow.found import Hit, Looked
from cacheproxy.flow.lookup import LookUp
from cacheproxy.metrics import Fault
from cacheproxy.model import Ask, Identity, Outcome, Plan
from cacheproxy.trail import Trail
from cacheproxy.upstream.client import UpstreamClient
from cacheproxy.upstream.request import VIA, UpstreamRequest
from cacheproxy.wire.dialects import Dialect

_log = logging.getLogger("cacheproxy.edge")


class ToMain:
    """Relays requests to the main process; `settings` give the deadlines for bodies."""

    def __init__(self, client: UpstreamClient, settings: config.Server) -> None:
        self._client = client
        self._settings = settings

    async def handle(self, request: web.BaseRequest, body: Body | None = None) -> web.StreamResponse:
        """Relay one request, of which `body` may have been read in part. Its client leaving ends it there too."""
        request[REPLY_HEADERS] = ()  # the main process puts them on the reply
        body = Body(request, self._settings) if body is None else body
        waits = expects_continue(request) and not body.complete and not body.prefix
        sent = UpstreamRequest(
            request.method,
            request.raw_path,
            header_pairs(request),
            (body.prefix if request.body_exists else None) if body.complete else body.chunks(),
            body.length,
            expect_continue=waits,
        )
        try:
            answer = await self._client.send(sent, safe_to_repeat=False)
        except (CallerError, UpstreamError) as error:
            text = str(error)
            if isinstance(error, UpstreamError):
                _log.warning("the main process gave no answer: %s", error)
                text = "the main process of cacheproxy gave no answer"
            refusal = error_reply(request.path, error.status, text)
            refusal.headers.add("Via", VIA)
            refusal.force_close()
            return refusal
        try:
            return await relay(request, body, answer, ())
        finally:
            await answer.close()


@dataclass(frozen=True, slots=True)
class Front:
    """The handler. `known` is false until Redis has told the secret that all processes make keys with.

    `tells_loaded`: whether it is known here what is loaded where an ask would go.
    """

    dialects: Mapping[str, Dialect]
    admission: Admission
    lookup: LookUp
    replay: Replay
    relay: ToMain
    origins: Origins
    config: config.Config
    decisions: Decisions
    fault: Callable[[Fault], None]
    known: Callable[[], bool]
    tells_loaded: Callable[[], bool]
    clock: Clock

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer any request."""
        ruling = self.origins.judge(request)
        path = request.raw_path.split("?", 1)[0]
        dialect = self.dialects.get(path) if request.method == "POST" else None
        looked = looked_up(request)
        if dialect is None or ruling.status is not None or not self.known():
            return await self.relay.handle(request)
        try:
            body = await read_body(request, self.config.cache.body_max, self.config.server)
        except CallerError as error:
            refusal = error_reply(path, error.status, str(error))
            refusal.headers.add("Via", VIA)
            return refusal
        generation = self.admission.generation()
        return await self._answer(request, body, generation, dialect, looked) or await self.relay.handle(request, body)

    async def _answer(
        self, request: web.BaseRequest, body: Body, generation: int, dialect: Dialect, looked: Looked | None
    ) -> web.StreamResponse | None:
        """The exact answer, counted; None if there is none here, of which nothing is counted."""
        tally, trail = Tally(), Trail(self.clock) if looked is None else looked.trail
        search = self._find(request, body, dialect, trail, tally, looked=looked)
        found = await wait_contained(self.fault, "a front could not look for an answer", search)
        if found is None:
            return None
        ask, plan, identity, hit = found
        tally.hit(hit, self.clock)
        request[ASK_TRAIL] = trail
        extra = headers.trail(trail) if self.config.cache.headers == "trail" else ()
        try:
            with trail.timed("reply"):
                caller = reply.Caller(request, ask, dialect, extra)
                response = await self.replay.send(
                    caller, hit, generation=generation, plan=plan, identity=identity, tally=tally, trail=trail
                )
            tally.replied(response)
            return response
        finally:
            self.decisions.tell(tally.decision(dialect.NAME, trail, self.clock))

    async def _find(
        self,
        request: web.BaseRequest,
        body: Body,
        dialect: Dialect,
        trail: Trail,
        tally: Tally,
        *,
        looked: Looked | None,
    ) -> tuple[Ask, Plan, Identity, Hit] | None:
        admitted = await self.admission.admit(request, body, dialect, trail, tally)
        if isinstance(admitted, str):
            return None
        ask, plan, identity = admitted.ask, admitted.plan, admitted.identity
        # A chat that was cut, and a model to be unloaded behind the reply, are more than an answer.
        if identity is None or not plan.cacheable or not plan.read or ask.dropped or unloads(ask.keep_alive):
            return None
        if not self.tells_loaded() and self.admission.heeds_loaded(identity, dialect):
            return None  # the main process, which knows, may find another key for it
        found = await self.lookup.look(plan, trail, looked)
        return (ask, plan, identity, found) if found is not None and found.outcome is Outcome.EXACT else None
