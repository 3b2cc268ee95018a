"""The one place that talks to Redis: deadlines, a breaker, a heartbeat, and our errors instead of redis-py's.

    run() ──► breaker ──► deadline ( pool wait + connect + command + reply ) ──► result, or StoreUnavailableError
    heartbeat, once a second ──► contact: who is there, secret, epoch ──► state, capabilities, on_change

No command is retried and no ask waits longer than its deadline. While the breaker is open only the heartbeat probes,
so no ask pays for finding out that Redis is still away.

`redis.url` may be
    embedded                                        the private server of `embedded.py`
    redis://[user:password@]host[:port][/db]        rediss:// the same over TLS, never falling back to plain text
    unix:///path/to/socket[?db=0]
    redis+sentinel://[user:password@]host:port[,host:port…]/service[/db]      as redisvl spells it; also rediss+…
    redis+cluster://[user:password@]host:port[,host:port…]                    also rediss+…
with `ssl_…`, `db`, `protocol`, `username` and `password` as query members where redis-py knows them. Nothing in a URL
can loosen a deadline.

Replies come as RESP2 unless the URL says `protocol=3`: it needs no handshake, and raw `FT.SEARCH` replies are lists.
This module refuses to know entries, keys of entries and queries: those are its callers'.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar, cast
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.connection
import redis.asyncio.sentinel
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from cacheproxy import config
from cacheproxy.clock import Clock
from cacheproxy.errors import ConfigError, StoreRefusedError, StoreUnavailableError
from cacheproxy.store.breaker import Breaker, State
from cacheproxy.store.embedded import Embedded

_log = logging.getLogger("cacheproxy.store")

T = TypeVar("T")
Client: TypeAlias = redis.asyncio.Redis
"""What `use` is given. With `redis+cluster://` it is a `RedisCluster`, which has the same commands."""

HEARTBEAT_S = 1.0
"""Between two looks at secret, epoch and identity: how long another proxy's purge may stay unnoticed."""
CONTACT_S_MAX = 1.0
"""What a first contact may take, off the request path: look-up of the name, TLS, AUTH, INFO."""
OPEN_WAIT_S_MAX = 0.25
"""How long `open` waits for the first contact at most."""
PROBE_PAUSE_S_MAX = 0.4
"""Longest pause between probes. Short, since no ask waits for them: a cache that came back is used within 0.5 s."""
SENTINEL_S_MAX = 0.2
"""How long one sentinel may take, so that a dead one leaves time to ask the next."""
LOG_PAUSE_S = 60.0
"""A kind of refusal is logged at most once in this time."""

# Redis is there and will not serve anybody now.
_TROUBLE = {
    "LOADING": "is loading its data",
    "NOAUTH": "wants a password",
    "WRONGPASS": "refused the user name or password",
    "MASTERDOWN": "is a replica without its primary",
    "CLUSTERDOWN": "is part of a cluster that is down",
    "BUSY": "is busy with a script",
    "MOVED": "is part of a cluster; write redis+cluster:// in redis.url",
}
# Redis serves others: reads while writes are refused, other keys, other commands.
_REFUSALS = {
    "OOM": "is out of memory and refuses writes; raise maxmemory or set an eviction policy",
    "MISCONF": "cannot write its disk and refuses writes; see its log",
    "READONLY": "is a replica and refuses writes",
    "NOREPLICAS": "misses replicas and refuses writes",
    "NOPERM": "does not permit this command to our user; see its ACL",
    "WRONGTYPE": "holds a value of another type under one of our keys",
    "NOINDEX": "has no such search index",
}
_URL_MEMBERS = {"db", "protocol", "username", "password"}

