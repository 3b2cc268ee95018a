"""What a defect of ours may cost a request that could be answered without: time, but not its reply or its connection.

Refuses to know what is done, and to hide that it failed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_Result = TypeVar("_Result")
_Given = ParamSpec("_Given")

_log = logging.getLogger("cacheproxy.edge")


def contained(
    failed: str, work: Callable[_Given, _Result], *given: _Given.args, **named: _Given.kwargs
) -> _Result | None:
    """What `work` returns; if it raises, None, and `failed` is logged with the traceback. Not for what awaits."""
    try:
        return work(*given, **named)
    except Exception:  # noqa: BLE001 - see above
        _log.exception("%s", failed)
        return None
