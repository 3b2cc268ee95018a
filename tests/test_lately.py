"""Sums over a day forget what is older, and histograms over bounds put a figure where Prometheus looks for it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.buckets import Buckets
from cacheproxy.lately import Lately
from cacheproxy.metrics import Metrics
from cacheproxy.model import Decision, Neighbour, Outcome
from tests.fakes.clock import FakeClock


def test_a_day_is_remembered_and_no_more():
    """An hour that was forgotten does not come back."""
    clock = FakeClock(0.0)
    lately = Lately(clock)
    lately.add("a", 2)
    clock.advance(23 * 3600)
    lately.add("a", 3)
    lately.add("b", 1)
    assert (lately.sum("a"), lately.sum("b"), lately.sum("c")) == (5, 1, 0)

    clock.advance(3600)
    assert lately.sum("a") == 3
    clock.advance(24 * 3600)
    lately.add("b", 1)
    assert (lately.sum("a"), lately.sum("b")) == (0, 1)


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(1, 5))))
def test_buckets_are_cumulative_and_hold_what_does_not_exceed_them(figures):
    """As `le` means it, the last one everything."""
    buckets = Buckets((0.5, 0.9, 1.0))
    for figure, count in figures:
        buckets.record(figure, count)

    for bound, seen in buckets.buckets():
        assert seen == sum(count for figure, count in figures if figure <= float(bound))


def test_wrong_hits_are_told_in_proportion_to_semantic_hits():
    """Nothing is claimed where there was no semantic hit, and reports of another proxy's hits make no more than 1."""
    metrics = Metrics(FakeClock())
    metrics.feedback(good=False)
    assert metrics.snapshot()["wrong_hit_ratio"] is None
    assert b"\ncacheproxy_wrong_hit_ratio " not in metrics.text()[0]

    served = Neighbour("e", 0.95, 0.92, "serve")
    metrics.decided(Decision(Outcome.MISS, "chat", 1.0, 0.1, neighbour=served), 5)  # in shadow mode
    metrics.decided(Decision(Outcome.SEMANTIC, "chat", 1.0, 0.1, neighbour=served, entry="e"), 6)
    metrics.decided(Decision(Outcome.JOINED, "chat", 1.0, 0.1, neighbour=served, entry="e"), 2)
    metrics.feedback(good=True)
    metrics.feedback(good=False)
    assert metrics.snapshot()["wrong_hit_ratio"] == 0.25
    assert b"cacheproxy_wrong_hit_ratio 0.25" in metrics.text()[0]
    for _ in range(9):
        metrics.feedback(good=False)
    assert metrics.snapshot()["wrong_hit_ratio"] == 1.0


def test_a_decision_tells_similarity_and_age():
    """Served, below and guarded apart; each as often as it was told."""
    metrics = Metrics(FakeClock())
    for verdict in ("serve", "below_threshold", "guard:numbers", "feedback"):
        neighbour = Neighbour("e", 0.93, 0.92, verdict)
        metrics.decided(Decision(Outcome.MISS, "chat", 1.0, 0.1, neighbour=neighbour), 2)
    metrics.decided(Decision(Outcome.EXACT, "chat", 1.0, 0.1, age_s=61.0))
    text = metrics.text()[0].decode()

    assert 'cacheproxy_similarity_count{decision="served"} 2.0' in text
    assert 'cacheproxy_similarity_count{decision="below"} 2.0' in text
    assert 'cacheproxy_similarity_count{decision="guarded"} 4.0' in text
    assert 'cacheproxy_similarity_bucket{decision="served",le="0.92"} 0.0' in text
    assert 'cacheproxy_similarity_bucket{decision="served",le="0.93"} 2.0' in text
    assert 'cacheproxy_entry_age_seconds_bucket{le="60",outcome="exact"} 0.0' in text
    assert 'cacheproxy_entry_age_seconds_bucket{le="300",outcome="exact"} 1.0' in text
