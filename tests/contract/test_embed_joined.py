"""Texts that are being embedded right now are not asked for again: who wants one waits for the call that brings it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from cacheproxy.errors import CallerError
from cacheproxy.upstream.order import Group
from tests.fakes import wire
from tests.fakes.house import House, open_house, until
from tests.fakes.ollama import FakeOllama, Fault
from tests.fakes.redis_server import RedisServer
from tests.fakes.wire import Response

MODEL = "nomic-embed-text"
EMBED, LEGACY, OPENAI = "/api/embed", "/api/embeddings", "/v1/embeddings"
JOINED = "cacheproxy; fwd=miss; fwd-status=200; collapsed"
MANY = 1_000


@asynccontextmanager
async def no_place(house: House) -> AsyncIterator[None]:
    """While inside, nothing gets a place at Ollama."""
    batcher = house.first.batcher
    limit = house.app.config.upstream.parallel
    tickets = [(await batcher._wait_turn(Group(house.ollama.digest(MODEL))))[0] for _ in range(limit)]
    try:
        yield
    finally:
        for ticket in tickets:
            batcher._leave(ticket)


@pytest.fixture
async def one_place(fake_ollama: FakeOllama, clean_redis: RedisServer) -> AsyncIterator[House]:
    """An open proxy with one place at Ollama."""
    async with open_house(fake_ollama, clean_redis, upstream={"parallel": 1}) as house:
        yield house


def body_of(texts: Any, path: str, **members: Any) -> dict[str, Any]:
    """An ask's body."""
    return {"model": MODEL, ("prompt" if path == LEGACY else "input"): texts} | members


async def embed(house: House, texts: Any, path: str = EMBED, headers: Any = (), **members: Any) -> Response:
    """One ask."""
    return await house.ask("POST", path, body_of(texts, path, **members), headers=headers)


async def under_way(house: House, *asks: Any, **more: Any) -> list[asyncio.Task[Response]]:
    """Asks that have come in this order and wait now; each is texts, or texts and a path."""
    tasks = []
    for ask in asks:
        texts, path = ask if isinstance(ask, tuple) else (ask, EMBED)
        before = house.app.embeddings.flights.followers
        tasks.append(asyncio.create_task(embed(house, texts, path, **more)))
        await until(lambda before=before: house.app.embeddings.flights.followers > before)  # type: ignore[misc]
    return tasks


def asked(house: House) -> list[Any]:
    """The texts of each request that Ollama had."""
    bodies = [json.loads(request.body) for request in house.ollama.requests if "embed" in request.path]
    return [body.get("input", body.get("prompt")) for body in bodies]


async def straight(house: House, texts: Any, path: str = EMBED) -> Any:
    """What Ollama itself says."""
    return (await wire.ask(house.ollama.port, "POST", path, body_of(texts, path))).json()


def words(replies: list[Response]) -> list[str | None]:
    """How each was answered."""
    return [reply.header("X-Cache") for reply in replies]


@pytest.mark.parametrize("path", [EMBED, LEGACY, OPENAI])
async def test_a_thousand_equal_asks_are_one_call(one_place: House, path: str) -> None:
    """Each gets the bytes that Ollama gave, and says how it came by them."""
    house = one_place
    async with no_place(house):
        tasks = [asyncio.create_task(embed(house, "a", path)) for _ in range(MANY)]
        await until(lambda: house.app.embeddings.flights.followers == MANY, 60)
    replies = await asyncio.gather(*tasks)

    assert asked(house) == ["a"]
    assert {reply.status for reply in replies} == {200}
    assert len({reply.body for reply in replies}) == 1
    assert sorted(words(replies)) == ["JOINED"] * (MANY - 1) + ["MISS"]  # type: ignore[type-var]
    assert {reply.header("Cache-Status") for reply in replies if reply.header("X-Cache") == "JOINED"} == {JOINED}
    stats = await house.stats()
    assert (stats["outcomes"]["joined"], stats["outcomes"]["miss"]) == (MANY - 1, 1)


