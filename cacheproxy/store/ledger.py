"""The ledger: what was asked and how it was answered, summed over all proxies of one Redis, kept for 14 days.

    decided (one ask: dictionary arithmetic) ──► once a second: gather ──► waiting rows ──► a batch ──► one script

A batch is applied whole and at most once: the script first compares the batch's number with the last one it took from
this writer. So a batch whose reply was lost is sent again as it was, and what had been counted is not counted twice.
While Redis is away rows wait here, `WAITING_MAX` fields of them; past that the oldest go, and that is counted.

Its keys share a hash tag, so on a cluster they lie together on one node. They have no lifetime: Redis would evict them
before any answer once it is full (`volatile-lru`), since old rows are never read. Each batch takes out what is too old.
Refuses to hold up an ask: nothing here is awaited by one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from cacheproxy.clock import Clock
from cacheproxy.errors import CacheError
from cacheproxy.metrics import OTHER, SAVED_S_MAX, SAVED_TOKENS_MAX, Fault, Group, Metrics
from cacheproxy.model import Decision, Neighbour, Outcome
from cacheproxy.store import columns, recent
from cacheproxy.store.columns import DIALECT, MODEL, PARTITION, PARTITION_DIGITS, Row
from cacheproxy.store.connection import Connection

_log = logging.getLogger("cacheproxy.store")

SPANS_S = (60, 600, 3600)
"""What rows cover. Each ask is counted in one row of each, so that a fortnight can be read without reading minutes."""
LIFETIME_S = 14 * 86_400
FLUSH_S = 1.0
PRESENCE_S = 20.0
"""A proxy that has nothing to write says at least this often that it is there."""
WRITER_S = 86_400
"""A writer not heard of for so long is forgotten; its batch whose reply was lost, if it had one, could count twice."""
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
"""Fields of minutes in one batch; with those of the longer spans Redis is busy with it for about 2 ms."""
WAITING_MAX = 50_000
"""Fields that wait while Redis is away: a day of a busy proxy, about 10 MB."""
ASKS_A_SECOND, ASKS_MAX = 50, 1000
"""Single asks recorded in a second by one proxy, and kept by all."""
PAIRS_A_SECOND, PAIRS_MAX = 10, 500

_SCRIPT = """
local writer, number, now = ARGV[1], ARGV[2], ARGV[3]
if redis.call('HGET', KEYS[1], writer) == number then return 0 end
redis.call('HSET', KEYS[1], writer, number)
redis.call('ZADD', KEYS[2], now, writer)
local at = 6
for stream = 4, 5 do
  local most, count = ARGV[at], tonumber(ARGV[at + 1])
  at = at + 2
  for _ = 1, count do
    redis.call('XADD', KEYS[stream], 'MAXLEN', '~', most, '*', 'j', ARGV[at])
    at = at + 1
  end
end
for row = 6, #KEYS do
  redis.call('ZADD', KEYS[3], ARGV[at], KEYS[row])
  local count = tonumber(ARGV[at + 1])
  at = at + 2
  for _ = 1, count do
    redis.call('HINCRBY', KEYS[row], ARGV[at], ARGV[at + 1])
    at = at + 2
  end
end
for _, key in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', '(' .. ARGV[4], 'LIMIT', 0, 20)) do
  redis.call('UNLINK', key)
  redis.call('ZREM', KEYS[3], key)
end
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. ARGV[5], 'LIMIT', 0, 20)) do
  redis.call('HDEL', KEYS[1], gone)
  redis.call('ZREM', KEYS[2], gone)
end
return 1
"""


@dataclass(frozen=True, slots=True)
class Keys:
    """The names of the ledger's keys. `prefix` is `redis.prefix`; the braces keep all of them on one node."""

    prefix: str

    @property
    def writers(self) -> str:
        """Hash: writer to the number of its last batch."""
        return self._of("writers")

    @property
    def seen(self) -> str:
        """Sorted set: writer by the time of its last batch."""
        return self._of("seen")

    @property
    def rows(self) -> str:
        """Sorted set: keys of rows by the start of what they cover."""
        return self._of("rows")

    @property
    def asks(self) -> str:
        """Stream of single asks."""
        return self._of("recent")

    @property
    def pairs(self) -> str:
        """Stream of compared questions."""
        return self._of("pairs")

    def row(self, table: str, span_s: int, start: int) -> str:
        """The row of `asks` or `near` that begins at this Unix second."""
        return self._of(f"{table}:{span_s}:{start}")

    def _of(self, name: str) -> str:
        return f"{{{self.prefix}:ledger}}:{name}"


