"""Page of the operator's port that tells what would happen to an ask.

Refuses to answer the ask: the callable it is given only tells the story.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

from cacheproxy.edge.admin import Page, answer
from cacheproxy.flow.explain import Explanation, Request
from cacheproxy.wire.dialects import BY_PATH
from cacheproxy.wire.jsontext import write

BODY_BYTES_MAX = 1024**2
"""Longer asks than anybody types; keying one of this size takes 15 ms."""


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
        body = b""
        while len(body) <= BODY_BYTES_MAX and (piece := await request.content.readany()):
            body += piece
        if len(body) > BODY_BYTES_MAX:
            return answer({"error": f"the ask has more than {BODY_BYTES_MAX:,} bytes"}, 413)
        wanted = read_request(body)
        if isinstance(wanted, str):
            return answer({"error": wanted}, 400)
        told = await self.explain(wanted)
        return answer(asdict(told) | {"prompts": self.prompts})


def read_request(body: bytes) -> Request | str:
    """The ask to explain out of a request's body, or what is wrong with it. Pure."""
    form = 'send {"path": "/api/chat", "body": {"model": …, "messages": […]}, "headers": {}}'
    try:
        given: Any = json.loads(body)
    except (ValueError, RecursionError):
        return f"the body is not JSON; {form}"
    if not isinstance(given, dict) or not set(given) <= {"path", "body", "headers"}:
        return form
    path, ask, headers = given.get("path", "/api/chat"), given.get("body"), given.get("headers", {})
    if path not in BY_PATH:
        return f"path {path!r} is not one whose asks are compared; there are {', '.join(BY_PATH)}"
    if not isinstance(ask, dict) or not _all_texts(headers):
        return form
    try:
        return Request(BY_PATH[path], write(ask), CIMultiDict(headers))
    except (ValueError, TypeError):
        return f"the ask cannot be written as JSON; {form}"


def _all_texts(headers: object) -> bool:
    return isinstance(headers, dict) and all(isinstance(value, str) for value in headers.values())
