"""JSON read so that Ollama could not read it differently, and written as Ollama writes it.

Ollama decodes requests with Go's `encoding/json`: keys match without regard to case (Unicode folding), the last of
two equal keys wins, invalid UTF-8 and lone surrogates become U+FFFD, and only the first value of a body counts. A
request whose key was computed from one reading and that was executed by another would poison the cache, so `read`
refuses every text on which the two could disagree; such a request is forwarded as it came and never cached.

Refuses to repair anything. Work is bounded before parsing: 3 MB of `[]` costs a plain parser 0.25 to 0.9 s.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Self

import orjson

from cacheproxy.errors import UnkeyableError

DEPTH_MAX = 100
"""Levels of nesting; Ollama's own requests stay below 20, orjson writes up to 254."""
CONTAINERS_MAX = 20_000
"""Objects and arrays in one request; 0.9 us each. With the two below, no request holds the event loop for 50 ms."""
MEMBERS_MAX = 40_000
"""Colons in one request: members of objects, 0.8 us each."""
VALUES_MAX = 200_000
"""Commas in one request: room for a `context` of 131,072 tokens and a long prompt beside it; 0.1 us each."""
STRINGS_MAX = 100_000
"""Strings in one request that has many of any of these."""

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
"""A string, or what is left of a text that ends inside one: each byte is looked at once, whatever a client sends."""
_WHITESPACE = " \t\r\n"


class Number(float):
    """A number that remembers how it was written, so that it is written the same way again.

    Go and Python choose exponents at different sizes (`0.00001` against `1e-05`).
    """

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> Self:
        """Parse `text`, a JSON number."""
        number = super().__new__(cls, text)
        number.text = text
        return number


def read(data: bytes) -> dict[str, Any]:
    """Parse one request body: a JSON object that Go and Python read alike.

    Raises UnkeyableError whose `reason` is one of: `invalid-utf8`, `too-deep`, `too-many-values`, `not-json`,
    `not-an-object`, `trailing-data`, `duplicate-keys`, `number-range`.
    """
    _check_bounds(data)
    return _object(data)


def read_each(texts: Sequence[bytes]) -> list[dict[str, Any]]:
    """Parse texts that stand in strings of one request, as `read` does and raising as it does.

    What bounds a request bounds all of them together: a text is told from the next by having been parsed.
    """
    _check_bounds(b",".join(texts))
    return [_object(text) for text in texts]


def _object(data: bytes) -> dict[str, Any]:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise UnkeyableError("invalid-utf8") from None
    start = len(text) - len(text.lstrip(_WHITESPACE))
    try:
        value, end = _REQUESTS.raw_decode(text, start)
    except RecursionError:
        raise UnkeyableError("too-deep") from None
    except ValueError:
        raise UnkeyableError("not-json") from None
    if text[end:].strip(_WHITESPACE):
        raise UnkeyableError("trailing-data")
    if not isinstance(value, dict):
        raise UnkeyableError("not-an-object")
    return value


