"""Conformance cases G, 90 to 96, with 24 and 81: vectors are kept text by text, and only missing ones are asked for."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from typing import Any

import pytest

from cacheproxy.model import Outcome
from tests.fakes import wire
from tests.fakes.clock import FakeClock
from tests.fakes.house import House, open_house
from tests.fakes.ollama import FakeOllama, Fault
from tests.fakes.redis_server import RedisServer
from tests.fakes.wire import Response

MODEL = "nomic-embed-text"
EMBED, LEGACY, OPENAI = "/api/embed", "/api/embeddings", "/v1/embeddings"


async def embed(house: House, texts: Any, path: str = EMBED, headers: Any = (), **members: Any) -> Response:
    """One ask, and what it left is kept."""
    reply = await house.ask("POST", path, {"model": MODEL, "input": texts} | members, headers=headers)
    await house.settled()
    return reply


def asked(house: House) -> list[Any]:
    """The texts of each request that Ollama had."""
    bodies = [json.loads(request.body) for request in house.ollama.requests if "embed" in request.path]
    return [body.get("input", body.get("prompt")) for body in bodies]


async def straight(house: House, texts: Any, path: str = EMBED, **members: Any) -> Any:
    """What Ollama itself says."""
    return (await wire.ask(house.ollama.port, "POST", path, {"model": MODEL, "input": texts} | members)).json()


def floats(item: str) -> list[float]:
    """The numbers in base64."""
    packed = base64.b64decode(item)
    return list(struct.unpack(f"<{len(packed) // 4}f", packed))


def singles(numbers: list[float]) -> list[float]:
    """The numbers as float32 holds them."""
    return list(struct.unpack(f"<{len(numbers)}f", struct.pack(f"<{len(numbers)}f", *numbers)))


@pytest.mark.case(24)
@pytest.mark.parametrize("body", [{}, {"input": ""}, {"input": []}, {"input": None}])
async def test_embedding_nothing_goes_around_the_cache(house: House, body: dict[str, Any]) -> None:
    """It loads the model, every time."""
    for _ in range(2):
        reply = await house.ask("POST", EMBED, {"model": MODEL} | body)
        assert (reply.header("X-Cache"), reply.json()["embeddings"]) == ("BYPASS", [])
        assert "detail=load" in (reply.header("Cache-Status") or "")

    assert house.calls(EMBED) == 2


@pytest.mark.case(24)
async def test_an_empty_prompt_of_the_older_route_goes_around_the_cache(house: House) -> None:
    """It loads the model as well."""
    for _ in range(2):
        reply = await house.ask("POST", LEGACY, {"model": MODEL, "prompt": ""})
        assert (reply.header("X-Cache"), reply.json()) == ("BYPASS", {"embedding": []})


async def test_a_repeated_list_is_ollamas_own_reply(house: House) -> None:
    """Byte for byte, durations and tokens too, as one call had given it."""
    miss = await embed(house, ["a", "b & <c>", "a"])
    hit = await embed(house, ["a", "b & <c>", "a"])

    assert (miss.header("X-Cache"), hit.header("X-Cache")) == ("MISS", "EXACT")
    assert miss.body == hit.body
    assert hit.header("Content-Type") == miss.header("Content-Type") == "application/json; charset=utf-8"
    assert miss.header("Content-Length") == hit.header("Content-Length")
    assert hit.header("Transfer-Encoding") == miss.header("Transfer-Encoding") == "chunked"
    assert len(asked(house)) == 1


@pytest.mark.case(90)
async def test_only_missing_texts_are_asked_for(house: House) -> None:
    """In one call, and each vector comes to its place."""
    await embed(house, ["a", "b"])
    reply = await embed(house, ["b", "c", "a"])

    assert asked(house) == [["a", "b"], ["c"]]
    assert reply.header("X-Cache") == "MISS"
    assert reply.header("Cache-Status") == 'cacheproxy; fwd=partial; fwd-status=200; detail="partial=2/3"'
    expected = await straight(house, ["b", "c", "a"])
    assert reply.json()["embeddings"] == expected["embeddings"]
    assert reply.json()["prompt_eval_count"] == expected["prompt_eval_count"]
    assert list(reply.json()) == list(expected)


@pytest.mark.case(90)
async def test_vectors_of_a_reply_put_together_are_spelt_as_ollama_spelt_them(house: House) -> None:
    """No number is read and written again."""
    await embed(house, ["a"])
    reply = await embed(house, ["b", "a"])

    own = await wire.ask(house.ollama.port, "POST", EMBED, {"model": MODEL, "input": ["b", "a"]})
    assert reply.body.split(b',"total_duration"')[0] == own.body.split(b',"total_duration"')[0]


@pytest.mark.case(90)
async def test_a_list_of_texts_asked_singly_is_a_hit_with_the_sum_of_their_tokens(house: House) -> None:
    """Each one's tokens are known."""
    for text in ("a", "a longer text"):
        await embed(house, text)
    hit = await embed(house, ["a longer text", "a", "a"])

    assert hit.header("X-Cache") == "EXACT"
    expected = await straight(house, ["a longer text", "a", "a"])
    assert hit.json()["prompt_eval_count"] == expected["prompt_eval_count"]
    assert hit.json()["embeddings"] == expected["embeddings"]


