"""Which chat requests share an answer and which do not, by the numbered cases of the contract."""

import base64
import contextlib
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cacheproxy.errors import UnkeyableError
from cacheproxy.wire import chat, generate
from tests.fakes.speed import slowness

HI = {"role": "user", "content": "hi"}
BASE = {"model": "m", "messages": [HI]}
ABSENT = object()
PIXELS = bytes(range(200))


def body(**members):
    """A request like BASE with other members; ABSENT takes one away."""
    merged = BASE | members
    return json.dumps({name: value for name, value in merged.items() if value is not ABSENT})


def parsed(text):
    """The ask in a body."""
    return chat.parse(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))


def keys(*texts):
    """The distinct canonical forms of some bodies."""
    return {parsed(text).canonical for text in texts}


def reason(text):
    """Why a body has no key; empty if it has one."""
    try:
        parsed(text)
    except UnkeyableError as error:
        return error.reason
    return ""


def image(data, *, break_at=0):
    """A message with an image of these bytes."""
    text = base64.b64encode(data).decode()
    return {"messages": [HI | {"images": [text[:break_at] + "\r\n" * bool(break_at) + text[break_at:]]}]}


def tool(*names):
    """A tool whose properties stand in this order."""
    return {"type": "function", "function": {"name": "f", "parameters": {"properties": {name: {} for name in names}}}}


SAME = [
    (30, [{"stream": None}, {"stream": ABSENT}, {"stream": True}, {"stream": False}]),
    (31, [{"model": name} for name in ("llama3", "llama3:latest", "LLaMA3", " llama3 ", "x:local")]),
    (35, [{"keep_alive": value} for value in ("5m", 300, -1, 0, "-1m", "1h30m", 2.5, "0", None, ABSENT)]),
    (35, [{"keep_alive": value} for value in ("5m", "2500000h", "-2500000h", "0" * 90 + "5.s", "1.5h.5us", 1e300)]),
    (39, [{"options": value} for value in (None, {}, ABSENT, {"temperature": None})]),
    (40, [{"options": {"temperature": value}} for value in (0, 0.0, -0.0)]),
    (40, [{"options": {"temperature": value}} for value in (0.7, 0.70000001)]),
    (45, [{"format": value} for value in (ABSENT, None, "")]),
    (47, [{"messages": [HI | {"role": role}]} for role in ("user", "USER", "User")]),
    (49, [image(PIXELS), image(PIXELS, break_at=76)]),
    (45, [{"tools": value} for value in (ABSENT, None, [])]),
    (45, [{"messages": [HI | extra]} for extra in ({}, {"images": []}, {"images": None}, {"tool_calls": []})]),
    (45, [{"messages": [HI | extra]} for extra in ({}, {"thinking": ""}, {"tool_name": ""}, {"tool_call_id": None})]),
    (56, [{"logprobs": value} for value in (ABSENT, None, False)]),
    (56, [{"top_logprobs": value} for value in (ABSENT, None, 0)]),
    (26, [{"_debug_render_only": value} for value in (ABSENT, None, False)]),
    (41, [{"options": {"num_ctx": value}} for value in (4096, 4096.0, 4096.9)]),
]


@pytest.mark.parametrize(
    "variants", [pytest.param(variants, marks=pytest.mark.case(number), id=f"{number}") for number, variants in SAME]
)
def test_requests_ollama_acts_on_alike_share_a_key(variants):
    """How the reply is wanted and how a value is spelt is no part of the answer."""
    assert len(keys(*(body(**variant) for variant in variants))) == 1


TWO = [{"role": "assistant", "content": "a"}, HI]
OPTION_VALUES = {
    "num_keep": 5, "seed": 1, "num_predict": 10, "top_k": 1, "top_p": 0.5, "min_p": 0.1, "typical_p": 0.5,
    "repeat_last_n": 1, "temperature": 0.1, "repeat_penalty": 1.5, "presence_penalty": 1.0, "frequency_penalty": 1.0,
    "stop": ["a"], "num_ctx": 2048, "num_batch": 8, "num_gpu": 0, "main_gpu": 1, "use_mmap": True, "num_thread": 2,
    "draft_num_predict": 1, "mirostat": 1, "an_option_of_tomorrow": 1,
}  # fmt: skip

