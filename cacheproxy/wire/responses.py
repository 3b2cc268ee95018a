"""`/v1/responses`, the dialect: bytes to `Ask`, replies of Ollama's to `Answer`; `responses_told.py` writes its own.

The native twin is a request to `/api/chat`, whose answers serve here, told with the parameters of this very request.
The reverse never: a reply of this form hides whether the answer was cut off, and drops text beside tool calls. What
Ollama makes of the history is in `responses_input.py`.

Refuses to key a request that Ollama refuses, that makes it search the web, or whose tools it tells in another form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cacheproxy.errors import UnkeyableError
from cacheproxy.model import ALL_THERE, Ask, JSONObject, Part, Parts
from cacheproxy.wire import canonical, events, native, openai, responses_input
from cacheproxy.wire.events import EventFold, Form, text_of
from cacheproxy.wire.jsontext import Number, check_names
from cacheproxy.wire.openai import Members, NoTwinError
from cacheproxy.wire.responses_told import TOOL_MEMBERS, relay, stream, whole

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

NAME = "responses"
PATH = "/v1/responses"
FAMILY = "chat"
WHOLE_TYPE = openai.WHOLE_TYPE
STREAM_TYPE = openai.STREAM_TYPE
STREAM_HEADERS = events.STREAM_HEADERS

_NOT_IN_KEY = frozenset(
    {"model", "stream", "stream_options", "user", "metadata", "store", "service_tier", "safety_identifier"}
    | {"prompt_cache_key", "prompt_cache_retention"}
)
_ECHOED = frozenset(
    {"instructions", "tools", "truncation", "text", "top_p", "temperature", "reasoning", "max_output_tokens"}
    | {"background"}
)
_ABSENT = {
    "tool_choice": "auto", "parallel_tool_calls": True, "truncation": "disabled", "background": False, "tools": [],
}  # fmt: skip
"""Values that mean the same as no value."""
_MEMBERS = (
    _NOT_IN_KEY | _ECHOED | _ABSENT.keys() | {"input", "include", "conversation", "previous_response_id", "cache"}
)
_NEEDS = frozenset({Part.COUNTS})
_LACKS = frozenset({Part.DURATIONS, Part.ENDING, Part.ENDING_OF_CALLS})
_TEXT_BESIDE_CALLS = frozenset({Part.TEXT_BESIDE_CALLS})
_THINK = {"none": False, "low": "low", "medium": "medium", "high": "high", "max": "max"}


# --- Requests ---


def parse(body: bytes) -> Ask:
    """The ask in a request body. Raises UnkeyableError with the reason why it has no key."""
    parsed = openai.read(body, known=_MEMBERS)
    given = parsed.members
    tools = events.tools(given.get("tools", []), known=frozenset(TOOL_MEMBERS))
    if not all(tool.get("type") == "function" and tool.keys() <= {*TOOL_MEMBERS} for tool in tools):
        raise UnkeyableError("tools")
    _check_echo(given)
    responses_input.check(given.get("input"))
    members = {name: value for name, value in given.items() if name not in _NOT_IN_KEY}
    if "input" in members:
        members["input"] = responses_input.read(members["input"])
    if _is_ignored(members.get("include")):
        members.pop("include", None)
    for name, absent in _ABSENT.items():
        if type(members.get(name)) is type(absent) and members[name] == absent:
            del members[name]
    beside = _TEXT_BESIDE_CALLS if tools else ALL_THERE
    streamed = given.get("stream") is True
    form = Form(
        dialect=NAME,
        needs=_NEEDS | beside if streamed else _NEEDS,
        lacks=_LACKS if streamed else _LACKS | beside,
        echo={name: given[name] for name in _ECHOED if name in given},
        name_matters=responses_input.assistant_spoke(given.get("input")),
        temperature=given.get("temperature", 1.0),
    )
    return events.ask(parsed, members, _twin, form)


def _is_ignored(include: object) -> bool:
    """Whether it is of the type that Ollama reads, to make nothing of it: its replies always tell the same."""
    return isinstance(include, list) and all(isinstance(name, str) for name in include)


def _check_echo(given: JSONObject) -> None:
    """Refuse what Ollama could not read: a reply must be able to repeat it. Raises UnkeyableError."""
    text, reasoning = given.get("text", {}), given.get("reasoning", {})
    if not isinstance(text, dict) or not isinstance(reasoning, dict):
        raise UnkeyableError("parameters")
    told = text.get("format") or {}
    if not isinstance(told, dict):
        raise UnkeyableError("parameters")
    check_names(text, frozenset({"format"}))
    check_names(told, frozenset({"type", "name", "schema", "strict"}))
    check_names(reasoning, frozenset({"effort", "summary"}))
    texts = [
        given.get("instructions"),
        given.get("truncation"),
        told.get("type"),
        told.get("name"),
        *reasoning.values(),
    ]
    flags = [given.get("background"), told.get("strict")]
    numbers = [given.get("temperature"), given.get("top_p")]
    if (
        not all(isinstance(value, str | None) for value in [*texts, *reasoning.values()])
        or not all(isinstance(value, bool | None) for value in flags)
        or not all(type(value) in (int, float, Number, type(None)) for value in numbers)
        or type(given.get("max_output_tokens")) not in (int, type(None))
    ):
        raise UnkeyableError("parameters")


def _twin(given: Members) -> Members:
    """The members of the native request. Raises NoTwinError."""
    options: Members = {"temperature": given.pop("temperature", 1.0)}
    if "top_p" in given:
        options["top_p"] = given.pop("top_p")
    if "max_output_tokens" in given:
        options["num_predict"] = openai.whole_number(given.pop("max_output_tokens"))
    instructions = given.pop("instructions", "")
    first = [{"role": "system", "content": instructions}] if instructions else []
    messages = first + responses_input.messages(given.pop("input", ""))
    members: Members = {"options": canonical.options(options), "messages": canonical.messages(messages)}
    if tools := [_tool(tool) for tool in given.pop("tools", ())]:
        members["tools"] = tools
    schema = _format(given.pop("text", {}))
    if schema:
        members["format"] = schema
    effort = _effort(given.pop("reasoning", {}))
    if effort:
        members["think"] = _THINK[effort]
    if given:
        raise NoTwinError
    return members


def _tool(tool: JSONObject) -> Members:
    """A tool. Ollama may sort its parameters or keep their order, so there is a twin where both come to the same."""
    parameters = tool.get("parameters")
    if not _properties_sorted(parameters) or not isinstance(tool.get("strict"), bool | None):
        raise NoTwinError
    return events.native_tool(tool.get("name"), tool.get("description"), parameters)


def _properties_sorted(schema: object) -> bool:
    if isinstance(schema, list):
        return all(map(_properties_sorted, schema))
    if not isinstance(schema, dict):
        return True
    properties = schema.get("properties", {})
    ordered = not isinstance(properties, dict) or list(properties) == sorted(properties)
    return ordered and all(map(_properties_sorted, schema.values()))


def _format(text: object) -> JSONObject:
    match text:
        case {"format": {"type": "json_schema", "schema": dict(schema), **about}, **rest} if not rest and schema:
            if about.keys() <= {"name", "strict"}:
                return schema
        case {"format": {"type": "text", **about}, **rest} if not (rest or about):
            return {}
        case {**rest} if not rest:
            return {}
    raise NoTwinError


def _effort(reasoning: object) -> str:
    match reasoning:
        case {**about} if about.keys() <= {"effort", "summary"}:
            effort = about.get("effort") or ""
            if effort in ("", *_THINK) and isinstance(about.get("summary"), str | None):
                return str(effort)
    raise NoTwinError


# --- Replies ---

_TOLD_TWICE = frozenset(
    {"response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"}
    | {"response.content_part.done", "response.output_text.done", "response.reasoning_summary_text.done"}
    | {"response.function_call_arguments.delta", "response.function_call_arguments.done"}
)
"""Events that say nothing the others do not say."""


class _Fold(EventFold):
    """`response.completed` is the only good end of a stream."""

    def __init__(self) -> None:
        super().__init__()
        self._whole = False

    @property
    def missing(self) -> Parts:
        """What the reply did not tell."""
        return super().missing | _LACKS | (_TEXT_BESIDE_CALLS if self._whole and self._called else ALL_THERE)

    def on_event(self, event: JSONObject) -> Sequence[Mapping[str, Any]]:
        """The chunks in one event."""
        kind = event.get("type")
        if kind in _TOLD_TWICE:
            return ()
        match kind:
            case "response.reasoning_summary_text.delta":
                return (native.CHAT.chunk("", text_of(event, "delta"), ()),)
            case "response.output_text.delta":
                return (native.CHAT.chunk(text_of(event, "delta"), "", ()),)
            case "response.output_item.done":
                return self._item(events.objects_in(event, "item"))
            case "response.completed":
                return (native.CHAT.chunk("", "", ()) | self._ended(events.objects_in(event, "response")),)
            case "error" | "response.failed" | "response.incomplete":
                return ({"error": "the model's answer broke off"},)
        raise ValueError("an unknown event")

    def _item(self, item: JSONObject) -> Sequence[Mapping[str, Any]]:
        match item.get("type"):
            case "message" | "reasoning":
                return ()
            case "function_call":
                chunk = native.CHAT.chunk("", "", ())
                chunk["message"]["tool_calls"] = [self._function_call(item)]
                return (chunk,)
        raise ValueError("an item that has no native form")

    def _function_call(self, item: JSONObject) -> Members:
        return self.call(item.get("call_id"), item.get("name"), text_of(item, "arguments"))

    def _ended(self, response: JSONObject) -> Members:
        if response.get("status") != "completed":
            raise ValueError("an end that is none")
        self.count(response.get("usage"))
        return self.ending("stop")

    def on_whole(self, reply: JSONObject) -> Mapping[str, Any]:
        """The chunk of a whole reply."""
        self._whole = True
        text, thinking = "", ""
        calls: list[Members] = []
        for item in events.objects(reply.get("output")):
            match item.get("type"):
                case "reasoning":
                    thinking += "".join(text_of(part, "text") for part in events.objects(item.get("summary")))
                case "function_call":
                    calls.append(self._function_call(item))
                case "message":
                    text += "".join(text_of(part, "text") for part in events.objects(item.get("content")))
                case _:
                    raise ValueError("an item that has no native form")
        chunk = native.CHAT.chunk(text, thinking, ())
        if calls:
            chunk["message"]["tool_calls"] = calls
        return chunk | self._ended(reply)


def fold() -> _Fold:
    """An empty fold for one reply."""
    return _Fold()
