"""OpenAI's dialects: which requests have a native twin, how replies are read, and what is written."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.errors import UnkeyableError
from cacheproxy.flow.record import Recorder
from cacheproxy.model import Answer, Part
from cacheproxy.wire import chat, generate, openai_chat, openai_completions
from cacheproxy.wire.dialects import BY_PATH

ABSENT = object()
CHAT = {"model": "m", "messages": [{"role": "user", "content": "why?"}]}
COMPLETION = {"model": "m", "prompt": "why?"}
DEFAULTS = {"temperature": 1, "top_p": 1}
SCHEMA = {"type": "object", "properties": {"z": {}, "a": {}}}
PNG = "data:image/png;base64,QUJD"


def chatted(**members):
    """The ask in a chat completion request."""
    return openai_chat.parse(json.dumps(_given(CHAT | members)).encode())


def completed(**members):
    """The ask in a completion request."""
    return openai_completions.parse(json.dumps(_given(COMPLETION | members)).encode())


def native_chat(options=(), **members):
    """The ask in a native chat request."""
    body = CHAT | {"options": DEFAULTS | dict(options)} | members
    return chat.parse(json.dumps(body).encode())


def _given(members):
    return {name: value for name, value in members.items() if value is not ABSENT}


def user(content, **more):
    """One message of the user's."""
    return {"role": "user", "content": content} | more


def text(words):
    """One part of a content."""
    return {"type": "text", "text": words}


TWINS = [
    ({}, native_chat()),
    ({"temperature": 0.7, "top_p": None}, native_chat({"temperature": 0.7})),
    pytest.param({"max_tokens": 5}, native_chat({"num_predict": 5}), marks=pytest.mark.case(73)),
    pytest.param({"stop": "a"}, native_chat({"stop": ["a"]}), marks=pytest.mark.case(72)),
    pytest.param({"stop": ["a", "b"]}, native_chat({"stop": ["a", "b"]}), marks=pytest.mark.case(72)),
    ({"seed": 3, "frequency_penalty": 0.5}, native_chat({"seed": 3, "frequency_penalty": 0.5})),
    ({"presence_penalty": 1}, native_chat({"presence_penalty": 1})),
    ({"response_format": {"type": "json_object"}}, native_chat(format="json")),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": SCHEMA}}},
        native_chat(format=SCHEMA),
    ),
    ({"response_format": {"type": "text"}}, native_chat()),
    *(
        ({"reasoning_effort": effort}, native_chat(think=think))
        for effort, think in [
            ("none", False), ("minimal", "low"), ("low", "low"), ("medium", "medium"), ("high", "high"),
            ("max", "max"), ("xhigh", "max"), ("ultra", "max"),
        ]
    ),
    ({"reasoning_effort": "low", "reasoning": {"effort": "high"}}, native_chat(think="high")),
    ({"reasoning_effort": "low", "reasoning": {"effort": ""}}, native_chat(think="low")),
    ({"reasoning_effort": ""}, native_chat()),
    ({"reasoning": {"effort": None}, "reasoning_effort": None}, native_chat()),
    ({"tools": [{"function": SCHEMA}]}, native_chat(tools=[{"function": SCHEMA}])),
    ({"logprobs": True, "top_logprobs": 2}, native_chat(logprobs=True, top_logprobs=2)),
    pytest.param(
        {"messages": [user([text("a"), text("b")])]},
        native_chat(messages=[user("a"), user("b")]),
        marks=pytest.mark.case(75),
    ),
    pytest.param(
        {"messages": [user([text("a"), {"type": "image_url", "image_url": {"url": PNG}}])]},
        native_chat(messages=[user("a"), user("", images=["QUJD"])]),
        marks=pytest.mark.case(75),
    ),
    pytest.param(
        {"messages": [{"role": "assistant", "content": "a", "reasoning": "hm"}, user("b")]},
        native_chat(messages=[{"role": "assistant", "content": "a", "thinking": "hm"}, user("b")]),
        marks=pytest.mark.case(78),
    ),
    ({"messages": [user("a", role="User")]}, native_chat(messages=[user("a")])),
    ({"messages": [user("a", role="developer")]}, native_chat(messages=[user("a", role="developer")])),
    ({"user": "u", "metadata": {"a": "b"}, "store": True, "n": 1, "tool_choice": "auto"}, native_chat()),
]  # fmt: skip


