"""How much of an amount: *half a cup*, *a cup*; *a tip on top*, *a tip included*; *20 % off 80*, *20 % of 80*.

Weighs the words that multiply or divide an amount. Refuses where the other text has an amount of its own instead: *an
hour and a half* may be *90 minutes* there, and the numbers themselves are compared in `values.py`.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from itertools import pairwise

from cacheproxy.rules.guard.lists import words
from cacheproxy.rules.guard.pair import Pair
from cacheproxy.rules.guard.reading import READINGS_MAX, Reading

_SHARES = {
    word: share
    for share, group in {
        "1/2": "half halves", "1/4": "quarter", "1x": "once", "2x": "double twice twofold",
        "3x": "triple thrice treble threefold", "4x": "quadruple",
    }.items()
    for word in group.split()
}  # fmt: skip
"""Thirds and *three quarters* are numbers already."""
_OFTEN = words("a an per every each in daily weekly monthly")
"""Words before which *once* is a number; before others it is *as soon as*."""
_WITHIN = words("included including inclusive includes")
_BEYOND = words("excluded excluding exclusive plus extra")
_CHARGES = words("tax taxes vat gst tip tips fee fees charge charges service gratuity shipping postage price cost")
"""What an amount holds or comes on top of it."""


def other_share(pair: Pair) -> bool:
    """Another share or multiple of the same amount."""
    if _added(pair) or any(_taken(one, other) for one, other in ((pair.a, pair.b), (pair.b, pair.a))):
        return True
    one, other = _shares(pair.a), _shares(pair.b)
    one, other = one - other, other - one
    if one and other:
        return True
    # Only parts count alone: *once a week* is *weekly*, and *twice* is *more than once*.
    alone = [share for share in one or other if "x" not in share]
    return bool(alone) and pair.framed and not any(token.valued for token in (*pair.left, *pair.right))


def _added(pair: Pair) -> bool:
    """A charge is in the amount in one text and comes on top of it in the other."""
    if _CHARGES.isdisjoint(pair.a.texts & pair.b.texts):
        return False
    sides = (_on_top(pair.a), _on_top(pair.b))
    return set(sides) == {True, False}


def _on_top(reading: Reading) -> bool | None:
    """Whether the charge comes on top; None where the text says neither, or both."""
    beyond = not reading.texts.isdisjoint(_BEYOND) or ("on", "top") in _neighbours(reading)
    within = not reading.texts.isdisjoint(_WITHIN)
    return None if beyond is within else beyond


@lru_cache(maxsize=READINGS_MAX)
def _neighbours(reading: Reading) -> frozenset[tuple[str, str]]:
    return frozenset((one.text, other.text) for one, other in pairwise(reading.tokens))


def _taken(one: Reading, other: Reading) -> bool:
    """A percentage is taken off in one text, and is what is asked for in the other."""
    return not _percentages(one, "off").isdisjoint(_percentages(other, "of") - _percentages(other, "off"))


@lru_cache(maxsize=4 * READINGS_MAX)
def _percentages(reading: Reading, before: str) -> frozenset[str]:
    """Those that stand before that word."""
    return frozenset(
        one.form for one, other in pairwise(reading.tokens) if other.text == before and one.form.endswith(" %")
    )


@lru_cache(maxsize=READINGS_MAX)
def _shares(reading: Reading) -> Counter[str]:
    """The shares of amounts a text names, a half that comes on top of a whole apart from them."""
    tokens = reading.tokens
    found: Counter[str] = Counter()
    for at, token in enumerate(tokens):
        if token.text not in _SHARES or (token.text == "once" and not _counts(reading, at)):
            continue
        on_top = any(before.text == "and" for before in tokens[max(0, at - 2) : at])
        found[f"and {_SHARES[token.text]}" if on_top else _SHARES[token.text]] += 1
    return found


def _counts(reading: Reading, at: int) -> bool:
    after = reading.tokens[at + 1] if at + 1 < len(reading.tokens) else None
    return after is not None and after.text in _OFTEN and reading.tokens[at - 1].text != "at"
