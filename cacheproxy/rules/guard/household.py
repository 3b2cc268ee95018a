"""The caller himself, or somebody or something of his: *my dog was bitten* is not *I was bitten*.

Knows who and what people have that acts or has things done to it. Refuses what is a part of the caller or says no more
than *I* (*my head hurts*, *my English*), and a wording in which somebody else comes up in another place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from cacheproxy.rules.guard.function_words import ARTICLES
from cacheproxy.rules.guard.lists import words
from cacheproxy.rules.guard.pair import Pair
from cacheproxy.rules.guard.parties import PARTIES
from cacheproxy.rules.guard.reading import READINGS_MAX, Kind, Reading, Token
from cacheproxy.rules.guard.stems import stems

_SELVES = {"i": "my", "me": "my", "we": "our", "us": "our", "you": "your", "him": "his", "them": "their"}
"""Persons, and what is theirs."""
_LIVING = PARTIES | stems(
    """baby toddler infant twins family grandmother grandfather grandma grandpa grandson granddaughter grandchild niece
    nephew fiance fiancee stepson stepdaughter puppy kitten horse pet rabbit hamster parrot hen chicken cow goat"""
)
_PROPERTY = stems(
    """car bike bicycle truck van motorcycle scooter boat house flat apartment garage fence garden roof window laptop
    phone computer shop"""
)
"""Things that something is done to instead of to their owner."""
_CALLERS = words("me us")
_AGREEING = words("am is are was were have has do does")
_DETERMINERS = ARTICLES | words("my our your his her their")
_OWNED = re.compile("(?<!\\w)(\\w+)['\N{RIGHT SINGLE QUOTATION MARK}]s (?=(\\w+))")
_NAMED_MAX = 3
"""Words that name one of the household, the owner included (`my little sister`)."""


def one_of_household(pair: Pair) -> bool:
    """Where one text has the caller, or whoever is addressed, the other has one of his; or owners changed places."""
    if pair.framed and any(
        _himself_or_his(change.left, change.right, pair.a, pair.b)
        or _himself_or_his(change.right, change.left, pair.b, pair.a)
        for change in pair.changes
    ):
        return True
    same = all(token.text in _SELVES for token in (*pair.left, *pair.right))
    return same and _owners_exchanged(pair)


def _himself_or_his(one: Sequence[Token], other: Sequence[Token], here: Reading, there: Reading) -> bool:
    """The text of `one` has *I* where that of `other` has *my son*, and not the son in another place."""
    himself = [token for token in one if token.text not in _AGREEING]
    his = [token for token in other if token.text not in _AGREEING]
    if len(himself) != 1 or himself[0].text not in _SELVES or not 1 < len(his) <= _NAMED_MAX:
        return False
    if _times(his[-1].form, here) == _times(his[-1].form, there):
        return False
    if his[0].text != _SELVES[himself[0].text] or any(token.kind is Kind.FUNCTION for token in his[1:]):
        return False
    done_to = himself[0].text in ("me", "us", "him", "them")
    return his[-1].form in _LIVING or (done_to and his[-1].form in _PROPERTY)


def _times(form: str, reading: Reading) -> int:
    return sum(token.form == form for token in reading.tokens)


def _owners_exchanged(pair: Pair) -> bool:
    """*My neighbour's dog* and *my child* have become *my dog* and *my neighbour's child*."""
    here, there = owners(pair.a), owners(pair.b)
    if any(_moved_to_caller(*sides) for sides in ((here - there, pair.a, pair.b), (there - here, pair.b, pair.a))):
        return True
    return any(
        owner == other_owner and _had(pair.a, other) and _had(pair.b, thing)
        for owner, thing in here - there
        for other_owner, other in there - here
    )


@lru_cache(maxsize=READINGS_MAX)
def owners(reading: Reading) -> frozenset[tuple[str, ...]]:
    """Who has what (`widow's sister`)."""
    return frozenset(_OWNED.findall(reading.text.lower())) if "s " in reading.text else frozenset()


def _moved_to_caller(had: frozenset[tuple[str, ...]], one: Reading, other: Reading) -> bool:
    """*My son's teacher* did it to me in one text, *my teacher* to my son in the other."""
    done_to = not _CALLERS.isdisjoint(one.texts - other.texts)
    return done_to and any(_had(other, owner) and _had(other, thing) for owner, thing in had)


def _had(reading: Reading, thing: str) -> bool:
    """The thing stands straight after an article or an owner."""
    return any(
        token.text == thing and before.text in _DETERMINERS
        for before, token in zip(reading.tokens, reading.tokens[1:], strict=False)
    )
