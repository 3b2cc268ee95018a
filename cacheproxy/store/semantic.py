"""Entries by nearness: a vector index over the same Redis hashes that the exact tier finds by name.

One index for each embedder, over the field that only its vectors lie in; entries of earlier embedders are in no index
of ours and are left to expire. The index is made where it is missing and made again when somebody flushed it away.
Raises CacheError only. Refuses to decide whether a neighbour may be served.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
from dataclasses import dataclass
from typing import Any, Literal, cast

from cacheproxy.behind import Behind
from cacheproxy.clock import Clock
from cacheproxy.errors import CacheError, EmbedderError, EntryCorruptError, StoreRefusedError, StoreUnavailableError
from cacheproxy.metrics import Fault, Metrics
from cacheproxy.model import Match
from cacheproxy.store import entry as entry_codec
from cacheproxy.store.breaker import Breaker, State
from cacheproxy.store.connection import Connection
from cacheproxy.store.half import halved
from cacheproxy.store.search import About, Document, Index, about, index_for, neighbours, timed_out
from cacheproxy.wire.float32 import norm_squared

_log = logging.getLogger("cacheproxy.store")

NEIGHBOURS = 5
"""Asked for by default: an expired entry stays among the nearest for up to 0.2 s, and must not hide a live one."""
QUERY_SHARE = 0.8
"""Part of a look-up's deadline that the query may take in Redis, so that its refusal still comes in time."""
REFRESH_S = 10.0
"""Between two looks at the index; whoever misses it meanwhile calls for one at once."""
ADMIN_TIMEOUT_S = 1.0
"""Deadline for looking at an index and making one, which no ask waits for."""
NORM_SQUARED_TOLERANCE = 2e-3
"""How far from 1 a question vector's squared length may be."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """The index as last looked at, and counts since the start."""

    documents: int
    """Entries in the index."""
    failures: int
    """Entries Redis could not index (wrong vector length): any at all mean a foreign writer."""
    indexed: float
    """Share of the entries that a new index has taken in, 0..1."""
    asked: int
    """All look-ups: = found + empty + failed, and those whose asker left."""
    found: int
    """Look-ups with at least one neighbour."""
    empty: int
    """Look-ups without any. A Redis set to `ON_TIMEOUT return` hides its timed-out queries among them."""
    failed: int
    paused: bool
    """True while look-ups are not tried because they failed or timed out."""


@dataclass(slots=True)
class _Counts:
    asked: int = 0
    found: int = 0
    empty: int = 0
    failed: int = 0


_NOTHING = About(frozenset(), documents=0, failures=0, indexed=0.0)
"""Of an index that is not there, or not yet looked at."""


class Semantic:
    """The semantic tier over one connection. `prefix` is `redis.prefix`; `timeout_s` the deadline of one look-up."""

    def __init__(
        self, connection: Connection, prefix: str, clock: Clock, metrics: Metrics, *, timeout_s: float
    ) -> None:
        self._connection = connection
        self._prefix = prefix
        self._clock = clock
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._index: Index | None = None
        self._trouble = ""
        self._refused = False
        self._about = _NOTHING
        self._counts = _Counts()
        # Apart from the connection's: slow queries must not cost the exact tier its Redis.
        self._breaker = Breaker(clock, random.random, self._breaker_changed)
        self._look = asyncio.Event()
        self._keeper = Behind(self._keep, 0, "near index")
        self._aliases = itertools.count()

    @property
    def space(self) -> str:
        """The vector space that is searched; empty before `use`."""
        return self._index.space if self._index else ""

    @property
    def state(self) -> Literal["off", "down", "building", "ready"]:
        """`building`: look-ups find what is indexed so far. `down`: they are not worth embedding a question for."""
        if self._index is None:
            return "off"
        # A breaker whose time is over needs an ask as its probe, so it must not keep asks away any longer.
        if self._connection.state != "up" or self._refused or self._breaker.wait_s > 0:
            return "down"
        return "ready" if self._about.indexed >= 1 else "building"

    @property
    def reason(self) -> str:
        """Why it is not ready; empty when it is."""
        match self.state:
            case "ready":
                return ""
            case "off":
                return "no embedder yet"
            case "building":
                return f"the index is being built ({self._about.indexed:.0%})"
            case "down":
                return self._connection.reason or self._trouble or "look-ups failed; trying again soon"

    def statistics(self) -> Statistics:
        """The index as last looked at (at most ten seconds ago), and counts since the start."""
        counts = self._counts
        return Statistics(
            documents=self._about.documents,
            failures=self._about.failures,
            indexed=self._about.indexed,
            asked=counts.asked,
            found=counts.found,
            empty=counts.empty,
            failed=counts.failed,
            paused=self._breaker.state is not State.CLOSED,
        )

    def use(self, fingerprint: str, dims: int) -> None:
        """Search vectors of this embedder from now on; its index is made in the background if it is missing."""
        index = index_for(self._prefix, fingerprint, dims)
        if index != self._index:
            self._index, self._about = index, _NOTHING
            self._look.set()

    async def open(self) -> None:
        """Begin to keep the index; returns at once."""
        self._connection.on_change.append(self._look.set)
        self._keeper.start()

    async def close(self) -> None:
        """Stop. The index stays, for other proxies and the next start. Safe to call twice."""
        if await self._keeper.stop():
            self._connection.on_change.remove(self._look.set)

    async def nearest(
        self, scope: str, partition: str, vector: bytes, *, space: str, k: int = NEIGHBOURS, waited_s: float = 0.0
    ) -> list[Match]:
        """The nearest live entries of a scope, nearest first, at most `k`; one round trip, answers included.

        `vector` is float32 little endian of unit length, from `space`. Empty while the index is missing; it is then
        made again in the background. `waited_s`: how long the ask has waited for Redis before; all it waits together is
        `redis.timeout`. Raises StoreUnavailableError, or EmbedderError for what is no vector of the index.
        """
        index = self._index
        if index is None or self._refused:
            raise StoreUnavailableError(f"no near look-ups: {self.reason}")
        _check(vector, space, index)
        left_s = self._timeout_s - waited_s
        if left_s <= 0:
            raise StoreUnavailableError("the ask has waited for redis long enough")
        ticket = self._breaker.admit()
        if ticket is None:
            raise StoreUnavailableError("near look-ups are paused after failures")
        self._counts.asked += 1
        try:
            found = await self._ask(index, scope, vector, k, left_s)
        except StoreUnavailableError:
            self._breaker.failed(ticket)
            self._counts.failed += 1
            raise
        except BaseException:
            self._breaker.cancelled(ticket)
            raise
        self._breaker.succeeded(ticket)
        matches = [match for each in found if (match := self._match(each, scope, partition))]
        self._counts.found += bool(matches)
        self._counts.empty += not matches
        return matches

    async def _ask(self, index: Index, scope: str, vector: bytes, k: int, timeout_s: float) -> list[Document]:
        # The distance gets a name of this query's own: a reply that belongs to another query has none under it.
        alias = f"distance_{next(self._aliases)}"
        timeout_ms = max(1, int(timeout_s * 1000 * QUERY_SHARE))
        command = index.search(scope, halved(vector), alias=alias, k=k, timeout_ms=timeout_ms)
        try:
            reply = await self._connection.ask(*command, timeout_s=timeout_s, slow=True)
        except StoreRefusedError as refusal:
            if refusal.code != "NOINDEX":
                raise
            self._about = _NOTHING
            self._look.set()
            return []
        if timed_out(reply):
            raise StoreRefusedError("a near look-up ran out of time in redis", "TIMEOUT")
        try:
            return neighbours(reply, alias)
        except ValueError:
            self._metrics.fault(Fault.CHECK_MISMATCH)
            raise StoreUnavailableError("redis gave no reply to the near look-up it was asked for") from None

    def _match(self, neighbour: Document, scope: str, partition: str) -> Match | None:
        """The neighbour, if it is alive and of this scope and partition."""
        if not neighbour.values or neighbour.values[1] is None:
            return None  # without answer: expired or deleted, but not yet out of the index
        try:
            entry = entry_codec.decode_values(neighbour.key, neighbour.values)
        except EntryCorruptError:
            self._metrics.fault(Fault.ENTRY_CORRUPT)
            return None
        if entry.scope != scope or entry.partition != partition:
            self._metrics.fault(Fault.CHECK_MISMATCH)
            return None
        return Match(entry, neighbour.similarity) if entry.expires > self._clock.now() else None

    async def _keep(self) -> None:
        """Look at the index, and wait until there is reason to again."""
        self._look.clear()
        with contextlib.suppress(CacheError):  # kept as the reason
            await self.ensure_index()
        with contextlib.suppress(TimeoutError):
            # While it is being built, often enough to see it ready soon.
            async with asyncio.timeout(REFRESH_S if self.state != "building" else REFRESH_S / 50):
                await self._look.wait()

    async def ensure_index(self) -> None:
        """Look whether the index is there and as it should be; make it if it is missing.

        Raises StoreUnavailableError, also for an index of our name that is not ours, which is left alone.
        """
        index = self._index
        if index is None or self._connection.state != "up":
            return
        try:
            found = await self._info(index)
        except StoreRefusedError as refusal:
            self._refuse(self._connection.capabilities.near_lack or str(refusal))
            raise
        if found.shape != index.shape:
            self._refuse(f"the search index {index.name} is not one of ours; drop it or choose another redis.prefix")
            raise StoreUnavailableError(self._trouble)
        if self._about is _NOTHING:
            share = f", {found.indexed:.0%} indexed" if found.documents else ""
            _log.info("search index %s: %d entries%s", index.name, found.documents, share)
        self._refused, self._trouble, self._about = False, "", found

    async def _info(self, index: Index) -> About:
        """FT.INFO of the index, which is made if it is missing. Another proxy may make it in the same moment."""
        look = ("FT.INFO", index.name)
        try:
            reply = await self._run(look, ADMIN_TIMEOUT_S)
        except StoreRefusedError as refusal:
            if refusal.code != "NOINDEX":
                raise
            reply = await self._make(index, look)
        try:
            return about(reply)
        except ValueError:
            raise StoreRefusedError("redis describes its search index in an unknown way", "ERR") from None

    async def _make(self, index: Index, look: tuple[Any, ...]) -> Any:
        """Make the index; what `look` then says of it."""
        refused = None
        try:
            await self._run(index.create, ADMIN_TIMEOUT_S)
        except StoreRefusedError as refusal:
            refused = refusal  # "Index already exists", unless the look below says otherwise
        try:
            return await self._run(look, ADMIN_TIMEOUT_S)
        except StoreRefusedError as refusal:
            raise refused or refusal from None

    async def _run(self, command: tuple[Any, ...], timeout_s: float) -> Any:
        return await self._connection.run(
            lambda redis: cast("Any", redis).execute_command(*command), timeout_s=timeout_s
        )

    def _refuse(self, why: str) -> None:
        self._about, self._refused = _NOTHING, True
        if why != self._trouble:
            self._trouble = why
            _log.warning("near answers are off: %s", why)

    def _breaker_changed(self, state: State) -> None:
        if state is State.OPEN:
            self._metrics.fault(Fault.BREAKER_OPENED)
            _log.warning("near look-ups fail; only exact answers until they work again")


def _check(vector: bytes, space: str, index: Index) -> None:
    """Raise EmbedderError for a vector Redis would compare with nothing, or with what it must not be compared with."""
    if space != index.space:
        raise EmbedderError(f"a vector of space {space!r}, the index holds {index.space!r}")
    if len(vector) != entry_codec.vector_bytes(space):
        raise EmbedderError(f"a vector of {len(vector)} bytes in space {space!r}")
    if not abs(norm_squared(vector) - 1) <= NORM_SQUARED_TOLERANCE:  # so written that NaN fails
        raise EmbedderError("a vector that has not unit length")
