"""How alike two answers are, by their words."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.rules.likeness import LETTERS_MAX, likeness
from tests.fakes.speed import slowness


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("Paris", "Paris", 1.0),
        ("", "", 1.0),
        ("Paris", "", 0.0),
        ("The capital is Paris.", "the CAPITAL is paris", 1.0),
        ("red green", "red blue", 0.5),
        ("no no no", "no", 0.5),
        ("A beats B", "B beats A", 1.0),
        ("x_1 = 2", "x_1 = 3", 0.5),
        ("...", "...\n", 1.0),
        ("...", "!!!", 0.0),
        ("...", "word", 0.0),
        ("Größe: 5", "GRÖSSE: 5", 0.5),
        ("naïve café", "naïve tea", 0.5),
        ("今天天气好", "今天天气坏", 0.8),
        ("Wi-Fi 6", "Wi Fi 6", 1.0),
    ],
)
def test_answers_are_as_alike_as_the_words_they_share(a, b, expected):
    """Twice the words in common over all words, each as often as it occurs, whatever case, order and punctuation."""
    assert likeness(a, b) == pytest.approx(expected)


def test_ascii_and_other_text_are_cut_into_the_same_words():
    """There is a faster way for ASCII; one sign beyond it must not change what the other words are."""
    text = "It's 3.14, isn't it?\n```py\nx_1 = 2\t#\x00\x1f\x7f```"

    assert likeness(text, f"{text} …") == 1.0


@given(st.text(max_size=200), st.text(max_size=200))
def test_any_two_texts_have_a_likeness(a, b):
    """Symmetric, between 0 and 1, and 1 for a text and itself."""
    assert likeness(a, b) == likeness(b, a)
    assert 0.0 <= likeness(a, b) <= 1.0
    assert likeness(a, a) == 1.0


def test_of_a_very_long_answer_only_the_head_is_compared():
    """So that no answer, however long, holds up the others."""
    head = "word " * (LETTERS_MAX // 5 + 1)

    assert likeness(head + "a " * 100_000, head + "b " * 100_000) == 1.0


def test_two_long_answers_take_well_under_a_millisecond():
    """Measured at 0.09 ms for 500 words each; the bound is loose because the machine is shared."""
    a = " ".join(f"word{number % 250}" for number in range(500))
    b = " ".join(f"word{number % 300}" for number in range(500))
    best_s = 1.0
    for _ in range(20):
        began = time.perf_counter()
        likeness(a, b)
        best_s = min(best_s, time.perf_counter() - began)

    assert best_s < 0.001 * slowness()
