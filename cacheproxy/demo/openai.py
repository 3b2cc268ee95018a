"""The /v1 routes of the simulated Ollama: OpenAI's chat, completions, embeddings and models.

Requests become the same `Ask` as their native twins (openai/openai.go), so their answers are the same function of it.
"""

from __future__ import annotations

import base64
import json
import random
import struct
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from cacheproxy.demo import asks, gojson
from cacheproxy.demo.asks import Ask, EmbedAsk, RefusedError
from cacheproxy.demo.engine import Engine, Piece
from cacheproxy.demo.gohttp import Exchange
from cacheproxy.demo.gojson import Members, Struct, Where
from cacheproxy.demo.goscan import GoJsonError
from cacheproxy.demo.library import InvalidNameError, Model, parse_reference
from cacheproxy.demo.native import BARE_JSON_TYPE, JSON_TYPE, fold, unit_vectors

EVENT_TYPE = "text/event-stream"
_KINDS = {400: "invalid_request_error", 404: "not_found_error"}


def error_body(status: int, message: str) -> bytes:
    """Return OpenAI's error object."""
    kind = _KINDS.get(status, "api_error")
    return gojson.write({"error": {"message": message, "type": kind, "param": None, "code": None}})


class InvalidRequestError(Exception):
    """The request did not get past the compatibility layer: 400, and framed unlike a handler's error."""


def refuse_request(exchange: Exchange, status: int, message: str) -> None:
    """Answer a request that the compatibility layer could not read."""
    exchange.answer(status, JSON_TYPE, error_body(status, message))


def refuse(exchange: Exchange, status: int, message: str) -> None:
    """Answer an error of the handler behind the compatibility layer."""
    exchange.answer(status, BARE_JSON_TYPE, error_body(status, message) + b"\n")


# --- Reading ---

_string = (gojson.string, "")
_any = (gojson.anything, None)
_number = (gojson.pointer(gojson.decimal), None)
_integer = (gojson.pointer(gojson.integer), None)
_flag = (gojson.pointer(gojson.boolean), None)
_stream_options = (
    gojson.pointer(gojson.structure("openai.StreamOptions", {"include_usage": (gojson.boolean, False)})),
    None,
)
_call_function = gojson.structure("openai.Function", {"name": _string, "arguments": _string})
_tool_call = gojson.structure(
    "openai.ToolCall",
    {"id": _string, "index": (gojson.integer, 0), "type": _string, "function": (_call_function, None)},
)
_message = gojson.structure(
    "openai.Message",
    {
        "role": _string,
        "content": _any,
        "reasoning": _string,
        "tool_calls": (gojson.sequence(_tool_call, "[]openai.ToolCall"), None),
        "name": _string,
        "tool_call_id": _string,
    },
)
_json_schema = gojson.structure("openai.JsonSchema", {"schema": _any})
_response_format = gojson.structure(
    "openai.ResponseFormat", {"type": _string, "json_schema": (gojson.pointer(_json_schema), None)}
)
_sampling = {
    "model": _string,
    "stream": (gojson.boolean, False),
    "stream_options": _stream_options,
    "max_tokens": _integer,
    "seed": _integer,
    "stop": _any,
    "temperature": _number,
    "top_p": _number,
}
_chat_request = gojson.structure(
    "openai.ChatCompletionRequest",
    {
        **_sampling,
        "messages": (gojson.sequence(_message, "[]openai.Message"), None),
        "frequency_penalty": _number,
        "presence_penalty": _number,
        "response_format": (gojson.pointer(_response_format), None),
        "tools": (gojson.sequence(gojson.anything, "[]api.Tool"), None),
        "reasoning": (gojson.pointer(gojson.structure("openai.Reasoning", {"effort": _string})), None),
        "reasoning_effort": (gojson.pointer(gojson.string), None),
        "logprobs": _flag,
        "top_logprobs": (gojson.integer, 0),
    },
)
_completion_request = gojson.structure(
    "openai.CompletionRequest",
    {
        **_sampling,
        "temperature": _number,
        "top_p": (gojson.decimal, 0.0),
        "prompt": _string,
        "suffix": _string,
        "frequency_penalty": (gojson.decimal, 0.0),
        "presence_penalty": (gojson.decimal, 0.0),
        "logprobs": _integer,
    },
)
_embed_request = gojson.structure(
    "openai.EmbedRequest",
    {"model": _string, "input": _any, "dimensions": (gojson.integer, 0), "encoding_format": _string},
)


