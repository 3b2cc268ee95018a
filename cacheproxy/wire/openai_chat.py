"""`/v1/chat/completions`: bytes to `Ask`, `Answer` to bytes.

The native twin is a request to `/api/chat`. One with a tool's result, a named message or tool calls in its history has
none: Ollama looks names up for these, in ways that differ between versions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cacheproxy.errors import UnkeyableError
from cacheproxy.model import Answer, Ask, JSONObject, Part
from cacheproxy.wire import canonical, native, openai
from cacheproxy.wire.jsontext import check_names, read_spelled, write_go
from cacheproxy.wire.openai import Members, NoTwinError, OpenAIFold

NAME = "openai_chat"
PATH = "/v1/chat/completions"
FAMILY = "chat"
WHOLE_TYPE = openai.WHOLE_TYPE
STREAM_TYPE = openai.STREAM_TYPE
STREAM_HEADERS = openai.STREAM_HEADERS

_MEMBERS = openai.COMMON_MEMBERS | {
    "messages", "tools", "response_format", "reasoning", "reasoning_effort", "top_logprobs",
}  # fmt: skip
_MESSAGE_MEMBERS = frozenset({"role", "content", "reasoning", "tool_calls", "name", "tool_call_id"})
_LACKS = frozenset({Part.DURATIONS})
_DEFAULTS = {"temperature": 1.0, "top_p": 1.0}
"""Unlike the native routes, this one does not leave them to the model."""
_EFFORTS = {
    "none": False, "minimal": "low", "low": "low", "medium": "medium", "high": "high", "max": "max", "xhigh": "max",
    "ultra": "max",
}  # fmt: skip
_IMAGE_PREFIXES = tuple(f"data:{kind};base64," for kind in ("image/jpeg", "image/jpg", "image/png", "image/webp", ""))


# --- Requests ---


def parse(body: bytes) -> Ask:
    """The ask in a request body. Raises UnkeyableError with the reason why it has no key."""
    parsed = openai.read(body, known=_MEMBERS)
    messages = parsed.members.get("messages")
    if not isinstance(messages, list) or not messages:
        raise UnkeyableError("messages")
    if not all(isinstance(message, dict) for message in messages):
        raise UnkeyableError("messages")
    for message in messages:
        check_names(message, _MESSAGE_MEMBERS)
    assistant_spoke = any(str(message.get("role")).lower() == "assistant" for message in messages)
    return openai.ask(parsed, _twin, dialect=NAME, family=FAMILY, lacks=_LACKS, name_matters=assistant_spoke)


def _twin(given: Members) -> Members:
    """The members of the native request. Raises NoTwinError."""
    members: Members = {"options": openai.take_options(given, _DEFAULTS)}
    members["messages"] = canonical.messages([part for message in given.pop("messages") for part in _parts(message)])
    _take_format(given, members)
    _take_think(given, members)
    for name, kind in (("tools", list), ("logprobs", bool), ("top_logprobs", int)):
        value = given.pop(name, None)
        if value is not None and type(value) is not kind:
            raise NoTwinError
        if value:
            members[name] = value
    if given:
        raise NoTwinError
    return members


def _parts(message: JSONObject) -> list[Members]:
    """The native messages of one: each part of a list is a message of its own."""
    given = {name: value for name, value in message.items() if value is not None}
    role, content = given.get("role"), given.get("content")
    if not given.keys() <= {"role", "content", "reasoning"} or not isinstance(role, str) or role.lower() == "tool":
        raise NoTwinError
    if content is None:
        raise UnkeyableError("messages")  # Ollama refuses it; an empty text, whose key would be the same, it takes
    if isinstance(content, str):
        return [{"role": role, "content": content, "thinking": given.get("reasoning")}]
    if not isinstance(content, list) or not content or "reasoning" in given:
        raise NoTwinError
    return [{"role": role} | _part(part) for part in content]


def _part(part: object) -> Members:
    match part:
        case {"type": "text", "text": str(text), **rest} if not rest:
            return {"content": text}
        case {"type": "image_url", "image_url": {"url": str(url), **more}, **rest} if not (rest or more):
            for prefix in _IMAGE_PREFIXES:
                if url.startswith(prefix):
                    return {"images": [url.removeprefix(prefix)]}
    raise NoTwinError


def _take_format(given: Members, members: Members) -> None:
    match given.pop("response_format", None):
        case None:
            return
        case {"type": "text", **rest} if not rest:
            return
        case {"type": "json_object", **rest} if not rest:
            members["format"] = "json"
        case {"type": "json_schema", "json_schema": {"schema": dict(schema), **about}, **rest} if schema and not rest:
            if not about.keys() <= {"name", "description", "strict"}:
                raise NoTwinError
            members["format"] = schema
        case _:
            raise NoTwinError


def _take_think(given: Members, members: Members) -> None:
    reasoning, flat = given.pop("reasoning", {}), given.pop("reasoning_effort", "")
    if not isinstance(reasoning, dict) or not isinstance(flat, str):
        raise UnkeyableError("parameters")
    nested = reasoning.get("effort")
    if not isinstance(nested, str | None):
        raise UnkeyableError("parameters")
    effort = nested or flat
    if not reasoning.keys() <= {"effort"} or effort not in ("", *_EFFORTS):
        raise NoTwinError
    if effort:
        members["think"] = _EFFORTS[effort]


# --- Replies, read ---


class _Fold(OpenAIFold):
    def parts(self, choice: JSONObject) -> Members:
        """`message` of a whole reply or `delta` of a chunk, as a native chunk."""
        message = choice.get("message") or choice.get("delta") or {}
        if not isinstance(message, dict):
            raise ValueError("not a message")
        given = {name: value for name, value in message.items() if value not in (None, []) or name == "content"}
        if not given.keys() <= {"role", "content", "reasoning", "tool_calls"}:
            raise ValueError("a message with unknown parts")
        calls = tuple(_native_call(call) for call in given.get("tool_calls", ()))
        logprobs = choice.get("logprobs") or {}
        if not isinstance(logprobs, dict):
            raise ValueError("logprobs of another form")
        chunk = native.CHAT.chunk(given.get("content", ""), given.get("reasoning", ""), calls)
        return chunk | ({"logprobs": logprobs["content"]} if logprobs.get("content") else {})


def fold() -> _Fold:
    """An empty fold for the chunks of one reply."""
    return _Fold(native.CHAT, _LACKS)


def _native_call(call: object) -> Members:
    """A tool call with its arguments as an object. Raises ValueError where their text would not come back the same."""
    match call:
        case {
            "id": str(call_id),
            "index": int(index),
            "type": "function",
            "function": {"name": str(name), "arguments": str(text), **more},
            **rest,
        } if not (more or rest):
            arguments = read_spelled(text.encode())
            if write_go(arguments).decode() == text:
                return {"id": call_id, "function": {"index": index, "name": name, "arguments": arguments}}
    raise ValueError("a tool call that is no native one")


# --- Replies, written ---


def whole(ask: Ask, answer: Answer, now: float) -> bytes:
    """The reply without `stream`: one object and a line end. `now`: Unix time, s."""
    message: Members = {"role": "assistant", "content": answer.text}
    if answer.thinking:
        message["reasoning"] = answer.thinking
    if answer.tool_calls:
        message["tool_calls"] = _calls(answer.tool_calls)
    finish = openai.finish_reason(answer.done_reason, called=bool(answer.tool_calls))
    choice = {"index": 0, "message": message, "finish_reason": finish} | _logprobs(answer.logprobs)
    return openai.whole(openai.head(ask, now, prefix="chatcmpl", kind="chat.completion"), choice, answer)


def stream(ask: Ask, answer: Answer, now: float) -> Iterator[bytes]:
    """The reply to `stream: true`, event by event; the last three leave together, as from Ollama."""
    event = relay(ask, now)
    return filter(None, map(event, native.chunks(native.CHAT, answer)))


def relay(ask: Ask, now: float) -> Callable[[Mapping[str, Any]], bytes]:
    """Writer of this caller's events from the chunks of an equal ask, in order. `now`: Unix time, s."""
    return _Events(ask, now)


