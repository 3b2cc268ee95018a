"""Conformance cases F, 83 to 89, and 16: Anthropic's messages and OpenAI's responses, end to end."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest

from tests.fakes import wire
from tests.fakes.house import MODEL, House, until
from tests.fakes.ollama import Fault
from tests.fakes.replies import said, told
from tests.fakes.wire import Response

MESSAGES = "/v1/messages"
RESPONSES = "/v1/responses"
BOTH = pytest.mark.parametrize("path", [MESSAGES, RESPONSES], ids=["messages", "responses"])
STREAM = {"stream": True}
THINKER = {"model": "qwen3"}
SCHEMA = {"type": "object", "properties": {"day": {"type": "string"}, "place": {"type": "string"}}}
NATIVE_TOOL = {"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": SCHEMA}}
TOOLS: dict[str, Any] = {
    MESSAGES: {"tools": [{"name": "weather", "description": "Tells it.", "input_schema": SCHEMA}]},
    RESPONSES: {"tools": [{"type": "function", "name": "weather", "description": "Tells it.", "parameters": SCHEMA}]},
    "/api/chat": {"tools": [NATIVE_TOOL]},
}


async def ask(house: House, path: str = MESSAGES, headers: Any = (), **members: Any) -> Response:
    """One question in the form of a path; its answer is kept before this returns. `...` leaves a member out."""
    history = {"messages": [{"role": "user", "content": "why?"}]}
    asked = history | {"max_tokens": 100} if path.startswith(MESSAGES) else {"input": "why?"}
    body = {"model": MODEL} | (history if path == "/api/chat" else asked) | members
    given = {name: value for name, value in body.items() if value is not ...}
    reply = await house.ask("POST", path, given, headers=headers)
    await house.settled()
    return reply


async def outcomes(house: House, *bodies: dict[str, Any], path: str = MESSAGES) -> list[str | None]:
    """`X-Cache` of asking these in order."""
    return [(await ask(house, path, **body)).header("X-Cache") for body in bodies]


def timeless(body: bytes) -> bytes:
    """A reply's bytes without what is Ollama's own in each: ids and times."""
    body = re.sub(rb'"((?:created|completed)_at)":\d+', rb'"\1":0', body)
    return re.sub(rb'"(msg|rs|fc)_(?:resp_)?[0-9a-f]+(_\d+)?"', rb'"\1\2"', re.sub(rb'"resp_\d+"', b'"resp"', body))


def merged(reply: Response) -> list[Any]:
    """A stream's events without ids, times and numbers, and with the pieces of one text as one."""
    events: list[Any] = []
    for event in told(timeless(reply.body)):
        event.pop("sequence_number", None)
        last = events[-1] if events else {}
        piece, earlier = event.get("delta"), last.get("delta")
        if piece is None or event["type"] != last.get("type"):
            events.append(event)
        elif isinstance(piece, str):
            last["delta"] = earlier + piece
        else:
            name = "thinking" if "thinking" in piece else "text"
            last["delta"] = earlier | {name: earlier[name] + piece[name]}
    return events


# --- Equal to Ollama's own ---


@pytest.mark.case(84)
@BOTH
@pytest.mark.parametrize("model", [MODEL, "qwen3"])
async def test_a_whole_hit_is_ollamas_reply_but_for_ids_and_times(house: House, path: str, model: str) -> None:
    """Content type, line end, order of members, thinking and usage included."""
    miss, hit = await ask(house, path, model=model), await ask(house, path, model=model)

    assert [miss.header("X-Cache"), hit.header("X-Cache")] == ["MISS", "EXACT"]
    assert hit.header("Content-Type") == miss.header("Content-Type") == "application/json"
    assert timeless(hit.body) == timeless(miss.body)
    assert hit.body.endswith(b"}\n")
    assert said(hit)
    assert house.calls(path) == 1


