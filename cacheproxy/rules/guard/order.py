"""The guard over order: the same words in other roles (*who* did it *to whom*, *from* where *to* where)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from cacheproxy.rules.guard.askers import asker_exchanged
from cacheproxy.rules.guard.causing import other_effect
from cacheproxy.rules.guard.converse import converse
from cacheproxy.rules.guard.doers import befell, done_or_suffered, other_than_doer, other_voice
from cacheproxy.rules.guard.function_words import (
    ARTICLES,
    DIRECTIONAL,
    GENDERED,
    PASSIVE_BE,
    PREPOSITIONS,
    QUESTION_WORDS,
    SYMMETRIC,
)
from cacheproxy.rules.guard.giving import given_and_got
from cacheproxy.rules.guard.household import owners
from cacheproxy.rules.guard.lists import words
from cacheproxy.rules.guard.pair import Change, Pair, matches
from cacheproxy.rules.guard.parties import parties_exchanged
from cacheproxy.rules.guard.pronoun_cases import cases_exchanged
from cacheproxy.rules.guard.reading import READINGS_MAX, Kind, Reading, Token
from cacheproxy.rules.guard.signs import turned
from cacheproxy.rules.guard.swaps import names_exchanged, places_exchanged
from cacheproxy.rules.guard.ways import other_way

_DIFFERENT = words("differ differs difference differences different")
_DO = words("do does did")
_STATES = words("is are was were")
_PREFIXES = words(
    """ab an auf aus bei durch ein fest fort her hin hoch los mit nach rein raus um unter vor weg weiter zu
    aan af in op uit"""
)
"""What comes off German and Dutch verbs and ends the clause."""
_GERMAN_CLAUSES = words("und oder aber wenn weil damit bevor nachdem ohne obwohl falls")
_ROWS = words(
    "concatenate concat append prepend words strings letters rotate respectively index middle push pushing pop sorted"
)
"""Words that make the order of what they are about count."""
_PLACES = words("first second third fourth fifth last next")
"""The same of what comes after a colon."""
_AT_HAND = words("cook bake recipe ingredients leftovers allergic contains containing")
"""Words by which a list says what there is, and not in which order."""
_ORDERED = words("first second third last next then order before after step")
_OPENING_MAX = 7
"""Tokens in which a question shows what its question word stands for."""
_CLAUSE_MAX = 7
"""Tokens over which three roles of one clause spread at most; what lies further apart moved with its whole clause."""
_NEIGHBOURS_MAX = 4
"""Content words looked at on either side of a possible verb."""


def direction(pair: Pair) -> bool:
    """The same things in exchanged roles. Order that says nothing (*A and B*, a clause moved to the front) passes."""
    if _gendered(pair.a) != _gendered(pair.b) or turned(owners(pair.a), owners(pair.b)):
        return True
    exchanged = converse(pair)
    otherwise = (other_way(c, pair) or _other_prefix(c, pair) or other_than_doer(c, pair) for c in pair.changes)
    if pair.framed and not exchanged and (any(otherwise) or done_or_suffered(pair)):
        return True
    passive = other_voice(pair)
    if passive is not None:
        return passive
    if (not (pair.left or pair.right) and _in_sequence(pair)) or _other_base(pair):
        return True
    if (
        parties_exchanged(pair)
        or asker_exchanged(pair.a, pair.b)
        or befell(pair)
        or _asked_owner_changed(pair)
        or given_and_got(pair)
        or cases_exchanged(pair)
        or other_effect(pair)
    ):
        return True
    return not exchanged and _exchanged(pair)


def _exchanged(pair: Pair) -> bool:
    """The things in a text changed places, and its relation has a direction."""
    if (_symmetric(pair.a) and _symmetric(pair.b)) or _relisted(pair):
        return False
    if not _moved(pair):
        return names_exchanged(pair)
    return _asked_side_changed(pair) or places_exchanged(pair) or _role_moved(pair) or _reversed(pair)


def _relisted(pair: Pair) -> bool:
    """All that differs is one list of three or more things at hand, in another order."""
    a, b = pair.a.tokens, pair.b.tokens
    if len(a) != len(b) or _AT_HAND.isdisjoint(pair.a.texts & pair.b.texts) or not _ORDERED.isdisjoint(pair.a.texts):
        return False
    start = next((at for at, (one, other) in enumerate(zip(a, b, strict=True)) if one.form != other.form), len(a))
    end = next((at for at in range(len(a), start, -1) if a[at - 1].form != b[at - 1].form), start)
    if any(token.proper or token.kind is Kind.DATE for token in a[start:end]):
        return False
    items = [_items(tokens[start:end]) for tokens in (a, b)]
    return len(items[0]) > 2 and sorted(items[0]) == sorted(items[1])


def _items(tokens: Sequence[Token]) -> list[list[str]]:
    """What commas, *and* and *or* set apart."""
    items: list[list[str]] = [[]]
    for token in tokens:
        joins = token.text in ("and", "or")
        if (joins or token.apposed) and items[-1]:
            items.append([])
        if not joins:
            items[-1].append(token.form)
    return items


def _in_sequence(pair: Pair) -> bool:
    """The same words in another order, where they are words in a row and not a sentence."""
    shared = pair.a.texts & pair.b.texts
    listed = ":" in pair.a.text and ":" in pair.b.text and not shared.isdisjoint(_PLACES)
    if shared.isdisjoint(_ROWS) and not listed:
        return False
    left, right = ([token for token in each.tokens if token.kind is not Kind.FUNCTION] for each in (pair.a, pair.b))
    return len(left) != len(right) or not all(map(matches, left, right))


def _other_prefix(change: Change, pair: Pair) -> bool:
    """The end of another German or Dutch verb at the end of a clause (`melde … an`, `melde … ab`)."""
    if len(change.left) != 1 or len(change.right) != 1 or not {change.left[0].text, change.right[0].text} <= _PREFIXES:
        return False
    after = pair.a.after(change.left[0])
    return after is None or after.apposed or after.text in _GERMAN_CLAUSES


def _other_base(pair: Pair) -> bool:
    """*15 % of 80* is not *15 % of what*."""
    a, b = _bases(pair.a), _bases(pair.b)
    return any(a[share] is not b[share] for share in a.keys() & b.keys())


@lru_cache(maxsize=READINGS_MAX)
def _bases(reading: Reading) -> dict[str, bool]:
    """Every percentage `of` something, and whether that is asked for."""
    return {
        share.form: base.text in QUESTION_WORDS
        for share, of, base in zip(reading.tokens, reading.tokens[1:], reading.tokens[2:], strict=False)
        if of.text == "of" and share.kind is Kind.NUMBER and (base.valued or base.text in QUESTION_WORDS)
    }


def _moved(pair: Pair) -> bool:
    """Something that both have stands elsewhere in one of them."""
    left = {token.form for change in pair.changes for token in change.left}
    right = {token.form for change in pair.changes for token in change.right}
    return not left.isdisjoint(right)


def _gendered(reading: Reading) -> list[str]:
    """The persons a text points at with *he* and *she*, in order; one kind alone says nothing about roles."""
    if len({GENDERED[text] for text in reading.texts & GENDERED.keys()}) < 2:
        return []
    persons = [GENDERED[token.text] for token in reading.tokens if token.text in GENDERED]
    return persons if len(set(persons)) == 2 else []


def _symmetric(reading: Reading) -> bool:
    """True when the text asks about a relation that has no direction."""
    if reading.texts.isdisjoint(SYMMETRIC):
        return False
    return reading.texts.isdisjoint(("from", "than")) or not reading.texts.isdisjoint(_DIFFERENT)


def _asked_side_changed(pair: Pair) -> bool:
    """One asks who does it, the other to whom it is done (`what eats spiders`, `what do spiders eat`)."""
    if {_asks_for_doer(pair.a), _asks_for_doer(pair.b)} != {True, False} or "with" in pair.a.texts & pair.b.texts:
        return False
    there = [token.form for token in pair.b.tokens if token.kind is not Kind.FUNCTION]
    here = [
        there.index(token.form) for token in pair.a.tokens if token.kind is not Kind.FUNCTION and token.form in there
    ]
    return any(one > other for one, other in pairwise(here))


def _asks_for_doer(reading: Reading) -> bool | None:
    """Whether *who*, *what* or *which* opens the text as its subject; None when it is neither subject nor object.

    What stands before a comma is passed over (`In this play, who …`).
    """
    asks_at_once = bool(reading.tokens) and reading.tokens[0].text in QUESTION_WORDS
    start = 0 if asks_at_once else next((place for place, token in enumerate(reading.tokens) if token.apposed), 0)
    opening = [token.text for token in reading.tokens[start : start + _OPENING_MAX]]
    if opening[:1] not in (["who"], ["what"], ["which"]) or not PASSIVE_BE.isdisjoint(opening):
        return None
    return _DO.isdisjoint(opening)


def _asked_owner_changed(pair: Pair) -> bool:
    """*Whose mother is Ann* and *who is Ann's mother*, *who is the mother of Ann* and *who is Ann the mother of*."""
    if any(token.kind is not Kind.FUNCTION for token in (*pair.left, *pair.right)):
        return False
    states = not (_STATES.isdisjoint(pair.a.texts) or _STATES.isdisjoint(pair.b.texts))
    return states and _asks_owner(pair.a) != _asks_owner(pair.b)


