"""Where two asks meet, no one gets what belongs to another ask, or to a time before a purge."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cacheproxy.demo.ollama import expected_text
from cacheproxy.model import Entry
from cacheproxy.wire import canonical
from tests.fakes.house import MODEL, House, near_ready, open_house, until
from tests.fakes.ollama import FakeOllama, Fault
from tests.fakes.redis_server import RedisServer


def own_answer(house: House, question: str) -> str:
    """What the stand-in says to exactly this question."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": question}], "stream": False}
    return expected_text("/api/chat", json.dumps(body).encode(), digest=house.ollama.digest(MODEL))


@pytest.mark.fault(94)
async def test_asks_whose_keys_collide_do_not_join_each_other(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """xxh3 can be made to collide on purpose: a flight is proven like an entry before anybody gets its answer."""
    monkeypatch.setattr(canonical.xxhash, "xxh3_128_hexdigest", lambda _material: "0" * 32)
    house.ollama.next(Fault(stall_after_tokens=1))
    first = asyncio.create_task(house.chat("first?", stream=False))
    await house.ollama.wait_until(lambda: house.ollama.stalled == 1)
    second = asyncio.create_task(house.chat("second?", stream=False))
    await house.ollama.wait_until(lambda: house.calls() == 2)
    house.ollama.release()

    for question, reply in {"first?": await first, "second?": await second}.items():
        assert reply.json()["message"]["content"] == own_answer(house, question)


@pytest.mark.fault(130)
async def test_an_ask_after_a_purge_does_not_join_a_flight_from_before(house: House) -> None:
    """What was being answered when somebody purged is as old as what was stored."""
    house.ollama.next(Fault(stall_after_tokens=1))
    before = asyncio.create_task(house.chat(stream=False))
    await house.ollama.wait_until(lambda: house.ollama.stalled == 1)
    assert (await house.admin("DELETE", "/entries?all=true")).status == 200

    after = await house.chat(stream=False)
    house.ollama.release()

    assert (after.header("X-Cache"), (await before).header("X-Cache")) == ("MISS", "MISS")


class Gate:
    """Stops a call on its way: `reached` is set when it comes, and it goes on once `opened` is."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    async def passed(self) -> None:
        """What the call waits for."""
        self.reached.set()
        await self.opened.wait()

    def before(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """The call, stopped before it does anything."""

        async def stopped(*args: Any, **named: Any) -> Any:
            await self.passed()
            return await call(*args, **named)

        return stopped

    def after(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """The call, stopped before it returns."""

        async def stopped(*args: Any, **named: Any) -> Any:
            result = await call(*args, **named)
            await self.passed()
            return result

        return stopped


def answers_in(house: House) -> list[Any]:
    """Keys of the entries in Redis."""
    assert house.redis is not None
    found: list[Any] = house.redis.call("KEYS", "cacheproxy:answer:*")
    return found


@pytest.mark.fault(130)
async def test_an_answer_on_its_way_to_redis_during_a_purge_does_not_stay(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its write comes when the purge has already looked everywhere."""
    gate = Gate()
    monkeypatch.setattr(house.app.exact, "put", gate.before(house.app.exact.put))
    await house.chat(stream=False)
    await gate.reached.wait()
    assert (await house.admin("DELETE", "/entries?all=true")).status == 200
    gate.opened.set()
    await house.settled()

    assert (answers_in(house), len(house.app.memory)) == ([], 0)


@pytest.mark.fault(130)
async def test_an_entry_read_during_a_purge_does_not_come_back_to_memory(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ask that read it may have it; later ones may not."""
    await house.chat(stream=False)
    await house.settled()
    house.app.memory.clear()
    gate = Gate()
    monkeypatch.setattr(house.app.exact, "get", gate.after(house.app.exact.get))
    reader = asyncio.create_task(house.chat(stream=False))
    await gate.reached.wait()
    await house.admin("DELETE", "/entries?all=true")
    gate.opened.set()
    await reader

    assert len(house.app.memory) == 0


@pytest.mark.fault(130)
async def test_an_answer_another_proxy_was_fetching_during_a_purge_is_not_kept(
    house: House, fake_ollama: FakeOllama, clean_redis: RedisServer
) -> None:
    """That proxy has not yet heard of the purge when it stores."""
    async with open_house(fake_ollama, clean_redis) as other:
        await other.app.connection._heart.stop()
        fake_ollama.next(Fault(stall_after_tokens=1))
        asked = asyncio.create_task(other.chat(stream=False))
        await fake_ollama.wait_until(lambda: fake_ollama.stalled == 1)
        await house.admin("DELETE", "/entries?all=true")
        fake_ollama.release()
        await asked
        await other.settled()

        assert (answers_in(house), len(other.app.memory)) == ([], 0)


async def test_an_answer_written_before_a_purge_is_not_served_after_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis has written it, and has told so only after the purge."""
    write = house.app.exact.put

    async def write_then_purge(entry: Entry, *, stale_s: float, epoch: int) -> int | None:
        size_bytes = await write(entry, stale_s=stale_s, epoch=epoch)
        await house.admin("DELETE", "/entries?all=true")
        return size_bytes

    monkeypatch.setattr(house.app.exact, "put", write_then_purge)
    await house.chat(stream=False)
    await house.settled()
    monkeypatch.undo()

    assert len(house.app.memory) == 0
    assert (await house.chat(stream=False)).header("X-Cache") == "MISS"


@pytest.mark.fault(130)
async def test_what_another_proxy_read_while_a_long_purge_went_on_is_forgotten_there(
    house: House, fake_ollama: FakeOllama, clean_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hears of the purge, forgets all, and then reads an entry that is yet to be deleted."""
    await house.chat(stream=False)
    await house.settled()
    async with open_house(fake_ollama, clean_redis) as other:
        gate = Gate()
        monkeypatch.setattr(house.app.exact, "_delete", gate.before(house.app.exact._delete))
        purge = asyncio.create_task(house.admin("DELETE", "/entries?all=true"))
        await gate.reached.wait()
        await until(lambda: other.app.exact.epoch == house.app.exact.epoch)
        assert (await other.chat(stream=False)).header("X-Cache") == "EXACT"
        gate.opened.set()
        await purge
        await until(lambda: other.app.exact.epoch == house.app.exact.epoch)

        assert (await other.chat(stream=False)).header("X-Cache") == "MISS"


@pytest.mark.parametrize(("memory", "step"), [("64MB", "memory:landed"), ("0B", "near:itself")])
async def test_an_answer_that_lands_while_an_equal_ask_looks_is_an_exact_hit(
    fake_ollama: FakeOllama, clean_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, memory: str, step: str
) -> None:
    """Found by meaning, it would lack its context; asked for again, it would cost Ollama the same once more."""
    async with open_house(
        fake_ollama, clean_redis, cache={"memory": memory, "headers": "trail"}, semantic={"mode": "serve"}
    ) as house:
        await near_ready(house)
        house.ollama.next(Fault(stall_after_tokens=1))
        first = asyncio.create_task(house.generate("why is the sky blue?", stream=False))
        await house.ollama.wait_until(lambda: house.ollama.stalled == 1)
        gate = Gate()
        monkeypatch.setattr(house.app.exact, "get", gate.after(house.app.exact.get))
        second = asyncio.create_task(house.generate("why is the sky blue?", stream=False))
        await gate.reached.wait()
        house.ollama.release()
        await first
        await until(lambda: len(answers_in(house)) == 1)
        await until(lambda: not house.app.flights)
        gate.opened.set()
        reply = await second

    assert (reply.header("X-Cache"), house.calls("/api/generate")) == ("EXACT", 1)
    assert step in (reply.header("X-Cache-Trail") or "")
    assert reply.json()["context"]
