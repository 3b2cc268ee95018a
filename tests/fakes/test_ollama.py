"""The stand-in against the contract: what the other tests rely on when they say "as Ollama does"."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import struct
from typing import Any

import pytest

from cacheproxy.demo.ollama import SimulatedOllama, expected_text
from tests.fakes import ollama as faults
from tests.fakes import wire
from tests.fakes.ollama import FakeOllama, Fault
from tests.fakes.wire import Response, request

JSON = "application/json; charset=utf-8"
CHAT: dict[str, Any] = {"model": "llama3", "messages": [{"role": "user", "content": "why is the sky blue?"}]}
LIBRARY = "registry.ollama.ai/library"
RAW_CONFLICT = "raw mode does not support template, system, or context"
GENERATE: dict[str, Any] = {"model": "llama3", "prompt": "why is the sky blue?"}


def names(response: Response) -> list[str]:
    """Header names in order."""
    return [name for name, _ in response.headers]


def content(response: Response) -> str:
    """The text of a native chat stream."""
    return "".join(line["message"]["content"] for line in response.lines())


# --- HTTP ---


async def test_root_tells_that_ollama_runs(fake_ollama: FakeOllama) -> None:
    """GET / is 17 bytes of text and HEAD promises them."""
    got = await wire.ask(fake_ollama.port, "GET", "/")
    head = await wire.ask(fake_ollama.port, "HEAD", "/")

    assert got.body == b"Ollama is running"
    assert got.header("Content-Type") == "text/plain; charset=utf-8"
    assert got.headers == head.headers
    assert names(head) == ["Content-Type", "Date", "Content-Length"]
    assert (head.header("Content-Length"), head.body) == ("17", b"")


@pytest.mark.parametrize(
    ("method", "target", "status", "body", "header"),
    [
        ("GET", "/nope", 404, b"404 page not found", ("Content-Type", "text/plain")),
        ("GET", "/API/tags", 404, b"404 page not found", ("Content-Type", "text/plain")),
        ("GET", "/v1/models/ns/model", 404, b"404 page not found", ("Content-Type", "text/plain")),
        ("GET", "/api/chat", 405, b"405 method not allowed", ("Allow", "POST")),
        ("POST", "/api/tags", 405, b"405 method not allowed", ("Allow", "GET, HEAD")),
        ("GET", "/api/version/", 301, None, ("Location", "/api/version")),
        ("POST", "/api/chat/?a=b", 307, b"", ("Location", "/api/chat?a=b")),
        ("POST", "//v1/chat/completions", 301, b"", ("Location", "/v1/chat/completions")),
        ("GET", "/api/../api/version", 301, None, ("Location", "/api/version")),
        ("GET", "/v1/models/llama3%3Alatest", 200, None, ("Content-Type", "application/json")),
        ("GET", "/api/version?x=%3A", 200, b'{"version":"0.33.0"}', ("Content-Type", JSON)),
    ],
)
async def test_paths_are_routed_as_gin_and_servemux_do(  # noqa: PLR0917  # pytest's way of giving rows
    fake_ollama: FakeOllama, method: str, target: str, status: int, body: bytes | None, header: tuple[str, str]
) -> None:
    """Unknown paths, wrong methods, slashes at the end and doubled slashes."""
    response = await wire.ask(fake_ollama.port, method, target)

    assert status == response.status
    assert header[1] == response.header(header[0])
    assert body is None or body == response.body


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * (1 << 20) + b"\r\n\r\n", 431),
    ],
)
async def test_broken_requests_are_refused_and_the_connection_closed(
    fake_ollama: FakeOllama, raw: bytes, status: int
) -> None:
    """Go answers what it cannot parse in plain text and hangs up."""
    async with await wire.connect(fake_ollama.port) as client:
        await client.send(raw)
        answer = await client.rest()

    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"Connection: close\r\n" in answer


async def test_two_requests_share_a_connection_after_a_stream(fake_ollama: FakeOllama) -> None:
    """Keep-alive survives a chunked answer; pipelined requests are answered in order."""
    async with await wire.connect(fake_ollama.port) as client:
        await client.send(request("POST", "/api/chat", CHAT) + request("GET", "/api/version"))
        first, second = await client.response(), await client.response(method="GET")

    assert first.complete
    assert second.json() == {"version": "0.33.0"}
    assert fake_ollama.connections_opened == 1


async def test_an_http_1_0_client_gets_no_framing_and_a_close(fake_ollama: FakeOllama) -> None:
    """A stream to HTTP/1.0 ends with the connection."""
    async with await wire.connect(fake_ollama.port) as client:
        await client.send(request("POST", "/api/chat", CHAT, version="1.0"))
        response = await client.response()

    assert (
        response.version,
        response.header("Transfer-Encoding"),
        response.header("Content-Length"),
    ) == ("HTTP/1.0", None, None)
    assert response.lines()[-1]["done"] is True


async def test_bodies_may_be_chunked_and_need_no_content_type(fake_ollama: FakeOllama) -> None:
    """Framing and Content-Type of a request change nothing."""
    body = json.dumps(CHAT).encode()
    chunked = wire.chunked(body[:10], body[10:])
    te = [("Transfer-Encoding", "chunked")]
    form = [("Content-Type", "application/x-www-form-urlencoded")]

    texts = {
        content(await wire.ask(fake_ollama.port, "POST", "/api/chat", body)),
        content(await wire.ask(fake_ollama.port, "POST", "/api/chat", body, headers=form)),
        content(await wire.ask(fake_ollama.port, "POST", "/api/chat", chunked, headers=te)),
    }

    assert {expected_text("/api/chat", body)} == texts


async def test_continue_is_said_only_when_the_body_is_read(fake_ollama: FakeOllama) -> None:
    """An upload is asked for once; a blob that exists answers without reading."""
    blob = b"weights" * 1000
    target = f"/api/blobs/sha256:{hashlib.sha256(blob).hexdigest()}"
    expect = [("Expect", "100-continue"), ("Content-Length", str(len(blob)))]
    async with await wire.connect(fake_ollama.port) as client:
        await client.send(request("POST", target, headers=expect))
        assert (await client.response()).status == 100
        await client.send(blob)
        assert (await client.response()).status == 201
    async with await wire.connect(fake_ollama.port) as client:
        await client.send(request("POST", target, headers=expect))
        response = await client.response()

    assert (response.status, response.header("Connection")) == (200, "close")
    assert (await wire.ask(fake_ollama.port, "HEAD", target)).status == 200


async def test_blobs_are_checked_against_their_name(fake_ollama: FakeOllama) -> None:
    """Missing 404, bad format 400, wrong content 400."""
    target = f"/api/blobs/sha256:{'0' * 64}"

    assert (await wire.ask(fake_ollama.port, "HEAD", target)).status == 404
    assert (await wire.ask(fake_ollama.port, "POST", "/api/blobs/x", b"x")).status == 400
    mismatch = await wire.ask(fake_ollama.port, "POST", target, b"x")
    assert mismatch.status == 400
    assert mismatch.json()["error"].startswith('digest mismatch, expected "sha256:000')


@pytest.mark.parametrize(
    ("length", "header"), [(10, "Content-Length"), (1990, "Content-Length"), (2100, "Transfer-Encoding")]
)
async def test_whole_answers_are_chunked_above_2048_bytes(fake_ollama: FakeOllama, length: int, header: str) -> None:
    """Go's buffer decides between Content-Length and chunks."""
    fake_ollama.always(Fault(error_first=(500, "x" * length)))

    response = await wire.ask(fake_ollama.port, "POST", "/api/chat", CHAT)

    assert header in names(response)
    assert f'{{"error":"{"x" * length}"}}'.encode() == response.body


