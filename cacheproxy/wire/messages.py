"""`/v1/messages`, Anthropic's dialect: bytes to `Ask`, replies to `Answer`; `messages_told.py` writes its own.

The native twin is a request to `/api/chat`. On a model that cannot think, this route alone drops `think` where the
native one refuses it, so an ask that sets it shares with its like alone (`relaxed` in its key).

Refuses to key a request that Ollama refuses, or that makes Ollama search the web.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cacheproxy.errors import UnkeyableError
from cacheproxy.model import Ask, JSONObject, Part, Parts
from cacheproxy.wire import canonical, events, native, openai
from cacheproxy.wire.events import EventFold, Form, text_of
from cacheproxy.wire.jsontext import check_names
from cacheproxy.wire.messages_told import relay, stream, whole
from cacheproxy.wire.openai import Members, NoTwinError, number, whole_number

__all__ = [
    "FAMILY",
    "NAME",
    "PATH",
    "STREAM_HEADERS",
    "STREAM_TYPE",
    "WHOLE_TYPE",
    "fold",
    "parse",
    "relay",
    "stream",
    "whole",
]

NAME = "messages"
PATH = "/v1/messages"
FAMILY = "chat"
WHOLE_TYPE = openai.WHOLE_TYPE
STREAM_TYPE = openai.STREAM_TYPE
STREAM_HEADERS = events.STREAM_HEADERS

_NOT_IN_KEY = frozenset({"model", "stream", "service_tier"})
_NEW_THREAD = {"type": "create"}
"""Says nothing: the history is there. To `continue` one leaves it out, so what is asked is not told: never shared."""
_MEMBERS = _NOT_IN_KEY | {
    "messages", "system", "max_tokens", "temperature", "top_p", "top_k", "stop_sequences", "tools", "tool_choice",
    "thinking", "metadata", "output_config", "thread", "cache",
}  # fmt: skip
_TURN_MEMBERS = frozenset({"role", "content"})
_BLOCK_MEMBERS = frozenset(
    {"type", "text", "citations", "source", "id", "name", "input", "tool_use_id", "content", "is_error", "thinking"}
    | {"signature"}
)
_TOOL_MEMBERS = frozenset({"type", "name", "description", "input_schema", "max_uses"})
_NEEDS = frozenset({Part.COUNTS, Part.ENDING})
_LACKS = frozenset({Part.DURATIONS})
_ENDING_OF_CALLS = frozenset({Part.ENDING_OF_CALLS})
"""An answer with tool calls is said to have stopped for them, even one that was cut off."""
_EFFORTS = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "max"}
_DONE_REASONS = {"end_turn": "stop", "max_tokens": "length", "tool_use": "stop"}


# --- Requests ---


def parse(body: bytes) -> Ask:
    """The ask in a request body. Raises UnkeyableError with the reason why it has no key."""
    parsed = openai.read(body, known=_MEMBERS)
    given = parsed.members
    turns, limit = given.get("messages"), given.get("max_tokens")
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
        raise UnkeyableError("messages")
    if type(limit) is not int or limit <= 0:
        raise UnkeyableError("max-tokens")
    _check_turns(turns)
    tools = events.tools(given.get("tools", []), known=_TOOL_MEMBERS)
    members = {name: value for name, value in given.items() if name not in _NOT_IN_KEY}
    if members.get("thread") == _NEW_THREAD:
        del members["thread"]
    form = Form(
        dialect=NAME,
        needs=_NEEDS,
        lacks=_LACKS | _ENDING_OF_CALLS if tools else _LACKS,
        echo={name: given[name] for name in ("system", "messages", "tools") if name in given},
        name_matters=any(str(turn.get("role")).lower() == "assistant" for turn in turns),
        temperature=given.get("temperature"),
    )
    return events.ask(parsed, members, _twin, form)


def _check_turns(turns: Sequence[JSONObject]) -> None:
    """Refuse names that Ollama takes for others: even a null under one undoes what the other says.

    Raises UnkeyableError.
    """
    for turn in turns:
        check_names(turn, _TURN_MEMBERS)
        content = turn.get("content")
        for block in content if isinstance(content, list) else ():
            if isinstance(block, dict):
                check_names(block, _BLOCK_MEMBERS)


def _twin(given: Members) -> Members:
    """The members of the native request. Raises NoTwinError."""
    members: Members = {"options": _take_options(given)}
    turns = [part for turn in given.pop("messages") for part in _turn(turn)]
    members["messages"] = canonical.messages(_system(given.pop("system", "")) + turns)
    if tools := [_tool(tool) for tool in given.pop("tools", ())]:
        members["tools"] = tools
    think = _take_think(given)
    if think is not None:
        members |= {"think": think, "relaxed": True}
    if not _says_nothing(given.pop("metadata", {}), given.pop("tool_choice", {"type": "auto"})) or given:
        raise NoTwinError
    return members


def _take_options(given: Members) -> Members:
    options: Members = {"num_predict": whole_number(given.pop("max_tokens"))}
    for name in ("temperature", "top_p"):
        if name in given:
            options[name] = number(given.pop(name))
    if "top_k" in given:
        options["top_k"] = whole_number(given.pop("top_k"))
    stop = given.pop("stop_sequences", [])
    if not isinstance(stop, list) or not all(isinstance(item, str) for item in stop):
        raise NoTwinError
    return canonical.options(options | ({"stop": stop} if stop else {}))


def _take_think(given: Members) -> bool | str | None:
    match given.pop("thinking", {"type": "adaptive"}):
        case {"type": "enabled", **rest} if rest.keys() <= {"budget_tokens"} and _is_budget(rest.get("budget_tokens")):
            think: bool | None = True
        case {"type": "disabled", **rest} if not rest:
            think = False
        case {"type": "adaptive", **rest} if not rest:
            think = None
        case _:
            raise NoTwinError
    match given.pop("output_config", {}):
        case {"effort": str(effort), **rest} if not rest and effort in _EFFORTS:
            return _EFFORTS[effort] if think is None else think
        case {**rest} if not rest:
            return think
    raise NoTwinError


def _is_budget(tokens: object) -> bool:
    return type(tokens) in (int, type(None))


def _says_nothing(metadata: object, choice: object) -> bool:
    match metadata, choice:
        case {**about}, {"type": "auto", **rest} if about.keys() <= {"user_id"} and not rest:
            return isinstance(about.get("user_id"), str | None)
    return False


def _system(given: object) -> list[Members]:
    """The first message: a text, or the texts of blocks with nothing between."""
    text = given if isinstance(given, str) else "".join(_texts(given))
    return [{"role": "system", "content": text}] if text else []


def _texts(given: object) -> list[str]:
    if not isinstance(given, list):
        raise NoTwinError
    return [_text(block) for block in given]


def _text(block: object) -> str:
    match block:
        case {"type": "text", "text": str(text), **rest} if _is_hint(rest):
            return text
    raise NoTwinError


def _is_hint(rest: Mapping[Any, Any]) -> bool:
    """Whether nothing is left of a block but hints to Anthropic's own cache, which Ollama ignores."""
    return all(name == "cache_control" or value is None for name, value in rest.items())


