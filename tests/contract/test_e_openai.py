"""Conformance cases E, 67 to 80 and 82: OpenAI's chat and completions, end to end; and 102, their broken streams."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.fakes import wire
from tests.fakes.house import MODEL, House, open_house, until
from tests.fakes.ollama import FakeOllama, Fault
from tests.fakes.redis_server import RedisServer
from tests.fakes.replies import events, said
from tests.fakes.wire import Response

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
BOTH = pytest.mark.parametrize("path", [CHAT, COMPLETIONS], ids=["chat", "completions"])
WITH_USAGE = {"stream": True, "stream_options": {"include_usage": True}}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}, "day": {"type": "string"}}},
    },
}


async def ask(house: House, path: str = CHAT, **members: Any) -> Response:
    """One question in the form of a path; its answer is kept before this returns."""
    asked = {"messages": [{"role": "user", "content": "why?"}]} if path == CHAT else {"prompt": "why?"}
    body = {"model": MODEL} | asked | members
    reply = await house.ask("POST", path, {name: value for name, value in body.items() if value is not ...})
    await house.settled()
    return reply


async def outcomes(house: House, *bodies: dict[str, Any], path: str = CHAT) -> list[str | None]:
    """`X-Cache` of asking these in order."""
    return [(await ask(house, path, **body)).header("X-Cache") for body in bodies]


def timeless(body: bytes) -> bytes:
    """A reply's bytes without id and time."""
    return re.sub(rb'"created":\d+', b'"created":0', re.sub(rb'"id":"(chatcmpl|cmpl)-\d+"', rb'"id":"\1"', body))


# --- Equal to Ollama's own bytes ---


@pytest.mark.case(67)
@pytest.mark.case(82)
@BOTH
async def test_a_whole_hit_is_ollamas_reply_but_for_id_and_time(house: House, path: str) -> None:
    """Content type, line end, fingerprint, finish and usage included; no context with completions."""
    miss, hit = await ask(house, path), await ask(house, path)

    assert (miss.header("X-Cache"), hit.header("X-Cache")) == ("MISS", "EXACT")
    assert hit.header("Content-Type") == miss.header("Content-Type") == "application/json"
    assert timeless(hit.body) == timeless(miss.body)
    assert hit.body.endswith(b"}\n")
    assert hit.json()["system_fingerprint"] == "fp_ollama"
    assert hit.json()["choices"][0]["finish_reason"] == "stop"
    assert hit.json()["usage"]["total_tokens"] > 0
    assert house.calls(path) == 1


@pytest.mark.case(67)
async def test_the_ids_of_two_hits_differ(house: House) -> None:
    """They are made for each reply, in Ollama's form."""
    ids = {(await ask(house)).json()["id"] for _ in range(6)}

    assert len(ids) > 1
    assert all(re.fullmatch(r"chatcmpl-\d{1,3}", one) for one in ids)


SCRIPTS = [
    pytest.param({}, Fault(text="one token only"), id="text"),
    pytest.param({"tools": [TOOL]}, None, id="tools"),
    pytest.param({"model": "qwen3", "reasoning_effort": "none"}, Fault(text="no thought"), id="no thinking"),
]


@pytest.mark.case(68)
@pytest.mark.parametrize("options", [{"stream": True}, WITH_USAGE], ids=["plain", "usage"])
@pytest.mark.parametrize(("members", "fault"), SCRIPTS)
async def test_a_streamed_hit_has_ollamas_events(
    house: House, members: dict[str, Any], fault: Fault | None, options: dict[str, Any]
) -> None:
    """Of an answer that came in one piece, to the byte but for id and time."""
    house.ollama.calls_tools = True
    if fault is not None:
        house.ollama.next(fault)

    miss, hit = [await ask(house, **members, **options) for _ in range(2)]

    assert hit.header("X-Cache") == "EXACT"
    assert hit.header("Content-Type") == miss.header("Content-Type") == "text/event-stream"
    assert timeless(hit.body) == timeless(miss.body)


@pytest.mark.case(82)
@pytest.mark.parametrize("options", [{"stream": True}, WITH_USAGE], ids=["plain", "usage"])
async def test_a_streamed_completion_has_ollamas_events(house: House, options: dict[str, Any]) -> None:
    """To the byte but for id and time."""
    house.ollama.next(Fault(text="one token only"))

    miss, hit = [await ask(house, COMPLETIONS, **options) for _ in range(2)]

    assert hit.header("X-Cache") == "EXACT"
    assert timeless(hit.body) == timeless(miss.body)


