"""A text as the guards see it: its tokens with their kinds, and what stands in quotes.

Reading happens once a text and costs more than any guard; comparing two readings is cheap. English is read best. Of
other languages only spelling, script, numbers and word order are understood, and scripts without spaces are read
character by character, so that there more differs, never less.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from cacheproxy.rules.guard import amounts, units
from cacheproxy.rules.guard.addressed import as_to_anyone
from cacheproxy.rules.guard.cutting import Piece, cut
from cacheproxy.rules.guard.function_words import FUNCTION_WORDS, LIGHT_WORDS
from cacheproxy.rules.guard.lists import words
from cacheproxy.rules.guard.notation import plain
from cacheproxy.rules.guard.particles import together
from cacheproxy.rules.guard.phrases import PHRASE_STARTS, PHRASES
from cacheproxy.rules.guard.sayings import one_way
from cacheproxy.rules.guard.stems import stem
from cacheproxy.rules.guard.synonyms import root

READINGS_MAX = 1024
"""Readings remembered. A question is at most as long as the embedder reads, so this stays within a few MiB."""
_QUOTED = re.compile(
    r"\"([^\"\n]{1,200})\"|“([^”\n]{1,200})”|«([^»\n]{1,200})»|`([^`\n]{1,200})`|(?<!\w)'([^'\n]{1,200})'(?!\w)"
)
_PHRASE_LENGTHS = sorted({len(phrase) for phrase in PHRASES}, reverse=True)
_LIGHT_STEMS = frozenset(stem(word) for word in LIGHT_WORDS)
_BEGINNINGS = (
    PHRASE_STARTS | units.MONTHS.keys() | units.CURRENCY_CODES | units.NUMBER_WORDS | units.WEEKDAYS.keys()
    | units.RELATIVE_DAYS | units.ORDINALS.keys() | words("next last previous past but")
)  # fmt: skip
"""Words that may be more than a word; all others are read at once, since reading costs more than all guards."""
_WORDS_MAX = 16384
_YEARS = range(1500, 2100)
_BEFORE_MONTH = words("in of since until last next by")
_WHOLES = words("all every each any everyone everybody anyone anybody nobody none no which")
"""What *but* takes something from, where one of `_PARTS`, a number or a name follows. Who *tried everything but the app
still crashes* excepts nothing, so things are left out."""
_PARTS = words("one the those this that my your our their his her me you him us them")
_BEFORE_ROMAN_ONE = words("war part type phase")


class Kind(Enum):
    """What a token contributes."""

    WORD = "word"
    LIGHT = "light"
    FUNCTION = "function"
    NUMBER = "number"
    DATE = "date"
    CODE = "code"


class Token(NamedTuple):
    """One word or value. `form` is what is compared: a stem, a value with its unit, or code as it stands.

    A tuple, because hundreds are made for one question and a frozen dataclass takes three times as long.
    """

    form: str
    kind: Kind
    text: str
    """As written, in lower case."""
    proper: bool = False
    """Written as a name: a capital where English has none without reason."""
    apposed: bool = False
    """Written straight after a comma."""
    sense: str = ""
    """What stands for the word's group of synonyms; equal to `form` where it has none."""
    width: int = 1
    """Words of the text it stands for, where a phrase was read as one."""

    @property
    def valued(self) -> bool:
        """A number, a date or code: equal or different, never similar."""
        return self.kind in (Kind.NUMBER, Kind.DATE, Kind.CODE)


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """A text, read. Made by `read`, compared by the guards. Two readings are equal only when they are one."""

    text: str
    """As it was sent."""
    plain: str
    """In one notation."""
    tokens: tuple[Token, ...]
    content: tuple[Token, ...]
    """The tokens that are neither function words nor filler, in order."""
    texts: frozenset[str]
    """Every token as written."""
    forms: frozenset[str]
    """Every token's form."""
    quoted: frozenset[str]
    """What stands in quotes or backticks, in lower case."""
    index: Mapping[str, list[Token]]
    """Words by their sense, and by their first two letters with a star after them; see `alike`."""

    def place(self, token: Token) -> int:
        """Where this very token stands in `tokens`; an equal one may stand elsewhere."""
        return next(place for place, other in enumerate(self.tokens) if other is token)

    def before(self, token: Token) -> Token | None:
        """The one before it, if it is not the first."""
        place = self.place(token)
        return self.tokens[place - 1] if place else None

    def after(self, token: Token) -> Token | None:
        """The one after it, if it is not the last."""
        place = self.place(token) + 1
        return self.tokens[place] if place < len(self.tokens) else None

    def alike(self, token: Token) -> Iterator[Token]:
        """The words that could match a token: synonyms, and those that begin alike."""
        yield from self.index.get(token.sense, ())
        yield from self.index.get(_start(token), ())