@pytest.mark.parametrize(("members", "twin"), TWINS)
def test_a_chat_completion_has_the_key_of_its_native_twin(members, twin):
    """Family and canonical bytes are equal, and so are the parts that go into the key besides."""
    ask = chatted(**members)

    assert (ask.family, ask.canonical, ask.canonical_plain) == (twin.family, twin.canonical, twin.canonical_plain)
    assert (ask.temperature, ask.name_matters, ask.logprobs) == (twin.temperature, twin.name_matters, twin.logprobs)


CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
WITHOUT_TWIN = [
    {"n": 2}, {"n": True}, {"tool_choice": "none"}, {"max_completion_tokens": 5}, {"tomorrow": 1}, {"keep_alive": 0},
    {"options": {"seed": 1}}, {"options": 5}, {"logit_bias": {"1": 1}}, {"parallel_tool_calls": False}, {"stop": []},
    {"stop": [1]}, {"stop": 5}, {"max_tokens": 5.0}, {"max_tokens": True}, {"max_tokens": 2**63}, {"seed": 2**63},
    {"temperature": "1"}, {"seed": "1"},
    {"response_format": {"type": "grammar"}}, {"response_format": {"type": "json_object", "schema": {}}},
    {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}, {"response_format": "json"},
    {"reasoning": {"effort": "low", "summary": "auto"}}, {"reasoning_effort": "enormous"},
    {"tools": {}}, {"logprobs": 1}, {"top_logprobs": 1.5},
    {"messages": [user("a", name="n")]}, {"messages": [user([])]}, {"messages": [user(["a"])]},
    {"messages": [user([text("a") | {"cache_control": {}}])]}, {"messages": [user([text("a")], reasoning="x")]},
    {"messages": [user([{"type": "image_url", "image_url": {"url": "https://x"}}])]},
    {"messages": [user([{"type": "image_url", "image_url": {"url": PNG, "detail": "low"}}])]},
    {"messages": [user([{"type": "input_audio", "input_audio": {"data": "QUJD"}}])]},
    {"messages": [{"role": "tool", "content": "a"}]}, {"messages": [{"content": "a"}]},
    {"messages": [{"role": "assistant", "content": None, "tool_calls": [CALL]}]},
]  # fmt: skip


@pytest.mark.case(74)
@pytest.mark.parametrize("members", WITHOUT_TWIN, ids=repr)
def test_a_request_whose_meaning_is_not_certain_is_keyed_as_it_stands(members):
    """In a family that no other route has, so it shares with its equals alone."""
    ask = chatted(**members)

    assert ask.family == "openai_chat"
    assert json.loads(ask.canonical) == {**{name: CHAT[name] for name in CHAT if name != "model"}, **members}


@pytest.mark.parametrize(
    ("parse", "members", "expected"),
    [
        pytest.param(chatted, {"messages": []}, "messages", marks=pytest.mark.case(80)),
        pytest.param(chatted, {"messages": [user(None)]}, "messages", marks=pytest.mark.case(80)),
        (chatted, {"messages": ["a"]}, "messages"),
        (chatted, {"messages": ABSENT}, "messages"),
        *((chatted, {"reasoning_effort": effort}, "parameters") for effort in (0, False, [], {}, 1, ["low"])),
        *((chatted, {"reasoning": {"effort": effort}}, "parameters") for effort in (0, False, [], {}, 1)),
        *((chatted, {"reasoning": reasoning}, "parameters") for reasoning in ("low", "", 0, [])),
        (chatted, {"reasoning_effort": 0, "reasoning": {"effort": "low"}}, "parameters"),
        (chatted, {"model": ""}, "model"),
        (chatted, {"stream": 1}, "stream"),
        (chatted, {"stream_options": {"include_usage": 1}}, "stream"),
        (chatted, {"stream_options": True}, "stream"),
        (chatted, {"stream_options": {"Include_Usage": True}}, "ambiguous-keys"),
        (chatted, {"Messages": []}, "ambiguous-keys"),
        (chatted, {"messages": [user("why?", Content=None)]}, "ambiguous-keys"),
        (chatted, {"messages": [user("why?", Tool_Calls=[])]}, "ambiguous-keys"),
        (chatted, {"temperature": 10**400}, "number-range"),
        (chatted, {"_debug_render_only": True}, "debug"),
        (chatted, {"messages": [user([{"type": "image_url", "image_url": {"url": PNG + "%"}}])]}, "images"),
        pytest.param(completed, {"prompt": ""}, "load", marks=pytest.mark.case(25)),
        pytest.param(completed, {"prompt": ABSENT}, "load", marks=pytest.mark.case(25)),
        (completed, {"prompt": ["a"]}, "not-text"),
        (completed, {"prompt": 5}, "not-text"),
    ],
)
def test_a_request_that_ollama_refuses_or_reads_otherwise_has_no_key(parse, members, expected):
    """It goes to Ollama as it came."""
    with pytest.raises(UnkeyableError) as caught:
        parse(**members)

    assert caught.value.reason == expected


