"""Whose thing is asked about: *my order* is not *your order*, though *how do I … my* and *how do you … your* are one.

A person counts only where both texts name one in the same place: *the password* may be anybody's. English speaks of
people in general as *I*, *you* and *one* alike, so a person that agrees with the one who acts says nothing.
"""

from __future__ import annotations

from cacheproxy.rules.guard.lists import words
from cacheproxy.rules.guard.pair import Change, Pair
from cacheproxy.rules.guard.reading import Kind, Reading

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
_ACTORS = frozenset().union(*_ACTING.values())


def another_person(pair: Pair) -> bool:
    """In one place the texts name different persons, and do not both mean whoever does it."""
    return (pair.framed or len(pair.changes) == 1) and any(_differs(change, pair) for change in pair.changes)


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
