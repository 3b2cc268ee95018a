"""The simulated Ollama's /v1/messages, in Anthropic's form, and what /v1/responses shares with it.

Text, images, thinking and tools, whole and streamed, with the event order, ids and headers of the real one; files and
web search are not read. The answers are a function of the native request they become.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from cacheproxy.demo import asks, gojson
from cacheproxy.demo.asks import Ask, RefusedError
from cacheproxy.demo.engine import Engine, Piece
from cacheproxy.demo.gohttp import Exchange
from cacheproxy.demo.gojson import Members, Struct, Where
from cacheproxy.demo.goscan import GoJsonError
from cacheproxy.demo.native import BARE_JSON_TYPE, fold
from cacheproxy.demo.openai import EVENT_TYPE, InvalidRequestError

_STREAM_HEADERS = [("Cache-Control", "no-cache"), ("Connection", "keep-alive")]
_KINDS = {400: "invalid_request_error", 404: "not_found_error", 503: "overloaded_error"}
_EFFORTS = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "max"}
_USAGE = (("input_tokens", "prompt_eval_count"), ("output_tokens", "eval_count"))


def refuse_messages(exchange: Exchange, status: int, message: str) -> None:
    """Answer with Anthropic's error object."""
    error = {"type": _KINDS.get(status, "api_error"), "message": message}
    body = {"type": "error", "error": error, "request_id": f"req_{secrets.token_hex(12)}"}
    exchange.answer(status, BARE_JSON_TYPE, gojson.write(body) + b"\n")


# --- Shared with /v1/responses ---


def members_of(given: Any) -> dict[str, Any]:
    """Return an object's members, the last of equal names; none for any other value."""
    return dict(given) if isinstance(given, Members) else {}


def objects(given: Any) -> list[dict[str, Any]]:
    """Return the objects of a list."""
    return [dict(item) for item in given if isinstance(item, Members)] if isinstance(given, list) else []


def plain(value: Any) -> Any:
    """Return a value that was read as one that can be written: objects with their members in order."""
    if isinstance(value, Members):
        return {name: plain(member) for name, member in value}
    return [plain(item) for item in value] if isinstance(value, list) else value


def joined(given: Any) -> str:
    """Return a text, or the texts of blocks without anything between them."""
    if isinstance(given, str):
        return given
    return "".join(block["text"] for block in objects(given) if isinstance(block.get("text"), str))


def native_tool(name: Any, description: Any, parameters: Any) -> Members:
    """Return a tool as /api/chat gets it."""
    about = [("description", description)] if description else []
    function = Members([("name", name), *about, ("parameters", parameters)])
    return Members([("type", "function"), ("function", function)])


def tokens(piece: Piece) -> dict[str, int]:
    """Return the usage of a last piece."""
    metrics = dict(piece.metrics)
    return {name: metrics.get(count, 0) for name, count in _USAGE}


