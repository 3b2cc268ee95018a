"""The ledger: what was asked and how it was answered, summed over all proxies of one Redis, kept for 14 days.

    decided (one ask: dictionary arithmetic) ──► once a second: gather ──► waiting rows ──► a batch ──► one script

A batch whose reply was lost is sent again first, and Redis counts it once (`store/batch.py`). While Redis
is away rows wait here, `WAITING_MAX` fields of them; past that the oldest go, and that is counted.
Refuses to hold up an ask: nothing here is awaited by one.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from cacheproxy.behind import Behind
from cacheproxy.clock import Clock
from cacheproxy.errors import CacheError
from cacheproxy.metrics import OTHER, Fault, Group, Metrics
from cacheproxy.model import Decision, Neighbour, Outcome
from cacheproxy.store import columns, recent
from cacheproxy.store.batch import SCRIPT, Batch, Keys, call
from cacheproxy.store.columns import DIALECT, MODEL, PARTITION, PARTITION_DIGITS, Row
from cacheproxy.store.connection import Connection

_log = logging.getLogger("cacheproxy.store")

FLUSH_S = 1.0
PRESENCE_S = 20.0
"""A proxy that has nothing to write says at least this often that it is there."""
WRITE_TIMEOUT_S = 1.0
"""Deadline of a batch; no ask waits for it."""
CLOSE_S_MAX = 1.0

CELLS_MAX = 4096
"""Different combinations counted within one second; past it, partitions are no longer told apart."""
MODELS_MAX = 50
"""Models told apart within an hour by one proxy; the rest is `other`."""
PARTITIONS_MAX = 20
"""The same of partitions, first come: an `Authorization` header of one's own costs nothing."""
BATCH_FIELDS = 400
"""Fields of minutes in one batch; with those of the longer spans Redis is busy with it for some ms (SLOWLOG)."""
WAITING_MAX = 50_000
"""Fields that wait while Redis is away: a day of a busy proxy, 6 MiB."""
ASKS_A_SECOND, PAIRS_A_SECOND = 50, 10
"""Single asks and compared questions recorded in a second by one proxy."""


@dataclass(slots=True)
class _Names:
    """The labels told apart within one hour; the first come, the rest is `other`."""

    most: int
    hour: int = -1
    known: set[str] = field(default_factory=set)

    def label(self, name: str, minute: int) -> str:
        """The name, as UTF-8 can carry it, or `other`, which also stands for none."""
        if not name:
            return OTHER
        name = name.encode("utf-8", "backslashreplace").decode()
        if minute // 60 > self.hour:
            self.hour, self.known = minute // 60, set()
        if name in self.known:
            return name
        if len(self.known) >= self.most:
            return OTHER
        self.known.add(name)
        return name


