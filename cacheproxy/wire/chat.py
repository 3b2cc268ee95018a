"""`/api/chat`: bytes to `Ask`, `Answer` to bytes.

Refuses to key a request with no messages (it loads or unloads a model) or one that only asks how a prompt would be
rendered; those go to Ollama as they came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cacheproxy.errors import UnkeyableError
from cacheproxy.model import Answer, Ask, Part
from cacheproxy.wire import canonical, native, request
from cacheproxy.wire.native import Fold

NAME = "chat"
PATH = "/api/chat"
FAMILY = "chat"

WHOLE_TYPE = native.WHOLE_TYPE
STREAM_TYPE = native.STREAM_TYPE
STREAM_HEADERS = native.STREAM_HEADERS

_MEMBERS = request.COMMON_MEMBERS | {"messages", "tools"}
_NEEDS = frozenset({Part.DURATIONS, Part.COUNTS, Part.ENDING, Part.ENDING_OF_CALLS})


def parse(body: bytes) -> Ask:
    """The ask in a request body. Raises UnkeyableError with the reason why it has no key."""
    parsed = request.read(body, known=_MEMBERS)
    members = request.common(parsed.members)
    history = canonical.messages(members.pop("messages", []))
    if not history:
        raise UnkeyableError("load")
    tools = members.pop("tools", [])
    if not isinstance(tools, list):
        raise UnkeyableError("tools")
    if tools:
        members["tools"] = tools
    members["messages"] = history
    assistant_spoke = any(message.get("role") == "assistant" for message in history)
    return request.ask(parsed, members, dialect=NAME, family=FAMILY, name_matters=assistant_spoke, needs=_NEEDS)


def fold() -> Fold:
    """An empty fold for the chunks of one reply."""
    return Fold(native.CHAT)


def whole(ask: Ask, answer: Answer, now: float) -> bytes:
    """The reply to `stream: false`. `now`: Unix time for `created_at`, s."""
    return native.whole(native.CHAT, ask, answer, now)


def stream(ask: Ask, answer: Answer, now: float) -> Iterator[bytes]:
    """The reply to `stream: true`, line by line."""
    return native.stream(native.CHAT, ask, answer, now)


def relay(ask: Ask, now: float) -> Callable[[Mapping[str, Any]], bytes]:
    """Writer of this caller's lines from the live chunks of an equal ask. `now`: Unix time, s."""
    return native.relay(ask, now)
