"""What would happen to an ask, and why: the story of `serve.py` told without living it.

Nothing is counted as an ask, stored, noted for later asks or sent to Ollama. The question does become a vector, and
Redis is asked for its neighbours, as for a real one; the statistics of these two do see it.
Refuses to decide anything itself: every judgement is the one that an ask would get, from the same function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from cacheproxy.config import Config
from cacheproxy.errors import CacheError, EmbedderError, EntryCorruptError, UnkeyableError
from cacheproxy.flow.near import NO_VECTOR, Nearness
from cacheproxy.flow.serve import Serve
from cacheproxy.flow.vectors import Embedded
from cacheproxy.model import Ask, Identity, Match, NearPlan, Outcome, Plan
from cacheproxy.rules.admit import admit, admit_near
from cacheproxy.rules.controls import Controls, read_controls
from cacheproxy.rules.guards import object_to
from cacheproxy.rules.question import Template
from cacheproxy.rules.standing import HIT, standing
from cacheproxy.store.shelf import Shelf
from cacheproxy.trail import Trail
from cacheproxy.upstream.catalog import Catalog
from cacheproxy.wire.dialects import Dialect

Fit: TypeAlias = Callable[[Ask, Identity, bytes, Dialect], Ask]
"""The ask as it would be sent to Ollama."""

AWAY = "away"


@dataclass(frozen=True, slots=True)
class Weighed:
    """A stored question near the one asked. `guards`: all that object, though one is enough."""

    entry: str
    similarity: float
    verdict: str
    """`serve`, or why not."""
    guards: tuple[str, ...]
    stored: str
    """Its text; empty unless prompts may be shown (`log.prompts`)."""
    made: float
    expires: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """What an ask would meet on its way. What was never reached is empty."""

    outcome: Outcome
    why: str
    """One word: what decided it."""
    model: str = ""
    """As `ollama list` shows it."""
    key: str = ""
    """Of the ask in Redis."""
    exact: str = ""
    """`hit`, `no`, or why the entry under that key may not answer (`expired`, `too-old`, …)."""
    made: float | None = None
    """When that entry was made, Unix time, s."""
    expires: float | None = None
    near_off: str = ""
    """Why nothing was compared by meaning."""
    threshold: float | None = None
    question: str = ""
    """The text that was compared; empty unless prompts may be shown."""
    scope: str = ""
    neighbours: tuple[Weighed, ...] = ()
    """Nearest first."""
    ttl_s: float | None = None
    """How long the answer to a miss would be kept, before jitter."""
    partition: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """The ask to explain: a body as a client would send it, with the headers that matter to the cache."""

    dialect: Dialect
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names compared without regard to case (a multidict does)."""


@dataclass(frozen=True, slots=True)
class Explain:
    """The parts of the story. `secret` gives the store's present secret."""

    serve: Serve
    shelf: Shelf
    models: Catalog
    config: Config
    templates: Sequence[Template]
    fit: Fit
    secret: Callable[[], bytes]

    async def explain(self, request: Request) -> Explanation:
        """Tell the story of a request. Never raises CacheError: what is away is part of the story."""
        try:
            ask = request.dialect.parse(request.body)
        except UnkeyableError as error:
            return Explanation(Outcome.BYPASS, error.reason)
        controls = read_controls(
            request.headers, ask.controls, honor_cache_control=self.config.cache.cache_control == "honor"
        )
        identity = self.models.identify(ask.model)
        if identity is not None:
            ask = self.fit(ask, identity, ask.sent(request.body), request.dialect)
        plan = admit(ask, identity, controls, config=self.config, headers=request.headers, secret=self.secret())
        if not plan.cacheable or identity is None:
            return Explanation(Outcome.BYPASS, plan.reason, model=identity.short if identity else "")
        return await self._story(ask, identity, plan, controls)

    async def _story(self, ask: Ask, identity: Identity, plan: Plan, controls: Controls) -> Explanation:
        told = Explanation(Outcome.MISS, "", identity.short, plan.key, ttl_s=plan.ttl_s, partition=plan.partition)
        told = await self._exact(told, plan)
        if told.exact == HIT and plan.read:
            return replace(told, outcome=Outcome.EXACT, why=HIT)
        if self.serve.is_under_way(plan):
            return replace(told, outcome=Outcome.JOINED, why="in-flight")
        near = admit_near(
            ask,
            plan,
            identity,
            controls,
            config=self.config,
            templates=self.templates,
            secret=self.secret(),
        )
        told, embedded = await self._near(told, near, plan)
        serving = any(one.verdict == "serve" for one in told.neighbours)
        if serving and self.serve.near.serves:
            return replace(told, outcome=Outcome.SEMANTIC, why="serve")
        if not plan.only_if_cached and self.serve.kin(plan, Nearness(near, embedded), Trail(self.serve.clock)):
            return replace(told, outcome=Outcome.JOINED, why="in-flight-near")
        return replace(told, why=_why_miss(told, plan, serving=serving))

    async def _exact(self, told: Explanation, plan: Plan) -> Explanation:
        """What lies under the ask's key. Memory holds nothing that Redis does not, so only Redis is looked at."""
        try:
            entry = await self.shelf.get(plan.key)
        except EntryCorruptError:
            return replace(told, exact="corrupt")
        except CacheError:
            return replace(told, exact=AWAY)
        if entry is None:
            return replace(told, exact="no")
        word = standing(entry, plan, self.serve.clock.now())
        return replace(told, exact=word, made=entry.made, expires=entry.expires)

    async def _near(self, told: Explanation, near: NearPlan, plan: Plan) -> tuple[Explanation, Embedded]:
        """The neighbours, each weighed, and the question's vector, if it could be had."""
        tier, embedded = self.serve.near, NO_VECTOR
        if near.off or tier.semantic.state == "down":
            return replace(told, near_off=near.off or "down"), embedded
        told = replace(told, threshold=near.threshold, scope=near.scope, question=near.question if tier.prompts else "")
        try:
            embedded = await tier.vectors.embed(near.question)
            if not embedded.fits:
                return replace(told, near_off="too-long"), embedded
            matches = await tier.semantic.nearest(near.scope, plan.partition, embedded.vector, space=embedded.space)
        except EmbedderError:
            return replace(told, near_off="no-vector"), embedded
        except CacheError:
            return replace(told, near_off=AWAY), embedded
        return replace(told, neighbours=tuple(self._weigh(near, match, plan) for match in matches)), embedded

    def _weigh(self, near: NearPlan, match: Match, plan: Plan) -> Weighed:
        tier, entry = self.serve.near, match.entry
        verdict = tier.weigh(near, entry.question, match.similarity)
        word = verdict.reason or "serve"
        if not plan.read or not tier.suits(match, plan):
            word = "unsuited"
        return Weighed(
            entry=entry.id,
            similarity=match.similarity,
            verdict=word,
            guards=() if word == "guard:raised" else self._objections(near.question, entry.question),
            stored=entry.question if tier.prompts else "",
            made=entry.made,
            expires=entry.expires,
        )

    def _objections(self, asked: str, stored: str) -> tuple[str, ...]:
        return tuple(name for name in self.serve.near.guards if object_to(asked, stored, (name,)))


def _why_miss(told: Explanation, plan: Plan, *, serving: bool) -> str:
    """The one word for a miss: what came nearest to preventing it."""
    if not plan.read:
        return "no-cache"
    if plan.only_if_cached:
        return "only-if-cached"
    if serving:
        return "shadow"
    if told.near_off:
        return told.near_off
    return told.neighbours[0].verdict if told.neighbours else "none"
