"""What was learnt of an Ollama's memory, kept over restarts: a note that is read once and written when it changes.

Looks whenever `/api/ps` was read, and works behind that: nobody waits for a note, and what cannot be read or written
(Redis is away) is tried again at the next look. What is no note, or one of another version, is as good as none. One
from another machine, or from before more memory, mends as any wrong guess does, and what was seen since the start
counts for more. A full Redis drops what nobody reads, so a note is read now and then, for nothing else. Refuses to
judge what fits: see `crowding.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from cacheproxy.behind import end
from cacheproxy.clock import Clock
from cacheproxy.errors import CacheError, EntryCorruptError, StoreRefusedError
from cacheproxy.upstream.crowding import APART_MAX, BEFORE, Crowding, Fit

KEPT_S = 30 * 86400.0
"""How long a note is kept after what it says last changed, however often it is read: what nothing shows to be wrong is
over some day. Then one burst pays for learning anew.
"""
TOUCH_S = 300.0
"""Between two reads that keep a note from being the least recently used of all."""
VERSION = 1
"""Of the note's form."""
MODELS_MAX = 1024
"""As `upstream.models_at_once` has it; what says more is no note."""
WHY_MAX = 1000
"""Characters of a reason that are taken over: two names of models and a few words are less."""

_log = logging.getLogger("cacheproxy.upstream")


def note(fit: Fit) -> dict[str, Any]:
    """What is kept of it, for JSON. Sizes are left out: the first reads tell them anew. Pure."""
    why, apart = fit.why.removesuffix(BEFORE), [sorted(pair) for pair in fit.apart]
    return {"version": VERSION, "models": fit.models, "why": why, "apart": apart}


def read(value: Any) -> Fit | None:
    """What a note says; None for what is not one. Pure."""
    if not isinstance(value, dict) or value.get("version") != VERSION:
        return None
    models, why, apart = value.get("models"), value.get("why"), value.get("apart")
    if type(models) is not int or not 1 <= models <= MODELS_MAX or not isinstance(why, str):
        return None
    if not isinstance(apart, list) or not all(map(_is_pair, apart)):
        return None
    return Fit(models, why[:WHY_MAX], tuple(dict.fromkeys(map(frozenset, apart)))[-APART_MAX:])


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value) and len(set(value)) == len(value) == 2


class Learnt:
    """Keeps what `crowding` learns. `remember` and `recall` write and read the note; both may raise CacheError."""

    def __init__(
        self,
        crowding: Crowding,
        clock: Clock,
        *,
        remember: Callable[[Any], Awaitable[None]],
        recall: Callable[[], Awaitable[Any]],
    ) -> None:
        self._crowding = crowding
        self._clock = clock
        self._remember = remember
        self._recall = recall
        self._recalled = not crowding.learns
        self._nothing = self._noted = note(crowding.fit)
        """What the note would say before anything is learnt; and what it says."""
        self._touched_s = clock.monotonic()
        self._work: asyncio.Task[None] | None = None
        self._failing = False

    def look(self) -> None:
        """Begin what is due, if it is not under way. Returns at once, never raises."""
        due = not self._recalled or note(self._crowding.fit) != self._noted or self._is_old
        if due and (self._work is None or self._work.done()):
            self._work = asyncio.create_task(self._do(), name="what fits, noted")

    @property
    def _is_old(self) -> bool:
        return self._noted != self._nothing and self._clock.monotonic() - self._touched_s >= TOUCH_S

    async def close(self) -> None:
        """Leave what is under way."""
        await end(self._work)

    async def _do(self) -> None:
        try:
            if not self._recalled:
                await self._take()
            while (latest := note(self._crowding.fit)) != self._noted:
                await self._remember(latest)
                self._noted, self._touched_s = latest, self._clock.monotonic()
            if self._is_old:
                self._touched_s = self._clock.monotonic()  # even if it fails
                await self._recall()
        except CacheError:
            pass  # the next look tries again
        except Exception:  # noqa: BLE001 - a defect must not end the looks
            if not self._failing:
                _log.exception("what fits into Ollama's memory could not be noted; it is tried again")
            self._failing = True
        else:
            self._failing = False

    async def _take(self) -> None:
        try:
            noted = read(await self._recall())
        except (EntryCorruptError, StoreRefusedError):  # what lies there is no note, and is overwritten some day
            noted = None
        self._recalled = True
        if noted is not None:
            self._noted = note(noted)
            self._crowding.take(noted)
