"""Pages of the operator's port on what is stored.

Refuses to know the store: entries come and go through the callables it is given.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from aiohttp import web

from cacheproxy.edge.admin import Page, answer
from cacheproxy.errors import CacheError
from cacheproxy.store.shelf import Kept, Listing

_log = logging.getLogger("cacheproxy.edge")

ENTRY_ID = re.compile(r"[0-9a-f]{32}")
"""What a reply carries in `X-Cache-Entry`."""
SELECTOR_MAX = 1024
"""Longest selector value, characters. Ollama's longest name is a host of 350 and three parts of 80; the rest is hex."""
_NUMBER = re.compile(r"[0-9]{1,9}")
_FORMS = {"id": ENTRY_ID, "older": re.compile(r"[0-9]{1,10}")}
LIMIT, LIMIT_MAX = 50, 500
"""Entries in a list where nothing else is asked for, and at most."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which entries to take out: those of a model, one by id, those of a partition, older ones, or all.

    `value` is the name, the id, the partition, the age in seconds, or empty.
    """

    by: Literal["model", "id", "partition", "older", "all"]
    value: str = ""


@dataclass(frozen=True, slots=True)
class Query:
    """Which entries to list: at most `limit` of the newest, of one model, with a text in their question."""

    limit: int = LIMIT
    model: str = ""
    question: str = ""


@dataclass(frozen=True, slots=True)
class Entries:
    """`/entries` and `/entries/ID`. Every callable raises CacheError when it could not finish.

    `purge` returns how many entries went. `newest` is None for a model nobody has installed. `name_of` tells the
    name of the model with a digest, empty if it is not installed. `prompts`: whether texts may be shown.
    """

    purge: Callable[[Selection], Awaitable[int]]
    newest: Callable[[Query], Awaitable[Listing | None]]
    find: Callable[[str], Awaitable[Kept | None]]
    name_of: Callable[[str], str]
    prompts: bool

    def pages(self) -> Mapping[str, Page]:
        """By path."""
        use = (
            "the newest entries: ?limit=50, ?model=NAME, ?question=TEXT; "
            "DELETE takes entries out: ?model=NAME, ?id=ID, ?partition=HEX, ?older=SECONDS or ?all=true"
        )
        return {
            "/entries": Page(use, {"GET": self._list, "DELETE": self._delete}),
            "/entries/": Page("one entry by its id, with its answer where prompts may be shown", {"GET": self._show}),
        }

    async def _list(self, request: web.BaseRequest) -> web.StreamResponse:
        query = read_query(list(request.query.items()))
        if isinstance(query, str):
            return answer({"error": query}, 400)
        if query.question and not self.prompts:
            return answer({"error": "questions may not be shown, so none can be looked for; see log.prompts"}, 403)
        try:
            found = await self.newest(query)
        except CacheError as error:
            return answer({"error": f"nothing can be listed now: {error}"}, 503)
        if found is None:
            return answer({"error": f"no model {query.model!r} is installed"}, 404)
        return answer(
            {
                "entries": [self._told(kept) for kept in found.kept],
                "looked_at": found.looked_at,
                "complete": found.complete,
                "prompts": self.prompts,
            }
        )

    async def _show(self, request: web.BaseRequest) -> web.StreamResponse:
        entry_id = request.path.removeprefix("/entries/")
        if not ENTRY_ID.fullmatch(entry_id):
            return answer({"error": "an entry's id is the X-Cache-Entry of a reply, 32 hex digits"}, 400)
        try:
            kept = await self.find(entry_id)
        except CacheError as error:
            return answer({"error": f"it cannot be looked for now: {error}"}, 503)
        if kept is None:
            return answer({"error": "no such entry"}, 404)
        entry = kept.entry
        more = {"key": entry.key, "scope": entry.scope, "space": entry.space, "done_reason": entry.answer.done_reason}
        whole = asdict(entry.answer) | {"missing": sorted(entry.answer.missing)}
        return answer(self._told(kept) | more | {"answer": whole if self.prompts else None, "prompts": self.prompts})

    def _told(self, kept: Kept) -> dict[str, Any]:
        """One entry as a list shows it."""
        entry = kept.entry
        return {
            "id": entry.id,
            "model": self.name_of(entry.digest),
            "digest": entry.digest,
            "made": entry.made,
            "expires": entry.expires,
            "question": entry.question if self.prompts else "",
            "kind": kind_of(kept),
            "near": bool(entry.vector),
            "bytes": kept.size_bytes,
            "tokens": tokens_of(kept),
            "partition": entry.partition,
        }

    async def _delete(self, request: web.BaseRequest) -> web.StreamResponse:
        selection = select(list(request.query.items()))
        if isinstance(selection, str):
            return answer({"error": selection}, 400)
        try:
            deleted = await self.purge(selection)
        except CacheError as error:
            return answer({"error": f"not all of it was deleted, ask again: {error}"}, 503)
        _log.info("entries deleted", extra={"by": selection.by, "value": selection.value, "deleted": deleted})
        return answer({"deleted": deleted})


def select(query: list[tuple[str, str]]) -> Selection | str:
    """The one selector of a `DELETE /entries`, or what is wrong with the query."""
    need = "give exactly one of ?model=NAME, ?id=ID, ?partition=HEX, ?older=SECONDS, ?all=true"
    if len(query) != 1:
        return f"{need}; got {len(query)} of them"
    ((name, value),) = query
    match name:
        case "all":
            return Selection("all") if value == "true" else f"{need}; 'all' must be 'true'"
        case "id" | "older" if not _FORMS[name].fullmatch(value):
            return f"{need}; 'id' is the X-Cache-Entry of a reply, 'older' an age in whole seconds"
        case "model" | "id" | "partition" | "older":
            if not 0 < len(value) <= SELECTOR_MAX or not value.isprintable():
                return f"{need}; '{name}' must be 1 to {SELECTOR_MAX} printable characters"
            return Selection(name, value)
        case _:
            return need


def read_query(query: list[tuple[str, str]]) -> Query | str:
    """What a `GET /entries` asks for, or what is wrong with it."""
    wanted = dict(query)
    if len(wanted) < len(query) or not set(wanted) <= {"limit", "model", "question"}:
        return "give ?limit=N, ?model=NAME and ?question=TEXT, each once at most"
    limit = wanted.get("limit", str(LIMIT))
    if not (_NUMBER.fullmatch(limit) and 1 <= int(limit) <= LIMIT_MAX):
        return f"limit={limit[:20]}: expected a number from 1 to {LIMIT_MAX}"
    texts = [wanted.get(name, "") for name in ("model", "question")]
    if any(len(text) > SELECTOR_MAX for text in texts):
        return f"model and question have at most {SELECTOR_MAX} characters"
    return Query(int(limit), *texts)


def kind_of(kept: Kept) -> str:
    """`vector`, `tools` or `text`: what the answer is. The path it was asked through is not kept. Pure."""
    found = kept.entry.answer
    if {"call", "times", "inputs"} <= found.final.keys():
        return "vector"
    return "tools" if found.tool_calls else "text"


def tokens_of(kept: Kept) -> int | None:
    """Tokens of the answer, as Ollama counted them; None where it did not tell. Pure."""
    count = kept.entry.answer.final.get("eval_count")
    return count if isinstance(count, int) and not isinstance(count, bool) else None
