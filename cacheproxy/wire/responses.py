"""`/v1/responses`: bytes to `Ask`, `Answer` to bytes.

The native twin is a request to `/api/chat`, whose answers serve here, told with the parameters of this very request.
The reverse never: a reply of this form hides whether the answer was cut off, and drops text beside tool calls.

Refuses to key a request that Ollama refuses, that makes it search the web, or whose tools it tells in another form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cacheproxy.errors import UnkeyableError
from cacheproxy.model import ALL_THERE, Answer, Ask, JSONObject, Part, Parts
from cacheproxy.wire import canonical, events, native, openai
from cacheproxy.wire.events import EventFold, Form, text_of
from cacheproxy.wire.jsontext import Number, check_names, write, write_go
from cacheproxy.wire.openai import Members, NoTwinError

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
    "include": ["reasoning.encrypted_content"],
}  # fmt: skip
"""Values that mean the same as no value."""
_MEMBERS = _NOT_IN_KEY | _ECHOED | _ABSENT.keys() | {"input", "conversation", "previous_response_id", "cache"}
_NEEDS = frozenset({Part.COUNTS})
_LACKS = frozenset({Part.DURATIONS, Part.ENDING, Part.ENDING_OF_CALLS})
_TEXT_BESIDE_CALLS = frozenset({Part.TEXT_BESIDE_CALLS})
_THINK = {"none": False, "low": "low", "medium": "medium", "high": "high", "max": "max"}
_TOOL_MEMBERS = ("type", "name", "description", "strict", "parameters")


# --- Requests ---


def parse(body: bytes) -> Ask:
    """The ask in a request body. Raises UnkeyableError with the reason why it has no key."""
    parsed = openai.read(body, known=_MEMBERS)
    given = parsed.members
    tools = events.tools(given.get("tools", []))
    if not all(tool.get("type") == "function" and tool.keys() <= {*_TOOL_MEMBERS} for tool in tools):
        raise UnkeyableError("tools")
    _check_echo(given)
    members = {name: value for name, value in given.items() if name not in _NOT_IN_KEY}
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
        name_matters=_assistant_spoke(given.get("input")),
        temperature=given.get("temperature", 1.0),
    )
    return events.ask(parsed, members, _twin, form)


def _assistant_spoke(given: object) -> bool:
    if not isinstance(given, list):
        return False
    return any(
        not isinstance(item, dict) or str(item.get("role", "assistant")).lower() == "assistant" for item in given
    )


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
    for name, option in (("top_p", "top_p"), ("max_output_tokens", "num_predict")):
        if name in given:
            options[option] = given.pop(name)
    instructions = given.pop("instructions", "")
    first = [{"role": "system", "content": instructions}] if instructions else []
    messages = first + _input(given.pop("input", ""))
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


def _input(given: object) -> list[Members]:
    if isinstance(given, str):
        return [{"role": "user", "content": given}] if given else []
    if not isinstance(given, list):
        raise NoTwinError
    return [_message(item) for item in given]


def _message(item: object) -> Members:
    """A message of the history; any other item has no certain twin."""
    match item:
        case {"role": str(role), "content": content, **rest} if rest.keys() <= {"type", "id", "status"}:
            if rest.get("type", "message") == "message":
                return {"role": role, "content": content if isinstance(content, str) else _joined(content)}
    raise NoTwinError


def _joined(parts: object) -> str:
    if not isinstance(parts, list):
        raise NoTwinError
    return "".join(map(_text, parts))


def _text(part: object) -> str:
    match part:
        case {"type": "input_text" | "output_text", "text": str(text), **rest}:
            if rest.keys() <= {"annotations", "logprobs"}:
                return text
    raise NoTwinError


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


# --- Replies, read ---

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


# --- Replies, written ---


def whole(ask: Ask, answer: Answer, now: float) -> bytes:
    """The reply without `stream`: one object and a line end. `now`: Unix time, s."""
    reply_id, item_id = _ids(now)
    output: list[Members] = []
    if answer.thinking:
        output.append(_reasoning(f"rs_{reply_id}", answer.thinking))
    if answer.tool_calls:  # Ollama drops the text beside them
        for index, call in enumerate(answer.tool_calls):
            output.append(_call(call, f"fc_{reply_id}_{index}"))
    else:
        output.append(_message_item(item_id, answer.text))
    usage = _usage(answer.final)
    members = _response(ask, reply_id, now, status="completed", output=output, usage=usage)
    return write(members | {"completed_at": int(now)}) + b"\n"


def stream(ask: Ask, answer: Answer, now: float) -> Iterator[bytes]:
    """The reply to `stream: true`; the last events leave together."""
    return filter(None, map(relay(ask, now), native.chunks(native.CHAT, answer)))


def relay(ask: Ask, now: float) -> Callable[[Mapping[str, Any]], bytes]:
    """Writer of this caller's events from the chunks of an equal ask, in order. `now`: Unix time, s."""
    return _Events(ask, now)


