from __future__ import annotations

import threading

import numpy as np
import pytest

from embeddings.errors import EngineError, TextError
from embeddings.load import load
from embeddings.sentence import open_sentence
from embeddings.weights import Wanted, find_weights


def test_the_reference_engine_offers_what_the_protocol_says(reference):
    """Name, engine, shape and threshold of the default model."""
    assert (
        reference.model,
        reference.engine,
        reference.dims,
        reference.max_tokens,
        reference.threshold,
    ) == ("all-MiniLM-L6-v2", "sentence-transformers", 384, 256, 0.92)


def test_no_texts_give_no_rows(reference):
    """The width is still the model's."""
    assert reference.embed([]).shape == (0, 384)


def test_a_model_the_fast_engine_does_not_compute_is_served(copied):
    """Any other model works: here one with half the heads."""
    embedder = load(copied(config={"num_attention_heads": 6}))

    vectors = embedder.embed(["one", "two"])

    assert embedder.engine == "sentence-transformers"
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_several_threads_may_use_it_at_once(reference):
    """The tokenizer below it is not safe for that; the engine is."""
    expected = reference.embed(["same text"])
    results = []
    threads = [
        threading.Thread(target=lambda: results.append((reference.embed(["same text"]), reference.count_tokens("a b"))))
        for _ in range(8)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [count for _, count in results] == [4] * 8
    for vectors, _ in results:
        np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_broken_weights_are_one_of_our_errors(copied):
    """The library's own exceptions do not leak."""
    path = copied(without=("model.safetensors",))
    (path / "model.safetensors").write_bytes(b"not safetensors")

    with pytest.raises(EngineError, match="sentence-transformers cannot load"):
        open_sentence(find_weights(Wanted("broken", path=path)), threads=1)


def test_texts_that_are_no_unicode_are_refused(reference):
    """As by every engine."""
    with pytest.raises(TextError):
        reference.embed(["\ud800"])
    assert not reference.fits("\ud800")
