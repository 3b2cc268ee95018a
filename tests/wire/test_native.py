"""Chunks fold into one answer as Ollama's own server folds them, and an answer replays as Ollama would have sent it."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.model import Answer
from cacheproxy.wire import chat, generate
from cacheproxy.wire.jsontext import read_answer

NOW = 1_700_000_000.25
LINE_BYTES_MAX = 64 * 1024
"""asyncio's default limit for a line, and so that of many clients."""
COUNTS = {
    "total_duration": 5_000_000_123,
    "load_duration": 1_000_000,
    "prompt_eval_count": 26,
    "prompt_eval_duration": 130_079_000,
    "eval_count": 259,
    "eval_duration": 4_232_710_000,
}
LOGPROB = {"token": " <x>", "logprob": -0.25, "bytes": [32, 60], "top_logprobs": [{"token": "y", "logprob": -1.5}]}
CALL = {"id": "call_1", "function": {"index": 0, "name": "f", "arguments": {"z": 1, "a": "é"}}}
ASKS = {
    chat: chat.parse(b'{"model":"LLaMA3","messages":[{"role":"user","content":"hi"}]}'),
    generate: generate.parse(b'{"model":"LLaMA3","prompt":"hi"}'),
}
BOTH = pytest.mark.parametrize("dialect", [chat, generate], ids=["chat", "generate"])

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
ANSWERS = st.builds(
    Answer,
    text=TEXT,
    thinking=TEXT,
    tool_calls=st.lists(st.just(CALL), max_size=2).map(tuple),
    logprobs=st.lists(st.just(LOGPROB), max_size=40).map(tuple),
    done_reason=st.sampled_from(["stop", "length"]),
    final=st.just(COUNTS) | st.just({}),
)


def folded(dialect, lines):
    """The answer in some lines."""
    fold = dialect.fold()
    for line in lines:
        fold.add(read_answer(line))
    return fold.answer()


def streamed(dialect, answer, ask=None):
    """The lines of a replay."""
    return list(dialect.stream(ask or ASKS[dialect], answer, NOW))


def names(line):
    """The members of a line, in order."""
    return list(json.loads(line))


@BOTH
@given(answer=ANSWERS, context=st.none() | st.lists(st.integers(0, 200_000), max_size=5).map(tuple))
def test_a_replay_folds_back_to_the_answer_it_was_made_from(dialect, answer, context):
    """Streamed and whole, whatever is in it."""
    if dialect is generate:
        answer = replace(answer, context=context)

    assert folded(dialect, streamed(dialect, answer)) == answer
    assert folded(dialect, [dialect.whole(ASKS[dialect], answer, NOW)]) == answer


@BOTH
@given(text=TEXT, thinking=TEXT, data=st.data())
def test_an_answer_is_the_same_however_it_was_cut_into_chunks(dialect, text, thinking, data):
    """Text and thinking may come a letter at a time; each other member is the last chunk's."""
    cuts = data.draw(st.lists(st.integers(0, 30), max_size=5).map(sorted))
    bounds = [0, *cuts, 30]
    fold = dialect.fold()
    for start, end in pairwise(bounds):
        part = {"content": text[start:end], "thinking": thinking[start:end]}
        members = {"message": part} if dialect is chat else {"response": part["content"], "thinking": part["thinking"]}
        fold.add({"model": "m", "created_at": "t", **members, "done": False, "eval_count": 1})
    last = {"message": {"role": "assistant", "content": ""}} if dialect is chat else {"response": ""}
    fold.add({"model": "m", "created_at": "t", **last, "done": True, "done_reason": "stop", **COUNTS})

    assert fold.answer() == Answer(text=text, thinking=thinking, final=COUNTS)