@pytest.mark.parametrize("texts", [["a", "a"], ["a", ["a"]], ["a", ["a", "a"]], [["a", "b"], "a"]])
async def test_who_joins_and_wants_the_model_unloaded_gets_that(one_place: House, texts: list[Any]) -> None:
    """Behind the reply, whether that is passed on or put together; the call that was joined says nothing of it."""
    house = one_place
    async with no_place(house):
        (first,) = await under_way(house, texts[0])
        (second,) = await under_way(house, texts[1], keep_alive=0)
    replies = [await first, await second]

    assert words(replies) == ["MISS", "JOINED"]
    await house.ollama.wait_until(lambda: house.calls("/api/generate") == 1)
    assert json.loads(house.ollama.requests[-1].body) == {"model": MODEL, "keep_alive": 0}


async def test_a_burst_over_sockets_is_one_call_however_it_falls(house: House) -> None:
    """Some find it in flight, some being kept, some stored; nobody asks again."""
    house.ollama.always(Fault(first_token_delay_s=0.05), path=EMBED)
    replies = await asyncio.gather(*(embed(house, "a") for _ in range(100)))

    assert house.calls(EMBED) == 1
    assert words(list(replies)).count("MISS") == 1


async def test_what_a_joined_ask_is_told_is_what_ollama_said_of_just_its_texts(one_place: House) -> None:
    """In another spelling of the same ask too; a part of a call has no tokens that anybody knows."""
    async with no_place(one_place):
        tasks = await under_way(one_place, ["a", "b"], ["a", "b"], ["b", "a"], "a", ["a", "a"])
    whole, same, turned, part, twice = [reply.json() for reply in await asyncio.gather(*tasks)]

    assert asked(one_place) == [["a", "b"]]
    assert same == whole
    assert turned["embeddings"] == whole["embeddings"][::-1]
    assert {name: turned[name] for name in whole if name != "embeddings"} == {
        name: whole[name] for name in whole if name != "embeddings"
    }
    assert part["embeddings"] == whole["embeddings"][:1]
    assert "prompt_eval_count" not in part
    assert part["total_duration"] > 0
    assert twice["embeddings"] == whole["embeddings"][:1] * 2


async def test_only_texts_that_are_neither_stored_nor_under_way_are_asked_for(one_place: House) -> None:
    """And the reply says how many came from where."""
    await embed(one_place, "stored")
    await one_place.settled()
    async with no_place(one_place):
        tasks = await under_way(one_place, "flying", ["new", "flying", "stored"], ["stored", "flying"])
    replies = await asyncio.gather(*tasks)

    assert asked(one_place) == ["stored", "flying", ["new"]]
    assert words(replies) == ["MISS", "MISS", "JOINED"]
    detail = 'detail="partial=1/3; joined=1/3"'
    assert replies[1].header("Cache-Status") == f"cacheproxy; fwd=partial; fwd-status=200; collapsed; {detail}"
    detail = 'detail="partial=1/2; joined=1/2"'
    assert replies[2].header("Cache-Status") == f"cacheproxy; fwd=partial; fwd-status=200; collapsed; {detail}"
    for texts, reply in ((["new", "flying", "stored"], replies[1]), (["stored", "flying"], replies[2])):
        expected = await straight(one_place, texts)
        assert reply.json()["embeddings"] == expected["embeddings"]
        assert reply.json()["prompt_eval_count"] == expected["prompt_eval_count"]


async def test_openai_joins_what_tells_its_tokens_and_nothing_else(one_place: House) -> None:
    """A call of the native route too; of a part of a list nobody knows the tokens."""
    async with no_place(one_place):
        tasks = await under_way(one_place, ["a", "b"], (["b", "a"], OPENAI), ("a", OPENAI), ("a", OPENAI))
    replies = await asyncio.gather(*tasks)

    assert asked(one_place) == [["a", "b"], "a"]
    assert words(replies) == ["MISS", "JOINED", "MISS", "JOINED"]
    for texts, reply in ((["b", "a"], replies[1]), ("a", replies[3])):
        assert reply.json() == await straight(one_place, texts, OPENAI)