@pytest.mark.case(68)
async def test_a_streamed_hit_says_the_role_first_and_the_finish_last(house: House) -> None:
    """One id and one `created` in all chunks; the finish chunk has an empty delta; then `[DONE]`."""
    await ask(house, model="qwen3")

    chunks = events(await ask(house, model="qwen3", stream=True))

    *middle, finish, done = chunks
    deltas = [chunk["choices"][0]["delta"] for chunk in middle]
    assert [("role" in delta) for delta in deltas] == [True] + [False] * (len(deltas) - 1)
    assert len(deltas) >= 2
    assert finish["choices"][0] == {"index": 0, "delta": {}, "finish_reason": "stop"}
    assert done == "[DONE]"
    assert len({(chunk["id"], chunk["created"]) for chunk in chunks[:-1]}) == 1


@pytest.mark.case(68)
@pytest.mark.case(78)
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_streamed_hit_says_the_same_in_the_same_order(house: House, path: str) -> None:
    """Thinking, then text, then the end; only cut into fewer pieces."""
    miss, hit = [await ask(house, path, model="qwen3", **WITH_USAGE) for _ in range(2)]

    assert hit.header("X-Cache") == "EXACT"
    assert told(hit) == told(miss)
    assert [kind for kind, _ in told(hit)][-3:] == ["finish_reason", "usage", "[DONE]"]


def told(reply: Response) -> list[tuple[str, Any]]:
    """What the chunks of a stream say, one after the other; pieces of one kind joined."""
    said: list[tuple[str, Any]] = []
    for event in events(reply):
        if event == "[DONE]" or not event["choices"]:
            said.append(("[DONE]", "") if event == "[DONE]" else ("usage", event["usage"]))
            continue
        choice = event["choices"][0]
        spoken = choice["delta"] if "delta" in choice else {"text": choice["text"]}
        parts = spoken | {"finish_reason": choice["finish_reason"]}
        for kind, value in parts.items():
            if value and said and said[-1][0] == kind:
                said[-1] = (kind, said[-1][1] + value)
            elif value:
                said.append((kind, value))
    return said


@pytest.mark.case(68)
async def test_the_end_of_a_streamed_hit_leaves_in_one_chunk(house: House) -> None:
    """Finish, usage and `[DONE]`, as from Ollama."""
    await ask(house)

    hit = await ask(house, **WITH_USAGE)

    assert hit.chunks[-1].data.count(b"data: ") == 3


# --- Usage ---


@pytest.mark.case(69)
@BOTH
async def test_usage_comes_if_it_is_asked_for(house: House, path: str) -> None:
    """From one entry: with a usage chunk before `[DONE]`, and without."""
    whole = await ask(house, path)

    with_usage, without = await ask(house, path, **WITH_USAGE), await ask(house, path, stream=True)

    assert {with_usage.header("X-Cache"), without.header("X-Cache")} == {"EXACT"}
    assert events(with_usage)[-2]["choices"] == []
    assert events(with_usage)[-2]["usage"] == whole.json()["usage"]
    assert b'"usage"' not in without.body
    assert house.calls(path) == 1


@pytest.mark.case(69)
@BOTH
async def test_a_stream_without_usage_serves_its_equals_alone(house: House, path: str) -> None:
    """Nobody knows the number of tokens; who needs it asks Ollama, and what comes then serves all."""
    forms: list[dict[str, Any]] = [{"stream": True}, {"stream": True}, WITH_USAGE, {"stream": True}, {"stream": False}]

    assert await outcomes(house, *forms, path=path) == ["MISS", "EXACT", "MISS", "EXACT", "EXACT"]


# --- What is one ask ---


@pytest.mark.case(70)
async def test_an_answer_of_the_native_route_serves_where_its_options_are_openais(house: House) -> None:
    """Ollama makes temperature 1 and top_p 1 of none."""
    native = await house.chat("why?", options={"temperature": 1, "top_p": 1})
    await house.settled()
    hit = await ask(house)

    assert hit.header("X-Cache") == "EXACT"
    assert said(hit) == said(native)
    assert house.calls(CHAT) == 0