@dataclass(slots=True)
class Batch:
    """What one script writes. `rows`: by table and the second at which a minute begins."""

    number: int
    rows: dict[tuple[str, int], Row]
    asks: list[bytes]
    pairs: list[bytes]


@dataclass(slots=True)
class _Names:
    """The labels told apart within one hour; the first come, the rest is `other`."""

    most: int
    hour: int = -1
    known: set[str] = field(default_factory=set)

    def label(self, name: str, minute: int) -> str:
        if minute // 60 != self.hour:
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
        self._near: dict[tuple[int, Group, int, str], int] = {}
        self._asks: list[tuple[Decision, int]] = []
        self._left_out = 0
        self._pairs: list[tuple[Decision, Neighbour]] = []
        self._waiting: dict[tuple[str, int], Row] = {}
        self._models = _Names(MODELS_MAX)
        self._partitions = _Names(PARTITIONS_MAX)
        self._doubtful: Batch | None = None
        self._said = float("-inf")
        self._task: asyncio.Task[None] | None = None

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
        if 0 < decision.saved_s <= SAVED_S_MAX:
            cell[1] += round(decision.saved_s * 1000) * count
        if 0 < decision.saved_tokens <= SAVED_TOKENS_MAX:
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
        if len(self._pairs) < PAIRS_A_SECOND:
            self._pairs.append((decision, neighbour))

    async def open(self) -> None:
        """Begin to write once a second; returns at once."""
        self._task = asyncio.create_task(self._flush_forever(), name="ledger")

    async def close(self) -> None:
        """Write what there is, for at most `CLOSE_S_MAX`, and stop. Safe to call twice."""
        if self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None
        try:
            async with asyncio.timeout(CLOSE_S_MAX):
                await self.flush()
        except (CacheError, TimeoutError):
            self._metrics.fault(Fault.LEDGER)
            _log.warning("counts of the last seconds could not be written to Redis and are lost to the ledger")

    async def flush(self) -> None:
        """Write what has changed. Raises StoreUnavailableError; then it is kept, and written by a later call."""
        self._gather()
        if self._doubtful is None and (self._waiting or self._asks or self._silent()):
            self._doubtful = self._next_batch()
        while self._doubtful is not None:
            await self._write(self._doubtful)
            self._doubtful = self._next_batch() if self._waiting else None

    async def _flush_forever(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            try:
                await self.flush()
            except CacheError:
                self._metrics.fault(Fault.LEDGER)

    def _gather(self) -> None:
        """Turn what was counted since into fields of rows."""
        cells, self._cells = self._cells, {}
        for (minute, outcome, model, dialect, partition), (asks, saved_ms, saved_tokens) in cells.items():
            labels = {
                MODEL: self._models.label(model, minute) if model else OTHER,
                DIALECT: dialect,
                PARTITION: self._partitions.label(partition[:PARTITION_DIGITS], minute) if partition else "",
            }
            fields = columns.ask_fields(outcome, labels, (asks, saved_ms, saved_tokens))
            columns.add(self._waiting.setdefault(("asks", minute * 60), {}), fields)
        near, self._near = self._near, {}
        for (minute, group, at, model), number in near.items():
            name = columns.near_field(group, at, self._models.label(model, minute) if model else OTHER)
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
        keys, arguments = self._call(batch)

        async def write(redis: Any) -> None:
            await redis.eval(_SCRIPT, len(keys), *keys, *arguments)

        await self._connection.run(write, timeout_s=WRITE_TIMEOUT_S)

    def _call(self, batch: Batch) -> tuple[list[str], list[Any]]:
        """Keys and arguments of the script, which says in which order."""
        names, now = self._keys, self._clock.now()
        keys = [names.writers, names.seen, names.rows, names.asks, names.pairs]
        arguments: list[Any] = [self._writer, batch.number, now, now - LIFETIME_S, now - WRITER_S]
        arguments += [ASKS_MAX, len(batch.asks), *batch.asks, PAIRS_MAX, len(batch.pairs), *batch.pairs]
        for (table, span_s, start), row in _rolled_up(batch.rows).items():
            keys.append(names.row(table, span_s, start))
            arguments += [start, len(row), *(part for item in row.items() for part in item)]
        return keys, arguments


def _rolled_up(minutes: dict[tuple[str, int], Row]) -> dict[tuple[str, int, int], Row]:
    """The same numbers in rows of every span, by table, span and start."""
    rows: dict[tuple[str, int, int], Row] = {}
    for (table, minute_start), row in minutes.items():
        for span_s in SPANS_S:
            columns.add(rows.setdefault((table, span_s, minute_start - minute_start % span_s), {}), row.items())
    return rows