@pytest.mark.case(84)
@BOTH
@pytest.mark.parametrize("model", [MODEL, "qwen3"])
async def test_a_streamed_hit_has_ollamas_events(house: House, path: str, model: str) -> None:
    """Their order, members and head; the pieces of a text may be longer."""
    miss, hit = await ask(house, path, model=model, **STREAM), await ask(house, path, model=model, **STREAM)

    assert [miss.header("X-Cache"), hit.header("X-Cache")] == ["MISS", "EXACT"]
    assert merged(hit) == merged(miss)
    for name in ("Content-Type", "Cache-Control"):
        assert hit.header(name) == miss.header(name)
    assert told(hit.body)[-1]["type"] == {MESSAGES: "message_stop", RESPONSES: "response.completed"}[path]
    assert said(hit)


@pytest.mark.case(84)
@BOTH
async def test_a_members_order_is_ollamas_in_a_stream(house: House, path: str) -> None:
    """To the byte, for the events that there is one of."""
    miss, hit = await ask(house, path, **THINKER, **STREAM), await ask(house, path, **THINKER, **STREAM)

    single = [event for event in timeless(miss.body).split(b"\n\n") if b"delta" not in event.partition(b"\n")[0]]
    numberless = [re.sub(rb'"sequence_number":\d+', b"", event) for event in single]
    replayed = re.sub(rb'"sequence_number":\d+', b"", timeless(hit.body)).split(b"\n\n")
    assert len(numberless) >= 5
    assert [event for event in numberless if event not in replayed] == []


@pytest.mark.case(84)
@BOTH
@pytest.mark.parametrize("first", [{}, STREAM], ids=["whole", "stream"])
async def test_whole_and_streamed_serve_each_other(house: House, path: str, first: dict[str, Any]) -> None:
    """Whichever came first; both say the same."""
    second = {} if first else STREAM
    miss, hit = await ask(house, path, **THINKER, **first), await ask(house, path, **THINKER, **second)
    fresh = await ask(house, path, **THINKER, **second, headers=[("Cache-Control", "no-cache")])

    assert hit.header("X-Cache") == "EXACT"
    assert said(hit) == said(miss)
    assert merged(hit) == merged(fresh) if second else timeless(hit.body) == timeless(fresh.body)


@pytest.mark.case(84)
@BOTH
@pytest.mark.parametrize("how", [{}, STREAM], ids=["whole", "stream"])
async def test_a_tool_call_is_replayed(house: House, path: str, how: dict[str, Any]) -> None:
    """Its id, name and arguments in their order."""
    house.ollama.calls_tools = True
    miss, hit = await ask(house, path, **TOOLS[path], **how), await ask(house, path, **TOOLS[path], **how)

    assert [miss.header("X-Cache"), hit.header("X-Cache")] == ["MISS", "EXACT"]
    assert merged(hit) == merged(miss) if how else timeless(hit.body) == timeless(miss.body)
    assert b"weather" in hit.body
    assert b"call_" in hit.body


# --- One answer for all forms ---


