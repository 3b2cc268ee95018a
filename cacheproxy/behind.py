"""Work behind the asks: one job, done again and again until its owner closes; and how a task is ended.

The job says itself what its failures mean. One that it lets through is a defect: it is logged, once until the job
succeeds again, and the work goes on after a rest. Refuses to hold anybody up: what stops it waits only until the job of
the moment has been cancelled, and never gets its error.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

_log = logging.getLogger("cacheproxy")

REST_S = 1.0
"""Pause after a defect, so that a job that waits for nothing else does not keep the process busy with failing."""


async def end(task: asyncio.Task[Any] | None) -> None:
    """Cancel a task and wait until it has ended, however it does: an error of its own is logged.

    Only a cancellation of the caller's gets out of here, and may then come before the task's end.
    """
    if task is None:
        return
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("work behind the asks had ended with an error (%s)", task.get_name(), exc_info=error)


class Behind:
    """`job`, each time `every_s` seconds after its last end; 0 for a job that waits itself for something to do.

    `name` is the task's, for those who look at tasks.
    """

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
        await end(self._task)
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
                await asyncio.sleep(REST_S)
            else:
                failing = False
