"""From scored pairs to rates by threshold, and from those to the threshold to propose."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.rules.tuning import (
    LABELS_MIN,
    THRESHOLDS,
    Objections,
    Scored,
    Tally,
    by_family,
    by_guard,
    choose,
    hits_needed,
    percent,
    tabulate,
    wilson,
)

PAIRS = [
    Scored(0.99, right=True),
    Scored(0.95, right=False, objection="numbers"),
    Scored(0.95, right=True, objection="names"),
    Scored(0.90, right=False),
    Scored(0.50, right=True),
]


def test_rows_count_hits_and_wrong_hits_with_and_without_guards():
    """A pair is a hit at its own similarity and below; what a guard objects to is one without guards only."""
    rows = tabulate(PAIRS, [0.8, 0.9, 0.95, 0.96])

    assert [(row.guarded.hits, row.guarded.wrong) for row in rows] == [(2, 1), (2, 1), (1, 0), (1, 0)]
    assert [(row.bare.hits, row.bare.wrong) for row in rows] == [(4, 2), (4, 2), (3, 1), (1, 0)]
    assert {(row.guarded.pairs, row.guarded.right) for row in rows} == {(5, 3)}


def test_rates_are_shares_of_what_they_say():
    """Hits of all pairs, wrong ones of the hits, right ones of those there are."""
    tally = tabulate(PAIRS, [0.9])[0].bare

    assert tally.hit_rate == 4 / 5
    assert tally.wrong_rate == 2 / 4
    assert tally.precision == 2 / 4
    assert tally.recall == 2 / 3
    assert tally.interval == wilson(2, 4)


def test_nothing_counted_has_no_rate():
    """It is told apart from a rate of zero."""
    tally = Tally(pairs=0, right=0, hits=0, wrong=0)

    assert (tally.hit_rate, tally.wrong_rate, tally.precision, tally.recall) == (None, None, None, None)
    assert tally.interval == (0.0, 1.0)


pairs = st.lists(
    st.builds(Scored, st.floats(-1, 1), st.booleans(), st.sampled_from(["", "numbers"])), min_size=1, max_size=60
)


@given(pairs)
def test_the_table_is_what_counting_one_by_one_gives(scored):
    """For each threshold, with guards and without."""
    for row in tabulate(scored, THRESHOLDS):
        bare = [pair for pair in scored if pair.similarity >= row.threshold]
        guarded = [pair for pair in bare if not pair.objection]
        assert (row.bare.hits, row.bare.wrong) == (len(bare), sum(not pair.right for pair in bare))
        assert (row.guarded.hits, row.guarded.wrong) == (len(guarded), sum(not pair.right for pair in guarded))


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (1, 10, 0.0179, 0.4042),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (15, 1000, 0.0091, 0.0246),
        (0, 0, 0.0, 1.0),
    ],
)
def test_intervals_are_wilsons(count, total, low, high):
    """Figures of the published formula, to four digits."""
    assert wilson(count, total) == (pytest.approx(low, abs=6e-5), pytest.approx(high, abs=6e-5))


@given(st.integers(1, 10_000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_an_interval_holds_its_share(counted):
    """And stays between 0 and 1."""
    count, total = counted
    low, high = wilson(count, total)

    assert 0.0 <= low <= count / total <= high <= 1.0


@pytest.mark.parametrize("max_wrong", [0.5, 0.05, 0.005, 0.0005])
def test_the_hits_needed_are_just_enough(max_wrong):
    """One fewer would not prove it."""
    needed = hits_needed(max_wrong)

    assert wilson(0, needed)[1] <= max_wrong < wilson(0, needed - 1)[1]


def test_the_hits_needed_for_the_default_are_those_of_the_manual():
    """docs/explain/tuning.md names them."""
    assert hits_needed(0.005) == 765


def sample(*groups):
    """Pairs from (similarity, how many right, how many wrong)."""
    return [
        Scored(similarity, right=right)
        for similarity, *counts in groups
        for right, count in zip((True, False), counts, strict=True)
        for _ in range(count)
    ]


def test_the_lowest_threshold_that_is_proven_is_chosen():
    """At 0.85 one hit in three is wrong; from 0.905 up one in a thousand is, and that is proven to be below 1 %."""
    choice = choose(tabulate(sample((0.855, 500, 500), (0.905, 500, 1), (0.955, 500, 0)), THRESHOLDS), 0.01)

    assert choice.row is not None
    assert choice.row.threshold == 0.90
    assert choice.reason == ""


def test_a_low_rate_that_few_hits_show_is_no_proof():
    """Fifty hits without a wrong one may still be wrong once in fourteen; the reason says how many it takes."""
    choice = choose(tabulate(sample((0.95, 50, 0), (0.5, 0, 200)), THRESHOLDS), 0.005)

    assert choice.row is None
    assert "0 of 50 hits wrong, so at most 7.13%" in choice.reason
    assert "765 hits" in choice.reason


def test_a_wish_out_of_reach_names_the_best_there_is():
    """Without the advice to bring more pairs, which would not help."""
    choice = choose(tabulate(sample((0.85, 50, 50), (0.95, 90, 10)), THRESHOLDS), 0.01)

    assert choice.row is None
    assert choice.best is not None
    assert choice.best.threshold == 0.95
    assert "10 of 100 hits wrong" in choice.reason
    assert "More pairs" not in choice.reason


def test_a_threshold_that_no_pair_speaks_for_is_passed_over():
    """All pairs lie at 0.93: 0.80 would give the same figures, and nothing is known of what lies between."""
    choice = choose(tabulate(sample((0.935, 1000, 1)), THRESHOLDS), 0.01)

    assert choice.row is not None
    assert choice.row.threshold == 0.93


def test_a_choice_is_by_what_guards_let_through():
    """What a guard prevents is no wrong hit."""
    scored = [Scored(0.9, right=True)] * 1000 + [Scored(0.9, right=False, objection="numbers")] * 1000
    choice = choose(tabulate(scored, THRESHOLDS), 0.01)

    assert choice.row is not None
    assert choice.row.bare.wrong_rate == 0.5


@pytest.mark.parametrize(
    ("scored", "reason"),
    [
        (sample((0.95, 30, 8)), f"not enough evidence (38 of {LABELS_MIN} labels)"),
        ([], f"not enough evidence (0 of {LABELS_MIN} labels)"),
        (sample((0.95, 5000, 0)), "not enough evidence (no pair is wrong, so nothing shows where wrong hits begin)"),
    ],
)
def test_too_little_evidence_proposes_nothing(scored, reason):
    """However good it looks."""
    choice = choose(tabulate(scored, THRESHOLDS), 0.5)

    assert choice.row is None
    assert choice.reason == reason


def test_pairs_that_are_never_served_prove_nothing():
    """A thousand far pairs make no threshold safe."""
    choice = choose(tabulate(sample((0.3, 10, 1000)), THRESHOLDS), 0.5)

    assert (choice.row, choice.best) == (None, None)
    assert "no pair would be served" in choice.reason


def test_families_are_counted_apart_with_the_worst_first():
    """Pairs without a family are in none."""
    scored = [
        Scored(0.95, right=True, family="rewording"),
        Scored(0.95, right=False, family="negation"),
        Scored(0.95, right=False, objection="numbers", family="number"),
        Scored(0.5, right=False, family="number"),
        Scored(0.95, right=False),
    ]
    families = by_family(scored, 0.9)

    assert [(one.name, one.guarded.pairs, one.guarded.wrong, one.bare.wrong) for one in families] == [
        ("negation", 1, 1, 1),
        ("number", 2, 0, 1),
        ("rewording", 1, 0, 0),
    ]


def test_guards_show_what_they_prevent_and_what_they_cost():
    """At the threshold: below it there is nothing to prevent."""
    scored = [
        Scored(0.95, right=False, objection="numbers"),
        Scored(0.95, right=False, objection="numbers"),
        Scored(0.95, right=True, objection="names"),
        Scored(0.5, right=True, objection="names"),
        Scored(0.95, right=True),
    ]

    assert by_guard(scored, 0.9) == [Objections("numbers", 2, 0), Objections("names", 0, 1)]


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, "-"), (0, "0%"), (0.005, "0.5%"), (0.0713, "7.13%"), (0.1, "10%"), (1, "100%"), (1 / 3, "33.33%")],
)
def test_shares_read_as_per_cent(share, text):
    """With two digits at most."""
    assert percent(share) == text


def test_thresholds_are_the_figures_they_look_like():
    """0.80 to 0.99 as a config file would have them, so that the one in use is found among them."""
    assert tuple(float(f"0.{number}") for number in range(80, 100)) == THRESHOLDS
