"""The next model is guessed from habits only, and room is made by what is worth least."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.rules.foresight import Resident, guess, make_room


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("", ""),
        ("a", ""),
        ("ab", ""),
        ("aba", ""),
        ("ababa", "b"),
        ("aaabbbaabba", "b"),
        ("abacaba", "b"),
        ("abacadabaca", ""),
        ("abacabaca", "b"),
        ("abacadaeabaca", ""),
        ("abcabcab", "c"),
        ("abcabcabc", "a"),
    ],
)
def test_the_next_model_is_the_one_that_usually_follows(order, expected):
    """At least twice, and at least every second time; the same model in a row counts once."""
    assert guess(order) == expected


@given(order=st.lists(st.sampled_from("abc"), max_size=40))
def test_a_guess_is_another_model_that_was_asked_for(order):
    """Or none."""
    found = guess(order)

    assert found == "" or (found in order and found != order[-1])


@pytest.mark.parametrize(
    ("residents", "order", "expected"),
    [
        ([], "ab", ()),
        ([("a", 6)], "a", ()),
        ([("a", 7)], "a", None),
        ([("a", 2), ("b", 5)], "ba", ("b",)),
        ([("a", 2), ("b", 5)], "abab", ("a",)),
        ([("a", 2), ("b", 3), ("c", 3)], "bca", ("b",)),
        ([("a", 2), ("b", 3), ("c", 3)], "cba", ("c",)),
        ([("a", 2), ("b", 3), ("c", 3)], "abacaba", ("c",)),
        ([("a", 2), ("b", 2), ("c", 5)], "cba", ("c",)),
        ([("a", 2), ("b", 1), ("c", 5)], "bca", ("b", "c")),
        ([("a", 2), ("b", 1), ("x", 5)], "ba", ("x",)),
        ([("a", 6), ("b", 6)], "ba", ("b",)),
        ([("a", 2), ("b!", 5)], "ba", None),
    ],
)
def test_room_is_made_by_what_follows_least_and_was_asked_for_longest_ago(residents, order, expected):
    """For a model of 4 in a budget of 10; the present model and held ones (!) stay, and no more goes than must."""
    there = [Resident(name.rstrip("!"), size, held=name.endswith("!")) for name, size in residents]

    assert make_room("w", 4, 10, there, order) == expected


@given(
    sizes=st.dictionaries(st.sampled_from("abcd"), st.integers(0, 10)),
    held=st.sets(st.sampled_from("abcd")),
    order=st.lists(st.sampled_from("abcdw"), max_size=10),
    wanted_size=st.integers(0, 12),
    budget=st.integers(0, 30),
)
def test_what_stays_and_what_comes_fit_the_budget(sizes, held, order, wanted_size, budget):
    """Whenever room is found, and nothing goes that must stay; where none is found, what may go is not enough."""
    residents = [Resident(model, size, held=model in held) for model, size in sizes.items()]
    must_stay = held | set(order[-1:])

    going = make_room("w", wanted_size, budget, residents, order)

    if going is None:
        assert sum(size for model, size in sizes.items() if model in must_stay) + wanted_size > budget
    else:
        assert sum(size for model, size in sizes.items() if model not in going) + wanted_size <= budget
        assert not must_stay & set(going)