@pytest.mark.case(85)
@pytest.mark.parametrize(
    ("native", "members", "reason"),
    [
        ({"options": {"num_predict": 100}}, {}, "end_turn"),
        ({"options": {"num_predict": 100, "temperature": 0.5, "top_k": 7, "top_p": 0.5, "stop": ["x"]}},
         {"temperature": 0.5, "top_k": 7, "top_p": 0.5, "stop_sequences": ["x"]}, "end_turn"),
        ({"options": {"num_predict": 100}, "messages": [{"role": "system", "content": "ab"},
                                                        {"role": "user", "content": "why?"}]},
         {"system": [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": {}}]}, "end_turn"),
        ({"options": {"num_predict": 100}, "messages": [{"role": "user", "content": "why? now"}]},
         {"messages": [{"role": "user", "content": [{"type": "text", "text": text} for text in ("why?", " now")]}]},
         "end_turn"),
        ({"options": {"num_predict": 100}} | TOOLS["/api/chat"], TOOLS[MESSAGES], "tool_use"),
    ],
    ids=["plain", "options", "system", "blocks", "tools"],
)  # fmt: skip
@pytest.mark.parametrize("how", [{"stream": False}, STREAM], ids=["whole", "stream"])
async def test_an_answer_of_chat_serves_messages(
    house: House, native: dict[str, Any], members: dict[str, Any], reason: str, how: dict[str, Any]
) -> None:
    """Said in Anthropic's words, as Ollama would have said it."""
    house.ollama.calls_tools = reason == "tool_use"
    await ask(house, "/api/chat", **native)
    hit = await ask(house, **members, **how)
    fresh = await ask(house, **members, **how, headers=[("Cache-Control", "no-store")])

    assert hit.header("X-Cache") == "EXACT"
    assert merged(hit) == merged(fresh) if how["stream"] else timeless(hit.body) == timeless(fresh.body)
    assert f'"stop_reason":"{reason}"' in hit.text


@pytest.mark.case(85)
async def test_an_answer_that_was_cut_off_says_so(house: House) -> None:
    """`length` is `max_tokens` both ways; it is served only where such answers are kept at all."""
    native = await ask(house, "/api/chat", stream=False, options={"num_predict": 2})
    cut = await ask(house, max_tokens=2)

    assert native.json()["done_reason"] == "length"
    assert cut.json()["stop_reason"] == "max_tokens"
    assert cut.header("X-Cache") == "MISS"
    assert await outcomes(house, {"max_tokens": 2}) == ["MISS"]


@pytest.mark.case(85)
async def test_what_says_nothing_of_the_answer_is_not_looked_at(house: House) -> None:
    """A user's id, hints to a cache that is not here, and a choice that is the default."""
    block = {"type": "text", "text": "why?", "cache_control": {"type": "ephemeral"}}
    seen = await outcomes(
        house,
        {},
        {"metadata": {"user_id": "me"}},
        {"messages": [{"role": "user", "content": [block]}]},
        {"tool_choice": {"type": "auto"}},
        {"stop_sequences": []},
        {"system": ""},
    )

    assert seen == ["MISS"] + ["EXACT"] * 5


@pytest.mark.case(85)
async def test_a_thread_that_goes_on_shares_with_none(house: House) -> None:
    """It leaves out what was said before; a new one says all, and is a request like any other."""
    last: list[dict[str, Any]] = [{"type": "continue", "previous_message_id": f"msg_{number}"} for number in range(2)]
    bodies = [{}, {"thread": {"type": "create"}}, *({"thread": thread} for thread in last)]

    assert await outcomes(house, *bodies) == ["MISS", "EXACT", "MISS", "MISS"]


@pytest.mark.case(85)
async def test_what_may_change_the_answer_has_its_own(house: House) -> None:
    """Each of these is asked of Ollama once, and then served."""
    user = {"role": "user", "content": "why?"}
    call = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"b": 1, "a": 2}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "rain"}
    bodies: list[dict[str, Any]] = [
        {"max_tokens": 101},
        {"temperature": 0.5},
        {"system": "be brief"},
        {"messages": [user, {"role": "assistant", "content": "because"}, user]},
        {"messages": [user, {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]},
        {"messages": [user, {"role": "assistant", "content": [call | {"input": {"a": 2, "b": 1}}]},
                      {"role": "user", "content": [result]}]},
        {"messages": [user, {"role": "assistant", "content": [call]},
                      {"role": "user", "content": [result | {"content": [{"type": "text", "text": "sun"}]}]}]},
        {"tool_choice": {"type": "any"}},
        {"output_config": {"effort": "high"}},
        {"output_config": {"format": {"type": "json_schema", "schema": {}}}},
        TOOLS[MESSAGES],
        {"context_management": {"edits": []}},
    ]  # fmt: skip

    assert await outcomes(house, *bodies) == ["MISS"] * len(bodies)
    assert await outcomes(house, *bodies) == ["EXACT"] * len(bodies)


@pytest.mark.case(50)
@pytest.mark.case(85)
async def test_a_null_that_clears_a_text_is_not_overlooked(house: House) -> None:
    """Ollama takes `Text` for `text`, so it is asked another question than the one that is spelt out."""
    cleared = [{"type": "text", "text": "is it NOT ", "Text": None}, {"type": "text", "text": "safe?"}]
    other = await ask(house, messages=[{"role": "user", "content": cleared}])
    asked = await ask(house, messages=[{"role": "user", "content": "is it NOT safe?"}])
    short = await ask(house, messages=[{"role": "user", "content": "safe?"}])

    assert [reply.header("X-Cache") for reply in (other, asked, short)] == ["BYPASS", "MISS", "MISS"]
    assert said(other) == said(short) != said(asked)


@pytest.mark.case(85)
async def test_a_call_that_may_have_been_cut_off_serves_messages_alone(house: House) -> None:
    """`tool_use` hides how the answer ended, which the other forms tell."""
    house.ollama.calls_tools = True
    native = {"options": {"num_predict": 100, "temperature": 1, "top_p": 1}} | TOOLS["/api/chat"]
    members = {"temperature": 1, "top_p": 1} | TOOLS[MESSAGES]
    assert await outcomes(house, members, members) == ["MISS", "EXACT"]

    assert (await ask(house, "/api/chat", **native)).header("X-Cache") == "MISS"
    assert await outcomes(house, members) == ["EXACT"]


# --- Around the cache ---


def zstd(data: bytes) -> bytes:
    """A zstd frame of one raw block (RFC 8878, section 3.1.1), for less than 256 bytes."""
    return b"\x28\xb5\x2f\xfd\x20" + bytes([len(data)]) + (len(data) << 3 | 1).to_bytes(3, "little") + data


@pytest.mark.case(86)
@BOTH
async def test_a_web_search_goes_around_the_cache(house: House, path: str) -> None:
    """What it finds is of the moment."""
    kind = {MESSAGES: "web_search_20250305", RESPONSES: "web_search"}[path]
    tool = {"type": kind, "name": "web_search"}
    replies = [await ask(house, path, tools=[tool]) for _ in range(2)]

    assert [reply.header("X-Cache") for reply in replies] == ["BYPASS"] * 2
    assert "detail=web-search" in (replies[0].header("Cache-Status") or "")
    assert house.calls(path) == 2


@pytest.mark.case(83)
async def test_a_compressed_body_reaches_ollama_as_it_came(house: House) -> None:
    """Codex sends zstd; its bytes and the header that names them are Ollama's to read."""
    body = zstd(json.dumps({"model": MODEL, "input": "why?"}).encode())
    reply = await house.ask("POST", RESPONSES, body, headers=[("Content-Encoding", "zstd")])

    request = house.ollama.requests[-1]
    assert reply.header("X-Cache") == "BYPASS"
    assert (request.body, request.header("content-encoding")) == (body, "zstd")


@pytest.mark.case(16)
async def test_the_query_is_kept_and_the_cache_applies(house: House) -> None:
    """Anthropic's client adds `?beta=true` to some of its calls."""
    miss, hit = await ask(house, f"{MESSAGES}?beta=true"), await ask(house, f"{MESSAGES}?beta=true")

    assert [miss.header("X-Cache"), hit.header("X-Cache")] == ["MISS", "EXACT"]
    assert [request.query for request in house.ollama.requests if request.path == MESSAGES] == ["beta=true"]


@pytest.mark.case(84)
@pytest.mark.parametrize(
    ("path", "members", "status"),
    [
        (MESSAGES, {"max_tokens": ...}, 400),
        (MESSAGES, {"max_tokens": -1}, 400),
        (MESSAGES, {"messages": []}, 400),
        (MESSAGES, {"model": "nobody"}, 404),
        (RESPONSES, {"reasoning": {"effort": "much"}}, 400),
        (RESPONSES, {"model": "nobody"}, 404),
    ],
)
async def test_a_refusal_is_ollamas_and_not_kept(house: House, path: str, members: dict[str, Any], status: int) -> None:
    """Asked again, Ollama refuses again; an answer of chat's does not hide it."""
    await ask(house, "/api/chat", options={"num_predict": -1})
    replies = [await ask(house, path, **members) for _ in range(2)]

    assert [reply.status for reply in replies] == [status] * 2
    assert "error" in replies[0].json()
    assert house.calls(path) == 2


# --- Responses ---


@pytest.mark.case(87)
@pytest.mark.parametrize("how", [{}, STREAM], ids=["whole", "stream"])
async def test_a_response_repeats_this_requests_parameters(house: House, how: dict[str, Any]) -> None:
    """Two requests that Ollama answers alike, told apart in the reply; the answer came from `/api/chat`."""
    history = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "why?"}]
    native = {"messages": history, "options": {"temperature": 1}} | TOOLS["/api/chat"]
    told_tool = TOOLS[RESPONSES]["tools"][0]
    asks: list[dict[str, Any]] = [
        {"instructions": "be brief", "temperature": 1.0, "tools": [told_tool | {"strict": True}]},
        {
            "input": history,
            "tools": [told_tool],
            "text": {"format": {"type": "text"}},
            "reasoning": {"summary": "auto"},
        },
    ]
    await ask(house, "/api/chat", **native)
    for members in asks:
        hit = await ask(house, RESPONSES, **members, **how)
        fresh = await ask(house, RESPONSES, **members, **how, headers=[("Cache-Control", "no-store")])
        assert hit.header("X-Cache") == "EXACT"
        assert merged(hit) == merged(fresh) if how else timeless(hit.body) == timeless(fresh.body)
    assert house.calls("/api/chat") == 1


