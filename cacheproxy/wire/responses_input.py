"""`input` of `/v1/responses`: what Ollama reads of its items, and the native messages that it makes of them.

Ollama keeps no responses, so the ids that clients send back name nothing to it; it reads items into structs and drops
every other member (openai/responses.go, the same in 0.33 as in those before and after). Called by `responses.py`, the
dialect. Refuses to tell the messages of items that other versions of Ollama put together in another way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cacheproxy.errors import UnkeyableError
from cacheproxy.model import JSONObject
from cacheproxy.wire.jsontext import check_names, read_each
from cacheproxy.wire.openai import Members, NoTwinError

_READ = {
    "message": frozenset({"type", "role", "content"}),
    "function_call": frozenset({"type", "call_id", "name", "arguments"}),
    "function_call_output": frozenset({"type", "call_id", "output"}),
    "reasoning": frozenset({"type", "encrypted_content"}),
}
"""By the type of an item: what of it may shape the answer."""
_DROPPED = {
    "message": frozenset({"id", "status"}),
    "function_call": frozenset({"id", "status", "parsed_arguments"}),
    "function_call_output": frozenset({"id", "status"}),
    "reasoning": frozenset({"id", "status", "summary"}),
}
"""What clients send besides that says nothing to Ollama. What is in neither set, some Ollama may read one day."""
_NAMES = frozenset[str]().union(*_READ.values(), *_DROPPED.values()) - {"status", "parsed_arguments"}
"""All that Ollama reads of an item, also where it makes nothing of it."""
_PART_READ = frozenset({"type", "text"})
_PART_DROPPED = frozenset({"annotations", "logprobs", "parsed"})


def check(given: object) -> None:
    """Refuse names that Ollama takes for others: an assistant's turn must be seen as one. Raises UnkeyableError."""
    for item in given if isinstance(given, list) else ():
        if isinstance(item, dict):
            check_names(item, _NAMES)
            for parts in (item.get("content"), item.get("output")):
                for part in parts if isinstance(parts, list) else ():
                    if isinstance(part, dict):
                        check_names(part, _PART_READ)


def assistant_spoke(given: object) -> bool:
    """Whether there is, or may be, a turn of the assistant."""
    if not isinstance(given, list):
        return False
    return any(not isinstance(item, dict) or _role(item) == "assistant" for item in given)


def _role(item: JSONObject) -> str:
    others = "tool" if item.get("type") == "function_call_output" else "assistant"
    return str(item.get("role", others)).lower()


def read(given: object) -> object:
    """The same input without what Ollama drops of its items; what it would refuse stays in."""
    return [_item(item) for item in given] if isinstance(given, list) else given


def _item(item: object) -> object:
    if not isinstance(item, dict) or (kind := _kind(item)) not in _READ:
        return item
    kept = {name: value for name, value in item.items() if not _is_dropped(kind, name, value)}
    for name in ("content", "output"):
        if isinstance(parts := kept.get(name), list):
            kept[name] = [_part(part) for part in parts]
    return kept


def _kind(item: JSONObject) -> str:
    """The type of an item; an item with a role needs none to be a message."""
    kind = item.get("type")
    if kind is None or kind == "":
        return "message" if item.get("role") else ""
    return kind if isinstance(kind, str) else ""


def _is_dropped(kind: str, name: str, value: object) -> bool:
    """Whether a member says nothing. One that Ollama reads into nothing must be of the type that it reads."""
    if name in _READ[kind]:
        return False
    if value is None:
        return True
    if name == "id":
        return isinstance(value, str) or kind in ("message", "function_call_output")
    return name in _DROPPED[kind] and (name != "summary" or _is_summary(value))


def _is_summary(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(part, dict) and part.keys() <= _PART_READ and all(isinstance(said, str) for said in part.values())
        for part in value
    )


def _part(part: object) -> object:
    if not isinstance(part, dict) or part.get("type") not in ("input_text", "output_text"):
        return part
    return {
        name: value
        for name, value in part.items()
        if name in _PART_READ or not (name in _PART_DROPPED or value is None)
    }


def messages(given: object) -> list[Members]:
    """The native messages in what `read` gave. Raises NoTwinError where it is not certain which Ollama makes."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}] if given else []
    if not isinstance(given, list) or not all(isinstance(item, dict) for item in given):
        raise NoTwinError
    calls = iter(_calls([item for item in given if _kind(item) == "function_call"]))
    history = _History()
    for item in given:
        match _kind(item):
            case "message":
                history.say(_message(item))
            case "function_call":
                history.call(next(calls))
            case "function_call_output":
                history.said.append(_result(item))
            case "reasoning":
                history.thinking = _thinking(item)
            case _:
                raise NoTwinError
    return history.ended()


class _History:
    """Native messages as Ollama makes them one by one. `assistant` is meant to the letter: other cases are no turn."""

    def __init__(self) -> None:
        self.said: list[Members] = []
        self.thinking = ""
        """Of the next turn of the assistant, whatever stands between; a later one takes its place."""

    def say(self, message: Members) -> None:
        """Add a message. Raises NoTwinError for a turn after calls: later versions make one of the two."""
        if message["role"] == "assistant" and "tool_calls" in self._turn():
            raise NoTwinError
        self.said.append(message)
        self._think()

    def call(self, call: Members) -> None:
        """Add a call to the assistant's turn that it stands in, or to a new one."""
        if not self._turn():
            self.said.append({"role": "assistant"})
        self.said[-1].setdefault("tool_calls", []).append(call)
        self._think()

    def _turn(self) -> Members:
        return self.said[-1] if self.said and self.said[-1]["role"] == "assistant" else {}

    def _think(self) -> None:
        if self._turn() and self.thinking:
            self._turn()["thinking"], self.thinking = self.thinking, ""

    def ended(self) -> list[Members]:
        """All messages; thinking that nothing follows is a turn of its own."""
        return [*self.said, {"role": "assistant", "thinking": self.thinking}] if self.thinking else self.said


def _message(item: JSONObject) -> Members:
    match item:
        case {"role": str(role), "content": content, **rest} if rest.keys() <= {"type"}:
            return {"role": role, "content": _joined(content)}
    raise NoTwinError


def _thinking(item: JSONObject) -> str:
    thinking = item.get("encrypted_content")  # Ollama's own holds the thinking itself
    thinking = "" if thinking is None else thinking
    if not item.keys() <= _READ["reasoning"] or not isinstance(thinking, str):
        raise NoTwinError
    return thinking


def _result(item: JSONObject) -> Members:
    match item:
        case {"type": _, "call_id": str(call_id), "output": output, **rest} if call_id and not rest:
            return {"role": "tool", "content": _joined(output), "tool_call_id": call_id}
    raise NoTwinError


def _calls(items: Sequence[JSONObject]) -> list[Members]:
    """The native calls. Raises NoTwinError."""
    if not all(item.keys() == _READ["function_call"] and _is_call(item) for item in items):
        raise NoTwinError
    try:
        arguments = read_each([item["arguments"].encode("utf-8", "surrogatepass") for item in items])
    except UnkeyableError:
        raise NoTwinError from None
    return [
        {"id": item["call_id"], "function": {"name": item["name"], "arguments": given}}
        for item, given in zip(items, arguments, strict=True)
    ]


def _is_call(item: JSONObject) -> bool:
    return all(isinstance(item[name], str) and item[name] for name in ("call_id", "name", "arguments"))


def _joined(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise NoTwinError
    return "".join(map(_text, content))


def _text(part: object) -> str:
    match part:
        case {"type": "input_text" | "output_text", "text": str(text), **rest} if not rest:
            return text
    raise NoTwinError