@pytest.mark.case(71)
async def test_the_native_defaults_are_not_openais(house: House) -> None:
    """There the model decides."""
    await house.chat("why?")
    await house.settled()

    assert (await ask(house)).header("X-Cache") == "MISS"


@pytest.mark.case(71)
async def test_the_temperature_in_the_key_is_the_one_ollama_uses(house: House) -> None:
    """In plain sight, so that an operator can tell entries apart."""
    assert house.redis is not None
    await ask(house)

    (key,) = house.redis.call("KEYS", "cacheproxy:answer:*")
    assert key.endswith(b":1")


SAME = [
    pytest.param(CHAT, [{"stop": "a"}, {"stop": ["a"]}], marks=pytest.mark.case(72), id="stop"),
    pytest.param(CHAT, [{}, {"temperature": 1.0}, {"top_p": 1}, {"temperature": None}], id="defaults"),
    pytest.param(CHAT, [{}, {"response_format": {"type": "text"}}, {"logprobs": False}, {"tools": []}], id="absent"),
    pytest.param(CHAT, [{}, {"n": 1}, {"tool_choice": "auto"}, {"user": "x"}], marks=pytest.mark.case(74), id="caller"),
    pytest.param(CHAT, [{"reasoning_effort": "low"}, {"reasoning": {"effort": "minimal"}}], id="effort"),
    pytest.param(CHAT, [{}, {"messages": [{"role": "USER", "content": "why?"}]}], id="role"),
    pytest.param(COMPLETIONS, [{}, {"top_p": 0}, {"frequency_penalty": 0}, {"suffix": ""}], id="completions"),
]


@pytest.mark.parametrize(("path", "bodies"), SAME)
async def test_requests_that_are_one_to_ollama_share_an_answer(
    house: House, path: str, bodies: list[dict[str, Any]]
) -> None:
    """The first is a miss, all others hits."""
    model = {"model": "qwen3"} if "reasoning" in str(bodies) else {}

    assert await outcomes(house, *(model | body for body in bodies), path=path) == ["MISS"] + ["EXACT"] * (
        len(bodies) - 1
    )


DIFFERENT: list[Any] = [
    pytest.param(
        CHAT,
        [{}, {"temperature": 0}, {"top_p": 0.5}, {"max_tokens": 500}, {"seed": 1}, {"stop": "a"}]
        + [{"frequency_penalty": 0.5}, {"presence_penalty": 0.5}, {"response_format": {"type": "json_object"}}]
        + [{"logprobs": True, "top_logprobs": count} for count in (1, 2)],
        id="options",
    ),
    pytest.param(
        CHAT,
        [{}, {"n": 2}, {"tool_choice": "none"}, {"logit_bias": {"1": 5}}, {"tomorrow": 1}, {"options": {"seed": 1}}],
        marks=pytest.mark.case(74),
        id="ignored today",
    ),
    pytest.param(COMPLETIONS, [{}, {"echo": True}, {"best_of": 2}, {"max_tokens": 500}, {"suffix": "x"}], id="prompt"),
]


@pytest.mark.parametrize(("path", "bodies"), DIFFERENT)
async def test_requests_that_may_be_answered_differently_share_nothing(
    house: House, path: str, bodies: list[dict[str, Any]]
) -> None:
    """Each is a miss, and then a hit of its own."""
    model = {"model": "codellama"} if any("suffix" in body for body in bodies) else {}
    asked = [model | body for body in bodies]

    assert await outcomes(house, *asked, path=path) == ["MISS"] * len(bodies)
    assert await outcomes(house, *asked, path=path) == ["EXACT"] * len(bodies)


@pytest.mark.case(73)
async def test_max_tokens_is_num_predict(house: House) -> None:
    """So the two routes share the answer, unless it was cut."""
    native = await house.chat("why?", options={"temperature": 1, "top_p": 1, "num_predict": 500})
    await house.settled()
    hit = await ask(house, max_tokens=500)

    assert (hit.header("X-Cache"), said(hit)) == ("EXACT", said(native))