def native_generate(options=(), **members):
    """The ask in a native prompt."""
    penalties = {"frequency_penalty": 0, "presence_penalty": 0}
    return generate.parse(json.dumps(COMPLETION | {"options": DEFAULTS | penalties | dict(options)} | members).encode())


@pytest.mark.case(82)
@pytest.mark.parametrize(
    ("members", "twin"),
    [
        ({}, native_generate()),
        ({"top_p": 0, "suffix": "", "logprobs": 0}, native_generate()),
        ({"top_p": 0.5, "frequency_penalty": 1}, native_generate({"top_p": 0.5, "frequency_penalty": 1})),
        ({"max_tokens": 5, "stop": "a", "seed": 1}, native_generate({"num_predict": 5, "stop": ["a"], "seed": 1})),
        ({"suffix": "x"}, native_generate(suffix="x")),
        ({"logprobs": 3}, native_generate(logprobs=True, top_logprobs=3)),
    ],
)
def test_a_completion_has_the_key_of_its_native_twin(members, twin):
    """A prompt to `/api/generate`."""
    ask = completed(**members)

    assert (ask.family, ask.canonical, ask.temperature) == (twin.family, twin.canonical, twin.temperature)


@pytest.mark.parametrize("members", [{"echo": True}, {"best_of": 2}, {"logprobs": False}, {"suffix": 5}, {"n": 2}])
def test_a_completion_with_more_than_a_prompt_is_keyed_as_it_stands(members):
    """In a family that no other route has."""
    assert completed(**members).family == "openai_completions"


@pytest.mark.parametrize("parse", [chatted, completed])
@pytest.mark.parametrize(
    ("form", "needs_counts", "lacks_counts"),
    [
        ({}, True, False),
        ({"stream": False, "stream_options": {"include_usage": False}}, True, False),
        ({"stream": True}, False, True),
        ({"stream": True, "stream_options": None}, False, True),
        ({"stream": True, "stream_options": {"include_usage": True}}, True, False),
    ],
)
def test_a_form_says_what_it_needs_and_what_it_does_not_tell(parse, form, needs_counts, lacks_counts):
    """The number of tokens stands in every whole reply, and in a stream if it was asked for."""
    ask = parse(**form)

    assert (Part.COUNTS in ask.needs, Part.COUNTS in ask.lacks) == (needs_counts, lacks_counts)
    assert Part.DURATIONS in ask.lacks
    assert ask.canonical == parse().canonical


def test_the_cache_member_is_taken_out_of_what_is_forwarded():
    """Everything else stays in its order."""
    ask = chatted(cache={"ttl": "10m"}, user="u")

    assert (ask.controls, ask.canonical) == ({"ttl": "10m"}, chatted().canonical)
    assert json.loads(ask.forward) == CHAT | {"user": "u"}
    assert chatted(cache=False).controls == {"mode": False}
    assert chatted().forward is None


# --- Replies ---

