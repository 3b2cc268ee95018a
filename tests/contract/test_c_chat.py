"""Conformance cases C, 27 to 58: the exact tier of `/api/chat`, end to end.

Cases that are about keys alone stand in tests/wire too, as tables.
"""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from tests.fakes.house import MODEL, House, until
from tests.fakes.ollama import Fault
from tests.fakes.wire import Response


def text_of(response: Response) -> str:
    """What the model said, whatever the form."""
    return "".join(line["message"]["content"] for line in response.lines())


async def outcomes(house: House, *bodies: dict[str, Any]) -> list[str | None]:
    """`X-Cache` of asking these in order, each kept before the next."""
    seen = []
    for body in bodies:
        reply = await house.chat(**({"stream": False} | body))
        assert reply.status == 200, reply.text
        seen.append(reply.header("X-Cache"))
        await house.settled()
    return seen


@pytest.mark.case(27)
async def test_a_repeated_stream_comes_from_the_cache_line_by_line(house: House) -> None:
    """The miss has Ollama's own bytes; the hit is NDJSON, ends with done, says the same, and asks nobody."""
    miss = await house.chat("why is the sky blue?")
    await house.settled()
    hit = await house.chat("why is the sky blue?")

    assert (miss.header("X-Cache"), hit.header("X-Cache")) == ("MISS", "EXACT")
    assert hit.header("Content-Type") == miss.header("Content-Type") == "application/x-ndjson"
    assert hit.lines()[-1]["done"] is True
    assert text_of(hit) == text_of(miss)
    assert house.calls() == 1


@pytest.mark.case(28)
async def test_a_stored_stream_serves_a_whole_reply(house: House) -> None:
    """One JSON object, Ollama's content type, and the metrics of the stream's last chunk."""
    miss = await house.chat()
    await house.settled()
    hit = await house.chat(stream=False)

    last = miss.lines()[-1]
    assert hit.header("X-Cache") == "EXACT"
    assert hit.header("Content-Type") == "application/json; charset=utf-8"
    assert hit.json()["message"]["content"] == text_of(miss)
    metrics = [name for name in last if name.endswith(("_duration", "_count"))]
    assert metrics
    assert {name: hit.json()[name] for name in metrics} == {name: last[name] for name in metrics}


@pytest.mark.case(29)
async def test_a_stored_whole_reply_serves_a_stream(house: House) -> None:
    """At least one chunk of text and a last line apart."""
    miss = await house.chat(stream=False)
    await house.settled()
    hit = await house.chat()

    assert hit.header("X-Cache") == "EXACT"
    assert len(hit.lines()) >= 2
    assert hit.lines()[-1]["message"]["content"] == ""
    assert text_of(hit) == miss.json()["message"]["content"]


@pytest.mark.case(30)
async def test_stream_null_is_stream_absent(house: House) -> None:
    """Both stream."""
    await house.chat()
    await house.settled()

    hit = await house.chat(stream=None)

    assert (hit.header("X-Cache"), hit.header("Content-Type")) == ("EXACT", "application/x-ndjson")


@pytest.mark.case(31)
@pytest.mark.parametrize(
    "spelling", ["llama3.2:latest", "LLAMA3.2", "registry.ollama.ai/library/llama3.2", " llama3.2 "]
)
async def test_any_spelling_of_the_model_hits_and_is_echoed(house: House, spelling: str) -> None:
    """Entries belong to the model's digest, not to its name."""
    await house.chat()
    await house.settled()

    hit = await house.chat(model=spelling, stream=False)

    assert hit.header("X-Cache") == "EXACT"
    assert hit.json()["model"] == spelling


@pytest.mark.case(34)
async def test_a_copied_model_shares_the_answers(house: House) -> None:
    """A copy has the same digest; the reply carries the copy's name."""
    await house.chat()
    await house.settled()
    copied = await house.ask("POST", "/api/copy", {"source": MODEL, "destination": "mine"})
    assert copied.status == 200

    hit = await house.chat(model="mine", stream=False)

    assert (hit.header("X-Cache"), hit.json()["model"]) == ("EXACT", "mine")


