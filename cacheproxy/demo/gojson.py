"""JSON as Go's encoding/json reads and writes it, for the simulated Ollama.

Reads the first value of a body, keeps the order and the duplicates of object members, folds member names as Go does,
and words its errors as Go does. It shares nothing with the proxy's own reader on purpose: tests compare the two.
It refuses to be complete where no client goes: nesting of several hundred, where Python's recursion ends (Go: 10,000),
is answered as Go answers its own limit.
"""

from __future__ import annotations

import base64
import codecs
import json
import re
import struct
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from cacheproxy.demo.goscan import GoJsonError, complain

Struct = dict[str, Any]
Reader = Callable[[Any, Any, "Where"], Any]

_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_BASE64_TEXT = re.compile(r"(?:[A-Za-z0-9+/]{4})*+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1


class EmptyBodyError(GoJsonError):
    """There is no value at all: Go's io.EOF, which routes word in their own way."""

    def __init__(self) -> None:
        super().__init__("EOF")


class TooDeepError(GoJsonError):
    """Nested deeper than can be read."""

    def __init__(self) -> None:
        super().__init__("invalid character '[' exceeded max depth")


class Members(tuple[tuple[str, Any], ...]):
    """The members of one JSON object, in order, duplicates included."""

    __slots__ = ()


def _replace_each_byte(error: UnicodeError) -> tuple[str, int]:
    # Go makes one U+FFFD of every bad byte; Python's own "replace" makes one of a whole truncated sequence.
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\ufffd" * (error.end - error.start), error.end


codecs.register_error("go-utf8", _replace_each_byte)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _long_int(digits: str) -> int | float:
    # Python refuses to read ints of more than 4300 digits; for Go they are floats that are out of range.
    return int(digits) if len(digits) < 400 else float("-inf" if digits[0] == "-" else "inf")


_decoder = json.JSONDecoder(object_pairs_hook=Members, parse_constant=_refuse_constant)
_long_int_decoder = json.JSONDecoder(object_pairs_hook=Members, parse_constant=_refuse_constant, parse_int=_long_int)


def read(body: bytes) -> Any:
    """Return the first JSON value of `body`; objects come as `Members`, bytes after the value are not looked at.

    Raises EmptyBodyError for nothing but whitespace and GoJsonError, worded by Go, for anything Go cannot read.
    """
    text = body.decode("utf-8", "go-utf8").lstrip(" \t\r\n")
    if not text:
        raise EmptyBodyError
    try:
        value, _ = _decoder.raw_decode(text)
    except RecursionError:
        raise TooDeepError from None
    except ValueError:
        complain(body)
        value, _ = _long_int_decoder.raw_decode(text)
    return _without_surrogates(value) if _ESCAPED_SURROGATE.search(body) else value


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, Members):
        return Members((_SURROGATE.sub("\ufffd", key), _without_surrogates(member)) for key, member in value)
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    return value


# --- Typed reading: what json.Unmarshal does with a struct as the target ---


class Where:
    """The place of a value for Go's error text: innermost struct and path of member names from the outermost.

    Below a type that reads itself (UnmarshalJSON) Go names the struct around it instead: `pinned` keeps that one.
    """

    __slots__ = ("path", "pinned", "struct")

    def __init__(self, struct_name: str, path: str = "", *, pinned: bool = False) -> None:
        self.struct = struct_name
        self.path = path
        self.pinned = pinned

    def pin(self) -> Where:
        """The same place, whose struct is named for all that lies below."""
        return Where(self.struct, self.path, pinned=True)

    def inside(self, struct_name: str, member: str) -> Where:
        """The place of `member` of a struct of type `struct_name` at this place."""
        path = f"{self.path}.{member}" if self.path else member
        return Where(self.struct if self.pinned else struct_name, path, pinned=self.pinned)

    def refuse(self, value: Any, go_type: str) -> NoReturn:
        """Raise Go's error for a value of the wrong kind."""
        field = f"Go struct field {self.struct}.{self.path}" if self.path else "Go value"
        raise GoJsonError(f"json: cannot unmarshal {kind_of(value)} into {field} of type {go_type}")


