"""Build the weightless BERT graph that `embeddings/onnx.py` feeds from a model folder's own safetensors.

Run it only to add an architecture or to change the graph; it is the one place that needs the `onnx` package, which is
no dependency of the project:

    python embeddings/graphs/build.py path/to/config.json embeddings/graphs/bert-6x384.onnx

Every initializer is external and is named as the tensor in `model.safetensors` is, so the file holds no weights (about
20 kB). The graph goes from token ids to unit vectors: embeddings, encoder, mean over the unmasked tokens, L2 norm.
It refuses whatever is not a plain BERT encoder with exact GELU and absolute positions.

The encoder works on a matrix [batch * tokens, hidden], so that each linear layer is one Gemm with transB=1: torch's
[out, in] weights are used as they lie in the file, without a transposed copy.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 20  # the first with Gelu; onnxruntime reads it since 1.17
IR_VERSION = 9  # the oldest that allows opset 20: read by every onnxruntime this project supports


class GraphBuilder:
    """Collects nodes, external initializers and constants under readable names."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []

    def node(self, operator: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Append one operation; returns the name of its output."""
        self._nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def weight(self, name: str, *shape: int) -> str:
        """Declare a float32 tensor that the runtime must be given; returns its name."""
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="model.safetensors")
        self._initializers.append(tensor)
        return name

    def constant(self, name: str, value: Any, dtype: type[np.generic]) -> str:
        """Put a small constant into the graph itself; returns its name."""
        self._initializers.append(numpy_helper.from_array(np.array(value, dtype=dtype), name))
        return name

    def model(self, *, hidden: int) -> onnx.ModelProto:
        """The finished, checked model."""
        graph = helper.make_graph(
            self._nodes,
            "bert-sentence-encoder",
            [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in ("ids", "mask")],
            [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["batch", hidden])],
            self._initializers,
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="build_graph",
        )


def linear(graph: GraphBuilder, name: str, x: str, width_in: int, width_out: int) -> str:
    """`x @ weight.T + bias` with the weight as torch stores it, [out, in]."""
    weight = graph.weight(f"{name}.weight", width_out, width_in)
    return graph.node("Gemm", [x, weight, graph.weight(f"{name}.bias", width_out)], f"{name}:out", transB=1)


def layer_norm(graph: GraphBuilder, name: str, x: str, width: int, epsilon: float) -> str:
    """Layer normalisation over the last axis."""
    scale_and_bias = [graph.weight(f"{name}.weight", width), graph.weight(f"{name}.bias", width)]
    return graph.node("LayerNormalization", [x, *scale_and_bias], f"{name}:out", axis=-1, epsilon=epsilon)


def embedded(graph: GraphBuilder, config: Mapping[str, Any]) -> str:
    """Sum of word, type-0 and position embeddings, normalised, [batch * tokens, hidden]."""
    hidden = config["hidden_size"]
    words = graph.weight("embeddings.word_embeddings.weight", config["vocab_size"], hidden)
    types = graph.weight("embeddings.token_type_embeddings.weight", config["type_vocab_size"], hidden)
    positions = graph.weight("embeddings.position_embeddings.weight", config["max_position_embeddings"], hidden)
    word = graph.node("Gather", [words, "ids"], "word")
    kind = graph.node("Gather", [types, graph.constant("type_zero", 0, np.int64)], "type")
    tokens = graph.node("Shape", ["ids"], "tokens", start=1, end=2)
    position = graph.node("Slice", [positions, graph.constant("zero", [0], np.int64), tokens, "zero"], "position")
    total = graph.node("Add", [graph.node("Add", [word, kind], "word_type"), position], "embedded")
    flat = graph.node("Reshape", [total, graph.constant("flat_shape", [-1, hidden], np.int64)], "embedded_flat")
    return layer_norm(graph, "embeddings.LayerNorm", flat, hidden, config["layer_norm_eps"])


def attended(graph: GraphBuilder, layer: str, x: str, config: Mapping[str, Any]) -> str:
    """Multi-head self-attention of one layer, before its output projection, [batch * tokens, hidden]."""
    hidden = config["hidden_size"]
    parts = {}
    for part, order in (("query", (0, 2, 1, 3)), ("key", (0, 2, 3, 1)), ("value", (0, 2, 1, 3))):
        flat = linear(graph, f"{layer}.attention.self.{part}", x, hidden, hidden)
        split = graph.node("Reshape", [flat, "heads_shape"], f"{layer}:{part}_split")
        parts[part] = graph.node("Transpose", [split], f"{layer}:{part}", perm=order)
    scores = graph.node("MatMul", [parts["query"], parts["key"]], f"{layer}:scores")
    scaled = graph.node("Mul", [scores, "score_scale"], f"{layer}:scaled")
    masked = graph.node("Add", [scaled, "score_mask"], f"{layer}:masked")
    weights = graph.node("Softmax", [masked], f"{layer}:weights", axis=-1)
    mixed = graph.node("MatMul", [weights, parts["value"]], f"{layer}:mixed")
    joined = graph.node("Transpose", [mixed], f"{layer}:joined", perm=(0, 2, 1, 3))
    return graph.node("Reshape", [joined, "flat_shape"], f"{layer}:attended")


def encoded(graph: GraphBuilder, x: str, config: Mapping[str, Any]) -> str:
    """All encoder layers, [batch * tokens, hidden]."""
    hidden, inner, epsilon = config["hidden_size"], config["intermediate_size"], config["layer_norm_eps"]
    heads = config["num_attention_heads"]
    graph.constant("heads_split", [heads, hidden // heads], np.int64)
    graph.node("Concat", [graph.node("Shape", ["ids"], "batch_tokens"), "heads_split"], "heads_shape", axis=0)
    graph.constant("score_scale", (hidden // heads) ** -0.5, np.float32)
    real = graph.node("Cast", ["mask"], "mask_float", to=TensorProto.FLOAT)
    absent = graph.node("Sub", [real, graph.constant("one", 1, np.float32)], "mask_absent")
    # -1e30 after the softmax is exactly 0, so what a text is padded with cannot reach its vector.
    penalty = graph.node("Mul", [absent, graph.constant("penalty", 1e30, np.float32)], "mask_penalty")
    graph.node("Unsqueeze", [penalty, graph.constant("score_axes", [1, 2], np.int64)], "score_mask")
    for index in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{index}"
        mixed = linear(graph, f"{layer}.attention.output.dense", attended(graph, layer, x, config), hidden, hidden)
        summed = graph.node("Add", [mixed, x], f"{layer}:attention_sum")
        x = layer_norm(graph, f"{layer}.attention.output.LayerNorm", summed, hidden, epsilon)
        wide = linear(graph, f"{layer}.intermediate.dense", x, hidden, inner)
        active = graph.node("Gelu", [wide], f"{layer}:gelu")
        narrow = linear(graph, f"{layer}.output.dense", active, inner, hidden)
        summed = graph.node("Add", [narrow, x], f"{layer}:output_sum")
        x = layer_norm(graph, f"{layer}.output.LayerNorm", summed, hidden, epsilon)
    return x


def pooled(graph: GraphBuilder, x: str, config: Mapping[str, Any]) -> None:
    """Mean over the unmasked tokens, then unit length; names the result `vectors`."""
    graph.constant("hidden_split", [config["hidden_size"]], np.int64)
    shape = graph.node("Concat", ["batch_tokens", "hidden_split"], "sequence_shape", axis=0)
    sequence = graph.node("Reshape", [x, shape], "sequence")
    mask = graph.node("Unsqueeze", ["mask_float", graph.constant("last_axis", [-1], np.int64)], "mask_column")
    kept = graph.node("Mul", [sequence, mask], "sequence_kept")
    token_axis = graph.constant("token_axis", [1], np.int64)
    total = graph.node("ReduceSum", [kept, token_axis], "token_sum", keepdims=0)
    count = graph.node("ReduceSum", [mask, token_axis], "token_count", keepdims=0)
    mean = graph.node("Div", [total, count], "mean")
    norm = graph.node("ReduceL2", [mean, "last_axis"], "norm", keepdims=1)
    graph.node("Div", [mean, norm], "vectors")


def build(config: Mapping[str, Any]) -> onnx.ModelProto:
    """The graph for a `config.json`; raises ValueError for what it could not compute exactly."""
    wanted = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    for key, value in wanted.items():
        if config.get(key, value) != value:
            raise ValueError(f"config.json has {key} = {config[key]!r}; this builder knows only {value!r}")
    graph = GraphBuilder()
    pooled(graph, encoded(graph, embedded(graph, config), config), config)
    return graph.model(hidden=config["hidden_size"])


def main() -> None:
    """Command line: config.json in, graph out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="config.json of the model folder")
    parser.add_argument("graph", type=Path, help="file to write")
    arguments = parser.parse_args()
    model = build(json.loads(arguments.config.read_text(encoding="utf-8")))
    arguments.graph.write_bytes(model.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
