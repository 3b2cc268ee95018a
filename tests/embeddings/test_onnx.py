from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from embeddings import onnx
from embeddings.errors import EngineError, TextError
from embeddings.load import load
from embeddings.onnx import open_onnx
from embeddings.weights import Wanted, find_weights
from tests.fakes.speed import slowness

ROOT = Path(__file__).parents[2]
PAIR_DIFFERENCE_MAX = 1e-5

TEXTS = [
    "What is the capital of France?",
    "what is the capital of france",
    "Which city is the capital of France?",
    "What is the capital of Germany?",
    "How do I reset my password?",
    "I forgot my password, what now?",
    "Is 91 a prime number?",
    "Is 97 a prime number?",
    "Turn the lights on.",
    "Turn the lights off.",
    "",
    " ",
    "\n\t\r\n",
    "\x00\x1f\x7f",
    "a",
    "?",
    "...!!!---",
    "😀",
    "I am happy 😀 👍🏽 👨‍👩‍👧‍👦",
    "résumé café naïve Ångström",
    "re\u0301sume\u0301 decomposed",
    "STRASSE straße İstanbul ŁÓDŹ",
    "ﬁle ﬂow ½ ² ℃",
    "法国的首都是哪里",
    "フランスの首都はどこですか",
    "Какая столица Франции?",
    "ما هي عاصمة فرنسا؟",
    "मेरा पासवर्ड क्या है",
    "한국의 수도는 어디입니까",
    "zero\u200bwidth soft\u00adhyphen bom\ufeff rtl\u202emark",
    "[CLS] [SEP] [MASK] [PAD] [UNK] as text",
    "[MASK]",
    "def f(x: int) -> int:\n    return x ** 2  # square",
    '{"role": "user", "content": "hi\\n"}',
    "SELECT * FROM users WHERE id = 42;",
    "https://example.org/a?b=c&d=%20#e",
    "3.14159 1,000,000 1e-9 0x1F 2026-11-21T02:00:00Z",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "x" * 99,
    "x" * 101,
    "word " * 254,
    "word " * 255,
    "The quick brown fox jumps over the lazy dog. " * 60,
    "Long and then different at its end. " * 50 + "the end",
    "ünïcödé " * 300,
]


def similarities(vectors):
    """All pairs, in double precision so that only the vectors' own difference shows."""
    return vectors.astype(np.float64) @ vectors.astype(np.float64).T


def test_pair_similarities_equal_those_of_sentence_transformers(fast, folder):
    """The proof behind `auto`: the library itself, on the same folder, over many kinds of text."""
    vectors = SentenceTransformer(str(folder), device="cpu", local_files_only=True).encode(TEXTS)

    difference = np.abs(similarities(fast.embed(TEXTS)) - similarities(vectors)).max()

    assert difference < PAIR_DIFFERENCE_MAX


def test_other_weights_of_the_same_architecture_are_computed_equally_too(other_weights):
    """The graph is right, not only right for one set of weights."""
    own = load(other_weights, engine="onnx")
    reference = load(other_weights, engine="sentence-transformers")

    difference = np.abs(similarities(own.embed(TEXTS)) - similarities(reference.embed(TEXTS))).max()

    assert difference < PAIR_DIFFERENCE_MAX
    assert own.fingerprint == reference.fingerprint


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_both_engines_count_tokens_alike(fast, reference, text):
    """So a text fits in one engine when it fits in the other."""
    assert reference.count_tokens(text) == fast.count_tokens(text)
    assert reference.fits(text) == fast.fits(text)


GOLDEN = {
    "How do I reset my password?": [0.0069031, -0.0630234, -0.072044, -0.0324961, -0.0427093],
    "": [-0.1188384, 0.0482988, -0.0025482, -0.0110112, 0.0519507],
    "résumé 😀 café": [-0.0298565, -0.0239337, 0.0629898, 0.0366385, 0.0286051],
    "法国的首都是哪里": [0.0436798, 0.0786899, 0.0274567, 0.0316478, 0.0095184],
    "word " * 300: [-0.0081237, -0.095586, -0.0386731, 0.049662, -0.0437937],
}


@pytest.mark.parametrize("text", GOLDEN)
def test_vectors_stay_what_they_were(fast, text):
    """Stored vectors must compare with new ones: components pinned from sentence-transformers 6.2, torch 2.13."""
    np.testing.assert_allclose(fast.embed([text])[0, :5], GOLDEN[text], atol=1e-6)


def test_rows_are_float32_of_unit_length_in_the_order_of_the_texts(fast):
    """Whatever order the runs were made in."""
    vectors = fast.embed(TEXTS)

    assert ((len(TEXTS), 384), np.float32) == (vectors.shape, vectors.dtype)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    for index in (0, 10, 17, 43):
        np.testing.assert_allclose(vectors[index], fast.embed([TEXTS[index]])[0], atol=1e-6)


def test_what_a_text_is_batched_with_does_not_reach_its_vector(fast):
    """Padding is masked out exactly."""
    alone = fast.embed(["short"])[0]
    beside = fast.embed(["short", "word " * 300])[0]

    np.testing.assert_allclose(alone, beside, atol=1e-6)


def test_no_texts_give_no_rows(fast):
    """The width is still the model's."""
    assert fast.embed([]).shape == (0, 384)


def test_256_tokens_are_read_not_the_128_of_the_tokenizer_file(fast):
    """The published tokenizer.json cuts at 128; the model reads 256."""
    start = "word " * 150

    assert (fast.count_tokens(start), fast.fits(start)) == (152, True)
    assert similarities(fast.embed([start + "banana", start + "galaxy"]))[0, 1] < 0.9999


