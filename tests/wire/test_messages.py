"""Anthropic's dialect: which requests have a native twin, how replies are read, and what is written."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.errors import UnkeyableError
from cacheproxy.flow.record import Recorder
from cacheproxy.model import Answer, Part
from cacheproxy.wire import chat, messages
from cacheproxy.wire.native import CHAT

ABSENT = object()
USER = {"role": "user", "content": "why?"}
ASK = {"model": "m", "max_tokens": 9, "messages": [USER]}
SCHEMA = {"type": "object", "properties": {"z": {"type": "string"}, "a": {"type": "integer"}}}
TOOL = {"name": "f", "description": "does", "input_schema": SCHEMA}
NATIVE_TOOL = {"type": "function", "function": {"name": "f", "description": "does", "parameters": SCHEMA}}
USE = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"z": 1, "a": 2}}
NATIVE_USE = {"id": "toolu_1", "function": {"name": "f", "arguments": {"z": 1, "a": 2}}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "rain"}
NATIVE_RESULT = {"role": "tool", "content": "rain", "tool_call_id": "toolu_1"}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}}
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "s"}
SEARCH = {"type": "web_search_20250305", "name": "web_search"}
HINT = {"cache_control": {"type": "ephemeral"}}


def asked(**members):
    """The ask in a request; ABSENT leaves a member out."""
    body = {name: value for name, value in (ASK | members).items() if value is not ABSENT}
    return messages.parse(json.dumps(body).encode())


def native(options=(), **members):
    """The ask in a native request."""
    body = {"model": "m", "messages": [USER], "options": {"num_predict": 9} | dict(options)} | members
    return chat.parse(json.dumps(body).encode())


def text(words, **more):
    """A block of text."""
    return {"type": "text", "text": words} | more


def said(*blocks, role="user"):
    """A turn of blocks."""
    return {"role": role, "content": list(blocks)}


@pytest.mark.case(85)
@pytest.mark.parametrize(
    ("members", "twin"),
    [
        ({}, native()),
        ({"max_tokens": 5}, native({"num_predict": 5})),
        ({"temperature": 0.7, "top_p": 0.5, "top_k": 3}, native({"temperature": 0.7, "top_p": 0.5, "top_k": 3})),
        ({"temperature": None, "stop_sequences": []}, native()),
        ({"stop_sequences": ["a"]}, native({"stop": ["a"]})),
        ({"system": "be"}, native(messages=[{"role": "system", "content": "be"}, USER])),
        ({"system": [text("b"), text("e", **HINT)]}, native(messages=[{"role": "system", "content": "be"}, USER])),
        ({"system": ""}, native()),
        ({"messages": [said(text("a"), text("b"))]}, native(messages=[{"role": "user", "content": "ab"}])),
        ({"messages": [USER | {"role": "User"}]}, native()),
        ({"messages": [said(), {"role": "user", "content": ""}, USER]}, native()),
        ({"messages": [said(text("why?", citations=None, thinking=None, tomorrow=None))]}, native()),
        ({"messages": [said(IMAGE, text("a"))]},
         native(messages=[{"role": "user", "content": "a", "images": ["QUJD"]}])),
        ({"messages": [USER, said(THOUGHT, text("b"), role="assistant"), USER]},
         native(messages=[USER, {"role": "assistant", "content": "b", "thinking": "hm"}, USER])),
        ({"messages": [USER, said(text("b"), USE, role="assistant"), said(text("now"), RESULT)]},
         native(messages=[USER, {"role": "assistant", "content": "b", "tool_calls": [NATIVE_USE]}, NATIVE_RESULT,
                          {"role": "user", "content": "now"}])),
        ({"messages": [USER, said(USE | HINT, role="assistant"),
                       said(RESULT | {"content": [text("ra"), text("in")], "is_error": False})]},
         native(messages=[USER, {"role": "assistant", "tool_calls": [NATIVE_USE]}, NATIVE_RESULT])),
        ({"tools": [TOOL, TOOL | {"type": "custom"} | HINT]}, native(tools=[NATIVE_TOOL, NATIVE_TOOL])),
        ({"tools": []}, native()),
        ({"metadata": {"user_id": "u"}, "tool_choice": {"type": "auto"}, "service_tier": "auto"}, native()),
        ({"thinking": {"type": "adaptive"}, "output_config": {}}, native()),
        ({"thread": {"type": "create"}}, native()),
    ],
)  # fmt: skip
def test_a_request_has_the_key_of_its_native_twin(members, twin):
    """Family and canonical bytes are equal, and so are the parts that go into the key besides."""
    ask = asked(**members)

    assert (ask.family, ask.canonical) == (twin.family, twin.canonical)
    assert (ask.temperature, ask.name_matters) == (twin.temperature, twin.name_matters)
    assert ask.translated


@pytest.mark.case(89)
@pytest.mark.parametrize(
    ("members", "think"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, True),
        ({"thinking": {"type": "enabled", "budget_tokens": None}}, True),
        ({"thinking": {"type": "disabled"}}, False),
        ({"output_config": {"effort": "low"}}, "low"),
        ({"output_config": {"effort": "xhigh"}}, "high"),
        ({"output_config": {"effort": "max"}, "thinking": {"type": "adaptive"}}, "max"),
        ({"output_config": {"effort": "max"}, "thinking": {"type": "disabled"}}, False),
    ],
)
def test_thinking_has_a_key_that_native_requests_do_not_have(members, think):
    """A model that cannot think is told nothing of it here, and refused there."""
    ask = asked(**members)

    assert ask.body["think"] == think
    assert ask.family == "chat"
    assert ask.canonical != native(think=think).canonical


@pytest.mark.parametrize(
    "members",
    [
        {"thread": {"type": "continue", "previous_message_id": "msg_1"}}, {"thread": "create"}, {"thread": {}},
        {"tomorrow": 1}, {"temperature": "1"}, {"top_k": 1.5}, {"top_k": 2**63}, {"max_tokens": 2**63},
        {"stop_sequences": "a"}, {"stop_sequences": [1]},
        {"tool_choice": {"type": "any"}}, {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        {"metadata": {"user_id": 5}}, {"metadata": {"other": 1}}, {"metadata": "x"},
        {"thinking": {"type": "sometimes"}}, {"thinking": {"type": "enabled", "display": "omitted"}},
        *({"thinking": {"type": "enabled", "budget_tokens": budget}} for budget in ("x", 1024.0, True, [])),
        {"thinking": True}, {"output_config": {"effort": "enormous"}}, {"output_config": {"format": {}}},
        {"system": 5}, {"system": [text(5)]}, {"system": [IMAGE]},
        {"messages": [USER | {"name": "n"}]}, {"messages": [{"role": "user"}]}, {"messages": [{"content": "a"}]},
        {"messages": [said("a")]}, {"messages": [said({"type": ["text"]})]}, {"messages": [said({"type": None})]},
        {"messages": [said(text("a", citations=[{}]))]},
        {"messages": [said({"type": "document", "source": {}})]},
        {"messages": [said({"type": "image", "source": {"type": "url", "url": "https://x"}})]},
        {"messages": [said(*[{"type": "thinking", "thinking": "hm"}] * 2, role="assistant"), USER]},
        {"messages": [said(THOUGHT | {"signature": 5}, role="assistant"), USER]},
        {"messages": [said(IMAGE | {"source": IMAGE["source"] | {"media_type": 5}})]},
        {"messages": [said({"type": "redacted_thinking", "data": "x"}, role="assistant"), USER]},
        {"messages": [said(USE | {"input": "x"}, role="assistant"), USER]},
        {"messages": [said(USE | {"caller": {}}, role="assistant"), USER]},
        {"messages": [said(RESULT | {"is_error": True})]}, {"messages": [said(RESULT | {"content": [IMAGE]})]},
        {"tools": [TOOL | {"type": "bash_20250124"}]}, {"tools": [TOOL | {"strict": True}]},
        {"tools": [{"name": "f"}]}, {"tools": [TOOL | {"name": 5}]}, {"tools": [TOOL | {"description": 5}]},
    ],
    ids=repr,
)  # fmt: skip
def test_a_request_whose_meaning_is_not_certain_is_keyed_as_it_stands(members):
    """In a family that no other route has, so it shares with its equals alone."""
    ask = asked(**members)

    assert (ask.family, ask.translated) == ("messages", False)
    assert json.loads(ask.canonical) == {name: value for name, value in (ASK | members).items() if name != "model"}


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "why?"}, "messages"),
        ({"messages": ["why?"]}, "messages"),
        ({"messages": ABSENT}, "messages"),
        ({"max_tokens": ABSENT}, "max-tokens"),
        ({"max_tokens": 0}, "max-tokens"),
        ({"max_tokens": 5.0}, "max-tokens"),
        ({"max_tokens": True}, "max-tokens"),
        ({"messages": [said()]}, "load"),
        ({"model": ""}, "model"),
        ({"stream": 1}, "stream"),
        ({"tools": {}}, "tools"),
        ({"Max_Tokens": 5}, "ambiguous-keys"),
        ({"messages": [said(text("is it NOT ", Text=None), text("safe?"))]}, "ambiguous-keys"),
        ({"messages": [said(text("why?", Text=None))], "tomorrow": 1}, "ambiguous-keys"),
        ({"messages": [said(RESULT | {"Content": None})]}, "ambiguous-keys"),
        ({"messages": [said(USE | {"Input": None}, role="assistant"), USER]}, "ambiguous-keys"),
        ({"messages": [USER | {"Content": None}]}, "ambiguous-keys"),
        ({"tools": [TOOL | {"Input_Schema": None}]}, "ambiguous-keys"),
        ({"tools": [{"Type": SEARCH["type"], "name": "web_search"}]}, "ambiguous-keys"),
        pytest.param({"tools": [TOOL, SEARCH]}, "web-search", marks=pytest.mark.case(86)),
        ({"messages": [said(IMAGE | {"source": {"type": "base64", "data": "%"}})]}, "images"),
    ],
)
def test_a_request_that_ollama_refuses_or_takes_elsewhere_has_no_key(members, reason):
    """It goes to Ollama as it came."""
    with pytest.raises(UnkeyableError) as caught:
        asked(**members)

    assert caught.value.reason == reason


def test_controls_are_taken_out_of_the_body():
    """Ollama never sees them."""
    ask = asked(cache={"no-cache": True})

    assert ask.controls == {"no-cache": True}
    assert "cache" not in json.loads(ask.forward)


# --- Replies ---

CALLS = (
    {"id": "call_1", "function": {"index": 0, "name": "f", "arguments": {"z": "\u0085&", "a": [1, None]}}},
    {"id": "call_2", "function": {"index": 1, "name": "g", "arguments": {}}},
)
ANSWER = Answer("Rayleigh <scattering>\u0085", thinking="hm", final={"prompt_eval_count": 7, "eval_count": 3})
CALLING = Answer("a", thinking="hm", tool_calls=CALLS, final={"prompt_eval_count": 7, "eval_count": 3})
CUT = Answer("a", done_reason="length", final={"prompt_eval_count": 7, "eval_count": 3})


def read_back(data):
    """What a recorder makes of a reply."""
    recorder = Recorder(messages.fold(), bytes_max=1_000_000)
    for at in range(0, len(data), 7):
        recorder.feed(data[at : at + 7])
    recorder.end()
    return recorder.answer(), recorder.reason


def reply(answer, *, stream):
    """An answer as the bytes of a reply."""
    ask = asked(stream=stream, tools=[TOOL])
    return b"".join(messages.stream(ask, answer, 5.0)) if stream else messages.whole(ask, answer, 5.0)


@pytest.mark.case(84)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("answer", [ANSWER, CALLING, CUT], ids=["text", "calls", "cut"])
def test_a_reply_that_is_read_back_is_the_same_answer(answer, stream):
    """All parts in their order; only what the form does not tell is missing."""
    read, reason = read_back(reply(answer, stream=stream))

    assert reason == ""
    parts = ("text", "thinking", "tool_calls", "done_reason", "final")
    assert [getattr(read, part) for part in parts] == [getattr(answer, part) for part in parts]
    hidden = {Part.DURATIONS, Part.ENDING_OF_CALLS} if answer.tool_calls else {Part.DURATIONS}
    assert read.missing == hidden
    assert read.missing <= asked(tools=[TOOL]).lacks


@given(words=st.text(min_size=1, max_size=200), stream=st.booleans())
def test_any_text_comes_back_as_it_was(words, stream):
    """Whatever characters it has; in a stream the pieces join to it."""
    answer = Answer(words.encode("utf-8", "replace").decode())
    data = reply(answer, stream=stream)

    read, reason = read_back(data)

    assert (read.text, reason) == (answer.text, "")
    assert b"\xc2\x85" not in data


def kinds(data):
    """The events of a stream, in order, with the index of their block."""
    events = [json.loads(line[6:]) for line in data.split(b"\n") if line.startswith(b"data: ")]
    return [event["type"] + (f" {event['index']}" if "index" in event else "") for event in events]


@pytest.mark.case(84)
def test_blocks_follow_each_other():
    """Each is begun, told and ended before the next."""
    block = ["content_block_start", "content_block_delta", "content_block_stop"]

    assert kinds(reply(CALLING, stream=True)) == [
        "message_start", *(f"{kind} {index}" for index in range(4) for kind in block), "message_delta", "message_stop",
    ]  # fmt: skip


def test_text_after_a_call_is_a_block_of_its_own():
    """And a call told twice is one; thinking that comes late is not told, as with Ollama."""
    write = messages.relay(asked(stream=True), 5.0)
    call = CHAT.chunk("", "", ()) | {"message": {"content": "", "tool_calls": [CALLS[0]]}}
    chunks = [CHAT.chunk("", "t", ()), CHAT.chunk("a", "", ()), call, call, CHAT.chunk("b", "late", ())]

    told = kinds(b"".join(map(write, chunks)))

    assert [kind for kind in told if kind.startswith("content_block_start")] == [
        f"content_block_start {index}" for index in range(4)
    ]


def test_an_error_in_the_middle_says_nothing():
    """Ollama's stream just stops."""
    assert messages.relay(asked(stream=True), 5.0)({"error": "boom"}) == b""


