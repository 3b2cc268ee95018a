"""Near joining, end to end: an ask gets the answer to a question in flight that means the same, or its own; never less.

With the real embedder, a real search index and real sockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from cacheproxy.demo.ollama import expected_text
from cacheproxy.model import Outcome
from tests.fakes import wire
from tests.fakes.house import MODEL, House, open_house, until
from tests.fakes.ollama import FakeOllama, Fault
from tests.fakes.redis_server import RedisServer
from tests.fakes.replies import said
from tests.fakes.wire import Response

QUESTION = "How do I reset my password?"
REWORDED = "How can I reset my password?"
JOIN = {"mode": "serve", "join": True}
STALL = Fault(stall_after_tokens=1)


@pytest_asyncio.fixture
async def near(fake_ollama: FakeOllama, clean_redis: RedisServer) -> AsyncIterator[House]:
    """An open proxy that joins by meaning."""
    async with open_joining(fake_ollama, clean_redis) as house:
        await ready(house)
        yield house


def open_joining(ollama: FakeOllama, server: RedisServer, **sections: Any) -> Any:
    """A proxy that joins by meaning, not yet ready to."""
    return open_house(ollama, server, **({"semantic": JOIN, "cache": {"headers": "trail"}} | sections))


async def ready(house: House) -> None:
    """Wait for the embedder and the index."""
    assert await house.app.vectors.wait_ready(20)
    await until(lambda: house.app.semantic.state == "ready" and house.app.apart.known)


def says(house: House, question: str) -> str:
    """What Ollama says to exactly this question."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": question}], "stream": False}
    return expected_text("/api/chat", wire.json.dumps(body).encode(), digest=house.ollama.digest(MODEL))


async def leader(house: House, question: str = QUESTION, **members: Any) -> asyncio.Task[Response]:
    """An ask whose answer has begun and does not go on until `release`."""
    before = house.ollama.stalled
    house.ollama.next(STALL)
    asked = asyncio.create_task(house.chat(question, **members))
    await house.ollama.wait_until(lambda: house.ollama.stalled == before + 1)
    return asked


async def joiner(house: House, question: str = REWORDED, **members: Any) -> asyncio.Task[Response]:
    """An ask that now follows somebody else's flight."""
    followers = house.app.flights.followers
    asked = asyncio.create_task(house.chat(question, **members))
    await until(lambda: house.app.flights.followers == followers + 1)
    return asked


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("leader_streams", [True, False])
async def test_a_reworded_question_joins_the_one_in_flight(near: House, stream: bool, leader_streams: bool) -> None:
    """In whichever form; both get that answer, the one who joined is told so, and Ollama is asked once."""
    first = await leader(near, stream=leader_streams)
    second = await joiner(near, stream=stream)
    near.ollama.release()
    own, joined = await first, await second

    assert (own.header("X-Cache"), joined.header("X-Cache")) == ("MISS", "JOINED")
    assert said(own) == said(joined) == says(near, QUESTION)
    assert joined.header("Content-Type") == ("application/x-ndjson" if stream else "application/json; charset=utf-8")
    assert 0.92 <= float(joined.header("X-Cache-Similarity") or 0) < 1
    assert 'collapsed; detail="near; sim=0.9' in (joined.header("Cache-Status") or "")
    assert "in-flight:0.9" in (joined.header("X-Cache-Trail") or "")
    assert "verdict:serve joined:200" in (joined.header("X-Cache-Trail") or "")
    assert own.header("X-Cache-Similarity") is None
    assert near.calls() == 1
    stats = await near.stats()
    assert (stats["outcomes"]["miss"], stats["outcomes"]["joined"], stats["near_joined"]) == (1, 1, 1)
    assert stats["near"] == {}


