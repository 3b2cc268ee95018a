"""Vectors as they lie in Redis: float16, half of what the program computes with.

A near look-up reads the vectors of a whole scope, so it takes as long as the memory needs to bring them. float16 keeps
11 bits of a number; what that does to a similarity is told in docs/explain/near-lookups.md.
Refuses to know entries and indexes.
"""

from __future__ import annotations

import numpy as np

_LARGEST = 65504.0
"""Of float16's numbers. A vector of unit length has none beyond 1."""


def halved(vector: bytes) -> bytes:
    """float16 of packed float32, both little endian, each number rounded to the nearest.

    Raises ValueError for bytes that are not packed float32, and for numbers float16 cannot hold, NaN among them.
    """
    values = np.frombuffer(vector, dtype="<f4")
    if not np.abs(values).max(initial=0.0) <= _LARGEST:  # so written that NaN fails
        raise ValueError("a number beyond float16")
    return values.astype("<f2").tobytes()


def widened(vector: bytes) -> bytes:
    """float32 of packed float16, both little endian: the same numbers. Raises ValueError for an odd length."""
    return np.frombuffer(vector, dtype="<f2").astype("<f4").tobytes()
