"""Who gives and who gets: *how do I give a guest access* is not *how do I get access*.

Knows the verbs of giving and getting, and the one who asks. Refuses other verbs: see `parties.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from cacheproxy.rules.guard.function_words import ARTICLES
from cacheproxy.rules.guard.lists import words
from cacheproxy.rules.guard.pair import Pair
from cacheproxy.rules.guard.parties import objects
from cacheproxy.rules.guard.reading import READINGS_MAX, Kind, Reading, Token

_GIVING = words("give gives gave given giving grant grants granted granting")
_GETTING = words("get gets got getting gain gains gained gaining obtain obtains obtained obtaining receive")
_HANDING = _GIVING | words(
    """pay pays paid paying send sends sent sending lend lends lent lending transfer transfers transferred donate
    donated hand handed gift gifted loan loaned ship shipped sell sells sold forward forwarded owe made"""
)
"""Verbs with *to* before the one who gets it, or with nothing."""
_TAKING = _GETTING | words(
    """receives received receiving accept accepts accepted take takes took taken borrow borrowed collect collected buy
    bought inherit inherited"""
)
"""Verbs with *from* before the one who gives it."""
_FIRST = words("my our me us")
_OWNED = ARTICLES | words("my our your his her their some somebody someone")
_REACH_MAX = 6
"""Tokens after a verb in which the other party is named."""


def given_and_got(pair: Pair) -> bool:
    """The caller gives in one text what he gets in the other."""
    return any(_given(one, other) or _handed(one, other) for one, other in ((pair.a, pair.b), (pair.b, pair.a)))


def _given(one: Reading, other: Reading) -> bool:
    """The caller gives somebody what he gets in the other text (`give a guest access`, `get access`)."""
    if one.texts.isdisjoint(_GIVING) or not one.texts.isdisjoint(_GETTING) or not other.texts.isdisjoint(_GIVING):
        return False
    given = {form for at in _places(one, _GIVING) if _by_caller(one, at) for form in objects(one.tokens, at)}
    got = {form for at in _places(other, _GETTING) for form in _first_noun(other.tokens, at)}
    return not given.isdisjoint(got) and "for" not in other.texts


def _handed(one: Reading, other: Reading) -> bool:
    """To whom the caller gives in one text, from him he gets in the other (`what I give to my son`, `get from`)."""
    handing, taking = (one.texts - other.texts) & _HANDING, (other.texts - one.texts) & _TAKING
    if not handing or not taking or "from" not in other.texts:
        return False
    sources = _parties(other, _TAKING, "from") - _parties(one, _TAKING, "from")
    return not sources.isdisjoint(_parties(one, _HANDING, "to") - _parties(other, _HANDING, "to"))


@lru_cache(maxsize=4 * READINGS_MAX)
def _parties(reading: Reading, verbs: frozenset[str], joint: str) -> frozenset[str]:
    """The nouns after `joint`, in the clauses of those of the verbs that the caller does, or straight after *give*.

    Where `joint` stands straight after the verb, whoever does it (`payments received from`).
    """
    found = set()
    for at in _places(reading, verbs):
        joined = reading.tokens[at + 1 : at + 2] and reading.tokens[at + 1].text == joint
        if not joined and not _by_caller(reading, at):
            continue
        clause = reading.tokens[at + 1 : at + 1 + _REACH_MAX]
        place = next((place for place, token in enumerate(clause) if token.text == joint), None)
        if place is None and joint == "from":
            continue
        named = (token for token in clause[0 if place is None else place + 1 :] if token.text not in _OWNED)
        party = next(named, None)
        if party is not None and party.kind is Kind.WORD:
            found.add(party.form)
    return frozenset(found)


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
