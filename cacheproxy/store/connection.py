"""The one place through which Redis is asked: deadlines, a breaker, and our errors instead of redis-py's.

    ask(), write() ──► breaker ──► a line, with a deadline ( connect + reply )
    run() ──────────► breaker ──► redis-py, with a deadline ( pool wait + connect + command + reply )
                                  └──► result, or StoreUnavailableError

No command is retried and no ask waits longer than its deadline. Whether Redis is there at all, its heartbeat finds out
(`contact.py`). This module refuses to know entries, keys of entries and queries: those are its callers'.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar, cast

from cacheproxy.errors import StoreRefusedError, StoreUnavailableError
from cacheproxy.store.breaker import State
from cacheproxy.store.contact import Contact
from cacheproxy.store.counts import Statistics
from cacheproxy.store.epoch import NONE, is_news, number, raised
from cacheproxy.store.line import Command
from cacheproxy.store.pool import Client, Clients, pipelined, within
from cacheproxy.store.trouble import ArrivingError

T = TypeVar("T")
OPERATOR_TIMEOUT_S = 5.0
"""Deadline of one round trip for an operator's call, which may take longer than a look-up: no ask waits for it."""
LARGE_TIMEOUT_S = 1.0
"""Deadline of a large write, which no ask waits for: 8 MB take 0.7 s over 100 Mbit/s."""


class Connection(Contact):
    """Redis, as the rest of the program sees it: it answers within the deadline, or it is away."""

    def statistics(self) -> Statistics:
        """Counts since the start, and the pool's present state."""
        return self._counts.told(self._breaker.opened, self._clients.pool if self._clients else None)

    async def ask(self, *command: str | bytes | float, timeout_s: float | None = None, slow: bool = False) -> Any:
        """Redis's reply to one command, within `timeout_s` (default: `redis.timeout`), connecting included.

        For what every ask needs: all share one connection. `slow` ones, which keep Redis busy or are large, share
        another. Raises as `run` does. With a cluster it is a `run`.
        """
        if self._lines is None:
            return await self.run(lambda client: cast("Any", client).execute_command(*command), timeout_s=timeout_s)
        limit_s = self._settings.timeout if timeout_s is None else timeout_s
        line, (ticket, _) = self._lines.slow if slow else self._lines.quick, self._admitted()
        return await self._counted(ticket, line.ask(command, limit_s), limit_s)

    async def ask_all(self, commands: Sequence[Command], *, atomic: bool = False) -> list[Any]:
        """As a slow `ask` for several commands in one round trip; their replies in order.

        Of `atomic` ones either all are done or none, and nothing of another's in between.
        """
        if self._lines is None:
            return await self.run(lambda client: pipelined(client, commands, atomic=atomic))
        sent = (("MULTI",), *commands, ("EXEC",)) if atomic else commands
        limit_s, (ticket, _) = self._settings.timeout, self._admitted()
        replies = await self._counted(ticket, self._lines.slow.ask_all(sent, limit_s), limit_s)
        return cast("list[Any]", replies[-1]) if atomic else replies

    async def write(
        self, script: str, key: str, *arguments: str | bytes | float, epoch: int, large: bool = False
    ) -> bool:
        """Whether the script wrote, which it does only if the epoch is still this one. One round trip.

        It gets the keys `key` and that of the epoch, as arguments the epoch (not `NONE`) and these, and returns what it
        found under the second.
        `large` ones take a connection of the pool and, at most, `LARGE_TIMEOUT_S`. Not for a cluster, see `one_server`.
        Raises as `ask` does.
        """
        command, before = ("EVAL", script, 2, key, self._key("epoch"), epoch, *arguments), self.epoch
        if large:
            limit_s, (ticket, through) = max(LARGE_TIMEOUT_S, self._settings.timeout), self._admitted()
            answer = within(lambda client: cast("Any", client).execute_command(*command), through.client, limit_s)
            found = number(await self._counted(ticket, answer, limit_s, evidence=False))
        else:
            found = number(await self.ask(*command, slow=True))
        self._hear(found, before)
        return found == epoch

    async def run(self, use: Callable[[Client], Awaitable[T]], *, timeout_s: float | None = None) -> T:
        """What `use` returns, within `timeout_s` (default: `redis.timeout`) for pool wait, connect and reply together.

        Raises StoreUnavailableError; its subclass StoreRefusedError when only this command was refused. Cancellation
        and errors of `use`'s own pass through and say nothing about Redis. A connection whose reply was not read to
        its end is closed, never used again.
        """
        limit_s = self._settings.timeout if timeout_s is None else timeout_s
        ticket, through = self._admitted()
        return await self._counted(ticket, within(use, through.client, limit_s), limit_s)

    def _admitted(self) -> tuple[int, Clients]:
        """The breaker's ticket for one call, and what to make it with.

        Raises StoreUnavailableError, counted, where nothing may be tried.
        """
        ticket = self._breaker.admit() if self._breaker.state is State.CLOSED else None
        if ticket is None or self._clients is None or self._closed:
            self._counts.not_tried += 1
            raise StoreUnavailableError(f"redis at {self.where} is away: {self._reason}")
        return ticket, self._clients

    async def _counted(self, ticket: int, answer: Awaitable[T], limit_s: float, *, evidence: bool = True) -> T:
        """The answer, or one of our errors; the counts hear of it, and of a failure that is `evidence` the breaker."""
        try:
            result = await answer
        except BaseException as error:  # noqa: BLE001 - it is raised again
            self._raise(self._failed(ticket, self._in_our_words(error, limit_s), evidence=evidence), error)
        self._breaker.succeeded(ticket)
        self._counts.answered += 1
        return result

    def _failed(self, ticket: int, failure: BaseException, *, evidence: bool) -> BaseException:
        """The failure, counted."""
        if isinstance(failure, StoreRefusedError):
            self._breaker.succeeded(ticket)
            self._counts.refused += 1
            self._refused(failure)
        elif not isinstance(failure, StoreUnavailableError):
            self._counts.left += 1
            self._breaker.cancelled(ticket)
        elif self._closed or not evidence or isinstance(failure, ArrivingError):
            self._counts.left += self._closed
            self._counts.failed += not self._closed
            self._breaker.cancelled(ticket)
        else:
            self._counts.failed += 1
            self._reason = str(failure)
            self._breaker.failed(ticket)
        return failure

    async def bump_epoch(self) -> int:
        """Tell all proxies on this Redis to drop their copies; the new epoch. Raises StoreUnavailableError."""
        before = self.epoch
        return self._hear(number(await self.ask(*raised(self._key("epoch")))), before)

    async def read_epoch(self) -> int:
        """The epoch as it is now; `epoch` may lag by a heartbeat. Raises StoreUnavailableError."""
        before = self.epoch
        return self._hear(number(await self.ask("GET", self._key("epoch"))), before)

    def _hear(self, epoch: int, before: int) -> int:
        """Take over the epoch of a reply, asked for when ours was `before`; ours afterwards."""
        if is_news(epoch, self.epoch, before):
            self.epoch = epoch
            if epoch == NONE:
                self._wake.set()  # the heartbeat begins one
            self._announce()
        return self.epoch
