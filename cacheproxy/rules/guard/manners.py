"""One by one or together, and of each or which one: *line by line*, *as a whole*; *in each shop*, *the shop with*.

Knows the words by which things are taken together, and a word on either side of *by*. Refuses a manner that only one
text names (*step by step*).
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from cacheproxy.rules.guard.function_words import ARTICLES
from cacheproxy.rules.guard.lists import words
from cacheproxy.rules.guard.pair import Pair
from cacheproxy.rules.guard.reading import READINGS_MAX, Kind, Reading, Token

_ONE = words("one single whole once go unit lump batch block")
"""What follows *as* or *in* and *a* where things are taken together; *once* follows *at*."""
_JOINTS = words("as in at")
_DISTRIBUTING = words("each every per")
_HAVING = words("with having has have")
_EXTREMES = words("most least best worst")


class _Manner(NamedTuple):
    """How a text takes the things it is about."""

    singly: bool
    together: bool
    of_each: frozenset[str]
    """What it takes one after another (`in each department`)."""
    shared_out: frozenset[str]
    """Of what it speaks as of *each* or *all* (`how many books has each student`)."""
    which_has: frozenset[str]
    """What it picks one of by an extreme of it (`the department with the highest salary`)."""


def other_manner(pair: Pair) -> bool:
    """One takes singly what the other takes together, or picks one where the other wants something of each."""
    a, b = _manner(pair.a), _manner(pair.b)
    here, there = a.shared_out - b.shared_out, b.shared_out - a.shared_out
    if here and there and here <= pair.b.forms and there <= pair.a.forms:
        return True
    return any(
        (one.singly and other.together and not (one.together or other.singly))
        or not (one.of_each - one.which_has).isdisjoint(other.which_has - other.of_each)
        for one, other in ((a, b), (b, a))
    )


@lru_cache(maxsize=READINGS_MAX)
def _manner(reading: Reading) -> _Manner:
    bare = [token for token in reading.tokens if token.text not in ARTICLES]
    singly = together = False
    of_each, all_of, which_has = set(), set(), set()
    for one, joint, other in zip(bare, bare[1:], bare[2:], strict=False):
        singly = singly or (joint.text == "by" and one.text == other.text)
        if joint.text in _HAVING and one.kind is Kind.WORD and _extreme(other):
            which_has.add(one.form)
    for one, other in pairwise(bare):
        together = together or (one.text in _JOINTS and other.text in _ONE)
        if one.text in _DISTRIBUTING and other.kind is Kind.WORD:
            of_each.add(other.form)
        elif one.text == "all" and other.kind is Kind.WORD and other.form != "except":
            all_of.add(other.form)
    return _Manner(singly, together, frozenset(of_each), frozenset(of_each | all_of), frozenset(which_has))


def _extreme(token: Token) -> bool:
    """A superlative, as far as its ending tells."""
    return token.text in _EXTREMES or (token.text.endswith("est") and len(token.text) > 5)
