"""How alike two answers are, for the shadow record: by the words they share, and by nothing cleverer.

It sees neither order nor meaning: *A beats B* and *B beats A* are the same words, and one `not` or one wrong number in
a long answer hardly shows. So it can say that answers are far apart; that they agree it can only suggest.
Never decides whether an answer is served.
"""

from __future__ import annotations

import re
from collections import Counter

LETTERS_MAX = 32_768
"""Characters of each answer that are looked at: some 5,000 words, in a millisecond, whatever a model writes."""

_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Thai, Japanese and Chinese put no spaces between words, so each character counts as one."""
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_ASCII_GAPS = {code: " " for code in range(128) if not (chr(code).isalnum() or chr(code) == "_")}
"""What `_WORD` leaves out of ASCII text, for `str.translate`: the same words in a fifth of the time."""


def likeness(a: str, b: str) -> float:
    """Dice coefficient of the two multisets of lower-cased words, 0..1: twice the words in common over all words.

    Symmetric; 1.0 for equal texts. Punctuation counts for nothing, unless there is no word at all on either side: then
    the texts are equal (1.0) or not (0.0). 90 µs for two English answers of 500 words (AMD EPYC, Python 3.11).
    """
    if a == b:
        return 1.0
    first, second = _words(a), _words(b)
    if not first and not second:
        return 1.0 if a.strip() == b.strip() else 0.0
    counts, others = Counter(first), Counter(second)
    shared = sum(min(counts[word], others[word]) for word in counts.keys() & others.keys())
    return 2 * shared / (len(first) + len(second))


def _words(text: str) -> list[str]:
    text = text[:LETTERS_MAX].lower()
    return text.translate(_ASCII_GAPS).split() if text.isascii() else _WORD.findall(text)
