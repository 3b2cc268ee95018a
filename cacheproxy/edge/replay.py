"""A hit on its way to the caller, and to the repeat lane where the same request would get it again.

Refuses to know how a hit was found, and to count it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from aiohttp import web
from aiohttp.http import RawRequestMessage

from cacheproxy.edge import headers, reply
from cacheproxy.edge.admission import Admission, read_ask, unloads
from cacheproxy.edge.connection import Arrival
from cacheproxy.edge.lane import Lane, Record, Repeatable
from cacheproxy.edge.origin import Origins
from cacheproxy.edge.plain import REPLY_HEADERS
from cacheproxy.edge.request import arrival
from cacheproxy.edge.tally import Tally
from cacheproxy.errors import UnkeyableError
from cacheproxy.flow.found import Hit
from cacheproxy.model import Ask, Identity, Outcome, Plan
from cacheproxy.trail import Trail
from cacheproxy.wire.dialects import BY_PATH, UNIQUE_IDS

_Result = TypeVar("_Result")

_log = logging.getLogger("cacheproxy")

REPEATED, SAID_AGAIN = "lane:hit", "lane:said"
"""Trails of hits from a record: the same bytes, and other bytes that say the same."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What it takes. `flight_key` tells under which key an answer to the ask of a plan would be under way."""

    lane: Lane
    """Learns hits that may be repeated, if `learns`."""
    learns: bool
    origins: Origins
    admission: Admission
    flight_key: Callable[[Plan], str]

    def find(self, message: RawRequestMessage, arrived: Arrival) -> Record | None:
        """The hit that a request would get, if one before that said the same was remembered for it.

        `arrived.ask` then is what the body asks, also where nothing is remembered.
        """
        return _guarded(lambda: self._find(message, arrived))

    def _find(self, message: RawRequestMessage, arrived: Arrival) -> Record | None:
        path, body = message.path.partition("?")[0], arrived.body
        known = path in BY_PATH and len(self.lane) and len(body) <= self.admission.config.cache.body_max
        if not known or "Content-Encoding" in message.headers:
            return None
        ruling = self.origins.rule_for(message.method, message.headers)
        if ruling.status is not None:
            return None
        began_s = self.admission.clock.monotonic()
        try:
            ask = arrived.ask = read_ask(path, body)
        except UnkeyableError:
            return None
        arrived.read_s = self.admission.clock.monotonic() - began_s
        said = self.admission.said(self.lane.generation, message.path, message.headers, ruling.headers, ask)
        record = None if said is None or unloads(ask.keep_alive) else self.lane.find(said)
        if record is not None:
            if ask.keep_alive is not None:  # else nothing that the record does not say too
                self.admission.note(record.hit.identity, ask)
            if not self.lane.is_new(arrived.request):
                self._learn(arrived, ask, record.hit, record.reply_bytes)
        return record

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
        if self.learns and generation == self.lane.generation and self._repeats(caller, found, plan, identity):
            hit = Repeatable(
                found.entry,
                identity,
                self.flight_key(plan),
                tally.decision(caller.dialect.NAME, trail, clock),
                lambda now: (form.hit(found, now).writes(), headers.alike_until(found.entry, now)),
            )
            _guarded(lambda: self._learn_both(caller.request, hit, generation, fixed.size_bytes))
        return await fixed.send(caller.request)

    def _learn_both(self, request: web.BaseRequest, hit: Repeatable, generation: int, reply_bytes: int) -> None:
        """Repeat a hit for what its request says, and for its very bytes. No record holds the request."""
        arrived = arrival(request)
        if arrived is None or arrived.ask is None:
            return
        ask, extra = arrived.ask, request.get(REPLY_HEADERS, ())
        said = self.admission.said(generation, request.raw_path, request.headers, extra, ask)
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

    def _repeats(self, caller: reply.Caller, found: Hit, plan: Plan, identity: Identity) -> bool:
        """Whether the same bytes get this hit again as long as entry and models stay, and nothing else is to be done.

        What Ollama has loaded must not matter to how the ask is read, nor the time to whether the entry is too old.
        """
        if found.tier != "memory" or found.outcome is not Outcome.EXACT:
            return False
        config, fill = self.admission.config, self.admission.fills.of(identity.short)
        return (
            plan.max_age_s is None
            and not unloads(caller.ask.keep_alive)
            and caller.ask.dialect not in UNIQUE_IDS
            and config.cache.headers != "trail"
            and not (config.context.budget or fill.pins_num_ctx)
            and self.admission.names.identify(caller.ask.model) == identity
        )


def _guarded(work: Callable[[], _Result]) -> _Result | None:
    """What `work` returns; a defect in it must cost a request time only, not its reply or its connection."""
    try:
        return work()
    except Exception:  # noqa: BLE001 - see above
        _log.exception("the repeat lane failed on a request")
        return None