@pytest.mark.case(87)
async def test_a_waiting_ask_is_told_its_own_parameters(house: House) -> None:
    """Two equal asks that repeat different things share an answer under way, not its bytes."""
    house.ollama.next(Fault(stall_after_tokens=1))
    first = asyncio.create_task(ask(house, RESPONSES, instructions="be brief", **STREAM))
    await until(lambda: house.ollama.stalled == 1)
    history = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "why?"}]
    second = asyncio.create_task(ask(house, RESPONSES, input=history, **STREAM))
    await until(lambda: house.app.flights.followers == 2)
    house.ollama.release()
    led, joined = await first, await second

    assert [led.header("X-Cache"), joined.header("X-Cache")] == ["MISS", "JOINED"]
    assert said(led) == said(joined)
    assert told(led.body)[-1]["response"]["instructions"] == "be brief"
    assert told(joined.body)[-1]["response"]["instructions"] is None
    assert house.calls(RESPONSES) == 1


def tool_round(number: int = 1, output: str = "rain", place: str = "Oslo") -> list[dict[str, Any]]:
    """A question, a call and its output, with the ids that a reply of that number would give its items."""
    arguments = json.dumps({"place": place})
    call = {"type": "function_call", "id": f"fc_{number}", "call_id": "call_1", "name": "weather"}
    return [
        {"role": "user", "content": "why?"},
        {"type": "reasoning", "id": f"rs_{number}", "summary": [], "encrypted_content": "hm"},
        call | {"arguments": arguments, "status": "completed"},
        {"type": "function_call_output", "call_id": "call_1", "output": output},
    ]


