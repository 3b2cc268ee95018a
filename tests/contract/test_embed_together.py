"""Asks for vectors that wait for one place go to Ollama as one list (`batching.merge_embeds`), at nobody's cost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from cacheproxy.upstream.order import Group
from tests.fakes import wire
from tests.fakes.house import House, open_house, until
from tests.fakes.ollama import FakeOllama, Fault
from tests.fakes.redis_server import RedisServer
from tests.fakes.wire import Response

MODEL = "nomic-embed-text"
EMBED, OPENAI = "/api/embed", "/v1/embeddings"
MERGE = {"merge_embeds": True}
TOO_LONG = "long " * 9_000
"""Ollama refuses it if the ask says that nothing may be cut off."""


@pytest_asyncio.fixture
async def merging(fake_ollama: FakeOllama, clean_redis: RedisServer) -> AsyncIterator[House]:
    """An open proxy that merges, in front of an Ollama with one place a model."""
    async with open_merging(fake_ollama, clean_redis) as house:
        yield house


def open_merging(ollama: FakeOllama, server: RedisServer, **sections: Any) -> Any:
    """A proxy that merges."""
    return open_house(ollama, server, **({"batching": MERGE, "upstream": {"parallel": 1}} | sections))


@asynccontextmanager
async def no_place(house: House) -> AsyncIterator[None]:
    """While inside, somebody else holds the model's only place at Ollama."""
    batcher = house.first.batcher
    ticket, _ = await batcher._wait_turn(Group(house.ollama.digest(MODEL)))
    try:
        yield
    finally:
        batcher._leave(ticket)


async def embed(house: House, texts: Any, path: str = EMBED, headers: Any = (), **members: Any) -> Response:
    """One ask."""
    return await house.ask("POST", path, {"model": MODEL, "input": texts} | members, headers=headers)


async def gathered(house: House, *inputs: Any, **more: Any) -> list[asyncio.Task[Response]]:
    """Asks that now wait together, in this order."""
    tasks = []
    for texts in inputs:
        before = house.app.embeddings.flights.batches.gathered
        tasks.append(asyncio.create_task(embed(house, texts, **more)))
        await until(lambda before=before: house.app.embeddings.flights.batches.gathered != before)  # type: ignore[misc]
    return tasks


def asked(house: House) -> list[Any]:
    """The texts of each request that Ollama had."""
    return [json.loads(request.body)["input"] for request in house.ollama.requests if "embed" in request.path]


async def straight(house: House, texts: Any, **members: Any) -> Any:
    """What Ollama itself says."""
    return (await wire.ask(house.ollama.port, "POST", EMBED, {"model": MODEL, "input": texts} | members)).json()


async def test_asks_that_wait_go_as_one_list_and_each_gets_its_own_vectors(merging: House) -> None:
    """Lists and single texts; a text that several want is sent once."""
    inputs: list[Any] = ["a", ["b", "a"], "c", ["d"]]
    async with no_place(merging):
        tasks = await gathered(merging, *inputs)
    replies = await asyncio.gather(*tasks)

    assert asked(merging) == [["a", "b", "c", "d"]]
    for texts, reply in zip(inputs, replies, strict=True):
        assert reply.json()["embeddings"] == (await straight(merging, texts))["embeddings"]
        assert (reply.header("X-Cache"), reply.json()["model"]) == ("MISS", MODEL)
        joined = "joined=1/2; " if texts == ["b", "a"] else ""
        detail = f'detail="{joined}merged=4"'
        assert reply.header("Cache-Status") == f"cacheproxy; fwd=miss; fwd-status=200; collapsed; {detail}"
    stats = await merging.stats()
    assert (stats["outcomes"]["miss"], stats["embeds_merged"]) == (4, 4)


async def test_what_is_not_known_of_a_part_is_not_stated(merging: House) -> None:
    """Ollama counted the tokens of the call, not those of one ask; the time is the ask's own."""
    async with no_place(merging):
        tasks = await gathered(merging, "a", "b")
    for reply in await asyncio.gather(*tasks):
        assert "prompt_eval_count" not in reply.json()
        assert list(reply.json()) == ["model", "embeddings", "total_duration", "load_duration"]


