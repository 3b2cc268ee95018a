"""redis-py's clients, set up so that nothing in them retries or waits on its own, and connections for a line.

Only `within` gives them a deadline: `contact.py` and `connection.py` put it around each call.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, cast

import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.connection
import redis.asyncio.sentinel
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from cacheproxy.store.address import Address
from cacheproxy.store.line import LAST_LOOK_S, Command, Line

Client: TypeAlias = redis.asyncio.Redis
"""With `redis+cluster://` it is really a `RedisCluster`, which has the same commands."""

T = TypeVar("T")

CONNECT_S_MAX = 1.0
"""For one TCP and TLS connection when no shorter deadline is around it."""
SLOW_DIAL_S_MAX = 0.3
"""How long a look at Redis waits for the line that is not needed for it: a small part of `CONTACT_S_MAX`."""
SENTINEL_S_MAX = 0.2
"""How long one sentinel may take, so that a dead one leaves time to ask the next."""

# No retries: a second try would cost a second deadline. No socket timeout: the deadline around the whole call cuts it
# anywhere, while redis-py's own goes through asyncio.wait_for, which on Python 3.11 can swallow a cancellation.
# RESP2 needs no handshake, and its raw FT.SEARCH replies are lists; `protocol=3` in the URL overrides it.
_PLAIN: dict[str, Any] = {
    "retry": Retry(NoBackoff(), 0),
    "socket_timeout": None,
    "socket_connect_timeout": CONNECT_S_MAX,
    "protocol": 2,
    "driver_info": None,  # CLIENT SETINFO would be one more round trip for each connection
    "maint_notifications_config": MaintNotificationsConfig(enabled=False),
}


class Bounded(redis.asyncio.connection.ConnectionPool):
    """A pool of at most `max_connections`, in which a cancelled waiter never costs another one its turn.

    redis-py's own BlockingConnectionPool waits on an asyncio.Condition, which loses the wake-up it gave to a task that
    is cancelled in the same moment: the next one then waits beside a free connection until its deadline. Measured with
    redis-py 8.1.0 on Python 3.11.7, 8 tasks on 2 connections, random cancellations: 85 of 3,000 rounds got stuck, here
    none; it lost no connection. `release` has no await inside, so it cannot be cancelled half way.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._slots = asyncio.Semaphore(self.max_connections)

    async def get_connection(self, command_name: object = None, *keys: object, **options: object) -> Any:  # noqa: ARG002
        """A connected connection without unread replies. Waits while all are in use."""
        await self._slots.acquire()
        connection = self.get_available_connection()  # type: ignore[no-untyped-call]  # redis-py leaves it bare
        try:
            await self.ensure_connection(connection)
        except BaseException:
            await self.release(connection)
            raise
        return connection

    async def release(self, connection: Any) -> None:
        """Give it back; there is no point inside at which this could be cancelled."""
        self._in_use_connections.remove(connection)
        self._available_connections.append(connection)
        self._slots.release()

    @property
    def idle(self) -> int:
        """Connections open and not in use."""
        return sum(connection.is_connected for connection in self._available_connections)

    @property
    def used(self) -> int:
        """Connections lent out."""
        return len(self._in_use_connections)


class BoundedSentinel(Bounded, redis.asyncio.sentinel.SentinelConnectionPool):
    """The same for a primary that sentinels name; each new connection asks them who it is."""


@dataclass(frozen=True, slots=True)
class Clients:
    """What has to be closed in the end. `pool` is None for a cluster, whose client keeps pools of its own."""

    client: Client
    pool: Bounded | None = None
    sentinel: redis.asyncio.sentinel.Sentinel | None = None

    async def close(self) -> None:
        """Close all connections, also those in use."""
        for part in (self.client, self.pool, self.sentinel):
            if part is not None:
                with contextlib.suppress(redis.exceptions.RedisError, OSError):
                    await part.aclose()


