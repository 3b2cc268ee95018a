"""What would happen to an ask is told by the same judgements that an ask meets, and nothing happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from cacheproxy.edge.explain import read_request
from tests.fakes.house import MODEL, House, near_ready, open_house, until
from tests.fakes.ollama import FakeOllama, Fault
from tests.fakes.redis_server import RedisServer

SERVE = {"mode": "serve"}
STORED = "How do I enable dark mode?"
REWORDED = "How can I enable dark mode?"
OPPOSITE = "How do I disable dark mode?"


@pytest_asyncio.fixture
async def near(fake_ollama: FakeOllama, clean_redis: RedisServer) -> AsyncIterator[House]:
    """An open proxy that compares by meaning and may show prompts, with one answer stored."""
    async with open_house(fake_ollama, clean_redis, semantic=SERVE, log={"prompts": True}) as house:
        await near_ready(house)
        await house.chat(STORED, stream=False)
        await house.settled()
        yield house


async def explained(house: House, question: str, headers: dict[str, str] | None = None, **members: Any) -> Any:
    """The story of a chat with one user message."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": question}]} | members
    reply = await house.admin("POST", "/explain", body={"body": body, "headers": headers or {}})
    assert reply.status == 200, reply.text
    return reply.json()


async def test_an_exact_entry_is_told_with_its_age(near: House) -> None:
    """The key is the one Redis has, and nothing needs to be compared."""
    told = await explained(near, STORED)

    assert (told["outcome"], told["why"], told["exact"]) == ("exact", "hit", "hit")
    assert told["key"].encode() in near.redis.call("KEYS", "*:answer:*")  # type: ignore[union-attr]
    assert told["expires"] > told["made"]
    assert told["neighbours"] == []


async def test_a_rewording_is_told_with_the_entry_that_would_answer(near: House) -> None:
    """And the ask that follows gets exactly that."""
    told = await explained(near, REWORDED)
    reply = await near.chat(REWORDED, stream=False)

    assert (told["outcome"], told["exact"]) == ("semantic", "no")
    assert told["neighbours"][0]["stored"] == STORED
    assert told["neighbours"][0]["guards"] == []
    assert reply.header("X-Cache") == "SEMANTIC"
    assert reply.header("X-Cache-Entry") == told["neighbours"][0]["entry"]
    similarity = float(reply.header("X-Cache-Similarity") or 0)
    assert similarity == pytest.approx(told["neighbours"][0]["similarity"], abs=1e-3)


async def test_every_guard_that_objects_is_named(near: House) -> None:
    """A miss whose reason is the first of them."""
    told = await explained(near, OPPOSITE)
    neighbour = told["neighbours"][0]

    assert told["outcome"] == "miss"
    assert told["why"] == neighbour["verdict"]
    assert neighbour["verdict"] == f"guard:{neighbour['guards'][0]}"
    assert neighbour["similarity"] >= told["threshold"]


async def test_explaining_changes_nothing(near: House) -> None:
    """No count moves, nothing is stored, Ollama is not asked: the next ask is what it would have been."""
    before, calls = await near.stats(), near.calls()
    for question in (STORED, REWORDED, OPPOSITE, "What is new?"):
        await explained(near, question)
    after = await near.stats()

    for counted in ("asks", "outcomes", "near", "kept", "faults"):
        assert after.get(counted) == before.get(counted)
    assert near.calls() == calls
    assert len(near.redis.call("KEYS", "*:answer:*")) == 1  # type: ignore[union-attr]
    assert (await near.chat(STORED, stream=False)).header("X-Cache") == "EXACT"


@pytest.mark.parametrize(
    ("headers", "members", "outcome", "why"),
    [
        ({"cache-control": "no-store"}, {}, "bypass", "no-store"),
        ({"Cache-Control": "no-cache"}, {}, "miss", "no-cache"),
        ({"Cache-Control": "only-if-cached", "X-Cache-Mode": "exact"}, {"think": True}, "miss", "only-if-cached"),
        ({"X-Cache-Mode": "exact"}, {"options": {"temperature": 0.1}}, "miss", "mode-exact"),
        ({"Authorization": "Bearer somebody"}, {}, "miss", "none"),
        ({}, {"options": {"seed": 1}}, "miss", "seed"),
        ({}, {"model": "llama9"}, "bypass", "unknown-model"),
    ],
)
async def test_what_a_caller_says_shapes_the_story(
    near: House, headers: dict[str, str], members: dict[str, Any], outcome: str, why: str
) -> None:
    """Headers and options count as they do for an ask; other callers' entries are not there."""
    told = await explained(near, STORED, headers, **members)

    assert (told["outcome"], told["why"]) == (outcome, why)


async def test_what_is_being_answered_right_now_would_be_joined(
    fake_ollama: FakeOllama, clean_redis: RedisServer
) -> None:
    """In the same words always, in other words where `semantic.join` allows it; joining takes no place at Ollama."""
    async with open_house(fake_ollama, clean_redis, semantic=SERVE | {"join": True}) as house:
        await near_ready(house)
        fake_ollama.next(Fault(stall_after_tokens=1))
        asking = asyncio.create_task(house.chat(STORED))
        await until(lambda: fake_ollama.stalled == 1)
        same, reworded = await explained(house, STORED), await explained(house, REWORDED)
        other = await explained(house, OPPOSITE)
        fake_ollama.release()
        await asking

    assert (same["outcome"], same["why"]) == ("joined", "in-flight")
    assert (reworded["outcome"], reworded["why"]) == ("joined", "in-flight-near")
    assert other["outcome"] == "miss"
    assert fake_ollama.calls["/api/chat"] == 1


async def test_in_shadow_mode_ollama_would_answer(fake_ollama: FakeOllama, clean_redis: RedisServer) -> None:
    """The neighbour that would be served is told all the same; texts only where prompts may be shown."""
    async with open_house(fake_ollama, clean_redis, semantic={"mode": "shadow"}) as house:
        await near_ready(house)
        await house.chat(STORED, stream=False)
        await house.settled()
        told = await explained(house, REWORDED)

    assert (told["outcome"], told["why"]) == ("miss", "shadow")
    assert told["neighbours"][0]["verdict"] == "serve"
    assert told["neighbours"][0]["stored"] == told["question"] == ""
    assert told["prompts"] is False


async def test_redis_away_is_part_of_the_story(fake_ollama: FakeOllama) -> None:
    """Explaining is for finding out what is wrong, so it must not fail then."""
    async with open_house(fake_ollama, None, redis={"url": "redis://127.0.0.1:1/0"}) as house:
        told = await explained(house, STORED)

    assert (told["outcome"], told["exact"], told["near_off"]) == ("miss", "away", "mode-off")


@pytest.mark.parametrize(
    "given",
    [
        [],
        {"body": 1},
        {"body": {}, "path": "/api/tags"},
        {"body": {}, "path": []},
        {"body": {}, "headers": {"a": 1}},
        {"x": 1},
    ],
)
def test_what_is_no_ask_is_told_what_one_looks_like(given: Any) -> None:
    """The answer is a text for people."""
    assert isinstance(read_request(given), str)
