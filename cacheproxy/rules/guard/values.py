"""Guards over values: numbers with units, dates and times, quoted text and code."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from itertools import pairwise

from cacheproxy.rules.guard.amounts import measured
from cacheproxy.rules.guard.capitals import other_capitals
from cacheproxy.rules.guard.commands import reordered
from cacheproxy.rules.guard.converse import converse
from cacheproxy.rules.guard.function_words import SYMMETRIC
from cacheproxy.rules.guard.labelled import other_value
from cacheproxy.rules.guard.lists import words
from cacheproxy.rules.guard.pair import Pair
from cacheproxy.rules.guard.reading import READINGS_MAX, Kind, Reading
from cacheproxy.rules.guard.shares import other_share
from cacheproxy.rules.guard.signs import differ, turned
from cacheproxy.rules.guard.units import COUNTED_BARE, CURRENCIES, LONE_UNITS, UNIT_OF
from cacheproxy.rules.guard.verbatim import reworded

_AGE_LEADS = words("is am are was were be at turn turns turned turning over under above below age")
"""Words before a bare number that may be an age."""


def numbers(pair: Pair) -> bool:
    """Other amounts, ordinals or units (`5 kg`, `3rd`, `in euros`); formats of one amount are equal."""
    left, right = _forms(pair.a, Kind.NUMBER), _forms(pair.b, Kind.NUMBER)
    exchanged = left == right and left.total() > 1 and _exchanged(pair) and not converse(pair)
    if exchanged or other_share(pair):
        return True
    if left == right or (not right and _counts_best(pair.a)) or (not left and _counts_best(pair.b)):
        return _units(pair.a) != _units(pair.b)
    if _count_for_age(pair.a, pair.b) or _count_for_age(pair.b, pair.a):
        return True
    return _without_bare(left - right - _articled(pair.b), right - left - _articled(pair.a))


def _count_for_age(one: Reading, other: Reading) -> bool:
    """Lunch for a four-year-old is no lunch for four; *she is four* tells an age."""
    ages = {form.split()[0] for form in one.forms if form.endswith(" yearold")}
    return bool(ages) and any(
        after.form in ages and before.text not in _AGE_LEADS for before, after in pairwise(other.tokens)
    )


def _exchanged(pair: Pair) -> bool:
    """The same amounts of other things (`2 cups flour, 3 cups sugar`), or of one unit in another order."""
    left, right = _counted(pair.a), _counted(pair.b)
    things = [[thing for _, thing in side if thing] for side in (left, right)]
    if len(things[0]) > 1 and sorted(things[0]) == sorted(things[1]) and sorted(left) != sorted(right):
        return True
    amounts = [[amount for amount, _ in side] for side in (left, right)]
    one_unit = len({amount.partition(" ")[2] for amount in amounts[0]}) == 1
    joined = not (pair.a.texts | pair.b.texts).isdisjoint(SYMMETRIC | {"and", "or"})
    return amounts[0] != amounts[1] and one_unit and not joined


@lru_cache(maxsize=READINGS_MAX)
def _counted(reading: Reading) -> list[tuple[str, str]]:
    """Each amount with the word straight after it, if there is one, or after its *of*."""
    tokens = [token for token in reading.tokens if token.text != "of"]
    return [
        (token.form, after.form if after is not None and after.kind is Kind.WORD else "")
        for token, after in zip(tokens, (*tokens[1:], None), strict=False)
        if token.kind is Kind.NUMBER
    ]


def _counts_best(reading: Reading) -> bool:
    """The only number says how many of the best are wanted (`the top 10 films` are the best films)."""
    at = [index for index, token in enumerate(reading.tokens) if token.kind is Kind.NUMBER]
    return len(at) == 1 and at[0] > 0 and reading.tokens[at[0] - 1].text == "top"


@lru_cache(maxsize=READINGS_MAX)
def _articled(reading: Reading) -> Counter[str]:
    """Amounts of one that have an article for their number (`an hour`)."""
    return Counter(
        measured("1", UNIT_OF[other.text])
        for one, other in pairwise(reading.tokens)
        if one.text in ("a", "an") and other.text in UNIT_OF
    )


def _without_bare(left: Counter[str], right: Counter[str]) -> bool:
    """True when the amounts still differ after a bare number was let stand for money or persons (`for four`)."""
    money = [{_as_money(form) for form in forms} for forms in (left, right)]
    known = CURRENCIES | COUNTED_BARE
    bare = all(" " not in form or form.split()[1] in known for forms in (left, right) for form in forms)
    units = [{form.split()[1] for form in forms if " " in form} for forms in (left, right)]
    return not (bare and money[0] == money[1] and (units[0] == units[1] or not (units[0] and units[1])))


def _as_money(form: str) -> str:
    return form.split(maxsplit=1)[0]


def dates(pair: Pair) -> bool:
    """Other days, months, years, times of day, or words such as *tomorrow*."""
    left, right = _forms(pair.a, Kind.DATE), _forms(pair.b, Kind.DATE)
    if not (left and right):
        left.pop("today", None)
        right.pop("today", None)
        return bool(left or right) and pair.framed
    return left != right


def tokens(pair: Pair) -> bool:
    """Other code, capitals of code, operators, layout, single letters, quoted or labelled words, or exact texts."""
    if reworded(pair.a, pair.b) or other_capitals(pair.a, pair.b) or other_value(pair.a, pair.b):
        return True
    if _forms(pair.a, Kind.CODE) != _forms(pair.b, Kind.CODE):
        return True
    one_way = pair.a.texts.isdisjoint(SYMMETRIC) or pair.b.texts.isdisjoint(SYMMETRIC)
    if differ(pair.a.plain, pair.b.plain, in_order=not converse(pair), alone_in_order=one_way):
        return True
    if turned(_rows(pair.a), _rows(pair.b)) or _other_variable(pair) or reordered(pair.a, pair.b):
        return True
    if pair.a.quoted and pair.b.quoted and _in_order(pair.a) != _in_order(pair.b):
        return pair.a.quoted != pair.b.quoted or (pair.a.texts | pair.b.texts).isdisjoint(SYMMETRIC)
    return any(token.kind is Kind.WORD and len(token.text) == 1 for token in (*pair.left, *pair.right))


def _other_variable(pair: Pair) -> bool:
    """One letter stands where another stood, and they did not merely change places (`for x`, `for y` of one equation).

    Who writes *u* may mean *you*, so it is no other letter than *i*.
    """
    if not (pair.framed or len(pair.changes) == 1):
        return False
    for change in pair.changes:
        both = {token.text for token in (*change.left, *change.right)}
        alone = len(change.left) == len(change.right) == 1 and len(both) > 1
        if alone and all(len(text) == 1 and text.isalpha() for text in both) and both != {"i", "u"}:
            left, right = _letters(pair.a), _letters(pair.b)
            return left != right and left.total() == right.total()
    return False


@lru_cache(maxsize=READINGS_MAX)
def _letters(reading: Reading) -> Counter[str]:
    """How often each single letter stands in a text, be it an article."""
    return Counter([token.text for token in reading.tokens if len(token.text) == 1 and token.text.isalpha()])


@lru_cache(maxsize=READINGS_MAX)
def _rows(reading: Reading) -> frozenset[tuple[str, ...]]:
    """Code that stands straight after other code, as the second argument of a command (`cp a.txt b.txt`)."""
    return frozenset(
        (one.form, other.form)
        for one, other in pairwise(reading.tokens)
        if one.kind is Kind.CODE and other.kind is Kind.CODE and one.form != other.form and not other.apposed
    )


def _in_order(reading: Reading) -> list[str]:
    """What stands in quotes, as it comes."""
    return sorted(reading.quoted, key=reading.text.lower().find)


def _forms(reading: Reading, kind: Kind) -> Counter[str]:
    return Counter([token.form for token in reading.tokens if token.kind is kind])


def _units(reading: Reading) -> set[str]:
    return {UNIT_OF[text] for text in reading.texts & LONE_UNITS}