def _turn(turn: JSONObject) -> list[Members]:
    """The native messages of one: results of tools first, as messages of their own; nothing if there is nothing."""
    role, content = turn.get("role"), turn.get("content")
    if turn.keys() != {"role", "content"} or not isinstance(role, str):
        raise NoTwinError
    if isinstance(content, str):
        return [{"role": role, "content": content}] if content else []
    if not isinstance(content, list):
        raise NoTwinError
    by_kind: dict[str, list[JSONObject]] = {}
    for block in content:
        match block:
            case {"type": str(kind)}:
                by_kind.setdefault(kind, []).append(block)
            case _:
                raise NoTwinError
    if not by_kind.keys() <= {"text", "image", "thinking", "tool_use", "tool_result"}:
        raise NoTwinError
    message = {
        "content": "".join(map(_text, by_kind.get("text", ()))),
        "images": list(map(_image, by_kind.get("image", ()))),
        "thinking": _thinking(by_kind.get("thinking", ())),
        "tool_calls": list(map(_tool_use, by_kind.get("tool_use", ()))),
    }
    said = [{"role": role} | message] if any(message.values()) else []
    results = list(map(_tool_result, by_kind.get("tool_result", ())))
    return results + said if role.lower() == "user" else said + results


def _thinking(blocks: Sequence[JSONObject]) -> str:
    match blocks:
        case []:
            return ""
        case [{"thinking": str(text), **rest}] if rest.keys() <= {"type", "signature"}:
            if isinstance(rest.get("signature"), str | None):
                return text
    raise NoTwinError


def _image(block: JSONObject) -> str:
    match block:
        case {"type": _, "source": {"type": "base64", "data": str(data), **about}, **rest}:
            if about.keys() <= {"media_type"} and isinstance(about.get("media_type"), str | None) and _is_hint(rest):
                return data
    raise NoTwinError


def _tool_use(block: JSONObject) -> Members:
    match block:
        case {"type": _, "id": str(call_id), "name": str(name), "input": dict(arguments), **rest} if _is_hint(rest):
            if call_id and name:
                return {"id": call_id, "function": {"name": name, "arguments": arguments}}
    raise NoTwinError


