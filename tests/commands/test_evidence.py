"""What `cacheproxy tune` judges by: rows of a file, and the record of shadow mode, as the proxy would see them."""

from __future__ import annotations

import asyncio
import dataclasses
import json

import pytest

from cacheproxy.clock import SystemClock
from cacheproxy.commands import evidence
from cacheproxy.commands.evidence import Labelled, of_pairs, of_shadow, read_pairs
from cacheproxy.config import Config
from cacheproxy.errors import ConfigError, EmbedderError, StoreUnavailableError
from cacheproxy.store.connection import Connection
from cacheproxy.store.shadow import Shadow, ShadowRecord
from tests.fakes.house import until
from tests.fakes.redis_server import PATIENT_S, free_port

GOOD = {"a": "How do I reset my password?", "b": "How can I reset my password?", "y": 1}


@pytest.fixture
def pairs(tmp_path):
    """Writes rows into a file, dicts as JSON and texts as they are."""

    def write(*rows):
        path = tmp_path / "pairs.jsonl"
        path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
        return path

    return write


def test_rows_are_read_with_their_labels_and_families(pairs):
    """Empty lines do not count; `true` and `1` are one label."""
    path = pairs(GOOD, "", {**GOOD, "y": 0, "fam": "number", "more": 1}, {**GOOD, "y": True})

    assert list(read_pairs(path)) == [
        Labelled(GOOD["a"], GOOD["b"], right=True),
        Labelled(GOOD["a"], GOOD["b"], right=False, family="number"),
        Labelled(GOOD["a"], GOOD["b"], right=True),
    ]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"a": "x", "b": "y"}, 'pairs.jsonl:3: "y" is missing; expected 1'),
        ({**GOOD, "y": None}, 'pairs.jsonl:3: "y" is null'),
        ({**GOOD, "y": 2}, 'pairs.jsonl:3: "y" is 2'),
        ({**GOOD, "y": "1"}, 'pairs.jsonl:3: "y" is "1"'),
        ({"b": "y", "y": 1}, 'pairs.jsonl:3: "a" is missing'),
        ({**GOOD, "b": 7}, 'pairs.jsonl:3: "b" is no text'),
        ("[1, 2]", "pairs.jsonl:3: no JSON object"),
        ("{'a': 1}", "pairs.jsonl:3: not JSON"),
        ("[" * 200_000, "pairs.jsonl:3: not JSON"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_by_its_line(pairs, row, told):
    """Nothing is guessed, above all no label."""
    with pytest.raises(ConfigError) as caught:
        list(read_pairs(pairs(GOOD, "", row)))

    assert told in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path, pairs, monkeypatch):
    """Missing, no text, or longer than anybody labels."""
    with pytest.raises(ConfigError, match=r"none\.jsonl: No such file"):
        list(read_pairs(tmp_path / "none.jsonl"))
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="bytes: is no text in UTF-8"):
        list(read_pairs(tmp_path / "bytes"))
    monkeypatch.setattr(evidence, "PAIRS_MAX", 2)
    with pytest.raises(ConfigError, match="more than 2 pairs"):
        list(read_pairs(pairs(GOOD, GOOD, GOOD)))


def test_pairs_get_a_similarity_and_the_guard_that_objects(pairs):
    """Over the borders of batches; what the embedder does not read to its end is left out, and that is said."""
    other = {"a": "What is 150.00 in euros?", "b": "What is 150.01 in euros?", "y": 0, "fam": "number"}
    far = {"a": "What is the capital of France?", "b": "How do I boil an egg?", "y": 0}
    long = {"a": "word " * 300, "b": "word " * 300, "y": 1}
    broken = {"a": "\ud800", "b": "x", "y": 1}
    settings = Config.model_validate({"embedding": {"batch": 2}})
    found = of_pairs(pairs(GOOD, long, other, broken, far), settings)

    assert [pair.right for pair in found.pairs] == [True, False, False]
    assert [pair.objection for pair in found.pairs[:2]] == ["", "numbers"]
    assert found.pairs[0].similarity > 0.9
    assert found.pairs[1].similarity > 0.9
    assert found.pairs[2].similarity < 0.5
    assert found.pairs[1].family == "number"
    assert found.source == "3 pairs of pairs.jsonl, embedded by all-MiniLM-L6-v2"
    assert found.notes[0].startswith("2 left out")


