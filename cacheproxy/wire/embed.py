"""`/api/embed`: bytes to texts, vectors to bytes.

A stored vector that came over `/v1` is not used here: its call's durations are not known. Refuses to key a request
without text (it loads a model).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cacheproxy.errors import UnkeyableError
from cacheproxy.wire import embedding, request
from cacheproxy.wire.embedding import EmbedAsk, Made, Stored, Vector
from cacheproxy.wire.jsontext import write

NAME = "embed"
PATH = "/api/embed"
FAMILY = "embed"
CONTENT_TYPE = "application/json; charset=utf-8"
MERGES = True
"""Whether texts of several asks may go to Ollama in one call: a reply need not state what that does not tell."""

_MEMBERS = frozenset({"model", "input", "truncate", "dimensions", "options", "keep_alive"})


def parse(body: bytes) -> EmbedAsk:
    """The ask in a request body. Raises UnkeyableError with the reason why it has no key."""
    parsed = request.read(body, known=_MEMBERS)
    members = request.common(parsed.members)
    inputs = members.pop("input", "")
    members |= embedding.size(members.pop("dimensions", 0))
    truncate = members.pop("truncate", True)
    if not isinstance(truncate, bool):
        raise UnkeyableError("truncate")
    if not truncate:  # cutting texts that are too long is Ollama's default, which no model file changes
        members["truncate"] = False
    return embedding.embed_ask(parsed, members, [] if inputs == "" else inputs, dialect=NAME, family=FAMILY)


def usable(stored: Stored) -> list[Vector | None]:
    """The vectors that a reply may use, in the same places."""
    return [vector if vector is not None and vector.cost.by == NAME else None for _, vector in stored]


def ask_for(body: bytes, inputs: Sequence[str]) -> bytes:
    """The body of the same request for some of its texts."""
    return write({**request.read(body, known=_MEMBERS).members, "input": list(inputs)})


def split(body: bytes, count: int) -> tuple[list[str], dict[str, Any]]:
    """The vectors of a reply as Ollama wrote them, and the members behind them. Raises ValueError for another form."""
    texts, around = embedding.rows(body)
    if not isinstance(around, dict) or around.pop("embeddings", None) != [[]] * count or len(texts) != count:
        raise ValueError("not one vector for each text")
    around.pop("model", None)
    return texts, around


def whole(made: Made) -> bytes:
    """The reply."""
    head = b'{"model":' + write(made.embed.ask.model) + b',"embeddings":['
    tail = write(_final(made))[1:]
    return head + ",".join([vector.text for vector in made.vectors]).encode() + (b"]," if tail != b"}" else b"]") + tail


def _final(made: Made) -> dict[str, Any]:
    """What stands behind the vectors: as Ollama said it, where it said it of just these; tokens only where known."""
    calls = list(embedding.complete_calls(made.stored).values())
    if len({vector.cost.call for vector in made.vectors}) == 1 and [times for _, times in calls] == [1]:
        return dict(calls[0][0].final)
    members = {
        "total_duration": max(1, int(made.elapsed_s * 1e9)),
        "load_duration": made.fresh.final.get("load_duration") if made.fresh else None,
        embedding.TOKENS: embedding.tokens(made.stored),
    }
    return {name: value for name, value in members.items() if value}
