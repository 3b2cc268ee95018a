"""What a call is said to have been, once it has ended."""

from __future__ import annotations

import pytest

from cacheproxy.clock import SystemClock
from cacheproxy.edge.fixed import Sent
from cacheproxy.edge.plain import Plain, PlainStream
from cacheproxy.edge.tally import Tally
from cacheproxy.model import Answer, Neighbour, Outcome
from cacheproxy.trail import Trail
from tests.fakes.clock import FakeClock


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


def test_a_reply_begins_when_its_trail_was_told_or_when_it_is_out() -> None:
    """One that is streamed and had no byte never began; of several moments the first one counts."""
    clock = FakeClock()
    for reply, told_at, first_byte_s in (
        (PlainStream(), (), None),
        (PlainStream(), (1, 3), 1),
        (Plain(body=b"{}"), (), 4),
        (Sent(), (), 4),
        (Sent(), (2,), 2),
    ):
        trail, tally = Trail(clock), Tally()
        for second in range(1, 5):
            clock.advance(1)
            if second in told_at:
                trail.first_byte()
        tally.replied(reply)
        assert tally.decision("chat", trail, clock).first_byte_s == first_byte_s


@pytest.mark.parametrize(
    ("final", "saved"),
    [
        ({"total_duration": 2_500_000_000, "eval_count": 300}, (2.5, 300)),
        ({}, (0.0, 0)),
        ({"total_duration": "long", "eval_count": None}, (0.0, 0)),
        ({"total_duration": float("inf"), "eval_count": 10**400}, (0.0, 0)),
        ({"total_duration": -1_000_000_000, "eval_count": -5}, (0.0, 0)),
        ({"total_duration": float("nan"), "eval_count": 10**9}, (0.0, 0)),
        ({"total_duration": 86_401 * 10**9, "eval_count": float("nan")}, (0.0, 0)),
    ],
)
def test_what_an_answer_saved_is_what_ollama_said_it_took(final: dict[str, object], saved: tuple[float, int]) -> None:
    """A figure that is none, or that no answer can have, saves nothing: counters neither fall nor become infinite."""
    tally = Tally(outcome=Outcome.EXACT)
    tally.save(Answer("Rayleigh scattering.", final=final))

    assert (tally.saved_s, tally.saved_tokens) == saved