def test_a_guard_that_is_switched_off_does_not_object(pairs):
    """As in the proxy."""
    settings = Config.model_validate({"semantic": {"guards": ["dates"]}})
    found = of_pairs(pairs({"a": "What is 150.00 in euros?", "b": "What is 150.01 in euros?", "y": 0}), settings)

    assert [pair.objection for pair in found.pairs] == [""]


def test_an_embedder_that_cannot_be_had_is_our_error(pairs, tmp_path):
    """With the remedy of its own text."""
    settings = Config.model_validate({"embedding": {"path": str(tmp_path / "none")}})
    with pytest.raises(EmbedderError):
        of_pairs(pairs(GOOD), settings)


RECORD = ShadowRecord(0.95, "", (), 0.9, "", "llama3.2", "a", "b", 1_790_000_000.0)


def record(**changes):
    """One near match that shadow mode would have served."""
    return dataclasses.replace(RECORD, **changes)


async def written(server, *records):
    """Settings that lead to a Redis with these records, the last the newest."""
    settings = Config(redis=server.settings(timeout=PATIENT_S))
    connection = Connection(settings.redis, SystemClock())
    await connection.open()
    try:
        await until(lambda: connection.state == "up")
        for one in records:
            await Shadow(connection, settings.redis.prefix, prompts=True).put(one)
    finally:
        await connection.close()
    return settings


def test_a_shadow_record_is_right_when_the_answers_are_alike(clean_redis):
    """At `alike` and above, unless somebody reported it; its first guard that is switched on objects."""
    settings = asyncio.run(
        written(
            clean_redis,
            record(),
            record(likeness=0.79),
            record(reason="guard:numbers", guards=("numbers", "names")),
            record(reason="below_threshold", similarity=0.7),
            record(reason="feedback"),
            record(reason="guard:raised"),
        )
    )
    found = of_shadow(settings, alike=0.8)

    assert [(pair.similarity, pair.right, pair.objection) for pair in reversed(found.pairs)] == [
        (0.95, True, ""),
        (0.95, False, ""),
        (0.95, True, "numbers"),
        (0.7, True, ""),
        (0.95, False, "feedback"),
        (0.95, True, "raised"),
    ]
    assert {pair.family for pair in found.pairs} == {"llama3.2"}
    assert found.source.startswith("6 near matches that shadow mode wrote down (2026-")
    assert "estimate" in found.notes[0]
    fewer = settings.model_copy(update={"semantic": settings.semantic.model_copy(update={"guards": ("names",)})})
    assert of_shadow(fewer, alike=0.8).pairs[3].objection == "names"


def test_a_time_beyond_all_calendars_is_no_failure(clean_redis):
    """Redis may hold what others wrote."""
    found = of_shadow(asyncio.run(written(clean_redis, record(time=1e300))), alike=0.8)

    assert "(? to ?)" in found.source


def test_an_empty_record_says_how_to_fill_it(clean_redis):
    """With the setting."""
    found = of_shadow(Config(redis=clean_redis.settings(timeout=PATIENT_S)), alike=0.8)

    assert found.pairs == []
    assert 'semantic.mode = "shadow"' in found.source


def test_a_redis_that_is_away_is_told():
    """With the remedy."""
    settings = Config.model_validate({"redis": {"url": f"redis://127.0.0.1:{free_port()}"}})
    with pytest.raises(StoreUnavailableError, match="--redis"):
        of_shadow(settings, alike=0.8)