# --- who may call ---


async def test_a_preflight_of_a_local_page_is_granted(fake_ollama: FakeOllama) -> None:
    """204 with the CORS set, one Allow-Origin, three Vary."""
    origin = [("Origin", "http://localhost:3000")]
    response = await wire.ask(fake_ollama.port, "OPTIONS", "/api/chat", headers=origin)

    assert response.status == 204
    assert response.header("Access-Control-Allow-Origin") == "http://localhost:3000"
    assert response.header("Access-Control-Allow-Methods") == "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
    assert response.header("Access-Control-Max-Age") == "43200"
    vary = [value for name, value in response.headers if name == "Vary"]
    assert vary == ["Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"]
    assert None is response.header("Content-Length")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("Origin", "https://evil.example")], 403),
        ([("Origin", "http://127.0.0.1")], 200),
        ([("Origin", "http://localhost:8080")], 200),
        ([("Origin", "https://localhost.evil.example")], 403),
        ([("Origin", "vscode-webview://abc")], 200),
        ([("Origin", "null")], 403),
    ],
)
async def test_origins_are_checked(fake_ollama: FakeOllama, headers: list[tuple[str, str]], status: int) -> None:
    """A foreign page gets 403 with an empty body."""
    response = await wire.ask(fake_ollama.port, "GET", "/api/version", headers=headers)

    assert status == response.status
    assert (status == 403) == (response.body == b"")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:11434", 200),
        ("127.0.0.1", 200),
        ("192.168.1.5:80", 200),
        ("[::1]:11434", 200),
        ("a.internal", 200),
        ("ollama.example.com", 403),
        ("8.8.8.8", 403),
        ("", 200),
    ],
)
async def test_hosts_are_checked(fake_ollama: FakeOllama, host: str, status: int) -> None:
    """A public Host at a loopback server gets 403 with an empty body."""
    response = await wire.ask(fake_ollama.port, "GET", "/api/version", host=host)

    assert status == response.status


# --- chat and generate ---


async def test_a_chat_streams_one_line_a_chunk(fake_ollama: FakeOllama) -> None:
    """Each HTTP chunk is one JSON line; the last one is done and carries the metrics in order."""
    response = await wire.ask(fake_ollama.port, "POST", "/api/chat", CHAT)

    assert response.header("Content-Type") == "application/x-ndjson"
    assert names(response) == ["Content-Type", "Date", "Transfer-Encoding"]
    assert all(chunk.data.endswith(b"\n") and chunk.data.count(b"\n") == 1 for chunk in response.chunks)
    *middle, last = response.lines()
    assert all(list(line) == ["model", "created_at", "message", "done"] for line in middle)
    assert last["message"] == {"role": "assistant", "content": ""}
    assert list(last)[:6] == ["model", "created_at", "message", "done", "done_reason", "total_duration"]
    assert list(last)[-4:] == ["prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration"]
    assert last["done_reason"] == "stop"


async def test_times_are_written_as_go_writes_them() -> None:
    """RFC 3339 with up to nine digits, zeros at the end cut, Z."""

    class Fixed:
        def now(self) -> float:
            return 1_700_000_000.25

        def monotonic(self) -> float:
            return 1.0

    async with _opened(SimulatedOllama(clock=Fixed())) as server:
        line = (await wire.ask(server.port, "POST", "/api/chat", {**CHAT, "stream": False})).json()

    assert line["created_at"] == "2023-11-14T22:13:20.25Z"
    assert "total_duration" not in line, "zeros vanish"


class _opened:  # noqa: N801  # reads as a verb
    def __init__(self, server: SimulatedOllama) -> None:
        self.server = server

    async def __aenter__(self) -> SimulatedOllama:
        await self.server.open()
        return self.server

    async def __aexit__(self, *_: object) -> None:
        await self.server.close()


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
async def test_whole_answers_are_the_fold_of_the_stream(fake_ollama: FakeOllama, path: str) -> None:
    """stream:false gives one JSON without newline and the text of the stream."""
    body = CHAT if path == "/api/chat" else GENERATE
    whole = await wire.ask(fake_ollama.port, "POST", path, {**body, "stream": False})

    assert (whole.header("Content-Type"), not whole.body.endswith(b"\n")) == (JSON, True)
    answer = whole.json()
    text = answer["message"]["content"] if path == "/api/chat" else answer["response"]
    assert expected_text(path, json.dumps(body).encode()) == text
    assert (answer["done"], answer["done_reason"]) == (True, "stop")


async def test_generate_gives_context_but_not_in_raw_mode(fake_ollama: FakeOllama) -> None:
    """The context sits after done_reason and vanishes for raw."""
    last = (await wire.ask(fake_ollama.port, "POST", "/api/generate", GENERATE)).lines()[-1]
    raw = (await wire.ask(fake_ollama.port, "POST", "/api/generate", {**GENERATE, "raw": True})).lines()[-1]

    assert list(last)[3:6] == ["done", "done_reason", "context"]
    assert all(isinstance(token, int) for token in last["context"])
    assert "context" not in raw


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("/api/generate", {"model": "llama3"}, "load"),
        ("/api/generate", {"model": "llama3", "prompt": "", "keep_alive": 0}, "unload"),
        ("/api/chat", {"model": "llama3", "messages": []}, "load"),
        ("/api/chat", {"model": "llama3", "messages": [], "keep_alive": "0s"}, "unload"),
    ],
)
async def test_empty_requests_load_or_unload(
    fake_ollama: FakeOllama, path: str, body: dict[str, Any], reason: str
) -> None:
    """One JSON object even though streaming is the default."""
    response = await wire.ask(fake_ollama.port, "POST", path, body)

    assert response.header("Content-Type") == JSON
    assert (True, reason) == (response.json()["done"], response.json()["done_reason"])
    loaded = (await wire.ask(fake_ollama.port, "GET", "/api/ps")).json()["models"]
    assert (reason == "load") == bool(loaded)