ANSWER = Answer(
    "Rayleigh <scattering>\u0085",
    thinking="hm",
    tool_calls=(
        {"id": "call_1", "function": {"index": 0, "name": "f", "arguments": {"z": "\u0085&", "a": [1, None]}}},
    ),
    logprobs=({"token": "x", "logprob": -0.25},),
    final={"prompt_eval_count": 7, "eval_count": 3},
)
DIALECTS = pytest.mark.parametrize(
    ("dialect", "parse"), [(openai_chat, chatted), (openai_completions, completed)], ids=["chat", "completions"]
)
USAGE = {"stream": True, "stream_options": {"include_usage": True}}


def read_back(dialect, data):
    """What a recorder makes of a reply."""
    recorder = Recorder(dialect.fold(), bytes_max=1_000_000)
    for at in range(0, len(data), 7):
        recorder.feed(data[at : at + 7])
    recorder.end()
    return recorder.answer(), recorder.reason


@pytest.mark.parametrize("form", [{}, {"stream": True}, USAGE], ids=["whole", "stream", "usage"])
def test_a_chat_reply_that_is_read_back_is_the_same_answer(form):
    """All parts in their order; only what the form does not tell is missing."""
    ask = chatted(**form)
    data = b"".join(openai_chat.stream(ask, ANSWER, 5.0)) if form else openai_chat.whole(ask, ANSWER, 5.0)

    answer, reason = read_back(openai_chat, data)

    assert reason == ""
    assert answer.missing == ask.lacks
    parts = ("text", "thinking", "tool_calls", "logprobs", "done_reason")
    assert [getattr(answer, part) for part in parts] == [getattr(ANSWER, part) for part in parts]
    assert answer.final == ({} if form == {"stream": True} else ANSWER.final)


@pytest.mark.parametrize("form", [{}, {"stream": True}, USAGE], ids=["whole", "stream", "usage"])
def test_a_completion_that_is_read_back_is_the_text_and_the_counts(form):
    """Thinking, logprobs and context are no part of this form."""
    ask = completed(**form)
    data = b"".join(openai_completions.stream(ask, ANSWER, 5.0)) if form else openai_completions.whole(ask, ANSWER, 5.0)

    answer, reason = read_back(openai_completions, data)

    assert (answer.text, answer.thinking, reason) == (ANSWER.text, "", "")
    assert answer.missing == ask.lacks
    assert answer.final == ({} if form == {"stream": True} else ANSWER.final)


@given(words=st.text(max_size=200), stream=st.booleans())
def test_any_text_comes_back_as_it_was(words, stream):
    """Whatever characters it has; in a stream the pieces join to it."""
    ask, answer = chatted(stream=stream), Answer(words.encode("utf-8", "replace").decode())
    data = b"".join(openai_chat.stream(ask, answer, 5.0)) if stream else openai_chat.whole(ask, answer, 5.0)

    read, reason = read_back(openai_chat, data)

    assert (read.text, reason) == (answer.text, "")
    assert b"\xc2\x85" not in data


