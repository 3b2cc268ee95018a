"""Pages of the operator's port on what is stored.

Refuses to know the store: entries come and go through the callables it is given.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from aiohttp import web

from cacheproxy.edge.admin import Page, answer
from cacheproxy.errors import CacheError

logger = logging.getLogger(__name__)

ENTRY_ID = re.compile(r"[0-9a-f]{32}")
"""What a reply carries in `X-Cache-Entry`."""
SELECTOR_MAX = 1024
"""Longest selector value, characters. Ollama's longest name is a host of 350 and three parts of 80; the rest is hex."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which entries to take out: those of a model, one by id, those of a partition, or all (`value` is empty then)."""

    by: Literal["model", "id", "partition", "all"]
    value: str = ""


@dataclass(frozen=True, slots=True)
class Entries:
    """`/entries`. `purge` returns how many entries went, and raises CacheError when it could not finish."""

    purge: Callable[[Selection], Awaitable[int]]

    def pages(self) -> Mapping[str, Page]:
        """By path."""
        use = "take entries out: ?model=NAME, ?id=ID, ?partition=HEX or ?all=true"
        return {"/entries": Page(use, {"DELETE": self._delete})}

    async def _delete(self, request: web.BaseRequest) -> web.StreamResponse:
        selection = select(list(request.query.items()))
        if isinstance(selection, str):
            return answer({"error": selection}, 400)
        try:
            deleted = await self.purge(selection)
        except CacheError as error:
            return answer({"error": f"not all of it was deleted, ask again: {error}"}, 503)
        logger.info("entries deleted", extra={"by": selection.by, "value": selection.value, "deleted": deleted})
        return answer({"deleted": deleted})


def select(query: list[tuple[str, str]]) -> Selection | str:
    """The one selector of a `DELETE /entries`, or what is wrong with the query."""
    need = "give exactly one of ?model=NAME, ?id=ID, ?partition=HEX, ?all=true"
    if len(query) != 1:
        return f"{need}; got {len(query)} of them"
    ((name, value),) = query
    match name:
        case "all":
            return Selection("all") if value == "true" else f"{need}; 'all' must be 'true'"
        case "id" if not ENTRY_ID.fullmatch(value):
            return f"{need}; 'id' is the X-Cache-Entry of a reply"
        case "model" | "id" | "partition":
            if not 0 < len(value) <= SELECTOR_MAX or not value.isprintable():
                return f"{need}; '{name}' must be 1 to {SELECTOR_MAX} printable characters"
            return Selection(name, value)
        case _:
            return need