async def test_tokens_that_are_not_known_are_not_stated(house: House) -> None:
    """Ollama told the sum of two texts; how many one of them had, nobody knows."""
    await embed(house, ["a", "a longer text"])
    hit = await embed(house, ["a"])

    assert hit.header("X-Cache") == "EXACT"
    assert "prompt_eval_count" not in hit.json()
    assert hit.json()["total_duration"] > 0


async def test_where_tokens_must_be_stated_a_text_of_unknown_tokens_is_asked_for_again(house: House) -> None:
    """OpenAI's form has no reply without usage; what is counted then serves from there on."""
    await embed(house, ["a", "a longer text"], OPENAI)
    first = await embed(house, ["a"], OPENAI)
    again = await embed(house, "a", OPENAI)

    assert (first.header("X-Cache"), again.header("X-Cache")) == ("MISS", "EXACT")
    assert first.json()["usage"] == again.json()["usage"] == {"prompt_tokens": 1, "total_tokens": 1}


@pytest.mark.case(90)
async def test_openai_lists_are_completed_too(house: House) -> None:
    """With the tokens of both calls."""
    await embed(house, ["a", "b"], OPENAI)
    reply = await embed(house, ["b", "c", "a"], OPENAI)

    assert asked(house) == [["a", "b"], ["c"]]
    assert reply.json() == await straight(house, ["b", "c", "a"], OPENAI)
    assert reply.header("Content-Type") == "application/json"
    assert reply.body.endswith(b"\n")


@pytest.mark.case(91)
@pytest.mark.parametrize("path", [EMBED, OPENAI])
async def test_a_text_alone_and_a_list_of_it_are_one(house: House, path: str) -> None:
    """And the reply has the same shape."""
    miss = await embed(house, "a", path)
    hit = await embed(house, ["a"], path)

    assert hit.header("X-Cache") == "EXACT"
    assert miss.body == hit.body
    assert hit.header("X-Cache-Entry")


@pytest.mark.case(91)
async def test_each_caller_gets_the_name_he_used(house: House) -> None:
    """The vector belongs to the model's digest."""
    await embed(house, "a")
    hit = await embed(house, "a", model=f"library/{MODEL}:latest")

    assert (hit.header("X-Cache"), hit.json()["model"]) == ("EXACT", f"library/{MODEL}:latest")


@pytest.mark.case(92)
async def test_what_shapes_a_vector_keeps_texts_apart(house: House) -> None:
    """Dimensions, truncate and options; what says the default, or how long to stay loaded, does not."""
    for members in ({}, {"dimensions": 8}, {"truncate": False}, {"options": {"num_ctx": 64}}, {"later": 1}):
        reply = await embed(house, "a", **members)
        assert reply.header("X-Cache") == "MISS", members
    for members in ({"dimensions": 0}, {"truncate": True}, {"options": {}}, {"keep_alive": "1h"}, {"truncate": None}):
        reply = await embed(house, "a", **members)
        assert reply.header("X-Cache") == "EXACT", members

    short = await embed(house, "a", dimensions=8)
    assert [len(vector) for vector in short.json()["embeddings"]] == [8]


