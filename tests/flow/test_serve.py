"""The story of one ask, where two of them meet: no one gets what belongs to another ask, or to a time before a purge."""

from __future__ import annotations

import asyncio
import json

import pytest

from cacheproxy.demo.ollama import expected_text
from cacheproxy.wire import canonical
from tests.fakes.house import MODEL, House
from tests.fakes.ollama import Fault


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
