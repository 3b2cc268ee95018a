"""The guards: they object where an answer to one question must not serve another that lies very near it.

Nearness is blind to small words: *150.00* and *150.01*, *from A to B* and *from B to A*, *safe* and *unsafe* lie
closer than most rewordings. Each guard is one pure function that looks at both questions and objects or does not.
Guards see only the two texts; they know neither similarity nor answers, and they never raise.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType

from cacheproxy.rules.guard import order, polarity, slots, things, values
from cacheproxy.rules.guard.pair import Pair, compare
from cacheproxy.rules.guard.reading import Kind, Token, read
from cacheproxy.rules.guard.shared import apart
from cacheproxy.rules.guard.stems import stems

Guard = Callable[[Pair], bool]
"""True: these two must not share an answer."""

GUARDS: Mapping[str, Guard] = MappingProxyType(
    {
        "numbers": values.numbers,
        "dates": values.dates,
        "tokens": values.tokens,
        "negation": polarity.negation,
        "comparison": polarity.comparison,
        "direction": order.direction,
        "names": things.names,
        "language": things.language,
        "format": things.answer_format,
        "scope": polarity.scope,
        "tense": polarity.tense,
        "aspect": things.aspect,
        "slots": slots.slots,
    }
)
"""Closed, and in the order they are asked: the name of the first that objects stands in the trail and in the counter.
The names are the values of `semantic.guards`."""


REHEARSAL = "How do I renew the contract of team 7, if it does not end before May?"
"""A question of the common kind: each guard has something to look at."""
_REHEARSED_CHARS = 500
"""The end of a longer one must do: most of those are told apart without reading the text they are about."""


_TASKS = stems("explain example use work happen suggest list")
"""Words that say nothing of what is asked about, and yet what is wanted of a text."""


def rehearse(question: str, enabled: Collection[str] = tuple(GUARDS)) -> None:
    """Do what judging the question will do, for nothing but to have done it.

    For a moment in which nothing else is to be done. What is read of a short question is remembered, and the processor
    has at hand what an embedding of 5 ms has pushed out of its caches: docs/explain/near-lookups.md has what it gains.
    """
    object_to(question[-_REHEARSED_CHARS:], REHEARSAL, enabled)


def object_to(a: str, b: str, enabled: Collection[str] = tuple(GUARDS)) -> str | None:
    """Name of the first of the `enabled` guards that objects to `a` and `b` sharing an answer; None: nobody does.

    Symmetric, and a text never objects to itself. Unknown names in `enabled` do nothing: config refuses them.
    """
    if a == b:
        return None
    first, second = sorted((a, b))
    lines, sentences = apart(first, second), apart(first, second, sentences=True)
    # What two questions over one long text have of their own is short, and mostly enough to tell them apart.
    if lines and (found := _objection_over_text(*lines, enabled, any)):
        return found
    if sentences and sentences != lines and (found := _objection_over_text(*sentences, enabled, all)):
        return found
    return _objection(_laid(first, second), enabled)


def _objection_over_text(
    a: str, b: str, enabled: Collection[str], sides: Callable[[Iterable[bool]], bool]
) -> str | None:
    """Of two questions over one text: here a word that only one has asks for something else.

    After lines of text a question is short, so one word more is enough (`any` of the sides); among sentences each must
    have one (`all`), as *what is its area* and *please calculate its area* are one.
    """
    pair = _laid(a, b)
    others = sides(any(_asks(token) for token in side) for side in (pair.left, pair.right))
    return _objection(pair, enabled) or ("slots" if others and "slots" in enabled else None)


def _asks(token: Token) -> bool:
    return token.kind is Kind.WORD or token.form in _TASKS


def _laid(a: str, b: str) -> Pair:
    """Side by side in a fixed order, whichever was asked first."""
    first, second = sorted((a, b))
    return compare(read(first), read(second))


def _objection(pair: Pair, enabled: Collection[str]) -> str | None:
    return next((name for name, guard in GUARDS.items() if name in enabled and guard(pair)), None)
