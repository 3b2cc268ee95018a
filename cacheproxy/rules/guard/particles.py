"""Verbs that come apart, put together: *turn dark mode off* is read as *turn off dark mode*.

And *keep it from running* and *prevent it from running* as *halt it from running*, which is the opposite of *keep it
running*. Knows the order of words only; what verb and particle mean together stands in `phrases.PHRASES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from cacheproxy.rules.guard.cutting import Piece
from cacheproxy.rules.guard.lists import words
from cacheproxy.rules.guard.phrases import CLAUSE_STARTS, PARTICLES, PHRASES

_BETWEEN_MAX = 6
"""Words between a verb and its particle."""
_PREVENTING = words("keep keeps kept keeping prevent prevents prevented preventing")
_VERBS = frozenset(phrase[0] for phrase in PHRASES if len(phrase) == 2 and phrase[1] in PARTICLES)


def together(pieces: list[Piece]) -> list[Piece]:
    """The pieces with each particle straight after its verb."""
    if not any(piece.text in _VERBS or piece.text in _PREVENTING for piece in pieces):
        return pieces
    moved = [_stopped(pieces, index) if piece.text in _PREVENTING else piece for index, piece in enumerate(pieces)]
    for index, piece in enumerate(moved):
        at = _particle(moved, index) if piece.text in _VERBS else None
        if at is not None:
            moved.insert(index + 1, moved.pop(at))
    return moved


def _stopped(pieces: Sequence[Piece], verb: int) -> Piece:
    """The verb, or *halt* where *from* and another verb follow what is kept from it."""
    following = [piece.text for piece in pieces[verb + 2 : verb + 3 + _BETWEEN_MAX]]
    for text, after in pairwise(following):
        if text == "from" and after.endswith("ing"):
            return pieces[verb]._replace(text="halt")
    return pieces[verb]


def _particle(pieces: Sequence[Piece], verb: int) -> int | None:
    """Where the particle of a verb stands, if it stands apart from it and what stands between is its object.

    A particle ends its clause: in *turn the page on my phone* another thing follows, so this is none.
    """
    for at in range(verb + 1, min(verb + 2 + _BETWEEN_MAX, len(pieces))):
        text = pieces[at].text
        if (pieces[verb].text, text) in PHRASES:
            return at if at > verb + 1 and _ends_clause(pieces, at) else None
        if text in CLAUSE_STARTS:
            return None
    return None


def _ends_clause(pieces: Sequence[Piece], at: int) -> bool:
    following = pieces[at + 1].text if at + 1 < len(pieces) else ""
    return not following or following in CLAUSE_STARTS or following.endswith("ly")
