"""Vectors of float32 between their two forms on the wire: JSON numbers as Go writes them, and packed bytes.

Ollama's vectors are float32. Written as decimals they read back as the same float32, and packed they are those bits,
so either form can be made from the other. Refuses to know requests and replies.
"""

from __future__ import annotations

import re
import struct
from decimal import Decimal

import numpy as np
import orjson

_NUMBERS = re.compile(r"\[[-+.0-9eE, \t\r\n]*\]")
_MINUS_ZERO = re.compile(r"-0(?=[,\]])(?<=[\[,]-0)")
_WHOLE = re.compile(rb"\.0(?=[,\]])")
"""The whole numbers of a text."""
_LARGE = re.compile(rb"-?\d(?:\.\d+)?e\+(?:1?\d|20)(?!\d)")


def pack(text: str) -> bytes:
    """Little-endian float32 of a JSON list of numbers. Raises ValueError for any other text."""
    if not _NUMBERS.fullmatch(text):
        raise ValueError("not a list of numbers")
    values = orjson.loads(_MINUS_ZERO.sub("-0.0", text))  # -0 would be read as a whole number, which has no sign
    try:
        return struct.pack(f"<{len(values)}f", *values)
    except OverflowError as error:
        raise ValueError("a number beyond float32") from error


def is_finite(packed: bytes) -> bool:
    """Whether the bytes are float32s, at least one, and all of them finite."""
    return bool(packed) and not len(packed) % 4 and bool(np.isfinite(np.frombuffer(packed, dtype="<f4")).all())


def norm_squared(packed: bytes) -> float:
    """The squared length of the vector of packed float32s; NaN if one of them is."""
    values = np.frombuffer(packed, dtype="<f4")
    return float(np.dot(values, values))


def unpack(packed: bytes) -> str:
    """JSON list of the packed numbers, each as short as it can be and in Go's spelling.

    Raises ValueError for bytes that are no finite float32s, or none at all.
    """
    if not is_finite(packed):
        raise ValueError("not packed float32s, or not finite ones")
    values = np.frombuffer(packed, dtype="<f4").astype(np.float32)
    text = _WHOLE.sub(b"", orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY))  # Go writes 1 for 1.0
    if b"e+" in text:
        text = _LARGE.sub(lambda found: format(Decimal(found[0].decode()), "f").encode(), text)
    return text.decode()