def kind_of(value: Any) -> str:
    """Return Go's word for the JSON kind of `value`."""
    if isinstance(value, Members):
        return "object"
    return {bool: "bool", str: "string", list: "array"}.get(type(value), "number")


def string(value: Any, old: Any, where: Where) -> Any:
    """A Go string: null leaves what was there."""
    if value is None:
        return old
    if not isinstance(value, str):
        where.refuse(value, "string")
    return value


def boolean(value: Any, old: Any, where: Where) -> Any:
    """A Go bool: null leaves what was there."""
    if value is None:
        return old
    if not isinstance(value, bool):
        where.refuse(value, "bool")
    return value


def integer(value: Any, old: Any, where: Where) -> Any:
    """A Go int: a number with a fraction or an exponent is refused, as Go refuses it."""
    if value is None:
        return old
    if type(value) is not int:
        _refuse_number(value, "int", where)
    if not _INT_MIN <= value <= _INT_MAX:
        _refuse_number(value, "int", where)
    return value


def decimal(value: Any, old: Any, where: Where) -> Any:
    """A Go float64."""
    if value is None:
        return old
    if type(value) not in (int, float) or abs(value) > sys.float_info.max:
        _refuse_number(value, "float64", where)
    return float(value)


def _refuse_number(value: Any, go_type: str, where: Where) -> NoReturn:
    if type(value) in (int, float):
        field = f"Go struct field {where.struct}.{where.path}"
        raise GoJsonError(f"json: cannot unmarshal number {value!r} into {field} of type {go_type}")
    where.refuse(value, go_type)


def pointer(read_target: Reader) -> Reader:
    """A Go pointer: null is nil."""

    def read_pointer(value: Any, old: Any, where: Where) -> Any:
        return None if value is None else read_target(value, old, where)

    return read_pointer


def anything(value: Any, _old: Any, _where: Where) -> Any:
    """A Go `any` or raw message: kept as read, order and all."""
    return value


def mapping(value: Any, old: Any, where: Where) -> Any:
    """A Go map[string]any: read into the map that is there, so members of two objects of one name add up."""
    if value is None:
        return None
    if not isinstance(value, Members):
        where.refuse(value, "map[string]interface {}")
    _refuse_infinite(value, where)
    return {**(old or {}), **dict(value)}


def _refuse_infinite(value: Any, where: Where) -> None:
    """Go reads every number of an `any` as a float64 and refuses those beyond its range."""
    if isinstance(value, Members):
        for _, item in value:
            _refuse_infinite(item, where)
    elif isinstance(value, list):
        for item in value:
            _refuse_infinite(item, where)
    elif type(value) in (int, float) and abs(value) > sys.float_info.max:
        _refuse_number(value, "float64", where)


def sequence(read_item: Reader, go_type: str, zero: Any = None) -> Reader:
    """A Go slice; null is nil. Items are read over those of an earlier slice under the same name."""

    def read_sequence(value: Any, old: Any, where: Where) -> Any:
        if value is None:
            return None
        if not isinstance(value, list):
            where.refuse(value, go_type)
        known = old or ()
        return [
            read_item(item, known[index] if index < len(known) else zero, where) for index, item in enumerate(value)
        ]

    return read_sequence


def structure(name: str, members: Mapping[str, tuple[Reader, Any]]) -> Reader:
    """A Go struct: member names match as they are or folded; unknown ones are ignored; the last one wins."""

    def read_structure(value: Any, old: Any, where: Where) -> Any:
        result = dict(old) if old else {member: zero for member, (_, zero) in members.items()}
        if value is None:
            return result
        if not isinstance(value, Members):
            where.refuse(value, name)
        for key, item in value:
            member = key if key in members else fold(key)
            if member in members:
                short_name = name.rpartition(".")[2]
                result[member] = members[member][0](item, result[member], where.inside(short_name, member))
        return result

    return read_structure


