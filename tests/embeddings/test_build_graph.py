from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="only who changes the graph needs the onnx package")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("build_graph", ROOT / "embeddings/graphs/build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def config():
    """The settings of all-MiniLM-L6-v2 that count."""
    names = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers")
    sizes = dict(zip(names, (384, 1536, 12, 6), strict=True))
    tables = {"vocab_size": 30522, "max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12}
    return {"model_type": "bert", "hidden_act": "gelu", **sizes, **tables}


def test_the_tool_makes_the_graph_that_is_shipped(tool, config):
    """The binary file in the package has a source that can be read."""
    assert (ROOT / "embeddings/graphs/bert-6x384.onnx").read_bytes() == tool.build(config).SerializeToString(
        deterministic=True
    )


@pytest.mark.parametrize("change", [{"model_type": "roberta"}, {"hidden_act": "relu"}])
def test_what_is_no_plain_bert_is_refused(tool, config, change):
    """A graph that computes something else would look just as healthy."""
    with pytest.raises(ValueError, match=json.dumps(next(iter(change))).strip('"')):
        tool.build(config | change)
