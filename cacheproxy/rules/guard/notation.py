"""One notation for signs and short forms that are written in several ways: `x²` is `x^2`, `7 times 8` is `7 * 8`.

Works on a text before it is cut. Leaves alone what asks about writing or about code, where another notation is another
question (*how do I type x²*, *x^2 in Python*). Called while a text is read; exact texts are compared as they were sent.
"""

from __future__ import annotations

import re

from cacheproxy.rules.guard.lists import words
from cacheproxy.rules.guard.units import NUMBER_WORDS

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
_TIMES, _MINUS = "\N{MULTIPLICATION SIGN}", "\N{MINUS SIGN}"
_NOTED = (
    "w/", "b/c", " squared", " cubed", " times ", " plus ", " minus ", " multiplied ", " divided ", " x ", "sum of ",
    "product of ", "*", "+", "=",
)  # fmt: skip
"""One of these a text has in which there is something to do, or a sign beyond ASCII."""
_SIGNED = re.compile(f"[⁰¹²³⁴-⁹{_MINUS}{_TIMES}÷¼½¾\N{FRACTION SLASH}]")
_POWER = re.compile(r"(?<![^\W\d_])([b-ln-z\d)])([⁰¹²³⁴-⁹]+)", re.IGNORECASE)
"""A power of one letter or a number; `m²` is a unit, and a mark behind a word is a footnote."""
_POWER_WORD = re.compile(r"(?<!\w)([b-z]|\d{1,9}) (squared|cubed)\b", re.IGNORECASE)
_SPELLED = "|".join(sorted(NUMBER_WORDS))
_OPERATION = re.compile(
    rf"(?<=\d|[a-z]) (times|plus|minus|multiplied by|divided by|x|{_TIMES}|÷|{_MINUS}) (?=[\d(]|(?:{_SPELLED})\b)",
    re.IGNORECASE,
)
_OPERAND = re.compile(rf"(?:\d|\b(?:{_SPELLED}))$", re.IGNORECASE)
_OPERATORS = {
    "times": "*", "multiplied by": "*", "x": "*", _TIMES: "*", "plus": "+", "minus": "-", _MINUS: "-",
    "divided by": "/", "÷": "/",
}  # fmt: skip
_NAMED = re.compile(r"(?:\bthe )?\b(sum|product) of (\d{1,15}) and (\d{1,15})\b", re.IGNORECASE)
_SIGNS = str.maketrans({_MINUS: "-", "\N{FRACTION SLASH}": "/", _TIMES: "x"})
_TERM = r"(?:\d+[a-z]?|[a-z])(?:\^\d)?"
_UNSPACED = re.compile(rf"(?<!\S){_TERM}(?:[-+*=/]{_TERM})+(?=[?.,;]?(?:\s|$))", re.IGNORECASE)
"""Terms with signs between and no space; `3-4` and `24/7` are none."""
_SURE_SIGNS = frozenset("+*=")
_TERM_SIGN = re.compile(r"([-+*=/])")
_HALVES = re.compile(r"(\d)?([¼½¾])")
_HALVES_AS = {"¼": "1/4", "½": "1/2", "¾": "3/4"}
_SHORT = re.compile(r"(?<!\S)(?:(w/o)(?!\w)|(w/)(?=\s?\w)|(b/c)(?!\w)) ?", re.IGNORECASE)
_SHORT_AS = ("without ", "with ", "because ")
_SUM = re.compile(
    r"((?:what is|what's|whats|calculate|compute|how much is)? ?)(\d{1,15}) ([*+]) (\d{1,15})( ?=?[ ?.]*)",
    re.IGNORECASE,
)
"""A question for one product or sum and nothing else."""
_ON_WRITING = words(
    """type typed typing keyboard symbol symbols sign superscript subscript character characters unicode notation latex
    markdown html mean means meaning stand stands abbreviation short spell spelled pronounce translate translation
    python java javascript typescript php ruby rust golang bash excel xor bitwise operator operators code regex"""
)
_WORD = re.compile(r"[a-z]+")


def plain(text: str) -> str:
    """The text in one notation; most texts come back as they are."""
    lower = text.lower()
    if not any(noted in lower for noted in _NOTED) and (text.isascii() or not _SIGNED.search(text)):
        return text
    said = set(_WORD.findall(lower))
    if not said.isdisjoint(_ON_WRITING) or {"how", "write"} <= said:
        return text
    text = _SHORT.sub(lambda match: _SHORT_AS[(match.lastindex or 1) - 1], text)
    text = _POWER.sub(lambda match: f"{match[1]}^{match[2].translate(_SUPERSCRIPTS)}", text)
    text = _POWER_WORD.sub(lambda match: f"{match[1]}^{2 if match[2].lower() == 'squared' else 3}", text)
    text = _HALVES.sub(lambda match: f"{match[1] or ''}{' ' if match[1] else ''}{_HALVES_AS[match[2]]}", text)
    text = _NAMED.sub(lambda match: f"{match[2]} {'+' if match[1].lower() == 'sum' else '*'} {match[3]}", text)
    text = _OPERATION.sub(_operated, text).translate(_SIGNS)
    return _in_order(_UNSPACED.sub(_spaced, text))


def _spaced(match: re.Match[str]) -> str:
    return match[0] if _SURE_SIGNS.isdisjoint(match[0]) else _TERM_SIGN.sub(r" \1 ", match[0])


def _operated(match: re.Match[str]) -> str:
    before = match.string[max(0, match.start() - 12) : match.start()]
    return f" {_OPERATORS[match[1].lower()]} " if _OPERAND.search(before) else match[0]


def _in_order(text: str) -> str:
    """The smaller number first where one product or sum is all that is asked for."""
    asked = _SUM.fullmatch(text)
    if asked is None or int(asked[2]) <= int(asked[4]):
        return text
    return f"{asked[1]}{asked[4]} {asked[3]} {asked[2]}{asked[5]}"