async def test_what_is_told_of_a_joined_ask_names_the_question_it_joined(near: House) -> None:
    """Whose entry it will be, how near it was, and that it was allowed."""
    told = near.decided()
    first = await leader(near, stream=False)
    second = await joiner(near, stream=False)
    near.ollama.release()
    joined = (await first, await second)[1]
    await until(lambda: len(told) == 2)

    (decision,) = [decision for decision in told if decision.outcome is Outcome.JOINED]
    assert decision.neighbour is not None
    assert decision.entry == decision.neighbour.entry == joined.header("X-Cache-Entry")
    assert f"{decision.neighbour.similarity:.4f}" == joined.header("X-Cache-Similarity")
    assert (decision.neighbour.served, decision.neighbour.asked) == (True, "")


async def test_a_joined_stream_comes_live(near: House) -> None:
    """What is there is passed on before the rest has come."""
    first = await leader(near)
    async with await wire.connect(near.port) as connection:
        body = {"model": MODEL, "messages": [{"role": "user", "content": REWORDED}]}
        await connection.send(wire.request("POST", "/api/chat", body))
        head = await connection.head()
        assert head.header("X-Cache") == "JOINED"
        assert await connection.chunk(head)
        assert not first.done()
        near.ollama.release()
        while await connection.chunk(head):
            pass
    assert said(head) == said(await first)


async def test_what_was_joined_is_stored_for_the_question_it_was_given_to_alone(near: House) -> None:
    """Whoever joined is a semantic hit the next time, never an exact one."""
    first = await leader(near, stream=False)
    second = await joiner(near, stream=False)
    near.ollama.release()
    joined = (await first, await second)[1]
    await near.settled()
    later = await near.chat(REWORDED, stream=False)
    exact = await near.chat(QUESTION, stream=False)

    assert (later.header("X-Cache"), exact.header("X-Cache")) == ("SEMANTIC", "EXACT")
    assert joined.header("X-Cache-Entry") == exact.header("X-Cache-Entry")


async def test_context_of_the_other_question_is_cut(near: House) -> None:
    """The tokens of a conversation are those of the one who had it."""
    replies = {}
    for number, stream in enumerate((True, False), start=1):
        near.ollama.next(Fault(stall_after_tokens=1))
        first = asyncio.create_task(near.generate(f"{QUESTION} {stream}", stream=stream))
        await near.ollama.wait_until(lambda number=number: near.ollama.stalled == number)
        second = asyncio.create_task(near.generate(f"{REWORDED} {stream}", stream=stream))
        await until(lambda: near.app.flights.followers == 2)
        near.ollama.release()
        replies[stream] = (await first, await second)
        await near.settled()

    for own, joined in replies.values():
        assert joined.header("X-Cache") == "JOINED"
        assert said(own) == said(joined)
        assert "context" in own.lines()[-1]
        assert "context" not in joined.text


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
async def test_a_caller_of_another_form_joins_in_words_of_its_own(near: House, path: str) -> None:
    """As with equal asks: the answer comes in the form asked for."""
    body: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": REWORDED}], "stream": True}
    options = {"temperature": 1, "top_p": 1}
    if path == "/v1/messages":
        body |= {"max_tokens": 99, "temperature": 1, "top_p": 1}
        options |= {"num_predict": 99}
    if path == "/v1/responses":
        body = {"model": MODEL, "input": REWORDED, "stream": True, "top_p": 1}
    first = await leader(near, options=options)
    second = asyncio.create_task(near.ask("POST", path, body))
    await until(lambda: near.app.flights.followers == 2)
    near.ollama.release()

    joined = await second
    assert joined.header("X-Cache") == "JOINED", joined.headers
    assert said(joined) == said(await first)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"question": "How do I delete my password?"}, id="another thing"),
        pytest.param({"question": "How can I reset my 2 passwords?"}, id="a guard"),
        pytest.param({"headers": [("X-Cache-Mode", "exact")]}, id="mode exact"),
        pytest.param({"headers": [("X-Cache-Threshold", "0.9999")]}, id="tightened threshold"),
        pytest.param({"headers": [("Cache-Control", "no-cache")]}, id="fresh"),
        pytest.param({"headers": [("Authorization", "Bearer other")]}, id="another partition"),
        pytest.param({"options": {"temperature": 0.5}}, id="another setting"),
        pytest.param({"options": {"seed": 1}}, id="seed"),
        pytest.param({"model": "llama3"}, id="another model"),
    ],
)
async def test_what_may_not_be_matched_is_not_joined(near: House, other: dict[str, Any]) -> None:
    """The same rules as for what is stored; the ask gets an answer of its own at once."""
    first = await leader(near, stream=False)
    reply = await near.chat(**({"question": REWORDED, "stream": False} | other))
    near.ollama.release()

    assert (reply.header("X-Cache"), reply.header("X-Cache-Similarity")) == ("MISS", None)
    assert near.calls() == 2
    await first


