"""A decision as spans: one for the ask, a child for each step, in OpenTelemetry's words for generative AI.

Names are those of the GenAI semantic conventions (`gen_ai.*`) where these have one, `cacheproxy.*` for what only a
cache knows: the conventions have no word for an answer that no model was run for. Pure.
Refuses to hold prompt text that the decision does not hold (`log.prompts`).

What the times mean: the ask ended at the decision's time and began its `seconds` before. Of steps only the lengths are
known, so they are laid one after the other from the beginning, in the order in which they ended; what no step accounts
for is left at the end. That is how they happened but for pauses between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from cacheproxy.model import Decision, Outcome

PROVIDER = "ollama"
"""The conventions list no name for Ollama, and allow one of one's own."""
OPERATIONS: Mapping[str, str] = {
    "chat": "chat",
    "openai_chat": "chat",
    "messages": "chat",
    "responses": "chat",
    "generate": "text_completion",
    "openai_completions": "text_completion",
    "embed": "embeddings",
    "embeddings": "embeddings",
    "openai_embeddings": "embeddings",
}
"""`gen_ai.operation.name` by dialect."""

Value: TypeAlias = str | int | float


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time with what is known of it. Times are Unix nanoseconds."""

    name: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Value]


def ask_span(decision: Decision, count: int = 1) -> Span:
    """The span of an ask; `count` asks that were answered alike within a moment are one span."""
    operation = OPERATIONS.get(decision.dialect, decision.dialect)
    end_ns = _ns(decision.at)
    return Span(
        f"{operation} {decision.model}".strip(),
        end_ns - _ns(max(0.0, decision.seconds)),
        end_ns,
        _of_model(operation, decision) | _of_cache(decision, count),
    )


def step_spans(decision: Decision) -> list[Span]:
    """The spans of its steps, none of which reaches beyond the ask's."""
    whole = ask_span(decision)
    spans = []
    start_ns = whole.start_ns
    for step, seconds in decision.timings_s.items():
        end_ns = min(start_ns + _ns(max(0.0, seconds)), whole.end_ns)
        spans.append(Span(f"cacheproxy.{step}", start_ns, end_ns, {"cacheproxy.step": step}))
        start_ns = end_ns
    return spans


def _of_model(operation: str, decision: Decision) -> dict[str, Value]:
    """What the conventions have names for.

    Tokens are those of the answer as Ollama once counted them: they are what the caller was told, not what was spent.
    """
    found: dict[str, Value] = {"gen_ai.operation.name": operation, "gen_ai.provider.name": PROVIDER}
    if decision.model:
        found["gen_ai.request.model"] = decision.model
    if decision.saved_tokens:
        found["gen_ai.usage.output_tokens"] = decision.saved_tokens
    return found


def _of_cache(decision: Decision, count: int) -> dict[str, Value]:
    found: dict[str, Value] = {
        "cacheproxy.outcome": decision.outcome.value,
        "cacheproxy.dialect": decision.dialect,
        "cacheproxy.tier": decision.tier,
        "cacheproxy.trail": decision.trail,
    }
    if count != 1:
        found["cacheproxy.count"] = count
    if decision.outcome is Outcome.BYPASS:
        found["cacheproxy.bypass.reason"] = decision.reason
    if decision.entry:
        found["cacheproxy.entry.id"] = decision.entry
    if decision.age_s is not None:
        found["cacheproxy.entry.age"] = decision.age_s
    if decision.saved_s:
        found["cacheproxy.saved.seconds"] = decision.saved_s
    neighbour = decision.neighbour
    if neighbour is not None:
        found |= {
            "cacheproxy.near.similarity": neighbour.similarity,
            "cacheproxy.near.threshold": neighbour.threshold,
            "cacheproxy.near.verdict": neighbour.verdict,
            "cacheproxy.near.entry": neighbour.entry,
        }
        if neighbour.asked:
            found |= {"cacheproxy.near.asked": neighbour.asked, "cacheproxy.near.stored": neighbour.stored}
    return found


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