async def test_vectors_of_a_merged_call_are_kept_text_by_text(merging: House) -> None:
    """For whoever asks next; OpenAI's form, which must state tokens, asks for them again."""
    async with no_place(merging):
        tasks = await gathered(merging, "a", "b")
    await asyncio.gather(*tasks)
    await merging.settled()
    hits = [await embed(merging, "a"), await embed(merging, ["b", "a"])]
    openai = await embed(merging, "a", OPENAI)

    assert [reply.header("X-Cache") for reply in hits] == ["EXACT", "EXACT"]
    assert (openai.header("X-Cache"), openai.json()["usage"]["prompt_tokens"]) == ("MISS", 1)
    assert hits[1].json()["prompt_eval_count"] == (await straight(merging, ["b", "a"]))["prompt_eval_count"]


async def test_missing_texts_of_a_list_go_along_too(merging: House) -> None:
    """What is stored stays out of the call."""
    await embed(merging, ["a", "b"])
    await merging.settled()
    async with no_place(merging):
        tasks = await gathered(merging, ["b", "c", "a"], "d")
    reply = (await asyncio.gather(*tasks))[0]

    assert asked(merging)[1:] == [["c", "d"]]
    assert reply.json()["embeddings"] == (await straight(merging, ["b", "c", "a"]))["embeddings"]
    detail = 'fwd=partial; fwd-status=200; collapsed; detail="partial=2/3; merged=2"'
    assert reply.header("Cache-Status") == f"cacheproxy; {detail}"


async def test_an_ask_that_finds_a_place_goes_alone_as_it_came(merging: House) -> None:
    """Nobody waits for company, and the reply is Ollama's own."""
    merging.ollama.always(Fault(extra_headers=(("X-Own", "yes"),)), path=EMBED)
    replies = [await embed(merging, texts) for texts in ("a", ["b"])]

    assert asked(merging) == ["a", ["b"]]
    for reply in replies:
        assert reply.json()["prompt_eval_count"] == 1
        assert (reply.header("X-Own"), reply.header("X-Cache")) == ("yes", "MISS")
        assert reply.header("Cache-Status") == "cacheproxy; fwd=miss; fwd-status=200"


async def test_one_that_waited_alone_is_sent_as_it_came(merging: House) -> None:
    """Waiting changes nothing."""
    async with no_place(merging):
        (task,) = await gathered(merging, "a")
    reply = await task

    assert asked(merging) == ["a"]
    assert (reply.json()["prompt_eval_count"], reply.header("Cache-Status")) == (
        1,
        "cacheproxy; fwd=miss; fwd-status=200",
    )


async def test_a_burst_is_few_calls_each_of_at_most_max_size_texts(
    fake_ollama: FakeOllama, clean_redis: RedisServer
) -> None:
    """Thirty asks through one place; an ask that is larger by itself goes by itself."""
    async with open_merging(fake_ollama, clean_redis, batching=MERGE | {"max_size": 5}) as house:
        big = [f"big {number}" for number in range(7)]
        inputs = [*([f"text {number}"] for number in range(30)), big]
        async with no_place(house):
            tasks = await gathered(house, *inputs)
        replies = await asyncio.gather(*tasks)

        assert [len(texts) for texts in asked(house)] == [5, 5, 5, 5, 5, 5, 7]
        for texts, reply in zip(inputs, replies, strict=True):
            assert reply.json()["embeddings"] == (await straight(house, texts))["embeddings"]


async def test_one_bad_text_fails_nobody_else(merging: House) -> None:
    """Each is then sent by itself: the good ones get their vectors and tokens, the bad one Ollama's own error."""
    async with no_place(merging):
        tasks = await gathered(merging, "a", TOO_LONG, "b", truncate=False)
    first, bad, second = await asyncio.gather(*tasks)

    assert asked(merging)[0] == ["a", TOO_LONG, "b"]
    assert sorted(map(str, asked(merging)[1:])) == sorted(["a", TOO_LONG, "b"])
    assert (bad.status, bad.json()) == (400, {"error": "the input length exceeds the context length"})
    for text, reply in (("a", first), ("b", second)):
        assert (reply.status, reply.json()["prompt_eval_count"]) == (200, 1)
        assert reply.json()["embeddings"] == (await straight(merging, text))["embeddings"]
    assert (await merging.stats())["embeds_merged"] == 0


