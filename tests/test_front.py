"""What a front tells its main process is complete and bounded."""

from __future__ import annotations

from dataclasses import replace

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
