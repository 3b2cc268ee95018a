"""The reference engine: sentence-transformers, which defines the model format. Only home of it and of torch.

Reads any model that comes as safetensors and needs no code of its own. Importing it costs seconds and 500 MB, so
`load` imports this file only when the engine is chosen.
This engine refuses the network, pickled weights and code from model folders.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import sentence_transformers
import torch
import transformers

from embeddings.errors import EmbedError, EngineError, TextError
from embeddings.protocol import Vectors
from embeddings.text import prepared, short_enough
from embeddings.vector import unit_vectors
from embeddings.weights import Weights

_BATCH = 16


class SentenceEmbedder:
    """An `Embedder`. Made by `open_sentence`."""

    engine = "sentence-transformers"

    def __init__(self, weights: Weights, reference: sentence_transformers.SentenceTransformer, *, dims: int) -> None:
        self.model = weights.name
        self.dims = dims
        self.max_tokens: int = reference.max_seq_length
        self.fingerprint = weights.fingerprint
        self.threshold = weights.threshold
        self._prefix = weights.prefix
        self._reference = reference
        # encode() and the tokenizer set truncation and padding on one shared Rust object; two threads at once get
        # "Already borrowed".
        self._lock = threading.Lock()

    def embed(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder.embed`. One call at a time; others wait."""
        ready = prepared(texts, self._prefix)
        try:
            with self._lock:
                raw = self._reference.encode(
                    ready, prompt="", batch_size=_BATCH, show_progress_bar=False, convert_to_numpy=True
                )
        except Exception as error:  # models raise what they like
            raise EmbedError(f"sentence-transformers failed: {type(error).__name__}: {error}") from error
        return unit_vectors(raw, rows=len(ready), dims=self.dims)

    def count_tokens(self, text: str) -> int:
        """See `Embedder.count_tokens`."""
        return len(self._ids(text))

    def fits(self, text: str) -> bool:
        """See `Embedder.fits`."""
        if not short_enough(text, self.max_tokens):
            return False
        try:
            ids = self._ids(text)
        except TextError:
            return False
        unknown = self._reference.tokenizer.unk_token_id
        return len(ids) <= self.max_tokens and (unknown is None or unknown not in ids)

    def _ids(self, text: str) -> list[int]:
        (ready,) = prepared([text], self._prefix)
        with self._lock:
            ids: list[int] = self._reference.tokenizer(ready, truncation=False, verbose=False)["input_ids"]
        return ids


def open_sentence(weights: Weights, *, threads: int) -> SentenceEmbedder:
    """Load a model folder on the CPU. Sets torch's thread count for the whole process. Raises EngineError."""
    torch.set_num_threads(threads)
    transformers.utils.logging.disable_progress_bar()  # it would draw on the standard error of a server
    path = weights.folder.path
    try:
        reference = sentence_transformers.SentenceTransformer(
            str(path),
            device="cpu",
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True, "dtype": "float32"},
        )
        dims = reference.get_embedding_dimension()
    except Exception as error:  # models raise what they like
        raise EngineError(f"sentence-transformers cannot load {path}: {type(error).__name__}: {error}") from error
    if dims is None or not reference.max_seq_length:
        raise EngineError(f"{path} does not say how long its vectors are, or how many tokens it reads")
    return SentenceEmbedder(weights, reference, dims=dims)
