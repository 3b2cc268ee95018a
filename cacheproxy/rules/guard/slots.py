"""The guard over slots: the same sentence with something else in one place.

A frame both texts share proves by position that two words stand for each other; then they are different things unless
they are known to mean the same. Where a sentence was rearranged only things of one kind prove it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from cacheproxy.rules.guard.additions import one_more
from cacheproxy.rules.guard.complements import other_complement
from cacheproxy.rules.guard.compounds import longer_noun
from cacheproxy.rules.guard.function_words import ARTICLES, PREPOSITIONS
from cacheproxy.rules.guard.household import one_of_household
from cacheproxy.rules.guard.kinds import kinds
from cacheproxy.rules.guard.light import another_light_word
from cacheproxy.rules.guard.lists import words
from cacheproxy.rules.guard.pair import Change, Pair
from cacheproxy.rules.guard.persons import another_person
from cacheproxy.rules.guard.reading import Kind, Reading, Token
from cacheproxy.rules.guard.stems import stems

_FILLING_MAX = 3
"""Content words the filling of a slot has at most; longer ones are other sentences."""
_MODIFIERS_MAX = 2
_IDLE = ARTICLES | words("my your our their its some any is are do does can so very")
"""Function words that come and go without another word being asked for; `persons.py` weighs whose a thing is."""
_OPENING_VERBS = words("is are am was were do does did can could will would should may might must has have had")

_PERFORMING = stems("perform conduct execute undergo undertake calculate compute determine compile prepare")
"""Verbs that with a noun say what the noun's verb says alone (*perform a search of* is *search*)."""

_WHICH_IS = stems(
    """number amount quantity process act practice art game sport subject field topic name case form version model brand
    city town state country island river language cup glass bottle slice pair group set file folder command theory law
    theorem phenomenon event disease effect member rest whole entirety majority use area"""
)
"""Things that with *of* are what follows, or a measure of it (`the city of Lima`, `the number of days`)."""
_ENDS = words("top bottom end start beginning middle back front inside side edge")
"""Parts of what follows *of*, though most of them say little elsewhere."""
_CALLED = words("command abbreviation acronym keyword")
"""Words before the name of what they are (`the command chmod`)."""
_COMPOUNDED = words("line lines prompt key keys center centre structure economy density search")
"""What makes something else of them (`the command line`)."""


def slots(pair: Pair) -> bool:
    """Other words or another person in one place of a sentence, one narrowing word more, or things of one kind."""
    if pair.framed and (_refilled(pair) or _narrowed(pair) or _done_to_deed(pair) or _in_one_place(pair)):
        return True
    if another_person(pair) or one_of_household(pair):
        return True
    left, right = (kinds(token.form for token in side if token.kind is Kind.WORD) for side in (pair.left, pair.right))
    return not left.isdisjoint(right)


def _refilled(pair: Pair) -> bool:
    """Slots were filled otherwise, and nothing else in the sentence changed but its opening and idle words.

    Both sides must have a word of their own in them: two fillings that only changed places are for the guard of order.
    """
    own = _own(pair)
    if not own:
        return False
    moved = {token.form for change in pair.changes for token in change.left} & {
        token.form for change in pair.changes for token in change.right
    }
    slots = [change for change in pair.changes if _slot(change, own, moved)]
    left = any(token.form in own for change in slots for token in change.left)
    right = any(token.form in own for change in slots for token in change.right)
    filled = {id(change) for change in slots}
    others = (change for change in pair.changes if id(change) not in filled)
    return (
        left
        and right
        and all(_idle(other) or _opening(other, pair) or _binds_slot(other, slots, pair.a) for other in others)
    )


def _own(pair: Pair) -> frozenset[str]:
    """Words only one side has. Opposites are left out: the guards for negation and comparison weigh them."""
    own = frozenset(token.form for token in (*pair.own_left, *pair.own_right) if token.kind is Kind.WORD)
    return own - {token.form for opposites in pair.opposed for token in (opposites.left, opposites.right)}


def _slot(change: Change, own: frozenset[str], moved: set[str]) -> bool:
    """Both sides put something else there, in the same bindings: a word of their own, or one from elsewhere."""
    for side, other in ((change.left, change.right), (change.right, change.left)):
        there = {token.form for token in other} if moved else moved
        count = sum(
            token.kind is Kind.WORD and (token.form in own or token.form in moved) and token.form not in there
            for token in side
        )
        if not 0 < count <= _FILLING_MAX:
            return False
    left, right = _bindings(change.left), _bindings(change.right)
    if left == right or _verb_with_preposition(change.left, change.right) or _other_place(change):
        return True
    return any(len(side) == 1 and side[0].width > 1 for side in (change.left, change.right))  # a preposition within


def _verb_with_preposition(left: Sequence[Token], right: Sequence[Token]) -> bool:
    """One word stands for two of which the second binds the first to its object (`won`, `played in`)."""
    one, two = sorted((left, right), key=len)
    return len(one) == 1 and len(two) == 2 and two[1].text in PREPOSITIONS


