"""Whose thing is asked about: *my order* is not *your order*, though *how do I … my* and *how do you … your* are one.

A person counts only where both texts name one in the same place: *the password* may be anybody's. English speaks of
people in general as *I*, *you* and *one* alike, so a person that agrees with the one who acts says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from cacheproxy.rules.guard.function_words import GENDERED
from cacheproxy.rules.guard.lists import words
from cacheproxy.rules.guard.pair import Change, Pair
from cacheproxy.rules.guard.parties import PARTIES
from cacheproxy.rules.guard.reading import Kind, Reading, Token

_OWNERS = {
    word: person
    for person, group in {
        "first": "my mine our ours me us myself ourselves",
        "second": "your yours ur yourself",
        "third": "his her hers him their theirs them himself herself themselves",
    }.items()
    for word in group.split()
}
"""Words for whom something belongs to or is done to, by person."""
_ACTING = {
    "first": words("i we me us"),
    "second": words("you u"),
    "third": words("one someone somebody anyone anybody everyone everybody people person"),
}
"""Who may act in general. *He* and *they* are somebody in particular."""
_THIRD = GENDERED | {"they": "they", "them": "they", "their": "they"}
_AGREEING = words("is are was were has have do does")
_ACTORS = frozenset().union(*_ACTING.values())


def another_person(pair: Pair) -> bool:
    """In one place the texts name different persons, and do not both mean whoever does it."""
    if not pair.framed and len(pair.changes) != 1:
        return False
    return any(_differs(change, pair) or _picks_other(change, pair) for change in pair.changes)


def _picks_other(change: Change, pair: Pair) -> bool:
    """*He* became *she* or *they*, after two persons of whom each picks one (`Anna hired Ben; she left`)."""
    left, right = (_pronouns(side) for side in (change.left, change.right))
    if len(left) != 1 or len(right) != 1 or left == right or left | right == {"they"}:
        return False
    before = pair.a.tokens[: pair.a.place(change.left[0])]
    named = {token.form: token for token in before if _is_person(token, pair.a)}
    plural = any(token.text.endswith("s") and token.text != token.form for token in named.values())
    return len(named) > 1 and (plural or "they" not in left | right)


def _is_person(token: Token, reading: Reading) -> bool:
    """A name, be it the first word of a sentence, or one of those who act of their own will."""
    return token.proper or token.form in PARTIES or (token.kind is Kind.WORD and token.text.title() in reading.text)


def _pronouns(side: Sequence[Token]) -> set[str]:
    """Which of *he*, *she* and *they* stands there, where nothing else does but the verb that goes with it."""
    bare = [token.text for token in side if token.text not in _AGREEING]
    return {_THIRD[text] for text in bare} if all(text in _THIRD for text in bare) else set()


def _differs(change: Change, pair: Pair) -> bool:
    left, right = (
        {_OWNERS[token.text] for token in side if token.text in _OWNERS} for side in (change.left, change.right)
    )
    if left and right and left.isdisjoint(right):
        return not _anybody(left, right, pair)
    sides = [frozenset(token.text for token in side) for side in (change.left, change.right)]
    named = [({"am", "i"}, {"are", "you"})]
    if "i" not in pair.a.texts | pair.b.texts:
        named.append(({"me"}, {"you"}))
    return any(one >= me and other >= you for one, other in (sides, sides[::-1]) for me, you in named)


def _anybody(left: set[str], right: set[str], pair: Pair) -> bool:
    """Both speak of people in general: *how can I find my*, *how can you find your*, *ways to find your*.

    Where the same ones act in both, the other person is meant (*how do I reset your password*).
    """
    actors, others = pair.a.texts & _ACTORS, pair.b.texts & _ACTORS
    if actors == others and actors:
        return False
    return _agrees(left, actors, pair.a) and _agrees(right, others, pair.b)


def _agrees(owners: set[str], actors: frozenset[str], reading: Reading) -> bool:
    """The owner is the one who acts; or nobody is named who does it (`to improve your skills`)."""
    if actors:
        return all(actors & _ACTING[person] for person in owners)
    places = [index for index, token in enumerate(reading.tokens) if token.text in _OWNERS]
    done = [
        index
        for index, (token, after) in enumerate(zip(reading.tokens, reading.tokens[1:], strict=False))
        if token.text == "to" and after.kind in (Kind.WORD, Kind.LIGHT)
    ]
    return bool(places and done) and done[0] < places[-1]