async def test_what_the_other_routes_may_not_use_is_not_joined(one_place: House) -> None:
    """As it is with stored vectors."""
    async with no_place(one_place):
        tasks = await under_way(one_place, ("a", OPENAI), ("a", LEGACY), ("a", EMBED), ("a", EMBED))
    replies = await asyncio.gather(*tasks)

    assert words(replies) == ["MISS", "MISS", "MISS", "JOINED"]
    assert len(asked(one_place)) == 3


@pytest.mark.parametrize("more", [{"dimensions": 8}, {"options": {"num_ctx": 512}}, {"truncate": False}])
async def test_another_setting_is_another_vector(one_place: House, more: dict[str, Any]) -> None:
    """Nobody gets a vector of other options."""
    async with no_place(one_place):
        tasks = await under_way(one_place, "a")
        tasks += await under_way(one_place, "a", **more)
    assert words(list(await asyncio.gather(*tasks))) == ["MISS", "MISS"]


async def test_callers_of_other_partitions_share_no_call(fake_ollama: FakeOllama, clean_redis: RedisServer) -> None:
    """As they share no entry."""
    async with open_house(
        fake_ollama, clean_redis, upstream={"parallel": 1}, cache={"partition_headers": ["X-Tenant"]}
    ) as house:
        async with no_place(house):
            tasks = await under_way(house, "a", headers=[("X-Tenant", "one")])
            tasks += await under_way(house, "a", headers=[("X-Tenant", "two")])
        assert words(list(await asyncio.gather(*tasks))) == ["MISS", "MISS"]


@pytest.mark.parametrize(
    ("fault", "status", "text"),
    [
        (Fault(error_first=(500, "the runner has gone")), 500, "the runner has gone"),
        (Fault(close_before_answer=True), 502, ""),
        (Fault(cut_after_bytes=300), 502, ""),
    ],
    ids=["refused", "no answer", "broken off"],
)
async def test_a_call_that_fails_fails_all_who_wanted_the_same_once(
    one_place: House, fault: Fault, status: int, text: str
) -> None:
    """With the true error; nothing of it is kept, and the next ask is a call again."""
    async with no_place(one_place):
        tasks = await under_way(one_place, *["a"] * 20)
        one_place.ollama.next(fault, path=EMBED)
    replies = await asyncio.gather(*tasks)

    assert {reply.status for reply in replies} == {status}
    assert len({reply.body for reply in replies}) == 1
    assert text in replies[0].json()["error"]
    assert one_place.calls(EMBED) == 1
    assert (await embed(one_place, "a")).status == 200
    assert one_place.calls(EMBED) == 2


async def test_a_call_that_fails_for_another_text_fails_only_who_asked_for_that(one_place: House) -> None:
    """Those who wanted one text of it ask for that, all of them together."""
    async with no_place(one_place):
        tasks = await under_way(one_place, ["a", "b"], *["a"] * 20)
        one_place.ollama.next(Fault(error_first=(400, "b is bad")), path=EMBED)
    replies = await asyncio.gather(*tasks)

    assert [reply.status for reply in replies] == [400] + [200] * 20
    assert asked(one_place) == [["a", "b"], "a"]
    assert all(reply.json()["prompt_eval_count"] == 1 for reply in replies[1:])


@pytest.mark.parametrize("leaves", ["the first", "another"])
@pytest.mark.parametrize("when", ["waiting", "running"])
async def test_who_leaves_harms_nobody(one_place: House, leaves: str, when: str) -> None:
    """Whether it had started the call or joined it; before its turn, or while Ollama computes."""
    one_place.ollama.next(Fault(first_token_delay_s=0.3), path=EMBED)
    flights = one_place.app.embeddings.flights
    async with await wire.connect(one_place.port) as leaver:
        async with no_place(one_place):
            tasks = [] if leaves == "the first" else await under_way(one_place, "a")
            before = flights.followers
            await leaver.send(wire.request("POST", EMBED, body_of("a", EMBED)))
            await until(lambda: flights.followers == before + 1)
            tasks += await under_way(one_place, "a", "a")
            if when == "waiting":
                leaver.close()
                await until(lambda: flights.followers == len(tasks))
        if when == "running":
            await one_place.ollama.wait_until(lambda: one_place.calls(EMBED) == 1)
            leaver.close()
            await until(lambda: flights.followers == len(tasks))
        replies = await asyncio.gather(*tasks)

    assert {reply.status for reply in replies} == {200}
    assert len({reply.body for reply in replies}) == 1
    assert one_place.calls(EMBED) == 1