def _other_place(change: Change) -> bool:
    """Each side is one preposition with what it binds (`on the counter`, `in the fridge`)."""
    return all(
        side[0].text in PREPOSITIONS
        and not any(token.kind is Kind.FUNCTION for token in side[1:] if token.text not in _IDLE)
        for side in (change.left, change.right)
    )


def _binds_slot(change: Change, slots: Sequence[Change], reading: Reading) -> bool:
    """One preposition for another, and what it binds is a slot (`on the counter`, `in the fridge`).

    `reading` is the left text.
    """
    if not all(len(side) == 1 and side[0].text in PREPOSITIONS for side in (change.left, change.right)):
        return False
    after = reading.tokens[reading.place(change.left[0]) + 1 :]
    bound = next((token for token in after if token.text not in _IDLE), None)
    return any(slot.left[0] is bound for slot in slots)


def _bindings(tokens: Sequence[Token]) -> set[str]:
    """The words around a filling that must agree for the frame to be the same."""
    return {token.form for token in tokens if token.kind is Kind.FUNCTION and token.text not in _IDLE}


def _idle(change: Change) -> bool:
    return all(token.text in _IDLE for token in (*change.left, *change.right))


def _opening(change: Change, pair: Pair) -> bool:
    """The change lies before the first content word of both texts (`How do I`, `What is the best way to`)."""
    for side, reading in ((change.left, pair.a), (change.right, pair.b)):
        content = next((index for index, token in enumerate(reading.tokens) if token.kind is Kind.WORD), 0)
        if any(reading.place(token) >= content for token in side):
            return False
    return True


def _narrowed(pair: Pair) -> bool:
    """All that differs is on one side, straight before what it narrows or has (`an official organizer`)."""
    changes = [change for change in pair.changes if not _idle(change)]
    if len(changes) != 1:
        return False
    for more, less, reading in (
        (changes[0].left, changes[0].right, pair.a),
        (changes[0].right, changes[0].left, pair.b),
    ):
        if all(token.text in _IDLE for token in less) and (_modifies(more, reading) or _thing_of(more, reading)):
            return True
    return False


def _in_one_place(pair: Pair) -> bool:
    """The only difference makes a noun longer, adds a thing, or puts a light word in another's place."""
    if longer_noun(pair) or other_complement(pair):
        return True
    changes = (change for change in pair.changes if not (_idle(change) or _opening(change, pair)))
    only = list(islice(changes, 2))
    return another_light_word(only) or one_more(only)


def _done_to_deed(pair: Pair) -> bool:
    """One does it, the other does something to the doing (`veto a bill`, `override a veto of a bill`)."""
    changes = [change for change in pair.changes if not _idle(change)]
    if len(changes) != 2:
        return False
    first, second = changes
    if first.right or second.right:
        return not (first.left or second.left) and _acts_on_deed(first.right, second.right, pair.b)
    return _acts_on_deed(first.left, second.left, pair.a)


def _acts_on_deed(verb: Sequence[Token], joint: Sequence[Token], reading: Reading) -> bool:
    """`verb` is a verb with an article at most, and `joint` the *of* after the one word that follows it."""
    added = [token for token in verb if token.text not in ARTICLES]
    if len(added) != 1 or added[0].kind is not Kind.WORD or added[0].form in _PERFORMING:
        return False
    return [token.text for token in joint] == ["of"] and reading.place(joint[0]) - reading.place(verb[-1]) == 2


def _thing_of(tokens: Sequence[Token], reading: Reading) -> bool:
    """`tokens` make something else of what follows (`the poster of the film`), and do not only say what it is."""
    bare = [token for token in tokens if token.text not in ARTICLES]
    if len(bare) != 2 or bare[1].text != "of" or bare[0].form in _WHICH_IS:
        return False
    if bare[0].kind is not Kind.WORD and bare[0].text not in _ENDS:
        return False
    after = reading.tokens[reading.place(tokens[-1]) + 1 :]
    following = next((token for token in after if token.text not in ARTICLES), None)
    return following is not None and following.kind is Kind.WORD


def _modifies(tokens: Sequence[Token], reading: Reading) -> bool:
    """`tokens` are modifiers of the content word after them.

    Only a question that opens with its verb is narrowed by *real* or *good* as well; *the best way* narrows nothing.
    """
    if not 0 < len(tokens) <= _MODIFIERS_MAX or tokens[-1].proper:
        return False
    narrowing = {Kind.WORD, Kind.LIGHT} if reading.tokens[0].text in _OPENING_VERBS else {Kind.WORD}
    place = reading.place(tokens[-1])
    following = reading.tokens[place + 1 : place + 2]
    if tokens[-1].text.endswith("ing") and place and reading.tokens[place - 1].text in PREPOSITIONS:
        return False  # a verb of its own (`without drinking water`)
    if tokens[0].text == "the" and tokens[-1].text in _CALLED:
        return bool(following) and following[0].text in _COMPOUNDED
    narrowed = bool(following) and following[0].kind is Kind.WORD
    modifiers = [token for token in tokens if token.text not in ARTICLES]
    return narrowed and tokens[-1].kind in narrowing and all(token.kind in narrowing for token in modifiers)