class _Events:
    """Events of one stream. Ollama makes them of Go's maps, so their members come in alphabetical order."""

    def __init__(self, ask: Ask, now: float) -> None:
        self._ask = ask
        self._now = now
        self._reply_id, self._item_id = _ids(now)
        self._reasoning_id = f"rs_{self._reply_id.removeprefix('resp_')}"
        self._number = 0
        self._index = 0
        self._thinking: list[str] = []
        self._thought = False
        self._text: list[str] = []
        self._calls: list[Members] = []

    def __call__(self, chunk: Mapping[str, Any]) -> bytes:
        """The events of one native chunk. None for an error: Ollama's own stream just stops there."""
        if "error" in chunk:
            return b""
        text, thinking, calls = native.CHAT.parts(chunk)
        told = b"" if self._number else self._start()
        if thinking:
            told += self._think(thinking)
        if calls:
            told += self._call(calls)
        elif text and not self._calls:
            told += self._say(text)
        return told + (self._end(chunk) if chunk.get("done") is True else b"")

    def _event(self, kind: str, **members: Any) -> bytes:
        numbered = members | {"sequence_number": self._number, "type": f"response.{kind}"}
        self._number += 1
        return events.event(f"response.{kind}", dict(sorted(numbered.items())))

    def _response(self, status: str, output: list[Members] | None, usage: Members | None) -> Members:
        members = _response(self._ask, self._reply_id, self._now, status=status, output=output, usage=usage)
        return _sorted_response(members)

    def _start(self) -> bytes:
        begun = self._response("in_progress", [], None)
        return self._event("created", response=begun) + self._event("in_progress", response=begun)

    def _think(self, thinking: str) -> bytes:
        place = {"item_id": self._reasoning_id, "output_index": self._index, "summary_index": 0}
        begun = b""
        if not self._thinking:
            item = {"id": self._reasoning_id, "summary": [], "type": "reasoning"}
            begun = self._event("output_item.added", output_index=self._index, item=item)
        self._thinking.append(thinking)
        return begun + self._event("reasoning_summary_text.delta", **place, delta=thinking)

    def _end_thinking(self) -> bytes:
        if not self._thinking or self._thought:
            return b""
        self._thought = True
        place = {"item_id": self._reasoning_id, "output_index": self._index, "summary_index": 0}
        told = self._event("reasoning_summary_text.done", **place, text="".join(self._thinking))
        told += self._event("output_item.done", output_index=self._index, item=self._reasoning_item())
        self._index += 1
        return told

    def _call(self, calls: Sequence[JSONObject]) -> bytes:
        told = self._end_thinking()
        for offset, call in enumerate(calls):
            item_id, index = f"fc_{self._reply_id.removeprefix('resp_')}_{len(self._calls)}", self._index + offset
            item = dict(sorted(_call(call, item_id).items()))
            self._calls.append(item)
            begun = item | {"arguments": "", "status": "in_progress"}
            place = {"item_id": item_id, "output_index": index}
            told += self._event("output_item.added", output_index=index, item=begun)
            told += self._event("function_call_arguments.delta", **place, delta=item["arguments"])
            told += self._event("function_call_arguments.done", **place, arguments=item["arguments"])
            told += self._event("output_item.done", output_index=index, item=item)
        return told

    def _say(self, text: str) -> bytes:
        told = self._end_thinking()
        place = {"item_id": self._item_id, "output_index": self._index, "content_index": 0}
        if not self._text:
            item = {"content": [], "id": self._item_id, "role": "assistant", "status": "in_progress", "type": "message"}
            told += self._event("output_item.added", output_index=self._index, item=item)
            told += self._event("content_part.added", **place, part=_sorted_part(""))
        self._text.append(text)
        return told + self._event("output_text.delta", **place, delta=text, logprobs=[])

    def _end(self, chunk: Mapping[str, Any]) -> bytes:
        told = self._end_thinking()
        if self._text and not self._calls:
            text = "".join(self._text)
            place = {"item_id": self._item_id, "output_index": self._index, "content_index": 0}
            told += self._event("output_text.done", **place, text=text, logprobs=[])
            told += self._event("content_part.done", **place, part=_sorted_part(text))
            told += self._event("output_item.done", output_index=self._index, item=self._message_item())
        response = self._response("completed", self._output() or None, _sorted(_usage(chunk)))
        return told + self._event("completed", response=response | {"completed_at": int(self._now)})

    def _output(self) -> list[Members]:
        thought = [self._reasoning_item()] if self._thinking else []
        if self._calls:
            return thought + self._calls
        return thought + ([self._message_item()] if self._text else [])

    def _reasoning_item(self) -> Members:
        item: Members = _sorted(_reasoning(self._reasoning_id, "".join(self._thinking)))
        return item

    def _message_item(self) -> Members:
        item: Members = _sorted(_message_item(self._item_id, "".join(self._text)))
        return item


