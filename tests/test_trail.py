"""A trail tells what happened to one ask, in order and with its times."""

import pytest

from cacheproxy.trail import Trail
from tests.fakes.clock import FakeClock


def test_a_trail_reads_as_its_notes_in_order():
    """The log and the debug header show it so."""
    trail = Trail(FakeClock())
    trail.note("memory", "no")
    trail.note("exact", "hit")

    assert str(trail) == "memory:no exact:hit"
    assert str(Trail(FakeClock())) == ""


def test_steps_can_be_told_later_and_each_as_often_as_it_was_taken():
    """Behind the reply, which waits for nothing that is only counted."""
    steps = []
    trail = Trail(FakeClock())
    trail.mark("exact", 0.5)
    trail.mark("exact", 0.25)
    trail.tell_to(lambda step, seconds: steps.append((step, seconds)))
    trail.mark("reply", 2.0)
    trail.tell_to(lambda step, seconds: steps.append((step, seconds)))

    assert steps == [("exact", 0.5), ("exact", 0.25), ("reply", 2.0)]
    assert trail.timings_s == {"exact": 0.25, "reply": 2.0}


def test_each_timed_step_is_reported_also_when_it_raises():
    """A failing step costs time as well."""
    clock = FakeClock()
    steps = []
    trail = Trail(clock, lambda step, seconds: steps.append((step, seconds)))
    with trail.timed("exact"):
        clock.advance(0.25)

    def parse():
        clock.advance(0.5)
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"), trail.timed("parse"):
        parse()
    trail.mark("reply", 2.0)

    assert steps == [("exact", 0.25), ("parse", 0.5), ("reply", 2.0)]
    assert trail.timings_s == {"exact": 0.25, "parse": 0.5, "reply": 2.0}
    assert trail.elapsed_s() == 0.75