@pytest.mark.case(92)
async def test_members_that_one_route_ignores_do_not_leak_into_the_other(house: House) -> None:
    """`/v1` knows no options: its vector is that of no options."""
    await embed(house, "a", OPENAI, options={"num_ctx": 64})
    assert (await embed(house, "a", options={"num_ctx": 64})).header("X-Cache") == "MISS"
    assert (await embed(house, "a", OPENAI)).header("X-Cache") == "MISS"
    await embed(house, "b", truncate=False)
    assert (await embed(house, "b", OPENAI, truncate=False)).header("X-Cache") == "MISS"


@pytest.mark.case(93)
async def test_the_older_route_shares_nothing(house: House) -> None:
    """Its vectors are not of unit length; among themselves they are kept."""
    await embed(house, "a")
    miss = await house.ask("POST", LEGACY, {"model": MODEL, "prompt": "a"})
    await house.settled()
    hit = await house.ask("POST", LEGACY, {"model": MODEL, "prompt": "a"})
    still = await embed(house, "a")

    assert [reply.header("X-Cache") for reply in (miss, hit, still)] == ["MISS", "EXACT", "EXACT"]
    assert miss.body == hit.body
    assert hit.json()["embedding"] != still.json()["embeddings"][0]


@pytest.mark.case(93)
async def test_the_older_route_keeps_spellings_of_the_name_apart(house: House) -> None:
    """Ollama compares them with their letter case there."""
    await house.ask("POST", LEGACY, {"model": MODEL, "prompt": "a"})
    await house.settled()
    reply = await house.ask("POST", LEGACY, {"model": MODEL.upper(), "prompt": "a"})

    assert (reply.status, reply.header("X-Cache")) == (404, "MISS")


@pytest.mark.case(94)
async def test_an_empty_text_is_embedded_over_openai_only(house: House) -> None:
    """`/api/embed` takes it for a wish to load the model."""
    miss = await embed(house, "", OPENAI)
    hit = await embed(house, "", OPENAI)
    load = await embed(house, "")

    assert [reply.header("X-Cache") for reply in (miss, hit, load)] == ["MISS", "EXACT", "BYPASS"]
    assert len(hit.json()["data"][0]["embedding"]) == 64
    assert load.json()["embeddings"] == []


@pytest.mark.case(95)
@pytest.mark.parametrize("texts", [[1, 2], ["a", 1], [[1, 2]], {"a": 1}, 7, True])
@pytest.mark.parametrize("path", [EMBED, OPENAI])
async def test_what_is_no_text_is_ollamas_to_refuse(house: House, texts: Any, path: str) -> None:
    """400, as it says it."""
    reply = await embed(house, texts, path)
    own = await wire.ask(house.ollama.port, "POST", path, {"model": MODEL, "input": texts})

    assert (reply.status, reply.body) == (400, own.body)
    assert (reply.header("X-Cache"), asked(house)[0]) == ("BYPASS", texts)
    assert "detail=input" in (reply.header("Cache-Status") or "")


@pytest.mark.case(81)
@pytest.mark.parametrize("forms", [("float", "base64"), ("base64", "float"), ("BASE64", None)])
async def test_both_encodings_are_made_from_one_vector(house: House, forms: tuple[str, str | None]) -> None:
    """The float32s are equal, and numbers are spelt as Ollama spells them."""
    first = await embed(house, ["a", "b"], OPENAI, encoding_format=forms[0])
    second = await embed(house, ["a", "b"], OPENAI, **({"encoding_format": forms[1]} if forms[1] else {}))

    assert (first.header("X-Cache"), second.header("X-Cache")) == ("MISS", "EXACT")
    own = await wire.ask(
        house.ollama.port, "POST", OPENAI, {"model": MODEL, "input": ["a", "b"], "encoding_format": forms[1] or "float"}
    )
    assert second.body == own.body
    packed, plain = (first, second) if forms[0] != "float" else (second, first)
    for one, other in zip(packed.json()["data"], plain.json()["data"], strict=True):
        assert floats(one["embedding"]) == singles(other["embedding"])


