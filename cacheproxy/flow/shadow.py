"""Shadow mode: what would have been served, beside what Ollama then answered.

The evidence on which an operator chooses a threshold (`cacheproxy tune --shadow`). Runs after the caller has the
answer. Refuses to judge: it writes down the similarity, what the guards said, and how alike the two answers are.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from cacheproxy.clock import Clock
from cacheproxy.errors import CacheError
from cacheproxy.flow.near import Nearness
from cacheproxy.metrics import Fault, Metrics
from cacheproxy.model import Answer
from cacheproxy.rules.guards import object_to
from cacheproxy.rules.likeness import likeness
from cacheproxy.store.shadow import Shadow, ShadowRecord


@dataclass(frozen=True, slots=True)
class Compare:
    """Writes records. `guards`: names of those that are switched on."""

    record: Shadow
    metrics: Metrics
    clock: Clock
    guards: Collection[str]

    async def note(self, near: Nearness, answer: Answer, model: str) -> None:
        """Record what the near tier found for an ask and what Ollama answered. Never raises; a failure is counted."""
        match, verdict = near.match, near.verdict
        if match is None or verdict is None:
            return
        asked, stored = near.plan.question, match.entry.question
        record = ShadowRecord(
            similarity=match.similarity,
            reason=verdict.reason,
            guards=tuple(name for name in self.guards if object_to(asked, stored, (name,))),
            likeness=likeness(match.entry.answer.text, answer.text),
            scope=near.plan.scope,
            model=model,
            question=asked,
            stored=stored,
            time=self.clock.now(),
        )
        try:
            await self.record.put(record)
        except CacheError:
            self.metrics.fault(Fault.STORE_FAILED)
