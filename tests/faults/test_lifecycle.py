"""Faults G: how the process ends, and what it leaves behind."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from cacheproxy.config import Redis
from cacheproxy.store.embedded import Embedded
from tests.fakes import wire
from tests.fakes.house import MODEL, open_house, until
from tests.fakes.ollama import FakeOllama, Fault
from tests.fakes.process import Process, serving
from tests.fakes.redis_server import RedisServer
from tests.fakes.stopwatch import Stopwatch
from tests.fakes.wire import Response

BODY = {"model": MODEL, "messages": [{"role": "user", "content": "why?"}]}


async def chat(process: Process, question: str, **members: object) -> Response:
    """One chat turn."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": question}], "stream": False} | members
    return await wire.ask(process.port, "POST", "/api/chat", body)


async def kept(process: Process, question: str) -> str | None:
    """`X-Cache` of a question that was asked before, once keeping it is over."""
    for _ in range(100):
        outcome = (await chat(process, question)).header("X-Cache")
        if outcome != "JOINED":
            return outcome
        await asyncio.sleep(0.01)
    return outcome


@pytest.mark.fault(112)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_replies_under_way_are_finished_before_the_end(
    fake_ollama: FakeOllama, tmp_path: Path, number: signal.Signals
) -> None:
    """Twenty streams in flight: all end whole, new callers are refused, the exit code is 0."""
    fake_ollama.scheduler.parallel = 20
    async with serving(fake_ollama.url, tmp_path, CACHEPROXY_UPSTREAM__PARALLEL="20") as process:
        fake_ollama.always(Fault(stall_after_tokens=2))
        asks = [asyncio.create_task(chat(process, f"question {n}?", stream=True)) for n in range(20)]
        await fake_ollama.wait_until(lambda: fake_ollama.stalled == 20)
        process.signal(number)
        await refused(process)
        fake_ollama.calm()
        replies = await asyncio.gather(*asks)

        assert all(reply.complete and reply.lines()[-1]["done"] for reply in replies)
        assert await process.wait() == 0


async def refused(process: Process) -> None:
    """Wait until nobody listens any more."""
    for _ in range(200):
        try:
            (await wire.connect(process.port)).close()
        except OSError:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it still accepts connections")


@pytest.mark.fault(113)
async def test_a_second_signal_ends_it_at_once(fake_ollama: FakeOllama, tmp_path: Path) -> None:
    """Whoever presses Ctrl-C twice means it."""
    async with serving(fake_ollama.url, tmp_path) as process:
        fake_ollama.always(Fault(stall_after_tokens=2))
        ask = asyncio.create_task(chat(process, "why?", stream=True))
        await fake_ollama.wait_until(lambda: fake_ollama.stalled == 1)
        process.signal(signal.SIGINT)
        await refused(process)
        watch = Stopwatch()
        process.signal(signal.SIGINT)
        await process.wait()

        assert watch.seconds < 5
        assert not (await ask).complete


async def test_answers_survive_a_restart_and_ollama_being_away(tmp_path: Path) -> None:
    """Started anew, without Ollama, what was asked before is still a hit."""
    ollama = FakeOllama()
    await ollama.open()
    async with serving(ollama.url, tmp_path) as process:
        await chat(process, "why?")
        assert await kept(process, "why?") == "EXACT"
        process.signal(signal.SIGTERM)
        assert await process.wait() == 0
    await ollama.close()

    async with serving(ollama.url, tmp_path) as process:
        assert (await chat(process, "why?")).header("X-Cache") == "EXACT"
        assert (await chat(process, "something else?")).status == 502


async def test_hits_of_a_start_without_ollama_count_under_their_model(
    fake_ollama: FakeOllama, clean_redis: RedisServer
) -> None:
    """Its list of models is remembered, and with it what may be named in a count."""
    async with open_house(fake_ollama, clean_redis) as house:
        await house.chat(stream=False)
        await house.settled()
    fake_ollama.always(Fault(close_before_answer=True))
    fake_ollama.tags_down()
    async with open_house(fake_ollama, clean_redis, ready=False) as house:
        await until(lambda: house.app.models.known(MODEL) is not None)
        assert (await house.chat(stream=False)).header("X-Cache") == "EXACT"

        assert list((await house.stats())["models"]) == [f"{MODEL}:latest"]


@pytest.mark.fault(39)
async def test_a_proxy_killed_while_it_writes_leaves_no_immortal_entry(fake_ollama: FakeOllama, tmp_path: Path) -> None:
    """Killed at any moment, five times: each entry in Redis has an end."""
    for round_number in range(1, 6):
        async with serving(fake_ollama.url, tmp_path, CACHEPROXY_UPSTREAM__PARALLEL="8") as process:
            goal = fake_ollama.calls["/api/chat"] + 150
            asks = [asyncio.create_task(ask_on(process, f"{round_number}.{worker}")) for worker in range(8)]
            await fake_ollama.wait_until(lambda goal=goal: fake_ollama.calls["/api/chat"] > goal, timeout_s=60.0)
            process.child.kill()
            await process.wait()
            for ask in asks:
                ask.cancel()
            await asyncio.gather(*asks, return_exceptions=True)

    assert await lifetimes_ms(tmp_path) > 0


async def ask_on(process: Process, name: str) -> None:
    """Ask new questions until nobody answers."""
    with suppress(OSError, asyncio.IncompleteReadError):
        for number in range(500):
            await chat(process, f"question {name}.{number}?")


async def lifetimes_ms(data_dir: Path) -> int:
    """The number of entries in the data directory, none of which may be without an end."""
    import redis.asyncio

    server = Embedded(Redis(data_dir=str(data_dir)))
    await server.open()
    client = redis.asyncio.Redis.from_url(server.url)
    try:
        while (await client.info("persistence"))["loading"]:  # noqa: ASYNC110 - Redis announces no end of it
            await asyncio.sleep(0.01)
        keys = [key async for key in client.scan_iter("cacheproxy:answer:*")]
        ends = [await client.pttl(key) for key in keys]
    finally:
        await client.aclose()
        await server.close()
    assert all(end > 0 for end in ends)
    return len(ends)