@pytest.mark.case(87)
@pytest.mark.parametrize("tools", [TOOLS[RESPONSES], {"tool_choice": "required"}], ids=["twin", "own form"])
async def test_the_ids_of_a_replys_items_are_not_looked_at(house: House, tools: dict[str, Any]) -> None:
    """They are new in each reply, and Ollama drops them when they come back."""
    first, second = tool_round(1), tool_round(2)
    for name in ("id", "status"):
        second[2].pop(name)
    seen = await outcomes(house, *({"input": items} | tools for items in (first, second)), path=RESPONSES)

    assert seen == ["MISS", "EXACT"]


@pytest.mark.case(87)
async def test_what_a_tool_gave_has_its_own_answer(house: House) -> None:
    """Another output, another argument, a call without its output: each is asked of Ollama once, and then served."""
    rounds = [tool_round(), tool_round(output="sun"), tool_round(place="Bergen"), tool_round()[:-1]]
    bodies: list[dict[str, Any]] = [{"input": items} for items in rounds]
    misses = [await ask(house, RESPONSES, **body) for body in bodies]
    hits = [await ask(house, RESPONSES, **body) for body in bodies]

    assert [reply.header("X-Cache") for reply in misses + hits] == ["MISS"] * 4 + ["EXACT"] * 4
    assert [said(reply) for reply in hits] == [said(reply) for reply in misses]
    assert len({said(reply) for reply in hits}) == 4


