"""Contact with one Redis: a heartbeat finds out whether it is there, who it is, and what all proxies on it share.

    once a second ──► look: who is there, secret, epoch ──► PING, as asks go and within their deadline
                                                      └──► state, capabilities, secret, epoch; on_change
    while the breaker is open ──► the same, whenever it lets a probe through

So no ask pays for finding out that Redis is still away. This module refuses to ask anything for others: that is
`connection.py`, which stands on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeVar, cast

import redis.exceptions

from cacheproxy import config
from cacheproxy.behind import Behind
from cacheproxy.clock import Clock
from cacheproxy.errors import ConfigError, StoreRefusedError, StoreUnavailableError
from cacheproxy.store import address
from cacheproxy.store.breaker import Breaker, State
from cacheproxy.store.capabilities import Capabilities, capabilities
from cacheproxy.store.counts import Counts
from cacheproxy.store.embedded import Embedded
from cacheproxy.store.epoch import NONE, begun, is_news, number
from cacheproxy.store.line import HeldUpError, RefusedError
from cacheproxy.store.pool import Client, Clients, Lines, clients, lines, within
from cacheproxy.store.trouble import WORTH_A_LINE, ArrivingError, IncurableError, LoadingError, translated

_log = logging.getLogger("cacheproxy.store")

T = TypeVar("T")
HEARTBEAT_S = 1.0
"""Between two looks at secret, epoch and identity: how long another proxy's purge may stay unnoticed."""
CONTACT_S_MAX = 1.0
"""What a first contact may take, off the request path: look-up of the name, TLS, AUTH, INFO."""
OPEN_WAIT_S_MAX = 0.25
"""How long `open` waits for the first contact at most."""
PROBE_PAUSE_S_MAX = 0.4
"""Longest pause between probes. Short, since no ask waits for them: a cache that came back is used within 0.5 s."""
WAIT_UP_PAUSE_S = 0.01
"""Between two looks of `wait_up` at the state; they cost nothing."""
LOG_PAUSE_S = 60.0
"""A kind of refusal is logged at most once in this time."""
_OF_REDIS = (redis.exceptions.RedisError, redis.exceptions.RedisClusterException, RefusedError, OSError)


@dataclass(frozen=True, slots=True)
class _Found:
    """What one contact brought home."""

    run_id: str
    secret: bytes | None
    epoch: int


class _LateError(StoreUnavailableError):
    """It was reached, but took longer than an ask may wait."""