_FOLD = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ\u017f\u212a", "abcdefghijklmnopqrstuvwxyzsk")


def fold(key: str) -> str:
    """Fold a member name as Go does to compare it with lower-case ASCII names: long s and Kelvin sign too."""
    return key.translate(_FOLD)


def base64_bytes(value: Any, old: Any, where: Where) -> Any:
    """A Go []byte: base64, or a list of small numbers."""
    if value is None:
        return old
    if isinstance(value, list) and all(type(item) is int and 0 <= item < 256 for item in value):
        return bytes(value)
    if not isinstance(value, str):
        where.refuse(value, "api.ImageData")
    return base64_decoded(value)


def base64_decoded(text: str) -> bytes:
    """Decode as Go's base64.StdEncoding: padding is needed and no more of it taken; CR and LF are skipped."""
    plain = text.replace("\r", "").replace("\n", "")
    if _BASE64_TEXT.fullmatch(plain) is None:
        offset = _bad_base64_at(text.encode("utf-8", "replace"))
        raise GoJsonError(f"illegal base64 data at input byte {offset}")
    return base64.b64decode(plain)


def _bad_base64_at(text: bytes) -> int:
    """Return the offset that Go's base64.StdEncoding reports for text it cannot decode."""
    quantum = 0
    for at, byte in enumerate(text):
        if byte in b"\r\n":
            continue
        if byte == ord("=") and quantum >= 2:
            left = text[at + 1 :].lstrip(b"\r\n")
            if quantum == 2 and left[:1] != b"=":
                return at if left else len(text)
            left = left[1:].lstrip(b"\r\n") if quantum == 2 else left
            return len(text) - len(left)
        if byte not in _BASE64:
            return at
        quantum = (quantum + 1) % 4
    return len(text) - quantum


# --- Writing ---

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def write(value: Any) -> bytes:
    """Return `value` as json.Marshal writes it: `<`, `>`, `&`, U+2028 and U+2029 escaped, all else raw UTF-8.

    Floats must be finite; use `float32_text` and `float64_text` where the notation of small or large ones matters.
    """
    text = _encode(value)
    if "<" in text or ">" in text or "&" in text or "\u2028" in text or "\u2029" in text:
        text = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
        text = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return text.encode("utf-8", "replace")


def float64_text(value: float) -> str:
    """Return a finite float as Go writes a float64: plain from 1e-6 up to 1e21, else with a trimmed exponent."""
    return _go_notation(repr(value), value, 1e-6)


def float32_text(value: float) -> str:
    """Return a float32's shortest text that reads back as the same float32, in Go's notation."""
    single = to_float32(value)
    for precision in range(6, 10):
        text = f"{single:.{precision}g}"
        if to_float32(float(text)) == single:
            break
    return _go_notation(text, single, to_float32(1e-6))


def to_float32(value: float) -> float:
    """Round to the nearest float32; out of range becomes infinite."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _go_notation(text: str, value: float, plain_from: float) -> str:
    digits, _, exponent = text.partition("e")
    if plain_from <= abs(value) < 1e21 or value == 0:
        if exponent:
            whole, _, fraction = digits.lstrip("-").partition(".")
            places = int(exponent)
            sign = "-" if value < 0 else ""
            if places < 0:
                return f"{sign}0.{'0' * (-places - 1)}{whole}{fraction.rstrip('0')}"
            return f"{sign}{whole}{fraction.ljust(places, '0')}"
        return text.removesuffix(".0")
    if not exponent:
        text = f"{value:e}"
        digits, _, exponent = text.partition("e")
        digits = digits.rstrip("0").rstrip(".")
    sign = "-" if int(exponent) < 0 else "+"
    size = abs(int(exponent))
    return f"{digits.removesuffix('.0')}e{sign}{size if sign == '-' else f'{size:02d}'}"
