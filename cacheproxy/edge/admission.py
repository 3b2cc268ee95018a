"""From a request's bytes to an admitted ask: parsed, fitted with our options, its keys made and its controls read.

The same for every process that answers asks, so that all of them find one answer under one key. Refuses to know
whether there is an answer, and to have any effect besides noting what callers ask of a model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol, TypeVar

from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy, istr

from cacheproxy.clock import Clock
from cacheproxy.config import Config, parse_duration
from cacheproxy.edge.body import Body
from cacheproxy.edge.reading import Asked, Read, read
from cacheproxy.edge.request import Headers, arrival
from cacheproxy.edge.tally import Tally
from cacheproxy.errors import UnkeyableError
from cacheproxy.model import Ask, Identity, NearPlan, Plan
from cacheproxy.rules import context
from cacheproxy.rules.admit import admit, admit_near
from cacheproxy.rules.controls import CONTROL_HEADERS, Controls, read_controls
from cacheproxy.rules.question import Template
from cacheproxy.trail import Trail
from cacheproxy.upstream import tuning
from cacheproxy.upstream.loaded import Loaded
from cacheproxy.wire.dialects import Dialect

ASIDE_ABOVE_BYTES = 512 * 1024
"""Larger bodies are read and keyed in a thread: it takes up to 15 ms a MiB, and others would wait for it."""

_Result = TypeVar("_Result")


class Names(Protocol):
    """Who knows what a model name stands for (`upstream.models.Models`)."""

    def identify(self, name: str) -> Identity | None:
        """The identity of a name as a caller spelt it; None while it is unknown or a change is under way."""
        ...


class Running(Protocol):
    """Who knows what Ollama has in memory (`upstream.fleet.Fleet`)."""

    def note(self, identity: Identity, ask: Ask) -> None:
        """Remember what the caller of an ask chose itself."""
        ...

    def loaded(self, identity: Identity) -> Loaded:
        """What is loaded where an ask for this model would go now."""
        ...


class Said(NamedTuple):
    """All that is read of a request, and what is on every reply to it: equal ones are one ask of one caller.

    All but `keep_alive`, which does nothing to a reply.
    """

    generation: int
    """Of the settings under which it came."""
    target: str
    head: tuple[str | None, ...]
    """Values of the headers in `Admission.reads`; None for one that is absent."""
    reply_headers: Headers
    asked: Asked


@dataclass(frozen=True, slots=True)
class Admitted:
    """An ask that could be read, with the plan for it. `identity` is None for a name that stands for nothing."""

    ask: Ask
    plan: Plan
    identity: Identity | None
    controls: Controls
    forward: bytes
    """The body as the caller put it, without what it says to the cache; `ask` may have been fitted since."""
    size_bytes: int
    """Of the body as it came."""
    secret: bytes


@dataclass(frozen=True, slots=True)
class Admission:
    """What it takes to admit. `secret` gives the store's present secret."""

    names: Names
    running: Running
    fills: tuning.Fills
    config: Config
    clock: Clock
    secret: Callable[[], bytes]
    generation: Callable[[], int]
    """Of the settings: another number after each change of them."""

    @property
    def reads(self) -> tuple[str, ...]:
        """All headers of a request that are read for an ask; `Origins` has read others before, and ruled on them."""
        return _reads(self.config.cache.partition_headers)

    def said(
        self, generation: int, target: str, sent: CIMultiDictProxy[str], reply_headers: Headers, body: Read
    ) -> Said | None:
        """What a request says that came under these settings; None if that cannot be written down.

        `sent`: its headers.
        """
        head = tuple([", ".join(sent.getall(name)) if name in sent else None for name in self.reads])
        try:
            return Said(generation, target, head, reply_headers, body.asked)
        except UnkeyableError:
            return None

    def note(self, identity: Identity, ask: Ask) -> None:
        """Remember what the caller of an ask chose itself of a model that runs here."""
        if ask.dialect in tuning.DIALECTS and not identity.remote:
            self.running.note(identity, ask)

    def unreadable(self, request: web.BaseRequest, body: Body) -> str:
        """Why there is no ask to read in a request whose body was read, one word; empty if there may be one."""
        if not body.complete:
            return "too-large"
        if "Content-Encoding" in request.headers:
            return "content-encoding"
        return ""

    def heard(self, request: web.BaseRequest, ask: Ask) -> tuple[CIMultiDict[str], Controls]:
        """The headers that count for an ask, and what they and its body say to the cache."""
        sent = joined(request, self.reads)
        honor = self.config.cache.cache_control == "honor"
        return sent, read_controls(sent, ask.controls, honor_cache_control=honor)

    async def admit(
        self, request: web.BaseRequest, body: Body, dialect: Dialect, trail: Trail, tally: Tally
    ) -> Admitted | str:
        """The ask in a request whose body was read, or why there is none to read."""
        if reason := self.unreadable(request, body):
            return reason
        size_bytes = len(body.prefix)
        try:
            ask = await self._read(request, body.prefix, dialect, trail)
        except UnkeyableError as error:
            return error.reason
        headers_sent, controls = self.heard(request, ask)
        identity = self.names.identify(ask.model)
        tally.model = identity.short if identity else ""
        forward = ask.sent(body.prefix)
        if identity is not None:
            self.note(identity, ask)
            ask, budget_tokens = self._tuned(ask, identity, forward, dialect)
            if budget_tokens:
                tuned = ask
                ask = await worked(
                    size_bytes, lambda: context.trim(tuned, tuned.sent(forward), dialect.parse, budget_tokens)
                )
        secret, fitted_ask = self.secret(), ask
        plan = await worked(
            size_bytes,
            lambda: admit(fitted_ask, identity, controls, config=self.config, headers=headers_sent, secret=secret),
        )
        tally.partition = plan.partition
        return Admitted(ask, plan, identity, controls, forward, size_bytes, secret)

    async def _read(self, request: web.BaseRequest, body: bytes, dialect: Dialect, trail: Trail) -> Ask:
        """The ask in a body, unless it was read when it arrived. Raises UnkeyableError."""
        arrived = arrival(request)
        if arrived is not None and arrived.read is not None:
            if "parse" not in trail.timings_s:
                trail.mark("parse", arrived.read_s)
            return arrived.read.ask
        with trail.timed("parse"):
            found = await worked(len(body), lambda: read(dialect.PATH, body))
        if arrived is not None:
            arrived.read = found
        return found.ask

    async def admit_near(self, admitted: Admitted, identity: Identity, templates: Sequence[Template]) -> NearPlan:
        """What is decided about near answers to an admitted ask."""
        return await worked(
            admitted.size_bytes,
            lambda: admit_near(
                admitted.ask,
                admitted.plan,
                identity,
                admitted.controls,
                config=self.config,
                templates=templates,
                secret=admitted.secret,
            ),
        )

    def heeds_loaded(self, identity: Identity, dialect: Dialect) -> bool:
        """Whether what Ollama has loaded may matter to how an ask for this model is read."""
        if identity.remote:
            return False
        pins = dialect.NAME in tuning.DIALECTS and self.fills.of(identity.short).pins_num_ctx
        return pins or bool(self.config.context.budget)

    def fit(self, ask: Ask, identity: Identity, body: bytes, dialect: Dialect) -> Ask:
        """The ask as it will be sent if it is a miss. `body`: what would be sent as it is. Changes nothing here."""
        ask, budget_tokens = self._tuned(ask, identity, body, dialect)
        return context.trim(ask, ask.sent(body), dialect.parse, budget_tokens)

    def _tuned(self, ask: Ask, identity: Identity, body: bytes, dialect: Dialect) -> tuple[Ask, float]:
        """The ask with what we add to it, and how many tokens it may have; 0: as many as it has."""
        tunes, budget = dialect.NAME in tuning.DIALECTS, self.config.context.budget
        if identity.remote or not (tunes or budget):
            return ask, 0.0
        loaded = self.running.loaded(identity)
        found = loaded.of(identity.digest)
        if tunes:
            fill, wish = self.fills.of(identity.short), loaded.wish(identity.digest)
            options = tuning.added_options(fill, ask, found, wish)
            keep_alive = tuning.added_keep_alive(fill, ask, found, wish, self.clock.now())
            ask = tuning.tune(ask, body, dialect.parse, options, keep_alive)
        return ask, budget * context.limit(ask, found.context_length if found else 0)


@lru_cache(maxsize=8)
def _reads(partition_headers: tuple[str, ...]) -> tuple[str, ...]:
    names = (*CONTROL_HEADERS, *partition_headers, "Authorization", "Content-Encoding", "Via")
    return tuple(map(istr, names))  # which are looked up in half the time


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
