"""The labels of what is counted: the closed lists of their values, and the word for what is in none.

Data only. Names that callers choose are no labels; `metrics.py` sees to that.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeAlias

from cacheproxy.model import Neighbour

OTHER = "other"
"""Label that stands for every name outside a closed or known list."""
TIERS = ("memory", "redis", "none")

Labels: TypeAlias = tuple[str, ...]

STEPS: Mapping[str, str] = {
    "parse": "bytes of the request to an ask",
    "memory": "look-up in the process's own tier",
    "exact": "look-up in Redis by key",
    "embed": "question to vector",
    "semantic": "look-up in Redis by nearness, guards included",
    "queue": "waiting for a free place at Ollama",
    "upstream_first_byte": "request sent to Ollama until its first byte",
    "upstream_total": "request sent to Ollama until its last byte",
    "reply": "answer to bytes taken by the client's connection; of a short whole reply, until it is put together",
    "store": "complete answer to entry written",
}


class Group(StrEnum):
    """What became of the neighbour of an ask. Closed."""

    SERVED = "served"
    """In shadow mode: would have been."""
    BELOW = "below"
    GUARDED = "guarded"
    """Refused for another reason than its similarity: a guard, or what people said of the pair."""

    @classmethod
    def of(cls, neighbour: Neighbour) -> Group:
        """What became of it."""
        if neighbour.served:
            return cls.SERVED
        return cls.BELOW if neighbour.verdict == "below_threshold" else cls.GUARDED
