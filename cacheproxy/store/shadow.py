"""What would have been served: the evidence of `semantic.mode = "shadow"`, a bounded Redis stream.

Questions are written as keyed hashes unless the operator allows prompts to be written down. The stream drops its
oldest records by itself and disappears a month after the last. Raises CacheError only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from cacheproxy.store.connection import OPERATOR_TIMEOUT_S, Connection
from cacheproxy.store.line import Command

RECORDS_MAX = 10_000
"""About: Redis drops whole blocks of a hundred. With questions of 60 characters 4 MB."""
LIFETIME_S = 30 * 86_400
"""Of the whole stream after its last record."""


@dataclass(frozen=True, slots=True)
class ShadowRecord:
    """One near match that was judged and not served, beside what Ollama then answered."""

    similarity: float
    """Cosine of the two questions."""
    reason: str
    """Why the verdict was no; empty where it would have been served."""
    guards: tuple[str, ...]
    """All guards that objected, by name."""
    likeness: float
    """How alike the stored answer and the new one are, 0..1."""
    scope: str
    model: str
    question: str
    """As asked now; a keyed hash unless prompts may be written down."""
    stored: str
    """The question of the stored entry, likewise."""
    time: float
    """Unix time, s."""


class Shadow:
    """The stream, over one connection. `prefix` is `redis.prefix`; `prompts` is `log.prompts`."""

    def __init__(self, connection: Connection, prefix: str, *, prompts: bool) -> None:
        self._connection = connection
        self._key = f"{prefix}:shadow"
        self._prompts = prompts

    async def put(self, record: ShadowRecord) -> None:
        """Add a record, its questions as texts. Raises StoreUnavailableError."""
        if not self._prompts:
            hashed = self._connection.hashed
            record = replace(record, question=hashed(record.question), stored=hashed(record.stored))
        fields = (part for field in _encode(record).items() for part in field)
        add: Command = ("XADD", self._key, "MAXLEN", "~", RECORDS_MAX, "*", *fields)
        await self._connection.ask_all((add, ("EXPIRE", self._key, LIFETIME_S)), atomic=True)

    async def read(self, count: int) -> list[ShadowRecord]:
        """The newest records, newest first, at most `count`; unreadable ones left out. Raises StoreUnavailableError."""

        async def read(redis: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
            return cast("list[tuple[bytes, dict[bytes, bytes]]]", await redis.xrevrange(self._key, count=count))

        found = await self._connection.run(read, timeout_s=OPERATOR_TIMEOUT_S)
        return [record for _id, fields in found if (record := _decode(fields)) is not None]


def _encode(record: ShadowRecord) -> dict[str, str]:
    return {
        "similarity": f"{record.similarity:.6f}",
        "reason": record.reason,
        "guards": ",".join(record.guards),
        "likeness": f"{record.likeness:.4f}",
        "scope": record.scope,
        "model": record.model,
        "question": record.question,
        "stored": record.stored,
        "time": f"{record.time:.3f}",
    }


def _decode(fields: Mapping[bytes, bytes]) -> ShadowRecord | None:
    """The record; None for fields that `_encode` did not write."""
    try:
        texts = {name.decode(): value.decode() for name, value in fields.items()}
        return ShadowRecord(
            similarity=_number(texts["similarity"]),
            reason=texts["reason"],
            guards=tuple(texts["guards"].split(",")) if texts["guards"] else (),
            likeness=_number(texts["likeness"]),
            scope=texts["scope"],
            model=texts["model"],
            question=texts["question"],
            stored=texts["stored"],
            time=_number(texts["time"]),
        )
    except (KeyError, ValueError):
        return None


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("not a figure")
    return number
