"""Work behind the asks: one job, done again and again until its owner closes.

The job says itself what its failures mean. One that it lets through is a defect: it is logged, once until the job
succeeds again, and the work goes on. Refuses to hold anybody up: what stops it waits only until the job of the moment
has been cancelled, and never gets its error.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

_log = logging.getLogger("cacheproxy")


class Behind:
    """`job`, each time `every_s` seconds after its last end. `name` is the task's, for those who look at tasks."""

    def __init__(self, job: Callable[[], Awaitable[None]], every_s: float, name: str) -> None:
        self._job = job
        self._every_s = every_s
        self._name = name
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; the first time is after `every_s`."""
        self._task = asyncio.create_task(self._repeat(), name=self._name)

    async def stop(self) -> bool:
        """End it; whether there was anything to end. Safe to call twice."""
        if self._task is None:
            return False
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None
        return True

    async def _repeat(self) -> None:
        failing = False
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self._job()
            except Exception:  # noqa: BLE001 - a defect must not end the work
                if not failing:
                    _log.exception("the work behind the asks failed (%s); it goes on", self._name)
                failing = True
            else:
                failing = False