@pytest.mark.case(81)
@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_openai_gets_what_the_native_route_stored(house: House, encoding: str) -> None:
    """Vectors and tokens."""
    await embed(house, ["a", "b"])
    hit = await embed(house, ["b", "a"], OPENAI, encoding_format=encoding)

    assert hit.header("X-Cache") == "EXACT"
    assert hit.json() == await straight(house, ["b", "a"], OPENAI, encoding_format=encoding)


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_the_native_route_takes_nothing_from_openai(house: House, encoding: str) -> None:
    """It could not say how long Ollama had taken; what it then stores serves both."""
    await embed(house, "a", OPENAI, encoding_format=encoding)
    assert (await embed(house, "a")).header("X-Cache") == "MISS"
    assert (await embed(house, "a", OPENAI, encoding_format=encoding)).header("X-Cache") == "EXACT"
    assert (await embed(house, "a")).header("X-Cache") == "EXACT"


async def test_an_unknown_encoding_is_ollamas_to_refuse(house: House) -> None:
    """400 in its words."""
    await embed(house, "a", OPENAI)
    reply = await embed(house, "a", OPENAI, encoding_format="hex")

    assert (reply.status, reply.header("X-Cache")) == (400, "BYPASS")


@pytest.mark.parametrize(
    ("member", "value", "reason"),
    [("dimensions", "8", "dimensions"), ("truncate", 1, "truncate"), ("keep_alive", "10", "keep-alive")],
)
async def test_a_member_of_another_type_is_ollamas_to_refuse(
    house: House, member: str, value: Any, reason: str
) -> None:
    """Also where a stored vector would hide the refusal."""
    await embed(house, "a")
    reply = await embed(house, "a", **{member: value})

    assert (reply.status, reply.header("X-Cache")) == (400, "BYPASS")
    assert f"detail={reason}" in (reply.header("Cache-Status") or "")


async def test_an_unknown_model_is_the_error_clients_know(house: House) -> None:
    """404, never kept."""
    for path in (EMBED, LEGACY, OPENAI):
        reply = await house.ask("POST", path, {"model": "nobody", "input": "a", "prompt": "a"})
        own = await wire.ask(house.ollama.port, "POST", path, {"model": "nobody", "input": "a", "prompt": "a"})
        assert (reply.status, reply.body) == (404, own.body)


async def test_an_error_of_the_call_for_the_missing_texts_is_passed_on(house: House) -> None:
    """What was stored before still serves."""
    await embed(house, ["a", "b"])
    house.ollama.next(Fault(error_first=(500, "the runner has gone")))
    reply = await embed(house, ["a", "c"])

    assert (reply.status, reply.json()) == (500, {"error": "the runner has gone"})
    assert (await embed(house, ["a", "b"])).header("X-Cache") == "EXACT"
    assert (await house.stats())["not_kept"] == {"status": 1}


def saying(body: bytes) -> Fault:
    """A reply with this body."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\n\r\n" % len(body)
    return Fault(raw=head + body, raw_keeps_open=True)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","embeddings":[[0.5,0.5],[0.5,0.5]],"total_duration":5}',
        b'{"model":"m","embeddings":[[]],"total_duration":5}',
        b'{"model":"m","embeddings":[],"total_duration":5}',
        b'{"model":"m","embeddings":[[0.5,null]],"total_duration":5}',
        b'{"model":"m","embeddings":[[0.5,1e999]],"total_duration":5}',
        b'{"model":"m","embeddings":[["0.5"]],"total_duration":5}',
        b'{"model":"m","embeddings":[[0.5],',
        b'{"error":"not now"}',
        b"[]",
        b"",
    ],
)
async def test_a_reply_that_is_not_one_vector_a_text_is_passed_on_and_not_kept(house: House, body: bytes) -> None:
    """Byte for byte, as Ollama gave it."""
    house.ollama.next(saying(body))
    reply = await embed(house, ["a"])

    assert (reply.status, reply.body, reply.header("X-Cache")) == (200, body, "MISS")
    assert (await house.stats())["not_kept"] == {"malformed": 1}
    assert (await embed(house, ["a"])).header("X-Cache") == "MISS"


async def test_where_a_part_cannot_be_used_the_whole_ask_is_sent(house: House) -> None:
    """So the caller gets Ollama's own reply, not half of one."""
    await embed(house, ["a", "b"])
    house.ollama.next(saying(b'{"model":"m","embeddings":[[0.5],[0.5]]}'))
    reply = await embed(house, ["a", "c"])

    assert asked(house) == [["a", "b"], ["c"], ["a", "c"]]
    assert reply.json()["embeddings"] == (await straight(house, ["a", "c"]))["embeddings"]