async def test_thinking_comes_first_and_only_where_it_can(fake_ollama: FakeOllama) -> None:
    """A thinking model thinks by default; another one refuses think:true."""
    thought = (await wire.ask(fake_ollama.port, "POST", "/api/chat", {**CHAT, "model": "qwen3"})).lines()
    silent = await wire.ask(fake_ollama.port, "POST", "/api/chat", {**CHAT, "model": "qwen3", "think": False})
    refused = await wire.ask(fake_ollama.port, "POST", "/api/chat", {**CHAT, "think": True})

    kinds = ["thinking" in line["message"] for line in thought]
    assert kinds == sorted(kinds, reverse=True)
    assert kinds[0]
    assert "thinking" not in silent.text
    assert (refused.status, refused.json()) == (400, {"error": '"llama3" does not support thinking'})


async def test_tools_can_be_called(fake_ollama: FakeOllama) -> None:
    """With calls_tools the first tool is called, whole, in a chunk of its own, and done_reason stays stop."""
    fake_ollama.calls_tools = True
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"b": {}, "a": {}}}}}
    native = (await wire.ask(fake_ollama.port, "POST", "/api/chat", {**CHAT, "tools": [tool]})).lines()
    v1 = (await wire.ask(fake_ollama.port, "POST", "/v1/chat/completions", {**CHAT, "tools": [tool]})).json()

    call = native[0]["message"]["tool_calls"][0]
    assert re.fullmatch(r"call_[a-z0-9]{8}", call["id"])
    assert list(call["function"]["arguments"]) == ["b", "a"]
    assert native[-1]["done_reason"] == "stop"
    choice = v1["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert list(json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"])) == ["b", "a"]


async def test_logprobs_come_with_each_token(fake_ollama: FakeOllama) -> None:
    """Chunks carry them, the whole answer their list; they do not change the text."""
    body = {**CHAT, "logprobs": True, "top_logprobs": 2, "stream": False}
    answer = (await wire.ask(fake_ollama.port, "POST", "/api/chat", body)).json()

    assert answer["message"]["content"] == "".join(entry["token"] for entry in answer["logprobs"])
    assert len(answer["logprobs"][0]["top_logprobs"]) == 2
    assert expected_text("/api/chat", json.dumps(CHAT).encode()) == answer["message"]["content"]


async def test_num_predict_ends_an_answer_with_length(fake_ollama: FakeOllama) -> None:
    """Three tokens, then done_reason length."""
    lines = (await wire.ask(fake_ollama.port, "POST", "/api/chat", {**CHAT, "options": {"num_predict": 3}})).lines()

    assert (len(lines), lines[-1]["done_reason"]) == (4, "length")


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/api/chat", b"", 400, "missing request body"),
        ("/api/chat", b"{", 400, "unexpected EOF"),
        ("/api/chat", b'{"model":NaN}', 400, "invalid character 'N' looking for beginning of value"),
        ("/api/chat", b"\xef\xbb\xbf{}", 400, "invalid character 'ï' looking for beginning of value"),
        ("/api/chat", {"messages": []}, 400, "model is required"),
        ("/api/generate", {"prompt": "x"}, 404, "model '' not found"),
        ("/api/chat", {**CHAT, "model": "Nope"}, 404, "model 'Nope' not found"),
        ("/api/chat", {**CHAT, "model": "a@sha256:b"}, 400, "invalid model name"),
        ("/api/embed", {"model": "nope", "input": "x"}, 404, 'model "nope" not found, try pulling it first'),
        ("/api/embeddings", {"model": "NOMIC-embed-text", "prompt": "x"}, 404, None),
        ("/api/embed", {"model": "nomic-embed-text", "input": [1]}, 400, "invalid input type"),
        ("/api/chat", {**CHAT, "model": "nomic-embed-text"}, 400, '"nomic-embed-text" does not support chat'),
        ("/api/generate", {**GENERATE, "suffix": "x"}, 400, f"{LIBRARY}/llama3:latest does not support insert"),
        ("/api/chat", {**CHAT, "options": {"stop": "x"}}, 500, 'option "stop" must be of type array'),
        ("/api/chat", {**CHAT, "options": {"temperature": "0.7"}}, 500, 'option "temperature" must be of type float32'),
        ("/api/chat", {**CHAT, "top_logprobs": 21}, 400, "top_logprobs must be between 0 and 20"),
        ("/api/chat", {**CHAT, "keep_alive": "10"}, 400, 'time: missing unit in duration "10"'),
        ("/api/chat", {**CHAT, "keep_alive": True}, 400, "Unsupported type: 'bool'"),
        ("/api/generate", {**GENERATE, "raw": True, "system": "x"}, 400, RAW_CONFLICT),
        ("/api/show", {"model": "nope"}, 404, "model 'nope' not found"),
    ],
)  # fmt: skip
async def test_errors_have_ollamas_words(
    fake_ollama: FakeOllama, path: str, body: Any, status: int, message: str | None
) -> None:
    """Status, type and text of the error table."""
    response = await wire.ask(fake_ollama.port, "POST", path, body)

    assert (status, JSON) == (response.status, response.header("Content-Type"))
    assert message is None or {"error": message} == response.json()


# --- the answer is a function of the request ---

SAME: list[dict[str, Any]] = [
    CHAT | {"stream": False},
    CHAT | {"keep_alive": "5m"},
    CHAT | {"model": "LLaMA3"},
    CHAT | {"model": "registry.ollama.ai/library/llama3:latest"},
    CHAT | {"model": " llama3:local"},
    CHAT | {"options": None},
    CHAT | {"options": {"temperature": None, "num_gpu": 1, "made_up": 5}},
    CHAT | {"format": ""},
    CHAT | {"think": None, "truncate": True},
    CHAT | {"temperature": 0.3},
    {"model": "llama3", "messages": [{"role": "USER", "content": "why is the sky blue?"}]},
]
OTHER: list[dict[str, Any]] = [
    CHAT | {"model": "llama3.2"},
    CHAT | {"messages": [{"role": "user", "content": "why is the sky blue? "}]},
    CHAT | {"messages": [{"role": "system", "content": ""}, *CHAT["messages"]]},
    CHAT | {"options": {"temperature": 0.8}},
    CHAT | {"options": {"temperature": 0.0}},
    CHAT | {"options": {"seed": 1}},
    CHAT | {"options": {"stop": ["x"]}},
    CHAT | {"format": "json"},
    CHAT | {"format": {"a": 1, "b": 2}},
    CHAT | {"format": {"b": 2, "a": 1}},
    CHAT | {"think": False},
    CHAT | {"truncate": False},
    CHAT | {"tools": [{"a": 1, "b": 2}]},
    CHAT | {"tools": [{"b": 2, "a": 1}]},
    CHAT | {"messages": [{"role": "user", "content": "why is the sky blue?", "images": ["aGk="]}]},
    CHAT | {"messages": [{"role": "user", "content": "why is the sky blue?", "images": ["aGo="]}]},
]


