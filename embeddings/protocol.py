"""What every engine offers. Callers depend on this and on `load`, never on an engine.

This module refuses to know any engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Vectors: TypeAlias = npt.NDArray[np.float32]
"""float32 [n, dims], C order, each row of unit length: the dot product of two rows is their cosine similarity."""


class Embedder(Protocol):
    """Turns texts into unit vectors. Safe to call from several threads; all methods block."""

    @property
    def model(self) -> str:
        """Name of the model, for people."""

    @property
    def engine(self) -> str:
        """`"onnx"`, `"sentence-transformers"` or `"ollama"`."""

    @property
    def dims(self) -> int:
        """Length of a vector."""

    @property
    def max_tokens(self) -> int:
        """Tokens the model reads of one text, special tokens and prefix included; `embed` ignores the rest."""

    @property
    def fingerprint(self) -> str:
        """Name of the vector space, for index names: `[A-Za-z0-9._-]+`, at most 128 characters.

        Holds the model's name, a hash over all that shapes a vector (weights, tokenizer, prefix), pooling and
        normalisation. Vectors of equal fingerprints may be compared, others never.
        """

    @property
    def threshold(self) -> float | None:
        """Calibrated similarity, 0..1, above which two questions are taken as one; None: nobody calibrated it."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One row per text, in order; `[]` gives shape [0, dims]. Raises TextError or EmbedError, nothing else."""

    def count_tokens(self, text: str) -> int:
        """Tokens of the whole text as the model counts them, prefix and special tokens included.

        The Ollama engine has no tokenizer and gives an upper bound. Raises TextError.
        """

    def fits(self, text: str) -> bool:
        """Whether the vector stands for all of the text: nothing is cut off and no part is unknown to the model.

        Where this is False, texts that differ may have equal vectors, so they must not be compared by them. Never
        raises, and its cost is bounded: a text of more than 32 characters a token is refused unread.
        """
