"""Two texts without what they share: a context or instructions around two questions.

Words of a long shared text explain away the words in which two short questions over it differ, so that the questions
must be looked at by themselves. Refuses to read: it cuts where lines and labels end.
"""

from __future__ import annotations

import re

_WORDS_MIN = 5
"""Words that the shared parts have together at least to be taken for a context or instructions."""

_LINES = (re.compile(r"\n|: "), re.compile(r"\n"))
"""After what a question may begin that stands in lines of its own, and what begins the text after it."""
_SENTENCES = (re.compile(r"\n|(?::|[.?!]['\")»”]?) "), re.compile(r"\n|(?<=[.?!]) +(?=\S)"))
"""The same where it may also be a sentence among others."""


def apart(a: str, b: str, *, sentences: bool = False) -> tuple[str, str] | None:
    """What each has for itself, if they share a beginning or an end; None if they do not, or one has nothing more.

    The beginning ends after a line or a label (`: `), the end begins with a line: what stands between is a question.
    With `sentences` both may also end and begin with a sentence.
    """
    ends, follows = _SENTENCES if sentences else _LINES
    start = max((end.end() for end in ends.finditer(a, 0, _alike(a, b))), default=0)
    rest_a, rest_b = a[start:], b[start:]
    ending = rest_a[len(rest_a) - _alike(rest_a[::-1], rest_b[::-1]) :]
    following = follows.search(ending)
    ending = ending[following.start() :] if following else ""
    if len(a[:start].split()) + len(ending.split()) < _WORDS_MIN:
        return None
    one, other = rest_a.removesuffix(ending).strip(), rest_b.removesuffix(ending).strip()
    return (one, other) if one and other and one != other else None


def _alike(a: str, b: str) -> int:
    """How many characters both begin with, found by halving: whole slices are compared faster than characters."""
    known, beyond = 0, min(len(a), len(b)) + 1
    while beyond - known > 1:
        middle = (known + beyond) // 2
        if a[known:middle] == b[known:middle]:
            known = middle
        else:
            beyond = middle
    return known