async def _mark(fake: FakeOllama, body: dict[str, Any], **more: Any) -> str:
    answer = (await wire.ask(fake.port, "POST", "/api/chat", body | {"stream": False}, **more)).json()
    text: str = answer["message"]["content"]
    return text


@pytest.mark.parametrize("body", SAME, ids=str)
async def test_spelling_does_not_change_the_answer(fake_ollama: FakeOllama, body: dict[str, Any]) -> None:
    """What Ollama reads alike it answers alike, and echoes the caller's model string."""
    answer = (await wire.ask(fake_ollama.port, "POST", "/api/chat", body | {"stream": False})).json()

    assert expected_text("/api/chat", json.dumps(CHAT).encode()) == answer["message"]["content"]
    assert body["model"] == answer["model"]


async def test_every_difference_that_counts_changes_the_answer(fake_ollama: FakeOllama) -> None:
    """No two of these requests may share an answer, nor share one with another caller's token."""
    marks = [await _mark(fake_ollama, body) for body in [CHAT, *OTHER]]
    marks.append(await _mark(fake_ollama, CHAT, headers=[("Authorization", "Bearer a")]))
    marks.append(await _mark(fake_ollama, CHAT, headers=[("Authorization", "Bearer b")]))

    assert len(marks) == len(set(marks))


async def test_the_four_settings_of_think_are_four_answers(fake_ollama: FakeOllama) -> None:
    """Absent, true, false and a level."""
    thinks: list[dict[str, Any]] = [{}, {"think": True}, {"think": False}, {"think": "low"}]

    assert len({await _mark(fake_ollama, CHAT | {"model": "qwen3"} | think) for think in thinks}) == 4


async def test_chat_and_v1_chat_share_an_answer_when_they_mean_the_same(fake_ollama: FakeOllama) -> None:
    """/v1 without sampling is temperature 1 and top_p 1 on /api, and not /api without options."""
    v1 = (await wire.ask(fake_ollama.port, "POST", "/v1/chat/completions", CHAT)).json()
    text = v1["choices"][0]["message"]["content"]

    assert await _mark(fake_ollama, CHAT | {"options": {"temperature": 1, "top_p": 1.0}}) == text
    assert await _mark(fake_ollama, CHAT) != text
    assert expected_text("/v1/chat/completions", json.dumps(CHAT).encode()) == text


# --- OpenAI ---


async def test_a_v1_stream_has_openais_order(fake_ollama: FakeOllama) -> None:
    """Role first and once, then text, finish, usage and DONE in one HTTP chunk; one id and one time."""
    body = CHAT | {"stream": True, "stream_options": {"include_usage": True}}
    response = await wire.ask(fake_ollama.port, "POST", "/v1/chat/completions", body)
    events = [line[6:] for line in response.text.split("\n") if line]
    chunks = [json.loads(event) for event in events[:-1]]

    assert (response.header("Content-Type"), events[-1]) == ("text/event-stream", "[DONE]")
    assert ["role" in chunk["choices"][0]["delta"] for chunk in chunks[:-2]] == [True] + [False] * 11
    assert (chunks[-2]["choices"][0]["delta"], chunks[-2]["choices"][0]["finish_reason"]) == ({}, "stop")
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["completion_tokens"]) == ([], 12)
    assert response.chunks[-1].data.count(b"data: ") == 3
    assert len({(chunk["id"], chunk["created"], chunk["system_fingerprint"]) for chunk in chunks}) == 1


@pytest.mark.parametrize(
    ("body", "status", "kind", "is_bare"),
    [
        (CHAT | {"model": "nope"}, 404, "not_found_error", True),
        (CHAT | {"messages": []}, 400, "invalid_request_error", False),
        (b"", 400, "invalid_request_error", False),
        (CHAT | {"options": 5, "stop": 5}, 200, None, True),
        (CHAT | {"messages": [{"role": "user", "content": None}]}, 400, "invalid_request_error", False),
    ],
)
async def test_v1_errors_have_openais_shape(
    fake_ollama: FakeOllama, body: Any, status: int, kind: str | None, is_bare: bool
) -> None:
    """Handler errors are bare application/json with a newline, validation errors name a charset and have none."""
    response = await wire.ask(fake_ollama.port, "POST", "/v1/chat/completions", body)

    assert status == response.status
    assert ("application/json" if is_bare else JSON) == response.header("Content-Type")
    assert is_bare == response.body.endswith(b"\n")
    if kind is not None:
        assert kind == response.json()["error"]["type"]
        assert list(response.json()["error"]) == ["message", "type", "param", "code"]


async def test_an_array_content_becomes_one_message_a_part(fake_ollama: FakeOllama) -> None:
    """Parts are not joined, so [a, b] is not "ab"."""

    async def text(parts: Any) -> str:
        body = CHAT | {"messages": [{"role": "user", "content": parts}]}
        answer = (await wire.ask(fake_ollama.port, "POST", "/v1/chat/completions", body)).json()
        found: str = answer["choices"][0]["message"]["content"]
        return found

    a, b = {"type": "text", "text": "a"}, {"type": "text", "text": "b"}
    assert await text([a]) == await text("a")
    assert await text([a, b]) != await text("ab")


async def test_completions_load_on_an_empty_prompt(fake_ollama: FakeOllama) -> None:
    """finish_reason is load, raw as the native one."""
    answer = (await wire.ask(fake_ollama.port, "POST", "/v1/completions", {"model": "llama3", "prompt": ""})).json()

    assert answer["choices"][0]["finish_reason"] == "load"


# --- Anthropic and Responses, minimal ---


async def test_messages_stream_in_anthropics_order(fake_ollama: FakeOllama) -> None:
    """Start, block, deltas, stop; the text is that of the native request it becomes."""
    body = CHAT | {"stream": True, "max_tokens": 100}
    response = await wire.ask(fake_ollama.port, "POST", "/v1/messages?beta=true", body)
    events = [json.loads(line[6:]) for line in response.text.split("\n") if line.startswith("data: ")]

    kinds = [event["type"] for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert response.header("Cache-Control") == "no-cache"
    text = "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta")
    assert text == await _mark(fake_ollama, CHAT | {"options": {"num_predict": 100}})
    whole = (await wire.ask(fake_ollama.port, "POST", "/v1/messages", body | {"stream": False})).json()
    assert whole["content"] == [{"type": "text", "text": text}]


