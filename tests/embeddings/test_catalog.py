from __future__ import annotations

import re

import pytest

from embeddings.catalog import ALL_MINILM_L6_V2, MODELS, find, recognise


@pytest.mark.parametrize(
    "name",
    [
        "all-MiniLM-L6-v2",
        "all-minilm-l6-v2",
        "sentence-transformers/all-MiniLM-L6-v2",
        "all-minilm",
        "all-minilm:latest",
    ],
)
def test_a_model_is_found_by_each_of_its_names(name):
    """Hub name, short name and Ollama's name mean one model."""
    assert ALL_MINILM_L6_V2 is find(name)


def test_an_unknown_name_is_nobody():
    """Nearly the name is not the name."""
    assert find("all-MiniLM-L6-v3") is None
    assert find("") is None


def test_no_name_means_two_models():
    """Aliases may not shadow one another."""
    names = [name.lower() for known in MODELS for name in {known.name, known.repository, *known.aliases}]

    assert len(set(names)) == len(names)


def test_bytes_are_recognised_only_when_all_of_them_match():
    """A model is its bytes; one file that differs makes it another."""
    digests = dict(ALL_MINILM_L6_V2.sha256)

    assert ALL_MINILM_L6_V2 is recognise(digests | {"README.txt": "0" * 64})
    assert recognise(digests | {"tokenizer.json": "0" * 64}) is None
    assert recognise({}) is None


def test_pins_are_whole_and_only_pinned_models_are_proven():
    """A digest cut short would never match; a proof without pins would be of unknown bytes."""
    for known in MODELS:
        assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in known.sha256.values())
        assert known.revision is None or re.fullmatch(r"[0-9a-f]{40}", known.revision)
        assert not known.proven or (known.sha256 and known.revision)
        assert known.threshold is None or 0 < known.threshold < 1


def test_the_catalogue_agrees_with_the_model(fast):
    """What the catalogue tells before loading holds after it."""
    assert (ALL_MINILM_L6_V2.dims, ALL_MINILM_L6_V2.max_tokens) == (fast.dims, fast.max_tokens)
