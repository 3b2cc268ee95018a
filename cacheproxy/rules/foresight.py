"""Which model will be asked for next, and what would have to go to make room for it. Pure.

The guess is a first-order Markov chain over the recent order of asks: of the times the present model was followed by
another one, which was it? Asks for the same model in a row count once, since only a change of models costs a load.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

SEEN_MIN = 2
"""A successor seen once is no habit."""
SHARE_MIN = 0.5
"""A guess that is wrong more often than right costs more loads than it saves."""


@dataclass(frozen=True, slots=True)
class Resident:
    """A model in memory. `held`: it must stay (it is configured to be loaded, or a caller said how long)."""

    model: str
    size_bytes: int
    held: bool = False


def followers(order: Sequence[str]) -> Counter[str]:
    """How often each model came next after the last one of `order` (oldest first)."""
    turns = [model for model, _ in groupby(order)]
    return Counter(after for before, after in pairwise(turns) if before == turns[-1])


def guess(order: Sequence[str]) -> str:
    """The model that will be asked for after the last one of `order`; empty if that is anyone's guess."""
    seen = followers(order)
    for model, times in seen.most_common(1):
        if times >= SEEN_MIN and times / seen.total() >= SHARE_MIN:
            return model
    return ""


def make_room(
    wanted: str, size_bytes: int, budget_bytes: int, residents: Sequence[Resident], order: Sequence[str]
) -> tuple[str, ...] | None:
    """Which residents to unload so that `wanted` fits the budget, least valuable first; None if it cannot be done.

    Worth more is what follows the present model more often, then what was asked for later. The present model, held ones
    and `wanted` itself stay.
    """
    seen = followers(order)
    last_asked = {model: at for at, model in enumerate(order)}
    need_bytes = size_bytes + sum(resident.size_bytes for resident in residents) - budget_bytes
    removable = [one for one in residents if not one.held and one.model not in (wanted, order[-1] if order else "")]
    removable.sort(key=lambda one: (seen[one.model], last_asked.get(one.model, -1)))
    going = []
    for resident in removable:
        if need_bytes <= 0:
            break
        going.append(resident.model)
        need_bytes -= resident.size_bytes
    return tuple(going) if need_bytes <= 0 else None
