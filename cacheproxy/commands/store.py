"""Reach the Redis of the configuration, as a command that needs what the operator's port does not tell."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from cacheproxy.clock import SystemClock
from cacheproxy.config import Config
from cacheproxy.errors import StoreUnavailableError
from cacheproxy.store.connection import Connection
from cacheproxy.store.embedded import Embedded

CONTACT_S_MAX = 5.0
"""How long Redis may take to answer at first."""


@asynccontextmanager
async def reached(settings: Config) -> AsyncIterator[Connection]:
    """A connection that answers. Starts the embedded Redis for the moment if no proxy runs it.

    Raises ConfigError, StoreUnavailableError.
    """
    embedded = Embedded(settings.redis) if settings.redis.url == "embedded" else None
    connection = Connection(settings.redis, SystemClock(), embedded=embedded)
    try:
        if embedded is not None:
            await embedded.open()
        await connection.open()
        if not await connection.wait_up(CONTACT_S_MAX):
            reason = connection.reason or "redis gave no answer in time"
            raise StoreUnavailableError(f"{reason}: start it, or name another with --redis")
        yield connection
    finally:
        await connection.close()
        if embedded is not None:
            await embedded.close()


@contextmanager
def quiet() -> Iterator[None]:
    """Without the store's log, which speaks of serving; what matters here is raised."""
    log = logging.getLogger("cacheproxy.store")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)