@pytest.mark.parametrize(
    "fault",
    [
        Fault(close_before_answer=True),
        Fault(cut_after_bytes=300),
        Fault(error_first=(500, "the runner has gone")),
        Fault(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
    ],
    ids=["no answer", "broken off", "refused", "no vectors"],
)
async def test_a_merged_call_that_fails_is_made_one_by_one(merging: House, fault: Fault) -> None:
    """Whatever went wrong with it."""
    async with no_place(merging):
        tasks = await gathered(merging, "a", "b")
        merging.ollama.next(fault, path=EMBED)
    replies = await asyncio.gather(*tasks)

    assert [(reply.status, reply.json()["prompt_eval_count"]) for reply in replies] == [(200, 1), (200, 1)]
    assert sorted(map(str, asked(merging))) == ["['a', 'b']", "a", "b"]


async def test_a_merged_reply_too_large_to_keep_is_not_used(fake_ollama: FakeOllama, clean_redis: RedisServer) -> None:
    """Each ask is sent by itself, and its own reply may then be kept."""
    async with open_merging(fake_ollama, clean_redis, cache={"answer_max": "2KiB"}) as house:
        async with no_place(house):
            tasks = await gathered(house, "a", "b", "c")
        replies = await asyncio.gather(*tasks)
        await house.settled()

        assert [reply.json()["prompt_eval_count"] for reply in replies] == [1, 1, 1]
        assert len(asked(house)) == 4
        assert (await house.stats())["not_kept"] == {"too-large": 1}
        assert (await embed(house, "a")).header("X-Cache") == "EXACT"


@pytest.mark.parametrize("leaves", ["the first", "another", "all"])
async def test_who_leaves_while_waiting_takes_only_its_texts_along(merging: House, leaves: str) -> None:
    """The rest is asked for; if all leave, Ollama hears nothing."""
    request = wire.request("POST", EMBED, {"model": MODEL, "input": "gone"})
    async with no_place(merging):
        tasks = [] if leaves != "another" else await gathered(merging, "a")
        async with await wire.connect(merging.port) as connection:
            await connection.send(request)
            await until(lambda: merging.app.embeddings.flights.batches.gathered == len(tasks) + 1)
            if leaves != "all":
                tasks += await gathered(merging, "b", "c")
        await until(lambda: merging.app.embeddings.flights.batches.gathered == len(tasks))
        assert merging.app.fleet.waiting == (0 if leaves == "all" else 1)
    replies = await asyncio.gather(*tasks)

    assert asked(merging) == {"the first": [["b", "c"]], "another": [["a", "b", "c"]], "all": []}[leaves]
    assert all(reply.status == 200 for reply in replies)
    assert merging.app.fleet.in_flight == 0


@pytest.mark.parametrize("count", [1, 2])
async def test_when_the_last_leaves_a_running_call_ends(merging: House, count: int) -> None:
    """Its place is free for the next one; who stays has the answer."""
    merging.ollama.next(Fault(raw=b"", raw_keeps_open=True), path=EMBED)
    async with no_place(merging):
        connections = [await wire.connect(merging.port) for _ in range(count)]
        for number, connection in enumerate(connections):
            await connection.send(wire.request("POST", EMBED, {"model": MODEL, "input": str(number)}))
        await until(lambda: merging.app.embeddings.flights.batches.gathered == count)
    await merging.ollama.wait_until(lambda: merging.calls(EMBED) == 1)
    for connection in connections:
        connection.close()
    await until(lambda: merging.app.fleet.in_flight == 0)

    assert (await embed(merging, "next")).status == 200
    assert len(merging.app.embeddings.flights.batches) == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"truncate": False}),
        ({}, {"dimensions": 8}),
        ({}, {"options": {"temperature": 1}}),
        ({}, {"keep_alive": "1h"}),
        ({"headers": [("Authorization", "Bearer a")]}, {"headers": [("Authorization", "Bearer b")]}),
        ({"headers": [("Cookie", "a")]}, {"headers": [("Cookie", "b")]}),
        ({}, {"path": OPENAI}),
    ],
)
async def test_what_differs_in_more_than_its_texts_goes_apart(
    merging: House, one: dict[str, Any], other: dict[str, Any]
) -> None:
    """What shapes a vector, what else is asked of Ollama, and who asks."""
    async with no_place(merging):
        tasks = [asyncio.create_task(embed(merging, text, **more)) for text, more in (("a", one), ("b", other))]
        await until(lambda: merging.app.fleet.waiting == 2)
    replies = await asyncio.gather(*tasks)

    assert sorted(asked(merging)) == ["a", "b"]
    assert all(reply.status == 200 for reply in replies)


