"""When the body of a reply begins is counted once an ask, however the ask is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cacheproxy.edge import fixed
from cacheproxy.model import Decision, Outcome
from tests.fakes.house import MODEL, House, open_house, until
from tests.fakes.ollama import FakeOllama, Fault
from tests.fakes.redis_server import RedisServer
from tests.fakes.wire import connect, request

STALL_S = 0.2
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "why?"}]}


async def counted(house: House) -> dict[str, float]:
    """How many first bytes `/stats` has, by outcome."""
    found = (await house.stats())["latency"]["first_bytes"]
    return {outcome: sum(times["count"] for times in tiers.values()) for outcome, tiers in found.items()}


async def stalled(house: House, ask: Callable[[], Awaitable[Any]], tokens: int = 1) -> None:
    """An ask whose answer waits for `STALL_S` after so many tokens."""
    house.ollama.next(Fault(stall_after_tokens=tokens))
    count = house.ollama.stalled
    asked = asyncio.ensure_future(ask())
    await house.ollama.wait_until(lambda: house.ollama.stalled > count)
    await asyncio.sleep(STALL_S)
    house.ollama.release()
    assert (await asked).complete


def assert_began_long_before_its_end(decision: Decision) -> None:
    """A streamed reply whose rest was waited for."""
    assert decision.first_byte_s is not None
    assert 0 < decision.first_byte_s < decision.seconds - 0.9 * STALL_S


async def test_a_hit_begins_when_it_ends(house: House) -> None:
    """It goes out in one go: the first from the slow way, later ones from the lane, told together."""
    await house.chat(stream=False)
    await house.settled()
    decisions = house.decided()
    async with await connect(house.port) as wire:
        for _ in range(6):
            await wire.send(request("POST", "/api/chat", ASK))
            assert (await wire.response()).header("X-Cache") == "EXACT"
    stats = await house.stats()

    assert any(decision.trail.startswith("lane:") for decision in decisions)
    assert [decision.first_byte_s for decision in decisions] == [decision.seconds for decision in decisions]
    assert stats["latency"]["first_bytes"]["exact"]["memory"] == stats["latency"]["outcomes"]["exact"]["memory"]
    assert await counted(house) == {"miss": 1, "exact": 6}


async def test_a_hit_that_is_sought_by_its_plan_begins_when_it_ends(
    fake_ollama: FakeOllama, clean_redis: RedisServer
) -> None:
    """Without a task of its own."""
    async with open_house(fake_ollama, clean_redis, cache={"memory": "0B"}) as house:
        async with await connect(house.port) as wire:
            for _ in range(3):
                decisions = house.decided()
                await wire.send(request("POST", "/api/chat", ASK))
                assert (await wire.response()).status == 200
                await house.settled()

        assert decisions[0].trail.startswith("plan:known")
        assert decisions[0].first_byte_s == decisions[0].seconds > 0
        assert await counted(house) == {"miss": 1, "exact": 2}


async def test_a_long_hit_begins_before_a_slow_caller_has_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first byte does not wait for its last."""
    await house.chat()
    await house.settled()
    monkeypatch.setattr(fixed, "WRITE_BYTES", 100)
    decisions = house.decided()
    await house.chat()

    assert decisions[0].first_byte_s is not None
    assert 0 < decisions[0].first_byte_s < decisions[0].seconds


@pytest.mark.parametrize("stream", [True, False])
async def test_a_hit_to_a_caller_who_ends_the_connection_has_a_first_byte(house: House, *, stream: bool) -> None:
    """The server frames it, not we."""
    await house.chat()
    await house.settled()
    decisions = house.decided()
    await house.chat(stream=stream, headers=[("Connection", "close")])

    assert decisions[0].outcome is Outcome.EXACT
    assert decisions[0].first_byte_s is not None
    assert 0 < decisions[0].first_byte_s <= decisions[0].seconds


@pytest.mark.parametrize("headers", [(), [("Connection", "close")]])
async def test_a_streamed_miss_begins_with_its_first_token(house: House, headers: Any) -> None:
    """The second one may take its time."""
    decisions = house.decided()
    await stalled(house, lambda: house.chat(headers=headers))

    assert decisions[0].outcome is Outcome.MISS
    assert_began_long_before_its_end(decisions[0])
    assert await counted(house) == {"miss": 1}