def _asks_owner(reading: Reading) -> bool:
    """It is asked whose it is."""
    tokens = reading.tokens
    return "whose" in reading.texts or (len(tokens) > 1 and tokens[0].text == "who" and tokens[-1].text == "of")


def _role_moved(pair: Pair) -> bool:
    """A directional preposition went over from one shared thing to another."""
    shared = pair.a.forms & pair.b.forms
    left = {role for role in _roles(pair.a) if role[1] in shared}
    right = {role for role in _roles(pair.b) if role[1] in shared}
    return any(
        one_preposition == other_preposition
        for one_preposition, _ in left - right
        for other_preposition, _ in right - left
    )


@lru_cache(maxsize=READINGS_MAX)
def _roles(reading: Reading) -> set[tuple[str, str]]:
    """Every directional preposition with the first content word after it, and with a number straight after that."""
    roles = set()
    preposition = counted = ""
    for token in reading.tokens:
        if token.text in PREPOSITIONS and token.kind is Kind.FUNCTION:
            preposition, counted = token.text, ""
        elif token.kind is Kind.FUNCTION:
            counted = ""
        else:
            if preposition in DIRECTIONAL:
                roles.add((preposition, token.form))
            elif counted and token.kind is Kind.NUMBER:
                roles.add((counted, token.form))  # *from PostgreSQL 13* is from 13
            counted = preposition if preposition in DIRECTIONAL else ""
            preposition = ""
    return roles


