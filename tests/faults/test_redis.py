"""Faults A: whatever Redis does, every caller gets the right, whole answer to what was asked."""

from __future__ import annotations

import asyncio
import socket

import pytest

from cacheproxy.model import Decision
from tests.fakes import wire
from tests.fakes.house import House, near_ready, open_house, until
from tests.fakes.ollama import FakeOllama
from tests.fakes.redis_server import RedisServer, running_redis
from tests.faults.load import Load

FAST = {"timeout": "50ms"}


@pytest.fixture
def redis(tmp_path):
    """A Redis of this test's own, to be killed, frozen and emptied."""
    with running_redis(tmp_path) as server:
        yield server


async def hits_again(load: Load, timeout_s: float = 6.0) -> None:
    """Wait until exact hits are served (from Redis or memory) after a fault."""
    before = load.outcomes["EXACT"]
    await until(lambda: load.outcomes["EXACT"] > before + 5, timeout_s)


@pytest.mark.fault(1)
async def test_redis_killed_under_load(fake_ollama: FakeOllama, redis: RedisServer) -> None:
    """Asks go to Ollama; when it is back, hits come back by themselves."""
    async with open_house(fake_ollama, redis, redis=FAST) as house, Load(house) as load:
        await load.until_replies(200)
        await asyncio.to_thread(redis.kill)
        await load.until_replies(100)
        await asyncio.to_thread(redis.start)
        await until(lambda: house.app.connection.state == "up")
        await hits_again(load)
        await load.until_replies(100)

    assert load.wrong == []


@pytest.mark.fault(2)
async def test_redis_frozen_under_load(fake_ollama: FakeOllama, redis: RedisServer) -> None:
    """No ask waits longer for a frozen Redis than the deadline and what Ollama takes."""
    async with open_house(fake_ollama, redis, redis=FAST) as house, Load(house) as load:
        await load.until_replies(200)
        load.slowest_s = 0.0
        redis.freeze()
        try:
            await load.until_replies(200)
            slowest_s = load.slowest_s
        finally:
            redis.thaw()
        await until(lambda: house.app.connection.state == "up")
        await hits_again(load)

    assert load.wrong == []
    assert slowest_s < 1.0  # twelve workers on two cores; a default redis-py waits 59 s


@pytest.mark.fault(4)
async def test_redis_that_comes_late_is_taken(fake_ollama: FakeOllama, redis: RedisServer) -> None:
    """The proxy starts without it and serves hits once it is there."""
    redis.kill()
    async with open_house(fake_ollama, redis, redis=FAST) as house, Load(house, workers=4) as load:
        await load.until_replies(50)
        assert load.outcomes["EXACT"] == 0
        assert "redis" in (await house.admin("GET", "/readyz")).json()["degraded"]
        await asyncio.to_thread(redis.start)
        await hits_again(load)

    assert load.wrong == []