def clients(address: Address, connections_max: int) -> Clients:
    """Clients for an address; nothing is sent yet. Must be called in a running event loop."""
    options = _PLAIN | address.options
    if address.kind == "cluster":
        cluster = redis.asyncio.cluster.RedisCluster(
            startup_nodes=[redis.asyncio.cluster.ClusterNode(host, port) for host, port in address.nodes],
            require_full_coverage=False,
            max_connections=connections_max,
            ssl=address.tls,
            **options,
        )
        return Clients(cast("Client", cluster))
    sentinel = None
    if address.kind == "sentinel":
        limits = {"socket_timeout": SENTINEL_S_MAX, "socket_connect_timeout": SENTINEL_S_MAX}
        sentinel = redis.asyncio.sentinel.Sentinel(  # type: ignore[no-untyped-call]  # redis-py leaves it bare
            address.nodes, sentinel_kwargs=_PLAIN | limits
        )
        options |= {"service_name": address.service, "sentinel_manager": sentinel, "ssl": address.tls}
    pool = (BoundedSentinel if sentinel else Bounded)(max_connections=connections_max, **options)
    return Clients(redis.asyncio.Redis(connection_pool=pool), pool, sentinel)


async def within(use: Callable[[Client], Awaitable[T]], client: Client, limit_s: float) -> T:
    """What `use` returns. Raises TimeoutError after `limit_s`: for a connection, the command and its reply together.

    What has come by then and is not yet read still counts: a busy event loop makes no Redis late.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as deadline:
        due = loop.call_later(limit_s, lambda: deadline.reschedule(loop.time() + LAST_LOOK_S))
        try:
            return await use(client)
        finally:
            due.cancel()


async def pipelined(client: Client, commands: Sequence[Command], *, atomic: bool) -> list[Any]:
    """The replies to commands of one round trip; `atomic`: all of them or none."""
    async with client.pipeline(transaction=atomic) as pipe:
        for command in commands:
            pipe.execute_command(*command)
        return await pipe.execute()


@dataclass(frozen=True, slots=True)
class Lines:
    """The connections that asks share. Two, so that no short command waits behind a large or slow one."""

    quick: Line
    slow: Line

    async def connect(self) -> None:
        """Dial those that are not connected; that of the slow one may fail. Raises as `dial`, and TimeoutError."""
        await self.quick.connect()
        with contextlib.suppress(redis.exceptions.RedisError, OSError):
            await self.slow.connect(SLOW_DIAL_S_MAX)

    def redial(self) -> None:
        """Use new connections from now on."""
        for line in (self.quick, self.slow):
            line.redial()

    def close(self) -> None:
        """End them for good."""
        for line in (self.quick, self.slow):
            line.close()


def lines(through: Clients) -> Lines | None:
    """The lines beside a pool; nothing is dialled yet. None for a cluster, where each key has a server of its own."""
    pool = through.pool
    return None if pool is None else Lines(Line(lambda: dial(pool)), Line(lambda: dial(pool)))


async def dial(pool: Bounded) -> asyncio.StreamWriter:
    """A connection that the pool does not count, after its handshake: TCP, TLS, password, database, sentinels.

    Whoever gets it must take over its transport and close it. Raises redis-py's errors.
    """
    connection = pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py leaves it bare
    try:
        await connection.connect()
        _nothing_said(connection)
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    # So that redis-py closes it no more.
    writer, connection._writer, connection._reader = connection._writer, None, None
    return cast("asyncio.StreamWriter", writer)


def _nothing_said(connection: Any) -> None:
    """Raise for a server that has said more than it was asked, mostly that it has no connection left, or has hung up.

    What redis-py has read ahead in the handshake would else be lost, and with it whose the next reply is.
    """
    unread = bytes(connection._reader._buffer)
    if unread or connection._parser._reader.has_data():
        raise redis.exceptions.ConnectionError(unread.decode(errors="replace"))
    if connection._reader.at_eof() or connection._writer.is_closing():
        raise redis.exceptions.ConnectionError("hung up in the handshake")