async def test_when_the_last_leaves_the_call_ends(one_place: House) -> None:
    """Ollama's place is free for the next one, which asks anew."""
    one_place.ollama.next(Fault(raw=b"", raw_keeps_open=True), path=EMBED)
    connections = [await wire.connect(one_place.port) for _ in range(3)]
    for connection in connections:
        await connection.send(wire.request("POST", EMBED, body_of("a", EMBED)))
    flights = one_place.app.embeddings.flights
    await until(lambda: flights.followers == 3 and one_place.calls(EMBED) == 1)
    for connection in connections[:2]:
        connection.close()
    await until(lambda: flights.followers == 1)
    assert one_place.app.fleet.in_flight == 1
    connections[2].close()
    await until(lambda: one_place.app.fleet.in_flight == 0)

    assert len(flights) == 0
    assert (await embed(one_place, "a")).header("X-Cache") == "MISS"


async def test_a_reply_too_large_to_hold_is_not_shared(fake_ollama: FakeOllama, clean_redis: RedisServer) -> None:
    """Each gets its own, and not one after the other."""
    async with open_house(fake_ollama, clean_redis, upstream={"parallel": 1}, cache={"answer_max": "2KiB"}) as house:
        async with no_place(house):
            tasks = await under_way(house, *[["a", "b", "c"]] * 4)
        replies = await asyncio.gather(*tasks)

        assert words(replies) == ["MISS"] * 4
        assert house.calls(EMBED) == 4
        expected = (await straight(house, ["a", "b", "c"]))["embeddings"]
        assert [reply.json()["embeddings"] for reply in replies] == [expected] * 4


async def test_a_reply_that_is_none_of_ollamas_is_passed_on_to_those_that_asked_the_same(one_place: House) -> None:
    """Another form of the ask cannot be answered with it, and goes by itself."""
    async with no_place(one_place):
        tasks = await under_way(one_place, "a", "a", ["a"])
        one_place.ollama.next(Fault(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"), path=EMBED)
    replies = await asyncio.gather(*tasks)

    assert [reply.body for reply in replies[:2]] == [b"{}", b"{}"]
    assert replies[2].json()["embeddings"] == (await straight(one_place, "a"))["embeddings"]


async def test_who_wants_it_fresh_joins_what_is_being_made(one_place: House) -> None:
    """Nothing can be fresher; as it is with chats."""
    async with no_place(one_place):
        tasks = await under_way(one_place, "a")
        tasks += await under_way(one_place, "a", headers=[("Cache-Control", "no-cache")])
    assert words(list(await asyncio.gather(*tasks))) == ["MISS", "JOINED"]


async def test_what_was_asked_before_a_purge_is_not_joined_after_it(one_place: House) -> None:
    """Whoever purges wants none of it."""
    async with no_place(one_place):
        tasks = await under_way(one_place, "a")
        await one_place.admin("DELETE", f"/entries?model={MODEL}")
        tasks += await under_way(one_place, "a")
    assert words(list(await asyncio.gather(*tasks))) == ["MISS", "MISS"]


async def test_an_error_of_the_leaders_own_is_nobody_elses(one_place: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that cannot be sent, say: the others make the call."""
    send, failing = one_place.first.client.send, [CallerError("a head that HTTP forbids")]

    async def refusing(request: Any, *, safe_to_repeat: bool) -> Any:
        if failing and request.target == EMBED:
            raise failing.pop()
        return await send(request, safe_to_repeat=safe_to_repeat)

    monkeypatch.setattr(one_place.first.client, "send", refusing)
    async with no_place(one_place):
        tasks = await under_way(one_place, "a", "a", "a")
    replies = await asyncio.gather(*tasks)

    assert [reply.status for reply in replies] == [400, 200, 200]
    assert one_place.calls(EMBED) == 1