async def test_only_if_cached_joins_nobody(near: House) -> None:
    """It wants what is stored."""
    first = await leader(near, stream=False)
    reply = await near.chat(REWORDED, headers=[("Cache-Control", "only-if-cached")])
    near.ollama.release()

    assert reply.status == 504
    await first


@pytest.mark.parametrize(
    "semantic", [{"mode": "serve"}, {"mode": "shadow", "join": True}], ids=["by default", "in shadow mode"]
)
async def test_without_being_asked_to_nobody_joins_by_meaning(
    fake_ollama: FakeOllama, clean_redis: RedisServer, semantic: dict[str, Any]
) -> None:
    """The key is off by default, and shadow mode serves nothing."""
    async with open_joining(fake_ollama, clean_redis, semantic=semantic) as house:
        await ready(house)
        first = await leader(house, stream=False)
        reply = await house.chat(REWORDED, stream=False)
        house.ollama.release()
        await first

        assert (reply.header("X-Cache"), house.calls()) == ("MISS", 2)


async def test_a_model_with_a_threshold_of_its_own_is_held_to_it(
    fake_ollama: FakeOllama, clean_redis: RedisServer
) -> None:
    """By pattern in the config."""
    async with open_joining(fake_ollama, clean_redis, models={"llama3.2*": {"threshold": 0.9999}}) as house:
        await ready(house)
        first = await leader(house, stream=False)
        reply = await house.chat(REWORDED, stream=False)
        house.ollama.release()
        await first

        assert reply.header("X-Cache") == "MISS"
        assert "verdict:below_threshold" in (reply.header("X-Cache-Trail") or "")


async def test_a_pair_that_was_called_wrong_is_not_joined_again(near: House) -> None:
    """Feedback takes the name in the joined reply, whether or not its answer was kept."""
    first = await leader(near, stream=False)
    second = await joiner(near, stream=False)
    near.ollama.release()
    joined = (await first, await second)[1]
    await near.settled()
    await until(lambda: not near.app.cached._errands)
    said_bad = await near.admin("POST", "/feedback", body={"entry": joined.header("X-Cache-Entry"), "good": False})
    assert said_bad.json()["kept_apart"] == 1

    again = await leader(near, stream=False)
    reply = await near.chat(REWORDED, stream=False)
    near.ollama.release()
    await again

    assert reply.header("X-Cache") == "MISS"
    assert "in-flight:0.9" in (reply.header("X-Cache-Trail") or "")
    assert "verdict:feedback" in (reply.header("X-Cache-Trail") or "")


async def test_an_ask_after_a_purge_does_not_join_one_from_before(near: House) -> None:
    """What is being answered is then as old as what was stored."""
    first = await leader(near, stream=False)
    assert (await near.admin("DELETE", "/entries?all=true")).status == 200
    reply = await near.chat(REWORDED, stream=False)
    near.ollama.release()

    assert reply.header("X-Cache") == "MISS"
    await first


async def test_an_equal_question_in_flight_is_joined_before_a_near_one(near: House) -> None:
    """No likeness is better than sameness."""
    first = await leader(near, stream=False)
    other = await leader(near, REWORDED, stream=False, headers=[("Cache-Control", "no-cache")])
    third = await joiner(near, stream=False)
    near.ollama.release()

    assert (await third).header("X-Cache-Similarity") is None
    assert said(await third) == said(await other) == says(near, REWORDED)
    await first


