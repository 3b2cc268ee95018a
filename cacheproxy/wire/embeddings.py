"""`/api/embeddings`, the older of Ollama's two: one text, and its vector as the model gave it.

Its vectors are not brought to unit length, so they are never shared with the other dialects. Ollama compares the
model's name with its letter case here and nowhere else, so the spelling is part of the setting.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cacheproxy.errors import UnkeyableError
from cacheproxy.wire import embedding, request
from cacheproxy.wire.embedding import EmbedAsk, Made, Stored, Vector
from cacheproxy.wire.jsontext import write

NAME = "embeddings"
PATH = "/api/embeddings"
FAMILY = "embeddings"
CONTENT_TYPE = "application/json; charset=utf-8"
MERGES = False
"""A call has one text."""

_MEMBERS = frozenset({"model", "prompt", "options", "keep_alive"})


def parse(body: bytes) -> EmbedAsk:
    """The ask in a request body. Raises UnkeyableError with the reason why it has no key."""
    parsed = request.read(body, known=_MEMBERS)
    members = request.common(parsed.members)
    prompt = members.pop("prompt", "")
    if not isinstance(prompt, str):
        raise UnkeyableError("input")
    members["model"] = parsed.members.get("model")
    return embedding.embed_ask(parsed, members, [prompt] if prompt else [], dialect=NAME, family=FAMILY)


def usable(stored: Stored) -> list[Vector | None]:
    """The vectors that a reply may use: all."""
    return [vector for _, vector in stored]


def ask_for(body: bytes, inputs: Sequence[str]) -> bytes:
    """The body of the same request for its one text."""
    return write({**request.read(body, known=_MEMBERS).members, "prompt": inputs[0]})


def split(body: bytes, count: int) -> tuple[list[str], dict[str, Any]]:
    """The vector of a reply as Ollama wrote it. Raises ValueError for another form."""
    texts, around = embedding.rows(body)
    if around != {"embedding": []} or len(texts) != count:
        raise ValueError("not a vector")
    return texts, {}


def whole(made: Made) -> bytes:
    """The reply."""
    return f'{{"embedding":{made.vectors[0].text}}}'.encode()