def test_a_chat_stream_of_ollama_folds_into_one_answer():
    """Thinking, text, a tool call in a chunk of its own, logprobs, and text in the last chunk."""
    lines = [
        b'{"model":"m","created_at":"t","message":{"role":"assistant","content":"","thinking":"hm"},"done":false}',
        b'{"model":"m","created_at":"t","message":{"role":"assistant","content":"a"},"done":false,"logprobs":[{"token":"a","logprob":-0.00001}]}',
        b'{"model":"m","created_at":"t","message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":{"b":1,"a":2}}}]},"done":false}',
        b'{"model":"m","created_at":"t","message":{"role":"assistant","content":"b"},"done":true,"done_reason":"length","total_duration":5,"new":{"x":1}}',
    ]  # fmt: skip
    answer = folded(chat, lines)

    assert answer is not None
    assert (answer.text, answer.thinking, answer.done_reason) == ("ab", "hm", "length")
    assert answer.tool_calls == ({"function": {"name": "f", "arguments": {"b": 1, "a": 2}}},)
    assert list(answer.tool_calls[0]["function"]["arguments"]) == ["b", "a"]
    assert answer.logprobs == ({"token": "a", "logprob": -0.00001},)
    assert answer.final == {"total_duration": 5, "new": {"x": 1}}
    assert answer.context is None


def test_a_tool_call_in_the_last_chunk_is_kept():
    """The native llama-server path sends it there."""
    answer = folded(
        chat,
        [b'{"message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":{}}}]},"done":true,"done_reason":"stop"}'],
    )  # fmt: skip

    assert answer is not None
    assert answer.tool_calls == ({"function": {"name": "f", "arguments": {}}},)


def test_a_generate_answer_keeps_its_context():
    """It comes in the last chunk; an empty one is not none."""
    line = b'{"response":"x","done":true,"done_reason":"stop","context":%s,"eval_count":1}'

    assert folded(generate, [line % b"[1,2]"]).context == (1, 2)
    assert folded(generate, [line % b"[]"]).context == ()
    assert folded(generate, [line % b"null"]).context is None
    assert folded(generate, [line % b"[1]"]).final == {"eval_count": 1}


