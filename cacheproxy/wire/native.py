"""What Ollama's two native dialects share: chunks, their folding into an answer, and its replay.

A chat chunk carries its text in `message.content`, a generate chunk in `response`; `Shape` says where, and everything
else is the same code. Folding follows Ollama's own server (writeChatResponse: text, thinking and logprobs joined over
the chunks, tool calls joined if the request had tools, every other member from the last chunk), so an answer stored
from a stream and one stored whole are one thing.

Refuses to decide whether an answer may be kept (rules/keep.py), and to know HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from cacheproxy.model import Answer, Ask, JSONObject
from cacheproxy.wire.jsontext import write

PIECE_CHARACTERS = 2048
"""Text in one replayed chunk: below 64 KiB as a line even if each character is escaped (asyncio's default limit)."""
LOGPROBS_A_CHUNK = 32
"""Tokens' logprobs in one replayed chunk: 20 alternatives of 100 bytes each stay below the same 64 KiB."""


class Shape(Protocol):
    """Where a dialect keeps the parts of a reply."""

    def chunk(self, text: str, thinking: str, tool_calls: tuple[JSONObject, ...]) -> dict[str, Any]:
        """The members that carry these parts, in Ollama's order."""
        ...

    def parts(self, chunk: Mapping[str, Any]) -> tuple[str, str, list[JSONObject]]:
        """Text, thinking and tool calls of a chunk. Raises ValueError for a chunk of another form."""
        ...

    def ending(self, answer: Answer) -> dict[str, Any]:
        """The members of the last chunk from `done` on, in Ollama's order."""
        ...

    def whole(self, answer: Answer) -> dict[str, Any]:
        """All members of an unstreamed reply after the model's name and the time, in Ollama's order."""
        ...


@dataclass(frozen=True, slots=True)
class ChatShape:
    """`/api/chat`: everything sits in `message`."""

    def chunk(self, text: str, thinking: str, tool_calls: tuple[JSONObject, ...]) -> dict[str, Any]:
        """`{"message": {"role", "content"[, "thinking"][, "tool_calls"]}}`."""
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if thinking:
            message["thinking"] = thinking
        if tool_calls:
            message["tool_calls"] = tool_calls
        return {"message": message}

    def parts(self, chunk: Mapping[str, Any]) -> tuple[str, str, list[JSONObject]]:
        """Parts of `message`."""
        message = chunk.get("message")
        if not isinstance(message, dict):
            raise ValueError("chunk without a message")
        return _parts(message, "content")

    def ending(self, answer: Answer) -> dict[str, Any]:
        """`done`, `done_reason`, then the counts."""
        return {"done": True, "done_reason": answer.done_reason, **answer.final}

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The message, then the ending with logprobs before the counts."""
        message = self.chunk(answer.text, answer.thinking, answer.tool_calls)
        done = {"done": True, "done_reason": answer.done_reason}
        return message | done | _if_any("logprobs", answer.logprobs) | dict(answer.final)


@dataclass(frozen=True, slots=True)
class GenerateShape:
    """`/api/generate`: text and thinking at the top, tool calls and logprobs behind the counts."""

    def chunk(self, text: str, thinking: str, tool_calls: tuple[JSONObject, ...]) -> dict[str, Any]:
        """`{"response"[, "thinking"][, "tool_calls"]}`."""
        members: dict[str, Any] = {"response": text}
        if thinking:
            members["thinking"] = thinking
        if tool_calls:
            members["tool_calls"] = tool_calls
        return members

    def parts(self, chunk: Mapping[str, Any]) -> tuple[str, str, list[JSONObject]]:
        """Parts at the top."""
        return _parts(chunk, "response")

    def ending(self, answer: Answer) -> dict[str, Any]:
        """`done`, `done_reason`, `context`, then the counts."""
        context = {} if answer.context is None else {"context": answer.context}
        return {"done": True, "done_reason": answer.done_reason} | context | dict(answer.final)

    def whole(self, answer: Answer) -> dict[str, Any]:
        """Text and thinking, then the ending with tool calls and logprobs behind the counts."""
        behind = _if_any("tool_calls", answer.tool_calls) | _if_any("logprobs", answer.logprobs)
        return self.chunk(answer.text, answer.thinking, ()) | self.ending(answer) | behind


CHAT = ChatShape()
GENERATE = GenerateShape()

_IDENTITY_MEMBERS = frozenset({"model", "created_at", "message", "response", "thinking", "tool_calls", "logprobs"})
_ENDING_MEMBERS = frozenset({"done", "done_reason", "context"})


def _if_any(name: str, values: tuple[JSONObject, ...]) -> dict[str, Any]:
    return {name: values} if values else {}


def _parts(members: Mapping[str, Any], text_member: str) -> tuple[str, str, list[JSONObject]]:
    text = members.get(text_member, "")
    thinking = members.get("thinking", "")
    calls = members.get("tool_calls", [])
    if not (isinstance(text, str) and isinstance(thinking, str) and isinstance(calls, list)):
        raise ValueError("chunk with parts of another type")
    return text, thinking, calls


class Fold:
    """Folds chunks, in order, into one answer.

    `trouble` is empty while all is well, else one word: `error` (Ollama reported one mid-stream), `malformed`,
    `after-done` (bytes after the last chunk).
    """

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._tool_calls: list[JSONObject] = []
        self._logprobs: list[JSONObject] = []
        self._last: Mapping[str, Any] = {}
        self.done = False
        self.trouble = ""

    def add(self, chunk: Mapping[str, Any]) -> None:
        """Take the next chunk. Never raises: what cannot be folded turns `trouble` on."""
        if self.trouble:
            return
        if "error" in chunk or self.done:
            self.trouble = "error" if "error" in chunk else "after-done"
            return
        try:
            text, thinking, calls = self._shape.parts(chunk)
        except ValueError:
            self.trouble = "malformed"
            return
        self._text.append(text)
        self._thinking.append(thinking)
        self._tool_calls.extend(calls)
        self._logprobs.extend(chunk.get("logprobs") or ())
        self._last = chunk
        self.done = chunk.get("done") is True

    def answer(self) -> Answer | None:
        """The whole answer, or None if it did not come to a good end."""
        if self.trouble or not self.done:
            return None
        context = self._last.get("context")
        return Answer(
            text="".join(self._text),
            thinking="".join(self._thinking),
            tool_calls=tuple(self._tool_calls),
            logprobs=tuple(self._logprobs),
            context=tuple(context) if isinstance(context, list) else None,
            done_reason=str(self._last.get("done_reason", "")),
            final={
                name: value
                for name, value in self._last.items()
                if name not in _IDENTITY_MEMBERS and name not in _ENDING_MEMBERS
            },
        )


def whole(shape: Shape, ask: Ask, answer: Answer, now: float) -> bytes:
    """The reply to `stream: false`: one object, no line end."""
    return write(_head(ask, now) | shape.whole(answer))


def stream(shape: Shape, ask: Ask, answer: Answer, now: float) -> Iterator[bytes]:
    """The reply to `stream: true`: NDJSON lines; thinking, then text, then tool calls, then the last line alone."""
    head = _head(ask, now)

    def line(members: dict[str, Any]) -> bytes:
        return write(head | members) + b"\n"

    for piece in _pieces(answer.thinking):
        yield line(shape.chunk("", piece, ()) | {"done": False})
    for piece in _pieces(answer.text) or ([] if answer.tool_calls or answer.thinking else [""]):
        yield line(shape.chunk(piece, "", ()) | {"done": False})
    for start in range(0, len(answer.logprobs), LOGPROBS_A_CHUNK):
        some = answer.logprobs[start : start + LOGPROBS_A_CHUNK]
        yield line(shape.chunk("", "", ()) | {"done": False, "logprobs": some})
    if answer.tool_calls:
        yield line(shape.chunk("", "", answer.tool_calls) | {"done": False})
    yield line(shape.chunk("", "", ()) | shape.ending(answer))


def renamed(chunk: Mapping[str, Any], model: str) -> bytes:
    """A chunk that another caller's stream brought, with this caller's spelling of the model."""
    return write(dict(chunk) | ({"model": model} if "model" in chunk else {})) + b"\n"


def timestamp(now: float) -> str:
    """`created_at` as Go prints it: RFC 3339 in UTC, trailing zeros of the fraction cut."""
    moment = datetime.fromtimestamp(now, UTC)
    fraction = f".{moment.microsecond:06d}".rstrip("0").rstrip(".")
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"


def _head(ask: Ask, now: float) -> dict[str, Any]:
    return {"model": ask.model, "created_at": timestamp(now)}


def _pieces(text: str) -> list[str]:
    return [text[start : start + PIECE_CHARACTERS] for start in range(0, len(text), PIECE_CHARACTERS)]