def read_answer(line: bytes) -> dict[str, Any]:
    """Parse one object that Ollama sent, keeping order and, where floats can occur, their spelling.

    Raises ValueError for anything that is not one JSON object.
    """
    if b'"logprobs"' in line or b'"tool_calls"' in line:
        return read_spelled(line)
    value = orjson.loads(line)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def read_spelled(text: bytes) -> dict[str, Any]:
    """Parse one object, keeping order and the spelling of numbers. Raises ValueError as `read_answer` does."""
    try:
        value = _ANSWERS.decode(text.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    if b"\\ud" in text.lower():  # the other parser refuses half a surrogate pair by itself
        _refuse_surrogates(value)
    return value


def _refuse_surrogates(value: object) -> None:
    try:
        write(value)
    except UnkeyableError as error:
        raise ValueError(error.reason) from None


def write(value: Any) -> bytes:
    """Compact JSON as `write_go` has it, and U+0085 escaped as well.

    ollama-python splits lines on it and fails (httpx `iter_lines`); any JSON reader takes the escape for the character.
    Raises UnkeyableError as `write_go` does.
    """
    raw = write_go(value)
    return raw if raw.isascii() else raw.replace(_NEXT_LINE, b"\\u0085")


def write_go(value: Any) -> bytes:
    """Compact JSON in the order of its members, in UTF-8, to the byte as Go writes it.

    Go escapes `<`, `>`, `&`, U+2028 and U+2029.
    Raises UnkeyableError (`number-range`, or `lone-surrogate`) for values that have no such form.
    """
    raw = write_plain(value)
    for character, escape in _ASCII_ESCAPES if raw.isascii() else _ESCAPES:
        if character in raw:  # these bytes occur in strings only, and only as these characters
            raw = raw.replace(character, escape)
    return raw


def write_plain(value: Any) -> bytes:
    """Compact JSON with the escapes that JSON needs and no others: to be weighed. Raises as `write_go` does."""
    try:
        # Copied, for orjson's own bytes keep the room that they were written in: with 3.13 and 20,000 objects of 2.6 kB
        # three times as much resident memory, twelve times as much by tracemalloc.
        return memoryview(orjson.dumps(value, default=_spelled)).tobytes()
    except TypeError as error:
        raise UnkeyableError("lone-surrogate" if "surrogate" in str(error) else "number-range") from None


_ASCII_ESCAPES = ((b"<", b"\\u003c"), (b">", b"\\u003e"), (b"&", b"\\u0026"))
_ESCAPES = (
    *_ASCII_ESCAPES,
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
)
_NEXT_LINE = "\x85".encode()


def _spelled(value: object) -> orjson.Fragment:
    if isinstance(value, Number):
        return orjson.Fragment(value.text)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _check_bounds(data: bytes) -> None:
    """Refuse what would stall the event loop. Counting bytes costs about 0.1 ms a MiB."""
    if data.count(b"[") + data.count(b"{") <= DEPTH_MAX and _few_values(data):
        return
    # Brackets and commas inside strings are only text (code, tables, JSON in a prompt).
    bare, strings = _STRING.subn(b'""', data, count=STRINGS_MAX)
    if strings == STRINGS_MAX or not _few_values(bare):
        raise UnkeyableError("too-many-values")
    if max(bare.count(b"[") + bare.count(b"{"), bare.count(b"]") + bare.count(b"}")) > CONTAINERS_MAX:
        raise UnkeyableError("too-many-values")
    if _depth(bare) > DEPTH_MAX:
        raise UnkeyableError("too-deep")


def _few_values(data: bytes) -> bool:
    return data.count(b",") <= VALUES_MAX and data.count(b":") <= MEMBERS_MAX


def _depth(bare: bytes) -> int:
    depth = deepest = 0
    for bracket in _BRACKETS.findall(bare):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


_BRACKETS = re.compile(rb"[\[\]{}]")


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise UnkeyableError("duplicate-keys")
    return members


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise UnkeyableError("number-range")
    return number


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


_REQUESTS = json.JSONDecoder(
    object_pairs_hook=_unique_members, parse_float=_finite, parse_constant=_no_constant, strict=True
)


def _whole(text: str) -> int | Number:
    return int(text) if len(text) < 19 else Number(text)  # orjson writes whole numbers of 64 bits at most


_ANSWERS = json.JSONDecoder(parse_float=Number, parse_int=_whole, parse_constant=_no_constant)


def fold(name: str) -> str:
    """The form in which Go's decoder compares member names (the long s is an s, the Kelvin sign a k)."""
    return name.casefold()


def check_names(members: Mapping[str, Any], known: frozenset[str]) -> None:
    """Raise UnkeyableError (`ambiguous-keys`) if a name is not a known one but Go would take it for one."""
    for name in members:
        if name not in known and fold(name) in known:
            raise UnkeyableError("ambiguous-keys")
