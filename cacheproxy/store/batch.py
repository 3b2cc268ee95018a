"""What the ledger writes in one go: a batch, taken by Redis whole and at most once.

One script compares the batch's number with the last one it took from this writer, and then writes everything. So a
batch whose reply was lost can be sent again as it was: a MULTI could not tell, and would count it twice. The number is
the first thing written; should Redis refuse a later command (a foreign value under one of our keys), what was not
written is lost and nothing is counted twice.

All keys share a hash tag, so on a cluster they lie on one node. They have no lifetime: a full Redis evicts by
`volatile-lru` what has one, and rows of the past, never read, would go before any answer. Each batch takes out some of
what is too old. Pure but for the names of commands in the script. Refuses to know connections.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cacheproxy.store import columns
from cacheproxy.store.columns import Row

SPANS_S = (60, 600, 3600)
"""What rows cover. Each ask is counted in one row of each, so that a fortnight can be read without reading minutes."""
LIFETIME_S = 14 * 86_400
WRITER_S = 86_400
"""A writer not heard of for so long is forgotten; its batch whose reply was lost, if it had one, could count twice."""
ASKS_MAX, PAIRS_MAX = 1000, 500
"""Single asks and compared questions kept, of all proxies together."""

SCRIPT = """
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
"""Returns 1, or 0 for a batch that it has taken before. `call` says what its keys and arguments are."""


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


def call(batch: Batch, names: Keys, writer: str, now: float) -> tuple[list[str], list[Any]]:
    """Keys and arguments of the script. `now`: Unix time, s, from which it is counted what is too old."""
    keys = [names.writers, names.seen, names.rows, names.asks, names.pairs]
    arguments: list[Any] = [writer, batch.number, now, now - LIFETIME_S, now - WRITER_S]
    arguments += [ASKS_MAX, len(batch.asks), *batch.asks, PAIRS_MAX, len(batch.pairs), *batch.pairs]
    for (table, span_s, start), row in _rolled_up(batch.rows).items():
        keys.append(names.row(table, span_s, start))
        arguments += [start, len(row), *(part for item in row.items() for part in item)]
    return keys, arguments


def _rolled_up(minutes: Mapping[tuple[str, int], Row]) -> dict[tuple[str, int, int], Row]:
    """The same numbers in rows of every span, by table, span and start."""
    rows: dict[tuple[str, int, int], Row] = {}
    for (table, minute_start), row in minutes.items():
        for span_s in SPANS_S:
            columns.add(rows.setdefault((table, span_s, minute_start - minute_start % span_s), {}), row.items())
    return rows
