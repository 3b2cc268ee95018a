"""What people say of semantic hits is acted on to the end, or can be said again."""

from __future__ import annotations

import asyncio

import pytest

from cacheproxy.errors import StoreUnavailableError
from cacheproxy.store.served import Pairing
from tests.fakes.house import House
from tests.fakes.wire import connect


async def test_feedback_that_broke_off_is_acted_on_when_it_is_said_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis went away in between: what the entry had answered is still known."""
    feedback = house.app.feedback
    await feedback.served.put("0a" * 16, Pairing("scope", "stored", "asked"), ttl_s=60)

    async def away(*_: object) -> None:
        raise StoreUnavailableError("away")

    with monkeypatch.context() as patch:
        patch.setattr(feedback.apart, "put", away)
        with pytest.raises(StoreUnavailableError):
            await feedback.bad("0a" * 16)

    assert await feedback.bad("0a" * 16) == (0, 1)
    assert await feedback.bad("0a" * 16) == (0, 0)


async def test_feedback_may_come_in_pieces(house: House) -> None:
    """A body is over when its head says so, not at the first of its segments."""
    body = b'{"entry": "' + b"0a" * 16 + b'", "good": true}'
    async with await connect(house.admin_port) as wire:
        head = b"POST /feedback HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
        await wire.send(head + body[:20])
        await asyncio.sleep(0.05)  # so that it is a segment of its own
        await wire.send(body[20:])
        reply = await wire.response()

    assert reply.json() == {"entry": "0a" * 16, "good": True}


async def test_feedback_on_an_entry_that_never_was_is_refused_and_not_counted(house: House) -> None:
    """A mistyped name must not look like something that was done."""
    told = await house.admin("POST", "/feedback", body={"entry": "0b" * 16, "good": False})

    assert told.status == 404
    assert told.json() == {"error": "no such entry"}
    assert (await house.stats())["feedback"] == {}