def _options(fields: Struct) -> dict[str, Any]:
    options: dict[str, Any] = {}
    stop = fields["stop"]
    if isinstance(stop, str):
        options["stop"] = [stop]
    elif isinstance(stop, list):
        options["stop"] = [item for item in stop if isinstance(item, str)]
    if fields["max_tokens"] is not None:
        options["num_predict"] = fields["max_tokens"]
    for name in ("seed", "frequency_penalty", "presence_penalty"):
        if fields[name] is not None:
            options[name] = fields[name]
    options["temperature"] = 1.0 if fields["temperature"] is None else fields["temperature"]
    options["top_p"] = 1.0 if fields["top_p"] is None else fields["top_p"]
    return options


def read_chat(body: bytes) -> tuple[Ask, bool]:
    """Read a chat completion; returns the Ask and whether a usage chunk is wanted."""
    fields: Struct = _chat_request(gojson.read(body), None, Where("ChatCompletionRequest"))
    if not fields["messages"]:
        raise InvalidRequestError("[] is too short - 'messages'")
    messages = [part for message in fields["messages"] for part in _native_messages(message)]
    native = asks.chat_fields(
        model=fields["model"],
        messages=messages,
        format=_format(fields["response_format"]),
        options=_options(fields),
        think=_think(fields),
        tools=fields["tools"],
        logprobs=bool(fields["logprobs"]),
        top_logprobs=fields["top_logprobs"],
    )
    usage = bool(fields["stream_options"] and fields["stream_options"]["include_usage"])
    return asks.chat_ask(native, stream=fields["stream"]), usage


def _format(response_format: Struct | None) -> Any:
    kind = response_format["type"].strip().lower() if response_format else ""
    if kind == "json_object":
        return "json"
    if kind == "json_schema" and response_format and response_format["json_schema"]:
        return response_format["json_schema"]["schema"]
    return None


_EFFORTS: dict[str, bool | str] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "max": "max",
}


def _think(fields: Struct) -> bool | str | None:
    effort = (fields["reasoning"] or {}).get("effort") or fields["reasoning_effort"]
    if not effort:
        return None
    if effort in ("xhigh", "ultra"):
        return "max"
    if effort not in _EFFORTS:
        choices = '"high", "medium", "low", "max", or "none"'
        raise InvalidRequestError(f"invalid reasoning value: '{effort}' (must be {choices})")
    return _EFFORTS[effort]


def _native_messages(message: Struct) -> list[Struct]:
    """Return the native messages of one: each part of an array content becomes a message of its own."""
    same = {"role": message["role"].lower(), "thinking": message["reasoning"]}
    same |= {"tool_name": message["name"], "tool_call_id": message["tool_call_id"]}
    calls = [_native_call(call) for call in message["tool_calls"] or ()] or None
    content = message["content"]
    if isinstance(content, str):
        return [asks.message_fields(**same, content=content, tool_calls=calls)]
    if isinstance(content, list):
        parts = [asks.message_fields(**same, **_part(part)) for part in content]
        if parts and calls:
            parts[-1]["tool_calls"] = calls
        return parts
    if calls is None:
        raise InvalidRequestError("invalid message content type: <nil>")
    return [asks.message_fields(**same, tool_calls=calls)]


def _part(part: Any) -> Struct:
    members = dict(part) if isinstance(part, Members) else {}
    kind = members.get("type")
    if kind == "text" and isinstance(members.get("text"), str):
        return {"content": members["text"]}
    if kind == "image_url":
        given = members.get("image_url")
        url = dict(given).get("url") if isinstance(given, Members) else given
        return {"images": [_image(url)]}
    raise InvalidRequestError("invalid message format")


def _image(url: Any) -> bytes:
    for kind in ("image/jpeg", "image/jpg", "image/png", "image/webp", ""):
        prefix = f"data:{kind};base64,"
        if isinstance(url, str) and url.startswith(prefix):
            try:
                return gojson.base64_decoded(url.removeprefix(prefix))
            except GoJsonError:
                break
    raise InvalidRequestError("invalid image input")


def _native_call(call: Struct) -> Struct:
    function = call["function"] or {"name": "", "arguments": ""}
    try:
        arguments = gojson.read(function["arguments"].encode("utf-8", "surrogatepass"))
    except GoJsonError:
        raise InvalidRequestError("invalid tool call arguments") from None
    return {"id": call["id"], "function": {"index": call["index"], "name": function["name"], "arguments": arguments}}


def read_completion(body: bytes) -> tuple[Ask, bool]:
    """Read a completion; returns the Ask and whether a usage chunk is wanted."""
    fields: Struct = _completion_request(gojson.read(body), None, Where("CompletionRequest"))
    options = _options({**fields, "top_p": fields["top_p"] or 1.0})
    count = fields["logprobs"] or 0
    native = asks.generate_fields(
        model=fields["model"],
        prompt=fields["prompt"],
        suffix=fields["suffix"],
        options=options,
        logprobs=count > 0,
        top_logprobs=max(0, count),
    )
    usage = bool(fields["stream_options"] and fields["stream_options"]["include_usage"])
    return asks.generate_ask(native, stream=fields["stream"]), usage