def test_past_the_limit_texts_look_equal_and_do_not_fit(fast):
    """Why callers must ask `fits`: the end of a long text is not in its vector."""
    start = "word " * 254

    vectors = fast.embed([start + "yes", start + "no"])

    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert fast.fits(start)
    assert not fast.fits(start + "yes")


def test_characters_the_model_does_not_know_make_texts_look_equal_and_do_not_fit(fast):
    """Two emoji are one unknown token, so their similarity of 1 says nothing."""
    vectors = fast.embed(["What does 😀 mean?", "What does 😡 mean?"])

    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert not fast.fits("What does 😀 mean?")


def test_asking_whether_a_huge_text_fits_costs_nothing(fast):
    """A prompt of 20 MB is refused unread."""
    text = "word " * 4_000_000
    started_s = time.thread_time()

    assert not fast.fits(text)
    assert time.thread_time() - started_s < 0.1 * slowness()


def test_texts_that_are_no_unicode_are_refused(fast):
    """Half a surrogate pair, which JSON can carry, reaches no tokenizer."""
    with pytest.raises(TextError, match="surrogate"):
        fast.embed(["fine", "\ud83d"])
    assert not fast.fits("\ud83d")


def test_several_threads_may_use_it_at_once(fast):
    """Equal texts give equal vectors whoever else is asking."""
    texts = TEXTS[:10]
    expected = fast.embed(texts)
    results = []
    threads = [threading.Thread(target=lambda: results.append(fast.embed(texts))) for _ in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(results) == 8
    for vectors in results:
        np.testing.assert_array_equal(vectors, expected)


def test_other_threads_go_on_while_it_computes(fast):
    """The interpreter lock is released in C, so an event loop beside it stays alive."""
    worker = threading.Thread(target=fast.embed, args=(["word " * 254] * 32,))
    turns = 0

    worker.start()
    while worker.is_alive():
        turns += 1
        worker.join(0.0001)

    assert turns > 20


def test_two_threads_give_the_same_vectors_as_one(fast, folder):
    """`threads` is a matter of speed only."""
    vectors = load(folder, engine="onnx", threads=2).embed(TEXTS[:8])

    np.testing.assert_allclose(vectors, fast.embed(TEXTS[:8]), atol=1e-6)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"num_attention_heads": 6}, "heads=6"),
        ({"num_hidden_layers": 5}, "layers=5"),
        ({"layer_norm_eps": 1e-5}, "epsilon=1e-05"),
        ({"hidden_act": "gelu_new"}, "hidden_act"),
        ({"hidden_size": "384"}, "hidden=-1"),
        ({"hidden_size": [384]}, "hidden=-1"),
        ({"architectures": ["RobertaModel"]}, "architectures"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"is_decoder": True}, "is_decoder"),
        ({"dtype": "float16"}, "dtype"),
    ],
)
def test_an_architecture_the_graph_does_not_compute_is_refused(copied, config, named):
    """Each setting that changes the computation is looked at and named."""
    weights = find_weights(Wanted("other", path=copied(config=config)))

    with pytest.raises(EngineError, match=named):
        open_onnx(weights, threads=1)


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("1_Pooling/config.json", '{"pooling_mode_cls_token": true}', "pooling = cls"),
        ("modules.json", "[]", "modules"),
        ("sentence_bert_config.json", '{"max_seq_length": 256, "do_lower_case": true}', "do_lower_case"),
        ("sentence_bert_config.json", '{"max_seq_length": 513}', "max_seq_length"),
        ("tokenizer.json", "{}", r"tokenizer\.json"),
    ],
)
def test_a_folder_that_pools_or_reads_otherwise_is_refused(copied, name, text, named):
    """The graph pools by the mean and the tokenizer is BERT's, or the engine stays out."""
    path = copied()
    (path / name).write_text(text)

    with pytest.raises(EngineError, match=named):
        open_onnx(find_weights(Wanted("other", path=path)), threads=1)


def test_a_tokenizer_of_another_kind_is_refused(copied):
    """Without [CLS] and [SEP] around every text it is not what the model was trained with."""
    path = copied()
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    (path / "tokenizer.json").write_text(json.dumps(tokenizer | {"post_processor": None}))

    with pytest.raises(EngineError, match="not the tokenizer of a BERT model"):
        open_onnx(find_weights(Wanted("other", path=path)), threads=1)


def test_weights_that_do_not_fit_the_graph_are_refused(copied):
    """Unreadable weights are one of our errors."""
    path = copied(without=("model.safetensors",))
    (path / "model.safetensors").write_bytes(b"\x00" * 100)

    with pytest.raises(EngineError, match=r"model\.safetensors cannot be read"):
        open_onnx(find_weights(Wanted("other", path=path)), threads=1)


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_bytes(b"other")])
def test_a_graph_that_is_not_the_tested_one_is_refused(spoil, tmp_path, monkeypatch):
    """A damaged installation does not make vectors."""
    graphs = tmp_path / "graphs"
    graphs.mkdir()
    (graphs / "bert-6x384.onnx").write_bytes(b"")
    spoil(graphs / "bert-6x384.onnx")
    monkeypatch.setattr(onnx, "_GRAPHS", graphs)

    with pytest.raises(EngineError, match=r"graph bert-6x384\.onnx"):
        open_onnx(find_weights(Wanted("all-MiniLM-L6-v2")), threads=1)


def test_onnxruntime_reports_to_nobody_and_writes_nothing_of_its_own(tmp_path):
    """Its official builds send telemetry unless told not to before they are imported, and keep a device id."""
    env = os.environ | {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    env.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run([sys.executable, "-c", "import embeddings.onnx"], check=True, env=env, cwd=ROOT)

    assert list(tmp_path.iterdir()) == []