CHUNK = {"message": {"role": "assistant", "content": "x"}, "done": False}
LAST = {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"}


@pytest.mark.parametrize(
    ("chunks", "trouble"),
    [
        pytest.param([CHUNK], "", marks=pytest.mark.case(98), id="silent end"),
        pytest.param([CHUNK, {"error": "boom"}], "error", marks=pytest.mark.case(97), id="error line"),
        pytest.param([CHUNK, {"error": "boom"}, LAST], "error", marks=pytest.mark.case(97), id="done after an error"),
        pytest.param([CHUNK | {"error": ""}, LAST], "error", marks=pytest.mark.case(97), id="error member"),
        pytest.param([LAST, CHUNK], "after-done", id="text after the end"),
        pytest.param([LAST, LAST], "after-done", id="two ends"),
        pytest.param([LAST, {"error": "x"}], "error", id="error after the end"),
        pytest.param([{"done": True}], "malformed", id="no message"),
        pytest.param([{"message": "x", "done": True}], "malformed", id="message of another type"),
        pytest.param([{"message": {"content": None}}, LAST], "malformed", id="content null"),
        pytest.param([{"message": {"content": ["x"]}}, LAST], "malformed", id="content list"),
        pytest.param([{"message": {"content": "", "thinking": 1}}, LAST], "malformed", id="thinking number"),
        pytest.param([{"message": {"content": "", "tool_calls": {}}}, LAST], "malformed", id="calls object"),
        pytest.param([{"message": {"content": "", "tool_calls": ["x"]}}, LAST], "malformed", id="calls of text"),
        pytest.param([CHUNK | {"logprobs": 5}, LAST], "malformed", id="logprobs number"),
        pytest.param([CHUNK | {"logprobs": ["x"]}, LAST], "malformed", id="logprobs of text"),
        pytest.param([CHUNK | {"done": 1}], "", id="done that is not true"),
    ],
)
def test_what_came_to_no_good_end_is_no_answer(chunks, trouble):
    """The reason is one word, and nothing ever raises."""
    fold = chat.fold()
    for chunk in chunks:
        fold.add(chunk)

    assert fold.answer() is None
    assert fold.trouble == trouble


@pytest.mark.case(48)
def test_an_end_without_a_reason_has_an_empty_one():
    """The rules of keeping refuse it by that."""
    assert folded(chat, [b'{"message":{"content":"x"},"done":true}']).done_reason == ""


FULL = Answer("text", thinking="hm", tool_calls=(CALL,), logprobs=(LOGPROB,), done_reason="stop", final=COUNTS)


def test_a_whole_chat_reply_has_its_members_in_ollamas_order():
    """As the fields stand in Ollama's own structure."""
    whole = chat.whole(ASKS[chat], FULL, NOW)

    assert names(whole) == ["model", "created_at", "message", "done", "done_reason", "logprobs", *COUNTS]
    assert list(json.loads(whole)["message"]) == ["role", "content", "thinking", "tool_calls"]
    assert json.loads(whole)["model"] == "LLaMA3"
    assert not whole.endswith(b"\n")


def test_a_whole_generate_reply_has_its_members_in_ollamas_order():
    """Tool calls and logprobs stand behind the counts there."""
    whole = generate.whole(ASKS[generate], replace(FULL, context=(1, 2)), NOW)

    before = ["model", "created_at", "response", "thinking", "done", "done_reason", "context"]
    assert names(whole) == [*before, *COUNTS, "tool_calls", "logprobs"]


def test_a_chat_stream_has_its_members_in_ollamas_order():
    """Thinking first, then text, logprobs, tool calls, and an end without text."""
    lines = streamed(chat, FULL)

    assert [names(line) for line in lines[:2]] == [["model", "created_at", "message", "done"]] * 2
    assert names(lines[2]) == ["model", "created_at", "message", "done", "logprobs"]
    assert names(lines[4]) == ["model", "created_at", "message", "done", "done_reason", *COUNTS]
    assert [list(json.loads(line)["message"]) for line in lines] == [
        ["role", "content", "thinking"],
        ["role", "content"],
        ["role", "content"],
        ["role", "content", "tool_calls"],
        ["role", "content"],
    ]
    assert [json.loads(line)["done"] for line in lines] == [False] * 4 + [True]
    assert json.loads(lines[4])["message"]["content"] == ""


def test_a_generate_stream_has_its_members_in_ollamas_order():
    """The context comes with the end."""
    lines = streamed(generate, replace(FULL, context=(1, 2)))

    assert names(lines[0]) == ["model", "created_at", "response", "thinking", "done"]
    assert names(lines[1]) == ["model", "created_at", "response", "done"]
    assert names(lines[2]) == ["model", "created_at", "response", "done", "logprobs"]
    assert names(lines[3]) == ["model", "created_at", "response", "done", "tool_calls"]
    assert names(lines[4]) == ["model", "created_at", "response", "done", "done_reason", "context", *COUNTS]


@BOTH
def test_a_model_of_the_cloud_names_its_host_in_each_chunk(dialect):
    """Beside the model's name, where Ollama has it, and only there."""
    final = {"remote_model": "big", "remote_host": "https://ollama.com:443"} | COUNTS
    answer = Answer("text", final=final)

    for line in [*streamed(dialect, answer), dialect.whole(ASKS[dialect], answer, NOW)]:
        assert names(line)[:4] == ["model", "remote_model", "remote_host", "created_at"]
        assert json.loads(line)["remote_host"] == "https://ollama.com:443"
    assert folded(dialect, streamed(dialect, answer)).final == final


@pytest.mark.case(29)
@BOTH
@pytest.mark.parametrize("answer", [Answer(""), Answer("x"), Answer("", thinking="t"), Answer("", tool_calls=(CALL,))])
def test_a_stream_has_at_least_two_lines_and_its_end_alone(dialect, answer):
    """Clients expect something before the end, even from an empty answer."""
    lines = streamed(dialect, answer)

    assert len(lines) >= 2
    assert [json.loads(line)["done"] for line in lines] == [False] * (len(lines) - 1) + [True]


@BOTH
def test_counts_that_were_absent_stay_absent(dialect):
    """A zero made up here would divide by itself in somebody's page."""
    whole = json.loads(dialect.whole(ASKS[dialect], Answer("x", done_reason="length"), NOW))

    assert not COUNTS.keys() & whole.keys()
    assert whole["done_reason"] == "length"
    assert "context" not in whole


@pytest.mark.case(136)
@BOTH
@pytest.mark.parametrize("character", ["\x00", "<", '"', "🙂", "\u2028", "\x85", "\n", "a"])
def test_no_line_of_a_megabyte_of_anything_reaches_64_kib(dialect, character):
    """Readers of asyncio give up beyond it; nor is any line blank or cut inside a character."""
    lines = streamed(dialect, Answer(character * 1_000_000, thinking=character * 10_000))

    assert max(map(len, lines)) < LINE_BYTES_MAX
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 and line.strip() for line in lines)
    assert folded(dialect, lines).text == character * 1_000_000


