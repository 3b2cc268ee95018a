"""The canonical form of what shapes an answer, and the keys made from it.

Two requests that Ollama would act on alike get equal bytes; requests that could differ in their answer never do. Where
that is not known (an absent option against its default: a Modelfile may set another), they stay different: a hit
less, never a wrong one. Member order is sorted except where Ollama keeps it (tools, format, tool arguments).
The only home of `xxhash`. Refuses to know routes and Redis.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import xxhash

from cacheproxy.errors import UnkeyableError
from cacheproxy.wire.jsontext import check_names, write

KEY_VERSION = 1
"""Part of every key; raise it when the canonical form changes, and old entries are simply not found any more."""

FLOAT_OPTIONS = frozenset(
    {"temperature", "top_p", "min_p", "typical_p", "repeat_penalty", "presence_penalty", "frequency_penalty"}
)
INTEGER_OPTIONS = frozenset(
    {"num_keep", "seed", "num_predict", "top_k", "repeat_last_n", "num_ctx", "num_batch", "num_gpu", "main_gpu"}
    | {"num_thread", "draft_num_predict"}
)
MESSAGE_LISTS = frozenset({"images", "tool_calls"})
MESSAGE_MEMBERS = MESSAGE_LISTS | {"role", "content", "thinking", "tool_name", "tool_call_id"}


def canonical_bytes(members: Mapping[str, Any]) -> bytes:
    """Compact JSON of already canonical members, sorted at the top. Raises UnkeyableError."""
    return write(dict(sorted(members.items())))


def options(given: object) -> dict[str, Any]:
    """Options as Ollama reads them: nulls dropped, floats as float32, whole numbers truncated, sorted.

    Unknown options stay (a later Ollama may know them). Raises UnkeyableError (`options`) for another type.
    """
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise UnkeyableError("options")
    return {name: _option(name, value) for name, value in sorted(given.items()) if value is not None}


def _option(name: str, value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    if name in FLOAT_OPTIONS:
        return _float32(value)
    if name in INTEGER_OPTIONS:
        return int(value)
    return value


def _float32(value: float) -> float:
    """Ollama keeps float options as float32, so 0.7 and 0.70000001 are one temperature. -0 becomes 0."""
    try:
        rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    except (OverflowError, struct.error):  # beyond a float32; a whole number may be beyond a float64 as well
        return value
    return rounded or 0.0


def messages(given: object) -> list[dict[str, Any]]:
    """Chat history with roles in lower case, images as digests, and empty members dropped.

    Raises UnkeyableError: `messages` (not a list of objects, or content that is not text: Ollama refuses it),
    `ambiguous-keys`, `images`.
    """
    if not isinstance(given, list):
        raise UnkeyableError("messages")
    return [_message(item) for item in given]


def _message(given: object) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise UnkeyableError("messages")
    check_names(given, MESSAGE_MEMBERS)
    message = {name: value for name, value in sorted(given.items()) if value is not None}
    for name in MESSAGE_MEMBERS & message.keys():  # checked before empty ones go: "" is no list, and [] no text
        if not isinstance(message[name], list if name in MESSAGE_LISTS else str):
            raise UnkeyableError("messages")
        if not message[name]:
            del message[name]
    if "role" in message:
        message["role"] = message["role"].lower()
    if "images" in message:
        message["images"] = images(message["images"])
    return message


def images(given: object) -> list[str]:
    """Digest of each image's decoded bytes, so that line breaks in the base64 do not matter.

    Raises UnkeyableError (`images`) for what Ollama would refuse or this program cannot decode as it does.
    """
    if not isinstance(given, list):
        raise UnkeyableError("images")
    return [_image(item) for item in given]


def _image(given: object) -> str:
    if not isinstance(given, str):
        raise UnkeyableError("images")
    text = given.replace("\r", "").replace("\n", "")
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise UnkeyableError("images") from None
    if len(text) != (len(decoded) + 2) // 3 * 4:  # Python overlooks padding too much, Ollama does not
        raise UnkeyableError("images")
    return hashlib.blake2b(decoded, digest_size=32).hexdigest()


def key_material(
    canonical: bytes, *, family: str, digest: str, model_name: str, server_version: str, partition: str
) -> bytes:
    """Everything an answer depends on, as bytes no two different asks share.

    `server_version` is Ollama's: defaults change between versions while a model's digest does not. `model_name` is
    empty except where Ollama acts on the name itself. A JSON array as head keeps a value from running into the next.
    """
    head = orjson.dumps([KEY_VERSION, family, digest, model_name, server_version, partition])
    return head + b"\n" + canonical


def exact_key(prefix: str, material: bytes, *, digest: str, temperature: float | None) -> str:
    """Redis key of the entry: prefix, hash of all, and in plain sight the model's digest and the temperature."""
    shown = "default" if temperature is None else f"{temperature:g}"
    return f"{prefix}:answer:{xxhash.xxh3_128_hexdigest(material)}:{digest[:12]}:{shown}"


def check_digest(material: bytes, secret: bytes) -> bytes:
    """Keyed BLAKE2b-256 of the same bytes: 32 bytes that prove an entry belongs to an ask.

    xxh3 can be made to collide on purpose, with seeds too (Cyan4973/xxHash #1127); this cannot without `secret`.
    """
    return hashlib.blake2b(material, key=secret, digest_size=32).digest()


def scope_hash(material: bytes, secret: bytes) -> str:
    """32 hex digits naming a setting: safe as a tag in a search query, and nothing can be read from it."""
    return hashlib.blake2b(material, key=secret, digest_size=16).hexdigest()


def partition_hash(values: Sequence[tuple[str, str]], secret: bytes) -> str:
    """32 hex digits for the (header, value) pairs that keep callers apart; empty for none.

    Keyed, so that a credential cannot be found by trying.
    """
    if not values:
        return ""
    unambiguous = repr(list(values)).encode()  # repr escapes what is not UTF-8 in a header
    return hashlib.blake2b(unambiguous, key=secret, digest_size=16).hexdigest()
