"""The near tier of one ask: its question as a vector, what is near it in its scope, and the verdict on each.

Near it are entries, and on request (`semantic.join`) questions that are being answered right now.

Whatever fails on the way (no embedder, no index, a deadline) is noted and counted, and the ask goes on without a near
answer: a failing guard or embedder means a miss, never a hit. Refuses to decide what may be compared (rules/admit.py)
and what may be served (rules/accept.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from cacheproxy.clock import Clock
from cacheproxy.errors import CacheError, EmbedderError
from cacheproxy.flow.coalesce import Flights
from cacheproxy.flow.found import Kin
from cacheproxy.flow.nearby import Question
from cacheproxy.flow.vectors import Embedded, Vectors
from cacheproxy.metrics import Fault, Metrics
from cacheproxy.model import Entry, Match, NearPlan, Neighbour, Plan, Verdict
from cacheproxy.rules.accept import accept
from cacheproxy.rules.guards import rehearse
from cacheproxy.rules.standing import proves, shortcoming
from cacheproxy.store.apart import Apart
from cacheproxy.store.semantic import Semantic
from cacheproxy.trail import Trail

_log = logging.getLogger("cacheproxy.flow")

_Judged = TypeVar("_Judged")

NO_VECTOR = Embedded()
SENDING_TURNS = 2
"""Turns of the event loop until what was asked of Redis has left: one to ask, one to send all that was asked in it."""
FLIGHTS_MAX = 5
"""Flights judged for one ask, the nearest ones: as many as a look-up brings entries."""
ASIDE_ABOVE_CHARS = 4_000
"""Two questions of more characters than that together are judged in a thread: on a slow machine two texts of 2 kB with
the same sentences in another order took 16 ms, of 30 kB 170."""


@dataclass(frozen=True, slots=True)
class Nearness:
    """What the near tier found out about one ask; empty where near answers are off or nothing could be compared."""

    plan: NearPlan
    embedded: Embedded = NO_VECTOR
    """The question's vector, to be stored with the answer; empty: the entry will not be found by meaning."""
    match: Match | None = None
    """The nearest entry that may be served, else the nearest one."""
    verdict: Verdict | None = None
    """On `match`."""
    itself: Entry | None = None
    """The answer to the very ask, kept since it was looked up by key; nothing was judged then."""

    @property
    def acceptable(self) -> bool:
        """True when `match` may answer the ask."""
        return self.verdict is not None and self.verdict.serve

    def in_flight(self, entry_id: str, epoch: int) -> Question | None:
        """The ask's question as one that is being answered; None where it must not be found by meaning."""
        if not self.embedded.fits:
            return None
        vector, space = self.embedded.vector, self.embedded.space
        return Question(self.plan.question, self.plan.scope, vector, space, epoch, entry_id)