@pytest.mark.case(75)
async def test_each_part_of_a_content_is_a_message_of_its_own(house: House) -> None:
    """So it is to Ollama: two texts are not one."""

    def parts(*texts: str) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": [{"type": "text", "text": text} for text in texts]}]}

    native = await house.chat(
        messages=[{"role": "user", "content": text} for text in "ab"], options={"temperature": 1, "top_p": 1}
    )
    await house.settled()
    joined = {"messages": [{"role": "user", "content": "ab"}]}

    hit = await ask(house, **parts("a", "b"))
    assert (hit.header("X-Cache"), said(hit)) == ("EXACT", said(native))
    assert await outcomes(house, joined, parts("ab"), parts("b", "a")) == ["MISS", "EXACT", "MISS"]


@pytest.mark.case(75)
async def test_an_image_is_known_by_its_bytes(house: House) -> None:
    """Not by the type its URL claims; one byte more is another image."""

    def image(url: str) -> dict[str, Any]:
        content = [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": url}}]
        return {"model": "llama3", "messages": [{"role": "user", "content": content}]}

    urls = ["data:image/png;base64,QUJD", "data:image/jpeg;base64,QUJD", "data:image/png;base64,QUJE"]
    assert await outcomes(house, *map(image, urls)) == ["MISS", "EXACT", "MISS"]


FORMS_OF_IMAGES: dict[str, Callable[[str], dict[str, Any]]] = {
    "/api/generate": lambda data: {"prompt": "what?", "images": [data]},
    "/api/chat": lambda data: {"messages": [{"role": "user", "content": "what?", "images": [data]}]},
    CHAT: lambda data: {"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}]}]},
    "/v1/messages": lambda data: {"max_tokens": 100, "messages": [{"role": "user", "content": [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}]}]},
}  # fmt: skip


@pytest.mark.case(49)
@pytest.mark.parametrize("path", FORMS_OF_IMAGES)
async def test_an_image_with_too_much_padding_is_ollamas_to_refuse(house: House, path: str) -> None:
    """Its bytes are those of the image that is stored; line breaks say nothing."""

    async def asked(data: str) -> tuple[int, str | None]:
        reply = await house.ask("POST", path, {"model": "llama3"} | FORMS_OF_IMAGES[path](data))
        await house.settled()
        return reply.status, reply.header("X-Cache")

    assert [await asked(data) for data in ("QUJD", "QU\r\nJD\n")] == [(200, "MISS"), (200, "EXACT")]
    assert [await asked(data) for data in ("QUJD=", "QUJD==", "QUJD===", "QUJ")] == [(400, "BYPASS")] * 4


# --- Tools, length, thinking, logprobs ---


@pytest.mark.case(76)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_tool_call_crosses_with_its_arguments_in_order(house: House, stream: bool) -> None:
    """`tool_calls` here is `stop` there; text here, an object in the same order there."""
    house.ollama.calls_tools = True
    native = await house.chat("why?", tools=[TOOL], stream=False, options={"temperature": 1, "top_p": 1})
    await house.settled()
    hit = await ask(house, tools=[TOOL], stream=stream)

    assert hit.header("X-Cache") == "EXACT"
    if stream:
        *_, called, finish, _done = events(hit)
        (call,) = called["choices"][0]["delta"]["tool_calls"]
        reason = finish["choices"][0]["finish_reason"]
    else:
        choice = hit.json()["choices"][0]
        (call,) = choice["message"]["tool_calls"]
        reason = choice["finish_reason"]
    given = native.json()["message"]["tool_calls"][0]
    assert (reason, native.json()["done_reason"]) == ("tool_calls", "stop")
    assert call["id"] == given["id"]
    assert call["function"]["arguments"] == json.dumps(given["function"]["arguments"], separators=(",", ":"))
    assert list(json.loads(call["function"]["arguments"])) == ["place", "day"]


@pytest.mark.case(76)
async def test_a_tool_call_of_openais_form_serves_the_native_one(
    fake_ollama: FakeOllama, clean_redis: RedisServer
) -> None:
    """Where durations may be missing."""
    fake_ollama.calls_tools = True
    async with open_house(fake_ollama, clean_redis, cache={"without_durations": True}) as house:
        stored = await ask(house, tools=[TOOL])
        hit = await house.chat("why?", tools=[TOOL], stream=False, options={"temperature": 1, "top_p": 1})

    call = hit.json()["message"]["tool_calls"][0]
    text = stored.json()["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]
    assert (hit.header("X-Cache"), hit.json()["done_reason"]) == ("EXACT", "stop")
    assert json.dumps(call["function"]["arguments"], separators=(",", ":")) == text


@pytest.mark.case(77)
async def test_an_answer_cut_at_its_limit_says_so(fake_ollama: FakeOllama, clean_redis: RedisServer) -> None:
    """finish_reason `length`, where such answers are kept at all."""
    async with open_house(fake_ollama, clean_redis, cache={"store_truncated": True}) as house:
        miss, hit = [await ask(house, max_tokens=3) for _ in range(2)]
        streamed = await ask(house, max_tokens=3, stream=True)

    assert hit.header("X-Cache") == "EXACT"
    assert {reply.json()["choices"][0]["finish_reason"] for reply in (miss, hit)} == {"length"}
    assert events(streamed)[-2]["choices"][0]["finish_reason"] == "length"


@pytest.mark.case(78)
async def test_thinking_is_reasoning(fake_ollama: FakeOllama, clean_redis: RedisServer) -> None:
    """Both ways, and apart from the text."""
    options = {"temperature": 1, "top_p": 1}
    async with open_house(fake_ollama, clean_redis, cache={"without_durations": True}) as house:
        native = await house.chat("why?", model="qwen3", stream=False, options=options)
        await house.settled()
        hit = await ask(house, model="qwen3")
        stored = await ask(house, model="qwen3", seed=1)
        back = await house.chat("why?", model="qwen3", stream=False, options=options | {"seed": 1})

    assert (hit.header("X-Cache"), back.header("X-Cache")) == ("EXACT", "EXACT")
    assert hit.json()["choices"][0]["message"]["reasoning"] == native.json()["message"]["thinking"] != ""
    assert back.json()["message"]["thinking"] == stored.json()["choices"][0]["message"]["reasoning"] != ""
    assert said(hit) == said(native)


async def test_logprobs_of_a_hit_are_those_of_the_miss(house: House) -> None:
    """Whole and streamed; and the ask without them is served too."""
    asked = {"logprobs": True, "top_logprobs": 2}
    miss, hit = [await ask(house, **asked) for _ in range(2)]
    streamed = await ask(house, stream=True, **asked)
    without = await ask(house)

    assert timeless(hit.body) == timeless(miss.body)
    tokens = [
        token
        for event in events(streamed)[:-1]
        for token in (event["choices"][0].get("logprobs") or {"content": []})["content"]
    ]
    assert tokens == miss.json()["choices"][0]["logprobs"]["content"] != []
    assert without.header("X-Cache") == "EXACT"
    assert b'"logprobs"' not in without.body


# --- Errors ---


@pytest.mark.case(79)
@BOTH
async def test_an_unknown_model_is_ollamas_404(house: House, path: str) -> None:
    """In OpenAI's form, and asked every time."""
    replies = [await ask(house, path, model="nobody") for _ in range(2)]

    error = {"message": "model 'nobody' not found", "type": "not_found_error", "param": None, "code": None}
    assert [(reply.status, reply.json()) for reply in replies] == [(404, {"error": error})] * 2
    assert house.calls(path) == 2


REFUSED: list[Any] = [
    pytest.param(CHAT, {"messages": []}, marks=pytest.mark.case(80), id="no messages"),
    pytest.param(CHAT, {"messages": [{"role": "user", "content": None}]}, marks=pytest.mark.case(80), id="no content"),
    pytest.param(
        CHAT,
        {"messages": [{"role": "user", "content": "why?", "Content": None}]},
        marks=pytest.mark.case(50),
        id="content cleared",
    ),
    pytest.param(CHAT, {"reasoning_effort": "enormous"}, id="effort"),
    *(pytest.param(CHAT, {"reasoning_effort": effort}, id=f"effort {effort}") for effort in (0, False, [])),
    *(pytest.param(CHAT, {"reasoning": {"effort": effort}}, id=f"nested {effort}") for effort in (0, False, [])),
    pytest.param(CHAT, {"reasoning": ""}, id="reasoning"),
    pytest.param(CHAT, {"response_format": "json"}, id="format"),
    pytest.param(CHAT, {"max_tokens": 5.5}, id="half a token"),
    pytest.param(CHAT, {"stream": "yes"}, id="stream"),
    pytest.param(CHAT, {"stream_options": []}, id="stream options"),
    pytest.param(CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "http://x"}]}]}),
    pytest.param(COMPLETIONS, {"prompt": ["a"]}, id="several prompts"),
    pytest.param(COMPLETIONS, {"prompt": 5}, id="no prompt"),
]


