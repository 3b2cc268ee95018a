"""Recorded asks are gone through as the cache would: what is stored decides what can be near."""

from __future__ import annotations

import itertools

import pytest

from cacheproxy.rules.replay import NEIGHBOURS, Played, play


def near(*pairs):
    """Neighbours out of (one, other, similarity), both ways, nearest first."""
    found = {}
    for one, other, similarity in pairs:
        for a, b in ((one, other), (other, one)):
            found[a] = sorted([*found.get(a, []), (b, similarity)], key=lambda pair: -pair[1])
    return found


def played(questions, neighbours, threshold, *, objections=(), ttl_s=3600.0):
    """(exact, semantic, miss) of asks without times or labels."""
    asks = [one if isinstance(one, Played) else Played(one) for one in questions]
    result = play(asks, neighbours, threshold, objects=lambda a, b: {a, b} in objections, ttl_s=ttl_s)
    return result.exact, result.semantic, result.miss


def test_a_question_is_exact_the_second_time_and_near_ones_are_semantic():
    """A semantic hit stores nothing, so its repetition is semantic again."""
    assert played([1, 1, 2, 2], near((1, 2, 0.95)), 0.92) == (1, 2, 1)


def test_a_higher_threshold_stores_more_and_so_may_find_more_later():
    """Here 0.96 has the exact hit that 0.92 prevented: rates cannot be read off a histogram of similarities."""
    neighbours = near((1, 2, 0.93), (2, 3, 0.97), (1, 3, 0.90))

    assert played([1, 2, 3], neighbours, 0.92) == (0, 1, 2)
    assert played([1, 2, 3], neighbours, 0.96) == (0, 1, 2)
    assert played([1, 2, 3, 2], neighbours, 0.96) == (1, 1, 2)


def test_the_first_neighbour_without_objection_is_served():
    """A guard keeps two questions apart, and the next nearest is weighed."""
    neighbours = near((1, 3, 0.99), (2, 3, 0.95))

    assert played([1, 2, 3], neighbours, 0.92, objections=[{1, 3}]) == (0, 1, 2)
    assert played([1, 2, 3], neighbours, 0.92, objections=[{1, 3}, {2, 3}]) == (0, 0, 3)


def test_only_so_many_stored_neighbours_are_weighed():
    """As many as the store is asked for; unstored ones are not among them."""
    stored = range(1, NEIGHBOURS + 1)
    asked, last = 100, 101
    neighbours = near(*((one, asked, 0.99 - one / 1000) for one in stored), (last, asked, 0.93))
    objections = [{one, asked} for one in stored]

    assert played([*stored, last, asked], neighbours, 0.92, objections=objections)[1] == 0
    assert played([*stored[1:], last, asked], neighbours, 0.92, objections=objections)[1] == 1


@pytest.mark.parametrize(("later_s", "hits"), [(3599, (1, 1)), (3600, (0, 0))])
def test_answers_expire_where_times_are_known(later_s, hits):
    """From the moment they were asked for; a hit does not prolong them."""
    exact = played([Played(1, 0.0), Played(1, float(later_s))], {}, 0.92)
    semantic = played([Played(1, 0.0), Played(2, float(later_s))], near((1, 2, 0.95)), 0.92)

    assert (exact[0], semantic[1]) == hits


def test_wrong_hits_are_those_whose_labels_differ():
    """Unlabelled ones are not judged."""
    asks = [Played(1, label="a"), Played(2, label="a"), Played(3, label="b"), Played(4)]
    neighbours = near(*((1, other, 0.95) for other in (2, 3, 4)))
    result = play(asks, neighbours, 0.92, objects=lambda _a, _b: False, ttl_s=60)

    assert (result.semantic, result.judged, result.wrong) == (3, 2, 1)
    assert result.wrong_rate == 0.5
    assert result.interval[0] < 0.5 < result.interval[1]
    assert result.hit_rate == 0.75


def test_counts_always_add_up():
    """Whatever is asked in whatever order."""
    neighbours = near((0, 1, 0.95), (1, 2, 0.93), (0, 2, 0.91))
    for questions in itertools.product(range(3), repeat=4):
        assert sum(played(questions, neighbours, 0.92)) == 4
