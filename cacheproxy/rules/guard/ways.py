"""Which way, how far and in what role, as prepositions tell it: *to English*, *from English*.

Compares two prepositions in one place of the same sentence. Most say little and stand for each other (*in* and *on a
site*); those that never do, or not before such a word, are listed here.
"""

from __future__ import annotations

from cacheproxy.rules.guard.function_words import ARTICLES, PREPOSITIONS
from cacheproxy.rules.guard.lists import groups, words
from cacheproxy.rules.guard.pair import Change, Pair
from cacheproxy.rules.guard.parties import PARTIES
from cacheproxy.rules.guard.reading import Kind, Reading, Token
from cacheproxy.rules.guard.stems import stems

_BOUNDS = words(
    """before after during over above under below against until till since while near without within outside except
    beyond behind up down out off across around"""
)
"""Prepositions and particles of which one never stands for another, apart from those in one group of `_ALIKE`."""
_MOVES = words("to into onto towards from")
"""Those of which none stands for another of them; beside others they say little (*traffic to*, *on a site*)."""
_WAYS = _BOUNDS | _MOVES | PREPOSITIONS | words("when if by around inside throughout every")
_ALIKE = [
    set(group)
    for group in groups(
        """to into onto towards; over above; under below; while during when in; out from of off; outside out of;
        over on; over to; over in during through throughout across; around about; since from;
        in into inside within; near by around;
        until till to; via over; via through; out off; up on; without with"""
    )
]
_PLAIN = {"in", "on", "at", "of", "for", "during"}
"""Those that say no more before a number or a date than that it is the one."""

_LIVING = [set(group) for group in groups("from for; from about; to about; with about; from with; of to")]
"""Two of which none stands for the other before somebody (*a call from my boss*, *a call with my boss*)."""
_NAMED = [set(group) for group in groups("from for; from about; to about")]
"""The same before a name, which may be that of a site (*make money from Quora*, *with Quora*)."""
_NO_ROLE = words("from with to by against of")
"""Those that *as a* never stands for (*bought as a reseller*, *from a reseller*)."""
_ACTING = stems("pay paid vote sign work speak act apply travel")
"""Verbs after which *for* names the one in whose place it is done."""
_LASTING = [set(group) for group in groups("for in; for every; in every; for after; for within")]
"""Two of which none stands for the other before a time that passes (*for two hours*, *in two hours*)."""
_SO_FAR = words("not never no have has had ever first last best worst biggest largest time")
"""Words beside which *in years* and *for years* are one (*I haven't slept in three days*)."""
_TIMES = words("second minute hour day week month year decade")
_BEFORE_TIMES = ARTICLES | words("few couple of several some next")
_NEAR_MAX = 4
"""Tokens after a preposition in which stands what it binds."""
_BEFORE_LIVING = ARTICLES | words("my your our his her their this that")


def other_way(change: Change, pair: Pair) -> bool:
    """One way or bound became another before the same thing (`to English`, `from English`; `up to 5`, `over 5`)."""
    if not change.left or not change.right or change.left[0].text not in _WAYS:
        return False
    left, right = ({token.text for token in side} for side in (change.left, change.right))
    both = left | right
    if not both <= _WAYS:
        return False
    if len(left) == len(right) == 1 and _other_role(both, change.left[-1], pair):
        return True
    if "every" in both or any(both <= group for group in _ALIKE):
        return False
    if (left ^ right) & _BOUNDS or (both <= _MOVES and not _elsewhere(change, pair)):
        return True
    return not both <= _PLAIN and _before_value(change.left[-1], pair.a)


def _elsewhere(change: Change, pair: Pair) -> bool:
    """Both prepositions have only changed places (`to the hotel from here`); whose roles did is weighed by order."""
    others = [other for other in pair.changes if other is not change]
    left = {token.text for other in others for token in other.left}
    right = {token.text for other in others for token in other.right}
    return {token.text for token in change.left} <= right and {token.text for token in change.right} <= left


def _other_role(both: set[str], preposition: Token, pair: Pair) -> bool:
    """Two prepositions that are no bounds, before somebody, something one is, or a time."""
    if both == {"by", "about"}:
        return pair.a.after(preposition) is None
    as_role = "as" in both and (not both.isdisjoint(_NO_ROLE) or _acts_for(both, pair.a.before(preposition)))
    if not as_role and both not in _LASTING and both not in _LIVING:
        return False
    start = pair.a.place(preposition) + 1
    rest = pair.a.tokens[start : start + _NEAR_MAX]
    if both in _LASTING:
        time = next((token for token in rest if token.text not in _BEFORE_TIMES), None)
        lasting = time is not None and time.form.split()[-1] in _TIMES
        return lasting and _SO_FAR.isdisjoint(pair.a.texts | pair.b.texts)
    if as_role:
        return bool(rest) and rest[0].text in ("a", "an")
    somebody = next((token for token in rest if token.text not in _BEFORE_LIVING), None)
    return somebody is not None and (somebody.form in PARTIES or (somebody.proper and both in _NAMED))


def _acts_for(both: set[str], verb: Token | None) -> bool:
    """One acts as somebody, or for him; a thing is made for a beginner and as a beginner alike."""
    return "for" in both and verb is not None and verb.form in _ACTING


def _before_value(token: Token, reading: Reading) -> bool:
    after = reading.after(token)
    return after is not None and after.kind in (Kind.NUMBER, Kind.DATE)
