"""Page of the operator's port that tells what would happen to an ask.

Refuses to answer the ask: the callable it is given only tells the story.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

from cacheproxy.edge.admin import Page, answer, read_json
from cacheproxy.flow.explain import Explanation, Request
from cacheproxy.wire.dialects import BY_PATH
from cacheproxy.wire.jsontext import write

BODY_BYTES_MAX = 1024**2
"""Longer asks than anybody types; keying one of this size takes 15 ms."""
FORM = 'send {"path": "/api/chat", "body": {"model": …, "messages": […]}, "headers": {}}'


@dataclass(frozen=True, slots=True)
class Explaining:
    """`/explain`. `explain` tells the story of a request; `prompts`: whether it tells texts."""

    explain: Callable[[Request], Awaitable[Explanation]]
    prompts: bool

    def pages(self) -> Mapping[str, Page]:
        """By path."""
        use = 'what would happen to an ask, and why: {"path": "/api/chat", "body": {…}, "headers": {…}}'
        return {"/explain": Page(use, {"POST": self._tell})}

    async def _tell(self, request: web.BaseRequest) -> web.StreamResponse:
        given = await read_json(request, BODY_BYTES_MAX, FORM)
        if isinstance(given, web.StreamResponse):
            return given
        wanted = read_request(given)
        if isinstance(wanted, str):
            return answer({"error": wanted}, 400)
        told = await self.explain(wanted)
        return answer(asdict(told) | {"prompts": self.prompts})


def read_request(given: Any) -> Request | str:
    """The ask to explain in what a body says, or what is wrong with it. Pure."""
    if not isinstance(given, dict) or not set(given) <= {"path", "body", "headers"}:
        return FORM
    path, ask, headers = given.get("path", "/api/chat"), given.get("body"), given.get("headers", {})
    if not isinstance(path, str) or path not in BY_PATH:
        return f"path {path!r} is not one whose asks are compared; there are {', '.join(BY_PATH)}"
    if not isinstance(ask, dict) or not _all_texts(headers):
        return FORM
    try:
        return Request(BY_PATH[path], write(ask), CIMultiDict(headers))
    except (ValueError, TypeError):
        return f"the ask cannot be written as JSON; {FORM}"


def _all_texts(headers: object) -> bool:
    return isinstance(headers, dict) and all(isinstance(value, str) for value in headers.values())