@pytest.mark.case(87)
@pytest.mark.parametrize("how", [{}, STREAM], ids=["whole", "stream"])
async def test_an_answer_of_chat_after_a_tools_result_serves_responses(house: House, how: dict[str, Any]) -> None:
    """The items are the native conversation that Ollama makes of them, so its answer is the same."""
    call = {"id": "call_1", "function": {"name": "weather", "arguments": {"place": "Oslo"}}}
    history = [
        {"role": "user", "content": "why?"},
        {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    ]
    native = await ask(house, "/api/chat", messages=history, options={"temperature": 1}, **TOOLS["/api/chat"])
    members = {"input": tool_round()} | TOOLS[RESPONSES] | how
    hit = await ask(house, RESPONSES, **members)
    fresh = await ask(house, RESPONSES, **members, headers=[("Cache-Control", "no-store")])

    assert hit.header("X-Cache") == "EXACT"
    assert said(hit) == said(fresh) == said(native)


@pytest.mark.case(87)
async def test_what_is_to_be_included_is_not_looked_at(house: House) -> None:
    """Ollama's replies always tell the same."""
    bodies = [{}, {"include": []}, {"include": None}, {"include": ["message.output_text.logprobs"]}]

    assert await outcomes(house, *bodies, path=RESPONSES) == ["MISS"] + ["EXACT"] * 3


@pytest.mark.case(88)
@pytest.mark.parametrize("how", [{}, STREAM], ids=["whole", "stream"])
async def test_what_responses_stored_serves_no_other_form(house: House, how: dict[str, Any]) -> None:
    """It does not tell whether it was cut off. A fuller answer then takes its place and serves all."""
    native = {"options": {"temperature": 1, "num_predict": 100}}
    members = {"max_output_tokens": 100} | how
    anthropic = {"temperature": 1}
    assert (await ask(house, RESPONSES, **members)).header("X-Cache") == "MISS"
    assert (await ask(house, **anthropic)).header("X-Cache") == "MISS"
    assert (await ask(house, RESPONSES, **members)).header("X-Cache") == "EXACT"
    assert (await ask(house, **anthropic)).header("X-Cache") == "EXACT"
    assert (await ask(house, "/api/chat", **native)).header("X-Cache") == "MISS"
    assert (await ask(house, RESPONSES, **members)).header("X-Cache") == "EXACT"


@pytest.mark.case(88)
async def test_text_that_a_reply_dropped_is_not_missing_from_a_stream(house: House) -> None:
    """Ollama drops text beside tool calls from a whole reply alone, so such a reply serves no stream."""
    call = {"id": "call_1", "function": {"index": 0, "name": "weather", "arguments": {"day": "today"}}}
    house.ollama.always(Fault(tool_calls_last=(call,)))
    whole, stream = TOOLS[RESPONSES], TOOLS[RESPONSES] | STREAM

    assert said(await ask(house, RESPONSES, **stream, headers=[("Cache-Control", "no-store")]))
    assert not said(await ask(house, RESPONSES, **whole, headers=[("Cache-Control", "no-store")]))
    assert await outcomes(house, whole, whole, stream, stream, whole, path=RESPONSES) == [
        "MISS", "EXACT", "MISS", "EXACT", "EXACT",
    ]  # fmt: skip


# --- Thinking ---


@pytest.mark.case(89)
async def test_thinking_on_a_model_that_cannot_is_refused_to_chat_alone(house: House) -> None:
    """Messages are answered, and kept; they hide the refusal from nobody."""
    enabled = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
    assert await outcomes(house, enabled, enabled) == ["MISS", "EXACT"]
    refused = await ask(house, "/api/chat", think=True, options={"num_predict": 100})

    assert refused.status == 400
    assert "does not support thinking" in refused.text


@pytest.mark.case(89)
@pytest.mark.parametrize("budget", ["x", 1024.0, True])
async def test_a_budget_that_is_no_whole_number_is_ollamas_to_refuse(house: House, budget: Any) -> None:
    """Nothing else of it matters: any whole number is answered alike."""
    bodies = [{"thinking": {"type": "enabled", "budget_tokens": tokens}} for tokens in (1024, 2048, budget)]

    assert [(await ask(house, **body)).status for body in bodies] == [200, 200, 400]
    assert await outcomes(house, *bodies[:2]) == ["EXACT", "EXACT"]


@pytest.mark.case(89)
async def test_thinking_on_and_off_are_told_apart(house: House) -> None:
    """Switched on, off, by effort, and left to the model."""
    bodies: list[dict[str, Any]] = [
        THINKER | {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        THINKER | {"thinking": {"type": "disabled"}},
        THINKER | {"output_config": {"effort": "low"}},
        THINKER,
    ]
    assert await outcomes(house, *bodies) == ["MISS"] * 4
    assert await outcomes(house, *bodies) == ["EXACT"] * 4
    assert (await ask(house, **bodies[0])).json()["content"][0]["type"] == "thinking"
    assert (await ask(house, **bodies[1])).json()["content"][0]["type"] == "text"


# --- Broken streams ---


@pytest.mark.case(97)
@pytest.mark.case(98)
@BOTH
@pytest.mark.parametrize(
    "fault", [Fault(error_after_tokens=(2, "boom")), Fault(silent_end_after_tokens=2)], ids=["error", "silence"]
)
async def test_a_stream_without_its_good_end_is_not_kept(house: House, path: str, fault: Fault) -> None:
    """The caller gets what Ollama sent; the next one asks again."""
    house.ollama.next(fault)
    broken = await ask(house, path, **STREAM)
    again = await ask(house, path, **STREAM)

    assert told(broken.body)[-1]["type"] not in ("message_stop", "response.completed")
    assert again.header("X-Cache") == "MISS"
    assert told(again.body)[-1]["type"] in ("message_stop", "response.completed")


@BOTH
@pytest.mark.case(105)
async def test_equal_asks_of_two_forms_share_one_answer_under_way(house: House, path: str) -> None:
    """Chat leads; a stream of the other form joins it, live."""
    native = {"options": {"num_predict": 100, "temperature": 1}}
    members = {"temperature": 1, "max_tokens": 100} if path == MESSAGES else {"max_output_tokens": 100}
    house.ollama.next(Fault(stall_after_tokens=1))
    first = asyncio.create_task(ask(house, "/api/chat", **native))
    await until(lambda: house.ollama.stalled == 1)
    second = asyncio.create_task(ask(house, path, **members, **STREAM))
    await until(lambda: house.app.flights.followers == 2)
    house.ollama.release()
    led, joined = await first, await second
    fresh = await ask(house, path, **members, **STREAM, headers=[("Cache-Control", "no-store")])

    assert joined.header("X-Cache") == "JOINED"
    assert said(joined) == said(led)
    assert merged(joined) == merged(fresh)
    assert joined.header("Cache-Control") == "no-cache"


async def test_an_error_has_anthropics_form(house: House) -> None:
    """Also one that Ollama gave to an equal ask of another form."""
    house.ollama.next(Fault(stall_after_tokens=1, error_after_tokens=(2, "boom")))
    first = asyncio.create_task(ask(house, "/api/chat", stream=False, options={"num_predict": 100}))
    await until(lambda: house.ollama.stalled == 1)
    second = asyncio.create_task(ask(house))
    await until(lambda: house.app.flights.followers == 2)
    house.ollama.release()
    led, joined = await first, await second

    assert led.status == joined.status == 500
    assert joined.json()["type"] == "error"
    assert joined.json()["error"] == {"type": "api_error", "message": "boom"}


async def test_a_stranger_to_the_proxy_reaches_ollama(house: House) -> None:
    """Counting tokens has no route in Ollama, and gets its own 404."""
    reply = await wire.ask(house.port, "POST", f"{MESSAGES}/count_tokens", {"model": MODEL})

    assert (reply.status, reply.text) == (404, "404 page not found")