async def test_a_reply_too_large_to_keep_is_passed_on_whole(fake_ollama: FakeOllama, clean_redis: RedisServer) -> None:
    """Nothing of it is kept."""
    async with open_house(fake_ollama, clean_redis, cache={"answer_max": "1KiB"}) as house:
        for _ in range(2):
            reply = await embed(house, ["a", "b", "c"])
            assert reply.header("X-Cache") == "MISS"
            assert len(reply.json()["embeddings"]) == 3
        assert (await house.stats())["not_kept"] == {"too-large": 2}


async def test_a_reply_too_large_to_keep_breaks_off_where_ollamas_does(
    fake_ollama: FakeOllama, clean_redis: RedisServer
) -> None:
    """Its beginning is on its way by then, so only a missing end can tell; and it is counted."""
    async with open_house(fake_ollama, clean_redis, cache={"answer_max": "1KiB"}) as house:
        house.ollama.next(Fault(cut_after_bytes=4_000))
        reply = await embed(house, [str(number) for number in range(100)])

        assert (reply.status, reply.complete) == (200, False)
        assert 0 < len(reply.body) <= 4_000
        assert (await house.stats())["faults"]["upstream_broken"] == 1


async def test_a_reply_larger_than_may_be_kept_is_not_put_together(
    fake_ollama: FakeOllama, clean_redis: RedisServer
) -> None:
    """Ollama gives it, though each vector is stored."""
    async with open_house(fake_ollama, clean_redis, cache={"answer_max": "2KiB"}) as house:
        for texts in ("a", "b", "c", ["a", "b"], ["a", "b", "c"]):
            await embed(house, texts)

        assert asked(house) == ["a", "b", "c", ["a", "b", "c"]]


async def test_a_reply_that_breaks_off_is_an_error(house: House) -> None:
    """The status is decided when all is there."""
    house.ollama.next(Fault(cut_after_bytes=300))
    reply = await embed(house, ["a", "b"])

    assert reply.status == 502
    assert (await embed(house, ["a", "b"])).header("X-Cache") == "MISS"


async def test_without_redis_texts_go_straight_to_ollama(fake_ollama: FakeOllama) -> None:
    """The reply is its own."""
    away = {"url": "redis://127.0.0.1:1/0", "timeout": 0.05}
    async with open_house(fake_ollama, None, redis=away, cache={"memory": 0}) as house:
        for _ in range(2):
            reply = await embed(house, ["a", "b"])
            assert (reply.status, reply.header("X-Cache")) == (200, "MISS")
        assert asked(house) == [["a", "b"], ["a", "b"]]


async def test_vectors_come_from_redis_after_a_restart(fake_ollama: FakeOllama, clean_redis: RedisServer) -> None:
    """The process's own memory is not needed."""
    async with open_house(fake_ollama, clean_redis) as house:
        first = await embed(house, ["a", "b"])
    async with open_house(fake_ollama, clean_redis) as house:
        second = await embed(house, ["a", "b"])
        tiers = (await house.stats())["tiers"]

    assert (second.header("X-Cache"), second.body) == ("EXACT", first.body)
    assert tiers["redis"] == 1


