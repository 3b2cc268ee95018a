"""The simulated Ollama's /v1/messages (Anthropic) and /v1/responses (OpenAI), as far as a relay needs them.

Minimal on purpose: text and thinking, whole and streamed, with the event order, ids and headers of the real ones.
Tools, images, files and zstd bodies are not read; the answers are still a function of the native request they become.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from cacheproxy.demo import asks, gojson
from cacheproxy.demo.asks import Ask, RefusedError
from cacheproxy.demo.engine import Engine, Piece, prompt_token_count
from cacheproxy.demo.gohttp import Exchange
from cacheproxy.demo.gojson import Members
from cacheproxy.demo.native import BARE_JSON_TYPE, fold
from cacheproxy.demo.openai import EVENT_TYPE, InvalidRequestError

_STREAM_HEADERS = [("Cache-Control", "no-cache"), ("Connection", "keep-alive")]
_KINDS = {400: "invalid_request_error", 404: "not_found_error", 503: "overloaded_error"}


def refuse_messages(exchange: Exchange, status: int, message: str) -> None:
    """Answer with Anthropic's error object."""
    error = {"type": _KINDS.get(status, "api_error"), "message": message}
    body = {"type": "error", "error": error, "request_id": f"req_{secrets.token_hex(12)}"}
    exchange.answer(status, BARE_JSON_TYPE, gojson.write(body) + b"\n")


def _joined(given: Any) -> str:
    """Return a text, or the texts of blocks without anything between them."""
    if isinstance(given, str):
        return given
    blocks = _objects(given)
    return "".join(block["text"] for block in blocks if isinstance(block.get("text"), str))


def _objects(given: Any) -> list[dict[str, Any]]:
    return [dict(item) for item in given if isinstance(item, Members)] if isinstance(given, list) else []


def _messages(system: Any, given: Any) -> list[dict[str, Any]]:
    turns = _objects(given)
    messages = [{"role": str(turn.get("role", "")).lower(), "content": _joined(turn.get("content"))} for turn in turns]
    first = [{"role": "system", "content": text}] if (text := _joined(system)) else []
    return [asks.message_fields(**message) for message in [*first, *messages]]


def read_messages(body: bytes) -> Ask:
    """Read a body of /v1/messages."""
    value = gojson.read(body)
    fields = dict(value) if isinstance(value, Members) else {}
    limit = fields.get("max_tokens")
    if type(limit) is not int or limit <= 0:
        raise InvalidRequestError("max_tokens is required and must be positive")
    options = {"num_predict": limit}
    options |= {name: fields[name] for name in ("temperature", "top_p", "top_k") if fields.get(name) is not None}
    options |= {"stop": fields["stop_sequences"]} if fields.get("stop_sequences") else {}
    thinking = fields.get("thinking")
    kind = dict(thinking).get("type") if isinstance(thinking, Members) else None
    think = {"enabled": True, "disabled": False}.get(str(kind))
    messages = _messages(fields.get("system"), fields.get("messages"))
    native = asks.chat_fields(model=str(fields.get("model") or ""), messages=messages, options=options, think=think)
    return asks.chat_ask(native, stream=fields.get("stream") is True)


def read_responses(body: bytes) -> Ask:
    """Read a body of /v1/responses."""
    value = gojson.read(body)
    fields = dict(value) if isinstance(value, Members) else {}
    given = fields.get("input")
    turns = [Members([("role", "user"), ("content", given)])] if isinstance(given, str) else given
    options: dict[str, Any] = {"temperature": 1.0 if fields.get("temperature") is None else fields["temperature"]}
    options |= {"num_predict": fields["max_output_tokens"]} if fields.get("max_output_tokens") else {}
    messages = _messages(fields.get("instructions"), turns)
    native = asks.chat_fields(model=str(fields.get("model") or ""), messages=messages, options=options)
    return asks.chat_ask(native, stream=fields.get("stream") is True)


def _event(kind: str, **members: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), gojson.write({"type": kind, **members}))


async def _send(exchange: Exchange, events: AsyncGenerator[bytes, None]) -> None:
    """Send events one a chunk; after an error in the middle the stream just stops."""
    try:
        async with aclosing(events):
            async for event in events:
                if not exchange.started:
                    exchange.begin(200, EVENT_TYPE, extra=_STREAM_HEADERS)
                exchange.chunk(event)
                await exchange.drain()
    except RefusedError:
        if not exchange.started:
            raise
    exchange.end()


