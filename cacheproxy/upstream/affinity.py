"""Which of several Ollamas an ask goes to: a pure function of the model and of how each of them stands.

Rendezvous hashing (the highest random weight wins) gives each model a home among those there are, the same one in every
proxy and after every restart; one that goes away gives up its own models only, each to another place, and gets
them back later. Over that stand two things that cost seconds where a home costs nothing:

1. One that is away comes last: it is tried only when all others failed.
2. Then counts how long an ask would wait, in rounds: those that go before it, and two more where the model is not in
   memory yet, since loading takes about as long as a few answers do. So an ask stays where its model is loaded; it goes
   to another place that has the model loaded as soon as it would wait; and it makes one more Ollama load the
   model where that is shorter than the wait.
3. Where that is equal, the home wins.

Refuses to know what a model is called, and how all this was found out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

LOADING_ROUNDS = 2
"""What loading a model costs, in rounds of asks."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How one Ollama stands towards an ask."""

    name: str
    up: bool
    loaded: bool
    """The model is in memory, or being loaded for an ask."""
    rounds: int
    """Rounds of asks that would go before this one; 0: it would go at once."""


@lru_cache(maxsize=4096)
def weight(name: str, digest: str) -> int:
    """How strongly an Ollama draws a model. Stable across processes, machines and versions of this program."""
    return int.from_bytes(blake2b(f"{name}\n{digest}".encode(), digest_size=8).digest())


def home(digest: str, names: Iterable[str]) -> str:
    """The name at which a model is at home. Raises ValueError if there is none."""
    return max(names, key=lambda name: weight(name, digest))


def ranked(digest: str, standings: Iterable[Standing]) -> list[str]:
    """The names, best first."""

    def cost(one: Standing) -> tuple[bool, int, int]:
        loading = 0 if one.loaded else LOADING_ROUNDS
        return (not one.up, one.rounds + loading, -weight(one.name, digest))

    return [one.name for one in sorted(standings, key=cost)]