class _Events:
    """Events of one stream; remembers whether the role was said and a tool called."""

    def __init__(self, ask: Ask, now: float) -> None:
        self._ask = ask
        self._head = openai.head(ask, now, prefix="chatcmpl", kind="chat.completion.chunk")
        self._spoke = False
        self._called = False

    def __call__(self, chunk: Mapping[str, Any]) -> bytes:
        """The events of one native chunk; empty for none."""
        if "error" in chunk:
            return openai.broken_off(self._head)
        text, thinking, calls = native.CHAT.parts(chunk)
        logprobs, done = chunk.get("logprobs") or (), chunk.get("done") is True
        events = b""
        if thinking:
            events += self._delta({"content": "", "reasoning": thinking})
        if calls:
            self._called = True
            events += self._delta({"content": text, "tool_calls": _calls(calls)}, logprobs)
        elif text or logprobs or (done and not self._spoke):
            events += self._delta({"content": text}, logprobs)
        reason = chunk.get("done_reason") if done else ""
        return events + (self._ending(reason, chunk) if reason else b"")

    def _delta(self, delta: Members, logprobs: Sequence[JSONObject] = ()) -> bytes:
        role = {} if self._spoke else {"role": "assistant"}
        self._spoke = True
        choice = {"index": 0, "delta": role | delta, "finish_reason": None} | _logprobs(logprobs)
        return openai.event({**self._head, "choices": [choice]})

    def _ending(self, reason: str, counts: JSONObject) -> bytes:
        finish = {"index": 0, "delta": {}, "finish_reason": openai.finish_reason(reason, called=self._called)}
        return openai.ending(self._ask, self._head, {**self._head, "choices": [finish]}, counts)


def _calls(calls: Sequence[JSONObject]) -> list[Members]:
    return [_call(call) for call in calls]


def _call(call: JSONObject) -> Members:
    function = call.get("function") or {}
    text = write_go(function.get("arguments") or {}).decode()
    named = {"name": function.get("name", ""), "arguments": text}
    return {"id": call.get("id", ""), "index": function.get("index", 0), "type": "function", "function": named}


def _logprobs(logprobs: Sequence[JSONObject]) -> Members:
    return {"logprobs": {"content": logprobs}} if logprobs else {}