async def test_keep_alive_zero_on_an_ask_that_joins_unloads_the_model_too(house: House) -> None:
    """The request that it joined says nothing of it."""
    house.ollama.next(Fault(first_token_delay_s=0.3), path="/api/chat")
    first = asyncio.create_task(house.chat(stream=False))
    await until(lambda: house.calls("/api/chat") == 1)
    second = await house.chat(stream=False, keep_alive=0)

    assert [(await first).header("X-Cache"), second.header("X-Cache")] == ["MISS", "JOINED"]
    await house.ollama.wait_until(lambda: house.calls("/api/generate") == 1)


@pytest.mark.case(36)
async def test_keep_alive_zero_on_a_hit_still_unloads_the_model(house: House) -> None:
    """The answer comes from the cache, and Ollama hears the unload."""
    await house.chat(stream=False)
    await house.settled()

    hit = await house.chat(stream=False, keep_alive=0)

    assert hit.header("X-Cache") == "EXACT"
    await house.ollama.wait_until(lambda: house.calls("/api/generate") == 1)
    assert json.loads(house.ollama.requests[-1].body) == {"model": MODEL, "keep_alive": 0}


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [
        pytest.param({"keep_alive": "5m"}, {"keep_alive": 300}, "EXACT", marks=pytest.mark.case(35)),
        pytest.param({"options": {"seed": 1, "top_k": 2}}, {"options": {"top_k": 2, "seed": 1}}, "EXACT",
                     marks=pytest.mark.case(37)),
        pytest.param({"options": None}, {"options": {"temperature": None}}, "EXACT", marks=pytest.mark.case(39)),
        pytest.param({"options": {"temperature": 0}}, {"options": {"temperature": 0.0}}, "EXACT",
                     marks=pytest.mark.case(40)),
        pytest.param({"options": {"temperature": 0.7}}, {"options": {"temperature": 0.70000001}}, "EXACT",
                     marks=pytest.mark.case(40)),
        pytest.param({"options": {"temperature": 0}}, {"options": {"temperature": 0.1}}, "MISS",
                     marks=pytest.mark.case(40)),
        pytest.param({}, {"options": {"seed": 7}}, "MISS", marks=pytest.mark.case(41)),
        pytest.param({}, {"options": {"num_ctx": 4096}}, "MISS", marks=pytest.mark.case(41)),
        pytest.param({"temperature": 1}, {"options": {"temperature": 1}}, "MISS", marks=pytest.mark.case(42)),
        pytest.param({}, {"options": {"new_option": 1}}, "MISS", marks=pytest.mark.case(43)),
        pytest.param({}, {"format": ""}, "EXACT", marks=pytest.mark.case(45)),
        pytest.param({}, {"format": "json"}, "MISS", marks=pytest.mark.case(45)),
        pytest.param({}, {"messages": [{"role": "USER", "content": "why?"}]}, "EXACT", marks=pytest.mark.case(47)),
        pytest.param({}, {"messages": [{"role": "user", "content": "why? "}]}, "MISS", marks=pytest.mark.case(48)),
        pytest.param({}, {"truncate": False}, "MISS", marks=pytest.mark.case(56)),
        pytest.param({}, {"shift": False}, "MISS", marks=pytest.mark.case(56)),
        pytest.param({"logprobs": True}, {}, "EXACT", marks=pytest.mark.case(57)),
        pytest.param({}, {"logprobs": True}, "MISS", marks=pytest.mark.case(58)),
    ],
)  # fmt: skip
async def test_two_asks_share_an_answer_only_if_ollama_acts_on_them_alike(
    house: House, first: dict[str, Any], second: dict[str, Any], outcome: str
) -> None:
    """The second of two asks hits, or does not."""
    assert await outcomes(house, first, second) == ["MISS", outcome]


@pytest.mark.case(38)
async def test_the_order_of_a_tools_properties_counts(house: House) -> None:
    """Ollama keeps it, so the model sees it."""

    def body(*names: str) -> dict[str, Any]:
        properties = {name: {"type": "string"} for name in names}
        parameters = {"type": "object", "properties": properties}
        return {"tools": [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]}

    assert await outcomes(house, body("place", "day"), body("place", "day"), body("day", "place")) == [
        "MISS",
        "EXACT",
        "MISS",
    ]


