"""Pages of the operator's port on what was: asks over time, neighbours by similarity, single asks, compared questions.

They show the ledger, so all proxies of one Redis together. Refuses to keep or sum anything itself.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from cacheproxy.config import Config
from cacheproxy.counting.labels import OTHER
from cacheproxy.edge.admin import Handler, Page, answer
from cacheproxy.errors import CacheError
from cacheproxy.store.account import HOURS_MAX, Account, step_for
from cacheproxy.store.batch import ASKS_MAX, PAIRS_MAX

HOURS_MIN = 0.1
NAME_MAX = 1024
"""Longest name of a model, characters."""


@dataclass(frozen=True, slots=True)
class History:
    """`/series`, `/similarity`, `/pairs` and `/asks`."""

    account: Account
    config: Config

    def pages(self) -> Mapping[str, Page]:
        """By path."""
        return {
            "/series": Page("asks over time: ?hours=H&step=S&to=TIME&model=NAME", {"GET": _worded(self._series)}),
            "/similarity": Page("neighbours by similarity: ?hours=H&model=NAME", {"GET": _worded(self._similarity)}),
            "/pairs": Page("compared questions: ?around=SIMILARITY&limit=N", {"GET": _worded(self._pairs)}),
            "/asks": Page("the last asks: ?limit=N", {"GET": _worded(self._asks)}),
        }

    async def _series(self, query: Mapping[str, str]) -> dict[str, Any]:
        hours = _number(query, "hours", 1, HOURS_MIN, HOURS_MAX)
        step_s = _number(query, "step", step_for(hours), 60, HOURS_MAX * 3600)
        if step_s % 60:
            raise ValueError("step: seconds, a multiple of 60")
        to = _number(query, "to", math.inf, 0, math.inf)
        return await self.account.series(hours, int(step_s), _model(query), to)

    async def _similarity(self, query: Mapping[str, str]) -> dict[str, Any]:
        hours, model = _number(query, "hours", 24, HOURS_MIN, HOURS_MAX), _model(query)
        semantic = self.config.semantic
        own = self.config.model_rule(model).threshold if model is not None else None
        threshold = semantic.threshold if own is None else own
        return {"threshold": threshold, "mode": semantic.mode} | await self.account.similarity(hours, model)

    async def _pairs(self, query: Mapping[str, str]) -> dict[str, Any]:
        around = _number(query, "around", self.config.semantic.threshold, 0, 1)
        pairs = await self.account.pairs(around, int(_number(query, "limit", 20, 1, PAIRS_MAX)))
        return {"prompts": self.account.prompts, "pairs": pairs}

    async def _asks(self, query: Mapping[str, str]) -> dict[str, Any]:
        left_out, asks = await self.account.recent(int(_number(query, "limit", 50, 1, ASKS_MAX)))
        return {"left_out": left_out, "asks": asks}


def _worded(read: Callable[[Mapping[str, str]], Awaitable[dict[str, Any]]]) -> Handler:
    """A handler that answers with what `read` returns: 400 with its words for a ValueError, 503 without Redis."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return answer(await read(request.query))
        except ValueError as error:
            return answer({"error": str(error)}, 400)
        except CacheError as error:
            return answer({"error": f"the ledger is in Redis, ask again: {error}"}, 503)

    return handle


def _number(query: Mapping[str, str], name: str, default: float, least: float, most: float) -> float:
    """A number from the query. Raises ValueError, which says what it may be."""
    if name not in query:
        return default
    try:
        number = float(query[name])
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        upper = f"between {least:g} and {most:g}" if most < math.inf else f"from {least:g} on"
        raise ValueError(f"{name}: a number {upper}")
    return number


def _model(query: Mapping[str, str]) -> str | None:
    """The model asked for, with its tag as everywhere here; None where the query names none, or an empty one."""
    name = query.get("model", "")
    if len(name) > NAME_MAX:
        raise ValueError(f"model: at most {NAME_MAX} characters")
    if not name:
        return None
    return name if ":" in name or name == OTHER else f"{name}:latest"
