"""What stands in a text besides its words: operators, brackets, capitals, accents, layout.

In prose they mean nothing, so each rule asks first whether there is something other than prose. Looks at texts as they
were sent; what words and numbers mean is said in `reading.py`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from cacheproxy.rules.guard.lists import words
from cacheproxy.rules.guard.reading import READINGS_MAX

_FORMULA = re.compile(
    r"\d[a-z]?\s*[-+*/^<>=]\s*[\d(]|\(\s*-?[\d.]+\s*,\s*-?[\d.]+|[{}\[\]<>|^=\\]|&&|!\(|(?<!\w)[*_]{1,4}\w",
    re.IGNORECASE,
)
"""What only formulas, code and coordinates have."""
_SIGNS = re.compile(
    r"(?<!\w)[*&]{1,2}[a-z_]\w*|"
    r"[*/\\_|&+^]{2,}|[-+*/^<>=~|&\\(){}\[\],?]|!(?=[=(\w])|(?<!\w)[*_]{1,4}(?=\w)|(?<!\w)\.\d+|\d(?:[\d.,]*\d)?"
)
"""All that counts in them besides names, numbers included; a name counts where a star or `&` stands before it."""
_ENDS = frozenset(".?!,;:")
_DASHES = str.maketrans("\N{EN DASH}\N{EM DASH}", "--")
_NOT = re.compile(r"(?<![\w!])!(\w+)")
_LENGTH_MARK = re.compile(r"\d(['\"])(?!\w)")
_FLAG = re.compile(r"(?<!\S)--?[A-Za-z]\b")
_SHELL_QUOTE = re.compile(r"['\"](?=\$[A-Za-z_{])")
_BACKTICKED = re.compile(r"`([^`\n]{1,200})`")
_WORD = re.compile(r"[^\W\d_]+")
_SYMBOL_MAX = 3
"""Letters up to which other capitals make another symbol (`mW`, `MW`; `Co`, `CO`)."""
_EVERYDAY = words("tv pc id ai pdf jpg png gif atm phd ios usa uk nyc api sql url css xml usb gps ceo faq app")
"""Abbreviations that are one in any letters."""
_RATE = "ps"
"""Ending of a longer one in which they do (`Mbps`, `MBps`)."""
_MARK = re.compile(r"[^\w\s]|(?<=\S) {2,}")
_KEYWORDS = re.compile(r"\b(?:[A-Z]{2,} )+[A-Z]{2,}\b")
_BINDING = words("ALL ANY SOME NOT OR AND ONLY WITH WITHOUT ON BY FOR IF ELSE")
"""Keywords that change what stands beside them, and in prose are nothing but small words."""
_OPERATION = re.compile(r"(?<!\S)(\w+) (-|/|//|%|<|>|<=|>=|=|<<|>>|\*\*|\^|->) (?=(\w+))")
"""Two names and what stands between them, where it matters which comes first."""
_ON_CASE = words(
    "case uppercase lowercase capital capitals capitalize capitalized capitalised capitalization caps equal"
)
_ALSO_OTHER = words("capital case equal caps")
"""Those of them that mostly mean something else (`the capital of France`, `in case of fire`), unless beside one of"""
_ON_LETTERS = words(
    "letter letters sensitive insensitive upper lower title camel snake string strings word words text python sql"
)
_ON_MARKS = words(
    """punctuation punctuate comma commas exclamation grammatical grammatically spaces whitespace bracket brackets
    parenthesis parentheses balanced"""
)
_ON_WORDS = words("translate translation translated mean means meaning significa spell spelled spelling pronounce")


class Marks(NamedTuple):
    """What a text has besides its words, in order; empty where it has nothing of the kind."""

    formula: tuple[str, ...]
    """Signs and numbers, if they make a formula or code."""
    alone: tuple[str, ...]
    """Signs between spaces, as where somebody asks what `::` means; emojis."""
    lengths: tuple[str, ...]
    """Marks for feet and inches."""
    denied: tuple[str, ...]
    """Words behind a `!`."""
    exact: tuple[str, ...]
    """Where capitals and the kind of quotes count: flags, code in backticks, variables of a shell."""
    keywords: frozenset[str]
    """Two neighbours in capitals of which one binds (`UNION ALL`), in small letters."""
    operations: frozenset[tuple[str, ...]]
    """Two names with what stands between them."""
    indents: tuple[int, ...]
    """Of the lines, where there are several."""
    symbols: dict[str, str]
    """Short words with capitals, by their lower case."""
    accented: frozenset[str]
    """Words with letters beyond ASCII."""
    about: frozenset[str]
    """Words that make a question one about spelling."""


def differ(a: str, b: str, *, in_order: bool = True, alone_in_order: bool = True) -> bool:
    """Whether two texts differ in what is no word, or in how words are written, so that they ask different things.

    Without `in_order` the signs and numbers of a formula may come in another order, without `alone_in_order` the signs
    that stand by themselves.
    """
    one, other = marks(a), marks(b)
    if one.denied != other.denied or one.exact != other.exact:
        return True
    if turned(one.operations, other.operations):
        return True
    if _lacks(one.keywords - other.keywords, b) or _lacks(other.keywords - one.keywords, a):
        return True
    for mine, yours in (
        (one.formula, other.formula) if in_order else (sorted(one.formula), sorted(other.formula)),
        (one.alone, other.alone) if alone_in_order else (sorted(one.alone), sorted(other.alone)),
        (one.lengths, other.lengths),
        (one.indents, other.indents),
    ):
        if mine and yours and mine != yours:
            return True
    return _other_symbol(one.symbols, other.symbols) or _spelled_otherwise(a, b, one, other)


def turned(one: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> bool:
    """Whether one row has become its reverse. Who has both, speaks of both."""
    return any(row[::-1] in other for row in one - other if row[::-1] not in one)


@lru_cache(maxsize=READINGS_MAX)
def marks(text: str) -> Marks:
    """What a text has besides its words."""
    found = _WORD.findall(text)
    lines = [line for line in text.strip().split("\n") if line.strip()]
    return Marks(
        formula=tuple(_SIGNS.findall(text.lower().rstrip().rstrip("?.! "))) if _FORMULA.search(text) else (),
        alone=_alone(text),
        lengths=tuple(_LENGTH_MARK.findall(text)),
        denied=tuple(_NOT.findall(text)) if "!" in text else (),
        exact=(*_FLAG.findall(text), *_BACKTICKED.findall(text), *_SHELL_QUOTE.findall(text)),
        keywords=_keywords(text),
        operations=frozenset(_OPERATION.findall(text.lower())),
        indents=tuple(len(line) - len(line.lstrip()) for line in lines) if len(lines) > 1 else (),
        symbols={} if text.isupper() else {word.lower(): word for word in found if _is_symbol(word)},
        accented=frozenset(word for word in found if not word.isascii()),
        about=frozenset(word.lower() for word in found) & (_ON_CASE | _ON_MARKS | _ON_WORDS),
    )


def _keywords(text: str) -> frozenset[str]:
    if text.isupper():
        return frozenset()
    runs = [run.split() for run in _KEYWORDS.findall(text)]
    pairs = [pair for run in runs for pair in pairwise(run) if not _BINDING.isdisjoint(pair)]
    return frozenset(" ".join(pair).lower() for pair in pairs)


def _lacks(keywords: frozenset[str], other: str) -> bool:
    """The other text has one of two neighbours and not both together, in whatever letters."""
    if not keywords:
        return False
    found = " ".join(_WORD.findall(other.lower()))
    return any(keyword not in found and not set(keyword.split()).isdisjoint(found.split()) for keyword in keywords)


def _alone(text: str) -> tuple[str, ...]:
    chunks = text.translate(_DASHES).split()
    while chunks and set(chunks[-1]) <= _ENDS:
        chunks.pop()
    bare = [chunk for chunk in chunks if not any(character.isalnum() for character in chunk)]
    return tuple(chunk.rstrip("?!.,") or chunk for chunk in bare)


def _is_symbol(word: str) -> bool:
    return (1 < len(word) <= _SYMBOL_MAX or word.endswith(_RATE)) and not word.islower()


def _other_symbol(one: dict[str, str], other: dict[str, str]) -> bool:
    """The same letters with other capitals. Who writes small letters alone is sloppy, and means any of them."""
    return any(one[lower] != other[lower] for lower in (one.keys() & other.keys()) - _EVERYDAY)


def _spelled_otherwise(a: str, b: str, one: Marks, other: Marks) -> bool:
    """A question about letters, marks or words in which just these differ."""
    about = one.about | other.about
    if about & _ON_CASE and a != b and a.lower() == b.lower():
        return not about & _ON_CASE <= _ALSO_OTHER or not _ON_LETTERS.isdisjoint(_WORD.findall(a.lower()))
    if about & _ON_MARKS and _MARK.findall(a.strip().rstrip("?. ")) != _MARK.findall(b.strip().rstrip("?. ")):
        return True
    return bool(about & _ON_WORDS) and one.accented != other.accented
