"""The history of `/v1/responses`: which items come to which native messages, and what of them says nothing."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cacheproxy.demo.gojson import GoJsonError
from cacheproxy.demo.ollama import expected_text
from cacheproxy.demo.openai import InvalidRequestError
from cacheproxy.errors import UnkeyableError
from cacheproxy.wire import chat, responses

USER = {"role": "user", "content": "Weather?"}
SAID = {"role": "assistant", "content": "let me see"}
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"z": 1, "a": [2.50, "é"]}'}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "12"}
THOUGHT = {"type": "reasoning", "encrypted_content": "hm"}
NATIVE_CALL = {"id": "c1", "function": {"name": "f", "arguments": {"z": 1, "a": [2.5, "é"]}}}
CALLED = {"role": "assistant", "tool_calls": [NATIVE_CALL]}
RESULT = {"role": "tool", "content": "12", "tool_call_id": "c1"}
ROUND = [USER, CALL, OUTPUT]
TURNS = [USER, CALLED, RESULT]
UNSORTED = {"type": "object", "properties": {"z": {"type": "string"}, "a": {"type": "integer"}}}
OWN_FORM = {"tools": [{"type": "function", "name": "f", "parameters": UNSORTED}]}
"""No twin, for a reason that is not in the history."""


def asked(items, **members):
    """The ask in a request with these items."""
    body = {"model": "m", "input": items} | members
    return responses.parse(json.dumps(body, ensure_ascii=False).replace("2.5,", "2.50,").encode())


def native(messages):
    """The ask in a native request with these messages."""
    body = {"model": "m", "messages": messages, "options": {"temperature": 1}}
    return chat.parse(json.dumps(body, ensure_ascii=False).replace("2.5,", "2.50,").encode())


def parts(*texts, **more):
    """A content of parts."""
    return [{"type": "output_text", "text": text} | more for text in texts]


@pytest.mark.case(87)
@pytest.mark.parametrize(
    ("items", "messages"),
    [
        (ROUND, TURNS),
        ([OUTPUT], [RESULT]),
        ([USER, CALL], [USER, CALLED]),
        ([USER, CALL | {"arguments": "{}"}, OUTPUT | {"output": ""}],
         [USER, {"role": "assistant", "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": {}}}]},
          RESULT | {"content": ""}]),
        ([USER, SAID, CALL, OUTPUT], [USER, SAID | {"tool_calls": [NATIVE_CALL]}, RESULT]),
        ([USER, CALL, CALL | {"call_id": "c2"}, OUTPUT, OUTPUT | {"call_id": "c2"}],
         [USER, {"role": "assistant", "tool_calls": [NATIVE_CALL, NATIVE_CALL | {"id": "c2"}]}, RESULT,
          RESULT | {"tool_call_id": "c2"}]),
        ([USER, CALL, OUTPUT, CALL | {"call_id": "c2"}],
         [USER, CALLED, RESULT, {"role": "assistant", "tool_calls": [NATIVE_CALL | {"id": "c2"}]}]),
        ([USER, CALL, OUTPUT, SAID, USER], [USER, CALLED, RESULT, SAID, USER]),
        ([USER, CALL, OUTPUT | {"output": parts("1", "2")}], TURNS),
        ([USER, SAID | {"role": "Assistant"}, CALL], [USER, SAID, CALLED]),
        ([USER, THOUGHT, CALL, OUTPUT], [USER, CALLED | {"thinking": "hm"}, RESULT]),
        ([USER, THOUGHT, SAID, USER], [USER, SAID | {"thinking": "hm"}, USER]),
        ([USER, THOUGHT, USER, SAID, USER], [USER, USER, SAID | {"thinking": "hm"}, USER]),
        ([USER, THOUGHT, SAID | {"role": "Assistant"}, SAID], [USER, SAID, SAID | {"thinking": "hm"}]),
        ([THOUGHT, SAID, THOUGHT | {"encrypted_content": "ha"}, CALL],
         [SAID | {"thinking": "ha", "tool_calls": [NATIVE_CALL]}]),
        ([USER, THOUGHT, THOUGHT | {"encrypted_content": "ha"}, CALL], [USER, CALLED | {"thinking": "ha"}]),
        ([USER, THOUGHT, {"type": "reasoning"}, CALL], [USER, CALLED]),
        ([USER, THOUGHT], [USER, {"role": "assistant", "thinking": "hm"}]),
        ([USER, {"type": "reasoning", "summary": [], "encrypted_content": None}, SAID, USER], [USER, SAID, USER]),
        ([USER, SAID | {"type": ""}, USER | {"type": None}], [USER, SAID, USER]),
    ],
)  # fmt: skip
def test_a_history_has_the_key_of_the_native_messages_that_it_becomes(items, messages):
    """Calls join the turn that they stand in, and thinking the next turn of the assistant."""
    ask, twin = asked(items), native(messages)

    assert (ask.family, ask.canonical, ask.translated) == (twin.family, twin.canonical, True)
    assert ask.name_matters >= twin.name_matters


SAYS_NOTHING = [
    (ROUND, [USER, CALL | {"id": "fc_1", "status": "completed"}, OUTPUT]),
    (ROUND, [USER, CALL | {"id": "fc_2", "namespace": None, "parsed_arguments": {"z": 1}}, OUTPUT]),
    (ROUND, [USER, CALL, OUTPUT | {"id": "fco_1", "status": "completed"}]),
    ([THOUGHT, CALL], [THOUGHT | {"id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]}, CALL]),
    ([THOUGHT, CALL], [THOUGHT | {"id": "rs_2", "summary": [], "content": None, "status": None}, CALL]),
    ([SAID, USER], [SAID | {"id": "msg_1", "status": "completed", "phase": None}, USER]),
    ([SAID | {"content": parts("a")}, USER], [SAID | {"content": parts("a", annotations=[], logprobs=[])}, USER]),
    ([SAID | {"content": parts("a")}, USER], [SAID | {"content": parts("a", parsed=None)}, USER]),
    ([SAID | {"content": parts("a")}, USER], [SAID | {"content": parts("a", parsed={"b": 1})}, USER]),
    ([USER, OUTPUT | {"output": parts("a")}], [USER, OUTPUT | {"output": parts("a", parsed=None)}]),
]


@pytest.mark.case(87)
@pytest.mark.parametrize("members", [{}, OWN_FORM], ids=["twin", "own form"])
@pytest.mark.parametrize(("items", "more"), SAYS_NOTHING)
def test_what_ollama_drops_of_an_item_is_no_part_of_the_key(items, more, members):
    """Ids are new in each reply and come back in the next request."""
    plain, spelt = asked(items, **members), asked(more, **members)

    assert (plain.family, plain.canonical) == (spelt.family, spelt.canonical)
    assert plain.translated == spelt.translated == (not members)


COUNTS = [
    [USER, CALL | {"call_id": "c2"}, OUTPUT],
    [USER, CALL | {"call_id": "c2"}, OUTPUT | {"call_id": "c2"}],
    [USER, CALL | {"name": "g"}, OUTPUT],
    [USER, CALL | {"arguments": '{"a": [2.50, "é"], "z": 1}'}, OUTPUT],
    [USER, CALL | {"arguments": '{"z": "1", "a": [2.50, "é"]}'}, OUTPUT],
    [USER, CALL, OUTPUT | {"output": "13"}],
    [USER, CALL, OUTPUT | {"output": "12 "}],
    [USER, CALL, OUTPUT | {"call_id": "c2"}],
    [USER, OUTPUT, CALL],
    [USER, CALL, CALL, OUTPUT],
    [USER, CALL, OUTPUT, OUTPUT],
    [USER, CALL],
    [USER, OUTPUT],
    [USER, SAID, CALL, OUTPUT],
    [USER, CALL, OUTPUT, SAID],
    [USER, THOUGHT, CALL, OUTPUT],
    [USER, CALL, THOUGHT, OUTPUT],
    [USER, THOUGHT | {"encrypted_content": "ha"}, CALL, OUTPUT],
    [USER, CALL | {"namespace": "n"}, OUTPUT],
]


@pytest.mark.case(87)
@pytest.mark.parametrize("members", [{}, OWN_FORM], ids=["twin", "own form"])
def test_what_ollama_reads_of_an_item_tells_requests_apart(members):
    """Ids of calls, names, arguments and their order, outputs, thinking, and the order of all."""
    keys = {(ask.family, ask.canonical) for ask in (asked(items, **members) for items in [ROUND, *COUNTS])}

    assert len(keys) == 1 + len(COUNTS)


@pytest.mark.parametrize(
    "item",
    [
        CALL | {"call_id": ""},
        CALL | {"call_id": None},
        CALL | {"call_id": 5},
        {name: value for name, value in CALL.items() if name != "call_id"},
        CALL | {"name": ""},
        CALL | {"arguments": ""},
        CALL | {"arguments": {"z": 1}},
        CALL | {"arguments": "null"},
        CALL | {"arguments": "[]"},
        CALL | {"arguments": "{"},
        CALL | {"arguments": '{"a":1},{"b":2}'},
        CALL | {"arguments": '{"a":1,"a":2}'},
        CALL | {"arguments": '{"a":1}x'},
        CALL | {"arguments": "[" * 1000},
        CALL | {"id": 5},
        CALL | {"namespace": "n"},
        OUTPUT | {"call_id": ""},
        OUTPUT | {"output": None},
        OUTPUT | {"output": 12},
        OUTPUT | {"output": {"a": 1}},
        OUTPUT | {"output": [{"type": "input_image", "image_url": "data:;base64,QUJD"}]},
        OUTPUT | {"tomorrow": 1},
        {"type": "function_call_output", "call_id": "c1"},
        THOUGHT | {"encrypted_content": 5},
        THOUGHT | {"summary": "hm"},
        THOUGHT | {"summary": [{"type": "summary_text", "text": 5}]},
        THOUGHT | {"summary": [{"type": "summary_text", "Text": "hm"}]},
        THOUGHT | {"content": [{"type": "reasoning_text", "text": "hm"}]},
        THOUGHT | {"id": 5},
        SAID | {"content": parts("a", tomorrow=1)},
        SAID | {"type": 0},
        SAID | {"type": "message", "role": None},
        {"type": "item_reference", "id": "msg_1"},
        {"type": "web_search_call", "id": "ws_1"},
    ],
    ids=repr,
)  # fmt: skip
def test_an_item_that_ollama_may_refuse_or_read_otherwise_is_keyed_as_it_stands(item):
    """With all its members: it shares with its equals alone."""
    ask = asked([USER, item])

    assert (ask.family, ask.translated) == ("responses", False)
    assert json.loads(ask.canonical)["input"] == [USER, item]


@pytest.mark.parametrize("items", [[USER, CALL, SAID, OUTPUT], [USER, SAID, CALL, SAID]])
def test_a_turn_that_later_versions_join_with_the_calls_before_it_has_no_twin(items):
    """Which message Ollama makes depends on its version."""
    assert asked(items).family == "responses"


def test_arguments_that_only_together_are_objects_are_none():
    """Each call is read by itself."""
    first, second = CALL | {"arguments": '{"a":1},{"b":2'}, CALL | {"arguments": '"c":3}'}

    assert asked([USER, first, second]).family == "responses"


@pytest.mark.parametrize(
    "item",
    [
        CALL | {"Arguments": "{}"},
        CALL | {"ID": "fc_1"},
        OUTPUT | {"Output": "13"},
        THOUGHT | {"Encrypted_Content": "ha"},
        SAID | {"content": parts("a", Text="b")},
        OUTPUT | {"output": parts("a", Text="b")},
    ],
)
def test_a_name_that_ollama_takes_for_another_has_no_key(item):
    """The request goes to Ollama as it came."""
    with pytest.raises(UnkeyableError) as caught:
        asked([USER, item])

    assert caught.value.reason == "ambiguous-keys"


TEXTS = st.sampled_from(["", "a", "b", '{"a":1}', '{"a":1.0}', '{"a": 1, "b": {}}', "[]", "{", "\ud800", "user", "c1"])
ODD = st.sampled_from([None, 5, True, [], {}, "x"])
PART = st.dictionaries(
    st.sampled_from(["text", "annotations", "parsed", "Text", "tomorrow"]), TEXTS | ODD, max_size=2
).flatmap(lambda more: TEXTS.map(lambda text: {"type": "output_text", "text": text} | more))
CONTENT = TEXTS | st.lists(PART, max_size=2) | ODD
SUMMARY = (
    st.lists(st.dictionaries(st.sampled_from(["type", "text", "Text"]), TEXTS | ODD, max_size=2), max_size=2) | ODD
)
BESIDE = st.dictionaries(
    st.sampled_from(["id", "status", "summary", "role", "namespace", "Output", "parsed_arguments", "name", "type"]),
    TEXTS | ODD,
    max_size=2,
)
WELL = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "Assistant", "system"]), "content": CONTENT}),
    st.fixed_dictionaries(
        {"type": st.just("function_call"), "call_id": st.sampled_from(["c1", "c2"]), "name": TEXTS, "arguments": TEXTS}
    ),
    st.fixed_dictionaries(
        {"type": st.just("function_call_output"), "call_id": st.sampled_from(["c1", "c2"]), "output": CONTENT}
    ),
    st.fixed_dictionaries({"type": st.just("reasoning"), "encrypted_content": TEXTS | st.none(), "summary": SUMMARY}),
)
ITEM = st.tuples(WELL, st.just({}) | BESIDE).map(lambda both: both[0] | both[1])


def heard(path, body):
    """What the stand-in answers; empty if it refuses the request."""
    try:
        return expected_text(path, body)
    except (GoJsonError, InvalidRequestError):
        return ""


@given(items=st.lists(ITEM, min_size=1, max_size=5), members=st.sampled_from([{}, OWN_FORM]))
@settings(max_examples=300)
def test_what_is_keyed_means_the_same_as_what_was_sent(items, members):
    """To the stand-in, whose reader is another: the native twin, or the request without what says nothing."""
    body = json.dumps({"model": "m", "input": items} | members).encode()
    try:
        ask = responses.parse(body)
    except UnkeyableError:
        return
    path = "/api/chat" if ask.translated else "/v1/responses"
    keyed = json.dumps({"model": "m"} | json.loads(ask.canonical)).encode()

    assert heard(path, keyed) == heard("/v1/responses", body)
    assert not (ask.translated and heard(path, keyed) == "")
