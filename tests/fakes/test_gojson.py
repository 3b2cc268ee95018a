"""The Go JSON of the stand-in against what Go itself said (go_json_cases.json tells how the table was made)."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.demo import asks, gojson
from cacheproxy.demo.asks import RefusedError
from cacheproxy.demo.gojson import Members
from cacheproxy.demo.goscan import GoJsonError
from cacheproxy.demo.ollama import read_ask
from cacheproxy.demo.openai import InvalidRequestError

TABLE = json.loads((Path(__file__).parent / "go_json_cases.json").read_text(encoding="utf-8"))["cases"]


def body_of(case: dict[str, Any]) -> bytes:
    """The body of a row of the table; long ones are written as units and counts."""
    if "repeat" in case:
        return b"".join(unit.encode() * count for unit, count in case["repeat"])
    return base64.b64decode(case["body_base64"])


def plain(value: Any) -> Any:
    """What was read, in the kinds that JSON has."""
    if isinstance(value, Members):
        return {key: plain(item) for key, item in value}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return value.hex()
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def read(kind: str, body: bytes) -> dict[str, Any]:
    """What the stand-in reads, in the shape of the table."""
    read_struct = {"chat": asks.read_chat_fields, "generate": asks.read_generate_fields}[kind]
    try:
        fields = plain(read_struct(body))
    except GoJsonError as error:
        return {"error": str(error)}
    for message in fields.get("messages") or ():
        message["calls"] = len(message.pop("tool_calls") or ())
        message["images"] = message["images"] or []
    return {**fields, **({"messages": fields["messages"] or []} if "messages" in fields else {})}


@pytest.mark.parametrize("case", TABLE, ids=lambda case: str(body_of(case)[:60]))
def test_a_body_is_read_or_refused_as_go_does(case: dict[str, Any]) -> None:
    """Every odd body of the table gives Go's fields, or Go's error."""
    got, expected = read(case["kind"], body_of(case)), case["go"]

    if case.get("only_that_it_refuses"):
        assert "error" in expected
        assert "error" in got
        return
    if "error" not in expected:
        expected = {**expected, "images": expected["images"] or None} if "images" in expected else expected
        got = {name: got.get(name, f"refused: {got}") for name in expected}
        expected["keep_alive"] = pytest.approx(expected["keep_alive"]) if expected["keep_alive"] else None
        got["keep_alive"] = got["keep_alive"] or None
    assert expected == got


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused_in_words(body: bytes) -> None:
    """No input makes the reader raise anything but its own error."""
    assert "error" in (result := read("chat", body)) or "model" in result


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_NAMES = st.sampled_from(
    ["model", "MODEL", "messages", "options", "stream", "format", "keep_alive", "think", "context", "images", "prompt"]
)


@given(st.lists(st.tuples(_NAMES, _JSON), max_size=6), st.sampled_from(["chat", "generate"]))
def test_any_values_under_known_names_are_read_or_refused_in_words(members: list[tuple[str, Any]], kind: str) -> None:
    """Wrong types, infinities and surrogates under known names never crash the reader."""
    body = b"{%b}" % b",".join(json.dumps(key).encode() + b":" + json.dumps(value).encode() for key, value in members)

    assert "error" in (result := read(kind, body)) or "model" in result


_V1_NAMES = st.sampled_from(
    ["model", "messages", "stream", "stream_options", "stop", "max_tokens", "temperature", "top_p", "tools"]
) | st.sampled_from(
    ["input", "reasoning", "reasoning_effort", "response_format", "logprobs", "prompt", "seed", "thinking", "system"]
)
_TURN = st.fixed_dictionaries(
    {}, optional={"role": _JSON, "content": _JSON, "tool_calls": _JSON, "images": _JSON, "type": st.just("text")}
)
_PATHS = ["/api/chat", "/api/generate", "/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"]


@given(st.dictionaries(_NAMES | _V1_NAMES, _JSON | st.lists(_TURN, max_size=2), max_size=6), st.sampled_from(_PATHS))
def test_every_route_reads_or_refuses_any_values(members: dict[str, Any], path: str) -> None:
    """A body of any shape becomes an Ask with a fingerprint, or one of the three refusals that routes word."""
    try:
        outcome = asks.fingerprint(read_ask(path, json.dumps(members).encode()), "0" * 64)
    except (GoJsonError, RefusedError, InvalidRequestError) as refusal:
        outcome = str(refusal)

    assert outcome


@given(st.binary(max_size=40), st.integers(0, 200))
def test_a_damaged_body_is_read_or_refused_in_words(noise: bytes, at: int) -> None:
    """Bytes thrown into the middle of a good body never crash the reader."""
    good = (
        b'{"model":"a","messages":[{"role":"user","content":"\\ud83d\\ude00 x","images":["aGk="]}],"options":{"a":1}}'
    )

    assert "error" in (result := read("chat", good[:at] + noise + good[at:])) or "model" in result


@pytest.mark.parametrize("depth", [900, 5000, 10_001])
@pytest.mark.parametrize("name", ["options", "format", "unknown"])
def test_deep_nesting_is_read_or_refused_in_words(name: str, depth: int) -> None:
    """No depth crashes reading or fingerprinting, whatever Python's own limit is."""
    body = b'{"%b":{"a":%b%b}}' % (name.encode(), b"[" * depth, b"]" * depth)
    try:
        outcome = asks.fingerprint(asks.read_chat(body), "0" * 64)
    except GoJsonError as refusal:
        outcome = str(refusal)

    assert outcome == "invalid character '[' exceeded max depth" or len(outcome) == 12


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("<b>&\u2028\u2029", '"\\u003cb\\u003e\\u0026\\u2028\\u2029"'),
        ("é😀\u0085\x7f", '"é😀\u0085\x7f"'),
        ('a"\\\n\t\r\b\f\x01', '"a\\"\\\\\\n\\t\\r\\b\\f\\u0001"'),
        ({"b": 1, "a": [True, None, -0.25]}, '{"b":1,"a":[true,null,-0.25]}'),
    ],
)
def test_text_is_escaped_as_go_escapes_it(value: Any, text: str) -> None:
    """Go escapes three ASCII characters and two separators; all else stays raw UTF-8."""
    assert text.encode() == gojson.write(value)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"),
        (1.0, "1"),
        (0.1, "0.1"),
        (-0.00001, "-0.00001"),
        (1e-6, "0.000001"),
        (9.5e-7, "9.5e-7"),
        (1e-7, "1e-7"),
        (1.5e-10, "1.5e-10"),
        (123456789.0, "123456790"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
    ],
)
def test_a_float32_is_written_in_gos_notation(number: float, text: str) -> None:
    """The shortest text of the float32, plain between 1e-6 and 1e21."""
    assert text == gojson.float32_text(number)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.1, "0.1"), (0.10000000149011612, "0.10000000149011612"), (1e-5, "0.00001"), (2.5e-8, "2.5e-8"), (3.0, "3")],
)
def test_a_float64_is_written_in_gos_notation(number: float, text: str) -> None:
    """/api/embeddings prints float32 values as float64."""
    assert text == gojson.float64_text(number)
