"""A name becomes an embedder: finds the weights, chooses the engine, proves it before use.

`auto` means: the fast engine where it is proven equal to sentence-transformers, sentence-transformers otherwise.
Proven is: the files have the digests that the parity test ran on, and on this machine the engine gives the reference's
own figures for a known text.
This module refuses to import an engine before it is chosen: torch alone costs seconds and 500 MB.
"""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from embeddings.catalog import GOLDEN_TEXT, KnownModel
from embeddings.errors import EngineError, WeightsError
from embeddings.ollama import open_ollama
from embeddings.protocol import Embedder
from embeddings.weights import Wanted, Weights, find_weights

Engine: TypeAlias = Literal["auto", "onnx", "sentence-transformers", "ollama"]

GOLDEN_TOLERANCE = 1e-5  # largest difference of one component; engines differ by 1e-7, a wrong kernel by far more

_log = logging.getLogger(__name__)


def load(
    model: str | Path = "all-MiniLM-L6-v2",
    *,
    engine: Engine = "auto",
    path: str | Path | None = None,
    threads: int = 1,
    offline: bool = False,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    ollama_url: str = "http://127.0.0.1:11434",
    ollama_timeout_s: float = 10.0,
) -> Embedder:
    """The embedder of a model. Blocks: 0.3 s for all-MiniLM-L6-v2, seconds for other models, minutes to download one.

    `model` is a name of the catalogue, a Hub name (`org/name`), a folder (a Path, or a string that starts with `/`,
    `./`, `../` or `~`), or with `engine="ollama"` a name Ollama knows. `path` is the folder to read the model from and
    the only place looked at; a catalogue name beside it still means that the files must be the published ones.
    `offline` forbids the download; `HF_HUB_OFFLINE=1` does so too. `revision` and `cache_dir` are the Hub's.
    `threads` bounds the cores of one `embed`; with sentence-transformers it holds for all torch in the process.

    Raises ModelNotFoundError, WeightsError, EngineError.
    """
    if engine not in ("auto", "onnx", "sentence-transformers", "ollama"):
        raise EngineError(f"no engine {engine!r}; there are auto, onnx, sentence-transformers and ollama")
    if threads < 1:
        raise EngineError(f"threads = {threads}; an embedder needs at least 1")
    if engine == "ollama":
        return open_ollama(str(model), url=ollama_url, timeout_s=ollama_timeout_s)
    weights = find_weights(_wanted(model, path, revision, cache_dir, offline=offline))
    embedder = _open(weights, engine, threads)
    if weights.known is not None and embedder.dims != weights.known.dims:
        raise WeightsError(f"{weights.folder.path} gives {embedder.dims} dimensions; {weights.name} has another number")
    return embedder


def _wanted(
    model: str | Path, path: str | Path | None, revision: str | None, cache_dir: str | Path | None, *, offline: bool
) -> Wanted:
    folder = Path(path) if path else None
    if isinstance(model, Path) or model.startswith(("/", "./", "../", "~")):
        folder = folder or Path(model)
        model = folder.expanduser().resolve().name
    cache = Path(cache_dir) if cache_dir else None
    return Wanted(model, path=folder, revision=revision, cache_dir=cache, offline=offline)


def _open(weights: Weights, engine: Engine, threads: int) -> Embedder:
    if engine == "onnx":
        return _open_onnx(weights, threads)
    if engine == "auto" and weights.pinned and weights.known is not None and weights.known.proven:
        try:
            return _open_onnx(weights, threads)
        except EngineError as error:
            _log.warning("the fast engine cannot serve %s, the reference engine will: %s", weights.name, error)
    return _open_sentence(weights, threads)


def _open_onnx(weights: Weights, threads: int) -> Embedder:
    _need("onnxruntime", "tokenizers", "safetensors")
    from embeddings.onnx import open_onnx

    embedder = open_onnx(weights, threads=threads)
    if weights.pinned and weights.known is not None:
        _prove(embedder, weights.known)
    return embedder


def _open_sentence(weights: Weights, threads: int) -> Embedder:
    _need("sentence_transformers")
    from embeddings.sentence import open_sentence

    return open_sentence(weights, threads=threads)


def _need(*libraries: str) -> None:
    """Raise EngineError for a library that is not installed; an error inside an installed one stays its own."""
    for library in libraries:
        if importlib.util.find_spec(library) is None:
            raise EngineError(f"this engine needs {library}, which is not installed. Remedy: pip install {library}")


def _prove(embedder: Embedder, known: KnownModel) -> None:
    """Hold the engine to the reference's figures on this processor; also its warm-up."""
    found = embedder.embed([GOLDEN_TEXT])[0, : len(known.golden)]
    difference = float(np.abs(found - np.array(known.golden, dtype=np.float32)).max(initial=0.0))
    if difference > GOLDEN_TOLERANCE:
        raise EngineError(
            f"the {embedder.engine} engine is off by {difference:.1e} on a known text of {known.name} on this machine"
        )
