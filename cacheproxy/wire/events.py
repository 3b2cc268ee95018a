"""What `/v1/messages` and `/v1/responses` share: events that have names, and asks whose replies echo them.

Both are chats to Ollama. A request whose native twin is known to the last member is keyed as that; any other as it
stands, in a family of its own, where it shares with its equals alone.

Refuses to keep a reply with parts that have no native form: it could only be bent into one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cacheproxy.errors import UnkeyableError
from cacheproxy.model import Ask, JSONObject, Part, Parts
from cacheproxy.wire import canonical, native
from cacheproxy.wire.jsontext import check_names, read_answer, read_spelled, write, write_go
from cacheproxy.wire.native import Fold
from cacheproxy.wire.openai import Members, NoTwinError
from cacheproxy.wire.request import Parsed

STREAM_HEADERS: tuple[tuple[str, str], ...] = (("Cache-Control", "no-cache"),)
"""Ollama sets them on these two routes alone."""
_COUNTS = {"input_tokens": "prompt_eval_count", "output_tokens": "eval_count"}


# --- Requests ---


@dataclass(frozen=True, slots=True)
class Form:
    """What is particular to the asks of one dialect, or of one ask. See `Ask` for the members."""

    dialect: str
    needs: Parts
    lacks: Parts
    echo: JSONObject
    name_matters: bool
    temperature: object = None


def ask(parsed: Parsed, members: Members, twin: Callable[[Members], Members], form: Form) -> Ask:
    """Put the parts together. `twin` makes canonical native members of `members`, or raises NoTwinError.

    `members` are those that may shape the answer. Raises UnkeyableError where Ollama would refuse the request for one
    of the others.
    """
    model, streamed = parsed.members.get("model"), parsed.members.get("stream", False)
    if not isinstance(model, str) or not model.strip():
        raise UnkeyableError("model")
    if not isinstance(streamed, bool):
        raise UnkeyableError("stream")
    family, translated = "chat", True
    try:
        members = twin(dict(members))
    except NoTwinError:
        family, translated = form.dialect, False
    if translated and not members["messages"]:
        raise UnkeyableError("load")
    temperature = canonical.options({"temperature": form.temperature}).get("temperature")
    return Ask(
        dialect=form.dialect,
        family=family,
        model=model,
        stream=streamed,
        canonical=canonical.canonical_bytes(members),
        body=members,
        temperature=temperature if isinstance(temperature, float) else None,
        translated=translated,
        name_matters=form.name_matters,
        controls=parsed.controls,
        needs=form.needs,
        lacks=form.lacks,
        echo=form.echo,
        forward=parsed.forward,
    )


def tools(given: object, *, known: frozenset[str]) -> list[JSONObject]:
    """A request's tools. `known`: the names of the members that Ollama reads of one.

    Raises UnkeyableError: `tools`, `ambiguous-keys`, or `web-search` if Ollama itself would look something up.
    """
    if not isinstance(given, list) or not all(isinstance(tool, dict) for tool in given):
        raise UnkeyableError("tools")
    for tool in given:
        check_names(tool, known)
    if any(str(tool.get("type", "")).startswith("web_") for tool in given):
        raise UnkeyableError("web-search")
    return given


def native_tool(name: object, description: object, parameters: object) -> Members:
    """A tool as `/api/chat` takes it. Raises NoTwinError."""
    if not isinstance(name, str) or not isinstance(description, str | None):
        raise NoTwinError
    if not isinstance(parameters, dict) or not parameters:
        raise NoTwinError
    about = {} if description is None else {"description": description}
    return {"type": "function", "function": {"name": name, **about, "parameters": parameters}}


# --- Replies, written ---


def event(kind: str, members: JSONObject) -> bytes:
    """One event of a stream."""
    return b"event: " + kind.encode() + b"\ndata: " + write(members) + b"\n\n"


def usage(counts: JSONObject) -> dict[str, int]:
    """The numbers of tokens, of Ollama's."""
    return {name: counts.get(count, 0) for name, count in _COUNTS.items()}


def arguments(call: JSONObject) -> JSONObject:
    """The arguments of a native tool call; `{}` if it has none."""
    return (call.get("function") or {}).get("arguments") or {}


# --- Replies, read ---


class EventFold(Fold, ABC):
    """Reads one reply, streamed or whole, as native chunks."""

    def __init__(self) -> None:
        super().__init__(native.CHAT)
        self._counts: Members = {}
        self._counted = False
        self._called = 0

    @abstractmethod
    def on_event(self, event: JSONObject) -> Sequence[Mapping[str, Any]]:
        """The native chunks in one event. Raises ValueError for what has no native form."""

    @abstractmethod
    def on_whole(self, reply: JSONObject) -> Mapping[str, Any]:
        """The native chunk of a whole reply. Raises ValueError for what has no native form."""

    @property
    def missing(self) -> Parts:
        """What the reply did not tell."""
        return frozenset({Part.DURATIONS} if self._counted else {Part.DURATIONS, Part.COUNTS})

    def read(self, line: bytes) -> Sequence[Mapping[str, Any]]:
        """The chunks that a line of the stream, or a whole reply, completes. Raises ValueError."""
        if not line.strip() or line.startswith(b"event: "):  # the data repeat the event's name
            return ()
        if self.done:
            raise ValueError("something after the end")
        if line.startswith(b"data: "):
            return self.on_event(read_answer(line.removeprefix(b"data: ")))
        return (self.on_whole(read_spelled(line)),)

    def count(self, told: object) -> None:
        """Note a `usage`. Raises ValueError for one of another form."""
        if told is None:
            return
        if not isinstance(told, dict) or not all(type(told.get(name, 0)) is int for name in _COUNTS):
            raise ValueError("usage of another form")
        self._counted = True
        self._counts = {count: told[name] for name, count in _COUNTS.items() if told.get(name)}

    def ending(self, reason: str) -> Members:
        """The members that make a chunk the last one."""
        return {"done": True, "done_reason": reason, **self._counts}

    def call(self, call_id: object, name: object, given: object) -> Members:
        """A tool call as Ollama gives it; `given`: its arguments, or their text. Raises ValueError."""
        if not (isinstance(call_id, str) and call_id and isinstance(name, str) and name):
            raise ValueError("a tool call without a name")
        arguments = read_spelled(given.encode()) if isinstance(given, str) else given
        if not isinstance(arguments, dict) or (isinstance(given, str) and write_go(arguments).decode() != given):
            raise ValueError("arguments that would not come back the same")
        function = {"index": self._called, "name": name, "arguments": arguments}
        self._called += 1
        return {"id": call_id, "function": function}


def text_of(members: JSONObject, name: str) -> str:
    """A member that is text. Raises ValueError."""
    value = members.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} is no text")
    return value


def objects(value: object) -> list[JSONObject]:
    """A list of objects. Raises ValueError."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError("not a list of objects")
    return value


def objects_in(members: JSONObject, name: str) -> JSONObject:
    """A member that is an object. Raises ValueError."""
    value = members.get(name)
    if not isinstance(value, dict):
        raise ValueError(f"{name} is no object")
    return value
