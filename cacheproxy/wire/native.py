"""What Ollama's two native dialects share: chunks, their folding into an answer, and its replay.

A chat chunk carries its text in `message.content`, a generate chunk in `response`; `Shape` says where, and everything
else is the same code. Folding follows Ollama's own server (writeChatResponse: text, thinking and logprobs joined over
the chunks, tool calls joined if the request had tools, every other member from the last chunk), so an answer stored
from a stream and one stored whole are one thing.

Chunks of this form are also what every other dialect reads its replies into and writes them from: Ollama itself makes
those replies from these chunks.

Refuses to decide whether an answer may be kept (rules/keep.py), and to know HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Protocol

from cacheproxy.model import ALL_THERE, Answer, Ask, JSONObject, Parts
from cacheproxy.wire.jsontext import read_answer, write

WHOLE_TYPE = "application/json; charset=utf-8"
STREAM_TYPE = "application/x-ndjson"
STREAM_HEADERS: tuple[tuple[str, str], ...] = ()
PIECE_CHARACTERS = 2048
"""Text in one replayed chunk: below 64 KiB as a line even if each character is escaped (asyncio's default limit)."""
LOGPROBS_BYTES = 32 * 1024
"""Tokens' logprobs in one replayed chunk, as bytes of JSON: half of the same 64 KiB (one token takes up to 10 kB)."""


class Shape(Protocol):
    """Where a dialect keeps the parts of a reply."""

    def chunk(self, text: str, thinking: str, tool_calls: tuple[JSONObject, ...]) -> dict[str, Any]:
        """The members of a chunk with these parts and more to come, in Ollama's order."""
        ...

    def parts(self, chunk: Mapping[str, Any]) -> tuple[str, str, Sequence[JSONObject]]:
        """Text, thinking and tool calls of a chunk. Raises ValueError for a chunk of another form."""
        ...

    def last(self, answer: Answer) -> dict[str, Any]:
        """The members of the last chunk of a stream, without text, in Ollama's order."""
        ...

    def whole(self, answer: Answer) -> dict[str, Any]:
        """All members of an unstreamed reply after the model's name and the time, in Ollama's order."""
        ...


@dataclass(frozen=True, slots=True)
class ChatShape:
    """`/api/chat`: everything sits in `message`."""

    def chunk(self, text: str, thinking: str, tool_calls: tuple[JSONObject, ...]) -> dict[str, Any]:
        """`{"message": {"role", "content"[, "thinking"][, "tool_calls"]}, "done": false}`."""
        thought = {"thinking": thinking} if thinking else {}
        message = {"role": "assistant", "content": text} | thought | _if_any("tool_calls", tool_calls)
        return {"message": message, "done": False}

    def parts(self, chunk: Mapping[str, Any]) -> tuple[str, str, Sequence[JSONObject]]:
        """Parts of `message`."""
        message = chunk.get("message")
        if not isinstance(message, dict):
            raise ValueError("chunk without a message")
        return _parts(message, "content")

    def last(self, answer: Answer) -> dict[str, Any]:
        """`done`, `done_reason`, then the counts."""
        return self.chunk("", "", ()) | {"done": True, "done_reason": answer.done_reason} | dict(answer.final)

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The message, then the ending with logprobs before the counts."""
        message = self.chunk(answer.text, answer.thinking, answer.tool_calls)
        done = {"done": True, "done_reason": answer.done_reason}
        return message | done | _if_any("logprobs", answer.logprobs) | dict(answer.final)


@dataclass(frozen=True, slots=True)
class GenerateShape:
    """`/api/generate`: text and thinking at the top, tool calls and logprobs behind the counts."""

    def chunk(self, text: str, thinking: str, tool_calls: tuple[JSONObject, ...]) -> dict[str, Any]:
        """`{"response"[, "thinking"], "done": false[, "tool_calls"]}`."""
        thought = {"thinking": thinking} if thinking else {}
        return {"response": text} | thought | {"done": False} | _if_any("tool_calls", tool_calls)

    def parts(self, chunk: Mapping[str, Any]) -> tuple[str, str, Sequence[JSONObject]]:
        """Parts at the top."""
        return _parts(chunk, "response")

    def last(self, answer: Answer) -> dict[str, Any]:
        """`done`, `done_reason`, `context`, then the counts."""
        return self._ended("", "", answer)

    def whole(self, answer: Answer) -> dict[str, Any]:
        """Text and thinking, then the ending with tool calls and logprobs behind the counts."""
        behind = _if_any("tool_calls", answer.tool_calls) | _if_any("logprobs", answer.logprobs)
        return self._ended(answer.text, answer.thinking, answer) | behind

    def _ended(self, text: str, thinking: str, answer: Answer) -> dict[str, Any]:
        context = {} if answer.context is None else {"context": answer.context}
        done = {"done": True, "done_reason": answer.done_reason}
        return self.chunk(text, thinking, ()) | done | context | dict(answer.final)


CHAT = ChatShape()
GENERATE = GenerateShape()

_IDENTITY_MEMBERS = frozenset({"model", "created_at", "message", "response", "thinking", "tool_calls", "logprobs"})
_ENDING_MEMBERS = frozenset({"done", "done_reason", "context"})
_REMOTE_MEMBERS = ("remote_model", "remote_host")
"""Who really answered, for models in Ollama's cloud: beside the name in every chunk."""


def _if_any(name: str, values: tuple[JSONObject, ...]) -> dict[str, Any]:
    return {name: values} if values else {}


def _parts(members: Mapping[str, Any], text_member: str) -> tuple[str, str, Sequence[JSONObject]]:
    text = members.get(text_member, "")
    thinking = members.get("thinking", "")
    if not (isinstance(text, str) and isinstance(thinking, str)):
        raise ValueError("chunk with parts of another type")
    return text, thinking, _objects(members.get("tool_calls", []))


def _objects(value: object) -> Sequence[JSONObject]:
    if value == []:  # in all but a few chunks
        return ()
    if not isinstance(value, list | tuple) or not all(isinstance(item, dict) for item in value):
        raise ValueError("not a list of objects")
    return value


class Fold:
    """Reads the lines of one reply as chunks, and folds chunks, in order, into one answer.

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

    @property
    def missing(self) -> Parts:
        """What the reply did not tell, once it has ended."""
        return ALL_THERE

    def read(self, line: bytes) -> Sequence[Mapping[str, Any]]:
        """The chunks that a line completes. Raises ValueError for what is no line of this dialect's reply."""
        if not line.strip():
            raise ValueError("a blank line")  # Ollama sends none
        return (read_answer(line),)

    def add(self, chunk: Mapping[str, Any]) -> None:
        """Take the next chunk. Never raises: what cannot be folded turns `trouble` on."""
        if self.trouble:
            return
        if "error" in chunk or self.done:
            self.trouble = "error" if "error" in chunk else "after-done"
            return
        try:
            text, thinking, calls = self._shape.parts(chunk)
            logprobs = _objects(chunk.get("logprobs", []))
        except ValueError:
            self.trouble = "malformed"
            return
        self._text.append(text)
        self._thinking.append(thinking)
        self._tool_calls.extend(calls)
        self._logprobs.extend(logprobs)
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
            missing=self.missing,
        )


