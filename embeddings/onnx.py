"""The serving engine: onnxruntime and tokenizers on a model folder, without torch. Only home of both libraries.

A graph without weights lies in `graphs/` for each architecture served; onnxruntime is fed the tensors of the folder's
own `model.safetensors` when the session is made. So there is one copy of the weights to verify, and no export.
The graph ends with mean pooling and unit length. `embeddings/graphs/build.py` makes the graphs.

This engine refuses every folder that its graph would not compute exactly as sentence-transformers does.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import tokenizers

# Read when onnxruntime is imported. Without it the official builds make a device id and a database in the user's cache
# directory and report to Microsoft (its Privacy.md, 1.31): this program talks to nobody it was not pointed at.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

from embeddings.errors import EmbedError, EngineError, TextError
from embeddings.folder import ModelFolder
from embeddings.protocol import Vectors
from embeddings.text import prepared, runs, short_enough
from embeddings.vector import unit_vectors
from embeddings.weights import Weights

_GRAPHS = Path(__file__).with_name("graphs")


@dataclass(frozen=True, slots=True)
class BertShape:
    """The numbers of a `config.json` that a graph is built for."""

    layers: int
    heads: int
    hidden: int
    inner: int
    words: int
    positions: int
    types: int
    epsilon: float


# Architecture -> graph and its sha256: a graph that is not the tested one gives vectors nobody has checked.
_GRAPH_OF: Mapping[BertShape, tuple[str, str]] = {
    BertShape(6, 12, 384, 1536, 30522, 512, 2, 1e-12): (
        "bert-6x384.onnx",
        "1cdee6e2eb11d6bbffc7d7e75351f2a2bdaf849f948a497c1b529ca825f2398f",
    ),
}


class OnnxEmbedder:
    """An `Embedder`. Made by `open_onnx`; holds about 130 MB for all-MiniLM-L6-v2."""

    engine = "onnx"

    def __init__(
        self,
        weights: Weights,
        session: onnxruntime.InferenceSession,
        tokenizer: tokenizers.Tokenizer,
        *,
        dims: int,
        max_tokens: int,
        tensors: list[onnxruntime.OrtValue],
    ) -> None:
        self.model = weights.name
        self.dims = dims
        self.max_tokens = max_tokens
        self.fingerprint = weights.fingerprint
        self.threshold = weights.threshold
        self._prefix = weights.prefix
        self._session = session
        self._tokenizer = tokenizer
        self._unknown = tokenizer.token_to_id("[UNK]")
        self._tensors = tensors  # the session reads this memory for as long as it lives

    def embed(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder.embed`. Runs in the calling thread; onnxruntime releases the interpreter lock."""
        tokens = [self._cut(self._ids(text)) for text in prepared(texts, self._prefix)]
        vectors = np.zeros((len(tokens), self.dims), dtype=np.float32)
        for run in runs([len(ids) for ids in tokens]):
            vectors[run] = self._run([tokens[index] for index in run])
        return vectors

    def count_tokens(self, text: str) -> int:
        """See `Embedder.count_tokens`."""
        return len(self._ids(prepared([text], self._prefix)[0]))

    def fits(self, text: str) -> bool:
        """See `Embedder.fits`."""
        if not short_enough(text, self.max_tokens):
            return False
        try:
            ids = self._ids(prepared([text], self._prefix)[0])
        except TextError:
            return False
        return len(ids) <= self.max_tokens and self._unknown not in ids

    def _ids(self, text: str) -> list[int]:
        # One by one: encode_batch would start a thread pool of its own, as large as the machine.
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids

    def _cut(self, ids: list[int]) -> list[int]:
        """The first tokens and the closing [SEP], which is what truncation in the tokenizer comes to."""
        return ids if len(ids) <= self.max_tokens else [*ids[: self.max_tokens - 1], ids[-1]]

    def _run(self, tokens: Sequence[Sequence[int]]) -> Vectors:
        ids = np.zeros((len(tokens), max(map(len, tokens))), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, each in enumerate(tokens):
            ids[row, : len(each)] = each
            mask[row, : len(each)] = 1
        try:
            raw: npt.NDArray[np.float32] = self._session.run(["vectors"], {"ids": ids, "mask": mask})[0]
        except Exception as error:  # onnxruntime's own errors share no base class
            raise EmbedError(f"onnxruntime failed: {error}") from error
        return unit_vectors(raw, rows=len(tokens), dims=self.dims)


def open_onnx(weights: Weights, *, threads: int) -> OnnxEmbedder:
    """Load a model folder. About 0.3 s for all-MiniLM-L6-v2. Raises EngineError when the folder does not fit."""
    folder = weights.folder
    shape = _shape(folder)
    max_tokens = _max_tokens(folder, shape)
    tensors = _tensors(folder.path / "model.safetensors", shape)
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(tensor) for tensor in tensors.values()]
    try:
        session = onnxruntime.InferenceSession(
            _graph(shape), _options(list(tensors), values, threads), providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's own errors share no base class
        raise EngineError(f"onnxruntime cannot load {folder.path}: {error}") from error
    tokenizer = _tokenizer(folder)
    return OnnxEmbedder(weights, session, tokenizer, dims=shape.hidden, max_tokens=max_tokens, tensors=values)


def _options(names: list[str], values: list[onnxruntime.OrtValue], threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.add_external_initializers(names, values)
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads must leave the cores
    options.enable_mem_pattern = False  # it remembers a plan per input shape, and ours are many
    options.log_severity_level = 3  # errors only
    return options


def _graph(shape: BertShape) -> bytes:
    name, expected = _GRAPH_OF[shape]
    try:
        graph = (_GRAPHS / name).read_bytes()
    except OSError as error:
        raise EngineError(f"the graph {name} is missing from this installation: {error.strerror}") from error
    if hashlib.sha256(graph).hexdigest() != expected:
        raise EngineError(f"the graph {name} of this installation is not the tested one; install the package anew")
    return graph


def _shape(folder: ModelFolder) -> BertShape:
    """The architecture, once everything that could change the computation has been held to what the graph does."""
    config = folder.config
    demands: dict[str, tuple[Any, ...]] = {
        "model_type": ("bert",),
        "architectures": (["BertModel"],),
        "hidden_act": ("gelu",),
        "position_embedding_type": ("absolute", None),
        "is_decoder": (False, None),
        "add_cross_attention": (False, None),
        "dtype": ("float32", None),
        "torch_dtype": ("float32", None),
        "quantization_config": (None,),
    }
    misfits = [f"{key} = {config.get(key)!r}" for key, allowed in demands.items() if config.get(key) not in allowed]
    if folder.modules != ("Transformer", "Pooling", "Normalize"):
        misfits.append(f"modules = {list(folder.modules)}")
    if folder.pooling != "mean":
        misfits.append(f"pooling = {folder.pooling}")
    if folder.lowers_case:
        misfits.append("do_lower_case outside the tokenizer")
    shape = _numbers(config)
    if not misfits and shape not in _GRAPH_OF:
        misfits.append(f"no graph for {shape}")
    if misfits:
        raise EngineError(f"the ONNX engine does not compute {folder.path}: {', '.join(misfits)}")
    return shape


def _numbers(config: Mapping[str, Any]) -> BertShape:
    epsilon = config.get("layer_norm_eps")
    return BertShape(
        layers=_count(config, "num_hidden_layers"),
        heads=_count(config, "num_attention_heads"),
        hidden=_count(config, "hidden_size"),
        inner=_count(config, "intermediate_size"),
        words=_count(config, "vocab_size"),
        positions=_count(config, "max_position_embeddings"),
        types=_count(config, "type_vocab_size"),
        epsilon=epsilon if isinstance(epsilon, float) else -1.0,
    )


def _count(config: Mapping[str, Any], key: str) -> int:
    """A whole number of the config; -1, which fits no graph, for anything else."""
    value = config.get(key)
    return value if isinstance(value, int) else -1


def _max_tokens(folder: ModelFolder, shape: BertShape) -> int:
    if folder.max_tokens is None or folder.max_tokens > shape.positions:
        raise EngineError(f"{folder.path} does not say how many tokens the model reads (max_seq_length)")
    return folder.max_tokens


def _tensor_shapes(shape: BertShape) -> dict[str, tuple[int, ...]]:
    """Every tensor the graph asks for."""
    hidden, inner = shape.hidden, shape.inner
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (shape.words, hidden),
        "embeddings.position_embeddings.weight": (shape.positions, hidden),
        "embeddings.token_type_embeddings.weight": (shape.types, hidden),
    }
    norms = ["embeddings.LayerNorm"]
    linears: dict[str, tuple[int, int]] = {}
    for index in range(shape.layers):
        layer = f"encoder.layer.{index}"
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
        linears |= {f"{layer}.attention.self.{part}": (hidden, hidden) for part in ("query", "key", "value")}
        linears[f"{layer}.attention.output.dense"] = (hidden, hidden)
        linears[f"{layer}.intermediate.dense"] = (inner, hidden)
        linears[f"{layer}.output.dense"] = (hidden, inner)
    shapes |= {f"{norm}.{part}": (hidden,) for norm in norms for part in ("weight", "bias")}
    for name, (out, into) in linears.items():
        shapes |= {f"{name}.weight": (out, into), f"{name}.bias": (out,)}
    return shapes


def _tensors(path: Path, shape: BertShape) -> dict[str, npt.NDArray[np.float32]]:
    """The weights by name, copied into memory: a file that is overwritten later changes nothing here."""
    tensors = {}
    try:
        with safetensors.safe_open(path, framework="numpy") as stored:
            for name, expected in _tensor_shapes(shape).items():
                tensor = stored.get_tensor(name)
                if tensor.shape != expected or tensor.dtype != np.float32:
                    raise EngineError(f"{path}: {name} is {tensor.dtype} {list(tensor.shape)}, not {list(expected)}")
                tensors[name] = np.ascontiguousarray(tensor)
    except (OSError, safetensors.SafetensorError) as error:
        raise EngineError(f"{path} cannot be read: {error}") from error
    return tensors


def _tokenizer(folder: ModelFolder) -> tokenizers.Tokenizer:
    """The folder's tokenizer without its own padding and truncation.

    The published all-MiniLM-L6-v2 pads every text to 128 tokens and cuts there, though the model reads 256.
    """
    path = folder.path / "tokenizer.json"
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise EngineError(f"{path} cannot be read: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = False
    special = {name: tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]", "[UNK]")}
    if tokenizer.encode("").ids != [special["[CLS]"], special["[SEP]"]] or special["[UNK]"] is None:
        raise EngineError(f"{path} is not the tokenizer of a BERT model")
    return tokenizer
