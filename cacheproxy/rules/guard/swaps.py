"""Two things that changed places: `P X M Y S` became `P Y M X S`, or what is said changed places with what narrows.

Compares sequences of words and no meanings; which relations have no direction is the caller's to know.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from cacheproxy.rules.guard.function_words import ARTICLES, PASSIVE_BE, PREPOSITIONS, QUESTION_WORDS, SYMMETRIC
from cacheproxy.rules.guard.lists import words
from cacheproxy.rules.guard.pair import Pair, matches
from cacheproxy.rules.guard.reading import READINGS_MAX, Kind, Reading, Token

_JOINING = SYMMETRIC | ARTICLES | {"and", "or"}
"""What may stand between two things that changed places without meaning anything."""
_RELATIVES = words("who that which whom")
_PREDICATES = words("is are was were do does did has have had can will")
"""Words with which a predicate may begin."""
_NOUN_FOLLOWS = ARTICLES | words("my your his her its our their this that")
_COUNTRIES = words("usa uk")
"""Forms that stand for a country with its article."""
_SWAPPED_MAX = 5
"""Longest phrase, in tokens, looked for on either side of a swap."""


def places_exchanged(pair: Pair) -> bool:
    """Two phrases changed places, and no others moved."""
    return _swapped(pair) or _predicate_swapped(pair) or _relatives_swapped(pair) or _compound_turned(pair)


def names_exchanged(pair: Pair) -> bool:
    """The same of names that the texts write otherwise (`Canadian`, `Canada`), so that no word moved."""
    differ = any(
        any(token.proper for token in change.left) and any(token.proper for token in change.right)
        for change in pair.changes
    )
    return differ and _swapped(pair)


def _swapped(pair: Pair) -> bool:
    """`P X M Y S` became `P Y M X S`, and what joins X and Y is not mere *and* or *or*."""
    left, right = _middle([*_as_named(pair.a, pair.b)], [*_as_named(pair.b, pair.b)])
    if len(left) != len(right) or sorted(left) != sorted(right) or len(left) < 3:
        return False
    for x in range(1, min(_SWAPPED_MAX, len(left) - 2) + 1):
        for y in range(1, min(_SWAPPED_MAX, len(left) - x - 1) + 1):
            joint = left[x : len(left) - y]
            if left[:x] == right[-x:] and left[-y:] == right[:y] and joint == right[y : len(right) - x]:
                if left[0] in PREPOSITIONS and right[0] in PREPOSITIONS:
                    return False  # whole phrases moved and took their roles along
                if len(joint) == 1 and joint[0] in PASSIVE_BE and not QUESTION_WORDS.isdisjoint(left):
                    return False  # the one names what the other asks for
                return not _JOINING.issuperset(joint) or ARTICLES.issuperset(joint)
    return False


def _relatives_swapped(pair: Pair) -> bool:
    """*Those who were hired left* and *those who left were hired*, or *the dog that bit him* and *that he bit*."""
    left, right = _middle([token.form for token in pair.a.tokens], [token.form for token in pair.b.tokens])
    if not 1 < len(left) <= 2 * _SWAPPED_MAX or sorted(left) != sorted(right):
        return False
    start = _parting(pair)
    if start < 2 or pair.a.tokens[start - 1].text not in _RELATIVES:
        return False
    turns = (at for at in range(1, len(left)) if left[at:] == right[: len(left) - at] and left[:at] == right[-at:])
    middle = pair.a.tokens[start : start + len(left)]
    return any(
        not {left[0], left[at]}.isdisjoint(_PREDICATES)
        or _doer_and_verb(middle[:at], middle[at:])
        or _doer_and_verb(middle[at:], middle[:at])
        for at in turns
    )


def _doer_and_verb(doer: Sequence[Token], verb: Sequence[Token]) -> bool:
    """Somebody or something named, and one word that is no adverb."""
    named = doer[0].text in _NOUN_FOLLOWS or doer[0].proper or (len(doer) == 1 and doer[0].text.endswith("s"))
    if len(verb) != 1 or verb[0].kind is Kind.FUNCTION or verb[0].text.endswith("ly"):
        return False
    return named and doer[-1].kind is not Kind.FUNCTION


def _compound_turned(pair: Pair) -> bool:
    """*A horse race* and *a race horse*: two nouns after an article, and nothing after them that both may describe."""
    left, right = _middle([token.form for token in pair.a.tokens], [token.form for token in pair.b.tokens])
    if len(left) != 2 or left[::-1] != right:
        return False
    start = _parting(pair)
    turned = pair.b.tokens[start : start + 2]
    if all(one.text != other.text for one, other in zip(pair.a.tokens[start : start + 2], turned[::-1], strict=True)):
        return all(token.kind is Kind.WORD for token in turned)  # *cats dog food* and *dogs cat food*
    before, nouns, after = (
        pair.a.tokens[start - 1 : start],
        pair.a.tokens[start : start + 2],
        pair.a.tokens[start + 2 :],
    )
    if not before or before[0].text not in _NOUN_FOLLOWS or (after and after[0].kind is not Kind.FUNCTION):
        return False
    return all(token.kind is Kind.WORD and not token.proper for token in nouns)


def _parting(pair: Pair) -> int:
    """The place where two texts that are not the same begin to differ."""
    both = zip(pair.a.tokens, pair.b.tokens, strict=False)
    return next((place for place, (one, other) in enumerate(both) if one.form != other.form), 0)


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
    if not at or tokens[0].text not in PASSIVE_BE or not 1 < len(tokens) - at <= 2 * _SWAPPED_MAX:
        return []
    if any(token.kind is not Kind.WORD for token in tokens[at:]):
        return []
    return [" ".join(token.text for token in tokens[:at]), *(token.form for token in tokens[at:])]


def _as_named(reading: Reading, other: Reading) -> Iterator[str]:
    """The forms of a text, with names as the other has them (`German`, `Germany`) and one form for *a* and *an*."""
    for place, token in enumerate(reading.tokens):
        following = reading.tokens[place + 1 : place + 2]
        if token.text == "the" and following and (following[0].proper or following[0].form in _COUNTRIES):
            continue
        yield "a" if token.text == "an" else _name(token, other)


def _name(token: Token, other: Reading) -> str:
    if not token.proper or token.form in other.forms:
        return token.form
    return next((word.form for word in other.alike(token) if word.proper and matches(token, word)), token.form)


def _middle(left: Sequence[str], right: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """What lies between the beginning and the end that both share."""
    start = 0
    while start < min(len(left), len(right)) and left[start] == right[start]:
        start += 1
    end = 0
    while end < min(len(left), len(right)) - start and left[-1 - end] == right[-1 - end]:
        end += 1
    return left[start : len(left) - end], right[start : len(right) - end]