def compact(value):
    """A value as clients write it."""
    return json.dumps(value, separators=(",", ":"))


@pytest.mark.parametrize(
    ("members", "tokens"),
    [
        ({}, 2),
        ({"messages": [{"role": "user", "content": ""}, USER | {"content": "é" * 40}]}, 22),
        ({"system": "x" * 400}, 102),
        ({"system": [text("x" * 400)]}, 102),
        ({"tools": [TOOL]}, len("user" + "why?" + "f" + "does" + compact(SCHEMA)) // 4),
        (
            {"messages": [USER, said(USE, role="assistant"), said(RESULT)]},
            (len("user") + len("why?") + len("assistant") + len(compact(USE)) + len("user") + len(compact(RESULT)))
            // 4,
        ),
    ],
)
def test_a_stream_begins_with_ollamas_estimate(members, tokens):
    """A quarter of the bytes: roles, texts, tools as JSON."""
    first = next(messages.stream(asked(stream=True, **members), ANSWER, 5.0))

    begun = json.loads(first.split(b"\n")[1].removeprefix(b"data: "))
    assert begun["message"]["usage"] == {"input_tokens": tokens, "output_tokens": 0}


def sse(*events):
    """A stream of these events."""
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json.dumps(event).encode()) for event in events
    )


START = {"type": "message_start", "message": {}}
BEGIN = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
DELTA = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}}
END = {"type": "content_block_stop", "index": 0}
TOLD = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"input_tokens": 1, "output_tokens": 2}}
STOP = {"type": "message_stop"}
GOOD = (START, BEGIN, DELTA, END, TOLD, STOP)
BEGIN_CALL = BEGIN | {"content_block": USE | {"input": {}}}


