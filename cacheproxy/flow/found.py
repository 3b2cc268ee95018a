"""What was found for an ask: an entry to replay, a flight to follow, or nothing.

Data only; `serve.py` finds it and the edge words it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from cacheproxy.flow.coalesce import Flight, Follower
from cacheproxy.flow.nearby import Question
from cacheproxy.model import Answer, Entry, Match, NearPlan, Outcome, Plan
from cacheproxy.store.exact import Values
from cacheproxy.trail import Trail

_ASKERS_OWN = ("context", "logprobs")
"""Members of an answer that hold the tokens of the question it was given to."""


@dataclass(frozen=True, slots=True)
class Kin:
    """A question in flight whose answer an ask in other words may have."""

    flight: Flight
    answered: Question
    asked: str
    similarity: float
    threshold: float


@dataclass(frozen=True, slots=True)
class Hit:
    """An entry to replay. `tier` is where it was found."""

    entry: Entry
    outcome: Outcome
    tier: str
    similarity: float = 1.0
    """Of the question asked to the one that was answered; 1 for exact hits."""
    threshold: float = 1.0
    question: str = ""
    """The question asked, where that is not the one that was answered."""
    values: Values | None = None
    """What Redis held, where it was read by key."""

    @classmethod
    def near(cls, match: Match, plan: NearPlan) -> Hit:
        """A semantic hit. What belongs to the other question alone (its tokens as context) is cut."""
        return cls(
            replace(match.entry, answer=without_askers_own(match.entry.answer)),
            Outcome.SEMANTIC,
            "redis",
            similarity=match.similarity,
            threshold=plan.threshold,
            question=plan.question,
        )


@dataclass(frozen=True, slots=True)
class Looked:
    """A look-up by key that was made already, for this plan: what was found, and its steps."""

    plan: Plan
    hit: Hit | None
    trail: Trail


@dataclass(frozen=True, slots=True)
class Relay:
    """A flight to follow; its head has come."""

    follower: Follower
    outcome: Outcome
    kin: Kin | None = None
    """The question it answers, where that is another than the one asked. Its answer is then complete, or a stream that
    the caller takes as one; what belongs to the other question alone must be cut."""


@dataclass(frozen=True, slots=True)
class Absent:
    """Nothing stored, and the caller wants nothing else (`only-if-cached`)."""

    outcome: Outcome = Outcome.MISS


Found: TypeAlias = Hit | Relay | Absent


def without_askers_own(answer: Answer) -> Answer:
    """An answer as another question may have it: what belongs to the one it was given to is cut."""
    return replace(answer, context=None, logprobs=())


def chunk_without_askers_own(chunk: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same for one chunk of an answer under way."""
    return {name: value for name, value in chunk.items() if name not in _ASKERS_OWN}