class Ledger:
    """The writing side, over one connection. `prefix` is `redis.prefix`. Event loop's thread only."""

    def __init__(self, connection: Connection, prefix: str, clock: Clock, metrics: Metrics) -> None:
        self._connection = connection
        self._keys = Keys(prefix)
        self._clock = clock
        self._metrics = metrics
        self._writer = secrets.token_hex(8)
        self._numbers = 0
        self._cells: dict[tuple[int, Outcome, str, str, str], list[int]] = {}
        self._near: dict[tuple[int, str, int, str], int] = {}
        self._asks: list[tuple[Decision, int]] = []
        self._left_out = 0
        self._pairs: list[tuple[Decision, Neighbour]] = []
        self._waiting: dict[tuple[str, int], Row] = {}
        self._models = _Names(MODELS_MAX)
        self._partitions = _Names(PARTITIONS_MAX)
        self._doubtful: Batch | None = None
        self._said = float("-inf")
        self._behind = Behind(self._flush_behind, FLUSH_S, "ledger")

    def decided(self, decision: Decision, count: int = 1) -> None:
        """Count an ask that has ended, `count` of them where so many ended alike. Listens on `Decisions`."""
        minute = int(decision.at // 60)
        key = (minute, decision.outcome, decision.model, decision.dialect, decision.partition)
        cell = self._cells.get(key)
        if cell is None:
            if len(self._cells) >= CELLS_MAX:
                key = (*key[:4], OTHER if decision.partition else "")
            cell = self._cells.setdefault(key, [0, 0, 0])
        cell[0] += count
        cell[1] += round(decision.saved_s * 1000) * count
        cell[2] += decision.saved_tokens * count
        if decision.neighbour is not None:
            self._compared(minute, decision, decision.neighbour, count)
        if len(self._asks) < ASKS_A_SECOND:
            self._asks.append((decision, count))
        else:
            self._left_out += count

    @property
    def waiting(self) -> int:
        """Counts that are not in Redis yet, as fields of rows; those in doubt included."""
        doubtful = self._doubtful.rows.values() if self._doubtful else ()
        return sum(len(row) for rows in (self._waiting.values(), doubtful) for row in rows)

    def _compared(self, minute: int, decision: Decision, neighbour: Neighbour, count: int) -> None:
        key = (minute, Group.of(neighbour), columns.bin_of(neighbour.similarity), decision.model)
        self._near[key] = self._near.get(key, 0) + count
        if decision.by_meaning:
            answered = (minute, columns.ANSWERED, 0, decision.model)
            self._near[answered] = self._near.get(answered, 0) + count
        if len(self._pairs) < PAIRS_A_SECOND:
            self._pairs.append((decision, neighbour))

    async def open(self) -> None:
        """Begin to write once a second; returns at once."""
        self._behind.start()

    async def close(self) -> None:
        """Write what there is, for at most `CLOSE_S_MAX`, and stop. Safe to call twice."""
        if not await self._behind.stop():
            return
        try:
            async with asyncio.timeout(CLOSE_S_MAX):
                await self.flush()
        except (CacheError, TimeoutError):
            self._metrics.fault(Fault.LEDGER)
            if self.waiting:
                _log.warning("counts of the last seconds could not be written to Redis and are lost to the ledger")

    async def flush(self) -> None:
        """Write what has changed. Raises StoreUnavailableError; then it is kept, and written by a later call."""
        self._gather()
        if self._doubtful is None and (self._waiting or self._asks or self._silent()):
            self._doubtful = self._next_batch()
        while self._doubtful is not None:
            await self._write(self._doubtful)
            self._doubtful = self._next_batch() if self._waiting else None

    async def _flush_behind(self) -> None:
        try:
            await self.flush()
        except CacheError:
            self._metrics.fault(Fault.LEDGER)
        except Exception:  # noqa: BLE001 - a defect must not end the writing of what comes next
            self._metrics.fault(Fault.INTERNAL)
            _log.exception("the ledger could not write a batch")

    def _gather(self) -> None:
        """Turn what was counted since into fields of rows."""
        cells, self._cells = self._cells, {}
        for (minute, outcome, model, dialect, partition), (asks, saved_ms, saved_tokens) in cells.items():
            labels = {
                MODEL: self._models.label(model, minute),
                DIALECT: dialect,
                PARTITION: self._partitions.label(partition[:PARTITION_DIGITS], minute) if partition else "",
            }
            fields = columns.ask_fields(outcome, labels, (asks, saved_ms, saved_tokens))
            columns.add(self._waiting.setdefault(("asks", minute * 60), {}), fields)
        near, self._near = self._near, {}
        for (minute, group, at, model), number in near.items():
            name = columns.near_field(group, at, self._models.label(model, minute))
            columns.add(self._waiting.setdefault(("near", minute * 60), {}), [(name, number)])
        self._bound_waiting()

    def _bound_waiting(self) -> None:
        waiting = sum(len(row) for row in self._waiting.values())
        while waiting > WAITING_MAX:
            oldest = min(self._waiting, key=lambda name: name[1])
            waiting -= len(self._waiting.pop(oldest))
            self._metrics.fault(Fault.LEDGER_DROPPED)

    def _silent(self) -> bool:
        return self._clock.monotonic() - self._said >= PRESENCE_S

    def _next_batch(self) -> Batch:
        """The oldest of what waits, with the single asks; with neither it only says that we are there."""
        self._said = self._clock.monotonic()
        self._numbers += 1
        asks = [recent.ask(decision, count) for decision, count in self._asks]
        if asks:
            asks[0]["left_out"] = self._left_out
            self._left_out = 0
        pairs = [recent.pair(decision, neighbour) for decision, neighbour in self._pairs]
        self._asks, self._pairs = [], []
        rows = dict(self._take(BATCH_FIELDS))
        return Batch(self._numbers, rows, [recent.write(one) for one in asks], [recent.write(one) for one in pairs])

    def _take(self, most: int) -> Iterator[tuple[tuple[str, int], Row]]:
        """Rows out of those that wait, oldest first, of at most so many fields together."""
        for name in sorted(self._waiting, key=lambda name: name[1]):
            if most <= 0:
                return
            row = self._waiting.pop(name)
            taken = dict(list(row.items())[:most])
            if len(taken) < len(row):
                self._waiting[name] = {field: number for field, number in row.items() if field not in taken}
            most -= len(taken)
            yield name, taken

    async def _write(self, batch: Batch) -> None:
        keys, arguments = call(batch, self._keys, self._writer, self._clock.now())

        async def write(redis: Any) -> None:
            await redis.eval(SCRIPT, len(keys), *keys, *arguments)

        await self._connection.run(write, timeout_s=WRITE_TIMEOUT_S)