@pytest.mark.parametrize(
    ("block", "heard"),
    [
        ({"type": "text", "text": "a"}, "a"),
        ({"Type": "text", "TEXT": "a"}, "a"),
        ({"type": "text", "text": "b", "Text": "a"}, "a"),
        ({"type": "text", "text": "a", "Text": None}, ""),
        ({"type": "text", "Text": None, "text": "a"}, "a"),
        ({"type": "text", "text": "a", "Citations": None, "tomorrow": None}, "a"),
    ],
    ids=str,
)
async def test_the_members_of_a_block_are_read_as_go_reads_them(
    fake_ollama: FakeOllama, block: dict[str, Any], heard: str
) -> None:
    """Names match in any letter case, the last one wins, and a null clears a text."""
    body = CHAT | {"max_tokens": 100, "messages": [{"role": "user", "content": [block, {"type": "text", "text": "!"}]}]}
    plain = CHAT | {"messages": [{"role": "user", "content": f"{heard}!"}], "options": {"num_predict": 100}}
    reply = (await wire.ask(fake_ollama.port, "POST", "/v1/messages", body)).json()

    assert reply["content"] == [{"type": "text", "text": await _mark(fake_ollama, plain)}]


async def test_responses_end_with_completed(fake_ollama: FakeOllama) -> None:
    """The last event carries the whole answer, which the unstreamed one repeats."""
    body = {"model": "llama3", "input": "why is the sky blue?"}
    stream = await wire.ask(fake_ollama.port, "POST", "/v1/responses", body | {"stream": True})
    last = json.loads(stream.text.strip().split("\n")[-1].removeprefix("data: "))
    whole = (await wire.ask(fake_ollama.port, "POST", "/v1/responses", body)).json()

    assert last["type"] == "response.completed"
    assert last["response"]["output"][0]["content"] == whole["output"][0]["content"]


_USER = {"role": "user", "content": "Weather?"}
_CALL = {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"b": 1, "a": [2]}'}
_OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "rain"}
_THOUGHT = {"type": "reasoning", "encrypted_content": "hm", "summary": []}
_SAID = {"role": "assistant", "content": "let me see"}
_CALLED = {"id": "call_1", "function": {"name": "weather", "arguments": {"b": 1, "a": [2]}}}
_RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "rain"}


@pytest.mark.parametrize(
    ("items", "messages"),
    [
        ([_USER, _CALL, _OUTPUT], [_USER, {"role": "assistant", "tool_calls": [_CALLED]}, _RESULT]),
        (
            [_USER, _CALL | {"id": "fc_1", "status": "completed"}, _OUTPUT | {"id": "fco_1"}],
            [_USER, {"role": "assistant", "tool_calls": [_CALLED]}, _RESULT],
        ),
        (
            [_USER, _CALL, _CALL | {"call_id": "call_2", "arguments": ""}, _OUTPUT],
            [
                _USER,
                {"role": "assistant", "tool_calls": [_CALLED, {"id": "call_2", "function": {
                    "name": "weather", "arguments": {}}}]},
                _RESULT,
            ],
        ),
        ([_USER, _SAID, _CALL, _OUTPUT], [_USER, _SAID | {"tool_calls": [_CALLED]}, _RESULT]),
        (
            [_USER, _THOUGHT | {"encrypted_content": "older"}, _THOUGHT, _CALL, _OUTPUT],
            [_USER, {"role": "assistant", "thinking": "hm", "tool_calls": [_CALLED]}, _RESULT],
        ),
        ([_THOUGHT, _USER, _SAID, _USER], [_USER, _SAID | {"thinking": "hm"}, _USER]),
        ([_USER, _THOUGHT], [_USER, {"role": "assistant", "thinking": "hm"}]),
        (
            [_USER, _CALL, _OUTPUT | {"output": [{"type": "input_text", "text": text} for text in ("ra", "in")]}],
            [_USER, {"role": "assistant", "tool_calls": [_CALLED]}, _RESULT],
        ),
    ],
    ids=["call", "ids", "two calls", "beside text", "thought", "thought before", "thought last", "parts"],
)  # fmt: skip
async def test_responses_read_the_items_of_a_history(
    fake_ollama: FakeOllama, items: list[Any], messages: list[Any]
) -> None:
    """The answer is that to the native conversation which they become, and each item counts."""

    async def told(items: list[Any]) -> str:
        body = {"model": "llama3", "input": items}
        reply = (await wire.ask(fake_ollama.port, "POST", "/v1/responses", body)).json()
        text: str = reply["output"][0]["content"][0]["text"]
        return text

    native = {"model": "llama3", "messages": messages, "options": {"temperature": 1}}
    assert await told(items) == await _mark(fake_ollama, native)
    assert await told([_USER]) != await told(items) != await told(items[:-1])


@pytest.mark.parametrize(
    ("item", "trouble"),
    [
        ({"type": "item_reference", "id": "msg_1"}, 'input[1]: unknown input item type: "item_reference"'),
        ({"content": "a"}, "input[1]: input item missing required 'type' field"),
        (_CALL | {"arguments": "{"}, "failed to parse function call arguments: "),
        (_CALL | {"call_id": 5}, "input[1]: json: cannot unmarshal number"),
        (_THOUGHT | {"summary": "hm"}, "input[1]: json: cannot unmarshal string"),
    ],
)
async def test_responses_refuse_items_that_they_cannot_read(
    fake_ollama: FakeOllama, item: dict[str, Any], trouble: str
) -> None:
    """In the words of Ollama's compatibility layer."""
    refused = await wire.ask(fake_ollama.port, "POST", "/v1/responses", {"model": "llama3", "input": [_USER, item]})

    assert refused.status == 400
    assert refused.json()["error"]["message"].startswith(trouble)


async def test_messages_have_errors_of_their_own(fake_ollama: FakeOllama) -> None:
    """Anthropic's object, with overloaded_error for 503."""
    fake_ollama.next(Fault(error_after_tokens=(0, "boom")))
    failed = await wire.ask(fake_ollama.port, "POST", "/v1/messages", CHAT | {"max_tokens": 5})
    assert (failed.status, failed.json()["error"]) == (500, {"type": "api_error", "message": "boom"})


@pytest.mark.parametrize(
    "members",
    [
        {"max_tokens": ...},
        {"max_tokens": "5"},
        {"thinking": {"type": "enabled", "budget_tokens": "x"}},
        {"thinking": {"type": "enabled", "budget_tokens": 1024.0}},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": 5}]},
        {"messages": [{"role": "user", "content": [{"type": "thinking", "thinking": "hm", "signature": 5}]}]},
        {"tools": [{"name": 5}]},
    ],
    ids=str,
)
async def test_messages_of_another_shape_are_refused(fake_ollama: FakeOllama, members: dict[str, Any]) -> None:
    """Go reads a body into its structs, and any other type ends it."""
    body = {name: value for name, value in (CHAT | {"max_tokens": 5} | members).items() if value is not ...}
    refused = await wire.ask(fake_ollama.port, "POST", "/v1/messages", body)

    assert (refused.status, refused.json()["error"]["type"]) == (400, "invalid_request_error")


