"""Store what landed: the last step of a miss.

Runs behind the caller, who already has every byte. An answer is stored under the digest that was known before it was
asked for, and only if the model's name still stands for that digest in a list read afterwards and nobody has purged
meanwhile. Whatever goes wrong here is counted, never raised: the caller's answer was good.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from cacheproxy.clock import Clock
from cacheproxy.config import Cache
from cacheproxy.flow.coalesce import Flight
from cacheproxy.flow.near import Nearness
from cacheproxy.flow.shadow import Compare
from cacheproxy.flow.storing import store
from cacheproxy.metrics import Metrics
from cacheproxy.model import Answer, Entry, Identity, Plan
from cacheproxy.rules import keep
from cacheproxy.store.exact import Exact
from cacheproxy.store.memory import Memory
from cacheproxy.upstream.catalog import Catalog


@dataclass(frozen=True, slots=True)
class AskedAt:
    """When Ollama was asked: by the store's epoch, and in Unix time, s."""

    epoch: int
    time: float


@dataclass(frozen=True, slots=True)
class Keeper:
    """Everything needed to store an answer.

    `compare` is there in shadow mode only. `replaced` gets the key of each entry written: other processes may hold an
    older one. `spread` gives random numbers in 0..1 for the jitter of lifetimes.
    """

    settings: Cache
    memory: Memory
    exact: Exact
    models: Catalog
    compare: Compare | None
    replaced: Callable[[str], None]
    metrics: Metrics
    clock: Clock
    spread: Callable[[], float] = random.random

    def refuses(self, answer: Answer) -> bool:
        """Whether an answer is of a kind that is never kept."""
        return bool(keep.refuse(answer, self.settings))

    async def keep(self, flight: Flight, plan: Plan, near: Nearness, identity: Identity, asked: AskedAt) -> None:
        """Store the flight's answer if it may be. Never raises."""
        self.metrics.step("upstream_total", flight.seconds)
        if flight.head.status != 200:
            if flight.head.status == 404:
                self.models.unknown_nowait()
            self.metrics.not_kept("status")
            return
        answer = flight.answer
        reason = flight.reason if answer is None else keep.refuse(answer, self.settings)
        if reason or answer is None:
            self.metrics.not_kept(reason)
            return
        lifetime_s = await self._lifetime_s(flight, plan, identity, asked)
        if lifetime_s:
            began_s = self.clock.monotonic()
            for entry in self._entries(answer, plan, near, identity, lifetime_s):
                await self._store(entry, plan, asked.epoch)
            self.metrics.step("store", self.clock.monotonic() - began_s)
        if self.compare is not None:
            await self.compare.note(near, answer, identity.short)

    async def _lifetime_s(self, flight: Flight, plan: Plan, identity: Identity, asked: AskedAt) -> float:
        """How long to keep an answer; 0, and counted, if not at all."""
        lifetime_s = keep.lifetime_s(plan, self.settings, spread=self.spread())
        model, source = flight.ask.model, flight.head.source
        if not await self.models.still(model, identity, source):
            self.metrics.not_kept("digest-changed")
            return 0.0
        if await self.models.prints_date(model, identity, source):
            # The day is that of the prompt, and the answer may have come after its end.
            midnight = asked.time + keep.until_midnight_s(asked.time)
            lifetime_s = min(lifetime_s, midnight - self.clock.now())
        if lifetime_s < 1:
            self.metrics.not_kept("ttl")
            return 0.0
        return lifetime_s

    def _entries(
        self, answer: Answer, plan: Plan, near: Nearness, identity: Identity, lifetime_s: float
    ) -> list[Entry]:
        """The entry for the plan's ask and, where it has one, for the same ask without logprobs."""
        now = self.clock.now()
        entry = Entry(
            key=plan.key,
            check=plan.check,
            partition=plan.partition,
            scope=near.plan.scope,
            digest=identity.digest,
            answer=answer,
            question=near.plan.question,
            vector=near.embedded.vector,
            space=near.embedded.space,
            made=now,
            expires=now + lifetime_s,
        )
        if not plan.plain_key:
            return [entry]
        return [entry, replace(entry, key=plan.plain_key, check=plan.plain_check, answer=replace(answer, logprobs=()))]

    async def _store(self, entry: Entry, plan: Plan, epoch: int) -> None:
        written = await store(
            entry,
            plan,
            epoch,
            exact=self.exact,
            memory=self.memory,
            settings=self.settings,
            metrics=self.metrics,
        )
        if written:
            self.replaced(entry.key)