async def test_each_ask_is_counted_once_under_its_dialect(house: House) -> None:
    """A list answered in part is a miss."""
    await embed(house, ["a", "b"])
    await embed(house, ["a", "c"])
    await embed(house, ["a", "b"])
    await embed(house, "a", OPENAI)
    await embed(house, [])
    await house.ask("POST", LEGACY, {"model": MODEL, "prompt": "a"})

    stats = await house.stats()
    counts = {name: figures["outcomes"] for name, figures in stats["dialects"].items()}
    assert {name: sum(outcomes.values()) for name, outcomes in counts.items()} == {
        "embed": 4,
        "embeddings": 1,
        "openai_embeddings": 1,
    }
    embeds = counts["embed"]
    assert (embeds[Outcome.EXACT], embeds[Outcome.MISS], embeds[Outcome.BYPASS]) == (1, 2, 1)
    assert stats["bypass"] == {"load": 1}


async def test_callers_with_other_credentials_share_no_vectors(house: House) -> None:
    """As for every answer."""
    await embed(house, "a", headers=[("Authorization", "Bearer one")])
    other = await embed(house, "a", headers=[("Authorization", "Bearer two")])
    same = await embed(house, "a", headers=[("Authorization", "Bearer one")])

    assert (other.header("X-Cache"), same.header("X-Cache")) == ("MISS", "EXACT")


@pytest.mark.parametrize(
    ("control", "expected"),
    [("no-cache", "MISS"), ("no-store", "BYPASS"), ("max-age=0", "MISS"), ("max-age=60", "EXACT")],
)
async def test_callers_may_make_the_cache_stricter(house: House, control: str, expected: str) -> None:
    """By header."""
    await embed(house, ["a", "b"])
    reply = await embed(house, ["a", "b"], headers=[("Cache-Control", control)])

    assert reply.header("X-Cache") == expected


@pytest.mark.parametrize("memory", ["64MiB", 0])
async def test_a_vector_older_than_a_caller_takes_is_fetched_anew(
    fake_ollama: FakeOllama, clean_redis: RedisServer, memory: Any
) -> None:
    """From whichever tier it would come."""
    clock = FakeClock()
    async with open_house(fake_ollama, clean_redis, clock=clock, cache={"memory": memory}) as house:
        await embed(house, "a")
        clock.advance(30)
        for age, expected in (("60", "EXACT"), ("10", "MISS"), ("10", "EXACT")):
            reply = await embed(house, "a", headers=[("Cache-Control", f"max-age={age}")])
            assert reply.header("X-Cache") == expected


async def test_only_if_cached_asks_ollama_for_nothing(house: House) -> None:
    """Also where a part is stored."""
    await embed(house, ["a"])
    reply = await embed(house, ["a", "b"], headers=[("Cache-Control", "only-if-cached")])

    assert reply.status == 504
    assert asked(house) == [["a"]]


async def test_controls_in_the_body_are_taken_out(house: House) -> None:
    """`options.cache`, and `cache` over OpenAI."""
    await embed(house, "a", options={"cache": False, "num_ctx": 64})
    await embed(house, "a", OPENAI, cache={"no-store": True})

    bodies = [json.loads(request.body) for request in house.ollama.requests if "embed" in request.path]
    assert bodies == [{"model": MODEL, "input": "a", "options": {"num_ctx": 64}}, {"model": MODEL, "input": "a"}]
    assert (await house.stats())["outcomes"][Outcome.BYPASS] == 2


async def test_a_model_pulled_anew_has_new_vectors(house: House) -> None:
    """They belong to its digest."""
    await embed(house, "a")
    house.ollama.set_digest(MODEL)
    await house.app.models.refresh()

    assert (await embed(house, "a")).header("X-Cache") == "MISS"


async def test_a_model_that_changes_while_it_answers_leaves_nothing(
    fake_ollama: FakeOllama, clean_redis: RedisServer
) -> None:
    """Nobody knows which of the two gave the vectors."""
    async with open_house(fake_ollama, clean_redis, upstream={"digest_ttl": 600}) as house:
        fake_ollama.set_digest(MODEL)  # the proxy's list still has the old one
        reply = await embed(house, "a")

        assert reply.header("X-Cache") == "MISS"
        assert (await house.stats())["not_kept"] == {"digest-changed": 1}


