"""Page of the operator's port on which people say whether a hit was right.

Refuses to act on it: that is done by the callable it is given.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from cacheproxy.edge.admin import Page, answer, read_json
from cacheproxy.edge.entries import ENTRY_ID
from cacheproxy.errors import CacheError

_log = logging.getLogger("cacheproxy.edge")

OPINION_BYTES_MAX = 65_536
"""More than any question takes that can be compared by meaning."""
FORM = (
    'send {"entry": ID, "good": true or false}, ID being the X-Cache-Entry of the reply; '
    'and, if you like, "question": the text that was asked'
)


@dataclass(frozen=True, slots=True)
class Opinion:
    """What somebody says of a hit; `entry` is its `X-Cache-Entry`."""

    entry: str
    good: bool
    question: str | None = None
    """What was asked, word for word; None: what the entry served last."""


@dataclass(frozen=True, slots=True)
class Opinions:
    """`/feedback`. `feedback` says what was done, None if nothing is known of the entry; it may raise CacheError."""

    feedback: Callable[[Opinion], Awaitable[dict[str, Any] | None]]

    def pages(self) -> Mapping[str, Page]:
        """By path."""
        form = '{"entry": ID, "good": false, "question": TEXT}'
        use = f"say {form} of a wrong hit: it goes, and the pair is kept apart"
        return {"/feedback": Page(use, {"POST": self._take_opinion})}

    async def _take_opinion(self, request: web.BaseRequest) -> web.StreamResponse:
        given = await read_json(request, OPINION_BYTES_MAX, FORM)
        if isinstance(given, web.StreamResponse):
            return given
        opinion = read_opinion(given)
        if opinion is None:
            return answer({"error": FORM}, 400)
        try:
            done = await self.feedback(opinion)
        except CacheError as error:
            return answer({"error": f"not noted, say it again: {error}"}, 503)
        if done is None:
            return answer({"error": "no such entry"}, 404)
        _log.info("feedback", extra={"entry": opinion.entry, "good": opinion.good} | done)
        return answer({"entry": opinion.entry, "good": opinion.good} | done)


def read_opinion(given: Any) -> Opinion | None:
    """The opinion in what a body says; None where that has another form. Pure."""
    if not isinstance(given, dict) or not {"entry", "good"} <= set(given) <= {"entry", "good", "question"}:
        return None
    entry, good, question = given["entry"], given["good"], given.get("question")
    if not isinstance(entry, str) or not ENTRY_ID.fullmatch(entry) or not isinstance(good, bool):
        return None
    if not (question is None or (isinstance(question, str) and _encodable(question))):
        return None
    return Opinion(entry, good, question)


def _encodable(text: str) -> bool:
    """False where half a surrogate pair was escaped, which JSON allows and no text holds."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
