"""What is kept from happening and what is let happen: *keep it from running*, *keep it running*; *stop*, *let*.

A verb like *stop* says of the verb after it whether somebody else is kept from it or the one who acts leaves it off:
*stop Windows from updating* is not *stop updating Windows*. Knows English word order only; *not* is left to the guard
over negation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from cacheproxy.rules.guard.function_words import NEGATORS, PREPOSITIONS
from cacheproxy.rules.guard.lists import words
from cacheproxy.rules.guard.pair import Pair
from cacheproxy.rules.guard.reading import READINGS_MAX, Kind, Reading, Token

_KEEPING = words("keep keeps kept keeping")
_STOPPING = words(
    """stop stops stopped stopping halt prevent prevents prevented preventing block blocks blocked blocking prohibit
    forbid ban deter discourage disallow disallows disallowed"""
)
_LETTING = words(
    """let lets letting allow allows allowed allowing enable enables enabling permit permits permitted encourage
    encourages force forces cause causes make makes made help helps get gets"""
)
_PERSONS = words("someone somebody anyone anybody everyone everybody people person him her them")
_ENDS = words("if when while because before after until unless and or but so who which that")
_REACH_MAX = 8
"""Tokens after such a verb in which the verb stands that it is about."""


@dataclass(frozen=True, slots=True)
class _Caused:
    """What a text says of its verbs, by form."""

    prevented: dict[str, frozenset[str]]
    """With those who are kept from it."""
    left_off: dict[str, frozenset[str]]
    """By the one who acts, with what it was done to."""
    let: frozenset[str]
    """Let or kept going."""


def other_effect(pair: Pair) -> bool:
    """One text is about preventing what the other lets happen, or leaves off doing to the one who is stopped."""
    a, b = _caused(pair.a), _caused(pair.b)
    if not NEGATORS.isdisjoint(pair.a.texts | pair.b.texts):
        return False
    return _contrary(a, b) or _contrary(b, a) or _leaves_it_off(a, b, pair.b) or _leaves_it_off(b, a, pair.a)


def _leaves_it_off(one: _Caused, other: _Caused, reading: Reading) -> bool:
    """Somebody is kept from what the other leaves off without a word of him (`stop kids from watching`)."""
    return any(
        verb in other.left_off and verb not in other.let and stopped and stopped.isdisjoint(reading.forms)
        for verb, stopped in one.prevented.items()
    )


def _contrary(one: _Caused, other: _Caused) -> bool:
    for verb, stopped in one.prevented.items():
        if verb in other.prevented:
            continue
        done_to = other.left_off.get(verb, frozenset())
        if not stopped.isdisjoint(done_to) or (verb in other.let and verb not in other.left_off):
            return True
    return False


@lru_cache(maxsize=READINGS_MAX)
def _caused(reading: Reading) -> _Caused:
    prevented: dict[str, frozenset[str]] = {}
    left_off: dict[str, frozenset[str]] = {}
    let: set[str] = set()
    for at, token in enumerate(reading.tokens):
        if token.text in _KEEPING or token.text in _STOPPING:
            clause = _clause(reading.tokens, at)
            verb = next((place for place, word in enumerate(clause) if _is_ing(word)), None)
            if verb is None:
                continue
            form = clause[verb].form
            if verb and (clause[verb - 1].text == "from" or token.text in _STOPPING):
                prevented[form] = _things(clause[:verb])
            elif token.text in _KEEPING:
                let.add(form)
            else:
                left_off[form] = _object(clause[verb + 1 :])
        elif token.text in _LETTING:
            let.update(word.form for word in _clause(reading.tokens, at)[1:] if word.kind is not Kind.FUNCTION)
    return _Caused(prevented, left_off, frozenset(let))


def _clause(tokens: Sequence[Token], at: int) -> list[Token]:
    """What follows, up to the next clause or the next such verb."""
    clause: list[Token] = []
    for token in tokens[at + 1 : at + 1 + _REACH_MAX]:
        if token.text in _ENDS or token.text in _KEEPING or (token.apposed and clause):
            break
        clause.append(token)
    return clause


def _is_ing(token: Token) -> bool:
    return token.text.endswith("ing") and token.kind in (Kind.WORD, Kind.LIGHT) and token.form != token.text


def _things(tokens: Sequence[Token]) -> frozenset[str]:
    return frozenset(token.form for token in tokens if token.kind is not Kind.FUNCTION or token.text in _PERSONS)


def _object(tokens: Sequence[Token]) -> frozenset[str]:
    """What comes before a preposition: the thing to which it is done."""
    end = next((place for place, token in enumerate(tokens) if token.text in PREPOSITIONS), len(tokens))
    return _things(tokens[:end])
