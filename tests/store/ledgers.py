"""Ledgers on a real Redis, with time that stands still, for tests of what is written and what is read."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

from cacheproxy.clock import SystemClock
from cacheproxy.config import Redis
from cacheproxy.metrics import Fault, Metrics
from cacheproxy.model import Decision, Neighbour, Outcome
from cacheproxy.store.account import Account
from cacheproxy.store.connection import Connection
from cacheproxy.store.ledger import Ledger
from tests.fakes.clock import FakeClock
from tests.fakes.house import until
from tests.fakes.redis_server import PATIENT_S, RedisServer

START = 1_700_000_000.0 - 1_700_000_000.0 % 3600
MODEL = "llama3.2:latest"


@dataclass
class Books:
    """One proxy's ledger with what it stands on."""

    connection: Connection
    ledger: Ledger
    account: Account
    clock: FakeClock
    metrics: Metrics

    def told(self, outcome: Outcome = Outcome.EXACT, count: int = 1, **changes: Any) -> Decision:
        """An ask that ends now."""
        decision = replace(Decision(outcome, "chat", self.clock.now(), 0.002, model=MODEL), **changes)
        self.ledger.decided(decision, count)
        return decision

    def faults(self, kind: Fault = Fault.LEDGER) -> float:
        """How often something went wrong."""
        return float(self.metrics.snapshot()["faults"][kind])

    def another(self) -> Books:
        """Another proxy's on the same Redis, or the same one's after a restart."""
        ledger = Ledger(self.connection, "cacheproxy", self.clock, self.metrics)
        account = Account(self.connection, "cacheproxy", self.clock, prompts=self.account.prompts)
        return Books(self.connection, ledger, account, self.clock, self.metrics)

    async def asks(self) -> int:
        """How many the ledger knows of the last fortnight, read anew."""
        self.account.forget()
        return int((await self.account.fleet())["asks"])


def near(similarity: float = 0.94, verdict: str = "serve", asked: str = "", stored: str = "") -> Neighbour:
    """What was compared."""
    return Neighbour("ab" * 16, similarity, 0.92, verdict, asked=asked, stored=stored)


@contextlib.asynccontextmanager
async def books(server: RedisServer | Redis, *, prompts: bool = False, at: float = START) -> AsyncIterator[Books]:
    """An open connection, and a ledger on it that writes when it is told to."""
    settings = server if isinstance(server, Redis) else server.settings(url=server.unix_url, timeout=PATIENT_S)
    connection = Connection(settings, SystemClock())
    clock = FakeClock(at)
    metrics = Metrics(clock)
    await connection.open()
    await until(lambda: connection.state == "up")
    try:
        ledger = Ledger(connection, "cacheproxy", clock, metrics)
        account = Account(connection, "cacheproxy", clock, prompts=prompts)
        yield Books(connection, ledger, account, clock, metrics)
    finally:
        await connection.close()