# --- Writing ---


@dataclass(frozen=True, slots=True)
class _Reply:
    """What all chunks of one reply have in common."""

    ask: Ask
    id: str
    created: int
    usage: bool

    def chunk(self, choices: list[dict[str, Any]], **extra: Any) -> bytes:
        kind = "chat.completion.chunk" if self.ask.family == "chat" else "text_completion"
        return b"data: %b\n\n" % gojson.write({**self.envelope(kind), "choices": choices, **extra})

    def envelope(self, kind: str) -> dict[str, Any]:
        head = {"id": self.id, "object": kind, "created": self.created, "model": self.ask.model}
        return {**head, "system_fingerprint": "fp_ollama"}


def _usage(piece: Piece) -> dict[str, int]:
    metrics = dict(piece.metrics)
    prompt, completion = metrics.get("prompt_eval_count", 0), metrics.get("eval_count", 0)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _calls(piece: Piece) -> list[dict[str, Any]]:
    calls = []
    for call in piece.tool_calls:
        function = call["function"]
        arguments = gojson.write(function["arguments"]).decode()
        body = {"name": function["name"], "arguments": arguments}
        calls.append({"id": call["id"], "index": function["index"], "type": "function", "function": body})
    return calls


def _finish(piece: Piece, *, called: bool) -> str | None:
    if not piece.done_reason:
        return None
    return "tool_calls" if called and piece.done_reason == "stop" else piece.done_reason


def _chat_message(piece: Piece) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": piece.text}
    if piece.thinking:
        message["reasoning"] = piece.thinking
    if piece.tool_calls:
        message["tool_calls"] = _calls(piece)
    return message


def _chat_chunks(reply: _Reply) -> Callable[[Piece], list[bytes]]:
    """Return a function from piece to SSE chunks that remembers whether the role was said and a tool called."""
    said: dict[str, bool] = {}

    def delta(**members: Any) -> bytes:
        role = {} if "role" in said else {"role": "assistant"}
        said["role"] = True
        logprobs = {"logprobs": members.pop("logprobs")} if "logprobs" in members else {}
        choice = {"index": 0, "delta": {**role, **members}, "finish_reason": None, **logprobs}
        return reply.chunk([choice])

    def chunks(piece: Piece) -> list[bytes]:
        out = []
        if piece.thinking:
            out.append(delta(content="", reasoning=piece.thinking))
        if piece.tool_calls:
            said["call"] = True
            out.append(delta(content=piece.text, tool_calls=_calls(piece)))
        elif piece.text or piece.logprobs or (piece.done and "role" not in said):
            extra = {"logprobs": {"content": piece.logprobs}} if piece.logprobs else {}
            out.append(delta(content=piece.text, **extra))
        if piece.done and piece.done_reason:
            finish = {"index": 0, "delta": {}, "finish_reason": _finish(piece, called="call" in said)}
            usage = reply.chunk([], usage=_usage(piece)) if reply.usage else b""
            out.append(reply.chunk([finish]) + usage + b"data: [DONE]\n\n")
        return out

    return chunks


def _completion_chunks(reply: _Reply) -> Callable[[Piece], list[bytes]]:
    """Return a function from piece to SSE chunks of a text completion."""

    def chunks(piece: Piece) -> list[bytes]:
        choice = {"text": piece.text, "index": 0, "finish_reason": piece.done_reason or None}
        zeros = {"usage": _usage(Piece())} if reply.usage else {}
        out = reply.chunk([choice], **zeros)
        if piece.done:
            out += reply.chunk([], usage=_usage(piece)) if reply.usage else b""
            out += b"data: [DONE]\n\n"
        return [out]

    return chunks


async def chat_completions(engine: Engine, exchange: Exchange) -> None:
    """POST /v1/chat/completions."""
    ask, usage = read_chat(await exchange.body())
    model = engine.admit(ask)
    reply = _Reply(ask, f"chatcmpl-{_number_of_reply()}", int(engine.clock.now()), usage)
    if ask.stream:
        await _stream(engine, exchange, reply, model, _chat_chunks(reply))
        return
    last = await fold(engine.run(ask, model, exchange), keep_tools=bool(ask.tools))
    choice = {
        "index": 0,
        "message": _chat_message(last),
        "finish_reason": _finish(last, called=bool(last.tool_calls)),
        **({"logprobs": {"content": last.logprobs}} if last.logprobs else {}),
    }
    body = {**reply.envelope("chat.completion"), "choices": [choice], "usage": _usage(last)}
    exchange.answer(200, BARE_JSON_TYPE, gojson.write(body) + b"\n")