async def test_two_askers_at_once_are_one_call(near: House) -> None:
    """Whichever look-up ends first asks Ollama, and the other joins."""
    near.ollama.next(STALL)
    both = [asyncio.create_task(near.chat(question, stream=False)) for question in (QUESTION, REWORDED)]
    await until(lambda: near.app.flights.followers == 2)
    await near.ollama.wait_until(lambda: near.ollama.stalled == 1)
    near.ollama.release()
    replies = await asyncio.gather(*both)

    assert sorted(reply.header("X-Cache") or "" for reply in replies) == ["JOINED", "MISS"]
    assert len({said(reply) for reply in replies}) == 1
    assert near.calls() == 1


async def test_the_leader_may_leave(near: House) -> None:
    """Its answer then comes for the one who joined, and is kept."""
    async with await wire.connect(near.port) as connection:
        near.ollama.next(STALL)
        body = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}], "stream": False}
        await connection.send(wire.request("POST", "/api/chat", body))
        await near.ollama.wait_until(lambda: near.ollama.stalled == 1)
        second = await joiner(near, stream=False)
    await until(lambda: near.app.flights.followers == 1)
    near.ollama.release()

    assert said(await second) == says(near, QUESTION)
    assert near.calls() == 1
    await near.settled()
    assert (await near.chat(QUESTION, stream=False)).header("X-Cache") == "EXACT"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("fault", "status"),
    [(Fault(error_first=(500, "too hard")), 500), (Fault(close_before_answer=True), 502)],
    ids=["refused", "no answer"],
)
async def test_one_whose_leader_fails_asks_by_itself(
    fake_ollama: FakeOllama, clean_redis: RedisServer, stream: bool, fault: Fault, status: int
) -> None:
    """The error was the other question's; this one gets its own answer."""
    async with open_joining(fake_ollama, clean_redis, upstream={"parallel": 1}) as house:
        await ready(house)
        blocker = await leader(house, "Who painted the Mona Lisa?", stream=False)
        fake_ollama.next(fault)
        first = asyncio.create_task(house.chat(QUESTION, stream=stream))
        await until(lambda: house.app.fleet.waiting == 1)
        second = await joiner(house, stream=stream)
        fake_ollama.release()
        failed, own = await first, await second
        await blocker

        assert (failed.status, own.status, own.header("X-Cache")) == (status, 200, "MISS")
        assert said(own) == says(house, REWORDED)
        assert "in-flight:0.9" in (own.header("X-Cache-Trail") or "")
        assert "joined:failed" in (own.header("X-Cache-Trail") or "")
        assert house.calls() == 3


@pytest.mark.parametrize(
    "fault",
    [
        Fault(stall_after_tokens=1, error_after_tokens=(2, "out of memory")),
        Fault(stall_after_tokens=1, silent_end_after_tokens=2),
        Fault(stall_after_tokens=1, done_reason="length"),
    ],
    ids=["error", "silent end", "not to be kept"],
)
async def test_a_whole_answer_without_a_good_end_is_not_shared(near: House, fault: Fault) -> None:
    """Who waited for all of it has been given nothing yet, and asks by itself."""
    near.ollama.next(fault)
    first = asyncio.create_task(near.chat(QUESTION))
    await near.ollama.wait_until(lambda: near.ollama.stalled == 1)
    second = await joiner(near, stream=False)
    near.ollama.release()
    await first

    assert (await second).header("X-Cache") == "MISS"
    assert said(await second) == says(near, REWORDED)
    assert near.calls() == 2


async def test_a_stream_that_breaks_off_breaks_off_for_who_joined(near: House) -> None:
    """Its first words are out, so there is no way back; the last line says so."""
    near.ollama.next(Fault(stall_after_tokens=1, error_after_tokens=(2, "out of memory")))
    first = asyncio.create_task(near.chat(QUESTION))
    await near.ollama.wait_until(lambda: near.ollama.stalled == 1)
    second = await joiner(near)
    near.ollama.release()

    assert (await second).lines()[-1] == (await first).lines()[-1] == {"error": "out of memory"}
    await near.settled()
    assert (await near.chat(QUESTION, stream=False)).header("X-Cache") == "MISS"
