"""What a call is said to have been, once it has ended."""

from __future__ import annotations

import pytest

from cacheproxy.clock import SystemClock
from cacheproxy.edge.tally import Tally
from cacheproxy.model import Answer, Neighbour, Outcome
from cacheproxy.trail import Trail


def test_a_call_that_failed_before_anything_was_found_is_a_miss() -> None:
    """It was counted on Ollama's side, or nowhere."""
    decision = Tally().decision("chat", Trail(SystemClock()), SystemClock())

    assert (decision.outcome, decision.dialect, decision.tier, decision.reason) == (Outcome.MISS, "chat", "none", "")


def test_a_decision_tells_what_the_trail_saw() -> None:
    """Its steps, their times, and the neighbour that was weighed."""
    trail = Trail(SystemClock())
    trail.note("memory", "no")
    trail.mark("memory", 0.25)
    trail.neighbour = Neighbour("ab" * 16, 0.944, 0.92, "guard:negation")

    decision = Tally(model="llama3.2:latest").decision("chat", trail, SystemClock())

    assert (decision.trail, decision.timings_s, decision.neighbour) == ("memory:no", {"memory": 0.25}, trail.neighbour)
    assert not trail.neighbour.served


@pytest.mark.parametrize(
    ("final", "saved"),
    [
        ({"total_duration": 2_500_000_000, "eval_count": 300}, (2.5, 300)),
        ({}, (0.0, 0)),
        ({"total_duration": "long", "eval_count": None}, (0.0, 0)),
        ({"total_duration": float("inf"), "eval_count": 10**400}, (0.0, 0)),
    ],
)
def test_what_an_answer_saved_is_what_ollama_said_it_took(final: dict[str, object], saved: tuple[float, int]) -> None:
    """A figure that is none, or larger than Ollama can count, saves nothing."""
    tally = Tally(outcome=Outcome.EXACT)
    tally.save(Answer("Rayleigh scattering.", final=final))

    assert (tally.saved_s, tally.saved_tokens) == saved