# --- embeddings ---


async def test_embeddings_are_unit_vectors_that_depend_on_the_text(fake_ollama: FakeOllama) -> None:
    """/api/embed: order kept, equal texts equal vectors, float32 of length 1; dimensions cut and rescale."""
    body = {"model": "nomic-embed-text", "input": ["a", "b", "a"]}
    first, second, third = (await wire.ask(fake_ollama.port, "POST", "/api/embed", body)).json()["embeddings"]
    short = (await wire.ask(fake_ollama.port, "POST", "/api/embed", body | {"dimensions": 8})).json()["embeddings"]

    assert first == third
    assert first != second
    assert sum(value * value for value in first) == pytest.approx(1, abs=1e-5)
    assert len(short[0]) == 8
    assert sum(value * value for value in short[0]) == pytest.approx(1, abs=1e-5)
    assert all(struct.unpack("<f", struct.pack("<f", value))[0] == pytest.approx(value) for value in first)


async def test_v1_embeddings_carry_the_same_vectors_in_both_encodings(fake_ollama: FakeOllama) -> None:
    """Both encodings decode to the float32 values of /api/embed."""
    body = {"model": "nomic-embed-text", "input": "a"}
    native = (await wire.ask(fake_ollama.port, "POST", "/api/embed", body)).json()["embeddings"][0]
    plain = (await wire.ask(fake_ollama.port, "POST", "/v1/embeddings", body)).json()["data"][0]["embedding"]
    packed = await wire.ask(fake_ollama.port, "POST", "/v1/embeddings", body | {"encoding_format": "base64"})
    values = struct.unpack(f"<{len(native)}f", base64.b64decode(packed.json()["data"][0]["embedding"]))

    assert native == plain
    assert list(values) == pytest.approx(native)


@pytest.mark.parametrize("body", [{}, {"input": ""}, {"input": []}, {"input": None}], ids=str)
async def test_an_empty_input_loads_the_model(fake_ollama: FakeOllama, body: dict[str, Any]) -> None:
    """/api/embed answers an empty list and no counts."""
    response = await wire.ask(fake_ollama.port, "POST", "/api/embed", {"model": "nomic-embed-text", **body})

    assert response.body == b'{"model":"nomic-embed-text","embeddings":[]}'


async def test_an_empty_text_is_embedded_on_v1(fake_ollama: FakeOllama) -> None:
    """/v1/embeddings takes "" as a text and refuses null."""
    body = {"model": "nomic-embed-text", "input": ""}

    assert len((await wire.ask(fake_ollama.port, "POST", "/v1/embeddings", body)).json()["data"]) == 1
    assert (await wire.ask(fake_ollama.port, "POST", "/v1/embeddings", body | {"input": None})).status == 400


async def test_old_embeddings_are_raw_vectors(fake_ollama: FakeOllama) -> None:
    """/api/embeddings is not normalised, and [] for an empty prompt."""
    body = {"model": "nomic-embed-text", "prompt": "a"}
    vector = (await wire.ask(fake_ollama.port, "POST", "/api/embeddings", body)).json()["embedding"]
    empty = await wire.ask(fake_ollama.port, "POST", "/api/embeddings", body | {"prompt": ""})

    assert sum(value * value for value in vector) > 2
    assert empty.body == b'{"embedding":[]}'


# --- models ---


async def _digest(fake: FakeOllama, name: str) -> str:
    models = (await wire.ask(fake.port, "GET", "/api/tags")).json()["models"]
    found: str = {model["name"]: model["digest"] for model in models}[name]
    return found


async def test_a_copy_shares_the_digest_and_a_delete_ends_it(fake_ollama: FakeOllama) -> None:
    """Copy and delete answer an empty 200; afterwards the name answers 404."""
    copied = await wire.ask(fake_ollama.port, "POST", "/api/copy", {"source": "llama3", "destination": "mine"})
    assert (copied.status, copied.header("Content-Length"), copied.body) == (200, "0", b"")
    assert await _digest(fake_ollama, "llama3:latest") == await _digest(fake_ollama, "mine:latest")
    assert await _mark(fake_ollama, CHAT) == await _mark(fake_ollama, CHAT | {"model": "mine"})

    assert (await wire.ask(fake_ollama.port, "DELETE", "/api/delete", {"model": "mine"})).status == 200
    assert (await wire.ask(fake_ollama.port, "POST", "/api/chat", CHAT | {"model": "mine"})).status == 404


async def test_create_changes_the_digest_with_the_content(fake_ollama: FakeOllama) -> None:
    """A new system prompt is a new digest and another answer; the last line is success."""
    before = await _digest(fake_ollama, "llama3:latest")
    body = {"model": "mine", "from": "llama3", "system": "be brief"}
    lines = (await wire.ask(fake_ollama.port, "POST", "/api/create", body)).lines()

    assert lines[-1] == {"status": "success"}
    assert before != await _digest(fake_ollama, "mine:latest")
    assert await _mark(fake_ollama, CHAT) != await _mark(fake_ollama, CHAT | {"model": "mine"})


async def test_a_pull_tells_its_progress_in_ollamas_order(fake_ollama: FakeOllama) -> None:
    """Lines as listed; a model changed behind the proxy is back to the registry's digest afterwards."""
    before = await _digest(fake_ollama, "llama3:latest")
    changed = fake_ollama.set_digest("llama3")
    assert changed == await _digest(fake_ollama, "llama3:latest")
    lines = (await wire.ask(fake_ollama.port, "POST", "/api/pull", {"model": "llama3"})).lines()

    statuses = list(dict.fromkeys(line["status"] for line in lines))
    pulling = f"pulling {before[:12]}"
    tail = ["verifying sha256 digest", "writing manifest", "removing unused layers", "success"]
    assert ["pulling manifest", pulling, *tail] == statuses
    assert before == await _digest(fake_ollama, "llama3:latest")


async def test_a_quiet_pull_answers_its_last_line_only(fake_ollama: FakeOllama) -> None:
    """stream:false is bare application/json."""
    response = await wire.ask(fake_ollama.port, "POST", "/api/pull", {"name": "llama3", "stream": False})

    assert (response.header("Content-Type"), response.body) == ("application/json", b'{"status":"success"}')