@lru_cache(maxsize=READINGS_MAX)
def read(text: str) -> Reading:
    """Read a text. Any string is accepted; the empty one has no tokens."""
    noted = plain(text)
    tokens = tuple(_tokens(together(one_way(as_to_anyone(cut(noted))))))
    index: dict[str, list[Token]] = {}
    for token in tokens:
        if token.kind is Kind.WORD or token.kind is Kind.LIGHT:
            index.setdefault(token.sense, []).append(token)
            index.setdefault(_start(token), []).append(token)
    return Reading(
        text=text,
        plain=noted,
        tokens=tokens,
        content=tuple(token for token in tokens if token.kind not in (Kind.FUNCTION, Kind.LIGHT)),
        texts=frozenset(token.text for token in tokens),
        forms=frozenset(token.form for token in tokens),
        quoted=frozenset(" ".join("".join(parts).lower().split()).strip(".,;:!?") for parts in _QUOTED.findall(text)),
        index=MappingProxyType(index),
    )


def _start(token: Token) -> str:
    """No slip of the finger and no ending changes how a word begins."""
    return token.form[:2] + "*"


def _tokens(pieces: list[Piece]) -> list[Token]:
    """Pieces with numbers, dates and phrases joined."""
    texts = [piece.text for piece in pieces]
    tokens: list[Token] = []
    index = 0
    while index < len(pieces):
        piece = pieces[index]
        if piece.word and piece.text not in _BEGINNINGS and not piece.raw.isupper():
            tokens.append(_word(piece.text, proper=piece.proper, apposed=piece.apposed))
            index += 1
            continue
        token, used = _date(pieces, texts, index) or _joined(pieces, texts, index) or (_single(pieces, index), 1)
        tokens.append(token._replace(apposed=piece.apposed))
        index += used
    return tokens


def _joined(pieces: list[Piece], texts: list[str], index: int) -> tuple[Token, int] | None:
    """A value or a phrase that starts here, and how many pieces it takes."""
    if not pieces[index].word:
        return _value(texts, index)
    text = texts[index]
    if text in units.CURRENCY_CODES and index + 1 < len(texts) and not pieces[index + 1].word:
        token, used = _value(texts, index + 1)
        if token.form.replace(".", "").isdigit():
            return Token(f"{amounts.trimmed(token.form)} {units.UNIT_OF[text]}", Kind.NUMBER, token.text), used + 1
    if text in units.NUMBER_WORDS:
        value, used = amounts.spelled_number(texts, index)
        if text == "one" and not used and texts[index + 1 : index + 2] and texts[index + 1] in units.UNIT_OF:
            value, used = "1", 1
        return _amount(texts, index + used, value, "", used) if used else None
    if text in PHRASE_STARTS:
        for length in _PHRASE_LENGTHS:
            phrase = tuple(texts[index : index + length])
            if phrase in PHRASES:
                word = _word(PHRASES[phrase], proper=pieces[index].proper)
                return word._replace(width=length), length
    return None


def _single(pieces: list[Piece], index: int) -> Token:
    """The token of one word."""
    piece = pieces[index]
    text = piece.text
    following = pieces[index + 1].text if index + 1 < len(pieces) else ""
    if text in units.WEEKDAYS and (len(text) > 4 or piece.proper):
        return Token(units.WEEKDAYS[text], Kind.DATE, text)
    if text in units.RELATIVE_DAYS or (text in ("next", "last", "previous", "past") and following in units.PERIODS):
        return Token(units.NAMED_TIMES.get(text, stem(text)), Kind.DATE, text)
    if text in units.ORDINALS:
        return Token(f"{units.ORDINALS[text]} th", Kind.NUMBER, text)
    counted = index > 0 and pieces[index - 1].proper and pieces[index - 1].text in _BEFORE_ROMAN_ONE
    if piece.raw.isupper() and (text in units.ROMAN or (text == "i" and counted)):
        return Token(units.ROMAN.get(text, "1"), Kind.NUMBER, text)
    if text == "but" and _excepts(pieces, index):
        return _word("except")
    country = piece.raw == "US"
    return _word("usa" if country else text, proper=piece.proper or country, apposed=piece.apposed)


