"""The opposite comparison of exchanged things says the same: *is A bigger than B* is *is B smaller than A*.

Only what is proved by the two being exchanged whole counts; called by the guards that would see an opposite, another
order or other values in it.
"""

from __future__ import annotations

from typing import NamedTuple

from cacheproxy.rules.guard.function_words import ARTICLES
from cacheproxy.rules.guard.lists import words
from cacheproxy.rules.guard.pair import Pair
from cacheproxy.rules.guard.reading import Kind, Reading, Token

_FACTS = words("is are was were do does did has have had will")
"""Verbs that open a question about a fact."""
_PLACED = words("before after above below north south east west northeast northwest southeast southwest left right")
"""Words that compare without *than*."""
_LYING = words("lie lies located situated")
_UNCOMPARABLE = words("and or all any some every each most no both either neither but only")
"""Of more than two things, or of a share of them."""


def converse(pair: Pair) -> bool:
    """The opposite comparison of exchanged things: *is A bigger than B* and *is B smaller than A*.

    Only of facts, and of one thing with one other: *should I eat before I run* does not advise to run after eating, and
    20 % more is not 20 % less the other way.
    """
    if len(pair.opposed) != 1 or pair.opposed[0].contrary:
        return False
    opposites = pair.opposed[0]
    one, other = _compared(pair.a, opposites.left), _compared(pair.b, opposites.right)
    if one is None or other is None or not (one.tail and other.tail):
        return False
    if one.head == other.head and one.middle and (one.middle, one.tail) == (other.tail, other.middle):
        return True  # faster in water than in air
    x, y = len(other.tail), len(one.tail)
    subjects_exchanged = one.head[:x] == other.tail and other.head[:y] == one.tail
    return subjects_exchanged and one.head[x:] == other.head[y:] and one.middle == other.middle


class _Compared(NamedTuple):
    """The words of a comparison that are neither helpers nor the comparing word itself."""

    head: tuple[str, ...]
    middle: tuple[str, ...]
    """Between the comparing word and its *than*."""
    tail: tuple[str, ...]


def _compared(reading: Reading, comparing: Token) -> _Compared | None:
    """A question that compares two things, in its parts; None for all others."""
    tokens = reading.tokens
    if tokens and tokens[0].text == "why":
        tokens = tokens[1:]
    if not tokens or tokens[0].text not in _FACTS or not reading.texts.isdisjoint(_UNCOMPARABLE):
        return None
    at = next((place for place, token in enumerate(tokens) if token is comparing), 0)
    than = next((place for place in range(at, len(tokens)) if tokens[place].text == "than"), 0)
    subject = next((token for token in tokens[1:] if token.text not in ARTICLES), tokens[0])
    percent = any(token.kind is Kind.NUMBER and "%" in token.form for token in tokens)
    if not at or subject.kind is Kind.FUNCTION or percent or not (than or comparing.text in _PLACED):
        return None
    cuts = (tokens[:at], tokens[at + 1 : max(at + 1, than)], tokens[max(at, than) + 1 :])
    return _Compared(*(tuple(token.form for token in part if _compares(token)) for part in cuts))


def _compares(token: Token) -> bool:
    return token.kind is not Kind.FUNCTION and token.text not in _LYING