def whole(shape: Shape, ask: Ask, answer: Answer, now: float) -> bytes:
    """The reply to `stream: false`: one object, no line end."""
    head, answer = _head(ask, answer, now)
    return write(head | shape.whole(answer))


def stream(shape: Shape, ask: Ask, answer: Answer, now: float) -> Iterator[bytes]:
    """The reply to `stream: true`: NDJSON lines; thinking, then text, then tool calls, then the last line alone."""
    head, answer = _head(ask, answer, now)
    for chunk in chunks(shape, answer):
        yield write(head | chunk) + b"\n"


def chunks(shape: Shape, answer: Answer) -> Iterator[dict[str, Any]]:
    """The chunks of a stream without the model's name and the time."""
    for piece in _pieces(answer.thinking):
        yield shape.chunk("", piece, ())
    for piece in _pieces(answer.text) or ([] if answer.tool_calls or answer.thinking else [""]):
        yield shape.chunk(piece, "", ())
    for some in _batches(answer.logprobs):
        yield shape.chunk("", "", ()) | {"logprobs": some}
    if answer.tool_calls:
        yield shape.chunk("", "", answer.tool_calls)
    yield shape.last(answer)


def relay(ask: Ask, now: float) -> Callable[[Mapping[str, Any]], bytes]:
    """Writer of lines from the chunks that another caller's stream brings: the same with this caller's model name."""
    head = {"model": ask.model, "created_at": timestamp(now)}

    def line(chunk: Mapping[str, Any]) -> bytes:
        if "model" in chunk or "error" in chunk:
            return write(dict(chunk) | ({"model": ask.model} if "model" in chunk else {})) + b"\n"
        return write(head | dict(chunk)) + b"\n"  # read from a reply of another dialect

    return line


def timestamp(now: float) -> str:
    """`created_at` as Go prints it: RFC 3339 in UTC, trailing zeros of the fraction cut."""
    microseconds = round(now * 1_000_000)
    second, microsecond = divmod(microseconds, 1_000_000)
    fraction = f".{microsecond:06d}".rstrip("0").rstrip(".")
    return f"{_second(second)}{fraction}Z"


@lru_cache(maxsize=8)
def _second(second: int) -> str:
    """A Unix time in whole seconds; remembered, for many replies are written in one."""
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}"


def _head(ask: Ask, answer: Answer, now: float) -> tuple[dict[str, Any], Answer]:
    """The first members of every chunk, and the answer without those that it gave."""
    remote = {name: answer.final[name] for name in _REMOTE_MEMBERS if name in answer.final}
    head = {"model": ask.model} | remote | {"created_at": timestamp(now)}
    if not remote:
        return head, answer
    return head, replace(answer, final={name: value for name, value in answer.final.items() if name not in remote})


def _pieces(text: str) -> list[str]:
    return [text[start : start + PIECE_CHARACTERS] for start in range(0, len(text), PIECE_CHARACTERS)]


def _batches(logprobs: Sequence[JSONObject]) -> Iterator[list[JSONObject]]:
    batch: list[JSONObject] = []
    size_bytes = 0
    for token in logprobs:
        token_bytes = len(write(token))
        if batch and size_bytes + token_bytes > LOGPROBS_BYTES:
            yield batch
            batch, size_bytes = [], 0
        batch.append(token)
        size_bytes += token_bytes
    if batch:
        yield batch
