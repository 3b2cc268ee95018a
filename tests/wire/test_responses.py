"""The dialect of `/v1/responses`: which requests have a native twin, how replies are read, and what is written."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.errors import UnkeyableError
from cacheproxy.flow.record import Recorder
from cacheproxy.model import Answer, Part
from cacheproxy.wire import chat, responses

USER = {"role": "user", "content": "why?"}
SYSTEM = {"role": "system", "content": "be"}
ASK = {"model": "m", "input": "why?"}
SORTED = {"type": "object", "properties": {"a": {"type": "string"}, "z": {"type": "integer"}}}
UNSORTED = {"type": "object", "properties": {"z": {"type": "string"}, "a": {"type": "integer"}}}
TOOL = {"type": "function", "name": "f", "description": "does", "parameters": SORTED}
NATIVE_TOOL = {"type": "function", "function": {"name": "f", "description": "does", "parameters": SORTED}}


def asked(**members):
    """The ask in a request."""
    return responses.parse(json.dumps(ASK | members).encode())


def native(options=(), **members):
    """The ask in a native request."""
    body = {"model": "m", "messages": [USER], "options": {"temperature": 1} | dict(options)} | members
    return chat.parse(json.dumps(body).encode())


def part(words, kind="input_text"):
    """A part of a content."""
    return {"type": kind, "text": words}


def layout(**members):
    """A `text` with a format."""
    return {"text": {"format": members}}


@pytest.mark.case(87)
@pytest.mark.parametrize(
    ("members", "twin"),
    [
        ({}, native()),
        ({"temperature": 0.5, "top_p": 0.5}, native({"temperature": 0.5, "top_p": 0.5})),
        ({"max_output_tokens": 5}, native({"num_predict": 5})),
        ({"instructions": "be"}, native(messages=[SYSTEM, USER])),
        ({"instructions": "be", "input": ""}, native(messages=[SYSTEM])),
        ({"input": [USER]}, native()),
        ({"input": [{"role": "user", "content": [part("wh"), part("y?")], "type": "message"}]}, native()),
        (
            {"input": [USER, {"role": "assistant", "content": [part("b", "output_text") | {"annotations": []}],
                              "id": "msg_1", "status": "completed", "type": "message"}, USER]},
            native(messages=[USER, {"role": "assistant", "content": "b"}, USER]),
        ),
        ({"tools": [TOOL | {"strict": True}]}, native(tools=[NATIVE_TOOL])),
        ({"tools": []}, native()),
        (layout(type="text"), native()),
        (layout(type="json_schema", name="n", schema=UNSORTED, strict=True), native(format=UNSORTED)),
        ({"text": {}}, native()),
        ({"reasoning": {"effort": "low", "summary": "auto"}}, native(think="low")),
        ({"reasoning": {"effort": "none"}}, native(think=False)),
        ({"reasoning": {}}, native()),
        (
            {"store": False, "metadata": {"a": "b"}, "truncation": "disabled", "tool_choice": "auto",
             "parallel_tool_calls": True, "include": ["reasoning.encrypted_content"], "background": False},
            native(),
        ),
        ({"include": []}, native()),
        ({"include": None}, native()),
        ({"include": ["message.output_text.logprobs"]}, native()),
    ],
)  # fmt: skip
def test_a_request_has_the_key_of_its_native_twin(members, twin):
    """Family and canonical bytes are equal, and so are the parts that go into the key besides."""
    ask = asked(**members)

    assert (ask.family, ask.canonical) == (twin.family, twin.canonical)
    assert (ask.temperature, ask.name_matters) == (twin.temperature, twin.name_matters)
    assert ask.translated


@pytest.mark.parametrize(
    "members",
    [
        {"tomorrow": 1}, {"max_output_tokens": 2**63},
        {"previous_response_id": "resp_1"}, {"conversation": "c"}, {"truncation": "auto"},
        {"tool_choice": "required"}, {"parallel_tool_calls": False}, {"include": "all"}, {"include": [5]},
        {"tools": [TOOL | {"parameters": UNSORTED}]}, {"tools": [TOOL | {"parameters": {}}]},
        {"tools": [TOOL | {"parameters": {"items": [UNSORTED]}}]}, {"tools": [TOOL | {"strict": 1}]},
        layout(type="json_object"), layout(type="json_schema", name="n"), {"text": {"verbosity": "low"}},
        {"reasoning": {"effort": "minimal"}}, {"reasoning": {"effort": "low", "generate_summary": "auto"}},
        {"input": 5}, {"input": ["a"]}, {"input": [{"content": "a"}]}, {"input": [USER | {"content": None}]},
        {"input": [USER | {"content": [{"type": "input_image", "image_url": "data:;base64,QUJD"}]}]},
        {"input": [{"type": "item_reference"}, USER]},
    ],
    ids=repr,
)  # fmt: skip
def test_a_request_whose_meaning_is_not_certain_is_keyed_as_it_stands(members):
    """In a family that no other route has, so it shares with its equals alone."""
    ask = asked(**members)

    assert (ask.family, ask.translated) == ("responses", False)
    assert json.loads(ask.canonical) == {name: value for name, value in (ASK | members).items() if name != "model"}


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"input": ""}, "load"),
        ({"input": []}, "load"),
        ({"model": ""}, "model"),
        ({"stream": 1}, "stream"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "namespace", "name": "ns", "tools": []}]}, "tools"),
        ({"tools": [TOOL | {"tomorrow": 1}]}, "tools"),
        pytest.param({"tools": [{"type": "web_search"}]}, "web-search", marks=pytest.mark.case(86)),
        ({"instructions": ["be"]}, "parameters"),
        ({"temperature": "1"}, "parameters"),
        ({"temperature": True}, "parameters"),
        ({"max_output_tokens": 5.0}, "parameters"),
        ({"text": "json"}, "parameters"),
        ({"text": {"format": "json"}}, "parameters"),
        ({"reasoning": "low"}, "parameters"),
        ({"reasoning": {"effort": 5}}, "parameters"),
        ({"background": "no"}, "parameters"),
        ({"text": {"Format": {}}}, "ambiguous-keys"),
        ({"Input": "why?"}, "ambiguous-keys"),
        ({"input": [USER | {"Role": "assistant"}]}, "ambiguous-keys"),
        ({"input": [USER | {"Content": None}]}, "ambiguous-keys"),
        ({"tools": [TOOL | {"Parameters": None}]}, "ambiguous-keys"),
    ],
)
def test_a_request_that_ollama_refuses_or_takes_elsewhere_has_no_key(members, reason):
    """It goes to Ollama as it came."""
    with pytest.raises(UnkeyableError) as caught:
        asked(**members)

    assert caught.value.reason == reason


# --- Replies ---

CALLS = (
    {"id": "call_1", "function": {"index": 0, "name": "f", "arguments": {"z": "\u0085&", "a": [1, None]}}},
    {"id": "call_2", "function": {"index": 1, "name": "g", "arguments": {}}},
)
COUNTS = {"prompt_eval_count": 7, "eval_count": 3}
ANSWER = Answer("Rayleigh <scattering>\u0085", thinking="hm", final=COUNTS)
CALLING = Answer("beside", thinking="hm", tool_calls=CALLS, final=COUNTS)


def read_back(data):
    """What a recorder makes of a reply."""
    recorder = Recorder(responses.fold(), bytes_max=1_000_000)
    for at in range(0, len(data), 7):
        recorder.feed(data[at : at + 7])
    recorder.end()
    return recorder.answer(), recorder.reason


def reply(answer, *, stream, **members):
    """An answer as the bytes of a reply."""
    ask = asked(stream=stream, tools=[TOOL], **members)
    return b"".join(responses.stream(ask, answer, 5.0)) if stream else responses.whole(ask, answer, 5.0)


@pytest.mark.case(88)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("answer", [ANSWER, CALLING], ids=["text", "calls"])
def test_a_reply_that_is_read_back_is_the_same_but_for_what_it_hides(answer, stream):
    """How it ended always, and whole the text beside tool calls."""
    read, reason = read_back(reply(answer, stream=stream))

    assert reason == ""
    dropped = bool(answer.tool_calls) and not stream
    assert read.text == ("" if dropped else answer.text)
    parts = ("thinking", "tool_calls", "final")
    assert [getattr(read, part) for part in parts] == [getattr(answer, part) for part in parts]
    assert read.missing - {Part.TEXT_BESIDE_CALLS} == {Part.DURATIONS, Part.ENDING, Part.ENDING_OF_CALLS}
    assert (Part.TEXT_BESIDE_CALLS in read.missing) == dropped
    assert read.missing <= asked(stream=stream, tools=[TOOL]).lacks


@given(words=st.text(min_size=1, max_size=200), stream=st.booleans())
def test_any_text_comes_back_as_it_was(words, stream):
    """Whatever characters it has; in a stream the pieces join to it."""
    answer = Answer(words.encode("utf-8", "replace").decode())
    data = reply(answer, stream=stream)

    read, reason = read_back(data)

    assert (read.text, reason) == (answer.text, "")
    assert b"\xc2\x85" not in data


def in_order(pairs):
    """The members of an object; fails where they are not in alphabetical order."""
    names = [name for name, _ in pairs]
    assert names == sorted(names)
    return dict(pairs)


@pytest.mark.case(84)
@pytest.mark.parametrize("answer", [ANSWER, CALLING], ids=["text", "calls"])
def test_the_members_of_a_stream_are_in_alphabetical_order(answer):
    """As Go writes maps; numbered without a gap."""
    data = reply(answer, stream=True, reasoning={"effort": "low"}, text={"format": {"type": "text"}})
    events = [
        json.loads(line[6:], object_pairs_hook=in_order) for line in data.split(b"\n") if line.startswith(b"data: ")
    ]

    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1]["response"]["reasoning"] == {"effort": "low", "summary": None}


@pytest.mark.case(87)
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("1.0", "1"), ("0.7", "0.7"), ("0.70", "0.7"), ("1e-5", "0.00001"), ("1e-7", "1e-7"), ("0.1e1", "1"),
        ("1.5e-5", "0.000015"),
    ],
)  # fmt: skip
def test_numbers_are_repeated_as_go_prints_them(given, told):
    """Whatever way the caller wrote them."""
    ask = responses.parse(b'{"model":"m","input":"why?","temperature":%b}' % given.encode())

    assert b'"temperature":%b,' % told.encode() in responses.whole(ask, ANSWER, 5.0)


@pytest.mark.case(87)
def test_a_schema_keeps_its_order_and_a_tool_does_not():
    """Ollama keeps the first as text, and reads the second into a map."""
    tool = TOOL | {"parameters": {"z": 1.0, "a": [{"d": 1, "c": 2}]}}
    ask = asked(tools=[tool], **layout(type="json_schema", name="n", schema=UNSORTED))

    whole = responses.whole(ask, ANSWER, 5.0).decode()

    assert '"parameters":{"a":[{"c":2,"d":1}],"z":1}' in whole
    assert json.dumps(UNSORTED, separators=(",", ":")) in whole


def test_an_error_in_the_middle_says_nothing():
    """Ollama's stream just stops."""
    assert responses.relay(asked(stream=True), 5.0)({"error": "boom"}) == b""