def _stop_reason(piece: Piece) -> str:
    return "max_tokens" if piece.done_reason == "length" else "end_turn"


async def messages(engine: Engine, exchange: Exchange) -> None:
    """POST /v1/messages."""
    ask = read_messages(await exchange.body())
    model = engine.admit(ask, relax_thinking=True)
    head = {"id": f"msg_{secrets.token_hex(12)}", "type": "message", "role": "assistant", "model": ask.model}
    pieces = engine.run(ask, model, exchange)
    if ask.stream:
        await _send(exchange, _message_events(ask, head, pieces))
        return
    last = await fold(pieces, keep_tools=False)
    blocks = [{"type": "thinking", "thinking": last.thinking}] if last.thinking else []
    blocks += [{"type": "text", "text": last.text}] if last.text else []
    metrics = dict(last.metrics)
    usage = {"input_tokens": metrics.get("prompt_eval_count", 0), "output_tokens": metrics.get("eval_count", 0)}
    body = {**head, "content": blocks, "stop_reason": _stop_reason(last), "usage": usage}
    exchange.answer(200, BARE_JSON_TYPE, gojson.write(body) + b"\n")


async def _message_events(
    ask: Ask, head: dict[str, Any], pieces: AsyncGenerator[Piece, None]
) -> AsyncGenerator[bytes, None]:
    index, kind = -1, ""
    async with aclosing(pieces):
        async for piece in pieces:
            if index < 0:
                index = 0
                usage = {"input_tokens": prompt_token_count(ask), "output_tokens": 0}
                yield _event("message_start", message={**head, "content": [], "usage": usage})
            if piece.done:
                if kind:
                    yield _event("content_block_stop", index=index)
                metrics = dict(piece.metrics)
                usage = {name: metrics.get(count, 0) for name, count in _USAGE}
                yield _event("message_delta", delta={"stop_reason": _stop_reason(piece)}, usage=usage)
                yield _event("message_stop")
                return
            wanted = "thinking" if piece.thinking else "text"
            if wanted != kind:
                if kind:
                    yield _event("content_block_stop", index=index)
                    index += 1
                kind = wanted
                yield _event("content_block_start", index=index, content_block={"type": kind, kind: ""})
            delta = {"type": f"{kind}_delta", kind: piece.thinking or piece.text}
            yield _event("content_block_delta", index=index, delta=delta)


_USAGE = (("input_tokens", "prompt_eval_count"), ("output_tokens", "eval_count"))


def _response(ask: Ask, identity: str, created: int, last: Piece | None) -> dict[str, Any]:
    body: dict[str, Any] = {"id": identity, "object": "response", "created_at": created, "model": ask.model}
    if last is None:
        return {**body, "status": "in_progress", "output": []}
    part = {"type": "output_text", "text": last.text, "annotations": []}
    item = {"id": f"msg_{identity[5:]}", "type": "message", "status": "completed", "role": "assistant"}
    metrics = dict(last.metrics)
    usage = {name: metrics.get(count, 0) for name, count in _USAGE}
    usage["total_tokens"] = sum(usage.values())
    return {**body, "status": "completed", "output": [{**item, "content": [part]}], "usage": usage}


async def responses(engine: Engine, exchange: Exchange) -> None:
    """POST /v1/responses."""
    ask = read_responses(await exchange.body())
    model = engine.admit(ask, relax_thinking=True)
    identity, created = f"resp_{secrets.token_hex(12)}", int(engine.clock.now())
    pieces = engine.run(ask, model, exchange)
    if ask.stream:
        await _send(exchange, _response_events(ask, identity, created, pieces))
        return
    last = await fold(pieces, keep_tools=False)
    body = _response(ask, identity, created, last)
    exchange.answer(200, BARE_JSON_TYPE, gojson.write(body) + b"\n")


async def _response_events(
    ask: Ask, identity: str, created: int, pieces: AsyncGenerator[Piece, None]
) -> AsyncGenerator[bytes, None]:
    text: list[str] = []
    number = 0
    async with aclosing(pieces):
        async for piece in pieces:
            if number == 0:
                begun = _response(ask, identity, created, None)
                yield _event("response.created", response=begun, sequence_number=number)
            number += 1
            if piece.text:
                text.append(piece.text)
                yield _event("response.output_text.delta", delta=piece.text, sequence_number=number)
            if piece.done:
                whole = Piece(text="".join(text), done=True, metrics=piece.metrics)
                ended = _response(ask, identity, created, whole)
                yield _event("response.completed", response=ended, sequence_number=number)