def _ids(now: float) -> tuple[str, str]:
    """Ids of the reply and of its message; Ollama's own are random numbers of this size."""
    digits = int(now * 1e6) % 999_999
    return f"resp_{digits}", f"msg_{digits}"


def _reasoning(item_id: str, thinking: str) -> Members:
    summary = [{"type": "summary_text", "text": thinking}]
    return {"id": item_id, "type": "reasoning", "summary": summary, "encrypted_content": thinking}


def _call(call: JSONObject, item_id: str) -> Members:
    return {
        "id": item_id,
        "type": "function_call",
        "status": "completed",
        "call_id": call.get("id", ""),
        "name": (call.get("function") or {}).get("name", ""),
        "arguments": write_go(events.arguments(call)).decode(),
    }


def _message_item(item_id: str, text: str) -> Members:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"id": item_id, "type": "message", "status": "completed", "role": "assistant", "content": [part]}


def _sorted_part(text: str) -> Members:
    return {"annotations": [], "logprobs": [], "text": text, "type": "output_text"}


def _usage(counts: JSONObject) -> Members:
    told = events.usage(counts)
    details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    return {**told, "total_tokens": sum(told.values()), **details}


def _response(
    ask: Ask, reply_id: str, now: float, *, status: str, output: list[Members] | None, usage: Members | None
) -> Members:
    """The reply in Ollama's order, which tells the request's own parameters again."""
    echo = ask.echo
    return {
        "id": reply_id,
        "object": "response",
        "created_at": int(now),
        "completed_at": None,
        "status": status,
        "incomplete_details": None,
        "model": ask.model,
        "previous_response_id": None,
        "instructions": echo.get("instructions") or None,
        "output": output,
        "error": None,
        "tools": [_told_tool(tool) for tool in echo.get("tools", ())],
        "tool_choice": "auto",
        "truncation": echo.get("truncation", "disabled"),
        "parallel_tool_calls": True,
        "text": {"format": _told_format(echo.get("text", {}).get("format") or {})},
        "top_p": _go_number(echo.get("top_p", 1)),
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "top_logprobs": 0,
        "temperature": _go_number(echo.get("temperature", 1)),
        "reasoning": _told_reasoning(echo.get("reasoning", {})),
        "usage": usage,
        "max_output_tokens": echo.get("max_output_tokens"),
        "max_tool_calls": None,
        "store": False,
        "background": echo.get("background", False),
        "service_tier": "default",
        "metadata": {},
        "safety_identifier": None,
        "prompt_cache_key": None,
    }


def _sorted_response(members: Members) -> Members:
    """The same in alphabetical order; a schema in `text` keeps its own, and `reasoning` has all its members."""
    if reasoning := members["reasoning"]:
        members["reasoning"] = {name: reasoning.get(name) for name in ("effort", "summary")}
    members["tools"] = _sorted(members["tools"])
    members["text"] = {"format": dict(sorted(members["text"]["format"].items()))}
    return dict(sorted(members.items()))


def _told_tool(tool: JSONObject) -> Members:
    return {name: _go_value(tool.get(name)) for name in _TOOL_MEMBERS}


def _told_format(given: JSONObject) -> Members:
    told = {name: given[name] for name in ("type", "name", "schema", "strict") if given.get(name) not in (None, "")}
    return {"type": given.get("type") or "text"} | told if given else {"type": "text"}


def _told_reasoning(given: JSONObject) -> Members | None:
    return {name: given[name] for name in ("effort", "summary") if given.get(name)} or None


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sorted(member) for name, member in sorted(value.items())}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def _go_value(value: Any) -> Any:
    """A value as Go tells it that read it into a map: members sorted, numbers as it prints a float64."""
    if isinstance(value, dict):
        return {name: _go_value(member) for name, member in sorted(value.items())}
    if isinstance(value, list):
        return [_go_value(item) for item in value]
    return _go_number(value) if isinstance(value, float) else value


def _go_number(value: float) -> float:
    """As Go prints a float64: no fraction where there is none, and exponents only beyond 1e-6 and 1e21."""
    number = float(value)
    if number.is_integer() and abs(number) < 1e21:
        return int(number)
    if 1e-6 <= abs(number) < 1e-4:  # which Python writes with an exponent
        return Number(f"{number:.20f}".rstrip("0"))
    return Number(repr(number).replace("e-0", "e-").replace("e+0", "e+"))
