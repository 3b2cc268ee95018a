"""Who did it where a sentence is in the passive or *by* names him: *made by the client* is not *made to the client*.

Both forms of one deed are told from two deeds: *did A see B* is *was B seen by A*, and is not *was A seen by B*.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import takewhile

from cacheproxy.rules.guard.function_words import ARTICLES, PASSIVE_BE, PREPOSITIONS
from cacheproxy.rules.guard.lists import words
from cacheproxy.rules.guard.pair import Change, Pair
from cacheproxy.rules.guard.reading import READINGS_MAX, Kind, Reading, Token
from cacheproxy.rules.guard.stems import IRREGULAR, stems
from cacheproxy.rules.guard.words import same_word

_AUTHORED = words("about for against to from of")
"""Prepositions of which none names the one who did it, as *by* does."""
_EITHER = {
    "of": words("made composed scared afraid frightened tired bored ashamed"),
    "from": words("made caused suffer damaged excluded exempted affected infected"),
    "about": words("concerned worried bothered excited upset confused"),
    "to": words("known related used limited"),
    "for": words("known used followed"),
}
"""Participles after which a preposition and *by* say the same, or nothing by themselves."""
_CLAUSES = words("if when because after before while once since until unless")
"""Words of clauses that say what happens, be it by whom it may."""
_CLAUSE_MAX = 8
_DECIDED = stems(
    """cancelled deleted closed refused rejected terminated extended blocked suspended changed returned denied declined
    accepted approved withdrawn reported revoked renewed ended removed banned moved postponed rescheduled fired
    dismissed evicted audited inspected searched sold raised lowered frozen locked disabled reversed"""
)
"""What is done on purpose, so that it matters by whom; what is lost or broken is so whoever did it."""
_OWNED = ARTICLES | words("my our your this that all")
_EITHER_VOICE = stems(
    "focus prepare concentrate organize relax marry commit dedicate motivate interest start finish do"
)
"""Verbs of which the passive says what is so once it is done (*be prepared*, *prepare*)."""
_PERSONS = words("me us him her them you")
_WORKS = stems("book article song film movie poem essay letter speech email message story report documentary joke poem")
"""Things that somebody makes, and that are about something."""


def other_voice(pair: Pair) -> bool | None:
    """Whether turning the sentence into the passive left the doer in his place; None when neither did.

    `Did A see B` is `Was B seen by A`, and is not `Was A seen by B`.
    """
    for passive, active in ((pair.a, pair.b), (pair.b, pair.a)):
        if "by" in active.texts or "by" not in passive.texts:
            continue
        at = next(index for index, token in enumerate(passive.tokens) if token.text == "by")
        if not at or not _may_be_participle(passive.tokens[at - 1]):
            continue
        doer = next((token for token in passive.tokens[at + 1 :] if token.kind is not Kind.FUNCTION), None)
        verb = passive.tokens[at - 1]
        order = [token.form for token in active.tokens]
        if doer is None or doer.form not in order or verb.form not in order:
            continue
        whole = not passive.texts.isdisjoint(PASSIVE_BE) or (participle(verb) and _object_of(doer, verb, active))
        if not whole or _governed(doer.form, active):
            continue
        return order.index(doer.form) > order.index(verb.form)
    return None


def done_or_suffered(pair: Pair) -> bool:
    """*How to be loved*, *how to love*; *followed by Ann*, *following Ann*: nothing but that word differs."""
    if len(pair.changes) != 1 or len(pair.changes[0].left) + len(pair.changes[0].right) != 1:
        return False
    left, right = pair.changes[0].left, pair.changes[0].right
    return _passive_by(left[0], pair.a, pair.b) if left else _passive_by(right[0], pair.b, pair.a)


def _passive_by(more: Token, own: Reading, other: Reading) -> bool:
    """The word is *be* before a participle, or *by* after one, and the other text has the verb as one does it."""
    by = more.text == "by"
    if not by and more.text not in ("be", "being"):
        return False
    verb = own.before(more) if by else own.after(more)
    if verb is None or not participle(verb) or verb.form in _EITHER_VOICE or verb.text in other.texts:
        return False
    same = [token.text for token in other.tokens if token.form == verb.form and not participle(token)]
    return any(text.endswith("ing") for text in same) if by else bool(same)


def befell(pair: Pair) -> bool:
    """*If my flight is cancelled* in one text, *if I cancel my flight* in the other.

    Only after words like *if*: *can my order be changed* asks what *can I change my order* does.
    """
    return any(
        thing == other_thing and same_word(deed, other_deed)
        for one, other in ((pair.a, pair.b), (pair.b, pair.a))
        for deed, thing in _suffered(one)
        for other_deed, other_thing in _done(other)
    )


@lru_cache(maxsize=READINGS_MAX)
def _suffered(reading: Reading) -> frozenset[tuple[str, str]]:
    """In such clauses, each participle that follows *is*, with the thing it is said of; nobody is named who did it."""
    found: set[tuple[str, str]] = set()
    for at in _clauses(reading):
        clause = [token for token in reading.tokens[at + 1 : at + 1 + _CLAUSE_MAX] if token.text not in _OWNED]
        if len(clause) < 3 or clause[0].kind is Kind.FUNCTION:
            continue
        be = next((place for place, token in enumerate(clause[:-1]) if token.text in PASSIVE_BE | {"been"}), 0)
        if (
            be
            and clause[be + 1].form in _DECIDED
            and participle(clause[be + 1])
            and all(token.text != "by" for token in clause[be + 2 : be + 3])
        ):
            found.update((clause[be + 1].form, token.form) for token in clause[:be] if token.kind is Kind.WORD)
    return frozenset(found)


@lru_cache(maxsize=READINGS_MAX)
def _done(reading: Reading) -> frozenset[tuple[str, str]]:
    """In such clauses, what the caller or the one addressed does, with the words straight after it."""
    found: set[tuple[str, str]] = set()
    for at in _clauses(reading):
        doer, *clause = reading.tokens[at + 1 : at + 1 + _CLAUSE_MAX] or (None,)
        if doer is None or doer.text not in ("i", "we", "you"):
            continue
        verb = next((place for place, token in enumerate(clause) if token.kind is not Kind.FUNCTION), None)
        if verb is None or not PASSIVE_BE.isdisjoint(token.text for token in clause[:verb]):
            continue
        things = takewhile(lambda token: token.text in _OWNED or token.kind is Kind.WORD, clause[verb + 1 :])
        found.update((clause[verb].form, token.form) for token in things if token.kind is Kind.WORD)
    return frozenset(found)


def _clauses(reading: Reading) -> list[int]:
    """Places of the words that open such a clause."""
    if reading.texts.isdisjoint(_CLAUSES):
        return []
    return [at for at, token in enumerate(reading.tokens) if token.text in _CLAUSES]


def _governed(form: str, reading: Reading) -> bool:
    """A preposition goes before the word, so that it is no plain subject or object (`filled with a pump`)."""
    place = next(place for place, token in enumerate(reading.tokens) if token.form == form) - 1
    while place >= 0 and reading.tokens[place].text in ARTICLES:
        place -= 1
    return place >= 0 and reading.tokens[place].text in PREPOSITIONS


def _object_of(thing: Token, verb: Token, reading: Reading) -> bool:
    """The thing stands straight after the verb, articles passed over."""
    order = [token.form for token in reading.tokens if token.text not in ARTICLES]
    at = order.index(verb.form)
    return order[at + 1 : at + 2] == [thing.form]


def other_than_doer(change: Change, pair: Pair) -> bool:
    """*By* names the one who did it, another preposition somebody else (`payments made by them`, `… to them`)."""
    for (side, other), reading in (((change.left, change.right), pair.a), ((change.right, change.left), pair.b)):
        if len(side) != 1 or len(other) != 1 or side[0].text != "by":
            continue
        text, after = other[0].text, reading.after(side[0])
        before = reading.before(side[0])
        if before is None or after is None or after.text.endswith("ing") or after.valued:
            continue
        if text == "with" and (after.proper or after.text in _PERSONS) and _may_be_participle(before):
            return True
        if text in _AUTHORED and _authored(before, text):
            return True
    return False


def _authored(before: Token, preposition: str) -> bool:
    """The word before *by* is something done, or a work of whom *by* names."""
    if _may_be_participle(before) or before.text == "done":
        return before.text not in _EITHER.get(preposition, ())
    return preposition in ("about", "for", "against", "to") and before.form in _WORKS


def participle(token: Token) -> bool:
    """The form of a verb that *was* goes with, as far as endings tell and the list of irregular verbs."""
    irregular = IRREGULAR.get(token.text) not in (None, token.text)
    return token.kind is not Kind.FUNCTION and (
        token.text.endswith(("ed", "en", "ung")) or irregular or token.text == "hit"
    )


def _may_be_participle(token: Token) -> bool:
    return token.kind is not Kind.FUNCTION and (
        token.text.endswith(("ed", "en", "t", "n", "d")) or token.text != token.form
    )
