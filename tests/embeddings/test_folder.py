from __future__ import annotations

import json

import pytest

from embeddings.catalog import ALL_MINILM_L6_V2
from embeddings.errors import WeightsError
from embeddings.folder import missing_files, read_folder, sha256_of, shaping_files


def test_the_published_folder_is_read_as_its_card_says(folder):
    """Mean pooling, normalised, 256 tokens: not the 128 its tokenizer.json claims."""
    read = read_folder(folder, {})

    assert (read.pooling, read.normalises, read.max_tokens, read.lowers_case) == ("mean", True, 256, False)
    assert read.modules == ("Transformer", "Pooling", "Normalize")


def test_the_spelling_of_sentence_transformers_6_means_the_same(copied):
    """A folder saved anew by a later version is still read."""
    path = copied()
    base = "sentence_transformers.base.modules"
    types = [
        f"{base}.transformer.Transformer",
        "sentence_transformers.x.pooling.Pooling",
        f"{base}.normalize.Normalize",
    ]
    places = ["", "1_Pooling", "2_Normalize"]
    modules = [{"path": place, "type": kind} for place, kind in zip(places, types, strict=True)]
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "1_Pooling/config.json").write_text('{"pooling_mode": "mean", "include_prompt": true}')
    (path / "sentence_bert_config.json").write_text('{"transformer_task": "feature-extraction"}')
    (path / "tokenizer_config.json").write_text('{"model_max_length": 256}')

    read = read_folder(path, {})

    assert (read.pooling, read.normalises, read.max_tokens) == ("mean", True, 256)


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, "unknown"),
        ({"pooling_mode_weightedmean_tokens": True}, "unknown"),
        ({"pooling_mode": "lasttoken"}, "lasttoken"),
        ({"pooling_mode": "mean", "include_prompt": False}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_pooling_is_named_or_called_unknown(copied, config, pooling):
    """A mixture or a mode nobody here computes is never taken for the mean."""
    path = copied()
    (path / "1_Pooling/config.json").write_text(json.dumps(config))

    assert pooling == read_folder(path, {}).pooling


@pytest.mark.parametrize("name", ["config.json", "modules.json", "1_Pooling/config.json"])
@pytest.mark.parametrize("text", ["", "{", '"a"', "[1]"])
def test_settings_that_cannot_be_read_are_an_error_that_names_the_file(copied, name, text):
    """Half a file is a fault to report, not a default to assume."""
    path = copied()
    (path / name).write_text(text)

    with pytest.raises(WeightsError, match=name):
        read_folder(path, {})


def test_a_folder_without_weights_says_what_it_lacks(copied):
    """Pickled weights are no weights."""
    path = copied(without=("model.safetensors",))
    (path / "pytorch_model.bin").write_bytes(b"pickle")

    (lacking,) = missing_files(path)

    assert "safetensors" in lacking


def test_checksums_cover_what_shapes_a_vector_and_nothing_else(copied):
    """A card, a hidden file or an ONNX copy beside the weights does not change the model's identity."""
    path = copied()
    for name in ("README.md", ".cache/x.json", "onnx/model.json", "1_Pooling/.hidden.json"):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text("{}")

    assert sorted(ALL_MINILM_L6_V2.sha256) == shaping_files(path)


def test_a_folder_of_very_many_files_is_refused(tmp_path):
    """A home directory given by mistake is not hashed through."""
    for index in range(201):
        (tmp_path / f"{index}.json").write_text("{}")

    with pytest.raises(WeightsError, match="not a model folder"):
        shaping_files(tmp_path)


def test_a_file_that_vanished_is_an_error_that_names_it(tmp_path):
    """Foreign exceptions stay inside."""
    with pytest.raises(WeightsError, match=r"gone\.json"):
        sha256_of(tmp_path, ["gone.json"])
