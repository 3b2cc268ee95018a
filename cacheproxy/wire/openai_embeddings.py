"""`/v1/embeddings`: bytes to texts, vectors to bytes, as numbers or as base64.

Its vectors are those of `/api/embed`, so it may use them; the reverse is that file's to say. The reply must tell how
many tokens the texts had, so a vector whose call is only in part in the reply is fetched anew.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

from cacheproxy.errors import UnkeyableError
from cacheproxy.wire import embedding, float32, request
from cacheproxy.wire.embedding import TOKENS, EmbedAsk, Made, Stored, Vector
from cacheproxy.wire.jsontext import write

NAME = "openai_embeddings"
PATH = "/v1/embeddings"
FAMILY = "embed"
CONTENT_TYPE = "application/json"
MERGES = False
"""The reply must state the tokens of its own texts, which a call for several asks does not tell."""

_MEMBERS = frozenset({"model", "input", "dimensions", "encoding_format"})


def parse(body: bytes) -> EmbedAsk:
    """The ask in a request body. Raises UnkeyableError with the reason why it has no key.

    A text may be empty here: it is embedded. `cache` holds the controls, and is not sent on.
    """
    parsed = _read(body)
    given = dict(parsed.members)
    inputs = given.pop("input", None)
    encoding = given.pop("encoding_format", "")
    setting: dict[str, Any] = embedding.size(given.pop("dimensions", 0))
    given.pop("model", None)
    if given:  # what Ollama ignores here may mean something to `/api/embed`, and must not look like it
        setting["v1"] = given
    if not inputs and inputs != "":
        raise UnkeyableError("input")
    if not isinstance(encoding, str) or encoding.lower() not in ("", "float", "base64"):
        raise UnkeyableError("encoding-format")
    return embedding.embed_ask(parsed, setting, inputs, dialect=NAME, family=FAMILY, encoding=encoding.lower())


def _read(body: bytes) -> request.Parsed:
    parsed = request.read(body, known=_MEMBERS)
    members = {name: value for name, value in parsed.members.items() if name not in ("cache", "keep_alive", "stream")}
    if "cache" not in parsed.members:
        return request.Parsed(members, parsed.controls, parsed.forward)
    given = parsed.members["cache"]
    return request.Parsed(members, given if isinstance(given, dict) else {"mode": given}, write(members))


def usable(stored: Stored) -> list[Vector | None]:
    """The vectors that a reply may use: those of calls whose tokens are known because all their texts are there."""
    calls = embedding.complete_calls(stored)
    counted = {call for call, (cost, _) in calls.items() if isinstance(cost.final.get(TOKENS), int)}
    return [vector if vector is not None and vector.cost.call in counted else None for _, vector in stored]


def ask_for(body: bytes, inputs: Sequence[str]) -> bytes:
    """The body of the same request for some of its texts."""
    return write({**_read(body).members, "input": list(inputs)})


def split(body: bytes, count: int) -> tuple[list[str], dict[str, Any]]:
    """The vectors of a reply as Ollama wrote them, and its tokens. Raises ValueError for another form."""
    texts, around = embedding.rows(body)
    data = around.get("data") if isinstance(around, dict) else None
    if not isinstance(data, list) or len(data) != count:
        raise ValueError("not one vector for each text")
    vectors = [_embedding(item, index) for index, item in enumerate(data)]
    if texts and not (vectors == [[]] * count and len(texts) == count):
        raise ValueError("vectors that cannot be told from what is around them")
    return texts or [_checked(vector) for vector in vectors], {TOKENS: _tokens(around.get("usage"))}


def _embedding(item: object, index: int) -> object:
    if not isinstance(item, dict) or item.get("index") != index:
        raise ValueError("vectors out of order")
    return item.get("embedding")


def _checked(text: object) -> str:
    """A vector in base64. Raises ValueError unless it holds finite numbers."""
    if not isinstance(text, str) or not float32.is_finite(_decoded(text)):
        raise ValueError("not a vector")
    return text


def _tokens(usage: object) -> int:
    """The tokens of all texts. Raises ValueError unless they are all there is in `usage`."""
    tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    if type(tokens) is not int or not isinstance(usage, dict) or usage.get("total_tokens") != tokens:
        raise ValueError("no count of tokens")
    return tokens


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error


def whole(made: Made) -> bytes:
    """The reply. Every vector's call must be whole, as `usable` leaves them."""
    as_base64 = made.embed.encoding == "base64"
    rows = ",".join(
        f'{{"object":"embedding","embedding":{_written(vector, as_base64=as_base64)},"index":{index}}}'
        for index, vector in enumerate(made.vectors)
    )
    count = embedding.tokens(made.stored)
    tail = {"model": made.embed.ask.model, "usage": {"prompt_tokens": count, "total_tokens": count}}
    return f'{{"object":"list","data":[{rows}],'.encode() + write(tail)[1:] + b"\n"


def _written(vector: Vector, *, as_base64: bool) -> str:
    """A vector in the form asked for; the numbers are the same float32s in either."""
    if vector.packed:
        return f'"{vector.text}"' if as_base64 else float32.unpack(_decoded(vector.text))
    return f'"{base64.b64encode(float32.pack(vector.text)).decode()}"' if as_base64 else vector.text