DIFFERENT = [
    (38, [{"tools": [tool("a", "b")]}, {"tools": [tool("b", "a")]}, {"tools": [tool("a"), tool("b")]}]),
    (38, [{"tools": [tool("a"), tool("b")]}, {"tools": [tool("b"), tool("a")]}, {}]),
    (40, [{"options": {"temperature": value}} for value in (0, 0.1, 0.7, 1)] + [{}]),
    (41, [{}] + [{"options": {name: value}} for name, value in OPTION_VALUES.items()]),
    (41, [{"options": {"stop": value}} for value in ([], ["a"], ["a", "b"], ["b", "a"], "a")] + [{}]),
    (42, [{"temperature": 1}, {"options": {"temperature": 1}}, {}]),
    (43, [{"options": {"unheard_of": value}} for value in (1, 2, "1", True, [1], {"a": 1})] + [{}]),
    (44, [{"think": value} for value in (ABSENT, True, False, "low", "medium", "high")]),
    (45, [{"format": value} for value in (ABSENT, "json", {}, {"a": 1, "b": 2}, {"b": 2, "a": 1})]),
    (48, [{"messages": [HI | {"content": text}]} for text in ("hi", "hi ", " hi", "hi\n", "Hi", "hi\u200b", "")]),
    (48, [{"messages": [HI | {"content": text}]} for text in ("é", "e\u0301", "\ufb01", "fi")]),
    (49, [image(PIXELS), image(PIXELS[:-1] + b"\x00"), image(b""), {}]),
    (56, [{"truncate": False}, {"shift": False}, {"logprobs": True}, {"top_logprobs": 5}, {}]),
    (56, [{"truncate": True}, {"shift": True}, {}]),
    (56, [{"logprobs": True}, {"logprobs": True, "top_logprobs": 2}, {"logprobs": True, "top_logprobs": 3}]),
    (91, [{"messages": messages} for messages in ([HI], [HI, HI], TWO, TWO[::-1], [HI, *TWO])]),
    (91, [{"messages": [HI | {"role": role}]} for role in ("user", "system", "assistant", "tool", "developer", "")]),
    (91, [{"messages": [HI | extra]} for extra in ({"thinking": "t"}, {"tool_name": "t"}, {"tool_call_id": "t"}, {})]),
    (91, [{"messages": [HI, {"tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}]}
          for arguments in ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1}, {}, '{"a":1}')]),
    (91, [{"messages": [HI | {"member_of_tomorrow": value}]} for value in (1, 2)] + [{}]),
    (91, [{"member_of_tomorrow": value} for value in (1, 2, None, "1", [1])]),
    (85, [{"options": {"seed": value}} for value in (2**53, 2**53 + 1, -1, 0)]),
]  # fmt: skip


@pytest.mark.parametrize(
    "variants",
    [pytest.param(variants, marks=pytest.mark.case(number), id=f"{number}") for number, variants in DIFFERENT],
)
def test_requests_whose_answers_may_differ_never_share_a_key(variants):
    """Each variant has a key of its own."""
    assert len(keys(*(body(**variant) for variant in variants))) == len(variants)


UNKEYABLE = [
    (21, body(messages=[]), "load"),
    (21, body(messages=None), "load"),
    (21, body(messages=ABSENT), "load"),
    (23, body(messages=[], keep_alive="0s"), "load"),
    (26, body(_debug_render_only=True), "debug"),
    (50, '{"Model":"m","messages":[{"role":"user","content":"hi"}]}', "ambiguous-keys"),
    (50, '{"model":"a","Model":"b","messages":[{"role":"user","content":"hi"}]}', "ambiguous-keys"),
    (50, '{"model":"a","Model":null,"messages":[{"role":"user","content":"hi"}]}', "ambiguous-keys"),
    (50, '{"model":"a","\u017ftream":false,"messages":[{"role":"user","content":"hi"}]}', "ambiguous-keys"),
    (50, '{"model":"a","\\u017ftream":false,"messages":[{"role":"user","content":"hi"}]}', "ambiguous-keys"),
    (50, '{"model":"a","\u212aeep_alive":0,"messages":[{"role":"user","content":"hi"}]}', "ambiguous-keys"),
    (
        51,
        '{"model":"m","options":{},"options":{"seed":1},"messages":[{"role":"user","content":"hi"}]}',
        "duplicate-keys",
    ),
    (51, '{"model":"m","options":{"seed":1,"seed":2},"messages":[{"role":"user","content":"hi"}]}', "duplicate-keys"),
    (52, body() + "garbage", "trailing-data"),
    (54, body(messages=[HI | {"content": "\ud800"}]), "lone-surrogate"),
    (54, body(tools=[{"\udc00": 1}]), "lone-surrogate"),
    (85, body(options={"seed": 10**30}), "number-range"),
    (85, body(options={"temperature": 10**400}), "number-range"),
    (85, body(options={"num_ctx": 1e300}), "number-range"),
    (35, body(keep_alive="10"), "keep-alive"),
    (35, body(keep_alive=""), "keep-alive"),
    (35, body(keep_alive=True), "keep-alive"),
    (35, body(keep_alive=[]), "keep-alive"),
    (35, body(keep_alive="5 m"), "keep-alive"),
    (35, body(keep_alive="9999999999h"), "keep-alive"),
    (35, body(keep_alive="-9999999999h"), "keep-alive"),
    (35, body(keep_alive="9223372036854775808ns"), "keep-alive"),
    (35, body(keep_alive="2000000h2000000h"), "keep-alive"),
    (35, body(keep_alive="9" * 5000 + "s"), "keep-alive"),
    (35, body(keep_alive=10**400), "keep-alive"),
    (30, body(stream="yes"), "stream"),
    (30, body(stream=0), "stream"),
    (31, body(model=""), "model"),
    (31, body(model="  "), "model"),
    (31, body(model=None), "model"),
    (31, body(model=ABSENT), "model"),
    (31, body(model=5), "model"),
    (38, body(tools={}), "tools"),
    (38, body(tools=""), "tools"),
    (38, body(tools=0), "tools"),
    (39, body(options=[]), "options"),
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [pytest.param(text, why, marks=pytest.mark.case(number), id=f"{number}") for number, text, why in UNKEYABLE],
)
def test_a_request_without_a_certain_meaning_has_no_key(text, expected):
    """It goes to Ollama as it came; the reason is counted."""
    assert reason(text) == expected


@pytest.mark.case(56)
@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ({"logprobs": 0}, {}),
        ({"top_logprobs": False}, {}),
        ({"top_logprobs": 0.0}, {}),
        ({"_debug_render_only": 0}, {}),
    ],
)
def test_a_value_of_another_type_is_not_the_absent_one(wrong, right):
    """Ollama refuses it, so the answer to the absent one must not hide that."""
    assert len(keys(body(**wrong), body(**right))) == 2


