"""An entry as the fields of one Redis hash, and back.

The fields carry a version; one this program does not know is a corrupt entry, which its reader treats as a miss. The
answer is JSON (no pickle: whoever can write to Redis must not run code here) with tool arguments in their order and
numbers as Ollama spelt them. Refuses to talk to Redis.

A vector lies in a field named after the space it belongs to: vectors of two embedders are never in one field, so an
index over one of them cannot meet the other's, not even where both have the same number of dimensions. The field holds
float16 and says so in its name; an `Entry` has float32. Earlier versions' field, `vector_<space>`, is not read.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import orjson

from cacheproxy.errors import EntryCorruptError
from cacheproxy.model import ALL_THERE, Answer, Entry, Part
from cacheproxy.store.half import halved, widened
from cacheproxy.wire.jsontext import read_answer, write

_Item = TypeVar("_Item")
_VECTOR = "vector16_"

VERSION = b"1"
FIELDS = ("v", "answer", "check", "partition", "scope", "model", "made", "expires", "question")
"""What a reader asks for: all but the vector, of which only the search index has any use."""
NEAR_ANSWER_BYTES_MAX = 256 * 1024
"""A longer answer takes no part in near look-ups, whose reply carries the answers of all neighbours."""


def space_of(fingerprint: str, dims: int) -> str:
    """Name of an embedder's vector space: 16 hex digits of its fingerprint's hash, and its dims."""
    return f"{hashlib.blake2b(fingerprint.encode(), digest_size=8).hexdigest()}_{dims}"


def vector_field(space: str) -> str:
    """The field that holds vectors of a space."""
    return _VECTOR + space


def vector_bytes(space: str) -> int:
    """Length of a vector of a space in an `Entry`, in Redis half of it; 0 for what is no space's name."""
    dims = space.rpartition("_")[2]
    return 4 * int(dims) if dims.isdecimal() else 0


def encode(entry: Entry) -> dict[str, bytes]:
    """The hash's fields. The answer's text is in `answer` only, which no index covers.

    Raises EntryCorruptError for a vector whose length is not its space's, or with a number beyond float16: Redis would
    store it and never find it.
    """
    fields = {
        "v": VERSION,
        "answer": _encode_answer(entry.answer),
        "check": entry.check,
        "partition": entry.partition.encode(),
        "scope": entry.scope.encode(),
        "model": entry.digest.encode(),
        "made": f"{entry.made:.3f}".encode(),
        "expires": f"{entry.expires:.3f}".encode(),
        "question": entry.question.encode(),
    }
    if entry.vector and len(entry.vector) != vector_bytes(entry.space):
        raise EntryCorruptError(f"{entry.key}: a vector of {len(entry.vector)} bytes in space {entry.space!r}")
    if entry.vector and len(fields["answer"]) <= NEAR_ANSWER_BYTES_MAX:
        fields[vector_field(entry.space)] = _halved(entry)
    return fields


def decode(key: str, fields: Mapping[str, bytes | None]) -> Entry:
    """The entry stored under `key`. Raises EntryCorruptError for anything that `encode` did not write."""
    entry = decode_values(key, [fields.get(name) for name in FIELDS])
    name = next((name for name in fields if name.startswith(_VECTOR)), "")
    if not name:
        return entry
    space, half = name.removeprefix(_VECTOR), fields[name] or b""
    if 2 * len(half) != vector_bytes(space):
        raise EntryCorruptError(f"{key}: a stored vector of {len(half)} bytes in space {space!r}")
    return replace(entry, vector=widened(half), space=space)


def decode_values(key: str, values: Sequence[bytes | None]) -> Entry:
    """The same from the values of `FIELDS`, in that order; without the vector.

    Written out, because every look-up comes through here (five times for one by nearness).
    """
    version, answer, check, partition, scope, model, made, expires, question = values
    if version != VERSION:
        raise EntryCorruptError(f"{key}: entry of version {version!r}, this program reads {VERSION!r}")
    if answer is None or partition is None or scope is None or model is None or question is None:
        raise EntryCorruptError(f"{key}: a field is missing in a stored entry")
    try:
        return Entry(
            key=key,
            check=check or b"",
            partition=partition.decode(),
            scope=scope.decode(),
            digest=model.decode(),
            answer=_decode_answer(answer),
            made=_time(made),
            expires=_time(expires),
            question=question.decode(),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise EntryCorruptError(f"{key}: {type(error).__name__} in a stored entry") from None


def size_bytes(fields: Mapping[str, bytes]) -> int:
    """Bytes of the values, as the memory tier and the metrics count them."""
    return sum(len(value) for value in fields.values())


def _halved(entry: Entry) -> bytes:
    try:
        return halved(entry.vector)
    except ValueError as error:
        raise EntryCorruptError(f"{entry.key}: {error} in a vector") from None


def _encode_answer(answer: Answer) -> bytes:
    missing = {"missing": sorted(answer.missing)} if answer.missing else {}
    return write(
        missing
        | {
            "text": answer.text,
            "thinking": answer.thinking,
            "context": answer.context,
            "done_reason": answer.done_reason,
            "final": answer.final,
            # Last, and by the names that make `read_answer` keep the spelling of floats.
            "tool_calls": answer.tool_calls or None,
            "logprobs": answer.logprobs or None,
        }
    )


def _decode_answer(data: bytes) -> Answer:
    # A plain parser would do without tool calls and logprobs, but both names are always there; null means plain.
    plain = data.endswith(b'"tool_calls":null,"logprobs":null}')
    members = orjson.loads(data) if plain else read_answer(data)
    context, missing, final = members["context"], members.get("missing"), members["final"]
    if not isinstance(final, dict):
        raise TypeError("not members of a reply")
    return Answer(
        text=_string(members["text"]),
        thinking=_string(members["thinking"]),
        tool_calls=() if plain else _all(dict, members["tool_calls"] or []),
        logprobs=() if plain else _all(dict, members["logprobs"] or []),
        context=None if context is None else _all(int, context),
        done_reason=_string(members["done_reason"]),
        final=final,
        missing=frozenset(Part(name) for name in missing) if missing else ALL_THERE,
    )


def _time(value: bytes | None) -> float:
    if value is None:
        raise ValueError("a field is missing")
    seconds = float(value)
    if not math.isfinite(seconds):  # an entry that expires at NaN never does
        raise ValueError("not a time")
    return seconds


def _all(kind: type[_Item], values: object) -> tuple[_Item, ...]:
    if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
        raise TypeError("not a list of what it should be")
    return tuple(values)


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a string")
    return value
