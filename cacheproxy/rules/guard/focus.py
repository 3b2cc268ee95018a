"""What *only*, *just* and *even* stand before: *only managers can approve* is not *managers can only approve*.

Only who does it is told from what is done. Where the word stands within what is done says little in English: *I only
eat fish* is *I eat only fish*, and *show only unread mail* is *only show unread mail*.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from cacheproxy.rules.guard.lists import words
from cacheproxy.rules.guard.pair import Pair
from cacheproxy.rules.guard.reading import READINGS_MAX, Kind, Reading, Token

_FOCUS = words("only just even merely solely")
_HELPERS = words(
    """is are am was were do does did can could will would shall should may might must has have had be been not"""
)
_OPENING = words("where when why how if whether because and but")
"""Words after which a clause has its subject or, in a question, its helper."""
_CLAIMING = words(
    """true false right correct sure certain fact say says said know knows think thinks believe believes mean means
    heard read told tell claim claims"""
)
"""Words after which *that* opens a clause, and does not stand for *which*."""
_SUPPOSING = words("think thinks believe believes guess suppose assume")
"""Those that open one without it, and have no thing for their object."""
_PRONOUNS = words("i you we he she they it people")
_DOER_MAX = 4
"""Words that name the one who does it, at most."""


def other_focus(pair: Pair) -> bool:
    """One text picks out who does it, the other what he does."""
    if _FOCUS.isdisjoint(pair.a.texts & pair.b.texts):
        return False
    return any(not _picked(one).isdisjoint(_restricted(other)) for one, other in ((pair.a, pair.b), (pair.b, pair.a)))


@lru_cache(maxsize=READINGS_MAX)
def _picked(reading: Reading) -> frozenset[tuple[str, str]]:
    """Each such word that begins a subject, with every word of that."""
    return frozenset(
        (reading.tokens[at].text, form)
        for at in _places(reading)
        if _begins_subject(reading.tokens, at)
        for form in _subject(reading.tokens, at + 1)
    )


@lru_cache(maxsize=READINGS_MAX)
def _restricted(reading: Reading) -> frozenset[tuple[str, str]]:
    """Each such word that stands after a subject, with the last word of that."""
    tokens = reading.tokens
    found = set()
    for at in _places(reading):
        doer = at - 1
        while doer > 0 and tokens[doer].text in _HELPERS:
            doer -= 1
        if doer < 0 or (tokens[at + 1 : at + 2] and tokens[at + 1].text in _HELPERS):
            continue  # *members only may book* is *only members may book*
        plural = tokens[doer].text.endswith("s") and tokens[doer].form != tokens[doer].text
        if doer or doer < at - 1 or plural:
            found.add((tokens[at].text, tokens[doer].form))
    return frozenset(found)


def _places(reading: Reading) -> Iterator[int]:
    return (at for at, token in enumerate(reading.tokens) if token.text in _FOCUS)


def _begins_subject(tokens: Sequence[Token], at: int) -> bool:
    """A clause begins here, or its helper stands before it and nothing before that (`can only members`)."""
    if not at or tokens[at].apposed or tokens[at - 1].text in _OPENING | _SUPPOSING:
        return True
    before = tokens[at - 1].text
    if before == "that":
        return at > 1 and tokens[at - 2].text in _CLAIMING
    return before in _HELPERS and (at == 1 or tokens[at - 2].text in _OPENING or tokens[at - 1].apposed)


def _subject(tokens: Sequence[Token], start: int) -> Iterator[str]:
    for token in tokens[start : start + _DOER_MAX]:
        if token.text in _HELPERS:
            return
        if token.kind is not Kind.FUNCTION or token.text in _PRONOUNS:
            yield token.form
