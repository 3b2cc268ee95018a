"""Asks that were answered from the cache before, with the plan that was made for each: an equal one needs no other.

Reading an ask, planning it and making its keys costs more than its look-up and its reply together. Nothing is served
that the look-up does not find now; and a plan is used only if it would be made again: every model name stands for what
it stood for, keys are made with the same secret, the settings are the same (they are part of `Said`), and no answer to
the same ask is under way (`Plans.find`).

Beside a plan lies the reply that was made last (`Last`), where memory cannot hold the answer and an equal ask gets an
equal reply. It is what Redis held, read and put together; while Redis says the same, that need not be done again.

Asks whose hits the repeat lane can keep are its own: those are found there once memory holds their answers. Refuses to
look anything up.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container, Hashable
from dataclasses import dataclass

from cacheproxy.edge.lane import Marked, Record
from cacheproxy.edge.reply import Form
from cacheproxy.model import Identity, Plan
from cacheproxy.store.exact import Values
from cacheproxy.store.memory import Memory

BYTES_MAX = 8 * 1024**2
"""Of all plans, whatever `cache.memory` is: they are needed most where that is 0."""
OVERHEAD_BYTES = 2_000
"""Python objects around one plan, besides twice its request, which `Said` holds in its canonical form: measured with
tracemalloc over 400 plans for chats of 0.2, 0.4 and 2.7 kB on CPython 3.11 (1.8, 2.0 and 4.3 kB each, all told)."""


@dataclass(frozen=True, slots=True)
class Last:
    """A hit of Redis's, as it was found and as it is repeated."""

    values: Values
    record: Record


@dataclass(slots=True)
class Planned:
    """What an ask said, planned: how it is looked up, and how a hit for it is replied to."""

    said: Hashable
    plan: Plan
    identity: Identity
    form: Form
    mark: Hashable
    """Of the models' names when it was planned."""
    secret: bytes
    unrepeatable: bool
    """The repeat lane can have no record of it, also where memory holds its answer."""
    size_bytes: int
    last: Last | None = None


class Plans:
    """Plans by what was said. The least recently used make room.

    `secret` gives the store's present one; `flight_key` tells under which key an answer would be under way.
    """

    def __init__(
        self,
        memory: Memory,
        models: Marked,
        flights: Container[str],
        secret: Callable[[], bytes],
        flight_key: Callable[[Plan], str],
    ) -> None:
        self._memory = memory
        self._models = models
        self._flights = flights
        self._secret = secret
        self._flight_key = flight_key
        self._planned: OrderedDict[Hashable, Planned] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._planned)

    def learn(
        self, said: Hashable, plan: Plan, identity: Identity, form: Form, *, said_bytes: int, unrepeatable: bool
    ) -> None:
        """Use this plan for what was said, from now on. `said_bytes`: of the request. `form` is kept as it is."""
        mark, size_bytes = self._models.mark, OVERHEAD_BYTES + 2 * said_bytes
        if mark is None or size_bytes > BYTES_MAX // 8 or self.find(said) is not None:
            return
        self.forget(said)
        self._planned[said] = Planned(said, plan, identity, form, mark, self._secret(), unrepeatable, size_bytes)
        self._grow(size_bytes)

    def keep_last(self, planned: Planned, last: Last) -> None:
        """Repeat this hit for a plan, unless it is very long, or the plan has made room for others."""
        fits = last.record.size_bytes <= BYTES_MAX // 8
        if fits and self._planned.get(planned.said) is planned and planned.last is None:
            planned.last = last
            planned.size_bytes += last.record.size_bytes
            self._grow(last.record.size_bytes)

    def drop_last(self, planned: Planned, last: Last) -> None:
        """Repeat this hit no more; one that was kept since stays."""
        if planned.last is not last:
            return
        planned.last = None
        if self._planned.get(planned.said) is planned:
            planned.size_bytes -= last.record.size_bytes
            self.size_bytes -= last.record.size_bytes

    def _grow(self, size_bytes: int) -> None:
        self.size_bytes += size_bytes
        while self.size_bytes > BYTES_MAX:
            self.forget(next(iter(self._planned)))

    def find(self, said: Hashable) -> Planned | None:
        """The plan for what was said, if it would be made again now, and a look-up is all that is left to do."""
        planned = self._planned.get(said)
        if planned is None:
            return None
        mark = self._models.mark
        if mark != planned.mark or self._secret() != planned.secret:
            if mark is not None:
                self.forget(said)
            return None
        if self._flight_key(planned.plan) in self._flights:
            return None
        if not planned.unrepeatable and self._memory.get(planned.plan) is not None:
            return None
        self._planned.move_to_end(said)
        return planned

    def forget(self, said: Hashable) -> None:
        """Plan anew what was said."""
        planned = self._planned.pop(said, None)
        if planned is not None:
            self.size_bytes -= planned.size_bytes
