"""`/v1/messages`, written: an `Answer`, or the chunks of one under way, to bytes in Anthropic's form.

Called through `wire/messages.py`, the dialect. Refuses to know how a request is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cacheproxy.model import Answer, Ask, JSONObject
from cacheproxy.wire import events, native
from cacheproxy.wire.jsontext import write, write_go
from cacheproxy.wire.openai import Members

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens"}
_BYTES_A_TOKEN = 4
"""Ollama's own estimate of the prompt's tokens, which a stream begins with: it is not known yet."""


def whole(ask: Ask, answer: Answer, now: float) -> bytes:
    """The reply without `stream`: one object and a line end. `now`: Unix time, s."""
    blocks: list[Members] = [{"type": "thinking", "thinking": answer.thinking}] if answer.thinking else []
    if answer.text:
        blocks.append({"type": "text", "text": answer.text})
    blocks += [_block(call) | {"input": events.arguments(call)} for call in answer.tool_calls]
    ending = _ending(answer.done_reason, called=bool(answer.tool_calls))
    told = {"content": blocks or None, **ending, "usage": events.usage(answer.final)}
    return write(_head(ask, now) | told) + b"\n"


def stream(ask: Ask, answer: Answer, now: float) -> Iterator[bytes]:
    """The reply to `stream: true`; the last events leave together."""
    return filter(None, map(relay(ask, now), native.chunks(native.CHAT, answer)))


def relay(ask: Ask, now: float) -> Callable[[Mapping[str, Any]], bytes]:
    """Writer of this caller's events from the chunks of an equal ask, in order. `now`: Unix time, s."""
    return _Events(ask, now)


class _Events:
    """Events of one stream: which block is open, and which tools were called."""

    def __init__(self, ask: Ask, now: float) -> None:
        self._ask = ask
        self._head = _head(ask, now)
        self._started = False
        self._thought = False
        self._open = ""
        self._index = 0
        self._called: set[str] = set()

    def __call__(self, chunk: Mapping[str, Any]) -> bytes:
        """The events of one native chunk. None for an error: Ollama's own stream just stops there."""
        if "error" in chunk:
            return b""
        text, thinking, calls = native.CHAT.parts(chunk)
        told = b"" if self._started else self._start(chunk)
        if thinking and not self._thought:
            told += self._said("thinking", thinking)
        if text:
            told += self._said("text", text)
        for call in calls:
            told += self._call(call)
        return told + (self._end(chunk) if chunk.get("done") is True else b"")

    def _start(self, chunk: Mapping[str, Any]) -> bytes:
        self._started = True
        tokens = chunk.get("prompt_eval_count") or estimated_tokens(self._ask.echo)
        message = {**self._head, "content": [], "usage": {"input_tokens": tokens, "output_tokens": 0}}
        return _event("message_start", message=message)

    def _said(self, kind: str, said: str) -> bytes:
        begun = b""
        if self._open != kind:
            begun = self._close() + self._begin({"type": kind, kind: ""})
            self._open = kind
        return begun + self._delta({"type": f"{kind}_delta", kind: said})

    def _call(self, call: JSONObject) -> bytes:
        if call.get("id", "") in self._called:
            return b""
        self._called.add(call.get("id", ""))
        closed = self._close()
        self._open = "tool_use"
        begun = self._begin(_block(call) | {"input": {}})
        text = write_go(events.arguments(call)).decode()
        return closed + begun + self._delta({"type": "input_json_delta", "partial_json": text}) + self._close()

    def _begin(self, block: Members) -> bytes:
        return _event("content_block_start", index=self._index, content_block=block)

    def _delta(self, delta: Members) -> bytes:
        return _event("content_block_delta", index=self._index, delta=delta)

    def _close(self) -> bytes:
        """End the open block, if there is one. Thinking that comes after text or a call is not told."""
        if not self._open:
            return b""
        closed = _event("content_block_stop", index=self._index)
        self._thought = self._thought or self._open == "thinking"
        self._open = ""
        self._index += 1
        return closed

    def _end(self, chunk: Mapping[str, Any]) -> bytes:
        ending = _ending(str(chunk.get("done_reason", "")), called=bool(self._called))
        told = _event("message_delta", delta=ending, usage=events.usage(chunk))
        return self._close() + told + _event("message_stop")


def _event(kind: str, **members: Any) -> bytes:
    return events.event(kind, {"type": kind, **members})


def _head(ask: Ask, now: float) -> Members:
    message_id = hashlib.blake2b(repr(now).encode(), digest_size=12).hexdigest()  # Ollama's own is a random number
    return {"id": f"msg_{message_id}", "type": "message", "role": "assistant", "model": ask.model}


def _block(call: JSONObject) -> Members:
    return {"type": "tool_use", "id": call.get("id", ""), "name": (call.get("function") or {}).get("name", "")}


def _ending(done_reason: str, *, called: bool) -> Members:
    if called:
        return {"stop_reason": "tool_use"}
    return {"stop_reason": _STOP_REASONS.get(done_reason, "stop_sequence")} if done_reason else {}


def estimated_tokens(echo: JSONObject) -> int:
    """Ollama's estimate of the prompt, at least 1: a quarter of the bytes of roles, texts, tools and their results."""
    size_bytes = _size_bytes(echo.get("system", ""))
    for turn in echo.get("messages", ()):
        size_bytes += len(str(turn.get("role", "")).encode()) + _size_bytes(turn.get("content", ""))
    for tool in echo.get("tools", ()):
        texts = (tool.get("name") or "", tool.get("description") or "")
        size_bytes += sum(len(str(text).encode()) for text in texts)
        size_bytes += len(write_go(tool["input_schema"])) if "input_schema" in tool else 0
    return max(1, size_bytes // _BYTES_A_TOKEN)


def _size_bytes(content: object) -> int:
    if isinstance(content, str):
        return len(content.encode())
    return sum(map(_block_bytes, content)) if isinstance(content, list) else 0


_BLOCK_MEMBERS = ("type", "text", "id", "name", "input", "tool_use_id", "content", "is_error", "thinking", "signature")


def _block_bytes(block: object) -> int:
    if not isinstance(block, dict):
        return 0
    size_bytes = sum(len(str(block[name]).encode()) for name in ("text", "thinking") if name in block)
    if block.get("type") in ("tool_use", "tool_result"):
        size_bytes += len(write_go({name: block[name] for name in _BLOCK_MEMBERS if block.get(name)}))
    return size_bytes
