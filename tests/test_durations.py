"""A histogram of durations: percentiles to within its promise, buckets exactly."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.counting.durations import Histogram


@given(
    st.lists(st.floats(1e-6, 8000), min_size=1, max_size=300),
    st.sampled_from([0.5, 0.95, 0.99, 1.0]),
)
def test_percentiles_are_within_two_percent(durations, share):
    """The nearest-rank percentile of the histogram is within 2 % of that of the list itself."""
    histogram = Histogram()
    for seconds in durations:
        histogram.record(seconds)

    exact = sorted(durations)[math.ceil(share * len(durations)) - 1]
    assert histogram.percentile(share) == pytest.approx(exact, rel=0.02)


@given(st.lists(st.one_of(st.floats(0, 600), st.sampled_from([b / 1000 for b in Histogram.BOUNDS_MS])), max_size=100))
def test_exported_buckets_are_exact(durations):
    """Each bucket holds the durations up to and including its bound, as Prometheus says `le` does."""
    histogram = Histogram()
    for seconds in durations:
        histogram.record(seconds)

    for bound, number in histogram.buckets():
        assert number == sum(1 for seconds in durations if seconds <= float(bound))


@pytest.mark.parametrize("seconds", [-1.0, math.nan, -math.inf])
def test_a_duration_that_cannot_be_counts_as_nothing(seconds):
    """A negative or undefined duration is counted, adds no time and poisons no sum."""
    histogram = Histogram()
    histogram.record(seconds)
    histogram.record(0.5)

    assert (histogram.count, histogram.total_s) == (2, 0.5)


def test_an_endless_duration_counts_as_the_longest():
    """Infinity lands in the last bin and leaves the sum finite."""
    histogram = Histogram()
    histogram.record(math.inf)

    assert histogram.percentile(0.5) == pytest.approx(Histogram.LONGEST_S, rel=0.02)
    assert histogram.total_s == Histogram.LONGEST_S


def test_an_empty_histogram_has_no_percentile():
    """Nothing recorded is None, not zero."""
    assert Histogram().summary() == {
        "count": 0, "mean_s": None, "p50_s": None, "p95_s": None, "p99_s": None, "longest_s": 0.0
    }  # fmt: skip