@BOTH
def test_no_line_of_logprobs_reaches_64_kib(dialect):
    """20 alternatives a token, each of a long token with the numbers of its bytes."""
    word = "漢字" * 8
    alternative = {"token": word, "logprob": -12.345678901234567, "bytes": list(word.encode())}
    token = alternative | {"top_logprobs": [alternative] * 20}
    answer = Answer("x", logprobs=(token,) * 200)
    lines = streamed(dialect, answer)

    assert max(map(len, lines)) < LINE_BYTES_MAX
    assert folded(dialect, lines) == answer


@pytest.mark.case(135)
@BOTH
def test_what_splits_lines_for_some_clients_is_escaped(dialect):
    """ollama-python dies on a raw U+2028 or U+0085."""
    answer = Answer("a\u2028b\u2029c\x85d\re\x0bf\x0cg\x1ch", thinking="\u2028\x85")
    data = b"".join([*streamed(dialect, answer), dialect.whole(ASKS[dialect], answer, NOW)])

    assert len(data.decode().splitlines()) == data.count(b"\n") + 1
    assert folded(dialect, streamed(dialect, answer)) == answer


@pytest.mark.case(31)
@BOTH
def test_a_live_chunk_carries_the_name_as_this_caller_spelt_it(dialect):
    """Everything else of the chunk stays, in its order and spelling."""
    line = b'{"model":"llama3","created_at":"t","message":{"content":"\\u003c"},"logprobs":[{"logprob":-1e-05}]}'

    assert dialect.relay(ASKS[dialect], 0)(read_answer(line)) == line.replace(b"llama3", b"LLaMA3") + b"\n"


@BOTH
def test_a_live_error_line_gets_no_model(dialect):
    """ollama-js throws on the presence of members, so none is added."""
    assert dialect.relay(ASKS[dialect], 0)({"error": "boom"}) == b'{"error":"boom"}\n'


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_700_000_000, "2023-11-14T22:13:20Z"),
        (1_700_000_000.5, "2023-11-14T22:13:20.5Z"),
        (1_700_000_000.25, "2023-11-14T22:13:20.25Z"),
        (1_700_000_000.000001, "2023-11-14T22:13:20.000001Z"),
        (1_700_000_000.12, "2023-11-14T22:13:20.12Z"),
        (951_782_400, "2000-02-29T00:00:00Z"),
    ],
)
@BOTH
def test_times_are_written_as_go_writes_them(dialect, now, expected):
    """RFC 3339 in UTC, with no zeros at the end of the fraction."""
    assert json.loads(dialect.whole(ASKS[dialect], Answer("x"), now))["created_at"] == expected
