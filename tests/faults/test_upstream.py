"""Faults C: whatever Ollama does, nothing of one reply reaches another caller, and nothing incomplete is kept."""

from __future__ import annotations

import asyncio

import pytest

from cacheproxy.demo.ollama import expected_text
from tests.fakes import wire
from tests.fakes.house import House, until
from tests.fakes.ollama import POISONED_FRAMINGS, Fault, blank_lines, long_line, poisoned_connection
from tests.faults.load import Load


@pytest.mark.fault(43)
async def test_without_ollama_hits_go_on_and_the_rest_is_told_why(house: House) -> None:
    """502 in Ollama's shape, with the remedy."""
    await house.chat("known?", stream=False)
    await house.settled()
    await house.ollama.close()

    hit = await house.chat("known?", stream=False)
    other = await house.chat("unknown?", stream=False)

    assert hit.header("X-Cache") == "EXACT"
    assert other.status == 502
    assert "ollama" in other.json()["error"].lower()


async def test_an_ask_that_finds_ollama_away_has_readyz_say_so_at_once(house: House) -> None:
    """Not only when the list of models is next read, which may be seconds later."""
    before = (await house.admin("GET", "/readyz")).json()["degraded"]
    await house.ollama.close()
    assert (await house.chat("unknown?", stream=False)).status == 502

    async with asyncio.timeout(1):
        await until(lambda: not house.app.fleet.models.reachable)
    assert (await house.admin("GET", "/readyz")).json()["degraded"] != before == []


@pytest.mark.fault(51)
@pytest.mark.parametrize("framing", POISONED_FRAMINGS)
async def test_bytes_on_an_idle_connection_never_become_an_answer(house: House, framing: str) -> None:
    """An attacker's reply waits on the pooled connection; the next asks get their own."""
    house.ollama.next(poisoned_connection(framing))
    await house.chat("poisoned?", stream=False)
    await house.ollama.wait_until(lambda: house.ollama.poisoned == 1)

    for number in range(3):
        reply = await house.chat(f"next {number}?", stream=False)
        assert "EVIL" not in reply.text
        assert reply.status == 200


@pytest.mark.fault(45)
async def test_a_load_during_which_replies_are_cut_has_no_wrong_answer(house: House) -> None:
    """Every reply is whole and right, or visibly broken."""
    load = Load(house, workers=6)
    async with load:
        for cut in range(50, 1500, 37):
            house.ollama.next(Fault(cut_after_bytes=cut))
            await load.until_replies(3)

    assert [wrong for wrong in load.wrong if "instead of" in wrong] == []
    for number in range(60):
        question = f"question {number}?"
        reply = await house.chat(question, stream=False)
        body = wire.request("POST", "/", {"model": "llama3.2", "messages": [{"role": "user", "content": question}]})
        raw = body.split(b"\r\n\r\n", 1)[1]
        assert reply.json()["message"]["content"] == expected_text(
            "/api/chat", raw, digest=house.ollama.digest("llama3.2")
        )


@pytest.mark.fault(49)
@pytest.mark.parametrize("fault", [blank_lines(), long_line()])
async def test_odd_streams_pass_byte_for_byte(house: House, fault: Fault) -> None:
    """Blank lines, and a line of 10 MB: not kept, not changed."""
    house.ollama.next(fault)
    reply = await house.chat()
    await house.settled()

    assert reply.complete
    assert (await house.chat()).header("X-Cache") == "MISS"


@pytest.mark.fault(46)
@pytest.mark.fault(100)
async def test_fifty_followers_share_one_failure(house: House) -> None:
    """Ollama dies in the middle: all of them see it at once, and nobody asks again for them."""
    house.ollama.next(Fault(stall_after_tokens=2, cut_after_bytes=900))
    asks = [asyncio.create_task(house.chat()) for _ in range(50)]
    await until(lambda: house.app.flights.followers == 50)
    await house.ollama.wait_until(lambda: house.ollama.stalled == 1)
    house.ollama.release()
    async with asyncio.timeout(10):
        replies = await asyncio.gather(*asks)

    assert not any(reply.complete for reply in replies)
    assert house.calls() == 1
    await house.settled()
    assert (await house.chat()).header("X-Cache") == "MISS"
