"""`explain` says in a few lines what would happen to an ask and why."""

from __future__ import annotations

import json

import pytest

from cacheproxy.commands import explain
from cacheproxy.errors import ConfigError
from tests.fakes.command import run_beside
from tests.fakes.house import near_ready, open_house
from tests.fakes.redis_server import free_port

STORY = {
    "outcome": "miss",
    "why": "guard:polarity",
    "key": "cacheproxy:answer:c41d:bb:default",
    "exact": "no",
    "made": None,
    "expires": None,
    "near_off": "",
    "threshold": 0.92,
    "neighbours": [],
    "ttl_s": 3600.0,
    "prompts": True,
}
NEIGHBOUR = {
    "entry": 32 * "a",
    "similarity": 0.944,
    "verdict": "guard:polarity",
    "guards": ["polarity"],
    "stored": "how do I enable dark mode",
}


async def test_the_story_of_an_ask_before_and_after_it_was_answered(fake_ollama, clean_redis):
    """First a miss, then a hit under the same key; system prompt and options are part of it."""
    async with open_house(fake_ollama, clean_redis, semantic={"mode": "serve"}, log={"prompts": True}) as house:
        await near_ready(house)
        ask = ("explain", "why?", "-m", "llama3.2", "--system", "Be brief.", "-o", "temperature=0.5")
        port = ("--admin", house.app.admin_url)
        before = (await run_beside(*ask, *port)).stdout.splitlines()
        turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "why?"}]
        await house.chat(messages=turns, options={"temperature": 0.5}, stream=False)
        await house.settled()
        after = (await run_beside(*ask, *port)).stdout.splitlines()
        told = json.loads((await run_beside(*ask, *port, "--json")).stdout)

    assert before[0].startswith("exact     no entry  (key cacheproxy:answer:")
    assert before[-1] == "verdict   MISS, would be forwarded and stored for 1 h 0 m: nothing near is stored"
    assert after[0].startswith("exact     hit, made ")
    assert after[0].endswith(before[0].split("(")[1])
    assert after[-1] == "verdict   EXACT, answered from the entry under its key"
    assert told["outcome"] == "exact"


async def test_ollama_that_was_never_reached_is_told_as_what_it_is(fake_ollama, clean_redis):
    """Nobody knows whether it has the model, and a real ask gets the same status."""
    away = f"http://127.0.0.1:{free_port()}"
    async with open_house(fake_ollama, clean_redis, ready=False, upstream={"url": away}) as house:
        await house.app.wait_ready(10)
        told = await run_beside("explain", "why?", "-m", "llama3.2", "--admin", house.app.admin_url)
        real = await house.chat("why?", stream=False)

    assert told.stdout.splitlines()[-1].startswith("verdict   502, Ollama is away: ")
    assert "connection refused" in told.stdout
    assert real.status == 502


async def test_a_model_that_ollama_does_not_list_is_told_as_before(house):
    """With Ollama there, it is the model that is wrong."""
    told = await run_beside("explain", "why?", "-m", "llama9", "--admin", house.app.admin_url)

    assert told.stdout.splitlines()[-1] == "verdict   BYPASS, goes around the cache: Ollama does not list the model"


def test_a_guarded_neighbour_is_told_with_its_guard():
    """Similarity, threshold and every guard that objects, in the words of the documentation."""
    lines = list(explain.lines(STORY | {"neighbours": [NEIGHBOUR]}, 0.0))

    assert lines == [
        "exact     no entry  (key cacheproxy:answer:c41d:bb:default)",
        'nearest   0.944  "how do I enable dark mode"  >= 0.920',
        "guard     polarity  ->  rejected",
        "verdict   MISS, would be forwarded and stored for 1 h 0 m: the guard over polarity objects",
    ]


def test_of_a_neighbour_that_is_not_near_no_guard_is_told():
    """It decides nothing there."""
    far = NEIGHBOUR | {"similarity": 0.3, "verdict": "below_threshold"}
    lines = list(explain.lines(STORY | {"neighbours": [far], "why": "below_threshold"}, 0.0))

    assert not any(line.startswith("guard") for line in lines)


def test_neighbours_are_named_by_id_where_no_text_may_be_shown():
    """And it is said why."""
    lines = list(explain.lines(STORY | {"prompts": False, "neighbours": [NEIGHBOUR | {"stored": ""}]}, 0.0))

    assert f"entry {32 * 'a'}" in lines[1]
    assert "log.prompts is off" in lines[3]


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        (
            {"outcome": "bypass", "why": "no-store", "key": ""},
            "BYPASS, goes around the cache: the caller wants to stay",
        ),
        ({"near_off": "mode-off", "why": "mode-off"}, "near answers are switched off (semantic.mode)"),
        ({"why": "none", "ttl_s": 0.0}, "MISS, would be forwarded and not stored: nothing near is stored"),
        ({"why": "something-new"}, "something-new"),
        (
            {"outcome": "bypass", "why": "temperature", "key": ""},
            "BYPASS, goes around the cache: its temperature is above cache.max_temperature",
        ),
        (
            {"near_off": "temperature", "why": "temperature"},
            "and stored for 1 h 0 m: its temperature is above semantic.max_temperature",
        ),
        ({"exact": "away", "near_off": "away", "why": "away"}, "and not stored while Redis is away: Redis is away"),
    ],
)
def test_every_end_has_its_words(changes, end):
    """A word this version does not know is told as it is."""
    assert end in list(explain.lines(STORY | changes, 0.0))[-1]


def test_the_command_line_becomes_the_body_an_app_would_send():
    """Options keep their types, and headers their names."""
    asked = explain.asked(
        "why?",
        model="m",
        system="s",
        generate=True,
        options=["seed=7", "stop=x"],
        headers=["Authorization: Bearer a=b"],
    )

    assert asked["path"] == "/api/generate"
    assert asked["body"] == {"model": "m", "prompt": "why?", "system": "s", "options": {"seed": 7, "stop": "x"}}
    assert asked["headers"] == {"Authorization": "Bearer a=b"}


@pytest.mark.parametrize("given", [{"options": ["seed"]}, {"headers": ["X"]}, {"options": ["=1"]}])
def test_what_is_no_option_is_told_with_an_example(given):
    """The text names the flag and the value."""
    with pytest.raises(ConfigError, match="such as"):
        explain.asked("why?", model="m", system="", generate=False, **({"options": [], "headers": []} | given))