def delta(**members):
    """A delta of another form."""
    return DELTA | {"delta": members}


@pytest.mark.case(84)
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (sse(*GOOD), ""),
        (sse(START, {"type": "ping"}, *GOOD[1:]), ""),
        (sse(*GOOD)[:-2], ""),
        (sse(*GOOD[:-1]), "no-done"),
        (sse(*GOOD[:3]), "no-done"),
        (sse(*GOOD, DELTA), "malformed"),
        (sse(*GOOD[:3], {"type": "error", "error": {}}), "error"),
        (sse(START, {"type": "tomorrow"}), "malformed"),
        (sse(START, BEGIN | {"content_block": {"type": "server_tool_use"}}), "malformed"),
        (sse(START, BEGIN | {"content_block": 5}), "malformed"),
        (sse(START, BEGIN_CALL, BEGIN), "malformed"),
        (sse(START, BEGIN_CALL, END), "malformed"),
        (sse(START, BEGIN, delta(type="signature_delta", signature="x")), "malformed"),
        (sse(START, BEGIN, delta(type="text_delta", text=5)), "malformed"),
        (sse(START, BEGIN, delta(type="input_json_delta", partial_json="{}")), "malformed"),
        (sse(*GOOD[:4], TOLD | {"delta": {"stop_reason": 5}}), "malformed"),
        (sse(*GOOD[:4], TOLD | {"usage": {"input_tokens": "1"}}), "malformed"),
        (b"oops\n" + sse(*GOOD), "malformed"),
        (json.dumps({"type": "message", "content": None, "stop_reason": "end_turn"}).encode(), "malformed"),
        (json.dumps({"type": "message", "content": [{"type": "web_search_tool_result"}]}).encode(), "malformed"),
        (json.dumps({"type": "error"}).encode(), "malformed"),
    ],
)
def test_a_stream_has_one_good_end(data, reason):
    """`message_stop`; anything else is delivered and not kept."""
    answer, why = read_back(data)

    assert (answer is not None, why) == (not reason, reason)


def test_numbers_of_tokens_that_were_not_told_are_missing():
    """They are not zero."""
    answer, _ = read_back(json.dumps({"type": "message", "content": [text("a")], "stop_reason": "end_turn"}).encode())

    assert Part.COUNTS in answer.missing


@pytest.mark.parametrize(("told", "done"), [("end_turn", "stop"), ("max_tokens", "length"), ("stop_sequence", None)])
def test_an_unknown_way_to_stop_stays_what_it_is(told, done):
    """`rules/keep.py` then keeps nothing for it."""
    answer, _ = read_back(json.dumps({"type": "message", "content": [text("a")], "stop_reason": told}).encode())

    assert answer.done_reason == (done or told)
