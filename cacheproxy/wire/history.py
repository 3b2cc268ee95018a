"""What was said before in a chat, as each dialect spells it: whose each message is, and what there is to read in it.

Each message is told as a native one, near enough to be weighed and never to be sent: a request whose native twin nobody
is sure of has a history all the same. Refuses to judge what is too long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cacheproxy.model import JSONObject
from cacheproxy.wire import chat, messages, openai_chat, responses
from cacheproxy.wire.jsontext import write_plain

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class History:
    """One request's."""

    member: str
    """Where the messages stand in it."""
    messages: Sequence[Mapping[str, Any]]
    """One for each item of that list: `role` (`system` for all that instructs the model, `tool` for what a tool gave),
    and `content`, `thinking`, `tool_calls`, `images` where there are such; `calls` and `answers` are the ids of the
    calls of tools that it makes and that it answers, empty ones where a caller gives none.
    """
    beside: str = ""
    """What else instructs the model, outside of the messages."""
    tools: object = None


def history_of(dialect: str, members: JSONObject) -> History | None:
    """The history in a request's members; None for one that is no chat, or whose caller forbids to shorten it."""
    read = _READERS.get(dialect)
    return read(members) if read is not None else None


def _native(members: JSONObject) -> History | None:
    if members.get("truncate") is False:
        return None
    said = [
        _without_nulls(message) | {"role": _role(message)} | _ids(message)
        for message in _objects(members.get("messages"))
    ]
    return History("messages", said, tools=members.get("tools"))


def _without_nulls(message: JSONObject) -> Message:
    return {name: value for name, value in message.items() if value is not None}


def _openai(members: JSONObject) -> History:
    said = [_openai_message(message) for message in _objects(members.get("messages"))]
    return History("messages", said, tools=members.get("tools"))


def _openai_message(message: JSONObject) -> Message:
    told = _content(message.get("content"))
    calls = {"tool_calls": message["tool_calls"]} if message.get("tool_calls") else {}
    return {"role": _role(message), "thinking": _text(message.get("reasoning"))} | told | calls | _ids(message)


def _ids(message: JSONObject) -> Message:
    """Of the calls of a message in the form of Ollama's or OpenAI's chats."""
    calls = [_text(call.get("id")) for call in _objects(message.get("tool_calls"))]
    return {"calls": calls, "answers": [_text(message.get("tool_call_id"))] if _role(message) == "tool" else []}


def _anthropic(members: JSONObject) -> History:
    said = [_anthropic_message(message) for message in _objects(members.get("messages"))]
    return History("messages", said, _content(members.get("system"))["content"], members.get("tools"))


def _anthropic_message(message: JSONObject) -> Message:
    """A tool's result comes as a user's message here, which is none: its call stands in the message before."""
    told: Message = {"role": _role(message)} | _content(message.get("content"))
    blocks = _objects(message.get("content"))
    told["answers"] = [_text(block.get("tool_use_id")) for block in blocks if block.get("type") == "tool_result"]
    if told["answers"]:
        told["role"] = "tool"
    calls = [block for block in blocks if block.get("type") == "tool_use"]
    if calls:
        told["tool_calls"] = calls
    return told | {"calls": [_text(block.get("id")) for block in calls]}


def _responses(members: JSONObject) -> History | None:
    if members.get("truncation") == "disabled" or not isinstance(members.get("input"), list):
        return None
    said = [_responses_item(item) for item in _objects(members["input"])]
    return History("input", said, _text(members.get("instructions")), members.get("tools"))


def _responses_item(item: JSONObject) -> Message:
    kind = str(item.get("type", "message"))
    if kind == "message":
        return {"role": _role(item)} | _content(item.get("content"))
    ids = [_text(item.get("call_id"))]
    return {  # a call, what it gave, what was thought before it
        "role": "tool",
        "content": write_plain(item).decode(),
        "calls": ids if kind.endswith("_call") else [],
        "answers": ids if kind.endswith("_call_output") else [],
    }


def _role(message: JSONObject) -> str:
    role = str(message.get("role", "")).lower()
    return "system" if role == "developer" else role


def _content(given: object) -> Message:
    """Texts and images of a message's content: a text, or a list of parts."""
    texts, images = [_text(given)], 0
    for part in _objects(given):
        kind = str(part.get("type", ""))
        if "image" in kind:
            images += 1
        elif kind == "tool_result":
            inner = _content(part.get("content"))
            texts.append(inner["content"])
            images += len(inner["images"])
        elif kind != "tool_use":
            texts += [_text(part.get("text")), _text(part.get("thinking"))]
    return {"content": "".join(texts), "images": [""] * images}


def _text(given: object) -> str:
    return given if isinstance(given, str) else ""


def _objects(given: object) -> list[JSONObject]:
    """The items of a list, one for each: what is no object is an empty one."""
    return [item if isinstance(item, dict) else {} for item in given] if isinstance(given, list) else []


_READERS: Mapping[str, Callable[[JSONObject], History | None]] = {
    chat.NAME: _native,
    openai_chat.NAME: _openai,
    messages.NAME: _anthropic,
    responses.NAME: _responses,
}