# No retries: a second try would cost a second deadline. No socket timeout: the one deadline around the whole call cuts
# it anywhere, where redis-py's own would go through asyncio.wait_for, which on 3.11 can swallow a cancellation.
_PLAIN: dict[str, Any] = {
    "retry": Retry(NoBackoff(), 0),
    "socket_timeout": None,
    "socket_connect_timeout": CONTACT_S_MAX,
    "protocol": 2,
    "driver_info": None,  # CLIENT SETINFO would be one more round trip for each connection
    "maint_notifications_config": MaintNotificationsConfig(enabled=False),
}


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the Redis at the other end can do, found out at each contact after a break."""

    server_version: str = ""
    search_version: str | None = None
    """None: no search module, or not yet known."""
    maxmemory: int = 0
    """Bytes; 0: no limit set."""
    policy: str = ""
    """`maxmemory-policy`."""
    note: str = ""
    """One line on what is missing and how to get it; empty when nothing is."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts since the start."""

    calls: int
    """All `run`s: = answered + refused + failed + not_tried + left."""
    answered: int
    refused: int
    """Redis refused the command (StoreRefusedError)."""
    failed: int
    """No answer in time, no connection, or Redis serves nobody."""
    not_tried: int
    """Turned away at once because the breaker was open."""
    left: int
    """Cancelled by their caller, or ended by an error of the caller's own code."""
    breaker_opened: int
    contacts: int
    """First contacts and those after a break."""
    connections_idle: int
    connections_used: int
    """Both 0 with a cluster, whose client keeps its own."""


@dataclass(slots=True)
class _Counts:
    answered: int = 0
    refused: int = 0
    failed: int = 0
    not_tried: int = 0
    left: int = 0
    contacts: int = 0


@dataclass(frozen=True, slots=True)
class _Target:
    """`redis.url`, understood. `options` may hold a password: kept out of repr."""

    kind: Literal["single", "sentinel", "cluster"]
    where: str
    nodes: list[tuple[str, int]]
    service: str
    tls: bool
    options: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Found:
    """What one contact brought home."""

    run_id: str
    secret: bytes | None
    epoch: int


class _IncurableError(StoreUnavailableError):
    """Waiting does not cure it: the operator's user, password or URL is wrong."""


class _LateError(StoreUnavailableError):
    """It was reached, but took longer than an ask may wait."""