@dataclass(frozen=True, slots=True)
class Near:
    """The parts of the near tier. `guards`: names of those that are switched on."""

    vectors: Vectors
    semantic: Semantic
    apart: Apart
    metrics: Metrics
    clock: Clock
    guards: Collection[str]
    serves: bool
    """False in shadow mode: everything is found out and judged, and Ollama answers."""
    joins: bool
    """Whether an ask may have the answer of one in flight (`semantic.join`); never in shadow mode."""
    prompts: bool = False
    """Whether the two questions may be shown to operators (`log.prompts`)."""

    async def look(self, near: NearPlan, plan: Plan, trail: Trail) -> Nearness:
        """Find the nearest entry that may be served, or say why there is none. Never raises CacheError.

        For an ask that wants a fresh answer (`plan.read` is false) only the vector is made, for the entry to be.
        """
        # While the index is away nothing could be found: not worth a processor's time.
        off = near.off or ("down" if self.semantic.state == "down" else "")
        if off:
            trail.note("near", off)
            return Nearness(near)
        embedded = await self._embed(near.question, trail)
        if not embedded.fits or not plan.read:
            return Nearness(near, embedded)
        try:
            with trail.timed("semantic"):
                matches = await self._nearest(near, plan, embedded, waited_s=trail.timings_s.get("exact", 0.0))
        except CacheError:
            self.metrics.fault(Fault.REDIS_UNAVAILABLE)
            trail.note("near", "away")
            return Nearness(near, embedded)
        suited = [match for match in matches if self.suits(match, plan)]
        itself = [match.entry for match in suited if match.entry.key == plan.key and proves(match.entry, plan)]
        if itself:
            trail.note("near", "itself")
            return Nearness(near, embedded, itself=itself[0])
        return await self._judge(near, embedded, suited, trail)

    async def _nearest(self, near: NearPlan, plan: Plan, embedded: Embedded, *, waited_s: float) -> list[Match]:
        """The neighbours, for an ask that has waited so long for Redis. Raises CacheError.

        While Redis compares vectors, the question is made ready to be judged.
        """
        searching = asyncio.create_task(
            self.semantic.nearest(near.scope, plan.partition, embedded.vector, space=embedded.space, waited_s=waited_s)
        )
        try:
            for _ in range(SENDING_TURNS):
                await asyncio.sleep(0)
            if not searching.done():
                with contextlib.suppress(Exception):  # a defect in a guard is told where its verdict counts
                    rehearse(near.question, self.guards)
            return await searching
        finally:
            searching.cancel()

    def kin(self, near: Nearness, asked: Question | None, plan: Plan, flights: Flights, trail: Trail) -> Kin | None:
        """The nearest flight whose answer may serve an ask that no entry serves. Waits for nothing.

        An ask that wants a fresh answer (`plan.read` is false) wants it to its own words.
        """
        if asked is None or not (self.joins and plan.read):
            return None
        found = islice(flights.near(asked, plan.needs), FLIGHTS_MAX)
        kins = [
            Kin(flight, answered, asked.text, similarity, near.plan.threshold) for flight, answered, similarity in found
        ]
        if not kins:
            return None
        kin, verdict = _chosen((kin, self.weigh(near.plan, kin.answered.text, kin.similarity)) for kin in kins)
        trail.note("in-flight", f"{kin.similarity:.3f}")
        trail.note("verdict", verdict.reason or "serve")
        return kin if verdict.serve else None

    async def _embed(self, question: str, trail: Trail) -> Embedded:
        """The question's vector, or none: the embedder is not ready, or does not read the question to its end."""
        try:
            with trail.timed("embed"):
                embedded = await self.vectors.embed(question)
        except EmbedderError:
            if self.vectors.state != "off":
                self.metrics.fault(Fault.EMBEDDER)
            trail.note("near", "no-vector")
            return NO_VECTOR
        if not embedded.fits:
            trail.note("near", "too-long")
        return embedded

    def suits(self, match: Match, plan: Plan) -> bool:
        """Whether a neighbour is as young as the caller wants it, and tells all a reply needs."""
        return not shortcoming(match.entry, plan, self.clock.now())

    async def _judge(self, near: NearPlan, embedded: Embedded, matches: Sequence[Match], trail: Trail) -> Nearness:
        """The first match that may be served; if there is none, the nearest with what spoke against it.

        Other asks have their turn between two neighbours.
        """
        if not matches:
            trail.note("near", "none")
            return Nearness(near, embedded)
        judged: list[tuple[Match, Verdict]] = []
        for match in matches:
            if judged:
                await asyncio.sleep(0)
            judged.append((match, await self._weighed(near, match)))
            if judged[-1][1].serve:
                break
        match, verdict = _chosen(judged)
        trail.note("near", f"{match.similarity:.3f}")
        word, entry = verdict.reason or "serve", match.entry
        asked, stored = self._shown(near.question, entry.question)
        trail.neighbour = Neighbour(entry.id, match.similarity, near.threshold, word, asked=asked, stored=stored)
        trail.note("verdict", word)
        self.metrics.verdict(word)
        return Nearness(near, embedded, match, verdict)

    async def _weighed(self, near: NearPlan, match: Match) -> Verdict:
        answered = match.entry.question
        if len(near.question) + len(answered) > ASIDE_ABOVE_CHARS:
            return await asyncio.to_thread(self.weigh, near, answered, match.similarity)
        return self.weigh(near, answered, match.similarity)

    def joined(self, kin: Kin) -> Neighbour:
        """The question that an ask has joined, as the neighbour that was weighed for it."""
        asked, answered = self._shown(kin.asked, kin.answered.text)
        entry_id = kin.answered.entry_id
        return Neighbour(entry_id, kin.similarity, kin.threshold, "serve", asked=asked, stored=answered)

    def _shown(self, asked: str, answered: str) -> tuple[str, str]:
        return (asked, answered) if self.prompts else ("", "")

    def weigh(self, near: NearPlan, answered: str, similarity: float) -> Verdict:
        """The verdict on one answered question; a guard that raises is counted and serves nothing."""
        if self.apart.is_apart(near.question, answered, near.scope):
            return Verdict(serve=False, reason="feedback")
        try:
            return accept(near.question, answered, similarity, threshold=near.threshold, guards=self.guards)
        except Exception:  # noqa: BLE001 - a defect in a guard must cost a hit, not the ask
            _log.exception("a guard raised")
            self.metrics.fault(Fault.GUARD)
            return Verdict(serve=False, reason="guard:raised")


def _chosen(judged: Iterable[tuple[_Judged, Verdict]]) -> tuple[_Judged, Verdict]:
    """The first that may be served, after which none is judged; if there is none, the first of all."""
    first = None
    for pair in judged:
        if pair[1].serve:
            return pair
        first = first or pair
    if first is None:
        raise ValueError("nothing to choose from")
    return first