async def test_a_whole_miss_begins_when_it_is_written(house: House) -> None:
    """Nothing of it is there before all of it is."""
    decisions = house.decided()
    await stalled(house, lambda: house.chat(stream=False))

    assert decisions[0].first_byte_s is not None
    assert STALL_S * 0.9 < decisions[0].first_byte_s <= decisions[0].seconds
    assert await counted(house) == {"miss": 1}


@pytest.mark.parametrize(
    "members", [{}, {"model": f"{MODEL}:latest"}, {"stream": False}], ids=["passed on", "converted", "whole"]
)
async def test_a_joined_ask_begins_with_its_own_first_byte(house: House, members: dict[str, Any]) -> None:
    """Streamed as it comes or converted live, it has what is there at once; whole, at the end."""
    decisions = house.decided()
    house.ollama.next(Fault(stall_after_tokens=1))
    first = asyncio.create_task(house.chat())
    await house.ollama.wait_until(lambda: house.ollama.stalled == 1)
    joined = asyncio.create_task(house.chat(**members))
    await until(lambda: house.app.flights.followers == 2)
    await asyncio.sleep(STALL_S)
    house.ollama.release()
    assert (await first).complete
    assert (await joined).header("X-Cache") == "JOINED"
    told = next(one for one in decisions if one.outcome is Outcome.JOINED)

    if members == {"stream": False}:
        assert told.first_byte_s == told.seconds > 0.9 * STALL_S
    else:
        assert_began_long_before_its_end(told)
    assert await counted(house) == {"miss": 1, "joined": 1}


@pytest.mark.parametrize("stream", [True, False])
async def test_a_bypass_begins_with_the_first_byte_that_passes(house: House, *, stream: bool) -> None:
    """Streamed or whole."""
    decisions = house.decided()
    await stalled(house, lambda: house.chat(stream=stream, headers=[("Cache-Control", "no-store")]))

    assert decisions[0].outcome is Outcome.BYPASS
    if stream:
        assert_began_long_before_its_end(decisions[0])
    assert decisions[0].first_byte_s is not None
    assert await counted(house) == {"bypass": 1}


async def test_an_embed_ask_begins_when_it_is_answered(house: House) -> None:
    """From Ollama, in part, from the cache, and around it: each is one go or one piece."""
    decisions = house.decided()
    for texts in (["a"], ["b", "a"], ["a", "b"], []):
        reply = await house.ask("POST", "/api/embed", {"model": "nomic-embed-text", "input": texts})
        assert reply.status == 200
        await house.settled()

    assert [decision.outcome.value for decision in decisions] == ["miss", "miss", "exact", "bypass"]
    assert all(decision.first_byte_s and decision.first_byte_s <= decision.seconds for decision in decisions)
    assert await counted(house) == {"miss": 2, "exact": 1, "bypass": 1}


async def test_an_ask_that_is_refused_begins_with_the_refusal(house: House) -> None:
    """Its words are the body."""
    house.ollama.always(Fault(close_before_answer=True), path="/api/chat")
    decisions = house.decided()
    assert (await house.chat()).status == 502

    assert decisions[0].first_byte_s == decisions[0].seconds > 0


@pytest.mark.parametrize(
    ("tokens", "headers", "outcome"),
    [(0, (), "miss"), (0, (("Cache-Control", "no-store"),), "bypass"), (1, (), "miss")],
)
async def test_a_caller_who_left_before_any_byte_has_none(
    house: House, tokens: int, headers: tuple[tuple[str, str], ...], outcome: str
) -> None:
    """The ask is counted all the same; one who left after the first byte had it."""
    decisions = house.decided()
    house.ollama.next(Fault(stall_after_tokens=tokens))
    wire = await connect(house.port)
    await wire.send(request("POST", "/api/chat", ASK, headers=list(headers)))
    await house.ollama.wait_until(lambda: house.ollama.stalled == 1)
    if tokens:
        await wire.head()
    wire.reset()
    await until(lambda: bool(decisions))
    house.ollama.release()

    assert [decision.outcome.value for decision in decisions] == [outcome]
    assert (decisions[0].first_byte_s is not None) == bool(tokens)
    assert await counted(house) == ({outcome: 1} if tokens else {})


async def test_a_stream_that_broke_off_before_its_first_byte_has_none(house: House) -> None:
    """Its head alone is no body."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9\r\n\r\n"
    house.ollama.next(Fault(raw=head))
    decisions = house.decided()
    await house.chat(headers=[("Cache-Control", "no-store")])
    await until(lambda: bool(decisions))

    assert decisions[0].first_byte_s is None
    assert await counted(house) == {}
