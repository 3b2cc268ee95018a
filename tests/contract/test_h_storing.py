"""Conformance cases H, 97 to 108: only complete answers are kept, and equal asks in flight share one call."""

from __future__ import annotations

import asyncio
import json

import pytest

from cacheproxy.model import Outcome
from tests.fakes import wire
from tests.fakes.house import MODEL, House, open_house, until
from tests.fakes.ollama import FakeOllama, Fault, busy
from tests.fakes.redis_server import RedisServer

BODY = {"model": MODEL, "messages": [{"role": "user", "content": "why?"}]}


async def is_not_kept(house: House) -> None:
    """The same ask again is a miss, answered well."""
    await house.settled()
    house.ollama.calm()
    before = house.calls()
    again = await house.chat(stream=False)
    assert (again.header("X-Cache"), again.json()["done_reason"]) == ("MISS", "stop")
    assert house.calls() == before + 1


@pytest.mark.case(97)
async def test_an_error_in_the_middle_of_a_stream_is_passed_on_and_not_kept(house: House) -> None:
    """The caller sees Ollama's own line."""
    house.ollama.next(Fault(error_after_tokens=(2, "the model crashed")))

    reply = await house.chat()

    assert (reply.status, reply.complete) == (200, True)
    assert reply.lines()[-1] == {"error": "the model crashed"}
    await is_not_kept(house)


@pytest.mark.case(98)
async def test_a_stream_that_ends_in_silence_is_not_kept(house: House) -> None:
    """A clean end without `done`."""
    house.ollama.next(Fault(silent_end_after_tokens=2))

    reply = await house.chat()

    assert reply.complete
    assert not any(line["done"] for line in reply.lines())
    await is_not_kept(house)


@pytest.mark.case(98)
async def test_a_whole_reply_that_is_not_done_is_not_kept(house: House) -> None:
    """Ollama answers 200 with `done: false`."""
    house.ollama.next(Fault(silent_end_after_tokens=2))

    reply = await house.chat(stream=False)

    assert (reply.status, reply.json()["done"]) == (200, False)
    await is_not_kept(house)


@pytest.mark.case(99)
@pytest.mark.fault(45)
@pytest.mark.parametrize("cut_after_bytes", [120, 400, 700, 1001, 1500])
async def test_a_reply_that_is_cut_off_is_cut_off_for_the_caller_too(house: House, cut_after_bytes: int) -> None:
    """Nothing a client could take for a proper end; and nothing is kept."""
    house.ollama.next(Fault(cut_after_bytes=cut_after_bytes))

    async with await wire.connect(house.port) as client:
        await client.send(wire.request("POST", "/api/chat", BODY))
        try:
            reply = await client.response()
        except asyncio.IncompleteReadError:
            reply = None  # cut inside the head: the proxy may answer 502 or close

    assert reply is None or reply.status == 502 or not reply.complete
    await is_not_kept(house)


@pytest.mark.case(100)
@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize("stream", [True, False])
async def test_an_error_instead_of_an_answer_has_its_real_status(house: House, status: int, stream: bool) -> None:
    """The status is decided before the first byte."""
    house.ollama.next(Fault(error_first=(status, "cannot load model")))

    reply = await house.chat(stream=stream)

    assert (reply.status, reply.json()) == (status, {"error": "cannot load model"})
    await is_not_kept(house)


@pytest.mark.case(101)
@pytest.mark.fault(52)
async def test_a_busy_ollama_is_reported_word_for_word_and_asked_once(house: House) -> None:
    """503 with two spaces, and no retry."""
    house.ollama.next(busy())

    reply = await house.chat()

    assert reply.status == 503
    assert reply.json() == {"error": "server busy, please try again.  maximum pending requests exceeded"}
    assert house.calls() == 1
    await is_not_kept(house)


@pytest.mark.case(103)
async def test_a_truncated_answer_is_not_kept(house: House) -> None:
    """done_reason `length`: cut at the token limit."""
    house.ollama.next(Fault(done_reason="length"))

    reply = await house.chat(stream=False)

    assert reply.json()["done_reason"] == "length"
    await is_not_kept(house)


@pytest.mark.case(103)
async def test_a_truncated_answer_is_kept_where_config_says_so(
    fake_ollama: FakeOllama, clean_redis: RedisServer
) -> None:
    """And says `length` again."""
    async with open_house(fake_ollama, clean_redis, cache={"store_truncated": True}) as house:
        fake_ollama.next(Fault(done_reason="length"))
        await house.chat(stream=False)
        await house.settled()

        hit = await house.chat(stream=False)

    assert (hit.header("X-Cache"), hit.json()["done_reason"]) == ("EXACT", "length")


@pytest.mark.case(104)
@pytest.mark.fault(65)
async def test_the_only_caller_leaving_ends_the_call_to_ollama(house: House) -> None:
    """Within a second, and nothing is kept."""
    house.ollama.next(Fault(tokens_per_second=20))
    async with await wire.connect(house.port) as client:
        await client.send(wire.request("POST", "/api/chat", BODY))
        reply = await client.head()
        await client.chunk(reply)

    await house.ollama.wait_until(lambda: house.ollama.aborted == 1, timeout_s=1)
    await is_not_kept(house)


@pytest.mark.case(105)
@pytest.mark.fault(66)
async def test_the_first_of_two_equal_asks_may_leave(house: House) -> None:
    """The second gets everything, it is kept, and Ollama was asked once."""
    house.ollama.next(Fault(stall_after_tokens=2))
    first = await wire.connect(house.port)
    await first.send(wire.request("POST", "/api/chat", BODY))
    await house.ollama.wait_until(lambda: house.ollama.stalled == 1)
    second = asyncio.create_task(house.chat())
    await until(lambda: followers(house) == 2)

    first.reset()
    await until(lambda: followers(house) == 1)
    house.ollama.release()
    reply = await second

    assert (reply.header("X-Cache"), reply.lines()[-1]["done"]) == ("JOINED", True)
    assert "collapsed" in (reply.header("Cache-Status") or "")
    await house.settled()
    assert (await house.chat()).header("X-Cache") == "EXACT"
    assert house.calls() == 1


