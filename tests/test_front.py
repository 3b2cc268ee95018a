"""What a front tells its main process is complete and bounded."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy import front
from cacheproxy.front import Telling
from cacheproxy.metrics import Fault
from cacheproxy.model import Decision, Outcome
from cacheproxy.upstream.loaded import Wish
from cacheproxy.workers.messages import Gauges, Report

HIT = Decision(Outcome.EXACT, "chat", 1e9, 0.001, tier="memory", model="llama3.2:latest")


def test_what_was_taken_is_not_told_again() -> None:
    """Each thing is in one report."""
    telling = Telling()
    telling.decided(HIT, 3)
    telling.wished("d", Wish(num_ctx=1))
    telling.fault(Fault.ENTRY_CORRUPT)
    assert telling.something.is_set()

    assert telling.take(Gauges(1)) == Report(0, ((HIT, 3),), {"d": Wish(num_ctx=1)}, {"entry_corrupt": 1}, Gauges(1))
    assert not telling.something.is_set()
    assert telling.take(Gauges()) == Report()


def test_faults_that_the_main_process_meets_itself_are_not_told() -> None:
    """The ask goes there, finds Redis away as well, and is counted once."""
    telling = Telling()
    telling.fault(Fault.REDIS_UNAVAILABLE)
    telling.fault(Fault.CHECK_MISMATCH)

    assert telling.take(Gauges()) == Report()


def test_no_ask_is_lost_when_there_are_too_many_to_tell_one_by_one(monkeypatch) -> None:
    """Past the bound they are summed by kind; the sum is that of all."""
    monkeypatch.setattr(front, "UNTOLD_MAX", 2)
    telling = Telling()
    other = replace(HIT, dialect="generate")
    for decision, count in ((HIT, 1), (HIT, 1), (HIT, 5), (other, 1), (HIT, 2)):
        telling.decided(decision, count)
    report = telling.take(Gauges())

    assert report.decisions == ((HIT, 1), (HIT, 1), (HIT, 7), (other, 1))


def test_asks_that_had_no_first_byte_are_summed_apart(monkeypatch) -> None:
    """The mean is that of those which had one."""
    monkeypatch.setattr(front, "UNTOLD_MAX", 0)
    telling = Telling()
    for first_byte_s, count in ((0.1, 1), (None, 2), (0.4, 2)):
        telling.decided(replace(HIT, first_byte_s=first_byte_s), count)
    (began, none) = telling.take(Gauges()).decisions

    assert (began[0].first_byte_s, began[1]) == (pytest.approx(0.3), 3)
    assert (none[0].first_byte_s, none[1]) == (None, 2)


@given(
    st.lists(
        st.tuples(st.integers(0, 10**7), st.integers(0, 10**6), st.integers(1, 9), st.floats(0, 10)),
        min_size=1,
        max_size=20,
    )
)
def test_what_many_asks_saved_is_told_to_the_last_token(asks) -> None:
    """Their sums are exact, in milliseconds; what only one of them had is told of none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(front, "UNTOLD_MAX", 0)
        telling = Telling()
        for ms, tokens, count, seconds in asks:
            like = replace(HIT, entry="e", age_s=1.0, trail="memory:hit", seconds=seconds)
            telling.decided(replace(like, saved_s=ms / 1000, saved_tokens=tokens), count)
        told = telling.take(Gauges()).decisions

    assert len(told) <= 3
    assert sum(count for _, count in told) == sum(count for _, _, count, _ in asks)
    assert sum(round(one.saved_s * 1000) * count for one, count in told) == sum(ms * count for ms, _, count, _ in asks)
    assert sum(one.saved_tokens * count for one, count in told) == sum(tokens * count for _, tokens, count, _ in asks)
    seconds = sum(seconds * count for _, _, count, seconds in asks)
    assert sum(one.seconds * count for one, count in told) == pytest.approx(seconds)
    assert {(one.entry, one.age_s, one.trail) for one, _ in told} == {("", None, "")}