@pytest.mark.case(53)
@pytest.mark.parametrize("text", [f" \t\r\n{body()}\n\n", body(), json.dumps(json.loads(body()), indent=3)])
def test_blanks_around_members_say_nothing(text):
    """Any client's formatting gives the same key."""
    assert keys(text) == keys(body())


@pytest.mark.case(35)
@pytest.mark.parametrize("duration", ["11s" * 33, "11s" * 33 + "x", "1" * 1_000_000, "11s" * 300_000])
def test_any_duration_is_judged_at_once(duration):
    """Whatever its length and its end; to try each way to read its digits would hold up all callers for good."""
    began_s = time.thread_time()
    with contextlib.suppress(UnkeyableError):
        parsed(body(keep_alive=duration))

    assert time.thread_time() - began_s < 0.05 * slowness()


@pytest.mark.case(55)
def test_a_body_with_an_8_mib_image_has_a_key():
    """Vision models are asked with such."""
    text = base64.b64encode(bytes(6 * 1024**2)).decode()

    assert len(parsed(body(messages=[HI | {"images": [text]}])).canonical) < 1000


@pytest.mark.case(57)
@pytest.mark.case(58)
def test_an_ask_with_logprobs_knows_the_key_of_the_same_ask_without():
    """One answer then serves both, but only in that direction."""
    plain = parsed(body(options={"seed": 1}))
    with_logprobs = parsed(body(options={"seed": 1}, logprobs=True, top_logprobs=4))

    assert with_logprobs.canonical_plain == plain.canonical
    assert with_logprobs.canonical != plain.canonical
    assert (plain.canonical_plain, plain.logprobs, with_logprobs.logprobs) == (b"", False, True)


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([HI], False),
        ([{"role": "system", "content": "s"}, HI], False),
        (TWO, True),
        ([HI, {"role": "Assistant"}], True),
    ],
)
def test_the_models_name_matters_once_it_has_spoken(messages, expected):
    """Ollama strips earlier thinking for some models by their name."""
    assert parsed(body(messages=messages)).name_matters is expected


