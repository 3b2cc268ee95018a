"""Whether an Ollama is sent asks."""

import pytest

from cacheproxy.upstream.health import REST_S, REST_S_MAX, STEADY_S, Health


def test_one_of_which_nothing_is_known_counts_as_there():
    """At start the first ask finds out."""
    assert Health().up


def test_it_is_away_from_its_failure_until_it_has_rested_and_answers():
    """A list that was on its way when it failed does not count."""
    health = Health()

    assert health.failed(100, "connection refused")
    assert (health.up, health.reason) == (False, "connection refused")
    assert not health.failed(100.5, "the same again")
    assert not health.answered(100.5 + REST_S / 2)
    assert health.answered(100.5 + REST_S)
    assert (health.up, health.reason) == (True, "")
    assert not health.answered(200)


@pytest.mark.parametrize(("times", "rest_s"), [(1, REST_S), (2, 2 * REST_S), (4, 8 * REST_S), (20, REST_S_MAX)])
def test_one_that_comes_and_goes_rests_longer_each_time(times, rest_s):
    """Up to a minute."""
    health, now_s = Health(), 0.0
    for _ in range(times - 1):
        health.failed(now_s, "away")
        now_s += REST_S_MAX
        health.answered(now_s)
    health.failed(now_s, "away")

    assert not health.answered(now_s + rest_s * 0.99)
    assert health.answered(now_s + rest_s)


def test_one_that_stayed_up_has_forgotten_its_failures():
    """A restart a day is no flapping."""
    health = Health()
    for at_s in (0.0, 10.0):
        health.failed(at_s, "away")
        health.answered(at_s + 9)
    later_s = 19 + STEADY_S
    health.failed(later_s, "away")

    assert health.answered(later_s + REST_S)


def test_one_without_others_never_rests():
    """It is asked whatever its state; what is told of it is what was found last."""
    health = Health(rest_s=0)
    for now_s in (0.0, 1.0, 2.0):
        health.failed(now_s, "away")

        assert health.answered(now_s)