def _excepts(pieces: list[Piece], index: int) -> bool:
    """*But* stands for *except* (`all but one`, `every row but the first`)."""
    before, after = pieces[max(0, index - 2) : index], pieces[index + 1 : index + 2]
    if not after or pieces[index].apposed or all(piece.text not in _WHOLES for piece in before):
        return False
    return after[0].text in _PARTS | units.NUMBER_WORDS or after[0].proper or not after[0].word


def _word(text: str, *, proper: bool = False, apposed: bool = False) -> Token:
    form, kind, sense = _known(text)
    if kind is Kind.LIGHT and proper:
        kind = Kind.WORD
    return Token(form, kind, text, proper and (kind is not Kind.FUNCTION or len(text) == 1), apposed, sense)


@lru_cache(maxsize=_WORDS_MAX)
def _known(text: str) -> tuple[str, Kind, str]:
    """Form, kind and sense of a word, whoever writes it."""
    if text in FUNCTION_WORDS:
        return text, Kind.FUNCTION, text
    form = units.UNIT_OF[text] if text in units.LONE_UNITS else stem(text)
    return form, Kind.LIGHT if text in LIGHT_WORDS or form in _LIGHT_STEMS else Kind.WORD, root(form)


def _value(texts: list[str], index: int) -> tuple[Token, int]:
    """The number, date or code at `index`, with the words that belong to it."""
    text = texts[index]
    parsed = amounts.parse_numeral(text)
    if parsed is None:
        return (_word(text) if root(text) != text else Token(text, Kind.CODE, text, sense=text)), 1
    value, unit = parsed
    if unit == "clock" and texts[index + 1 : index + 2] in (["am"], ["pm"]):
        hour, _, minute = value.partition(":")
        return Token(amounts.clock(int(hour), int(minute), texts[index + 1]), Kind.DATE, text), 2
    if value in ("12", "12:00") and (time := units.NAMED_TIMES.get("".join(texts[index + 1 : index + 2]))):
        return Token(time, Kind.DATE, text), 2  # 12 noon
    if unit in ("date", "clock"):
        return Token(value, Kind.DATE, text), 1
    if unit == "th" and value in ("1", "2"):
        return _word("first" if value == "1" else "second"), 1
    return _amount(texts, index + 1, value, unit, 1)


def _amount(texts: list[str], index: int, value: str, unit: str, used: int) -> tuple[Token, int]:
    """A number of `used` pieces with what follows it at `index`: a scale word, a unit, am or pm."""
    following = texts[index] if index < len(texts) else ""
    if following in units.SCALES and (unit in units.CURRENCIES or not unit.isalpha()):
        return _amount(texts, index + 1, amounts.scaled(value, units.SCALES[following]), unit, used + 1)
    if not unit and following in ("am", "pm") and value.isdigit() and len(value) < 3:
        return Token(amounts.clock(int(value), 0, following), Kind.DATE, f"{value} {following}"), used + 1
    if units.UNIT_OF.get(following, "") in ((unit,) if unit else units.UNITS):
        unit, used = units.UNIT_OF[following], used + 1
        scale = units.DEGREES_OF.get(texts[index + 1]) if unit == "degree" and index + 1 < len(texts) else None
        unit, used = (scale, used + 1) if scale else (unit, used)
    if unit:
        return Token(amounts.measured(value, unit), Kind.NUMBER, value), used
    year = value.isdigit() and len(value) == 4 and int(value) in _YEARS
    return Token(value, Kind.DATE if year else Kind.NUMBER, value), used


def _date(pieces: list[Piece], texts: list[str], index: int) -> tuple[Token, int] | None:
    """`3 May 2024`, `May 3rd, 2024`, `May 2024`, `May`; None when no month stands here."""
    if texts[index] in units.MONTHS:
        month, day = texts[index], _day(texts, index + 1)
        used = 2 if day else 1
    elif index + 1 < len(texts) and texts[index + 1] in units.MONTHS and (day := _day(texts, index)):
        month, used = texts[index + 1], 2
    else:
        return None
    year = texts[index + used] if index + used < len(texts) else ""
    year = year if year.isdigit() and len(year) == 4 else ""
    if not day and not year and month in units.MONTHS_AMBIGUOUS:
        named = pieces[index].proper and index > 0 and texts[index - 1] in _BEFORE_MONTH
        if not named:
            return None
    form = "-".join(part for part in (year, f"{units.MONTHS[month]:02}", f"{int(day):02}" if day else "") if part)
    return Token(form, Kind.DATE, month), used + bool(year)


def _day(texts: list[str], index: int) -> str:
    digits = texts[index].rstrip("stndrh") if index < len(texts) else ""
    return digits if digits.isascii() and digits.isdigit() and len(digits) <= 2 and 1 <= int(digits) <= 31 else ""