@pytest.mark.case(44)
async def test_each_way_to_think_has_its_own_answers(house: House) -> None:
    """Absent is not true: what absent means is the model's choice."""
    model = "qwen3"

    seen = await outcomes(house, *[{"model": model} | think for think in ({}, {"think": True}, {"think": False})])

    assert seen == ["MISS", "MISS", "MISS"]


@pytest.mark.case(35)
@pytest.mark.parametrize(
    "keep_alive", ["10", "9999999999h", "9223372036854775808ns", 10**400], ids=lambda value: str(value)[:20]
)
async def test_a_keep_alive_that_ollama_cannot_read_is_refused_by_it(house: House, keep_alive: Any) -> None:
    """It is in no key, and what is stored for the request without it does not hide the refusal."""
    await house.chat(stream=False)
    await house.settled()

    refused = await house.chat(stream=False, keep_alive=keep_alive)

    assert (refused.status, refused.header("X-Cache")) == (400, "BYPASS")


@pytest.mark.case(57)
async def test_logprobs_are_cut_for_those_who_did_not_ask(house: House) -> None:
    """The stored answer has them, the reply has not."""
    with_them = await house.chat(stream=False, logprobs=True)
    await house.settled()

    without = await house.chat(stream=False)

    assert "logprobs" in with_them.json()
    assert "logprobs" not in without.json()
    assert without.json()["message"] == with_them.json()["message"]


@pytest.mark.case(49)
async def test_images_count_by_their_bytes(house: House) -> None:
    """Line breaks in base64 do not matter; one byte does."""
    image = base64.encodebytes(b"picture " * 30).decode()
    other = base64.b64encode(b"Picture " * 30).decode()

    def body(data: str) -> dict[str, Any]:
        return {"model": "llama3", "messages": [{"role": "user", "content": "what?", "images": [data]}]}

    assert await outcomes(house, body(image), body(image.replace("\n", "")), body(other)) == ["MISS", "EXACT", "MISS"]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        pytest.param(b'{"Model":"llama3.2","messages":[{"role":"user","content":"q"}]}', "ambiguous-keys",
                     marks=pytest.mark.case(50)),
        pytest.param(b'{"model":"llama3.2","options":{"seed":1},"options":{"top_k":1},'
                     b'"messages":[{"role":"user","content":"q"}]}', "duplicate-keys", marks=pytest.mark.case(51)),
        pytest.param(b'{"model":"llama3.2","messages":[{"role":"user","content":"q"}]} trailing', "trailing-data",
                     marks=pytest.mark.case(52)),
        pytest.param(b'{"model":"llama3.2","messages":[{"role":"user","content":"\\ud800"}]}', "lone-surrogate",
                     marks=pytest.mark.case(54)),
    ],
)  # fmt: skip
async def test_bodies_that_could_be_read_in_two_ways_go_around_the_cache(house: House, raw: bytes, reason: str) -> None:
    """They reach Ollama byte for byte, twice, and are answered."""
    for _ in range(2):
        reply = await house.ask("POST", "/api/chat", raw)
        assert reply.status == 200
        assert reply.header("X-Cache") == "BYPASS"
        assert reason in (reply.header("Cache-Status") or "")

    assert house.calls() == 2
    assert house.ollama.requests[-1].body == raw


@pytest.mark.case(53)
async def test_the_content_type_does_not_matter(house: House) -> None:
    """Curl sends a form's."""
    await house.chat(stream=False)
    await house.settled()

    hit = await house.chat(stream=False, headers=[("Content-Type", "application/x-www-form-urlencoded")])

    assert hit.header("X-Cache") == "EXACT"


@pytest.mark.case(55)
async def test_a_body_of_eight_megabytes_is_no_problem(house: House) -> None:
    """Images are large; it is answered, and cached like any other."""
    image = base64.b64encode(bytes(6 << 20)).decode()
    body = {"model": "llama3", "messages": [{"role": "user", "content": "what?", "images": [image]}]}

    assert await outcomes(house, body, body) == ["MISS", "EXACT"]