async def test_a_defect_of_our_own_is_counted(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with chats."""

    async def defect(_plans: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(type(house.app.embeddings.shelf), "wait_landed", lambda _self, plans: defect(plans))
        assert (await embed(house, "a")).status == 500

    assert (await embed(house, "a")).header("X-Cache") == "MISS"
    assert (await house.stats())["faults"]["internal"] == 1


async def test_unloading_reaches_ollama_although_the_vector_is_stored(house: House) -> None:
    """`keep_alive: 0`, behind the reply."""
    await embed(house, "a")
    hit = await embed(house, "a", keep_alive=0)
    await house.ollama.wait_until(lambda: house.calls("/api/generate") == 1)

    assert hit.header("X-Cache") == "EXACT"


async def test_purged_vectors_are_gone(house: House) -> None:
    """From Redis and from memory."""
    await embed(house, ["a", "b"])
    purged = await house.admin("DELETE", f"/entries?model={MODEL}")

    assert purged.json()["deleted"] == 2
    assert (await embed(house, ["a", "b"])).header("X-Cache") == "MISS"


async def test_vectors_that_were_asked_for_before_a_purge_are_not_kept(house: House) -> None:
    """They may be what was to be purged."""
    house.ollama.seconds_to_first_token = 0.2
    asking = asyncio.create_task(embed(house, "a"))
    await house.ollama.wait_until(lambda: house.ollama.concurrency == 1)
    await house.admin("DELETE", "/entries?all=true")
    await asking

    assert (await house.stats())["not_kept"] == {"purged": 1}


@pytest.mark.fault(130)
async def test_vectors_that_come_after_a_purge_by_another_proxy_are_taken_back(
    house: House, fake_ollama: FakeOllama, clean_redis: RedisServer
) -> None:
    """It has not yet heard of it when it stores."""
    async with open_house(fake_ollama, clean_redis) as other:
        await other.app.connection._heart.stop()
        fake_ollama.seconds_to_first_token = 0.2
        asking = asyncio.create_task(embed(other, ["a", "b"]))
        await fake_ollama.wait_until(lambda: fake_ollama.concurrency == 1)
        await house.admin("DELETE", "/entries?all=true")
        await asking

        assert clean_redis.call("KEYS", "*:answer:*") == []
        assert len(other.app.memory) == 0
        assert (await other.stats())["not_kept"] == {"purged": 1}


async def test_who_asks_again_at_once_finds_what_is_just_being_kept(house: House) -> None:
    """He waits the moment it takes."""
    body = {"model": MODEL, "input": ["a", "b"]}
    outcomes = [(await house.ask("POST", EMBED, body)).header("X-Cache") for _ in range(3)]

    assert outcomes == ["MISS", "EXACT", "EXACT"]


async def test_more_replies_than_can_be_kept_at_once_are_only_passed_on(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted, so that an operator sees it."""
    monkeypatch.setattr("cacheproxy.flow.embed_shelf.KEEPING_MAX", 0)
    await embed(house, "a")

    assert (await house.stats())["not_kept"] == {"busy": 1}
    assert (await embed(house, "a")).header("X-Cache") == "MISS"


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [("check", "x" * 32, "check_mismatch"), ("partition", "a" * 32, "check_mismatch"), ("v", "7", "entry_corrupt")],
)
async def test_an_entry_that_is_not_the_texts_is_a_miss(
    fake_ollama: FakeOllama, clean_redis: RedisServer, field: str, value: str, fault: str
) -> None:
    """Only its own vector is asked for again, and the operator sees it."""
    async with open_house(fake_ollama, clean_redis, cache={"memory": 0}) as house:
        await embed(house, ["a"])
        key = clean_redis.call("KEYS", "cacheproxy:answer:*")[0]
        await embed(house, ["b"])
        clean_redis.call("HSET", key, field, value)
        reply = await embed(house, ["b", "a"])

        assert asked(house)[-1] == ["a"]
        assert reply.json()["embeddings"] == (await straight(house, ["b", "a"]))["embeddings"]
        assert (await house.stats())["faults"][fault] == 1


