"""What can go wrong without the caller having caused it, each kind with the sentence that says what happened.

Data only; who counts a fault is the code that survives it. Refuses names outside the list, so that no typing error
becomes a series of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Fault(StrEnum):
    """What went wrong without the caller having caused it. Closed."""

    REDIS_UNAVAILABLE = "redis_unavailable"
    BREAKER_OPENED = "breaker_opened"
    ENTRY_CORRUPT = "entry_corrupt"
    CHECK_MISMATCH = "check_mismatch"
    STORE_FAILED = "store_failed"
    STORE_DROPPED = "store_dropped"
    EMBEDDER = "embedder"
    GUARD = "guard"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_BROKEN = "upstream_broken"
    UPSTREAM_ERROR = "upstream_error"
    QUEUE_FULL = "queue_full"
    LEDGER = "ledger"
    LEDGER_DROPPED = "ledger_dropped"
    TRACES = "traces"
    TAGS_UNAVAILABLE = "tags_unavailable"
    INTERNAL = "internal"


FAULTS: Mapping[Fault, str] = {
    Fault.REDIS_UNAVAILABLE: "no answer from Redis in time; the ask went on without it",
    Fault.BREAKER_OPENED: "Redis failed often enough that it is left alone for a while",
    Fault.ENTRY_CORRUPT: "bytes under one of our keys could not be read; one is a curiosity, many a foreign writer",
    Fault.CHECK_MISMATCH: "an entry was found under a key it does not answer; any at all is a reason to look",
    Fault.STORE_FAILED: "a complete answer could not be written",
    Fault.STORE_DROPPED: "too many answers were waiting to be written, so this one was not",
    Fault.EMBEDDER: "no vector for a question; only exact answers while it lasts",
    Fault.GUARD: "a guard raised; its match was not served",
    Fault.UPSTREAM_UNREACHABLE: "no connection to Ollama, or none that gave a byte",
    Fault.UPSTREAM_BROKEN: "an answer of Ollama's began and did not end properly; it was not kept",
    Fault.UPSTREAM_ERROR: "Ollama answered with a status of 500 or more",
    Fault.QUEUE_FULL: "more misses were waiting than `upstream.queue` allows; callers saw 503",
    Fault.LEDGER: "counts could not be written to Redis this second; they are kept here and written later",
    Fault.LEDGER_DROPPED: "Redis was away for so long that the oldest counts that waited for it were given up",
    Fault.TRACES: "traces could not be delivered to `tracing.endpoint`, or were too many; they are given up",
    Fault.TAGS_UNAVAILABLE: "Ollama's list of models could not be read",
    Fault.INTERNAL: "a mistake in this program; any at all should be reported",
}