async def test_ps_shows_what_is_loaded_and_with_which_context(fake_ollama: FakeOllama) -> None:
    """num_ctx of the request is the context_length; keep_alive -1 lies in the far future."""
    await wire.ask(fake_ollama.port, "POST", "/api/chat", CHAT | {"options": {"num_ctx": 9000}, "keep_alive": -1})

    model = (await wire.ask(fake_ollama.port, "GET", "/api/ps")).json()["models"][0]
    assert (model["name"], model["context_length"]) == ("llama3:latest", 9000)
    assert int(model["expires_at"][:4]) > 2200


async def test_show_answers_copilot_in_its_own_way(fake_ollama: FakeOllama) -> None:
    """general.basename appears for that client only; `name` is taken for `model`."""
    plain = (await wire.ask(fake_ollama.port, "POST", "/api/show", {"name": "llama3"})).json()
    agent = [("User-Agent", "GitHubCopilotChat/1")]
    copilot = (await wire.ask(fake_ollama.port, "POST", "/api/show", {"model": "llama3"}, headers=agent)).json()

    assert "general.basename" not in plain["model_info"]
    assert copilot["model_info"]["general.basename"] == "llama3"


# --- time, slots, leaving ---


async def test_parallel_slots_bound_what_runs_at_once(fake_ollama: FakeOllama) -> None:
    """Two slots: the third request waits for one of them, and all three are inside the server."""
    fake_ollama.always(Fault(stall_after_tokens=0))
    tasks = [asyncio.create_task(wire.ask(fake_ollama.port, "POST", "/api/chat", CHAT)) for _ in range(3)]
    await fake_ollama.wait_until(lambda: fake_ollama.concurrency == 3 and fake_ollama.stalled == 2)

    fake_ollama.calm()
    assert all(response.complete for response in await asyncio.gather(*tasks))
    assert (fake_ollama.peak_concurrency, fake_ollama.stalled) == (3, 2)


async def test_a_full_queue_of_loads_answers_503() -> None:
    """Only requests that wait for a load are refused, in Ollama's words with two spaces."""
    async with _opened(SimulatedOllama(load_s=0.2, queue_max=1)) as server:
        first = asyncio.create_task(wire.ask(server.port, "POST", "/api/chat", CHAT))
        await server.wait_until(lambda: server.concurrency == 1)
        refused = await wire.ask(server.port, "POST", "/api/chat", CHAT)

        assert (refused.status, refused.header("Content-Type")) == (503, "application/json")
        assert refused.body == b'{"error":"server busy, please try again.  maximum pending requests exceeded"}'
        assert (await first).status == 200


async def test_other_runner_options_load_the_model_again(fake_ollama: FakeOllama) -> None:
    """num_ctx is fixed at load time; temperature is not."""
    for options in ({}, {"temperature": 1}, {"num_ctx": 8192}, {"num_ctx": 8192}, {}):
        await wire.ask(fake_ollama.port, "POST", "/api/chat", CHAT | {"options": options})

    assert fake_ollama.scheduler.loads == 3


async def test_speed_is_as_set() -> None:
    """First token after its delay, the others at their rate."""
    async with _opened(SimulatedOllama(seconds_to_first_token=0.05, tokens_per_second=100, answer_tokens=6)) as server:
        response = await wire.ask(server.port, "POST", "/api/chat", CHAT)

    times = [chunk.at for chunk in response.chunks]
    assert times[5] - times[0] >= 0.045
    assert response.lines()[-1]["prompt_eval_duration"] >= 50e6
    assert response.lines()[-1]["eval_duration"] >= 45e6


@pytest.mark.parametrize("leave", ["half_close", "close", "reset"])
async def test_a_client_that_leaves_cancels_its_request(fake_ollama: FakeOllama, leave: str) -> None:
    """FIN, half FIN and reset all free the slot and are counted."""
    fake_ollama.next(Fault(stall_after_tokens=1))
    async with await wire.connect(fake_ollama.port) as client:
        await client.send(request("POST", "/api/chat", CHAT))
        await client.head()
        await fake_ollama.wait_until(lambda: fake_ollama.stalled == 1)
        getattr(client, leave)()
        await fake_ollama.wait_until(lambda: fake_ollama.aborted == 1 and fake_ollama.concurrency == 0)

    assert (await wire.ask(fake_ollama.port, "POST", "/api/chat", CHAT)).complete


async def test_a_request_that_comes_with_its_fin_is_cancelled_where_it_waits(fake_ollama: FakeOllama) -> None:
    """Request and half-close in one go: Go cancels what has to wait and says 499 into the open half."""
    fake_ollama.next(Fault(stall_after_tokens=0))
    async with await wire.connect(fake_ollama.port) as client:
        client.writer.write(request("POST", "/api/chat", CHAT))
        client.half_close()
        response = await client.response()

    assert (response.status, response.json()) == (499, {"error": "request canceled"})
    assert fake_ollama.aborted == 1


async def test_pipelined_requests_are_served_though_the_client_closed_its_side(fake_ollama: FakeOllama) -> None:
    """Bytes behind a request hide the FIN behind them."""
    async with await wire.connect(fake_ollama.port) as client:
        client.writer.write(request("GET", "/") * 3)
        client.half_close()

        assert (await client.rest()).count(b"Ollama is running") == 3


async def test_requests_are_kept_as_they_came(fake_ollama: FakeOllama) -> None:
    """Raw target, header names in their case and order, body."""
    headers = [("X-b", "1"), ("x-A", "2")]
    await wire.ask(fake_ollama.port, "POST", "/api/chat?a=%3A", json.dumps(CHAT).encode(), headers=headers)

    kept = fake_ollama.requests[-1]
    assert ("/api/chat?a=%3A", json.dumps(CHAT).encode()) == (kept.target, kept.body)
    assert [("Host", "127.0.0.1"), *headers] == kept.headers[:3]
    assert fake_ollama.calls["/api/chat"] == 1


# --- faults ---


async def test_a_fault_meets_the_next_request_only(fake_ollama: FakeOllama) -> None:
    """503 once, then service as usual; other routes are spared."""
    fake_ollama.next(faults.busy())

    assert (await wire.ask(fake_ollama.port, "GET", "/api/tags")).status == 200
    assert (await wire.ask(fake_ollama.port, "POST", "/api/chat", CHAT)).status == 503
    assert (await wire.ask(fake_ollama.port, "POST", "/api/chat", CHAT)).status == 200


async def test_an_error_in_the_middle_is_the_last_line(fake_ollama: FakeOllama) -> None:
    """Two tokens, an error line, a clean end; whole answers get status 500; /v1 gets its bogus chunk."""
    fake_ollama.always(Fault(error_after_tokens=(2, "boom")))
    stream = await wire.ask(fake_ollama.port, "POST", "/api/chat", CHAT)
    whole = await wire.ask(fake_ollama.port, "POST", "/api/chat", CHAT | {"stream": False})
    v1 = await wire.ask(fake_ollama.port, "POST", "/v1/chat/completions", CHAT | {"stream": True})

    assert (len(stream.lines()), stream.lines()[-1], stream.complete) == (3, {"error": "boom"}, True)
    assert (whole.status, whole.json()) == (500, {"error": "boom"})
    last = json.loads(v1.text.strip().split("\n")[-1].removeprefix("data: "))
    assert (last["model"], last["choices"][0]["delta"]) == ("", {"content": ""})
    assert "[DONE]" not in v1.text


