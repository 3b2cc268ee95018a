"""Who gives and who gets: *how do I give a guest access* is not *how do I get access*.

Knows the verbs of giving and getting, and the one who asks. Refuses other verbs: see `parties.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cacheproxy.rules.guard.function_words import ARTICLES
from cacheproxy.rules.guard.lists import words
from cacheproxy.rules.guard.pair import Pair
from cacheproxy.rules.guard.parties import objects
from cacheproxy.rules.guard.reading import Kind, Reading, Token

_GIVING = words("give gives gave given giving grant grants granted granting")
_GETTING = words("get gets got getting gain gains gained gaining obtain obtains obtained obtaining receive")
_FIRST = words("my our me us")


def given_and_got(pair: Pair) -> bool:
    """The caller gives in one text what he gets in the other."""
    return _given(pair.a, pair.b) or _given(pair.b, pair.a)


def _given(one: Reading, other: Reading) -> bool:
    """The caller gives somebody what he gets in the other text (`give a guest access`, `get access`)."""
    if one.texts.isdisjoint(_GIVING) or not one.texts.isdisjoint(_GETTING) or not other.texts.isdisjoint(_GIVING):
        return False
    given = {form for at in _places(one, _GIVING) if _by_caller(one, at) for form in objects(one.tokens, at)}
    got = {form for at in _places(other, _GETTING) for form in _first_noun(other.tokens, at)}
    return not given.isdisjoint(got) and "for" not in other.texts


def _places(reading: Reading, texts: frozenset[str]) -> list[int]:
    return [at for at, token in enumerate(reading.tokens) if token.text in texts]


def _by_caller(reading: Reading, at: int) -> bool:
    """Given by the one who asks, or by whoever asks how to, and not to him."""
    before = reading.tokens[at - 1].text if at else ""
    after = {token.text for token in reading.tokens[at + 1 : at + 4]}
    return before in ("i", "we", "to") and _FIRST.isdisjoint(after & {"me", "us"})


def _first_noun(tokens: Sequence[Token], at: int) -> Iterator[str]:
    """The thing straight after a verb, articles passed over."""
    for token in tokens[at + 1 : at + 3]:
        if token.kind is Kind.WORD:
            yield token.form
        if token.text not in ARTICLES:
            return
