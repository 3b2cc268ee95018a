"""What people say of semantic hits is acted on to the end, or can be said again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from cacheproxy.errors import StoreUnavailableError
from cacheproxy.store import served as module
from cacheproxy.store.served import Pairing
from tests.fakes.house import House, open_house, until
from tests.fakes.ollama import FakeOllama
from tests.fakes.redis_server import RedisServer
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


@pytest_asyncio.fixture
async def near(fake_ollama: FakeOllama, clean_redis: RedisServer) -> AsyncIterator[House]:
    """An open proxy that answers by meaning."""
    async with open_house(fake_ollama, clean_redis, semantic={"mode": "serve"}) as house:
        yield house


async def served(near: House, *asked: str) -> None:
    """The entry of *stored* has answered these questions, in this order."""
    apart = near.app.feedback.apart
    await until(lambda: apart.known)
    for question in asked:
        pairing = Pairing("scope", apart.hashed("stored"), apart.hashed(question))
        await near.app.feedback.served.put("0a" * 16, pairing, ttl_s=60)


def kept_apart(near: House, *asked: str) -> list[str]:
    """Those of the questions that no longer match *stored*."""
    return [question for question in asked if near.app.feedback.apart.is_apart(question, "stored", "scope")]


async def test_without_a_question_only_the_last_that_was_served_is_kept_apart(near: House) -> None:
    """The caller has just got it; what the entry answered rightly before may match again."""
    await served(near, "right", "wrong", "also right", "wrong")

    assert await near.app.feedback.bad("0a" * 16) == (0, 1)
    assert kept_apart(near, "right", "wrong", "also right") == ["wrong"]


async def test_a_named_question_alone_is_kept_apart_and_others_may_be_named_later(near: House) -> None:
    """Whoever else was served wrongly can still say so once the entry is gone."""
    await served(near, "wrong", "right", "as wrong", "last")

    assert await near.app.feedback.bad("0a" * 16, "wrong") == (0, 1)
    assert kept_apart(near, "wrong", "right", "as wrong", "last", "Wrong") == ["wrong"]
    assert await near.app.feedback.bad("0a" * 16, "as wrong") == (0, 1)
    assert kept_apart(near, "wrong", "right", "as wrong", "last") == ["wrong", "as wrong"]


async def test_a_purge_of_everything_keeps_the_pairs(near: House) -> None:
    """The answers go; what somebody said of two questions stays."""
    await served(near, "wrong")
    await near.app.feedback.bad("0a" * 16)
    assert (await near.admin("DELETE", "/entries?all=true")).status == 200

    fresh = await near.app.feedback.apart._read()
    assert len(fresh) == 1
    assert kept_apart(near, "wrong") == ["wrong"]


async def test_questions_served_long_ago_are_forgotten_first(near: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their number is bounded, and the last is always known."""
    monkeypatch.setattr(module, "ASKED_MAX", 2)
    await served(near, "one", "two", "three")

    assert await near.app.feedback.bad("0a" * 16) == (0, 1)
    assert kept_apart(near, "one", "two", "three") == ["three"]


@pytest.mark.parametrize("question", [5, ["x"], "\ud800"])
async def test_a_question_that_is_no_text_is_refused(near: House, question: object) -> None:
    """And nothing is deleted."""
    body = {"entry": "0a" * 16, "good": False, "question": question}
    reply = await near.admin("POST", "/feedback", body=body)

    assert reply.status == 400
    assert '"question"' in reply.json()["error"]


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


@pytest.mark.parametrize(("body", "status"), [(b"[" * 60_000, 400), (b'"' + b"x" * 70_000 + b'"', 413)])
async def test_feedback_that_cannot_be_read_is_refused_as_what_it_is(house: House, body: bytes, status: int) -> None:
    """Nested too deep is no JSON, and what is too long is not called that."""
    told = await house.admin("POST", "/feedback", body=body)

    assert told.status == status
    assert '"entry"' in told.json()["error"]
