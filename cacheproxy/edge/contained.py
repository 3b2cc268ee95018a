"""What a defect of ours may cost a request that could be answered without: time, but not its reply or its connection.

Refuses to know what is done, and to hide that it failed: it is logged with the traceback, and counted.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from cacheproxy.counting.faults import Fault

_Result = TypeVar("_Result")
_Given = ParamSpec("_Given")

_log = logging.getLogger("cacheproxy.edge")


def contained(
    fault: Callable[[Fault], None],
    failed: str,
    work: Callable[_Given, _Result],
    *given: _Given.args,
    **named: _Given.kwargs,
) -> _Result | None:
    """What `work` returns; None if it raises. `fault` counts that, `failed` says in the log what it was."""
    try:
        return work(*given, **named)
    except Exception:  # noqa: BLE001 - see above
        _tell(fault, failed)
        return None


async def wait_contained(fault: Callable[[Fault], None], failed: str, awaited: Awaitable[_Result]) -> _Result | None:
    """The same of what awaits."""
    try:
        return await awaited
    except Exception:  # noqa: BLE001 - see above
        _tell(fault, failed)
        return None


def _tell(fault: Callable[[Fault], None], failed: str) -> None:
    _log.exception("%s", failed)
    fault(Fault.INTERNAL)