async def test_a_defect_with_one_ask_fails_nobody_else(merging: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is: each is sent by itself. It is counted in the call for both, and in that for the bad one."""
    send = type(merging.first.client).send

    async def fails(client: Any, sent: Any, **more: Any) -> Any:
        if b"bad" in sent.body:
            raise RuntimeError
        return await send(client, sent, **more)

    monkeypatch.setattr(type(merging.first.client), "send", fails)
    async with no_place(merging):
        tasks = await gathered(merging, "bad", "b")
    bad, good = await asyncio.gather(*tasks)

    assert (bad.status, good.status, good.header("X-Cache")) == (500, 200, "MISS")
    assert (await merging.stats())["faults"]["internal"] == 2


async def test_a_defect_that_only_a_merged_call_meets_costs_nobody_a_reply_and_is_counted(
    merging: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Else nobody would ever hear of it."""
    monkeypatch.setattr("cacheproxy.wire.embed.ask_for", lambda _body, _texts: 1 / 0)
    async with no_place(merging):
        tasks = await gathered(merging, "a", "b")
    replies = await asyncio.gather(*tasks)

    assert [reply.status for reply in replies] == [200, 200]
    assert "a call for 2 asks failed" in caplog.text
    assert (await merging.stats())["faults"]["internal"] == 1


async def test_what_cannot_be_spelt_anew_is_sent_as_it_came(merging: House) -> None:
    """Also where some of its texts are stored, or several asks wait."""
    huge = 10**30
    await embed(merging, "a")
    await merging.settled()
    assert (await embed(merging, ["a", "b"], keep_alive=huge)).status == 200
    assert asked(merging)[-1] == ["a", "b"]
    async with no_place(merging):
        tasks = await gathered(merging, "c", keep_alive=huge)
        tasks += await gathered(merging, "d", keep_alive=huge)
    assert [reply.status for reply in await asyncio.gather(*tasks)] == [200, 200]
    assert sorted(asked(merging)[-2:]) == ["c", "d"]
    assert (await merging.stats())["faults"]["internal"] == 0


async def test_a_header_that_says_nothing_of_who_asks_keeps_nobody_apart(merging: House) -> None:
    """A trace of one's own, say."""
    async with no_place(merging):
        tasks = await gathered(merging, "a", headers=[("traceparent", "00-1")])
        tasks += await gathered(merging, "b", headers=[("User-Agent", "other")])
    await asyncio.gather(*tasks)

    assert asked(merging) == [["a", "b"]]


async def test_by_default_every_ask_is_a_call_of_its_own(fake_ollama: FakeOllama, clean_redis: RedisServer) -> None:
    """A merged call tells less than Ollama tells. Only asks for the same text share one."""
    async with open_house(fake_ollama, clean_redis, upstream={"parallel": 1}) as house:
        async with no_place(house):
            tasks = [asyncio.create_task(embed(house, text)) for text in "ab"]
            await until(lambda: house.app.fleet.waiting == 2)
        replies = await asyncio.gather(*tasks)

        assert sorted(asked(house)) == ["a", "b"]
        assert [reply.json()["prompt_eval_count"] for reply in replies] == [1, 1]