@pytest.mark.case(106)
async def test_who_joins_in_the_middle_gets_the_whole_answer(house: House) -> None:
    """From the first token on, and live: before the answer is complete."""
    house.ollama.next(Fault(stall_after_tokens=3))
    first = asyncio.create_task(house.chat())
    await house.ollama.wait_until(lambda: house.ollama.stalled == 1)
    async with await wire.connect(house.port) as late:
        await late.send(wire.request("POST", "/api/chat", BODY))
        reply = await late.head()
        while reply.body.count(b"\n") < 3:
            await late.chunk(reply)
        house.ollama.release()
        while await late.chunk(reply):
            pass

    assert reply.body == (await first).body
    assert house.calls() == 1


@pytest.mark.case(107)
async def test_equal_asks_of_both_forms_share_one_call(house: House) -> None:
    """One streams, one does not, one spells the model otherwise: each gets its own form of one answer."""
    house.ollama.next(Fault(stall_after_tokens=2))
    stream = asyncio.create_task(house.chat())
    await house.ollama.wait_until(lambda: house.ollama.stalled == 1)
    whole = asyncio.create_task(house.chat(stream=False))
    spelt = asyncio.create_task(house.chat(model="LLAMA3.2"))
    await until(lambda: followers(house) == 3)
    house.ollama.release()

    text = "".join(line["message"]["content"] for line in (await stream).lines())
    assert (await whole).header("Content-Type") == "application/json; charset=utf-8"
    assert (await whole).json()["message"]["content"] == text
    assert "".join(line["message"]["content"] for line in (await spelt).lines()) == text
    assert {line["model"] for line in (await spelt).lines()} == {"LLAMA3.2"}
    assert house.calls() == 1


@pytest.mark.case(107)
async def test_a_stream_may_join_a_whole_reply(house: House) -> None:
    """It comes at the end, in the caller's form."""
    house.ollama.next(Fault(stall_after_tokens=2))
    whole = asyncio.create_task(house.chat(stream=False))
    await house.ollama.wait_until(lambda: house.ollama.stalled == 1)
    stream = asyncio.create_task(house.chat())
    await until(lambda: followers(house) == 2)
    house.ollama.release()

    lines = (await stream).lines()
    assert len(lines) >= 2
    assert "".join(line["message"]["content"] for line in lines) == (await whole).json()["message"]["content"]
    assert house.calls() == 1


@pytest.mark.case(107)
async def test_a_joined_whole_reply_tells_of_an_error_in_the_stream(house: House) -> None:
    """As Ollama does for `stream: false`: status 500 and the error."""
    house.ollama.next(Fault(stall_after_tokens=1, error_after_tokens=(2, "the model crashed")))
    stream = asyncio.create_task(house.chat())
    await house.ollama.wait_until(lambda: house.ollama.stalled == 1)
    whole = asyncio.create_task(house.chat(stream=False))
    await until(lambda: followers(house) == 2)
    house.ollama.release()

    assert ((await whole).status, (await whole).json()) == (500, {"error": "the model crashed"})
    assert (await stream).lines()[-1] == {"error": "the model crashed"}


@pytest.mark.case(108)
async def test_leaving_while_the_model_loads_does_not_abort_the_load_for_others(
    house: House,
) -> None:
    """Ollama aborts a load whose last client leaves."""
    house.ollama.next(Fault(stall_after_tokens=0))
    first = await wire.connect(house.port)
    await first.send(wire.request("POST", "/api/chat", BODY))
    await house.ollama.wait_until(lambda: house.ollama.stalled == 1)
    second = asyncio.create_task(house.chat())
    await until(lambda: followers(house) == 2)
    first.reset()
    await until(lambda: followers(house) == 1)
    house.ollama.release()

    assert (await second).lines()[-1]["done"] is True
    assert house.ollama.aborted == 0


@pytest.mark.fault(98)
async def test_a_thousand_equal_asks_cost_one_call(house: House) -> None:
    """Each gets the whole answer, and each is counted once."""
    house.ollama.next(Fault(stall_after_tokens=1))
    asks = [asyncio.create_task(house.chat()) for _ in range(1000)]
    await until(lambda: followers(house) == 1000, timeout_s=20)
    await house.ollama.wait_until(lambda: house.ollama.stalled == 1)
    house.ollama.release()
    replies = await asyncio.gather(*asks)

    assert len({reply.body for reply in replies}) == 1
    assert house.calls() == 1
    stats = await house.stats()
    assert (stats["asks"], stats["outcomes"]) == (1000, dict.fromkeys(Outcome, 0) | {"miss": 1, "joined": 999})


async def test_an_answer_larger_than_may_be_kept_is_passed_on_whole(
    fake_ollama: FakeOllama, clean_redis: RedisServer
) -> None:
    """Every byte arrives, and the next ask is a miss."""
    async with open_house(fake_ollama, clean_redis, cache={"answer_max": "100kB"}) as house:
        fake_ollama.next(Fault(text="x" * 300_000))

        reply = await house.chat()

        assert len(reply.lines()[0]["message"]["content"]) == 300_000
        assert json.loads(reply.body.splitlines()[-1])["done"] is True
        await is_not_kept(house)


def followers(house: House) -> int:
    """Callers following the one flight under way."""
    return house.app.flights.followers
