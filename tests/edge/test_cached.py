"""One cacheable call beside others: a large one does not hold them up."""

from __future__ import annotations

import asyncio
import gc
import time

import pytest

from tests.fakes.house import House, until
from tests.fakes.ollama import Fault
from tests.fakes.speed import slowness
from tests.fakes.wire import connect

TURN_S_MAX = 0.05
"""Processor time the event loop may spend on one turn; without a thread the call below takes 0.2 s."""


@pytest.mark.fault(86)
@pytest.mark.parametrize(("path", "member"), [("/api/generate", b"prompt"), ("/api/embed", b"input")])
async def test_a_body_of_many_megabytes_does_not_hold_up_the_event_loop(house: House, path: str, member: bytes) -> None:
    """Reading and keying it takes 10 ms a MiB, in a thread."""
    text = b"<a href='x'>&amp;</a>" * 700_000
    house.ollama.always(Fault(raw=b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"), path=path)
    slowest_s = 0.0

    async def watch() -> None:
        nonlocal slowest_s
        while True:
            began_s = time.thread_time()
            await asyncio.sleep(0.001)
            slowest_s = max(slowest_s, time.thread_time() - began_s)

    gc.disable()  # what Python takes to look through all that the tests have loaded is no turn's
    watching = asyncio.create_task(watch())
    reply = await house.ask("POST", path, b'{"model":"llama3.2","%b":"%b"}' % (member, text))
    watching.cancel()
    gc.enable()

    assert (reply.status, reply.header("X-Cache")) == (503, "MISS")
    assert slowest_s < TURN_S_MAX * slowness()


@pytest.mark.parametrize("turn", ["miss", "hit"])
async def test_a_stream_to_an_old_client_ends_with_its_connection(house: House, turn: str) -> None:
    """HTTP/1.0 knows no chunks: nothing else tells a client that keeps connections that the reply is over."""
    if turn == "hit":
        await house.chat()
        await house.settled()
    body = b'{"model":"llama3.2","messages":[{"role":"user","content":"why?"}]}'
    head = b"POST /api/chat HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\nContent-Length: %d\r\n\r\n"
    async with await connect(house.port) as wire:
        await wire.send(head % len(body) + body)
        reply = await asyncio.wait_for(wire.reader.read(), 5)

    assert b"\r\nX-Cache: " + (b"MISS" if turn == "miss" else b"EXACT") in reply
    assert b'"done":true' in reply


async def test_an_answer_that_was_joined_and_broke_off_says_how_it_came_about(house: House) -> None:
    """The error to a caller who waits for the whole answer has the headers that every reply has."""
    house.ollama.next(Fault(stall_after_tokens=2, cut_after_bytes=600))
    streamed = asyncio.create_task(house.chat())
    await house.ollama.wait_until(lambda: house.ollama.stalled == 1)
    whole = asyncio.create_task(house.chat(stream=False))
    await until(lambda: house.app.flights.followers == 2)
    house.ollama.release()

    reply = await whole
    assert not (await streamed).complete
    assert (reply.status, reply.header("X-Cache")) == (502, "JOINED")
    assert reply.header("Cache-Status") == "cacheproxy; fwd=miss; fwd-status=200; collapsed"


async def test_a_defect_of_our_own_is_counted(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """One caller gets a 500 and its operator a number that says so; the next is served."""

    def defect(_key: str) -> bool:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(house.app.flights, "flying", defect)
        assert (await house.chat()).status == 500

    assert (await house.chat()).header("X-Cache") == "MISS"
    assert (await house.stats())["faults"]["internal"] == 1


async def test_the_time_it_takes_to_write_an_answer_is_measured(house: House) -> None:
    """Step `store` runs behind the caller, where only the metrics see it."""
    await house.chat()
    await house.settled()

    assert (await house.stats())["latency"]["steps"]["store"]["count"] == 1
