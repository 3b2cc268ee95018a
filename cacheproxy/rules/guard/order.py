"""The guard over order: the same words in other roles (*who* did it *to whom*, *from* where *to* where)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from cacheproxy.rules.guard.function_words import (
    ARTICLES,
    DIRECTIONAL,
    GENDERED,
    PREPOSITIONS,
    QUESTION_WORDS,
    SYMMETRIC,
)
from cacheproxy.rules.guard.lists import groups, words
from cacheproxy.rules.guard.pair import Change, Pair
from cacheproxy.rules.guard.polarity import converse
from cacheproxy.rules.guard.reading import READINGS_MAX, Kind, Reading, Token
from cacheproxy.rules.guard.signs import turned

_JOINING = SYMMETRIC | ARTICLES | {"and", "or"}
"""What may stand between two things that changed places without meaning anything."""
_DIFFERENT = words("differ differs difference differences different")
_BE = words("is are was were be been being got get gets")
_DO = words("do does did")
_BOUNDS = words(
    """before after during over above under below against until till since while near without within outside except
    beyond behind up down out off across around"""
)
"""Prepositions and particles of which one never stands for another, apart from those in one group of `_ALIKE`."""
_MOVES = words("to into onto towards from")
"""Those of which none stands for another of them; beside others they say little (*traffic to*, *on a site*)."""
_WAYS = _BOUNDS | _MOVES | PREPOSITIONS | words("when if by around inside throughout")
_ALIKE = [
    set(group)
    for group in groups(
        """to into onto towards; over above; under below; while during when in; out from of off; outside out of;
        over on; over to; over in during through throughout across; around about; since from;
        in into inside within; near by around;
        until till to; out off; up on; without with"""
    )
]
_PLAIN = {"in", "on", "at", "of", "for", "during"}
"""Those that say no more before a number or a date than that it is the one."""
_PREFIXES = words(
    "ab an auf aus bei durch ein fest fort her hin hoch los mit nach rein raus um unter vor weg weiter zu"
)
"""What comes off German verbs and ends the clause."""
_GERMAN_CLAUSES = words("und oder aber wenn weil damit bevor nachdem ohne obwohl falls")
_OWNED = re.compile("(?<!\\w)(\\w+)['\N{RIGHT SINGLE QUOTATION MARK}]s (?=(\\w+))")
_ROWS = words("concatenate concat append prepend words strings letters")
"""Words that make the order of what they are about count."""
_PLACES = words("first second third fourth fifth last next")
"""The same of what comes after a colon."""
_OPENING_MAX = 7
"""Tokens in which a question shows what its question word stands for."""
_CLAUSE_MAX = 7
"""Tokens over which three roles of one clause spread at most; what lies further apart moved with its whole clause."""
_NEIGHBOURS_MAX = 4
"""Content words looked at on either side of a possible verb."""
_SWAPPED_MAX = 5
"""Longest phrase, in tokens, looked for on either side of a swap."""


def direction(pair: Pair) -> bool:
    """The same things in exchanged roles. Order that says nothing (*A and B*, a clause moved to the front) passes."""
    if _gendered(pair.a) != _gendered(pair.b) or turned(_owners(pair.a), _owners(pair.b)):
        return True
    exchanged = converse(pair)
    other_way = (_turned(change, pair) or _other_prefix(change, pair) for change in pair.changes)
    if pair.framed and not exchanged and any(other_way):
        return True
    passive = _passive(pair)
    if passive is not None:
        return passive
    if not (pair.left or pair.right) and _in_sequence(pair):
        return True
    if exchanged or not _moved(pair) or (_symmetric(pair.a) and _symmetric(pair.b)):
        return False
    return (
        _asked_side_changed(pair) or _swapped(pair) or _predicate_swapped(pair) or _role_moved(pair) or _reversed(pair)
    )


def _in_sequence(pair: Pair) -> bool:
    """The same words in another order, where they are words in a row and not a sentence."""
    shared = pair.a.texts & pair.b.texts
    listed = ":" in pair.a.text and ":" in pair.b.text and not shared.isdisjoint(_PLACES)
    if shared.isdisjoint(_ROWS) and not listed:
        return False
    content = [[token.form for token in each.tokens if token.kind is not Kind.FUNCTION] for each in (pair.a, pair.b)]
    return content[0] != content[1]


def _turned(change: Change, pair: Pair) -> bool:
    """One way or bound became another before the same thing (`to English`, `from English`; `up to 5`, `over 5`)."""
    left, right = ({token.text for token in side} for side in (change.left, change.right))
    both = left | right
    if not left or not right or not both <= _WAYS or any(both <= group for group in _ALIKE):
        return False
    if (left ^ right) & _BOUNDS or both <= _MOVES:
        return True
    return not both <= _PLAIN and _before_value(change.left[-1], pair.a)


def _other_prefix(change: Change, pair: Pair) -> bool:
    """The end of another German verb at the end of a clause (`melde … an`, `melde … ab`)."""
    if len(change.left) != 1 or len(change.right) != 1 or not {change.left[0].text, change.right[0].text} <= _PREFIXES:
        return False
    after = _following(change.left[0], pair.a)
    return after is None or after.apposed or after.text in _GERMAN_CLAUSES


def _following(token: Token, reading: Reading) -> Token | None:
    place = next(place for place, other in enumerate(reading.tokens, 1) if other is token)
    return reading.tokens[place] if place < len(reading.tokens) else None


def _before_value(token: Token, reading: Reading) -> bool:
    after = _following(token, reading)
    return after is not None and after.kind in (Kind.NUMBER, Kind.DATE)


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


@lru_cache(maxsize=READINGS_MAX)
def _owners(reading: Reading) -> frozenset[tuple[str, ...]]:
    """Who has what (`widow's sister`)."""
    return frozenset(_OWNED.findall(reading.text.lower())) if "s " in reading.text else frozenset()


def _symmetric(reading: Reading) -> bool:
    """True when the text asks about a relation that has no direction."""
    if reading.texts.isdisjoint(SYMMETRIC):
        return False
    return reading.texts.isdisjoint(("from", "than")) or not reading.texts.isdisjoint(_DIFFERENT)


def _asked_side_changed(pair: Pair) -> bool:
    """One asks who does it, the other to whom it is done (`what eats spiders`, `what do spiders eat`)."""
    if {_asks_for_doer(pair.a), _asks_for_doer(pair.b)} != {True, False}:
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
    if opening[:1] not in (["who"], ["what"], ["which"]) or not _BE.isdisjoint(opening):
        return None
    return _DO.isdisjoint(opening)


def _swapped(pair: Pair) -> bool:
    """`P X M Y S` became `P Y M X S`, and what joins X and Y is not mere *and* or *or*."""
    left, right = _middle(pair.a.tokens, pair.b.tokens)
    if len(left) != len(right) or sorted(left) != sorted(right) or len(left) < 3:
        return False
    for x in range(1, min(_SWAPPED_MAX, len(left) - 2) + 1):
        for y in range(1, min(_SWAPPED_MAX, len(left) - x - 1) + 1):
            joint = left[x : len(left) - y]
            if left[:x] == right[-x:] and left[-y:] == right[:y] and joint == right[y : len(right) - x]:
                if left[0] in PREPOSITIONS and right[0] in PREPOSITIONS:
                    return False  # whole phrases moved and took their roles along
                return not _JOINING.issuperset(joint) or ARTICLES.issuperset(joint)
    return False


def _predicate_swapped(pair: Pair) -> bool:
    """*Are all squares rectangles* and *are all rectangles squares*: nothing joins the two but the opening *are*."""
    left, right = (_after_be(reading) for reading in (pair.a, pair.b))
    if not left or len(left) != len(right) or left[0] != right[0]:
        return False
    return any(left[1:at] == right[-at + 1 :] and left[at:] == right[1 : -at + 1] for at in range(2, len(left)))


@lru_cache(maxsize=READINGS_MAX)
def _after_be(reading: Reading) -> list[str]:
    """Where a text opens with *is* or *are*: its function words up to the first other word, then nothing but words.

    Empty for all other texts, and for longer ones.
    """
    tokens = reading.tokens
    at = next((place for place, token in enumerate(tokens) if token.kind is not Kind.FUNCTION), 0)
    if not at or tokens[0].text not in _BE or not 1 < len(tokens) - at <= 2 * _SWAPPED_MAX:
        return []
    if any(token.kind is not Kind.WORD for token in tokens[at:]):
        return []
    return [" ".join(token.text for token in tokens[:at]), *(token.form for token in tokens[at:])]


def _middle(a: Sequence[Token], b: Sequence[Token]) -> tuple[list[str], list[str]]:
    left, right = [token.form for token in a], [token.form for token in b]
    start = 0
    while start < min(len(left), len(right)) and left[start] == right[start]:
        start += 1
    end = 0
    while end < min(len(left), len(right)) - start and left[-1 - end] == right[-1 - end]:
        end += 1
    return left[start : len(left) - end], right[start : len(right) - end]


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
    """Every directional preposition with the first content word after it."""
    roles = set()
    preposition = ""
    for token in reading.tokens:
        if token.text in PREPOSITIONS and token.kind is Kind.FUNCTION:
            preposition = token.text
        elif token.kind is not Kind.FUNCTION:
            if preposition in DIRECTIONAL:
                roles.add((preposition, token.form))
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


def _participle(token: Token) -> bool:
    return token.kind is not Kind.FUNCTION and (
        token.text.endswith(("ed", "en", "t", "n", "d")) or token.text != token.form
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


def _passive(pair: Pair) -> bool | None:
    """Whether turning the sentence into the passive left the doer in his place; None when neither did.

    `Did A see B` is `Was B seen by A`, and is not `Was A seen by B`.
    """
    for passive, active in ((pair.a, pair.b), (pair.b, pair.a)):
        if "by" in active.texts or "by" not in passive.texts:
            continue
        at = next(index for index, token in enumerate(passive.tokens) if token.text == "by")
        if not at or passive.texts.isdisjoint(_BE) or not _participle(passive.tokens[at - 1]):
            continue
        doer = next((token for token in passive.tokens[at + 1 :] if token.kind is not Kind.FUNCTION), None)
        verb = passive.tokens[at - 1]
        order = [token.form for token in active.tokens]
        if doer is None or doer.form not in order or verb.form not in order:
            continue
        return order.index(doer.form) > order.index(verb.form)
    return None