async def test_more_texts_than_are_looked_up_pass_by(house: House) -> None:
    """The reply is Ollama's own."""
    reply = await embed(house, [str(number) for number in range(513)])

    assert (reply.header("X-Cache"), len(reply.json()["embeddings"])) == ("BYPASS", 513)
    assert "detail=too-many-inputs" in (reply.header("Cache-Status") or "")


async def test_expired_vectors_serve_while_ollama_is_away_if_configured(
    fake_ollama: FakeOllama, clean_redis: RedisServer
) -> None:
    """Marked as stale; a list that lacks one is an error."""
    clock = FakeClock()
    cache = {"ttl": "60s", "ttl_jitter": 0, "stale_if_error": "1h"}
    async with open_house(fake_ollama, clean_redis, clock=clock, cache=cache) as house:
        fresh = await embed(house, ["a", "b"])
        clock.advance(61)
        await house.ollama.close()
        stale = await embed(house, ["a", "b"])
        missing = await embed(house, ["a", "c"])

    assert (stale.header("X-Cache"), stale.body) == ("STALE", fresh.body)
    assert stale.header("Cache-Status") == "cacheproxy; hit; ttl=-1; detail=stale"
    assert missing.status == 502


async def test_a_caller_who_leaves_stops_ollama(house: House) -> None:
    """Nothing is kept."""
    house.ollama.seconds_to_first_token = 30
    async with await wire.connect(house.port) as client:
        await client.send(wire.request("POST", EMBED, {"model": MODEL, "input": "a"}))
        await house.ollama.wait_until(lambda: house.ollama.concurrency == 1)
        client.reset()
        await house.ollama.wait_until(lambda: house.ollama.aborted == 1)
    house.ollama.seconds_to_first_token = 0

    assert (await embed(house, "a")).header("X-Cache") == "MISS"


async def test_many_lists_at_once_each_get_their_own(house: House) -> None:
    """Whatever of them is being kept meanwhile."""
    lists = [[f"text {number}" for number in range(start, start + 5)] for start in range(20)]
    replies = await asyncio.gather(*(embed(house, texts) for texts in lists))

    for texts, reply in zip(lists, replies, strict=True):
        assert reply.json()["embeddings"] == (await straight(house, texts))["embeddings"]


@pytest.mark.case(96)
async def test_of_two_asks_at_once_each_gets_its_own_vectors_and_its_own_fate(house: House) -> None:
    """One of them fails; the other one neither waits for it nor fails with it."""
    own = await straight(house, ["good"])
    house.ollama.next(Fault(error_first=(400, "the input length exceeds the context length")), path=EMBED)
    failing = asyncio.create_task(house.ask("POST", EMBED, {"model": MODEL, "input": ["bad"]}))
    await house.ollama.wait_until(lambda: house.calls(EMBED) == 2)
    good = await embed(house, ["good"])

    assert (await failing).status == 400
    assert good.status == 200
    assert good.json()["embeddings"] == own["embeddings"]


async def test_vectors_read_before_a_purge_are_not_served_after_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ask that read them has them; the process's own memory has not."""
    await embed(house, ["a", "b"])
    house.app.memory.clear()
    read = house.app.exact.get_many

    async def read_then_purge(plans: Any) -> Any:
        found = await read(plans)
        await house.admin("DELETE", "/entries?all=true")
        return found

    monkeypatch.setattr(house.app.exact, "get_many", read_then_purge)
    assert (await embed(house, ["a", "b"])).header("X-Cache") == "EXACT"
    monkeypatch.undo()

    assert len(house.app.memory) == 0
    assert (await embed(house, ["a", "b"])).header("X-Cache") == "MISS"


async def test_vectors_written_before_a_purge_are_not_served_after_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis has written them, and has told so only after the purge."""
    write = house.app.exact.put

    async def write_then_purge(entry: Any, **more: Any) -> Any:
        size_bytes = await write(entry, **more)
        await house.admin("DELETE", "/entries?all=true")
        return size_bytes

    monkeypatch.setattr(house.app.exact, "put", write_then_purge)
    await embed(house, ["a"])
    monkeypatch.undo()

    assert len(house.app.memory) == 0
    assert (await embed(house, ["a"])).header("X-Cache") == "MISS"
