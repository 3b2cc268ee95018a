"""The last check before vectors leave the package: shape, finiteness, unit length.

This module refuses to repair: a vector that is not a finite direction is an error, never a zero vector.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embeddings.errors import EmbedError
from embeddings.protocol import Vectors

NORM_MIN = 1e-6  # float32 directions shorter than this are rounding noise; real models stay above 0.1


def unit_vectors(raw: npt.ArrayLike, *, rows: int, dims: int) -> Vectors:
    """`raw` as float32 [rows, dims] with rows of unit length. Raises EmbedError."""
    try:
        vectors = np.ascontiguousarray(raw, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise EmbedError(f"the engine's answer is not a matrix of numbers: {error}") from error
    if rows == 0 and vectors.size == 0:
        return np.zeros((0, dims), dtype=np.float32)
    if vectors.shape != (rows, dims):
        raise EmbedError(f"the engine gave vectors of shape {list(vectors.shape)}, not {[rows, dims]}")
    if not np.isfinite(vectors).all():
        raise EmbedError("the engine gave a vector that holds NaN or infinity")
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or float(norms.min()) < NORM_MIN:
        raise EmbedError("the engine gave a vector without direction (length zero, or beyond float32)")
    unit: Vectors = vectors / norms
    return unit
