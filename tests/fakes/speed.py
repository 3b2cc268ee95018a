"""Bounds on processor time that mean the same on a slower machine."""

from __future__ import annotations

import time

YARDSTICK_S = 0.002
"""What adding 200,000 numbers takes on the machine such bounds are stated for (CPython 3.11, one idle core)."""


def slowness() -> float:
    """How many times longer this machine takes now than the one that bounds are stated for; at least 1."""
    return max(1.0, min(map(_yardstick_s, range(3))) / YARDSTICK_S)


def _yardstick_s(_round: int) -> float:
    began_s = time.thread_time()
    sum(range(200_000))
    return time.thread_time() - began_s
