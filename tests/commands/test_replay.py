"""`replay` gives the rates the proxy would have had, with its own embedder, guards and splitting of requests."""

from __future__ import annotations

import json

import pytest

from cacheproxy.commands import replay
from cacheproxy.commands.asks import Recorded, parse
from cacheproxy.config import Config
from cacheproxy.errors import ConfigError
from tests.fakes.command import run_beside
from tests.fakes.house import near_ready, open_house

ASKS = [
    ("How do I enable dark mode?", "on"),
    ("How can I enable dark mode?", "on"),
    ("How do I disable dark mode?", "off"),
    ("How do I enable dark mode?", "on"),
    ("Who wrote Faust?", "faust"),
]


async def test_the_rates_are_those_of_the_proxy_itself(fake_ollama, clean_redis, tmp_path):
    """The same requests through a proxy and through replay give the same counts."""
    bodies = [
        {"model": "llama3.2", "stream": False, "messages": [*system, {"role": "user", "content": question}]}
        for system in ([], [{"role": "system", "content": "Be brief."}])
        for question, _ in ASKS
    ]
    file = tmp_path / "asks.jsonl"
    file.write_text("".join(json.dumps(body) + "\n" for body in bodies))
    async with open_house(fake_ollama, clean_redis, semantic={"mode": "serve"}) as house:
        await near_ready(house)
        for body in bodies:
            await house.ask("POST", "/api/chat", body)
            await house.settled()
        outcomes = (await house.stats())["outcomes"]
    told = json.loads((await run_beside("replay", str(file), "--threshold", ".92,.99", "--json")).stdout)
    row = next(row for row in told["rows"] if row["threshold"] == 0.92)

    assert (row["exact"], row["semantic"], row["miss"]) == (
        outcomes["exact"],
        outcomes["semantic"],
        outcomes["miss"],
    )
    assert row["semantic"] > 0
    assert [row["threshold"] for row in told["rows"]] == [0.92, 0.99]


async def test_labelled_questions_give_wrong_hits_in_a_table_for_people(tmp_path):
    """The threshold in use is marked, and what makes the figures uncertain is said."""
    file = tmp_path / "asks.jsonl"
    file.write_text("".join(json.dumps({"question": question, "label": label}) + "\n" for question, label in ASKS))
    lines = (await run_beside("replay", str(file), "--threshold", ".5")).stdout.splitlines()
    head = next(at for at, line in enumerate(lines) if line.startswith("THRESHOLD"))

    assert lines[0] == "5 asks of asks.jsonl, 4 different, by all-MiniLM-L6-v2"
    assert any("never expire" in line for line in lines)
    assert lines[head].split()[:6] == ["THRESHOLD", "EXACT", "SEMANTIC", "MISS", "HIT", "RATE"]
    assert lines[head + 2].split()[:6] == ["*", "0.92", "1", "1", "3", "40.0%"]
    assert lines[head + 2].split()[6] == "0/1"


def test_settings_that_differ_are_never_compared():
    """Another model, system prompt or option is another room; a seed forbids comparing at all."""
    lines = [
        '{"model": "m", "prompt": "why?"}',
        '{"model": "n", "prompt": "why?"}',
        '{"model": "m", "prompt": "why?", "system": "s"}',
        '{"model": "m", "prompt": "why?", "options": {"seed": 1}}',
        '{"model": "m", "prompt": "why?"}',
        '{"path": "/api/show", "body": {"model": "m"}}',
        '{"question": ""}',
    ]
    recording = replay.record([parse(line, "f") for line in lines if "show" not in line], Config())
    bypassed = replay.record([Recorded(path="/api/show", body={"model": "m"})], Config())

    assert [ask.question for ask in recording.asks] == [0, 1, 2, 3, 0]
    assert len(set(recording.rooms[:3])) == 3
    assert recording.texts[3] == ""
    assert recording.silent == 1
    assert (bypassed.bypassed, bypassed.asks) == (1, [])


@pytest.mark.parametrize("text", ["92", "0", "-1", "high", ".9,,"])
def test_a_threshold_that_is_no_similarity_is_told(text):
    """With the value, and an example."""
    with pytest.raises(ConfigError, match=r"such as \.92"):
        replay.read_thresholds(text, 0.92)


def test_thresholds_rise_and_hold_the_one_in_use():
    """It is what the others are compared with."""
    assert replay.read_thresholds(".95, .88,.88", 0.92) == [0.88, 0.92, 0.95]
    assert replay.read_thresholds("", 0.92) == list(replay.THRESHOLDS)
