"""Who does it and to whom, where *who* or *whom* stands for one of them: *who sued Apple*, *who did Apple sue*.

The same verb with the same party stands before it in one text and behind it in the other. Refuses to judge the passive
(*who was sued by Apple* is *who did Apple sue*) and verbs without a direction. Called by the guard over order.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from cacheproxy.rules.guard.function_words import PASSIVE_BE, PREPOSITIONS
from cacheproxy.rules.guard.lists import words
from cacheproxy.rules.guard.reading import READINGS_MAX, Kind, Reading, Token
from cacheproxy.rules.guard.stems import stems
from cacheproxy.rules.guard.words import same_word

_ASKERS = words("who whom that")
_HELPERS = words("do does did will would can could should shall may might must has have had")
_DETERMINERS = words("the a an my our your his her their this these those")
_MUTUAL = stems("marry meet date resemble divorce fight face play")
"""Deeds that both do."""
_ROW_MAX = 6
"""Words of a deed with its party; a longer clause says more than that."""
_DEEDS_MAX = 8
"""Clauses with *who* that are compared with those of the other text one by one."""


def asker_exchanged(a: Reading, b: Reading) -> bool:
    """One asks for the doer, the other for the one to whom the same is done."""
    if _ASKERS.isdisjoint(a.texts) or _ASKERS.isdisjoint(b.texts):
        return False
    return any(_turned(one, other) or _turned(other, one) for one in _deeds(a) for other in _deeds(b))


def _turned(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """The verb stands first in one and last in the other, and the same party beside it."""
    if one[1:] != other[:-1] or not _MUTUAL.isdisjoint(one):
        return False
    return same_word(one[0], other[-1]) or one[0] in (f"{other[-1]}d", f"{other[-1]}s")


@lru_cache(maxsize=READINGS_MAX)
def _deeds(reading: Reading) -> tuple[tuple[str, ...], ...]:
    """After each *who*: the verb and the party, in the order they have."""
    places = [at for at, token in enumerate(reading.tokens) if token.text in _ASKERS][:_DEEDS_MAX]
    rows = (tuple(_row(reading.tokens[at + 1 : at + 2 + _ROW_MAX])) for at in places)
    return tuple(row for row in rows if len(row) > 1)


def _row(tokens: tuple[Token, ...]) -> Iterator[str]:
    """The content of a clause up to its end, one helper before and one preposition within passed over."""
    passed = False
    going = bool(tokens) and tokens[0].text in PASSIVE_BE
    if going and not any(token.text.endswith("ing") for token in tokens):
        return
    for at, token in enumerate(tokens):
        if token.valued or (token.kind is Kind.FUNCTION and token.text not in _DETERMINERS):
            if at == 0 and (going or token.text in _HELPERS):
                continue
            if passed or not at or token.text not in PREPOSITIONS:
                return
            passed = True
        elif token.text not in _DETERMINERS:
            yield token.form
