"""Recorded asks in their order to what the cache would have answered at a threshold: a count, not an estimate.

A threshold also decides what gets stored: where more is served, less is asked and so less is there to be near to. So
rates at another threshold cannot be read off a histogram of similarities; the asks have to be gone through again.
An ask whose very question is stored is an exact hit; else the nearest stored questions are weighed as the proxy weighs
them; else it is a miss, and its question is stored. Refuses to know vectors and texts: questions are numbers here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeAlias

from cacheproxy.rules.tuning import wilson

NEIGHBOURS = 5
"""Stored questions weighed for one ask, nearest first, as `store/semantic.py` asks for them."""


@dataclass(frozen=True, slots=True)
class Played:
    """One ask. `question`: equal numbers are equal questions in an equal setting."""

    question: int
    time: float | None = None
    """Unix time, s; None: it is not known, and nothing expires."""
    label: str = ""
    """Asks of one label have one right answer; empty: not known."""


Neighbours: TypeAlias = Mapping[int, Sequence[tuple[int, float]]]
"""To a question the questions near it, with their similarity, nearest first; those below all thresholds left out."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of the asks at a threshold: `asks` = `exact` + `semantic` + `miss`. Rates are 0..1."""

    threshold: float
    asks: int
    exact: int
    semantic: int
    judged: int
    """Semantic hits whose labels are known, the asked one's and the stored one's."""
    wrong: int
    """Of these, where the labels differ."""

    @property
    def miss(self) -> int:
        """Asks that Ollama would have answered."""
        return self.asks - self.exact - self.semantic

    @property
    def hit_rate(self) -> float | None:
        """Hits of all asks."""
        return (self.exact + self.semantic) / self.asks if self.asks else None

    @property
    def wrong_rate(self) -> float | None:
        """Wrong hits of the semantic hits that were judged."""
        return self.wrong / self.judged if self.judged else None

    @property
    def interval(self) -> tuple[float, float]:
        """Where the wrong-hit rate lies with 95 % certainty."""
        return wilson(self.wrong, self.judged)


def first_served(ranked: Iterable[tuple[int, float]], threshold: float, objects: Callable[[int], bool]) -> int | None:
    """The one of the stored questions that would be served; None: none would.

    `ranked`: each with its similarity, nearest first. `objects`: whether a guard keeps it apart from the one asked.
    """
    for other, similarity in islice(ranked, NEIGHBOURS):
        if similarity < threshold:
            return None
        if not objects(other):
            return other
    return None


@dataclass(frozen=True, slots=True)
class _Stored:
    label: str
    expires: float


@dataclass(frozen=True, slots=True)
class _Cache:
    """What is stored by question, and how it is found by meaning."""

    neighbours: Neighbours
    threshold: float
    objects: Callable[[int, int], bool]
    stored: dict[int, _Stored] = field(default_factory=dict)

    def alive(self, question: int, now: float) -> _Stored | None:
        found = self.stored.get(question)
        return found if found is not None and found.expires > now else None

    def near(self, question: int, now: float) -> _Stored | None:
        """The stored question that would be served; None: none would."""
        ranked = (one for one in self.neighbours.get(question, ()) if self.alive(one[0], now))
        served = first_served(ranked, self.threshold, lambda other: self.objects(question, other))
        return None if served is None else self.stored[served]


def play(
    asks: Sequence[Played],
    neighbours: Neighbours,
    threshold: float,
    *,
    objects: Callable[[int, int], bool],
    ttl_s: float,
) -> Result:
    """Go through the asks. `objects`: whether a guard keeps two questions apart. `ttl_s`: how long answers are kept."""
    cache = _Cache(neighbours, threshold, objects)
    exact = semantic = judged = wrong = 0
    for ask in asks:
        now = 0.0 if ask.time is None else ask.time
        if cache.alive(ask.question, now):
            exact += 1
        elif near := cache.near(ask.question, now):
            semantic += 1
            if ask.label and near.label:
                judged += 1
                wrong += ask.label != near.label
        else:
            cache.stored[ask.question] = _Stored(ask.label, math.inf if ask.time is None else now + ttl_s)
    return Result(threshold, len(asks), exact, semantic, judged, wrong)