class _Bounded(redis.asyncio.connection.ConnectionPool):
    """A pool of at most `max_connections`, whose `release` never waits.

    redis-py's own BlockingConnectionPool takes a lock to release; a task cancelled while it waits for that lock never
    gives its connection back, and the pool shrinks for good. Waiting here is bounded by the deadline around it.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._slots = asyncio.Semaphore(self.max_connections)

    async def get_connection(self, command_name: object = None, *keys: object, **options: object) -> Any:  # noqa: ARG002
        """A connected connection. Waits while all are in use."""
        await self._slots.acquire()
        connection = self.get_available_connection()  # type: ignore[no-untyped-call]  # redis-py leaves it bare
        try:
            await self.ensure_connection(connection)
        except BaseException:
            await self.release(connection)
            raise
        return connection

    async def release(self, connection: Any) -> None:
        """Give it back, without a point at which this could be cancelled."""
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


class _BoundedSentinel(_Bounded, redis.asyncio.sentinel.SentinelConnectionPool):
    """The same for a primary that sentinels name; each new connection asks them who it is."""


class Connection:
    """Redis, as the rest of the program sees it: it answers within the deadline, or it is away.

    `on_change` holds functions without arguments, called when in-process copies may be stale: the epoch or secret
    changed, another server answered, or contact was made again after a break. They must be quick and not raise.
    """

    def __init__(self, settings: config.Redis, clock: Clock, *, embedded: Embedded | None = None) -> None:
        self._settings = settings
        self._clock = clock
        if settings.url == "embedded" and embedded is None:
            raise ConfigError('redis.url = "embedded" needs the embedded server to be passed in')
        self._target = _parse(embedded.url if settings.url == "embedded" and embedded else settings.url)
        self.where = self._target.where
        """`host:port` or the path, without user and password; for messages."""
        self._breaker = Breaker(clock, random.random, self._breaker_changed, open_s_max=PROBE_PAUSE_S_MAX)
        self._client: Client | None = None
        self._pool: _Bounded | None = None
        self._sentinel: redis.asyncio.sentinel.Sentinel | None = None
        self._heart: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._looked = asyncio.Event()
        self._counts = _Counts()
        self._reason = "not contacted yet"
        self._fatal: ConfigError | None = None
        self._since = clock.monotonic()
        self._known = False
        self._redial = False
        self._run_id = ""
        self._logged: dict[str, float] = {}
        self._secret = secrets.token_bytes(32)
        self.generation = 0
        """Grows when `secret` changes."""
        self.epoch = 0
        """Grows with every purge by any proxy on this Redis; 0 also while Redis has not been reached."""
        self.capabilities = Capabilities()
        self.on_change: list[Callable[[], None]] = []

    @property
    def secret(self) -> bytes:
        """32 bytes shared by all proxies on this Redis; of this process alone until it has been reached."""
        return self._secret

    @property
    def state(self) -> Literal["up", "down", "connecting"]:
        """`connecting` until the first contact has succeeded or failed."""
        if not self._looked.is_set():
            return "connecting"
        return "up" if self._known and self._breaker.state is State.CLOSED else "down"

    @property
    def reason(self) -> str:
        """Why it is not up; empty when it is."""
        return "" if self.state == "up" else self._reason

    def statistics(self) -> Statistics:
        """Counts since the start, and the pool's present state."""
        counts = self._counts
        return Statistics(
            calls=counts.answered + counts.refused + counts.failed + counts.not_tried + counts.left,
            answered=counts.answered,
            refused=counts.refused,
            failed=counts.failed,
            not_tried=counts.not_tried,
            left=counts.left,
            breaker_opened=self._breaker.opened,
            contacts=counts.contacts,
            connections_idle=self._pool.idle if self._pool else 0,
            connections_used=self._pool.used if self._pool else 0,
        )

    async def open(self) -> None:
        """Begin to look for Redis; returns at the first contact, or after a quarter of a second without one.

        A Redis that is away is no error here. Raises ConfigError for what waiting does not cure: an unusable URL,
        a refused password, and a cluster behind a plain URL.
        """
        self._client = self._connect()
        self._heart = asyncio.create_task(self._beat_forever(), name="redis heartbeat")
        await _wait(self._looked, OPEN_WAIT_S_MAX)
        if self._fatal is not None:
            await self.close()
            raise self._fatal

    async def close(self) -> None:
        """End the heartbeat and all connections. Calls made afterwards fail at once. Safe to call twice."""
        if self._heart is not None:
            self._heart.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._heart
            self._heart = None
        client, self._client = self._client, None
        for part in (client, self._pool, self._sentinel):
            if part is not None:
                with contextlib.suppress(redis.exceptions.RedisError, OSError):
                    await part.aclose()

    async def run(self, use: Callable[[Client], Awaitable[T]], *, timeout_s: float | None = None) -> T:
        """What `use` returns, within `timeout_s` (default: `redis.timeout`) for pool wait, connect and reply together.

        Raises StoreUnavailableError; its subclass StoreRefusedError when only this command was refused. Cancellation
        and errors of `use`'s own pass through and say nothing about Redis. A connection whose reply was not read to
        its end is closed, never used again.
        """
        ticket = self._breaker.admit() if self._breaker.state is State.CLOSED else None
        client = self._client
        if ticket is None or client is None:
            self._counts.not_tried += 1
            raise StoreUnavailableError(f"redis at {self.where} is away: {self._reason}")
        try:
            result = await self._within(use(client), self._settings.timeout if timeout_s is None else timeout_s)
        except StoreRefusedError as refusal:
            self._breaker.succeeded(ticket)
            self._counts.refused += 1
            self._refused(refusal)
            raise
        except StoreUnavailableError as failure:
            self._counts.failed += 1
            self._reason = str(failure)
            self._breaker.failed(ticket)
            raise
        except BaseException:
            self._counts.left += 1
            self._breaker.cancelled(ticket)
            raise
        self._breaker.succeeded(ticket)
        self._counts.answered += 1
        return result

    async def bump_epoch(self) -> int:
        """Tell all proxies on this Redis to drop their copies; the new epoch. Raises StoreUnavailableError."""
        epoch = int(await self.run(lambda client: client.incr(self._key("epoch"))))
        if epoch != self.epoch:
            self.epoch = epoch
            self._announce()
        return epoch

    async def _within(self, answer: Awaitable[T], timeout_s: float) -> T:
        """The answer, or one of our errors. The only place where redis-py's errors and timeouts are translated."""
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise StoreUnavailableError(f"redis at {self.where} gave no answer in {timeout_s:g} s") from None
        except (redis.exceptions.RedisError, redis.exceptions.RedisClusterException, OSError) as error:
            # `from None`: the text of a reply can quote the command, and a traceback would print it.
            raise _translated(error, self.where) from None

    def _connect(self) -> Client:
        """The client for `redis.url`; nothing is sent yet."""
        target, bound = self._target, self._settings.connections
        if target.kind == "cluster":
            nodes = [redis.asyncio.cluster.ClusterNode(host, port) for host, port in target.nodes]
            options = target.options | {"ssl": target.tls}
            cluster = redis.asyncio.cluster.RedisCluster(
                startup_nodes=nodes, require_full_coverage=False, max_connections=bound, **options
            )
            return cast("Client", cluster)
        if target.kind == "sentinel":
            limits = {"socket_timeout": SENTINEL_S_MAX, "socket_connect_timeout": SENTINEL_S_MAX}
            self._sentinel = redis.asyncio.sentinel.Sentinel(  # type: ignore[no-untyped-call]  # redis-py leaves it bare
                target.nodes, sentinel_kwargs=_PLAIN | limits
            )
            self._pool = _BoundedSentinel(
                service_name=target.service, sentinel_manager=self._sentinel, ssl=target.tls,
                max_connections=bound, **target.options,
            )  # fmt: skip
        else:
            self._pool = _Bounded(max_connections=bound, **target.options)
        return redis.asyncio.Redis(connection_pool=self._pool)

    async def _beat_forever(self) -> None:
        """Look once a second; while the breaker is open, whenever it lets a probe through."""
        while True:
            self._wake.clear()
            await self._beat()
            pause_s = HEARTBEAT_S if self._breaker.state is State.CLOSED else self._breaker.wait_s
            await _wait(self._wake, pause_s)

    async def _beat(self) -> None:
        """One look at Redis, which is the probe when the breaker is open."""
        client = self._client
        ticket = self._breaker.admit()
        if ticket is None or client is None:
            return
        try:
            found = await self._within(self._look(client), CONTACT_S_MAX)
            # Only a Redis that answers within an ask's deadline is worth asking.
            try:
                await self._within(client.ping(), self._settings.timeout)
            except StoreUnavailableError as failure:
                raise _LateError(str(failure)) from None
        except StoreUnavailableError as failure:
            self._missed(failure, ticket)
        except BaseException:
            self._breaker.cancelled(ticket)
            raise
        else:
            self._breaker.succeeded(ticket)
            # Asks may have opened the breaker meanwhile; then the next probe decides.
            if self._breaker.state is State.CLOSED:
                self._learned(found)
        self._looked.set()

    async def _look(self, client: Client) -> _Found:
        """Secret, epoch and identity; after a break also what the server can do."""
        if self._redial and self._pool is not None:
            # A replica answered where a primary should: resolve the name anew.
            await self._pool.disconnect(inuse_connections=False)
        self._redial = False
        if self._known:
            about = await _info(client, "server")
        else:
            about = await _info(client)
            if about.get("redis_mode") == "cluster" and self._target.kind != "cluster":
                raise redis.exceptions.ResponseError("MOVED")
            self.capabilities = _capabilities(about)
        return _Found(
            run_id=str(about.get("run_id", "")),
            secret=await self._fetch_secret(client),
            epoch=_number(await client.get(self._key("epoch"))),
        )

    async def _fetch_secret(self, client: Client) -> bytes | None:
        """The shared secret, put there if it is missing; None where it can be neither read nor put (a full Redis)."""
        key = self._key("secret")
        stored = cast("bytes | None", await client.get(key))
        if stored is None:
            self._run_id = ""  # flushed or new: its epoch may repeat, so copies must go in any case
            try:
                await client.set(key, self._secret, nx=True)
            except redis.exceptions.ResponseError:
                return None
            stored = cast("bytes | None", await client.get(key))
        return stored

    def _learned(self, found: _Found) -> None:
        """Take over what a contact found, and tell if copies may be stale."""
        changed = not self._known or found.epoch != self.epoch or found.run_id != self._run_id
        if not self._known:
            self._known = True
            self._counts.contacts += 1
            away = f" after {self._clock.monotonic() - self._since:.1f} s" if self._breaker.opened else ""
            note = f" ({self.capabilities.note})" if self.capabilities.note else ""
            _log.info("redis %s at %s answers%s%s", self.capabilities.server_version, self.where, away, note)
        if found.secret is not None and found.secret != self._secret:
            self._secret = found.secret
            self.generation += 1
            changed = True
        self.epoch, self._run_id = found.epoch, found.run_id
        if changed:
            self._announce()

    def _missed(self, failure: StoreUnavailableError, ticket: int) -> None:
        """A look failed. Its own time is twenty times an ask's, so it opens the breaker alone; a late PING does not."""
        self._reason = str(failure)
        if isinstance(failure, _IncurableError) and not self._looked.is_set():
            self._fatal = ConfigError(f"redis.url: {failure}")
        self._breaker.failed(ticket)
        if not isinstance(failure, _LateError):
            self._breaker.trip()

    def _breaker_changed(self, state: State) -> None:
        if state is State.OPEN:
            self._known = False
            self._since = self._clock.monotonic()
            self._wake.set()
            _log.warning("%s; serving without cache", self._reason)

    def _refused(self, refusal: StoreRefusedError) -> None:
        self._redial = self._redial or refusal.code == "READONLY"
        now = self._clock.monotonic()
        if refusal.code in _REFUSALS and now - self._logged.get(refusal.code, -LOG_PAUSE_S) >= LOG_PAUSE_S:
            self._logged[refusal.code] = now
            _log.warning("%s", refusal)

    def _announce(self) -> None:
        for callback in self.on_change:
            try:
                callback()
            except Exception:  # noqa: BLE001 - a fault of one listener must not end the heartbeat
                _log.exception("a listener of the redis connection failed")

    def _key(self, name: str) -> str:
        return f"{self._settings.prefix}:{name}"


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    """Until the event or the time. Not `wait_for`, which on Python 3.11 can swallow a cancellation."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()


async def _info(client: Client, *sections: str) -> dict[str, Any]:
    """INFO of the server, or of one node of a cluster."""
    about: dict[str, Any] = await client.info(*sections)
    return about


def _number(value: bytes | str | None) -> int:
    """The epoch as stored; 0 for none and for a foreign value under our key."""
    try:
        return int(value or 0)
    except ValueError:
        return 0


def _capabilities(about: dict[str, Any]) -> Capabilities:
    """What INFO tells of the server. Pure."""
    modules = about.get("modules", [])
    version = next((int(module["ver"]) for module in modules if module.get("name") == "search"), None)
    maxmemory, policy = int(about.get("maxmemory", 0)), str(about.get("maxmemory_policy", ""))
    missing = []
    if version is None:
        missing.append("no search module: near answers are off; use redis:8 or load redisearch")
    if maxmemory == 0:
        missing.append("maxmemory is not set: the cache grows until the host is full; set it and volatile-lru")
    elif policy == "noeviction":
        missing.append("maxmemory-policy is noeviction: a full cache keeps nothing new; set volatile-lru")
    return Capabilities(
        server_version=str(about.get("redis_version", "")),
        # Modules write 2.10.5 as 21005.
        search_version=None if version is None else f"{version // 10000}.{version // 100 % 100}.{version % 100}",
        maxmemory=maxmemory,
        policy=policy,
        note="; ".join(missing),
    )


def _translated(error: Exception, where: str) -> StoreUnavailableError:
    """Our error for one of redis-py's. Its text is ours too, except for Redis' upper-case error codes. Pure."""
    text = str(error)
    code = getattr(error, "status_code", None) or text.split(" ", 1)[0]
    if "no such index" in text.lower() or "unknown index name" in text.lower():
        code = "NOINDEX"
    if code in ("NOAUTH", "WRONGPASS", "MOVED"):
        return _IncurableError(f"redis at {where} {_TROUBLE[code]}")
    if code in _TROUBLE:
        return StoreUnavailableError(f"redis at {where} {_TROUBLE[code]}")
    if isinstance(error, redis.exceptions.AuthenticationError):
        return _IncurableError(f"redis at {where} {_TROUBLE['WRONGPASS']}")
    if isinstance(error, (redis.exceptions.ResponseError, redis.exceptions.DataError)):
        code = code if re.fullmatch(r"[A-Z]{2,20}", code) else "ERR"
        return StoreRefusedError(f"redis at {where} {_REFUSALS.get(code, f'refused a command ({code})')}", code)
    if "max number of clients" in text:
        return StoreUnavailableError(f"redis at {where} has no connection left for us; raise its maxclients")
    if tls := re.search(r"\[SSL: ([A-Z_]+)\]", text):
        return StoreUnavailableError(f"redis at {where} cannot be reached over TLS ({tls[1]})")
    return StoreUnavailableError(f"redis at {where} cannot be reached")


def _parse(url: str) -> _Target:
    """`redis.url`, understood. Pure. Raises ConfigError, whose text never repeats a password."""
    try:
        parts = urlsplit(url)
        base, _, kind = parts.scheme.partition("+")
        if base == "unix" and not kind:
            return _Target("single", parts.path, [], "", False, _options(parts, "unix", ""))
        if base not in ("redis", "rediss") or kind not in ("", "sentinel", "cluster"):
            raise ValueError('expected "embedded", redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://')
        user, at, hosts = parts.netloc.rpartition("@")
        nodes = [_node(host, 26379 if kind == "sentinel" else 6379) for host in hosts.split(",")]
        service, database = _path(parts.path, kind)
        first = f"{user}{at}{hosts.split(',')[0]}"
        options = _options(parts._replace(netloc=first, path=database), base, kind)
        if not kind:
            if len(nodes) > 1:
                raise ValueError("several hosts need redis+sentinel:// or redis+cluster://")
            return _Target("single", hosts, nodes, "", base == "rediss", options)
        return _Target("cluster" if kind == "cluster" else "sentinel", hosts, nodes, service, base == "rediss", options)
    except ValueError as error:
        raise ConfigError(f"redis.url: {error}") from None


def _options(parts: SplitResult, base: str, kind: str) -> dict[str, Any]:
    """Arguments for redis-py's connections: what the URL says, and over it what keeps deadlines. Raises ValueError."""
    for member in parse_qs(parts.query):
        if member not in _URL_MEMBERS and not member.startswith("ssl_"):
            raise ValueError(f'"{member}" cannot be set there')
    said = dict(redis.asyncio.connection.parse_url(parts._replace(scheme=base).geturl()))
    if kind:
        for name in ("host", "port", "connection_class"):
            said.pop(name, None)
    return _PLAIN | said


def _node(text: str, default_port: int) -> tuple[str, int]:
    """Host and port of `host`, `host:port` or `[ipv6]:port`. Raises ValueError."""
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::(\d{1,5}))?", text)
    if found is None:
        raise ValueError("expected HOST:PORT after the scheme (percent-encode special characters of a password)")
    return unquote(found[1].strip("[]")), int(found[2] or default_port)


def _path(path: str, kind: str) -> tuple[str, str]:
    """Service name and `/db`. Raises ValueError."""
    names = [unquote(name) for name in path.split("/") if name]
    service = names.pop(0) if kind == "sentinel" and names else ""
    if kind == "sentinel" and not service:
        raise ValueError("expected redis+sentinel://HOST:PORT/SERVICE with the name the sentinels know the primary by")
    if len(names) > 1 or not all(name.isdigit() for name in names):
        raise ValueError("expected the number of a database at the end, for example redis://HOST:PORT/0")
    if kind == "cluster" and names not in ([], ["0"]):
        raise ValueError("a cluster has only database 0")
    return service, f"/{names[0]}" if names and kind != "cluster" else ""