def test_an_ask_keeps_what_the_reply_needs():
    """Spelling, stream and keep_alive are not in the key but on the ask."""
    ask = parsed(body(model=" LLaMA3 ", stream=False, keep_alive="5m", options={"temperature": 1}))

    assert (ask.dialect, ask.family) == ("chat", "chat")
    assert (ask.model, ask.stream, ask.keep_alive, ask.temperature) == (" LLaMA3 ", False, "5m", 1.0)
    assert (ask.forward, ask.controls) == (None, {})


@pytest.mark.case(65)
def test_a_chat_and_a_prompt_never_share():
    """They are rendered differently, so the family is part of the key."""
    assert parsed(body()).family != generate.parse(b'{"model":"m","prompt":"hi"}').family


@st.composite
def spellings(draw, value):
    """JSON text of a value with members in any order and every character and blank as its writer liked."""
    blank = draw(st.sampled_from(["", " ", "\n\t"]))
    if isinstance(value, dict):
        names = draw(st.permutations(list(value)))
        pairs = [f"{draw(spellings(name))}{blank}:{blank}{draw(spellings(value[name]))}" for name in names]
        return "{" + blank + f"{blank},".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + f",{blank}".join(draw(spellings(item)) for item in value) + blank + "]"
    if isinstance(value, str):
        escaped = draw(st.booleans())
        return '"' + "".join(f"\\u{ord(letter):04x}" if escaped else letter for letter in value) + '"'
    if isinstance(value, float):
        return draw(st.sampled_from([f"{value}", f"{value}0", f"{value * 10}e-1", f"{value}E0", f"{value / 10}e+1"]))
    return json.dumps(value)


ORDERLESS = {
    "model": "m",
    "stream": False,
    "keep_alive": "5m",
    "think": True,
    "options": {"temperature": 0.75, "top_p": 0.5, "seed": 7, "stop": ["é", "b"]},
    "messages": [{"role": "system", "content": "é/漢"}, {"role": "user", "content": "hi", "tool_name": "t"}],
}


@pytest.mark.case(37)
@pytest.mark.fault(92)
@given(text=spellings(ORDERLESS))
@settings(max_examples=200)
def test_order_blanks_escapes_and_spelling_of_numbers_make_no_other_key(text):
    """Two clients that mean the same share the answer."""
    assert keys(text) == keys(json.dumps(ORDERLESS))


LEAF = st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "a", "b", 0.5, 0.25]) | st.just([])
REQUESTS = st.fixed_dictionaries(
    {"messages": st.lists(st.fixed_dictionaries({"content": st.sampled_from(["a", "b"])}), min_size=1, max_size=2)},
    optional={
        "options": st.dictionaries(st.sampled_from(["seed", "temperature", "stop", "new"]), LEAF, max_size=2),
        "think": LEAF,
        "format": LEAF,
        "truncate": LEAF,
        "new": LEAF,
        "logprobs": LEAF,
    },
)


def meaning(request):
    """What shapes the answer, worked out another way than the program does."""
    absent = {"format": [""], "logprobs": [False]}
    wanted = {
        name: value
        for name, value in request.items()
        if value is not None and not any(value is each or (value == "" == each) for each in absent.get(name, []))
    }
    options = {name: value for name, value in wanted.pop("options", {}).items() if value is not None}
    for name, kind in (("seed", int), ("temperature", float)):
        if isinstance(options.get(name), (int, float)) and not isinstance(options[name], bool):
            options[name] = kind(options[name])
    return repr(sorted(wanted.items(), key=lambda pair: pair[0])) + repr(sorted(options.items()))


@pytest.mark.fault(91)
@given(one=REQUESTS, other=REQUESTS)
@settings(max_examples=300)
def test_two_requests_share_a_key_exactly_if_they_mean_the_same(one, other):
    """Small requests, so that equal ones come up often."""
    same = keys(json.dumps({"model": "m", **one})) == keys(json.dumps({"model": "m", **other}))

    assert same == (meaning(one) == meaning(other))
