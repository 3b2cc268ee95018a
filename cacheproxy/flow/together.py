"""Several asks that wait for their turn at Ollama make one call of it.

A *batch* is one call with the asks it is made for. Asks join it while it waits for its turn and not afterwards, so
gathering costs nobody any time: whoever finds a place free goes at once, and alone.

    1. ask A comes, makes a batch; its turn comes at once: A is sent alone
    2. ask B comes, makes a batch, which waits        4. A's call ends, B's batch has its turn and is closed
    3. ask C comes, joins B's batch                   5. B and C are one call; ask D makes a batch

The call is nobody's own: an ask that leaves takes only its texts along, and the last one that leaves ends the call.
Refuses to know what an ask is, what a call brings, and what to do when it fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """One ask in a batch."""

    texts: Sequence[str]
    body: bytes
    """What it sends when it is alone."""


@dataclass(slots=True, eq=False)
class Batch(Generic[_Result]):
    """One call. `members` no longer changes once it is closed, but for those who leave."""

    members: list[Member] = field(default_factory=list)
    asks: int = 0
    """How many asks it was made for; 0 until it is closed."""
    texts: Sequence[str] = ()
    """Their texts, each once, in the order of their coming."""
    bodies: Sequence[bytes] = ()
    """What each of them would have sent."""
    _task: asyncio.Task[_Result] | None = None

    def close(self) -> None:
        """Its turn has come: nobody joins any more. May be called again."""
        if self.asks:
            return
        self.asks = len(self.members)
        self.texts = tuple(dict.fromkeys(text for member in self.members for text in member.texts))
        self.bodies = tuple(member.body for member in self.members)

    def takes(self, member: Member, texts_max: int) -> bool:
        """Whether one more ask may join."""
        return not self.asks and sum(len(each.texts) for each in [*self.members, member]) <= texts_max


class Batches(Generic[_Result]):
    """The batches that wait, by what their asks have in common. `texts_max`: most texts of several asks in one call."""

    def __init__(self, texts_max: int) -> None:
        self._texts_max = texts_max
        self._open: dict[Hashable, Batch[_Result]] = {}

    def __len__(self) -> int:
        return len(self._open)

    @property
    def gathered(self) -> int:
        """Asks in batches that others may still join."""
        return sum(len(batch.members) for batch in self._open.values() if not batch.asks)

    async def send(
        self,
        company: Hashable,
        member: Member,
        call: Callable[[Batch[_Result]], Awaitable[_Result]],
        abandon: Callable[[_Result], Awaitable[None]],
    ) -> tuple[Batch[_Result], _Result]:
        """Take part in the next call of this `company`; return the batch and what the call brought, or raise its error.

        `call` makes it, and closes the batch when its turn has come or will not come; the first member's is used.
        `abandon` is given a result that comes when nobody wants it any more.
        """
        batch = self._open.get(company)
        if batch is None or not batch.takes(member, self._texts_max):
            batch = self._open[company] = Batch()
            batch._task = asyncio.create_task(self._run(company, batch, call))
            batch._task.add_done_callback(_looked_at)
        batch.members.append(member)
        task = batch._task
        assert task is not None  # noqa: S101 - it has one from its first member on
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            batch.members.remove(member)
            if not batch.members:
                await self._end(company, batch, task, abandon)
            raise
        return batch, task.result()

    async def _run(
        self, company: Hashable, batch: Batch[_Result], call: Callable[[Batch[_Result]], Awaitable[_Result]]
    ) -> _Result:
        try:
            return await call(batch)
        finally:
            batch.close()
            self._forget(company, batch)

    async def _end(
        self,
        company: Hashable,
        batch: Batch[_Result],
        task: asyncio.Task[_Result],
        abandon: Callable[[_Result], Awaitable[None]],
    ) -> None:
        """The last one has left."""
        self._forget(company, batch)
        if not task.cancel() and not task.cancelled() and task.exception() is None:
            await abandon(task.result())

    def _forget(self, company: Hashable, batch: Batch[_Result]) -> None:
        if self._open.get(company) is batch:
            del self._open[company]


def _looked_at(task: asyncio.Task[Any]) -> None:
    """An error that nobody waits for any more is none: asyncio would report it."""
    if not task.cancelled():
        task.exception()