async def completions(engine: Engine, exchange: Exchange) -> None:
    """POST /v1/completions."""
    ask, usage = read_completion(await exchange.body())
    model = engine.admit(ask)
    reply = _Reply(ask, f"cmpl-{_number_of_reply()}", int(engine.clock.now()), usage)
    if ask.is_empty:
        last = Piece(done=True, done_reason=await engine.load(ask, model))
    elif ask.stream:
        await _stream(engine, exchange, reply, model, _completion_chunks(reply))
        return
    else:
        last = await fold(engine.run(ask, model, exchange), keep_tools=False)
    choice = {"text": last.text, "index": 0, "finish_reason": last.done_reason or None}
    body = {**reply.envelope("text_completion"), "choices": [choice], "usage": _usage(last)}
    exchange.answer(200, BARE_JSON_TYPE, gojson.write(body) + b"\n")


def _number_of_reply() -> int:
    return random.randrange(999)  # noqa: S311  # Ollama's own ids are no secrets either


async def _stream(
    engine: Engine, exchange: Exchange, reply: _Reply, model: Model, chunks: Callable[[Piece], list[bytes]]
) -> None:
    """Send SSE; an error in the middle is Ollama's empty-model chunk and a plain end without [DONE]."""
    try:
        async with aclosing(engine.run(reply.ask, model, exchange)) as pieces:
            async for piece in pieces:
                if not exchange.started:
                    exchange.begin(200, EVENT_TYPE)
                for data in chunks(piece):
                    exchange.chunk(data)
                await exchange.drain()
    except RefusedError:
        if not exchange.started:
            raise
        bogus = _Reply(Ask(reply.ask.family, ""), reply.id, reply.created, usage=False)
        exchange.chunk(bogus.chunk([{"index": 0, "delta": {"content": ""}, "finish_reason": None}]))
    if not exchange.started:
        exchange.begin(200, EVENT_TYPE)
    exchange.end()


async def embeddings(engine: Engine, exchange: Exchange) -> None:
    """POST /v1/embeddings: an empty text is embedded, unlike in /api/embed."""
    fields: Struct = _embed_request(gojson.read(await exchange.body()), None, Where("EmbedRequest"))
    given = fields["input"]
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts:
        raise InvalidRequestError("invalid input")
    if not all(isinstance(text, str) for text in texts):
        raise RefusedError(400, "invalid input type")
    encoding = fields["encoding_format"].lower()
    if encoding not in ("", "float", "base64"):
        raise InvalidRequestError(f"Invalid value for 'encoding_format' = {encoding}. Supported: ['float', 'base64'].")
    ask = EmbedAsk(fields["model"], tuple(texts), dimensions=fields["dimensions"])
    vectors = await unit_vectors(engine, exchange, ask)
    rows = ",".join(
        f'{{"object":"embedding","embedding":{_vector(vector, encoding)},"index":{index}}}'
        for index, vector in enumerate(vectors)
    )
    tokens = sum(len(text) // 4 + 1 for text in texts)
    body = f'{{"object":"list","data":[{rows}],"model":{json.dumps(ask.model)},'
    body += f'"usage":{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}}}\n'
    exchange.answer(200, BARE_JSON_TYPE, body.encode())


def _vector(vector: list[float], encoding: str) -> str:
    if encoding == "base64":
        packed = struct.pack(f"<{len(vector)}f", *vector)
        return f'"{base64.b64encode(packed).decode()}"'
    return f"[{','.join(map(gojson.float32_text, vector))}]"


def _model_entry(model: Model) -> dict[str, Any]:
    name = model.name.shortest()
    return {"id": name, "object": "model", "created": int(model.modified_at), "owned_by": model.name.namespace}


async def models(engine: Engine, exchange: Exchange) -> None:
    """GET /v1/models."""
    data = [_model_entry(model) for model in engine.library.newest_first()] or None
    exchange.answer(200, BARE_JSON_TYPE, gojson.write({"object": "list", "data": data}) + b"\n")


async def model_entry(engine: Engine, exchange: Exchange) -> None:
    """GET /v1/models/:model."""
    spelling = exchange.request.path.rpartition("/")[2]
    try:
        model = engine.library.find(parse_reference(spelling))
    except InvalidNameError:
        raise RefusedError(400, "invalid model name") from None
    if model is None:
        raise RefusedError(404, f"model '{spelling}' not found")
    entry = {**_model_entry(model), "id": spelling}
    exchange.answer(200, BARE_JSON_TYPE, gojson.write(entry) + b"\n")
