"""Numbers, units and times as values: `$20` is `20 dollars`, `1,000` is `one thousand`, `9pm` is `21:00`.

Works on single pieces and runs of words; `rules/guard/reading.py` decides what belongs together.
A bare decimal keeps its spelling, because `2.1` and `2.10` are one amount and two versions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Context, Decimal

from cacheproxy.rules.guard.units import MULTIPLES, ONES, SCALE_SIGNS, SCALES, TENS, UNIT_OF

_NUMBER = re.compile(
    "#?(?P<sign>[+\\-\N{MINUS SIGN}])?(?P<before>[$€£¥₹])?"
    "(?P<digits>\\d{1,3}(?:,\\d{3})+(?:\\.\\d+)?|\\d+(?:\\.\\d+)?|\\.\\d+)(?P<after>[$€£¥₹%]|°[cf]?|[a-zµ]{1,9})?",
    re.IGNORECASE,
)
_ISO_DATE = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})")
_DOTTED_DATE = re.compile(r"([0-9]{1,2})\.([0-9]{1,2})\.([0-9]{4})")
"""Day, month, year: who writes dots begins with the day."""
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::\d{2})?(am|pm)?", re.IGNORECASE)
_ORDINAL_ENDINGS = frozenset(("st", "nd", "rd", "th"))
_MONEY_SCALES = {"k": 1000, "m": 10**6, "mn": 10**6, "b": 10**9, "bn": 10**9}
_DIGITS_MAX = 30
"""Digits up to which a number is read as one; longer ones are compared as they stand."""
_EXACT = Context(prec=2 * _DIGITS_MAX)
_WORDS_MAX = 12
"""Words one spelled-out number may have."""


def parse_numeral(text: str) -> tuple[str, str] | None:
    """Value and unit of one piece such as `$1,000`, `5kg`, `50%`, `3rd`, `9pm`; None when it is no plain number.

    The unit is `""` for a bare number, `th` for an ordinal, `clock` and `date` for times and ISO dates.
    """
    if match := _ISO_DATE.fullmatch(text):
        year, month, day = (int(part) for part in match.groups())
        return f"{year:04}-{month:02}-{day:02}", "date"
    if (match := _DOTTED_DATE.fullmatch(text)) and 1 <= int(match[2]) <= 12 and 1 <= int(match[1]) <= 31:
        return f"{match[3]}-{int(match[2]):02}-{int(match[1]):02}", "date"
    if match := _CLOCK.fullmatch(text):
        return clock(int(match[1]), int(match[2]), (match[3] or "").lower()), "clock"
    if match := _NUMBER.fullmatch(text):
        sign = "-" if match["sign"] in ("-", "\N{MINUS SIGN}") else ""
        digits, suffix = match["digits"].replace(",", ""), (match["after"] or "").lower()
        return _money(sign, digits, match["before"], suffix) if match["before"] else _plain(sign, digits, suffix)
    return None


def _money(sign: str, digits: str, currency: str, suffix: str) -> tuple[str, str] | None:
    if suffix and suffix not in _MONEY_SCALES:
        return None
    return sign + trimmed(scaled(digits, _MONEY_SCALES.get(suffix, 1))), UNIT_OF[currency]


def _plain(sign: str, digits: str, suffix: str) -> tuple[str, str] | None:
    if not suffix:
        whole = "." not in digits and len(digits) < _DIGITS_MAX
        return sign + (str(int(digits)) if whole else digits), ""
    if suffix in _ORDINAL_ENDINGS:
        return digits, "th"
    if suffix in ("am", "pm"):
        return (clock(int(digits), 0, suffix), "clock") if digits.isdigit() and len(digits) < 3 else None
    if suffix in SCALE_SIGNS:
        return sign + scaled(digits, SCALES[suffix]), ""
    return (sign + trimmed(digits), UNIT_OF[suffix]) if suffix in UNIT_OF else None


def clock(hour: int, minute: int, half: str) -> str:
    """A time of day as `21:30`; without am or pm as written, since nobody knows which half is meant."""
    if half == "pm" and hour < 12:
        hour += 12
    elif half == "am" and hour == 12:
        hour = 0
    return f"{hour}:{minute:02}"


def spelled_number(text: Sequence[str], start: int) -> tuple[str, int]:
    """Value of the number words from `start`, and how many words they are (0: none, or a lone *one*)."""
    total = current = used = 0
    open_below = 100  # the next word must be worth less than this: after *twenty* only 1..9, after *three* nothing
    for position in range(min(_WORDS_MAX, len(text) - start)):
        word = text[start + position]
        following = text[start + position + 1] if start + position + 1 < len(text) else ""
        if word in ONES and ONES[word] < (10 if open_below == 20 else open_below):
            current, open_below = current + ONES[word], 0
        elif word in TENS and open_below > 20:
            current, open_below = current + TENS[word], 20
        elif word == "hundred":
            current, open_below = max(current, 1) * 100, 100
        elif word in SCALES and word not in SCALE_SIGNS and (used or not word.endswith("s")):
            total, current, open_below = total + max(current, 1) * SCALES[word], 0, 100
        elif word == "dozen":
            return str(max(total + current, 1) * 12), position + 1
        elif word == "and" and open_below == 100 and used and (following in ONES or following in TENS):
            continue
        else:
            break
        used = position + 1
    lone = used == 1 and text[start] in ("zero", "one", "million", "billion")
    return ("", 0) if lone or not used else (str(total + current), used)


def trimmed(digits: str) -> str:
    """A value as it counts beside a unit: `150.00` is `150`."""
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    return digits.lstrip("0") or "0"


def measured(digits: str, unit: str) -> str:
    """An amount as it may be compared: `500` milligrams and `0.5` grams are `.5 gram`."""
    sign, digits = ("-", digits[1:]) if digits.startswith("-") else ("", digits)
    if unit in MULTIPLES and len(digits) <= _DIGITS_MAX:
        unit, factor = MULTIPLES[unit]
        digits = format(_EXACT.multiply(Decimal(digits), factor), "f")
    amount = trimmed(digits)
    return f"{sign if amount != '0' else ''}{amount} {unit}"


def scaled(digits: str, scale: int) -> str:
    """`digits` times `scale`, exactly: `1.5` times a million is `1500000`."""
    if scale == 1 or len(digits) > _DIGITS_MAX:
        return digits
    whole, _, fraction = digits.partition(".")
    number = str(int(whole + fraction or "0") * scale).rjust(len(fraction) + 1, "0")
    return trimmed(f"{number[: -len(fraction)]}.{number[-len(fraction) :]}") if fraction else number
