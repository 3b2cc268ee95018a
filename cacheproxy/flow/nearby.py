"""Questions that are being answered right now, found by the nearness of their vectors.

What the search index is to stored answers, this is to those on their way: only questions of one scope, one vector space
and one epoch are ever compared, and what is near is only named here. Refuses to say what may be served for what (see
`flow/near.py`), and to know what an item is.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

QUESTIONS_MAX = 256
"""Questions held at once, whatever their scopes; of more, the later ones are not found. An ask is compared with all of
its scope on the event loop: 0.5 ms for 256 of 384 dims (median of 300, two busy cores, 2026-11-28)."""

_Item = TypeVar("_Item", bound=Hashable)
_Field: TypeAlias = tuple[str, str, int]
_Unit: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Question:
    """A question, and what must be equal for another to be compared with it."""

    text: str
    scope: str
    vector: bytes
    """As `Embedded.vector`: float32 little endian, unit length."""
    space: str
    epoch: int
    """The store's when it was asked: what was asked before a purge is as old as what was stored then."""
    entry_id: str = ""
    """Public name of the entry that its answer will be."""

    @property
    def field(self) -> _Field:
        """Questions of equal fields may be compared."""
        return self.scope, self.space, self.epoch


class Nearby(Generic[_Item]):
    """Items by the questions they answer."""

    def __init__(self) -> None:
        self._fields: dict[_Field, dict[_Item, tuple[Question, _Unit]]] = {}
        self._questions: dict[_Item, Question] = {}

    def __len__(self) -> int:
        return len(self._questions)

    def add(self, item: _Item, question: Question) -> None:
        """Let an item be found, unless there are `QUESTIONS_MAX` already."""
        if len(self._questions) >= QUESTIONS_MAX:
            return
        self._questions[item] = question
        self._fields.setdefault(question.field, {})[item] = question, _unit(question)

    def discard(self, item: _Item) -> None:
        """Let an item not be found any more, if it could be."""
        question = self._questions.pop(item, None)
        if question is None:
            return
        field = self._fields[question.field]
        del field[item]
        if not field:
            del self._fields[question.field]

    def nearest(self, question: Question) -> Iterator[tuple[_Item, Question, float]]:
        """The items whose questions may be compared with this one, nearest first, each with its similarity."""
        field = self._fields.get(question.field)
        if not field:
            return
        unit = _unit(question)
        found = [(float(other @ unit), item, answered) for item, (answered, other) in field.items()]
        for similarity, item, answered in sorted(found, key=lambda each: each[0], reverse=True):
            yield item, answered, similarity


def _unit(question: Question) -> _Unit:
    return np.frombuffer(question.vector, dtype="<f4")