def _tool_result(block: JSONObject) -> Members:
    match block:
        case {"type": _, "tool_use_id": str(call_id), **rest}:
            content = rest.pop("content", "")
            if rest.pop("is_error", False) is False and _is_hint(rest):
                text = content if isinstance(content, str) else "".join(_texts(content))
                return {"role": "tool", "content": text, "tool_call_id": call_id}
    raise NoTwinError


def _tool(tool: JSONObject) -> Members:
    given = {name: value for name, value in tool.items() if value is not None and name != "cache_control"}
    if given.pop("type", "custom") != "custom" or not given.keys() <= {"name", "description", "input_schema"}:
        raise NoTwinError
    return events.native_tool(given.get("name"), given.get("description"), given.get("input_schema"))


# --- Replies ---


class _Fold(EventFold):
    """`message_stop` is the only good end of a stream."""

    def __init__(self) -> None:
        super().__init__()
        self._reason = ""
        self._tool: JSONObject = {}
        self._input: list[str] = []

    @property
    def missing(self) -> Parts:
        """What the reply did not tell."""
        return super().missing | (_ENDING_OF_CALLS if self._called else frozenset())

    def on_event(self, event: JSONObject) -> Sequence[Mapping[str, Any]]:
        """The chunks in one event."""
        chunks: Sequence[Mapping[str, Any]] = ()
        match event.get("type"):
            case "message_start" | "ping":
                pass
            case "content_block_start":
                self._begin(events.objects_in(event, "content_block"))
            case "content_block_delta":
                chunks = self._go_on(events.objects_in(event, "delta"))
            case "content_block_stop":
                chunks = self._end_block()
            case "message_delta":
                self._reason = _done_reason(events.objects_in(event, "delta"))
                self.count(event.get("usage"))
            case "message_stop":
                chunks = (native.CHAT.chunk("", "", ()) | self.ending(self._reason),)
            case "error":
                chunks = ({"error": "the model's answer broke off"},)
            case _:
                raise ValueError("an unknown event")
        return chunks

    def _begin(self, block: JSONObject) -> None:
        kind = block.get("type")
        if self._tool or kind not in ("text", "thinking", "tool_use"):
            raise ValueError("a block that has no native form")
        if kind == "tool_use":
            self._tool, self._input = block, []

    def _go_on(self, delta: JSONObject) -> Sequence[Mapping[str, Any]]:
        match delta.get("type"):
            case "text_delta":
                return (native.CHAT.chunk(text_of(delta, "text"), "", ()),)
            case "thinking_delta":
                return (native.CHAT.chunk("", text_of(delta, "thinking"), ()),)
            case "input_json_delta" if self._tool:
                self._input.append(text_of(delta, "partial_json"))
                return ()
        raise ValueError("an unknown delta")

    def _end_block(self) -> Sequence[Mapping[str, Any]]:
        if not self._tool:
            return ()
        call = self.call(self._tool.get("id"), self._tool.get("name"), "".join(self._input))
        self._tool = {}
        return (_with_calls("", "", [call]),)

    def on_whole(self, reply: JSONObject) -> Mapping[str, Any]:
        """The chunk of a whole reply."""
        if reply.get("type") != "message":
            raise ValueError("not a message")
        text, thinking = "", ""
        calls: list[Members] = []
        for block in events.objects(reply.get("content")):
            match block:
                case {"type": "text", "text": str(said), **rest} if not rest:
                    text += said
                case {"type": "thinking", "thinking": str(thought), **rest} if not rest:
                    thinking += thought
                case {"type": "tool_use", "id": call_id, "name": name, "input": dict(given), **rest} if not rest:
                    calls.append(self.call(call_id, name, given))
                case _:
                    raise ValueError("a block that has no native form")
        self.count(reply.get("usage"))
        return _with_calls(text, thinking, calls) | self.ending(_done_reason(reply))


def _with_calls(text: str, thinking: str, calls: list[Members]) -> Members:
    chunk = native.CHAT.chunk(text, thinking, ())
    if calls:
        chunk["message"]["tool_calls"] = calls
    return chunk


def _done_reason(members: JSONObject) -> str:
    """Ollama's word for why it stopped; Anthropic's if it has none, which nothing is kept for."""
    reason = members.get("stop_reason") or ""
    if not isinstance(reason, str):
        raise ValueError("stop_reason is no text")
    return _DONE_REASONS.get(reason, reason)


def fold() -> _Fold:
    """An empty fold for one reply."""
    return _Fold()