@pytest.mark.parametrize(("path", "members"), REFUSED)
async def test_what_ollama_refuses_is_refused_by_ollama(house: House, path: str, members: dict[str, Any]) -> None:
    """Also when an answer to nearly the same is stored: its own words, every time."""
    await ask(house, path)
    await ask(house, CHAT, messages=[{"role": "user", "content": ""}])

    replies = [await ask(house, path, **members) for _ in range(2)]
    prompt = {"prompt": "why?"} if path == COMPLETIONS else {"messages": ASKED["messages"]}
    own = await wire.ask(house.ollama.port, "POST", path, {"model": MODEL} | prompt | members)

    assert [reply.status for reply in replies] == [400, 400]
    assert {reply.body for reply in replies} == {own.body}


@pytest.mark.case(102)
@BOTH
@pytest.mark.parametrize(
    "fault", [Fault(error_after_tokens=(2, "crashed")), Fault(silent_end_after_tokens=2)], ids=["bogus chunk", "silent"]
)
async def test_a_stream_without_its_end_is_delivered_and_not_kept(house: House, path: str, fault: Fault) -> None:
    """A chunk of no model's, or nothing; no finish and no `[DONE]`."""
    house.ollama.next(fault)

    broken = await ask(house, path, stream=True)
    whole = await ask(house, path, stream=True)

    assert b"[DONE]" not in broken.body
    assert broken.complete
    assert (whole.header("X-Cache"), events(whole)[-1]) == ("MISS", "[DONE]")