def event(kind: str, members: dict[str, Any]) -> bytes:
    """Return one event of a stream."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), gojson.write(members))


async def send(exchange: Exchange, pieces: AsyncGenerator[Piece, None], events: Callable[[Piece], list[bytes]]) -> None:
    """Send events one a chunk; after an error in the middle the stream just stops."""
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                if not exchange.started:
                    exchange.begin(200, EVENT_TYPE, extra=_STREAM_HEADERS)
                for data in events(piece):
                    exchange.chunk(data)
                await exchange.drain()
    except RefusedError:
        if not exchange.started:
            raise
    if not exchange.started:
        exchange.begin(200, EVENT_TYPE, extra=_STREAM_HEADERS)
    exchange.end()


# --- Reading ---


_string = (gojson.string, "")
_text = (gojson.pointer(gojson.string), None)
_number = (gojson.pointer(gojson.decimal), None)
_any = (gojson.anything, None)
_ABSENT = object()

_source = gojson.structure(
    "anthropic.ImageSource", {"type": _string, "media_type": _string, "data": _string, "url": _string}
)
_block = gojson.structure(
    "anthropic.ContentBlock",
    {
        "type": _string,
        "text": _text,
        "citations": (gojson.sequence(gojson.anything, "[]anthropic.Citation"), None),
        "source": (gojson.pointer(_source), None),
        "id": _string,
        "name": _string,
        "input": _any,
        "tool_use_id": _string,
        "content": _any,
        "is_error": (gojson.boolean, False),
        "thinking": _text,
        "signature": _string,
    },
)
_blocks = gojson.sequence(_block, "[]anthropic.ContentBlock")
_turn_members = gojson.structure("", {"role": _string, "content": (gojson.anything, _ABSENT)})
_tool = gojson.structure(
    "anthropic.Tool",
    {"type": _string, "name": _string, "description": _string, "input_schema": _any, "max_uses": (gojson.integer, 0)},
)
_choice = gojson.structure(
    "anthropic.ToolChoice",
    {"type": _string, "name": _string, "disable_parallel_tool_use": (gojson.boolean, False)},
)
_thinking = gojson.structure("anthropic.ThinkingConfig", {"type": _string, "budget_tokens": (gojson.integer, 0)})


def _turn(value: Any, _old: Any, where: Where) -> Any:
    # anthropic.MessageParam has an UnmarshalJSON of its own: a text becomes a block, and null an empty text.
    turn: Struct = _turn_members(value, None, where.pin())
    content = turn["content"]
    if content is _ABSENT:
        raise GoJsonError("unexpected end of JSON input")
    if content is None or isinstance(content, str):
        content = [Members([("type", "text"), ("text", content or "")])]
    return {"role": turn["role"], "content": _blocks(content, None, where.pin())}


_request = gojson.structure(
    "anthropic.MessagesRequest",
    {
        "model": _string,
        "max_tokens": (gojson.integer, 0),
        "messages": (gojson.sequence(_turn, "[]anthropic.MessageParam"), None),
        "system": _any,
        "stream": (gojson.boolean, False),
        "temperature": _number,
        "top_p": _number,
        "top_k": (gojson.pointer(gojson.integer), None),
        "stop_sequences": (gojson.sequence(gojson.string, "[]string", ""), None),
        "tools": (gojson.sequence(_tool, "[]anthropic.Tool"), None),
        "tool_choice": (gojson.pointer(_choice), None),
        "thinking": (gojson.pointer(_thinking), None),
        "metadata": (gojson.pointer(gojson.structure("anthropic.Metadata", {"user_id": _string})), None),
        "output_config": (gojson.pointer(gojson.structure("anthropic.OutputConfig", {"effort": _string})), None),
    },
)


def read_messages(body: bytes) -> Ask:
    """Read a body of /v1/messages."""
    return _ask(_fields(body))


def _fields(body: bytes) -> Struct:
    fields: Struct = _request(gojson.read(body), None, Where("MessagesRequest"))
    return fields


def _ask(fields: Struct) -> Ask:
    if fields["max_tokens"] <= 0:
        raise InvalidRequestError("max_tokens is required and must be positive")
    if not fields["messages"]:
        raise InvalidRequestError("messages is required")
    options = {"num_predict": fields["max_tokens"]}
    options |= {name: fields[name] for name in ("temperature", "top_p", "top_k") if fields[name] is not None}
    options |= {"stop": fields["stop_sequences"]} if fields["stop_sequences"] else {}
    system = joined(fields["system"])
    messages = [asks.message_fields(role="system", content=system)] if system else []
    messages += [message for turn in fields["messages"] for message in _native_messages(turn)]
    native = asks.chat_fields(
        model=fields["model"],
        messages=messages,
        options=options,
        think=_think(fields),
        tools=[native_tool(tool["name"], tool["description"], tool["input_schema"]) for tool in fields["tools"] or ()],
    )
    return asks.chat_ask(native, stream=fields["stream"])


def _think(fields: Struct) -> bool | str | None:
    kind = (fields["thinking"] or {}).get("type")
    if kind in ("enabled", "disabled"):
        return bool(kind == "enabled")
    effort = (fields["output_config"] or {}).get("effort", "")
    return _EFFORTS.get(effort.strip().lower())


def _native_messages(turn: Struct) -> list[Struct]:
    role, blocks = turn["role"].lower(), turn["content"] or ()
    calls = [_native_call(block) for block in blocks if block["type"] == "tool_use"]
    said = asks.message_fields(
        role=role,
        content="".join(block["text"] or "" for block in blocks if block["type"] == "text"),
        images=[_image(block["source"]) for block in blocks if block["type"] == "image"],
        thinking="".join(block["thinking"] or "" for block in blocks if block["type"] == "thinking"),
        tool_calls=calls or None,
    )
    results = [
        asks.message_fields(role="tool", content=joined(block["content"]), tool_call_id=block["tool_use_id"])
        for block in blocks
        if block["type"] == "tool_result"
    ]
    own = [said] if said["content"] or said["images"] or said["thinking"] or calls else []
    return results + own if role == "user" else own + results


def _image(source: Struct | None) -> bytes:
    if source is None:
        raise InvalidRequestError("invalid image source")
    if source["type"] != "base64":
        kind = source["type"]
        raise InvalidRequestError(f"invalid image source type: {kind}. Only base64 images are supported.")
    try:
        return gojson.base64_decoded(source["data"])
    except GoJsonError as error:
        raise InvalidRequestError(f"invalid base64 image data: {error}") from None


def _native_call(block: Struct) -> Struct:
    function = {"index": 0, "name": block["name"], "arguments": block["input"]}
    return {"id": block["id"], "function": function}


def _estimated_tokens(fields: Struct) -> int:
    """Return what a stream says of the prompt before it is read: a quarter of its bytes."""
    size = len(joined(fields["system"]).encode())
    for turn in fields["messages"]:
        size += len(turn["role"].encode()) + sum(map(_size, turn["content"] or ()))
    for tool in fields["tools"] or ():
        size += len(tool["name"].encode()) + len(tool["description"].encode())
        size += len(gojson.write(plain(tool["input_schema"]))) if tool["input_schema"] is not None else 0
    return max(1, size // 4)


def _size(block: Struct) -> int:
    size = len((block["text"] or "").encode()) + len((block["thinking"] or "").encode())
    if block["type"] in ("tool_use", "tool_result"):
        size += len(gojson.write({name: plain(value) for name, value in block.items() if value}))
    return size


# --- Writing ---


async def messages(engine: Engine, exchange: Exchange) -> None:
    """POST /v1/messages."""
    fields = _fields(await exchange.body())
    ask = _ask(fields)
    model = engine.admit(ask, relax_thinking=True)
    head = {"id": f"msg_{secrets.token_hex(12)}", "type": "message", "role": "assistant", "model": ask.model}
    pieces = engine.run(ask, model, exchange)
    if ask.stream:
        await send(exchange, pieces, _MessageEvents(head, _estimated_tokens(fields)))
        return
    last = await fold(pieces, keep_tools=bool(ask.tools))
    blocks: list[dict[str, Any]] = [{"type": "thinking", "thinking": last.thinking}] if last.thinking else []
    blocks += [{"type": "text", "text": last.text}] if last.text else []
    blocks += [_tool_use(call, call["function"]["arguments"]) for call in last.tool_calls]
    stop = _stop(last, called=bool(last.tool_calls))
    reply = {**head, "content": blocks or None, **stop, "usage": tokens(last)}
    exchange.answer(200, BARE_JSON_TYPE, gojson.write(reply) + b"\n")


def _tool_use(call: dict[str, Any], arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": arguments}


def _stop(piece: Piece, *, called: bool) -> dict[str, Any]:
    if called:
        return {"stop_reason": "tool_use"}
    reasons = {"stop": "end_turn", "length": "max_tokens"}
    return {"stop_reason": reasons.get(piece.done_reason, "stop_sequence")} if piece.done_reason else {}


class _MessageEvents:
    """From piece to events; remembers which block is open."""

    def __init__(self, head: dict[str, Any], estimate: int) -> None:
        self.head = head
        self.estimate = estimate
        self.started = False
        self.open = ""
        self.index = 0
        self.called = False

    def __call__(self, piece: Piece) -> list[bytes]:
        out = [] if self.started else [self._start(piece)]
        self.started = True
        if piece.thinking:
            out += self._said("thinking", piece.thinking)
        if piece.text:
            out += self._said("text", piece.text)
        for call in piece.tool_calls:
            self.called = True
            out += [*self._close(), self._block(_tool_use(call, {}))]
            arguments = gojson.write(call["function"]["arguments"]).decode()
            out.append(self._delta({"type": "input_json_delta", "partial_json": arguments}))
            self.open = "tool_use"
            out += self._close()
        if piece.done:
            out += self._close()
            stop = _stop(piece, called=self.called)
            out.append(event("message_delta", {"type": "message_delta", "delta": stop, "usage": tokens(piece)}))
            out.append(event("message_stop", {"type": "message_stop"}))
        return out

    def _start(self, piece: Piece) -> bytes:
        known = tokens(piece)["input_tokens"] or self.estimate
        message = {**self.head, "content": [], "usage": {"input_tokens": known, "output_tokens": 0}}
        return event("message_start", {"type": "message_start", "message": message})

    def _said(self, kind: str, said: str) -> list[bytes]:
        begun = [] if self.open == kind else [*self._close(), self._block({"type": kind, kind: ""})]
        self.open = kind
        return [*begun, self._delta({"type": f"{kind}_delta", kind: said})]

    def _block(self, block: dict[str, Any]) -> bytes:
        members = {"type": "content_block_start", "index": self.index, "content_block": block}
        return event("content_block_start", members)

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return event("content_block_delta", {"type": "content_block_delta", "index": self.index, "delta": delta})

    def _close(self) -> list[bytes]:
        if not self.open:
            return []
        self.open = ""
        self.index += 1
        return [event("content_block_stop", {"type": "content_block_stop", "index": self.index - 1})]
