"""Every listener hears of every ask."""

from __future__ import annotations

import pytest

from cacheproxy.decisions import Decisions
from cacheproxy.model import Decision, Outcome

DECISION = Decision(Outcome.EXACT, "chat", 1.0, 0.001)


def test_a_decision_reaches_each_listener_with_its_count() -> None:
    """In the order in which they were added."""
    heard: list[tuple[str, Decision, int]] = []
    decisions = Decisions()
    decisions.listeners.append(lambda decision, count: heard.append(("first", decision, count)))
    decisions.listeners.append(lambda decision, count: heard.append(("second", decision, count)))

    decisions.tell(DECISION)
    decisions.tell(DECISION, 7)

    assert heard == [(name, DECISION, count) for count in (1, 7) for name in ("first", "second")]


def test_a_listener_that_fails_harms_neither_the_ask_nor_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """The log says that one failed."""
    heard: list[int] = []

    def fail(_decision: Decision, _count: int) -> None:
        raise ValueError("a defect")

    decisions = Decisions()
    decisions.listeners += [fail, lambda _decision, count: heard.append(count)]
    decisions.tell(DECISION, 3)

    assert heard == [3]
    assert "a listener to decisions failed" in caplog.text