def sse(*events):
    """A stream of these events."""
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json.dumps(event).encode()) for event in events
    )


CREATED = {"type": "response.created", "response": {}}
DELTA = {"type": "response.output_text.delta", "delta": "a"}
USAGE = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
ENDED = {"type": "response.completed", "response": {"status": "completed", "usage": USAGE}}
GOOD = (CREATED, DELTA, ENDED)
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
DONE = {"type": "response.output_item.done", "item": CALL}


@pytest.mark.case(84)
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (sse(*GOOD), ""),
        (sse(*GOOD)[:-2], ""),
        (sse(CREATED, DONE, ENDED), ""),
        (sse(*GOOD[:-1]), "no-done"),
        (sse(*GOOD, DELTA), "malformed"),
        (sse(CREATED, {"type": "response.failed"}), "error"),
        (sse(CREATED, {"type": "error"}), "error"),
        (sse(CREATED, {"type": "response.tomorrow"}), "malformed"),
        (sse(CREATED, DELTA | {"delta": 5}), "malformed"),
        (sse(CREATED, DONE | {"item": {"type": "web_search_call"}}), "malformed"),
        (sse(CREATED, DONE | {"item": CALL | {"arguments": "{ }"}}), "malformed"),
        (sse(CREATED, DONE | {"item": CALL | {"name": ""}}), "malformed"),
        (sse(CREATED, ENDED | {"response": {"status": "incomplete"}}), "malformed"),
        (sse(CREATED, ENDED | {"response": {"status": "completed", "usage": 5}}), "malformed"),
        (json.dumps({"status": "completed", "output": [{"type": "web_search_call"}]}).encode(), "malformed"),
        (json.dumps({"status": "completed"}).encode(), "malformed"),
        (json.dumps({"status": "failed", "output": []}).encode(), "malformed"),
    ],
)
def test_a_stream_has_one_good_end(data, reason):
    """`response.completed`; anything else is delivered and not kept."""
    answer, why = read_back(data)

    assert (answer is not None, why) == (not reason, reason)
