from __future__ import annotations

import pytest

from embeddings.errors import TextError
from embeddings.text import prepared, runs, short_enough


def test_each_text_gets_the_prefix_of_the_model():
    """A model trained with a prefix must see it on every text."""
    assert prepared(["a", ""], "query: ") == ["query: a", "query: "]


@pytest.mark.parametrize("texts", ["one text", b"bytes", [b"bytes"], [None], [3], ["fine", "half \ud83d pair"]])
def test_what_is_not_a_list_of_unicode_strings_is_refused(texts):
    """A string would be embedded letter by letter; half a surrogate pair has no UTF-8."""
    with pytest.raises(TextError):
        prepared(texts, "")


def test_runs_hold_every_text_once_and_stay_under_the_bound():
    """No text is lost or doubled, and padding never takes a run over the bound."""
    lengths = [5, 200, 7, 7, 256, 2, 90, 256, 31]

    made = list(runs(lengths, 300))

    assert sorted(index for run in made for index in run) == list(range(len(lengths)))
    assert all(len(run) * max(lengths[index] for index in run) <= 300 for run in made)


def test_a_text_larger_than_the_bound_still_gets_a_run():
    """The bound must not make a text unembeddable."""
    assert list(runs([50, 2], 10)) == [[1], [0]]


def test_no_texts_make_no_runs():
    """Nothing in, nothing out."""
    assert list(runs([])) == []


def test_a_huge_text_is_not_worth_tokenizing():
    """The cost of asking whether a text fits is bounded."""
    assert short_enough("x" * 32 * 256, 256)
    assert not short_enough("x" * (32 * 256 + 1), 256)
