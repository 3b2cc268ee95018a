"""Questions in flight are compared within their scope, space and epoch only, and never without bound."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.flow.nearby import QUESTIONS_MAX, Nearby, Question


def question(degrees: float = 0.0, text: str = "why?") -> Question:
    """A question whose vector points that way; the cosine of two is that of the angle between them."""
    angle = np.radians(degrees)
    return Question(text, "scope", np.array([np.cos(angle), np.sin(angle)], dtype="<f4").tobytes(), "space", 1)


def test_the_nearest_comes_first_with_its_similarity() -> None:
    """Cosine, 1 for the same direction."""
    nearby: Nearby[str] = Nearby()
    for name, degrees in (("far", 90), ("near", 10), ("same", 0), ("opposite", 180)):
        nearby.add(name, question(degrees, name))

    found = list(nearby.nearest(question()))

    assert [item for item, _, _ in found] == ["same", "near", "far", "opposite"]
    assert [answered.text for _, answered, _ in found] == ["same", "near", "far", "opposite"]
    assert [similarity for _, _, similarity in found] == pytest.approx([1, np.cos(np.radians(10)), 0, -1], abs=1e-6)


@pytest.mark.parametrize("other", [{"scope": "other"}, {"space": "other"}, {"epoch": 2}])
def test_what_differs_in_more_than_its_words_is_never_compared(other: dict[str, object]) -> None:
    """Another setting, another embedder's vector (of whatever length), and what was asked before a purge."""
    nearby: Nearby[str] = Nearby()
    nearby.add("one", replace(question(), **other))  # type: ignore[arg-type]

    assert list(nearby.nearest(question())) == []


def test_no_more_than_its_bound_are_held_and_each_that_goes_makes_room() -> None:
    """The first ones: their answers come first."""
    nearby: Nearby[int] = Nearby()
    for number in range(QUESTIONS_MAX + 1):
        nearby.add(number, replace(question(), scope=str(number)))
    assert len(nearby) == QUESTIONS_MAX
    nearby.discard(QUESTIONS_MAX)
    nearby.discard(0)
    nearby.add(-1, question())

    assert (len(nearby), [item for item, _, _ in nearby.nearest(question())]) == (QUESTIONS_MAX, [-1])


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.sampled_from("ab"))))
def test_what_is_found_is_what_is_there(steps: list[tuple[bool, int, str]]) -> None:
    """Whatever came and went, in whichever order."""
    nearby: Nearby[int] = Nearby()
    there: dict[int, str] = {}
    for comes, item, scope in steps:
        nearby.discard(item)
        there.pop(item, None)
        if comes:
            nearby.add(item, replace(question(), scope=scope))
            there[item] = scope

    for scope in "ab":
        found = {item for item, _, _ in nearby.nearest(replace(question(), scope=scope))}
        assert found == {item for item, its in there.items() if its == scope}
    assert len(nearby) == len(there)