async def test_an_error_in_front_has_its_status_and_is_chunked(fake_ollama: FakeOllama) -> None:
    """The first streamed item decides: bare application/json without newline."""
    fake_ollama.next(Fault(error_after_tokens=(0, "no runner")))
    response = await wire.ask(fake_ollama.port, "POST", "/api/chat", CHAT)

    assert (response.status, response.header("Content-Type")) == (500, "application/json")
    assert (response.header("Transfer-Encoding"), response.body) == ("chunked", b'{"error":"no runner"}')


async def test_a_silent_end_has_no_last_line(fake_ollama: FakeOllama) -> None:
    """A clean HTTP end without done:true; whole answers say done:false."""
    fake_ollama.always(Fault(silent_end_after_tokens=2))
    stream = await wire.ask(fake_ollama.port, "POST", "/api/chat", CHAT)
    whole = (await wire.ask(fake_ollama.port, "POST", "/api/chat", CHAT | {"stream": False})).json()

    assert (stream.complete, [line["done"] for line in stream.lines()]) == (True, [False, False])
    assert (whole["done"], "eval_count" in whole) == (False, False)


async def test_a_cut_breaks_a_chunk(fake_ollama: FakeOllama) -> None:
    """The answer ends where it was told to, inside a chunk."""
    fake_ollama.next(Fault(cut_after_bytes=300))
    async with await wire.connect(fake_ollama.port) as client:
        await client.send(request("POST", "/api/chat", CHAT))

        assert len(await client.rest()) == 300


@pytest.mark.parametrize(
    "fault",
    [faults.content_length_too_long(), Fault(cut_after_bytes=400), Fault(cut_after_bytes=160)],
)
async def test_short_answers_are_seen_as_incomplete(fake_ollama: FakeOllama, fault: Fault) -> None:
    """The raw client tells a broken end from a whole one."""
    fake_ollama.next(fault)

    assert not (await wire.ask(fake_ollama.port, "POST", "/api/chat", CHAT)).complete


@pytest.mark.parametrize("framing", faults.POISONED_FRAMINGS)
async def test_a_poisoned_connection_brings_bytes_nobody_asked_for(fake_ollama: FakeOllama, framing: str) -> None:
    """A complete response, then a second one on the idle connection."""
    fake_ollama.next(faults.poisoned_connection(framing))
    async with await wire.connect(fake_ollama.port) as client:
        await client.send(request("POST", "/api/chat", CHAT))
        assert (await client.response()).complete
        await fake_ollama.wait_until(lambda: fake_ollama.poisoned == 1)

        assert (await client.response()).body == faults.EVIL


async def test_a_connection_may_close_right_after_its_answer(fake_ollama: FakeOllama) -> None:
    """The answer promises keep-alive and the connection ends all the same."""
    fake_ollama.next(Fault(close_when_idle=True))
    async with await wire.connect(fake_ollama.port) as client:
        await client.send(request("POST", "/api/chat", CHAT))
        response = await client.response()

        assert (response.complete, response.header("Connection")) == (True, None)
        assert await client.rest() == b""


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        (faults.blank_lines(), lambda r: b"\n\n" in r.body and len(r.lines()) == 13),
        (faults.crlf_lines(), lambda r: r.body.endswith(b"\r\n")),
        (faults.unicode_lines(), lambda r: "\u0085" in r.text and "\u2028" not in r.text and "\u2028" in content(r)),
        (faults.long_line(10_000_000), lambda r: len(content(r)) == 10_000_000),
        (Fault(done_reason="length"), lambda r: r.lines()[-1]["done_reason"] == "length"),
        (Fault(tool_calls_last=({"id": "call_x", "function": {"name": "f", "arguments": {}}},)),
         lambda r: r.lines()[-1]["message"]["tool_calls"][0]["id"] == "call_x"),
        (faults.set_cookie(), lambda r: r.header("Set-Cookie") == "who=upstream; Path=/"),
        (faults.redirect("http://127.0.0.1:1/"), lambda r: r.status == 302),
        (faults.content_length_and_chunked(), lambda r: r.body == b'{"done":true}'),
        (faults.gzip_bomb(1_000_000), lambda r: len(r.body) < 2000 and r.header("Content-Encoding") == "gzip"),
    ],
    ids=["blank", "crlf", "unicode", "long", "length", "tools", "cookie", "redirect", "both framings", "bomb"],
)  # fmt: skip
async def test_other_faults_show_on_the_wire(fake_ollama: FakeOllama, fault: Fault, check: Any) -> None:
    """Each switch does what its name says."""
    fake_ollama.next(fault)

    assert check(await wire.ask(fake_ollama.port, "POST", "/api/chat", CHAT))


async def test_the_last_line_may_be_huge(fake_ollama: FakeOllama) -> None:
    """100,000 ints of context in one line of more than 512 KiB."""
    fake_ollama.next(Fault(context_length=100_000))
    response = await wire.ask(fake_ollama.port, "POST", "/api/generate", GENERATE)

    assert len(response.chunks[-1].data) > 512 * 1024
    assert len(response.lines()[-1]["context"]) == 100_000


async def test_tags_can_be_down_while_the_rest_works(fake_ollama: FakeOllama) -> None:
    """/api/tags drops its connection; a chat is answered; calm() heals."""
    fake_ollama.tags_down()
    async with await wire.connect(fake_ollama.port) as client:
        await client.send(request("GET", "/api/tags"))
        assert await client.rest() == b""
    assert (await wire.ask(fake_ollama.port, "POST", "/api/chat", CHAT)).status == 200
    fake_ollama.calm()

    assert (await wire.ask(fake_ollama.port, "GET", "/api/tags")).status == 200


async def test_garbage_is_no_http(fake_ollama: FakeOllama) -> None:
    """The first line is another protocol's."""
    fake_ollama.next(faults.garbage_status_line())
    async with await wire.connect(fake_ollama.port) as client:
        await client.send(request("POST", "/api/chat", CHAT))

        assert (await client.rest()).startswith(b"SSH-2.0")


async def test_canned_answers_are_for_the_tour() -> None:
    """A function from question to text replaces the fingerprint's words."""
    async with _opened(SimulatedOllama(answers=lambda question: f"You asked: {question}")) as server:
        response = await wire.ask(server.port, "POST", "/api/chat", CHAT)

    assert content(response) == "You asked: why is the sky blue?"
