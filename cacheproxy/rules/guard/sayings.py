"""Fixed ways to say one thing, put into one: *aged 60* is read as *60 years old*, *half a cup* as *0.5 cup*.

Works on pieces, before numbers and phrases are joined: what becomes one word stands in `phrases.PHRASES`. Each
rule knows one word at which its saying is found, and refuses where that word may mean something else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType

from cacheproxy.rules.guard.cutting import Piece
from cacheproxy.rules.guard.kinds import FORMATS
from cacheproxy.rules.guard.lists import rewrites, words
from cacheproxy.rules.guard.phrases import CLAUSE_STARTS
from cacheproxy.rules.guard.units import NUMBER_WORDS, ONES, UNIT_OF

_Saying = tuple[int, int, tuple[str, ...]]
"""Where it begins, where it ends, and what is read instead."""

_TABLE = rewrites(
    """
    unable to = not able to
    first world war = worldwar1
    world war one = worldwar1
    world war i = worldwar1
    world war 1 = worldwar1
    ww1 = worldwar1
    wwi = worldwar1
    second world war = worldwar2
    world war two = worldwar2
    world war ii = worldwar2
    world war 2 = worldwar2
    ww2 = worldwar2
    wwii = worldwar2
    two factor authentication = 2fa
    2 factor authentication = 2fa
    two step verification = 2fa
    2 step verification = 2fa
    bce = bc
    °c = celsius
    °f = fahrenheit
    half a dozen = 6
    a quarter of = 1/4 of
    one quarter of = 1/4 of
    one quarter = 1/4
    three quarters = 3/4
    a third of = 1/3 of
    one third = 1/3
    two thirds = 2/3
    birth date = date of birth
    birthdate = date of birth
    dob = date of birth
    fill out = fill in
    filled out = filled in
    filling out = filling in
    help against = help with
    helps against = helps with
    eli5 = explain like i am 5
    use as a substitute for = use instead of
    use as a replacement for = use instead of
    substitute for = instead of
    substitutes for = instead of
    replacement for = instead of
    replacements for = instead of
    in place of = instead of
    with no = without
    non dairy = without dairy
    nondairy = without dairy
    non alcoholic = without alcohol
    nonalcoholic = without alcohol
    sugarless = without sugar
    eggless = without egg
    nonfat = without fat
    """
)
_LEFT_OUT = words(
    """gluten wheat sugar salt fat dairy lactose milk egg nut peanut soy meat alcohol caffeine oil yeast grain fragrance
    latex plastic"""
)
"""Things of which *free* says that there is none; *is milk free at school* asks for a price."""
_GIVEN_FREE = words("is are get gets got have my the some any your want")
"""Words before a thing that may be had for nothing."""
_NAMED = words("worldwar1 worldwar2")
"""Names, whoever writes them."""
_FRACTIONS = {"1/2": "5", "1/4": "25", "3/4": "75", "half": "5"}
"""What stands behind the point."""
_UNDIVIDED = words("times x person people persons word words sentence sentences line lines")
"""Units that *half* says nothing of (*half times*, *half people*)."""
_WHOLE_UNITS = words("sentence paragraph word line page day week month year hour minute")
_BOUNDS = {"larger": "greater", "bigger": "greater", "higher": "greater", "smaller": "less", "lower": "less"}
_PAST_OF = {"was": "did", "were": "did", "is": "does", "are": "do"}
_EVENT_ASKED = words("when where what which")
_EVENT_HELPER_WITHIN = 5
_EVENT_ENDS = words("in on at this next last every each")
_HANDED = words("it them the only just json")
_STANDING = words("mountain mountains peak peaks building buildings tower towers skyscraper statue")
_DETAILS = words("address email password name number details info information profile preferences card photo picture")
_INSTEAD_WITHIN = 5
_ANY_ONE = [["a"], ["an"], ["my"], ["the"], ["our"]]
_DOING = words("i you we one can could should to and please")
"""Words before a verb, of those that are also nouns."""
_IN_CODE = words("function method code script program class endpoint api query def write route handler")


def one_way(pieces: list[Piece]) -> list[Piece]:
    """The pieces with each known saying in its one form."""
    if _STARTS.isdisjoint([piece.text for piece in pieces]):
        return pieces
    texts = [piece.text for piece in pieces]
    index = 0
    while index < len(texts):
        found = _said(texts, index) if texts[index] in _STARTS else None
        if found is None and texts[index] == "ce" and _era(pieces, index):
            found = (index, index + 1, ("ad",))
        if found is not None:
            start, end, instead = found
            proper = pieces[start].proper
            pieces[start:end] = [_piece(text, proper=proper) for text in instead]
            texts[start:end] = instead
            index = start  # what is read now may be part of another saying
            continue
        index += 1
    return pieces


def _said(texts: Sequence[str], index: int) -> _Saying | None:
    for length in _LENGTHS:
        if instead := _TABLE.get(tuple(texts[index : index + length])):
            return index, index + length, instead
    rule = _RULES.get(texts[index])
    return rule(texts, index) if rule else None


def _piece(text: str, *, proper: bool) -> Piece:
    return Piece(text, text, proper or text in _NAMED, word=not text[0].isdigit())


def _number(text: str) -> bool:
    return text.isdigit() or text in NUMBER_WORDS


def _free(texts: Sequence[str], index: int) -> _Saying | None:
    """`gluten-free bread`, `free of gluten`."""
    if texts[index + 1 : index + 2] == ["of"] and "".join(texts[index + 2 : index + 3]) in _LEFT_OUT:
        return index, index + 3, ("without", texts[index + 2])
    before = texts[index - 2] if index > 1 else ""
    named = index > 0 and texts[index - 1] in _LEFT_OUT and before not in _GIVEN_FREE
    return (index - 1, index + 1, ("without", texts[index - 1])) if named else None


def _era(pieces: Sequence[Piece], index: int) -> bool:
    """*CE* is an era behind a year, and else a mark."""
    return pieces[index].raw.isupper() and index > 0 and pieces[index - 1].text.isdigit()


def _aged(texts: Sequence[str], index: int) -> _Saying | None:
    """`aged 60`, `aged 60 years`."""
    if not _number("".join(texts[index + 1 : index + 2])):
        return None
    end = index + 2 + (texts[index + 2 : index + 3] == ["years"])
    return index, end, (texts[index + 1], "yo")


def _of_age(texts: Sequence[str], index: int) -> _Saying | None:
    """`60 years old`, `60 years of age`."""
    if index == 0 or not _number(texts[index - 1]):
        return None
    if texts[index + 1 : index + 2] in (["old"], ["olds"]):
        return index, index + 2, ("yo",)
    return (index, index + 3, ("yo",)) if texts[index + 1 : index + 3] == ["of", "age"] else None


def _single(texts: Sequence[str], index: int) -> _Saying | None:
    """`a single sentence`; a single person is no one person."""
    counted = index > 0 and texts[index - 1] == "a" and texts[index + 1 : index + 2]
    return (index - 1, index + 1, ("1",)) if counted and texts[index + 1] in _WHOLE_UNITS else None


def _part(texts: Sequence[str], index: int) -> _Saying | None:
    """`half a cup`, `1/2 cup`, `2 1/2 cups`, `two and a half cups`, `an hour and a half`."""
    part = _FRACTIONS[texts[index]]
    if tuple(texts[index - 2 : index]) == ("and", "a") and index > 2:
        return _and_part(texts, index, part)
    end = index + 1
    end += texts[end : end + 1] == ["of"]
    end += texts[end : end + 1] in (["a"], ["an"])
    if not _divides(texts[end : end + 1]):
        return None
    if index and texts[index - 1].isdigit() and end == index + 1:
        return index - 1, end, (f"{texts[index - 1]}.{part}",)
    return index, end, (f"0.{part}",)


def _and_part(texts: Sequence[str], index: int, part: str) -> _Saying | None:
    before = texts[index - 3]
    if _divides(texts[index + 1 : index + 2]) and (value := _value(before)):
        return index - 3, index + 1, (f"{value}.{part}",)
    if index > 3 and _divides([before]) and (value := _value(texts[index - 4])):
        return index - 4, index + 1, (f"{value}.{part}", before)
    return None


def _divides(unit: Sequence[str]) -> bool:
    return bool(unit) and unit[0] in UNIT_OF and unit[0] not in _UNDIVIDED


def _value(text: str) -> str:
    if text in ("a", "an"):
        return "1"
    return str(ONES[text]) if text in ONES else text if text.isdigit() else ""


def _bound(texts: Sequence[str], index: int) -> _Saying | None:
    """`larger than 100`; of things *larger than* compares sizes, and of *greater than* something else."""
    following = texts[index + 1 : index + 3]
    if len(following) < 2 or following[0] != "than" or not (following[1][0].isdigit() or _number(following[1])):
        return None
    return index, index + 1, (_BOUNDS[texts[index]],)


def _event(texts: Sequence[str], index: int) -> _Saying | None:
    """`when was it held`: when did it take place."""
    if texts[0] not in _EVENT_ASKED or (texts[index + 1 : index + 2] and texts[index + 1] not in _EVENT_ENDS):
        return None
    at = next((at for at in range(1, min(index, _EVENT_HELPER_WITHIN)) if texts[at] in _PAST_OF), 0)
    return (at, index + 1, (_PAST_OF[texts[at]], *texts[at + 1 : index], "occur")) if at else None


def _handed(texts: Sequence[str], index: int) -> _Saying | None:
    """`return it as JSON`, asked of the assistant and not of code."""
    asked = texts[index + 1 : index + 2] and texts[index + 1] in _HANDED and not FORMATS.isdisjoint(texts)
    return (index, index + 1, ("output",)) if asked and _IN_CODE.isdisjoint(texts) else None


def _updated(texts: Sequence[str], index: int) -> _Saying | None:
    """`update my address`; what else is updated is not changed."""
    whose, what = texts[index + 1 : index + 2], texts[index + 2 : index + 5]
    details = whose and whose[0] in ("my", "your", "our", "their") and not _DETAILS.isdisjoint(what)
    return (index, index + 1, ("change",)) if details else None


def _instead(texts: Sequence[str], index: int) -> _Saying | None:
    """`substitute oil for butter`, `substitute butter with oil`, `substitute for butter`: use it instead.

    *A substitute* is a thing.
    """
    if index and texts[index - 1] not in _DOING:
        return None
    for at in range(index + 1, min(index + _INSTEAD_WITHIN, len(texts) - 1)):
        if texts[at] == "for":
            return index, at + 1, ("use", *texts[index + 1 : at], "instead", "of")
        if texts[at] == "with" and at > index + 1:
            end = next((end for end in range(at + 1, len(texts)) if texts[end] in CLAUSE_STARTS), len(texts))
            return index, end, ("use", *texts[at + 1 : end], "instead", "of", *texts[index + 1 : at])
    return None


def _booked(texts: Sequence[str], index: int) -> _Saying | None:
    """`book a table`; a book is none."""
    doing = index == 0 or texts[index - 1] in _DOING
    return (index, index + 1, ("reserve",)) if doing and texts[index + 1 : index + 2] in _ANY_ONE else None


def _booking(texts: Sequence[str], index: int) -> _Saying | None:
    """`my booking`; *booking a table* is a deed."""
    owned = index > 0 and texts[index - 1] in ("my", "our", "your", "the", "this", "a")
    return (index, index + 1, ("reservation",)) if owned else None


def _left(texts: Sequence[str], index: int) -> _Saying | None:
    """`how many days are left`; *turn left* counts nothing."""
    counted = texts[0] == "how" and texts[1] in ("many", "much") and index == len(texts) - 1
    return (index, index + 1, ("remaining",)) if counted else None


def _highest(texts: Sequence[str], index: int) -> _Saying | None:
    """`the highest mountain`; the highest price is not tall."""
    return (index, index + 1, ("tallest",)) if not _STANDING.isdisjoint(texts[index + 1 : index + 2]) else None


def _short_for(texts: Sequence[str], index: int) -> _Saying | None:
    """`what is it short for`; *too short for a man* goes on."""
    return (index, index + 2, ("stand", "for")) if list(texts[index + 1 :]) == ["for"] else None


_Rule = Callable[[Sequence[str], int], _Saying | None]
_RULES: MappingProxyType[str, _Rule] = MappingProxyType(
    {
        "aged": _aged, "years": _of_age, "year": _of_age, "single": _single, "return": _handed, "short": _short_for,
        "update": _updated, "substitute": _instead, "book": _booked, "booking": _booking,
        "left": _left, "highest": _highest, "free": _free,
        "held": _event, "fought": _event, **dict.fromkeys(_FRACTIONS, _part), **dict.fromkeys(_BOUNDS, _bound),
    }
)  # fmt: skip
_LENGTHS = sorted({len(saying) for saying in _TABLE}, reverse=True)
_STARTS = frozenset(saying[0] for saying in _TABLE) | _RULES.keys() | {"ce"}
