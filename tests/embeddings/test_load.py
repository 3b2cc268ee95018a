from __future__ import annotations

import dataclasses
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from embeddings import load as loading
from embeddings.catalog import ALL_MINILM_L6_V2
from embeddings.errors import EngineError, WeightsError
from embeddings.load import load
from embeddings.weights import find_weights
from tests.fakes.speed import slowness


def test_the_default_is_the_fast_engine_on_the_packaged_weights():
    """No argument, no network, no torch: the name the issue asks for."""
    embedder = load("all-MiniLM-L6-v2")

    assert (embedder.engine, embedder.dims, embedder.max_tokens, embedder.threshold) == ("onnx", 384, 256, 0.92)


def test_the_fast_engine_loads_soon_and_without_torch():
    """Torch costs seconds and 500 MB; the whole point of the engine is to spare them."""
    code = """
import sys, time
started_s = time.process_time()
from embeddings.load import load
load("all-MiniLM-L6-v2").embed(["hello"])
print(time.process_time() - started_s)
heavy = ("torch", "transformers", "sentence_transformers", "onnx", "cacheproxy")
print([name for name in heavy if name in sys.modules])
"""
    out = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.split("\n")

    assert float(out[0]) < 1.5 * slowness()
    assert out[1] == "[]"


def test_a_folder_given_as_text_or_path_is_read(folder):
    """`load(Path)`, `load("/…")` and `path=` mean the same folder."""
    prints = {load(folder).fingerprint, load(str(folder)).fingerprint, load("any name", path=folder).fingerprint}

    assert {load("all-MiniLM-L6-v2").fingerprint} == prints


def test_auto_takes_the_reference_for_weights_nobody_proved(other_weights):
    """The architecture fits, but the parity test never saw these bytes."""
    embedder = load(other_weights)

    assert (embedder.engine, embedder.threshold, embedder.model) == ("sentence-transformers", None, "house-model")


def test_auto_takes_the_reference_where_the_fast_engine_gives_other_figures(monkeypatch, caplog):
    """A processor or library build that computes wrongly is found at start, and said."""
    wrong = dataclasses.replace(ALL_MINILM_L6_V2, golden=(0.5, *ALL_MINILM_L6_V2.golden[1:]))
    monkeypatch.setattr(loading, "find_weights", lambda wanted: dataclasses.replace(find_weights(wanted), known=wrong))

    with caplog.at_level(logging.WARNING):
        embedder = load("all-MiniLM-L6-v2")

    assert embedder.engine == "sentence-transformers"
    assert "is off by" in caplog.text
    with pytest.raises(EngineError, match="is off by"):
        load("all-MiniLM-L6-v2", engine="onnx")


def test_a_missing_library_is_an_error_that_names_it(monkeypatch):
    """Not an ImportError from the depths."""
    monkeypatch.setattr(
        loading.importlib.util, "find_spec", lambda name: None if name == "sentence_transformers" else 1
    )

    with pytest.raises(EngineError, match="pip install sentence_transformers"):
        loading._need("sentence_transformers")


@pytest.mark.parametrize("arguments", [{"engine": "fast"}, {"threads": 0}])
def test_arguments_without_meaning_are_refused(arguments):
    """The message tells what would have a meaning."""
    with pytest.raises(EngineError, match=r"there are auto|at least 1"):
        load("all-MiniLM-L6-v2", **arguments)


def test_a_catalogue_name_on_a_model_of_other_dimensions_is_refused(other_weights):
    """nomic-embed-text has 768 dimensions; a folder of 384 is not it."""
    with pytest.raises(WeightsError, match="384 dimensions"):
        load("nomic-embed-text", path=other_weights, engine="onnx")