class Contact:
    """Whether one Redis is there, and what it tells all proxies that use it.

    `on_change` holds functions without arguments, called when in-process copies may be stale: the epoch or secret
    changed, another server answered, or contact was made again after a break. They must be quick and not raise.
    """

    def __init__(self, settings: config.Redis, clock: Clock, *, embedded: Embedded | None = None) -> None:
        self._settings = settings
        self._clock = clock
        if settings.url == "embedded" and embedded is None:
            raise ConfigError('redis.url = "embedded" needs the embedded server to be passed in')
        self._address = address.parse(embedded.url if settings.url == "embedded" and embedded else settings.url)
        self.where = self._address.where
        """`host:port` or the path, without user and password; for messages."""
        self._breaker = Breaker(clock, random.random, self._breaker_changed, open_s_max=PROBE_PAUSE_S_MAX)
        self._clients: Clients | None = None
        self._lines: Lines | None = None
        self._heart = Behind(self._beat_and_wait, 0, "redis heartbeat")
        self._wake = asyncio.Event()
        self._looked = asyncio.Event()
        self._closed = False
        self._counts = Counts()
        self._reason = "not contacted yet"
        self._fatal: ConfigError | None = None
        self._since = clock.monotonic()
        self._known = False
        self._nearly = False
        self._redial = False
        self._run_id = ""
        self._logged: dict[str, float] = {}
        self._secret = secrets.token_bytes(32)
        self.generation = 0
        """Grows when `secret` changes."""
        self.epoch = NONE
        """Another after each purge by any proxy on this Redis, and after a loss of its data: no number comes twice.

        `NONE` until Redis has been reached, and while it holds none and takes none.
        """
        self.capabilities = Capabilities()
        self.on_change: list[Callable[[], None]] = []
        self.on_break: list[Callable[[], None]] = []
        """Called when it has failed often enough to be left alone for a while; must be quick and not raise."""

    @property
    def secret(self) -> bytes:
        """32 bytes shared by all proxies on this Redis; of this process alone until it has been reached."""
        return self._secret

    def hashed(self, text: str) -> str:
        """The text's hash keyed with `secret`, 32 hex digits: the same for all proxies on this Redis, and no text."""
        return hashlib.blake2b(text.encode(), digest_size=16, key=self._secret).hexdigest()

    @property
    def state(self) -> Literal["up", "down", "connecting"]:
        """`connecting` until the first contact has succeeded or failed."""
        if not self._looked.is_set():
            return "connecting"
        return "up" if self._known and self._breaker.state is State.CLOSED else "down"

    @property
    def one_server(self) -> bool:
        """Whether all keys, and so the epoch's too, are on one server. Not so in a cluster."""
        return self._address.kind != "cluster"

    @property
    def left_alone(self) -> bool:
        """Whether it is not asked, after failures, but for a probe now and then."""
        return self._breaker.state is not State.CLOSED

    @property
    def reason(self) -> str:
        """Why it is not up; empty when it is."""
        return "" if self.state == "up" else self._reason

    async def open(self) -> None:
        """Begin to look for Redis; returns at the first contact, or after a quarter of a second without one.

        A Redis that is away is no error here. Raises ConfigError for what waiting does not cure: an unusable URL,
        a refused password, and a cluster behind a plain URL.
        """
        self._clients = clients(self._address, self._settings.connections)
        self._lines = lines(self._clients)
        self._heart.start()
        await _wait(self._looked, OPEN_WAIT_S_MAX)
        if self._fatal is not None:
            await self.close()
            raise self._fatal

    async def wait_up(self, timeout_s: float) -> bool:
        """Whether Redis is usable within this time. Waits only for one that may yet be: new, or loading its data."""
        hopeful = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.state != "up":
                    hopeful = hopeful or self._nearly
                    if self.state == "down" and not hopeful:
                        return False
                    await asyncio.sleep(WAIT_UP_PAUSE_S)
        return self.state == "up"

    async def close(self) -> None:
        """End the heartbeat and all connections. Calls made afterwards fail at once, and those under way count as left.

        Safe to call twice.
        """
        self._closed = True
        await self._heart.stop()
        if self._lines is not None:
            self._lines.close()
            self._lines = None
        if self._clients is not None:
            await self._clients.close()
            self._clients = None

    async def _translated(self, answer: Awaitable[T], limit_s: float) -> T:
        """The answer, or one of our errors."""
        try:
            return await answer
        except Exception as error:  # noqa: BLE001 - it is raised again
            self._raise(self._in_our_words(error, limit_s), error)

    @staticmethod
    def _raise(failure: BaseException, error: BaseException) -> NoReturn:
        """Raise what became of an error, which may be that error. Whoever calls this must not hold `failure` itself."""
        try:
            if failure is error:
                raise failure
            raise failure from None
        finally:
            del failure, error  # they hold this frame, and it would hold them

    def _in_our_words(self, error: BaseException, limit_s: float) -> BaseException:
        """Our error for one of Redis's; another as it is. The only place where errors and timeouts are translated.

        To be raised `from None`: the text of a reply can quote the command, and a traceback would print it.
        """
        if isinstance(error, HeldUpError):
            return ArrivingError(f"redis at {self.where} was still sending a large reply after {limit_s:g} s")
        if isinstance(error, TimeoutError):
            return StoreUnavailableError(f"redis at {self.where} gave no answer in {limit_s:g} s")
        if isinstance(error, _OF_REDIS):
            return translated(error, self.where)
        return error

    async def _beat_and_wait(self) -> None:
        """Look, and wait for a second; while the breaker is open, until it lets a probe through."""
        self._wake.clear()
        await self._beat()
        pause_s = HEARTBEAT_S if self._breaker.state is State.CLOSED else self._breaker.wait_s
        await _wait(self._wake, pause_s)

    async def _beat(self) -> None:
        """One look at Redis, which is the probe when the breaker is open."""
        ticket = self._breaker.admit()
        if ticket is None or self._clients is None:
            return
        before = self.epoch
        try:
            found = await self._translated(within(self._look, self._clients.client, CONTACT_S_MAX), CONTACT_S_MAX)
            # Only a Redis that answers within an ask's deadline is worth asking.
            try:
                await self._translated(self._ping(self._clients.client), self._settings.timeout)
            except ArrivingError:
                raise
            except StoreUnavailableError as failure:
                raise _LateError(str(failure)) from None
        except ArrivingError:
            self._breaker.cancelled(ticket)
        except StoreUnavailableError as failure:
            self._missed(failure, ticket)
        except BaseException:
            self._breaker.cancelled(ticket)
            raise
        else:
            self._breaker.succeeded(ticket)
            # Asks may have opened the breaker meanwhile; then the next probe decides.
            if self._breaker.state is State.CLOSED:
                self._learned(found, before)
        self._looked.set()
        await self._keep_slow()

    async def _ping(self, client: Client) -> None:
        """The way asks take."""
        if self._lines is None:
            await within(lambda client: client.ping(), client, self._settings.timeout)
        else:
            await self._lines.quick.ask(("PING",), self._settings.timeout)

    async def _keep_slow(self) -> None:
        """Find out before an ask does that the slow line is cut. What fails on it is told by those who need it."""
        if self._lines is None or not self._known:
            return
        with contextlib.suppress(StoreUnavailableError):
            await self._translated(self._lines.slow.ask(("PING",), self._settings.timeout), self._settings.timeout)

    async def _look(self, client: Client) -> _Found:
        """Secret, epoch and identity; after a break also what the server can do."""
        if self._redial:
            # A replica answered where a primary should: resolve the name anew.
            await self._hang_up()
        self._redial = False
        if self._lines is not None:
            await self._lines.connect()
        if self._known:
            about = await _info(client, "server")
        else:
            about = await _info(client)
            if about.get("redis_mode") == "cluster" and self._address.kind != "cluster":
                raise redis.exceptions.ResponseError("MOVED")
            self.capabilities = capabilities(about)
        return _Found(
            run_id=str(about.get("run_id", "")),
            secret=await self._fetch_secret(client),
            epoch=await self._fetch_epoch(client),
        )

    async def _hang_up(self) -> None:
        """Use none of the connections again that are open now."""
        if self._lines is not None:
            self._lines.redial()
        if self._clients is not None and self._clients.pool is not None:
            await self._clients.pool.disconnect(inuse_connections=False)

    async def _fetch_secret(self, client: Client) -> bytes | None:
        """The shared secret, put there if it is missing; None where it can be neither read nor put (a full Redis)."""
        key = self._key("secret")
        stored = cast("bytes | None", await client.get(key))
        if stored is None:
            self._run_id = ""  # flushed or new: copies must go, also where no epoch can be begun
            try:
                await client.set(key, self._secret, nx=True)
            except redis.exceptions.ResponseError:
                return None
            stored = cast("bytes | None", await client.get(key))
        return stored

    async def _fetch_epoch(self, client: Client) -> int:
        """The epoch, begun if there is none; `NONE` where none can be begun (a full Redis, a replica)."""
        epoch = number(await client.get(self._key("epoch")))
        if epoch == NONE:
            try:
                epoch = number(await cast("Any", client).execute_command(*begun(self._key("epoch"))))
            except redis.exceptions.ResponseError as error:
                refusal = translated(error, self.where)
                if not isinstance(refusal, StoreRefusedError):
                    raise
                self._refused(refusal)
        return epoch

    def _learned(self, found: _Found, before: int) -> None:
        """Take over what a contact found, begun when the epoch was `before`, and tell if copies may be stale."""
        news = is_news(found.epoch, self.epoch, before)
        changed = not self._known or news or found.run_id != self._run_id
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
        self._run_id = found.run_id
        if news:
            self.epoch = found.epoch
        if changed:
            self._announce()

    def _missed(self, failure: StoreUnavailableError, ticket: int) -> None:
        """A look failed. Its own time is twenty times an ask's, so it opens the breaker alone; a late PING does not."""
        self._reason = str(failure)
        self._nearly = isinstance(failure, (LoadingError, _LateError))
        if isinstance(failure, IncurableError) and not self._looked.is_set():
            self._fatal = ConfigError(f"redis.url: {failure}")
        self._breaker.failed(ticket)
        if not isinstance(failure, _LateError):
            self._breaker.trip()

    def _breaker_changed(self, state: State) -> None:
        if state is State.OPEN:
            self._known = False
            self._since = self._clock.monotonic()
            self._wake.set()
            for callback in self.on_break:
                callback()
            _log.warning("%s; serving without cache", self._reason)

    def _refused(self, refusal: StoreRefusedError) -> None:
        """It serves others: said in the log, and if it is no primary any more, the next look dials anew."""
        self._redial = self._redial or refusal.code == "READONLY"
        now = self._clock.monotonic()
        if refusal.code in WORTH_A_LINE and now - self._logged.get(refusal.code, -LOG_PAUSE_S) >= LOG_PAUSE_S:
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