@pytest.mark.case(102)
@BOTH
async def test_a_stream_that_is_cut_off_is_cut_off_for_the_caller_too(house: House, path: str) -> None:
    """And nothing is kept."""
    house.ollama.next(Fault(cut_after_bytes=900))

    broken = await ask(house, path, stream=True)
    whole = await ask(house, path, stream=True)

    assert not broken.complete
    assert whole.header("X-Cache") == "MISS"


# --- Controls ---


async def test_the_body_may_control_the_cache(house: House) -> None:
    """`cache` is ours: it does not reach Ollama, and is no part of what is asked."""
    await ask(house)

    off = await ask(house, cache={"no-store": True})
    fresh = await ask(house, cache={"no-cache": True})
    aged = await ask(house, cache={"s-maxage": 0})
    hit = await ask(house, cache={"ttl": 60})

    assert [reply.header("X-Cache") for reply in (off, fresh, aged, hit)] == ["BYPASS", "MISS", "MISS", "EXACT"]
    assert said(off) == said(hit)
    assert all(b'"cache"' not in request.body for request in house.ollama.requests)


# --- Joining ---


NATIVE = {"model": MODEL, "messages": [{"role": "user", "content": "why?"}], "options": {"temperature": 1, "top_p": 1}}
ASKED = {"model": MODEL, "messages": [{"role": "user", "content": "why?"}]}


async def together(house: House, first: tuple[str, Any], *others: tuple[str, Any], answers: int = 1) -> list[Response]:
    """Ask the first, and the others while its answer stalls after two tokens, as all `answers` do."""
    house.ollama.next(Fault(stall_after_tokens=2), count=answers)
    tasks = [asyncio.create_task(house.ask("POST", *first))]
    await house.ollama.wait_until(lambda: house.ollama.stalled == 1)
    tasks += [asyncio.create_task(house.ask("POST", *other)) for other in others]
    await until(lambda: house.app.flights.followers == 1 + len(others))
    await house.ollama.wait_until(lambda: house.ollama.stalled == answers)
    house.ollama.release()
    return await asyncio.gather(*tasks)


@pytest.mark.case(107)
@pytest.mark.parametrize("stream", [True, False])
async def test_callers_of_other_forms_join_a_native_answer_under_way(house: House, stream: bool) -> None:
    """Each gets the one answer in its own form."""
    forms: list[dict[str, Any]] = [{"stream": True}, WITH_USAGE, {"stream": False}]

    native, *joined = await together(
        house, ("/api/chat", NATIVE | {"stream": stream}), *((CHAT, ASKED | form) for form in forms)
    )

    assert [reply.header("X-Cache") for reply in joined] == ["JOINED"] * 3
    assert {said(reply) for reply in joined} == {said(native)}
    assert events(joined[0])[-1] == events(joined[1])[-1] == "[DONE]"
    assert events(joined[1])[-2]["usage"] == joined[2].json()["usage"]
    assert (house.calls("/api/chat"), house.calls(CHAT)) == (1, 0)


