"""A hit on its way to the caller, and to the repeat lane where the same request would get it again.

Refuses to know how a hit was found, and to count it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from aiohttp import hdrs, web
from aiohttp.http import RawRequestMessage

from cacheproxy.counting.faults import Fault
from cacheproxy.edge import reply
from cacheproxy.edge.admission import Admission, Said, unloads
from cacheproxy.edge.arrival import Arrival
from cacheproxy.edge.connection import Search
from cacheproxy.edge.contained import contained, wait_contained
from cacheproxy.edge.lane import BYTES_MAX, Lane, Record, Repeatable
from cacheproxy.edge.origin import Origins
from cacheproxy.edge.plain import REPLY_HEADERS
from cacheproxy.edge.plans import Planned, Plans
from cacheproxy.edge.reading import read
from cacheproxy.edge.request import arrival
from cacheproxy.edge.seek import Seek, Sought
from cacheproxy.edge.tally import Tally
from cacheproxy.errors import UnkeyableError
from cacheproxy.flow.found import Hit
from cacheproxy.model import Ask, Identity, Outcome, Plan
from cacheproxy.trail import Trail
from cacheproxy.wire.dialects import BY_PATH, UNIQUE_IDS

_FAILED = "the repeat lane failed on a request"

REPEATED, SAID_AGAIN = "lane:hit", "lane:said"
"""Trails of hits from a record: the same bytes, and other bytes that say the same."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What it takes. `flight_key` tells under which key an answer to the ask of a plan would be under way.

    `fault` counts a defect of ours that costs a request nothing but time.
    """

    lane: Lane
    """Learns hits that may be repeated, if `learns`."""
    learns: bool
    origins: Origins
    admission: Admission
    flight_key: Callable[[Plan], str]
    plans: Plans
    seeker: Seek
    fault: Callable[[Fault], None]

    def find(self, message: RawRequestMessage, arrived: Arrival) -> Record | None:
        """The hit that a request would get, if one before that said the same was remembered for it.

        `arrived.read` then is its body as it was read, also where nothing is remembered.
        """
        return contained(self.fault, _FAILED, self._find, message, arrived)

    def _find(self, message: RawRequestMessage, arrived: Arrival) -> Record | None:
        path, body = message.path.partition("?")[0], arrived.body
        known = path in BY_PATH and len(body) <= self.admission.config.cache.body_max
        known = known and bool(len(self.lane) or len(self.plans))
        if not known or hdrs.CONTENT_ENCODING in message.headers:
            return None
        ruling = self.origins.rule_for(message.method, message.headers)
        if ruling.status is not None:
            return None
        began_s = self.admission.clock.monotonic()
        try:
            found = arrived.read = read(path, body)
        except UnkeyableError:
            return None
        arrived.read_s = self.admission.clock.monotonic() - began_s
        ask = found.ask
        said = self.admission.said(self.lane.generation, message.path, message.headers, ruling.headers, found)
        arrived.said = None if unloads(ask.keep_alive) else said
        record = None if arrived.said is None else self.lane.find(arrived.said)
        if record is not None:
            if ask.keep_alive is not None:  # else nothing that the record does not say too
                self.admission.note(record.hit.identity, ask)
            if not self.lane.is_new(arrived.request):
                self._learn(arrived, ask, record.hit, record.reply_bytes)
        return record

    def seek(self, arrived: Arrival) -> Search | None:
        """What finds the reply to a request whose plan is known. `arrived.looked` then tells what was found."""
        said, found = arrived.said, arrived.read
        planned = None if said is None else contained(self.fault, _FAILED, self.plans.find, said)
        return None if planned is None or found is None else partial(self._sought, planned, found.ask, arrived)

    async def _sought(self, planned: Planned, ask: Ask, arrived: Arrival) -> Sought | None:
        search = self.seeker.seek(planned, ask, arrived.read_s)
        sought = await wait_contained(self.fault, "a search for an answer failed", search)
        if sought is None or isinstance(sought, Sought):
            return sought
        arrived.looked = sought
        if sought.hit is not None:
            self.plans.forget(arrived.said)  # it is expired, or too long to go out at once
        return None

    async def send(
        self,
        caller: reply.Caller,
        found: Hit,
        *,
        generation: int,
        plan: Plan,
        identity: Identity,
        tally: Tally,
        trail: Trail,
    ) -> web.StreamResponse:
        """Reply with a hit for `plan`. `generation`: of the settings under which the request came."""
        form, clock = reply.Form.of(caller), self.admission.clock
        fixed = form.hit(found, clock.now())
        if self.learns and generation == self.lane.generation and self._holds(caller, found, plan, identity):
            unrepeatable = plan.max_age_s is not None or caller.ask.dialect in UNIQUE_IDS
            if found.tier == "memory" and not unrepeatable:
                hit = Repeatable(
                    found.entry,
                    identity,
                    tally.decision(caller.dialect.NAME, trail, clock),
                    partial(form.repeat, found),
                    self.flight_key(plan),
                )
                contained(self.fault, _FAILED, self._learn_both, caller.request, hit, fixed.size_bytes)
            elif fixed.size_bytes <= BYTES_MAX:
                contained(
                    self.fault,
                    _FAILED,
                    self._learn_plan,
                    caller.request,
                    plan,
                    identity,
                    form,
                    unrepeatable=unrepeatable,
                )
        return await fixed.send(caller.request)

    def _learn_plan(
        self, request: web.BaseRequest, plan: Plan, identity: Identity, form: reply.Form, *, unrepeatable: bool
    ) -> None:
        """Seek the reply to what this request says by its plan."""
        arrived = arrival(request)
        said = None if arrived is None else self._said(request, arrived)
        if arrived is not None and said is not None:
            kept = form.to_keep()
            self.plans.learn(said, plan, identity, kept, said_bytes=len(arrived.request), unrepeatable=unrepeatable)

    def _said(self, request: web.BaseRequest, arrived: Arrival) -> Said | None:
        found, extra = arrived.read, request.get(REPLY_HEADERS, ())
        if found is None:
            return None
        return self.admission.said(self.lane.generation, request.raw_path, request.headers, extra, found)

    def _learn_both(self, request: web.BaseRequest, hit: Repeatable, reply_bytes: int) -> None:
        """Repeat a hit for what its request says, and for its very bytes. No record holds the request."""
        arrived = arrival(request)
        if arrived is None or arrived.read is None:
            return
        ask, said = arrived.read.ask, self._said(request, arrived)
        if said is not None and not self.lane.is_new(said):
            also = self._also(hit, replace(ask, keep_alive=None))  # each caller's own is noted as it comes
            key_bytes = len(arrived.request)
            self.lane.learn(said, hit, SAID_AGAIN, also, key_bytes=key_bytes, reply_bytes=reply_bytes)
        if not self.lane.is_new(arrived.request):
            self._learn(arrived, ask, hit, reply_bytes)

    def _learn(self, arrived: Arrival, ask: Ask, hit: Repeatable, reply_bytes: int) -> None:
        """Repeat a hit for the very bytes of a request."""
        self.lane.learn(
            arrived.request,
            hit,
            REPEATED,
            self._also(hit, ask),
            key_bytes=len(arrived.request),
            reply_bytes=reply_bytes,
            head=arrived.head if arrived.apart else b"",
        )

    def _also(self, hit: Repeatable, ask: Ask) -> Callable[[], None]:
        return lambda: self.admission.note(hit.identity, ask)

    def _holds(self, caller: reply.Caller, found: Hit, plan: Plan, identity: Identity) -> bool:
        """Whether an equal ask gets this plan again as long as the models stay, and nothing else is to be done.

        What Ollama has loaded must not matter to how the ask is read.
        """
        config, fill = self.admission.config, self.admission.fills.of(identity.short)
        return (
            found.outcome is Outcome.EXACT
            and plan.read
            and not unloads(caller.ask.keep_alive)
            and config.cache.headers != "trail"
            and not (config.context.budget or fill.pins_num_ctx)
            and self.admission.names.identify(caller.ask.model) == identity
        )
