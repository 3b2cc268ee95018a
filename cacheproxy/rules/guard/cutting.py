"""A text cut into pieces: words with contractions spelled out and names marked, and everything else as it stands.

Knows spelling and punctuation only; what pieces mean is said in `rules/guard/reading.py`.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

from cacheproxy.rules.guard.function_words import CONTRACTIONS, ENDINGS, IS_AFTER

_OUTER = (
    ".,;:!?\"'`()[]{}<>*~_|¿¡«»…“”„、。「」『』"
    "\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}\N{ACUTE ACCENT}\N{FULLWIDTH COMMA}"
    "\N{FULLWIDTH QUESTION MARK}\N{FULLWIDTH EXCLAMATION MARK}\N{FULLWIDTH COLON}\N{FULLWIDTH SEMICOLON}"
)
"""Punctuation that may stand around a word without being part of it."""
_SILENT = (set(_OUTER) - set("<>!|~*")) | set("-—/•·\N{EN DASH}")
_SENTENCE_END = frozenset(".?!:\n。")
_CHUNK = re.compile(r"\n|\S+")
_SPLIT = re.compile("[-/—,&…\N{EN DASH}]+|\\.{2,}")
_NUMBER_AND_WORDS = re.compile(r"\d[\d.,]*(?:-[a-z]+)+", re.IGNORECASE)
_DOTTED = re.compile(r"(?:[^\W\d_]{1,2}\.)+[^\W\d_]?")
_POINT = re.compile(r"^[^\w.]*\.\d")
"""A number below one without its zero (`.5`)."""
_VERSION = re.compile(r"v(?=\d)", re.IGNORECASE)
_MILLIONS = re.compile(r"(?<=\d)M$")
"""*2M rows*; metres and minutes have a small letter."""
_OPERATOR = re.compile(r"[^\w\s]{1,6}")
_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u0e00-\u0e7f]")
_FOREIGN = re.compile(r"[^\x00-\x7f]")
_TITLE_WORDS_MIN = 4
_TITLE_SHARE = 0.8


class Piece(NamedTuple):
    """A word, a number or a symbol. A tuple, because hundreds are made for one question."""

    text: str
    """In lower case."""
    raw: str
    """As written."""
    proper: bool = False
    """Written as a name."""
    word: bool = True
    """False: a number, code or a symbol."""
    apposed: bool = False
    """Straight after a comma."""


def cut(text: str) -> list[Piece]:
    """The pieces of a text, in order. Any string is accepted."""
    pieces: list[Piece] = []
    fresh, comma, shouted = True, False, text.isupper()
    for chunk in _CHUNK.findall(text if text.isascii() else _unaccented(text)):
        if chunk == "\n":
            fresh = True
            continue
        core = chunk.strip(_OUTER)
        if core[:1].isdigit():
            if _POINT.search(chunk):
                core = f"0.{core}"
            core = core if shouted else _MILLIONS.sub("mn", core)
        lower = core.lower()
        if core.isalpha() and core.isascii() and lower not in CONTRACTIONS:
            pieces.append(Piece(lower, core, _is_proper(core, fresh=fresh), apposed=comma))
        else:
            odd = _odd(chunk, core, fresh=fresh)
            pieces += [odd[0]._replace(apposed=comma), *odd[1:]] if odd else []
        comma = chunk[-1] == ","
        fresh = chunk[-1] in _SENTENCE_END and not _DOTTED.fullmatch(chunk)
    while pieces and pieces[-1].text == "*":
        pieces.pop()  # a footnote mark, not a product
    return _without_title_case(pieces)


def _unaccented(text: str) -> str:
    """Without the accents of Latin letters, which many leave out, and with one form for each character."""
    return _FOREIGN.sub(_base_letter, unicodedata.normalize("NFKC", text))


def _base_letter(match: re.Match[str]) -> str:
    base = unicodedata.normalize("NFKD", match[0])[:1]
    return base if base.isascii() and base.isalpha() else match[0]


def _is_proper(core: str, *, fresh: bool) -> bool:
    """A capital where English has none without reason. `fresh`: a sentence begins here."""
    if len(core) == 1:
        return core.isupper() and core not in "IAO" and not fresh
    if core == "OK":
        return False
    return (core[0].isupper() and not fresh) or not core[1:].islower()


def _without_title_case(pieces: list[Piece]) -> list[Piece]:
    """In A Text Written Like This capitals mark nothing."""
    long = [piece for piece in pieces if piece.word and len(piece.raw) > 1]
    capitals = sum(piece.raw[0].isupper() for piece in long)
    if len(long) < _TITLE_WORDS_MIN or capitals < _TITLE_SHARE * len(long):
        return pieces
    return [piece._replace(proper=False) for piece in pieces]


def _odd(chunk: str, core: str, *, fresh: bool) -> list[Piece]:
    """The pieces of a chunk that is not one plain English word."""
    if not any(character.isalnum() for character in core):
        return _symbol(chunk)
    lower = core.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    if _DOTTED.fullmatch(core):
        return [Piece("usa" if lower.startswith("u.s") else lower.replace(".", ""), core, core.isupper())]
    if _UNSPACED.search(core):
        return [Piece(character, character) for character in lower if character.isalnum()]
    if lower in CONTRACTIONS or ("'" in lower and "_" not in lower):
        return _contraction(core, lower, fresh=fresh)
    if core.isalpha():
        return [Piece(lower, core, _is_proper(core, fresh=fresh))]
    return _compound(chunk, core, fresh=fresh)


def _symbol(chunk: str) -> list[Piece]:
    """An operator (`>=`, `!=`, `-=`); punctuation on its own says nothing."""
    if chunk == "&":
        return [Piece("and", "and")]
    if set(chunk) <= _SILENT or set(chunk) == {"!"} or not _OPERATOR.fullmatch(chunk):
        return []
    return [Piece(chunk, chunk, word=False)]


def _contraction(core: str, lower: str, *, fresh: bool) -> list[Piece]:
    if lower in CONTRACTIONS:
        return [Piece(word, word) for word in CONTRACTIONS[lower].split()]
    if lower.endswith("n't") and len(lower) > 3:
        return [Piece(lower[:-3], lower[:-3]), Piece("not", "not")]
    for ending, word in ENDINGS.items():
        if lower.endswith(ending) and len(lower) > len(ending):
            return [Piece(lower[: -len(ending)], core), Piece(word, word)]
    if lower.endswith("'s") and len(lower) > 2:
        owner = Piece(lower[:-2], core[:-2], _is_proper(core[:-2], fresh=fresh))
        return [owner, Piece("is", "is")] if owner.text in IS_AFTER else [owner]
    return [Piece(lower.replace("'", ""), core, _is_proper(core, fresh=fresh))]


def _compound(chunk: str, core: str, *, fresh: bool) -> list[Piece]:
    """Words joined by hyphens or slashes come apart; numbers and code stay whole."""
    core = core.removesuffix("(s").removesuffix("(es")
    flag = chunk.startswith("-") and core[1:2].isalpha()
    parts = [part for part in _SPLIT.split(core) if part]
    if len(parts) == 2 and len(parts[0]) == 1 and parts[0].isalpha() and "-" in core:
        parts = ["".join(parts)]  # e-mail, t-shirt
    if not flag and parts and all(part.isalpha() for part in parts):
        return [Piece(part.lower(), part, _is_proper(part, fresh=fresh)) for part in parts]
    if _NUMBER_AND_WORDS.fullmatch(core):
        return [Piece(part.lower(), part, word=part.isalpha()) for part in core.split("-")]
    if chunk[chunk.find(core) + len(core) :].startswith("%"):
        core += "%"
    core = _VERSION.sub("", core, count=1)
    return [Piece(core.lower(), core, word=False)]