def _reversed(pair: Pair) -> bool:
    """Three shared words stand in exactly the opposite order: the outer two changed sides round the middle one."""
    there = _core(pair.b)
    here = [(place, there[form]) for form, place in _core(pair.a).items() if form in there]
    if all(one[1] < other[1] for one, other in pairwise(here)):
        return False
    return any(
        before[1] > middle[1] > after[1] and after[0] - before[0] <= _CLAUSE_MAX and before[1] - after[1] <= _CLAUSE_MAX
        for number, middle in enumerate(here)
        for before in here[max(0, number - _NEIGHBOURS_MAX) : number]
        for after in here[number + 1 : number + 1 + _NEIGHBOURS_MAX]
    )


@lru_cache(maxsize=READINGS_MAX)
def _core(reading: Reading) -> dict[str, int]:
    """Place of each content word that no preposition governs; a word that comes twice has no place."""
    places: dict[str, int] = {}
    twice = set()
    governed = False
    for index, token in enumerate(reading.tokens):
        if token.text in PREPOSITIONS:
            governed = True
        elif token.kind is Kind.FUNCTION:
            governed = governed and token.text in ARTICLES | {"my", "your", "his", "her", "its", "our", "their"}
        elif token.kind is not Kind.LIGHT:
            if token.form in places or token.form in twice:
                twice.add(token.form)
            elif not governed:
                places[token.form] = index
    return {form: index for form, index in places.items() if form not in twice}