@pytest.mark.case(76)
@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        ('{"z":1,"a":2}', True),
        ('{"a":1e-05}', True),
        ('{"a":0.00001}', True),
        ('{"a":"\\u003c"}', True),
        ("{}", True),
        ('{"a": 1}', False),
        ('{"a":1,"a":1}', False),
        ('{"a":"<"}', False),
        ("", False),
        ("[]", False),
        ("oops", False),
    ],
)
def test_arguments_are_kept_only_if_their_text_comes_back_to_the_byte(arguments, kept):
    """Ollama writes them as Go does; what is written otherwise is delivered and not kept."""
    call = {"id": "c", "index": 0, "type": "function", "function": {"name": "f", "arguments": arguments}}
    message = {"role": "assistant", "content": "", "tool_calls": [call]}
    reply = {"model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}], "usage": {}}

    answer, reason = read_back(openai_chat, json.dumps(reply).encode())

    assert (answer is not None, reason) == (kept, "" if kept else "malformed")
    if kept:
        again = json.loads(openai_chat.whole(chatted(), answer, 5.0))["choices"][0]
        assert again["message"]["tool_calls"] == [call]
        assert (again["finish_reason"], answer.done_reason) == ("tool_calls", "stop")


def sse(*chunks):
    """A stream of these chunks."""
    return b"".join(
        b"data: %b\n\n" % (chunk if isinstance(chunk, bytes) else json.dumps(chunk).encode()) for chunk in chunks
    )


def chunk(delta=None, finish=None, **more):
    """One chunk of a stream."""
    return {"model": "m", "choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}]} | more


GOOD = [chunk({"role": "assistant", "content": "x"}), chunk(finish="stop"), b"[DONE]"]


@pytest.mark.case(102)
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (sse(*GOOD), ""),
        (sse(), "no-done"),
        (sse(*GOOD[:1]), "no-done"),
        (sse(*GOOD[:2]), "no-done"),
        (sse(GOOD[0], GOOD[2]), "malformed"),
        (sse(GOOD[0], chunk({"content": ""}, model="")), "error"),
        (sse(GOOD[0], {"error": {"message": "x"}}), "error"),
        (sse(*GOOD, GOOD[0]), "malformed"),
        (sse(*GOOD, GOOD[2]), "malformed"),
        (sse(GOOD[1], GOOD[0], GOOD[2]), "malformed"),
        (sse(chunk({"content": "x", "audio": {}}), *GOOD[1:]), "malformed"),
        (sse(chunk({"content": None}), *GOOD[1:]), "malformed"),
        (sse({"model": "m", "choices": [{}, {}]}, *GOOD[1:]), "malformed"),
        (sse({"model": "m"}, *GOOD[1:]), "malformed"),
        (sse(b"oops", *GOOD), "malformed"),
        (b"oops\n\n" + sse(*GOOD), "malformed"),
        (sse(GOOD[0], chunk(finish=5), GOOD[2]), "malformed"),
        (sse(*GOOD[:2], {"model": "m", "choices": [], "usage": {"prompt_tokens": "x"}}, GOOD[2]), "malformed"),
        (sse(*GOOD)[:-2], ""),
        (json.dumps({"choices": [{"message": {"content": "x"}, "finish_reason": None}]}).encode(), "no-done"),
        (json.dumps({"choices": []}).encode(), "malformed"),
    ],
)
def test_a_stream_has_one_good_end(data, reason):
    """`[DONE]` behind a chunk that said how the answer finished; anything else is delivered and not kept."""
    answer, why = read_back(openai_chat, data)

    assert (answer is not None, why) == (not reason, reason)


def test_numbers_of_tokens_that_later_ollamas_tell_are_kept():
    """`prompt_tokens_details` goes through the native count and back."""
    usage = {
        "prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7, "prompt_tokens_details": {"cached_tokens": 4}
    }  # fmt: skip
    reply = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": usage}

    answer, _ = read_back(openai_chat, json.dumps(reply).encode())

    assert answer.final == {"prompt_eval_count": 5, "eval_count": 2, "prompt_eval_cached_count": 4}
    assert json.loads(openai_chat.whole(chatted(), answer, 5.0))["usage"] == usage


@pytest.mark.parametrize("path", sorted(BY_PATH))
def test_every_dialect_names_itself(path):
    """Path, family and content types are there, and an ask of it says which one parsed it."""
    dialect = BY_PATH[path]
    ask = dialect.parse(json.dumps(CHAT | COMPLETION | {"max_tokens": 5, "input": "why?"}).encode())

    assert (dialect.PATH, ask.dialect) == (path, dialect.NAME)
    assert dialect.WHOLE_TYPE.startswith("application/json")
    assert dialect.STREAM_TYPE in ("application/x-ndjson", "text/event-stream")


@pytest.mark.case(78)
def test_thinking_and_text_of_one_chunk_become_two():
    """As Ollama does it; the role comes once."""
    write = openai_chat.relay(chatted(stream=True), 5.0)

    data = write({"message": {"content": "a", "thinking": "t"}, "done": False})

    deltas = [json.loads(line[6:])["choices"][0]["delta"] for line in data.split(b"\n\n") if line]
    assert deltas == [{"role": "assistant", "content": "", "reasoning": "t"}, {"content": "a"}]
