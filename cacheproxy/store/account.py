"""The ledger read back: sums over the last hours or days, over all proxies of one Redis.

Rows are read a few dozen in a round trip, so neither Redis nor the event loop is busy with one reader for more than
some milliseconds; at most `ROWS_MAX` of them. Rows of the past hardly change (only a proxy that could not write for a
while adds to them), so they are remembered here. Raises CacheError only.
Every figure covers whole rows: the present one, which is still growing, and those before it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from redis.exceptions import ResponseError

from cacheproxy.clock import Clock
from cacheproxy.metrics import OTHER
from cacheproxy.model import Outcome
from cacheproxy.store import columns, recent
from cacheproxy.store.batch import LIFETIME_S, SPANS_S, Keys
from cacheproxy.store.columns import SAVED_MS, SAVED_TOKENS, Read, Sums
from cacheproxy.store.connection import OPERATOR_TIMEOUT_S, Connection

HOURS_MAX = LIFETIME_S // 3600
ROWS_MAX = 2100
"""Most rows read for one figure: a fortnight in spans of ten minutes, or 35 hours in minutes."""
STEPS_S = (60, 120, 300, 600, 1200, 1800, 3600, 7200)
"""Steps chosen from where none is asked for."""
STEPS_SHOWN = 200
"""Most rows of a series where no step is asked for."""
WINDOWS = {"1h": (60, 60), "24h": (600, 144), "7d": (3600, 168), "14d": (3600, 336)}
"""By name, the span of the rows read for it, s, and how many."""

READ_TOGETHER = 60
SETTLED_AFTER_S = 120.0
"""After its end a row is taken to change no more, but for a proxy that could not write."""
SETTLED_FOR_S, OPEN_FOR_S = 600.0, 0.5
"""How long a remembered row is believed, of the past and of the present."""
REMEMBERED_MAX = 3000
"""Rows remembered: 18 MiB if each had 25 fields, which is a busy minute of a few models."""
SUMMED_MAX = 16
"""Sums of settled rows remembered: of the four windows, and of what pages ask for."""


class Account:
    """The reading side, over one connection. `prefix` is `redis.prefix`; `prompts` is `log.prompts`."""

    def __init__(self, connection: Connection, prefix: str, clock: Clock, *, prompts: bool) -> None:
        self._connection = connection
        self._keys = Keys(prefix)
        self._clock = clock
        self.prompts = prompts
        self._summed: OrderedDict[tuple[int, int, int], tuple[float, dict[str, Sums]]] = OrderedDict()
        self._remembered: OrderedDict[str, tuple[float, Read]] = OrderedDict()
        """Rows by key, each with the monotonic second until which it is believed."""

    def forget(self) -> None:
        """Believe nothing that was read before: another Redis answers, or an emptied one."""
        self._remembered.clear()
        self._summed.clear()

    async def fleet(self) -> dict[str, Any]:
        """What `/stats` says of all proxies together."""
        now = self._clock.now()
        found = {name: await self._by_model(span_s, _starts(now, span_s, n)) for name, (span_s, n) in WINDOWS.items()}
        windows = {name: columns.totals(columns.together(models.values())) for name, models in found.items()}
        whole, day = windows["14d"], found["24h"]
        since, proxies = await self._about(now)
        return {
            "since": since,
            "asks": whole["asks"],
            "hit_rate": whole["hit_rate"],
            "outcomes": whole["outcomes"],
            "saved": {"seconds": whole["saved_seconds"], "tokens": whole["saved_tokens"]},
            "windows": windows,
            "models": {name: columns.totals(day[name]) for name in _ordered(day)},
            "proxies": proxies,
        }

    async def series(self, hours: float, step_s: int, model: str | None, to: float | None = None) -> dict[str, Any]:
        """What `/series` answers of the hours before `to` (Unix time; None, or what is to come: now).

        Raises ValueError, worded for who asked, for a step that takes too many rows.
        """
        span_s = max(span for span in SPANS_S if step_s % span == 0)
        now = self._clock.now()
        end = now if to is None else min(to, now)
        last = int(end // step_s) * step_s
        first = int((end - hours * 3600) // step_s) * step_s
        starts = range(first, last + step_s, span_s)
        if len(starts) > ROWS_MAX:
            raise ValueError(f"{hours:g} hours in steps of {step_s} s take too many rows; try step={step_for(hours)}")
        rows = await self._rows("asks", span_s, starts)
        each = step_s // span_s
        return {
            "step_s": step_s,
            "from": first,
            "to": last + step_s,
            "models": _ordered({label for row in rows for label in columns.by_label([row])}),
            "rows": [
                _shown(first + number * step_s, rows[number * each : (number + 1) * each], model)
                for number in range(len(rows) // each)
            ],
        }

    async def similarity(self, hours: float, model: str | None) -> dict[str, Any]:
        """What `/similarity` answers, without what the config says."""
        span_s = 60 if hours <= 3 else 600 if hours <= 48 else 3600
        now = self._clock.now()
        first = int((now - hours * 3600) // span_s) * span_s
        starts = range(first, int(now // span_s) * span_s + span_s, span_s)
        near = await self._rows("near", span_s, starts)
        asks = columns.totals(_of(await self._by_model(span_s, starts), model))
        outcomes = asks["outcomes"]
        looked_up = asks["asks"] - outcomes["bypass"]
        return {
            "bin": 0.01,
            "from": first,
            "to": starts.stop,
            "asks": looked_up,
            "hits": looked_up - outcomes["miss"],
            "semantic": columns.answered(near, model),
            "rows": columns.histogram(near, model),
        }

    async def recent(self, limit: int) -> tuple[int, list[dict[str, Any]]]:
        """Single asks of all proxies, newest first, and how many between them were not recorded."""
        found = await self._records(self._keys.asks, limit)
        left_out = sum(record.pop("left_out", 0) for record in found)
        return left_out, found

    async def pairs(self, around: float, limit: int) -> list[dict[str, Any]]:
        """Of the compared questions that are kept, those whose similarity is nearest to `around`, the newest first."""
        found = await self._records(self._keys.pairs, None)
        return sorted(found, key=lambda pair: abs(pair["similarity"] - around))[:limit]

    async def _records(self, key: str, limit: int | None) -> list[dict[str, Any]]:
        async def read(redis: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
            return cast("list[tuple[bytes, dict[bytes, bytes]]]", await redis.xrevrange(key, count=limit))

        found = await self._connection.run(read, timeout_s=OPERATOR_TIMEOUT_S)
        records = (recent.read(fields.get(b"j", b""), prompts=self.prompts) for _id, fields in found)
        return [record for record in records if record is not None]

    async def _about(self, now: float) -> tuple[float | None, int]:
        """When the oldest row begins (None: there is none), and how many proxies wrote within the last minute."""

        async def read(redis: Any) -> list[Any]:
            async with redis.pipeline(transaction=False) as pipe:
                pipe.zrange(self._keys.rows, 0, 0, withscores=True)
                pipe.zcount(self._keys.seen, now - 60, "+inf")
                return cast("list[Any]", await pipe.execute())

        oldest, proxies = await self._connection.run(read, timeout_s=OPERATOR_TIMEOUT_S)
        return (float(oldest[0][1]) if oldest else None), int(proxies)

    async def _by_model(self, span_s: int, starts: range) -> dict[str, Sums]:
        """Sums by model over these rows. What is settled is summed once, the rest each time."""
        settled_before = self._clock.now() - SETTLED_AFTER_S - span_s
        settled = [start for start in starts if start < settled_before]
        name, now_s = (span_s, starts.start, len(settled)), self._clock.monotonic()
        read_s, past = self._summed.get(name, (float("-inf"), {}))
        if now_s - read_s >= SETTLED_FOR_S:
            past = columns.by_label(await self._rows("asks", span_s, settled))
            self._summed[name] = (now_s, past)
            while len(self._summed) > SUMMED_MAX:
                self._summed.popitem(last=False)
        present = columns.by_label(await self._rows("asks", span_s, starts[len(settled) :]))
        return {
            model: columns.together(part[model] for part in (past, present) if model in part)
            for model in past | present
        }

    async def _rows(self, table: str, span_s: int, starts: Sequence[int]) -> list[Read]:
        """The rows that begin at these seconds, in order; empty ones where nothing was asked."""
        now_s, now = self._clock.monotonic(), self._clock.now()
        keys = [self._keys.row(table, span_s, start) for start in starts]
        found: dict[str, Read] = {}
        for key in keys:
            until_s, row = self._remembered.get(key, (float("-inf"), {}))
            if now_s < until_s:
                found[key] = row
        # How the row was when it was read counts, not how it is by now: read while open, it lacks what came after.
        settled = {key: start + span_s + SETTLED_AFTER_S < now for key, start in zip(keys, starts, strict=True)}
        missing = [key for key in keys if key not in found]
        for at in range(0, len(missing), READ_TOGETHER):
            some = missing[at : at + READ_TOGETHER]
            found.update(zip(some, await self._read(some), strict=True))
            for key in some:
                self._remember(key, found[key], now_s + (SETTLED_FOR_S if settled[key] else OPEN_FOR_S))
        return [found[key] for key in keys]

    async def _read(self, keys: Sequence[str]) -> list[Read]:
        async def read(redis: Any) -> list[dict[bytes, bytes]]:
            async with redis.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.hgetall(key)
                return [_hash(reply) for reply in await pipe.execute(raise_on_error=False)]

        return [columns.read(row) for row in await self._connection.run(read, timeout_s=OPERATOR_TIMEOUT_S)]

    def _remember(self, key: str, row: Read, until_s: float) -> None:
        self._remembered[key] = (until_s, row)
        self._remembered.move_to_end(key)
        while len(self._remembered) > REMEMBERED_MAX:
            self._remembered.popitem(last=False)


def _hash(reply: Any) -> dict[bytes, bytes]:
    """What a key holds; nothing where somebody else's value of another type is under it."""
    if isinstance(reply, ResponseError) and "WRONGTYPE" in str(reply):
        return {}
    if isinstance(reply, Exception):
        raise reply
    return cast("dict[bytes, bytes]", reply)


def step_for(hours: float) -> int:
    """Seconds a row of a series of so many hours takes, so that it has at most `STEPS_SHOWN`."""
    return next(step for step in STEPS_S if hours * 3600 / step <= STEPS_SHOWN)


def _starts(now: float, span_s: int, count: int) -> range:
    """The starts of the present row and of those before it, `count` together."""
    last = int(now // span_s) * span_s
    return range(last - (count - 1) * span_s, last + span_s, span_s)


def _shown(start: int, rows: Sequence[Read], model: str | None) -> dict[str, Any]:
    """One row of a series."""
    found = _of(columns.by_label(rows), model)
    saved = {"saved_s": found.get(SAVED_MS, 0) / 1000, "saved_tokens": found.get(SAVED_TOKENS, 0)}
    return {"t": start, **{outcome.value: found.get(outcome, 0) for outcome in Outcome}, **saved}


def _of(found: Mapping[str, Sums], model: str | None) -> Sums:
    """One model's sums, or for None those of all together."""
    return columns.together(found.values()) if model is None else found.get(model, {})


def _ordered(names: Iterable[str]) -> list[str]:
    """By name, `other` last."""
    return sorted(names, key=lambda name: (name == OTHER, name))
