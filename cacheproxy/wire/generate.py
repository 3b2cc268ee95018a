"""`/api/generate`: bytes to `Ask`, `Answer` to bytes.

Refuses to key a request with no prompt (it loads or unloads a model); it goes to Ollama as it came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cacheproxy.errors import UnkeyableError
from cacheproxy.model import Answer, Ask, Part
from cacheproxy.wire import canonical, native, request
from cacheproxy.wire.native import Fold

NAME = "generate"
PATH = "/api/generate"
FAMILY = "generate"
WHOLE_TYPE = native.WHOLE_TYPE
STREAM_TYPE = native.STREAM_TYPE
STREAM_HEADERS = native.STREAM_HEADERS

_MEMBERS = request.COMMON_MEMBERS | {
    "prompt", "suffix", "system", "template", "context", "raw", "images", "width", "height", "steps",
}  # fmt: skip
_NEEDS = frozenset(Part)
_TEXTS = ("prompt", "suffix", "system", "template")


def parse(body: bytes) -> Ask:
    """The ask in a request body. Raises UnkeyableError with the reason why it has no key."""
    parsed = request.read(body, known=_MEMBERS)
    members = request.common(parsed.members)
    for name in _TEXTS:
        if not isinstance(members.get(name, ""), str):
            raise UnkeyableError("not-text")
        if not members.get(name, "-"):
            del members[name]
    if "prompt" not in members:
        raise UnkeyableError("load")
    if members.get("raw") is False:
        del members["raw"]
    if "images" in members:
        images = canonical.images(members.pop("images"))
        if images:
            members["images"] = images
    return request.ask(parsed, members, dialect=NAME, family=FAMILY, name_matters=False, needs=_NEEDS)


def fold() -> Fold:
    """An empty fold for the chunks of one reply."""
    return Fold(native.GENERATE)


def whole(ask: Ask, answer: Answer, now: float) -> bytes:
    """The reply to `stream: false`. `now`: Unix time for `created_at`, s."""
    return native.whole(native.GENERATE, ask, answer, now)


def stream(ask: Ask, answer: Answer, now: float) -> Iterator[bytes]:
    """The reply to `stream: true`, line by line."""
    return native.stream(native.GENERATE, ask, answer, now)


def relay(ask: Ask, now: float) -> Callable[[Mapping[str, Any]], bytes]:
    """Writer of this caller's lines from the live chunks of an equal ask. `now`: Unix time, s."""
    return native.relay(ask, now)
