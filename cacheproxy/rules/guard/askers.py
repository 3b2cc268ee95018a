"""Who does it and to whom, where a question word stands for one of them: *who sued Apple*, *who did Apple sue*.

The same verb with the same party stands before it in one text and behind it in the other. Refuses to judge the passive
(*who was sued by Apple* is *who did Apple sue*) and verbs without a direction. Called by the guard over order.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from cacheproxy.rules.guard.function_words import PASSIVE_BE, PREPOSITIONS
from cacheproxy.rules.guard.lists import words
from cacheproxy.rules.guard.reading import READINGS_MAX, Kind, Reading, Token
from cacheproxy.rules.guard.stems import stems
from cacheproxy.rules.guard.words import same_word

_ASKERS = words("who whom that what")
_HELPERS = words("do does did will would can could should shall may might must has have had")
_DO = words("do does did")
_DETERMINERS = words("the a an my our your his her their this these those")
_OF_BOTH = words("of with")
"""After its first word a clause with one of these has no direction (`what breed of dog`, `what rhymes with orange`)."""
_MUTUAL = stems("cost look border marry meet date resemble divorce fight face play mean equal")
"""Deeds that both do, or that learners of English turn round (`what means X`)."""
_ROW_MAX = 9
"""Words of a deed with its party; a longer clause says more than that."""
_NOUN_MAX = 4
"""Words in which *do* stands behind a question word and its noun (`what research did Curie do`)."""
_DEEDS_MAX = 8
"""Clauses with one that are compared with those of the other text one by one."""


class _Deed(NamedTuple):
    """One clause with a question word."""

    row: tuple[str, ...]
    """The verb and the party, in the order they have."""
    asks_object: bool
    """*Do* stands before, as it does where the question word is not the doer."""


def asker_exchanged(a: Reading, b: Reading) -> bool:
    """One asks for the doer, the other for the one to whom the same is done."""
    if _ASKERS.isdisjoint(a.texts) or _ASKERS.isdisjoint(b.texts):
        return False
    return any(_turned(one, other) or _turned(other, one) for one in _deeds(a) for other in _deeds(b))


def _turned(one: _Deed, other: _Deed) -> bool:
    """The verb stands before the party in one and behind it in the other."""
    if one.asks_object:
        return False
    verb, *after = one.row
    at = next((at for at, word in enumerate(other.row) if same_word(verb, word) or verb in (f"{word}d", f"{word}s")), 0)
    if not at or not _MUTUAL.isdisjoint(one.row):
        return False
    return all(mine == yours for mine, yours in zip(after, other.row[:at], strict=False))


@lru_cache(maxsize=READINGS_MAX)
def _deeds(reading: Reading) -> tuple[_Deed, ...]:
    """What is done, after each question word."""
    places = [at for at, token in enumerate(reading.tokens) if token.text in _ASKERS][:_DEEDS_MAX]
    deeds = (_deed(reading.tokens[at + 1 : at + 2 + _ROW_MAX]) for at in places)
    return tuple(deed for deed in deeds if len(deed.row) > 1)


def _deed(clause: tuple[Token, ...]) -> _Deed:
    return _Deed(tuple(_row(clause)), not _DO.isdisjoint(token.text for token in clause[:_NOUN_MAX]))


def _doing(before: Token, word: Token) -> bool:
    """*Apple is suing*; in *the opening hours* an article makes it part of a name."""
    return word.text.endswith("ing") and before.text not in _DETERMINERS


def _row(tokens: tuple[Token, ...]) -> Iterator[str]:
    """The content of a clause up to its end, helpers and one preposition within passed over."""
    passed = False
    going = bool(tokens) and tokens[0].text in PASSIVE_BE
    if going and not any(_doing(*both) for both in pairwise(tokens)):
        return
    if not going and tokens and tokens[0].text.endswith("ing"):
        return  # *that smoking causes*: no question word's own deed
    for at, token in enumerate(tokens):
        if token.kind is Kind.FUNCTION and token.text not in _DETERMINERS:
            if token.text in _HELPERS or (going and not at):
                continue
            if passed or not at or token.text not in PREPOSITIONS or (at == 1 and token.text in _OF_BOTH):
                return
            passed = True
        elif token.text not in _DETERMINERS:
            yield token.form