@pytest.mark.fault(5)
async def test_a_redis_that_never_answers_costs_one_deadline(fake_ollama: FakeOllama) -> None:
    """A black hole: it accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as hole:
        url = f"redis://127.0.0.1:{hole.getsockname()[1]}/0"
        async with open_house(fake_ollama, None, redis=FAST | {"url": url}) as house, Load(house, workers=4) as load:
            await load.until_replies(100)

    assert load.wrong == []
    assert load.slowest_s < 1.0


@pytest.mark.fault(3)
async def test_an_ask_that_is_looked_up_twice_waits_one_deadline_for_a_redis_that_never_answers(
    fake_ollama: FakeOllama, redis: RedisServer
) -> None:
    """By its key and by its meaning: what the first look-up took is not there for the second."""
    async with open_house(fake_ollama, redis, redis={"timeout": 0.4}, semantic={"mode": "serve"}) as house:
        await near_ready(house)
        decisions: list[Decision] = []
        house.app.decisions.listeners.append(lambda decision, _: decisions.append(decision))
        redis.freeze()
        try:
            reply = await house.chat("why is the sky blue?", stream=False)
        finally:
            redis.thaw()
        await until(lambda: bool(decisions))

    steps = decisions[0].timings_s
    assert reply.header("X-Cache") == "MISS"
    assert "exact:away" in decisions[0].trail
    assert "near:away" in decisions[0].trail
    assert 0.35 < steps["exact"] + steps["semantic"] < 0.7


@pytest.mark.fault(10)
async def test_redis_restarted_empty(fake_ollama: FakeOllama, redis: RedisServer) -> None:
    """What was stored is gone, here too; it is stored anew."""
    async with open_house(fake_ollama, redis, redis=FAST) as house:
        await house.chat(stream=False)
        await house.settled()
        redis.kill()
        await until(lambda: house.app.connection.state != "up")
        await asyncio.to_thread(redis.start)
        assert redis.call("KEYS", "cacheproxy:answer:*") == []
        await until(lambda: house.app.connection.state == "up" and len(house.app.memory) == 0)

        seen = []
        for _ in range(2):
            seen.append((await house.chat(stream=False)).header("X-Cache"))
            await house.settled()

    assert seen == ["MISS", "EXACT"]


@pytest.mark.fault(12)
async def test_flushall_under_load_ends_the_hits_of_this_process_too(
    fake_ollama: FakeOllama, redis: RedisServer
) -> None:
    """Within two heartbeats nothing is served that Redis no longer holds."""
    async with open_house(fake_ollama, redis, redis=FAST) as house:
        await house.chat(stream=False)
        await house.settled()
        redis.call("FLUSHALL")
        await until(lambda: len(house.app.memory) == 0, timeout_s=3)

        assert (await house.chat(stream=False)).header("X-Cache") == "MISS"


@pytest.mark.fault(9)
async def test_callers_that_leave_at_any_moment_harm_nobody(fake_ollama: FakeOllama, redis: RedisServer) -> None:
    """Half of the callers drop their connection at a random moment; all others get what they asked for."""
    async with open_house(fake_ollama, redis, redis=FAST) as house, Load(house, workers=6) as load:

        async def leave(number: int) -> None:
            async with await wire.connect(house.port) as client:
                body = {"model": "llama3.2", "messages": [{"role": "user", "content": f"question {number % 60}?"}]}
                await client.send(wire.request("POST", "/api/chat", body))
                await asyncio.sleep(number % 7 / 2000)
                client.reset()

        for start in range(0, 600, 20):
            await asyncio.gather(*(leave(start + step) for step in range(20)))
        await load.until_replies(100)
        await until(lambda: len(house.app.flights) <= 6)

    assert load.wrong == []


@pytest.mark.fault(21)
@pytest.mark.parametrize("damage", ["flip", "cut", "version", "foreign", "other-entry"])
async def test_damaged_entries_are_misses_and_are_replaced(house: House, damage: str) -> None:
    """Bytes under our keys that are not what we wrote are never served."""
    first = await house.chat("one?", stream=False)
    await house.chat("two?", stream=False)
    await house.settled()
    assert house.redis is not None
    one, two = house.redis.call("KEYS", "cacheproxy:answer:*")
    copies = {one: house.redis.call("DUMP", two), two: house.redis.call("DUMP", one)}
    for key, other in copies.items():
        spoil(house.redis, key, damage, other)
    house.app.memory.clear()

    again = await house.chat("one?", stream=False)
    await house.settled()
    hit = await house.chat("one?", stream=False)

    assert (again.header("X-Cache"), hit.header("X-Cache")) == ("MISS", "EXACT")
    assert again.json()["message"] == hit.json()["message"] == first.json()["message"]


def spoil(redis: RedisServer, key: bytes, damage: str, other: bytes) -> None:
    """Damage one entry."""
    if damage == "flip":
        redis.call("HSET", key, "check", bytes(32))
    elif damage == "cut":
        redis.call("HSET", key, "answer", b'{"text":"half')
    elif damage == "version":
        redis.call("HSET", key, "v", b"99")
    elif damage == "foreign":
        redis.call("SET", key, b"\x00\xff" * 500)
    else:
        redis.call("RESTORE", key, 0, other, "REPLACE")
