"""The simulated Ollama's /v1/messages, in Anthropic's form, and what /v1/responses shares with it.

Text, thinking and tools, whole and streamed, with the event order, ids and headers of the real one; images, files and
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
from cacheproxy.demo.gojson import Members
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


def read_messages(body: bytes) -> Ask:
    """Read a body of /v1/messages."""
    fields = members_of(gojson.read(body))
    limit = fields.get("max_tokens")
    if type(limit) is not int or limit <= 0:
        raise InvalidRequestError("max_tokens is required and must be positive")
    if not fields.get("messages"):
        raise InvalidRequestError("messages is required")
    options = {"num_predict": limit}
    options |= {name: fields[name] for name in ("temperature", "top_p", "top_k") if fields.get(name) is not None}
    options |= {"stop": fields["stop_sequences"]} if fields.get("stop_sequences") else {}
    system = joined(fields.get("system"))
    messages = [asks.message_fields(role="system", content=system)] if system else []
    messages += [message for turn in objects(fields["messages"]) for message in _native_messages(turn)]
    tools = [
        native_tool(tool.get("name"), tool.get("description"), tool.get("input_schema"))
        for tool in objects(fields.get("tools"))
    ]
    native = asks.chat_fields(
        model=str(fields.get("model") or ""),
        messages=messages,
        options=options,
        think=_think(fields),
        tools=tools,
    )
    return asks.chat_ask(native, stream=fields.get("stream") is True)


def _think(fields: dict[str, Any]) -> bool | str | None:
    kind = members_of(fields.get("thinking")).get("type")
    if kind in ("enabled", "disabled"):
        return bool(kind == "enabled")
    effort = members_of(fields.get("output_config")).get("effort")
    return _EFFORTS.get(str(effort).strip().lower())


def _native_messages(turn: dict[str, Any]) -> list[dict[str, Any]]:
    role, content = str(turn.get("role", "")).lower(), turn.get("content")
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else objects(content)
    calls = [_native_call(block) for block in blocks if block.get("type") == "tool_use"]
    said = asks.message_fields(
        role=role,
        content="".join(block.get("text", "") for block in blocks if block.get("type") == "text"),
        thinking="".join(block.get("thinking", "") for block in blocks if block.get("type") == "thinking"),
        tool_calls=calls or None,
    )
    results = [
        asks.message_fields(role="tool", content=joined(block.get("content")), tool_call_id=block.get("tool_use_id"))
        for block in blocks
        if block.get("type") == "tool_result"
    ]
    own = [said] if said["content"] or said["thinking"] or calls else []
    return results + own if role == "user" else own + results


def _native_call(block: dict[str, Any]) -> dict[str, Any]:
    function = {"index": 0, "name": block.get("name"), "arguments": block.get("input")}
    return {"id": block.get("id"), "function": function}


def estimated_tokens(body: bytes) -> int:
    """Return what a stream says of the prompt before it is read: a quarter of its bytes."""
    fields = members_of(gojson.read(body))
    size = _size(fields.get("system"))
    for turn in objects(fields.get("messages")):
        size += len(str(turn.get("role", "")).encode()) + _size(turn.get("content"))
    for tool in objects(fields.get("tools")):
        size += len(str(tool.get("name", "")).encode()) + len(str(tool.get("description") or "").encode())
        size += len(gojson.write(plain(tool["input_schema"]))) if "input_schema" in tool else 0
    return max(1, size // 4)


def _size(content: Any) -> int:
    if isinstance(content, str):
        return len(content.encode())
    size = 0
    for block in objects(content):
        size += len(block.get("text", "").encode()) + len(block.get("thinking", "").encode())
        if block.get("type") in ("tool_use", "tool_result"):
            known = ("type", "text", "id", "name", "input", "tool_use_id", "content", "is_error")
            size += len(gojson.write({name: plain(block[name]) for name in known if block.get(name)}))
    return size


# --- Writing ---


async def messages(engine: Engine, exchange: Exchange) -> None:
    """POST /v1/messages."""
    body = await exchange.body()
    ask = read_messages(body)
    model = engine.admit(ask, relax_thinking=True)
    head = {"id": f"msg_{secrets.token_hex(12)}", "type": "message", "role": "assistant", "model": ask.model}
    pieces = engine.run(ask, model, exchange)
    if ask.stream:
        await send(exchange, pieces, _MessageEvents(head, estimated_tokens(body)))
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