@pytest.mark.case(107)
async def test_a_caller_who_joins_live_gets_each_piece_as_it_comes(house: House) -> None:
    """In its own form, before the answer is complete, also behind an nginx."""
    house.ollama.next(Fault(stall_after_tokens=2))
    first = asyncio.create_task(house.ask("POST", "/api/chat", NATIVE))
    await house.ollama.wait_until(lambda: house.ollama.stalled == 1)
    async with await wire.connect(house.port) as client:
        await client.send(wire.request("POST", CHAT, ASKED | {"stream": True}))
        reply = await client.head()
        while reply.body.count(b"data: ") < 2:
            await client.chunk(reply)
        early = reply.body
        house.ollama.release()
        while await client.chunk(reply):
            pass
    await first

    assert b"[DONE]" not in early
    assert said(reply) == said(await first)
    assert reply.header("X-Accel-Buffering") == "no"


@pytest.mark.case(107)
async def test_nobody_joins_an_answer_that_will_not_tell_what_they_need(house: House) -> None:
    """Durations, or the number of tokens: these ask Ollama themselves."""
    replies = await together(
        house,
        (CHAT, ASKED | {"stream": True}),
        (CHAT, ASKED | {"stream": True, "model": "LLAMA3.2"}),
        ("/api/chat", NATIVE),
        answers=2,
    )

    assert [reply.header("X-Cache") for reply in replies] == ["MISS", "JOINED", "MISS"]
    assert {event["model"] for event in events(replies[1])[:-1]} == {"LLAMA3.2"}
    assert len({said(reply) for reply in replies}) == 1
    assert replies[2].lines()[-1]["eval_duration"] > 0


@pytest.mark.case(107)
async def test_a_native_caller_joins_where_durations_may_be_missing(
    fake_ollama: FakeOllama, clean_redis: RedisServer
) -> None:
    """Live: lines of the native form, from events of OpenAI's, to a proper end."""
    async with open_house(fake_ollama, clean_redis, cache={"without_durations": True}) as house:
        openais, native = await together(house, (CHAT, ASKED | WITH_USAGE), ("/api/chat", NATIVE))

    assert native.header("X-Cache") == "JOINED"
    assert native.header("Content-Type") == "application/x-ndjson"
    assert said(native) == said(openais)
    assert list(native.lines()[0]) == ["model", "created_at", "message", "done"]
    last = native.lines()[-1]
    assert (last["done"], last["done_reason"]) == (True, "stop")
    assert last["eval_count"] == events(openais)[-2]["usage"]["completion_tokens"]


@pytest.mark.case(107)
async def test_a_joined_caller_is_told_of_an_error_as_ollama_would(house: House) -> None:
    """Streamed: the chunk of no model's. Whole: status 500 in OpenAI's form."""
    house.ollama.next(Fault(stall_after_tokens=1, error_after_tokens=(2, "the model crashed")))
    native = asyncio.create_task(house.ask("POST", "/api/chat", NATIVE))
    await house.ollama.wait_until(lambda: house.ollama.stalled == 1)
    joined = [asyncio.create_task(house.ask("POST", CHAT, ASKED | {"stream": stream})) for stream in (True, False)]
    await until(lambda: house.app.flights.followers == 3)
    house.ollama.release()
    streamed, whole = await asyncio.gather(*joined)
    await native

    assert events(streamed)[-1]["model"] == ""
    assert b"[DONE]" not in streamed.body
    assert (whole.status, whole.json()["error"]["message"]) == (500, "the model crashed")


@pytest.mark.case(107)
async def test_a_refusal_is_worded_for_each_caller(house: House) -> None:
    """One error of Ollama's, in the form of each."""
    house.ollama.next(Fault(first_token_delay_s=0.2, error_after_tokens=(0, "no room")))
    native = asyncio.create_task(house.ask("POST", "/api/chat", NATIVE))
    await until(lambda: house.app.flights.followers == 1)
    joined = await house.ask("POST", CHAT, ASKED)

    assert ((await native).status, (await native).json()) == (500, {"error": "no room"})
    assert (joined.status, joined.json()["error"]["message"]) == (500, "no room")
    assert house.calls(CHAT) == 0
