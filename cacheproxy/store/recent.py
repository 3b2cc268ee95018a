"""Single asks as they are shown to an operator: one JSON object each, in a stream and live.

Texts of questions are in it only where `log.prompts` allows it, and cut: the ledger is no archive of prompts.
Refuses to decide which asks are recorded.
"""

from __future__ import annotations

from typing import Any

import orjson

from cacheproxy.model import Decision, Neighbour

TEXT_MAX = 500
"""Characters of a question that are kept."""
_TEXTS = ("asked", "stored")


def ask(decision: Decision, count: int = 1) -> dict[str, Any]:
    """One ask, or `count` that were answered alike, as `/asks` and `/events` show it."""
    found = decision.neighbour
    return {
        "at": round(decision.at, 3),
        "outcome": decision.outcome.value,
        "dialect": decision.dialect,
        "model": cut(decision.model),
        "tier": decision.tier,
        "reason": decision.reason,
        "seconds": round(decision.seconds, 6),
        "trail": decision.trail,
        "entry": decision.entry or (found.entry if found else ""),
        "age_s": None if decision.age_s is None else round(decision.age_s, 3),
        "similarity": round(found.similarity, 6) if found else None,
        "threshold": found.threshold if found else None,
        "verdict": found.verdict if found else None,
        "asked": cut(found.asked) if found else "",
        "stored": cut(found.stored) if found else "",
        "count": count,
    }


def pair(decision: Decision, neighbour: Neighbour) -> dict[str, Any]:
    """Two questions that were compared, as `/pairs` shows them."""
    return {
        "at": round(decision.at, 3),
        "asked": cut(neighbour.asked),
        "stored": cut(neighbour.stored),
        "similarity": round(neighbour.similarity, 6),
        "threshold": neighbour.threshold,
        "verdict": neighbour.verdict,
        "entry": neighbour.entry,
        "model": cut(decision.model),
        "dialect": decision.dialect,
    }


def cut(text: str) -> str:
    """At most `TEXT_MAX` characters of a text, and as UTF-8 can carry them."""
    shown = text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 1] + "…"
    return shown.encode("utf-8", "replace").decode()


def write(record: dict[str, Any]) -> bytes:
    """A record as it lies in Redis."""
    return orjson.dumps(record)


def read(text: bytes, *, prompts: bool) -> dict[str, Any] | None:
    """The record; None for bytes that are none. Without `prompts` its texts are empty, whoever had written them."""
    try:
        record = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(record, dict):
        return None
    return record if prompts else record | dict.fromkeys(_TEXTS, "")
