"""All Ollamas as one: who gets a request, and who gets it next when that one is away.

    what it is                           who gets it
    an ask, a load, an unload            one that has the model with the very digest the ask is keyed by; the best as
                                         `affinity.py` says, then the next
    a list, an ask nobody has a name for the first in the config that is up, then the next
    what may change something            the first in the config, up or not: whoever pulls or deletes a model must know
                                         where it happened

A request goes on to the next only before the first byte of a reply: where no connection could be made, always; where
the connection was lost after it was sent, once, and only if it may run twice (a request that kills an Ollama
must not kill them all); where one has too many waiting, or answers that it is busy and another has a place at once.
With one Ollama none of this happens: its reply, or its error, is the answer. Refuses to look at replies beyond that.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence

from cacheproxy.clock import Clock
from cacheproxy.config import parse_duration
from cacheproxy.errors import (
    UpstreamAwayError,
    UpstreamBusyError,
    UpstreamDroppedError,
    UpstreamError,
    UpstreamStaleError,
)
from cacheproxy.metrics import Metrics
from cacheproxy.model import Ask, Identity
from cacheproxy.trail import Trail
from cacheproxy.upstream import affinity
from cacheproxy.upstream.batcher import BUSY, PlacedReply
from cacheproxy.upstream.catalog import Catalog
from cacheproxy.upstream.loaded import Loaded, LoadedModel
from cacheproxy.upstream.member import Errand, Member
from cacheproxy.upstream.order import Group
from cacheproxy.upstream.reply import UpstreamReply
from cacheproxy.upstream.request import UpstreamRequest
from cacheproxy.wire import runner
from cacheproxy.wire.jsontext import write

_BUSY = 503
_READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_READING_POSTS = frozenset({"/api/show"})
_NAMES_LOGGED_MAX = 5
_JSON = (("Content-Type", "application/json"),)

_log = logging.getLogger("cacheproxy.upstream")

Reply = UpstreamReply | PlacedReply


def reads(method: str, path: str) -> bool:
    """Whether a request only reads, so that it may use a pooled connection and be sent twice if that turns out dead.

    All others run once, on a connection of their own. Those that change something must; those that answer a prompt
    could be repeated, but nothing that was left on a pooled connection may ever be taken for somebody's answer (0.2 ms
    each).
    """
    return method in _READING_METHODS or path in _READING_POSTS


class Fleet:
    """The `members` in the order of the config, at least one; their lists together are `models`."""

    def __init__(self, members: Sequence[Member], metrics: Metrics, clock: Clock) -> None:
        self.members = members
        self.models = Catalog(members)
        self._metrics = metrics
        self._clock = clock
        self._by_name = {member.name: member for member in members}
        self._positions = {member.name: str(at) for at, member in enumerate(members, 1)}
        self._told: list[str] = []
        self.on_health: list[Callable[[], None]] = []
        """Called when one of several goes away or is taken back: names may stand for something else then."""
        metrics.watch_upstreams(self._by_name, lambda: {member.name: float(member.health.up) for member in members})
        metrics.watch_labelled(
            "models_at_once", lambda: {one.name: float(one.batcher.models_at_once) for one in members}
        )

    async def open(self) -> None:
        """Start looking at each. Returns at once."""
        for member in self.members:
            await member.open()

    async def open_preload(self) -> None:
        """Start loading what is to be loaded ahead."""
        for member in self.members:
            await member.preload.open()

    async def close_preload(self) -> None:
        """Call off what is being loaded ahead."""
        await asyncio.gather(*(member.preload.close() for member in self.members))

    async def close(self) -> None:
        """End all that is under way."""
        await asyncio.gather(*(member.close() for member in self.members))

    @property
    def instance_id(self) -> str:
        """Marks our requests at every Ollama."""
        return self.members[0].client.instance_id

    @property
    def waiting(self) -> int:
        """Asks that wait for a place."""
        return sum(member.batcher.waiting for member in self.members)

    @property
    def in_flight(self) -> int:
        """Asks that hold one."""
        return sum(member.batcher.in_flight for member in self.members)

    @property
    def loaded_models(self) -> list[LoadedModel]:
        """All that is in memory, Ollama by Ollama."""
        return [model for member in self.members for model in member.loaded.models]

    @property
    def loading(self) -> str:
        """A model being loaded ahead, as `ollama list` shows it; empty when none is."""
        return next((name for member in self.members if (name := member.preload.loading)), "")

    # --- what is known ---

    def loaded(self, identity: Identity) -> Loaded:
        """What is loaded where an ask for this model would go now."""
        if len(self.members) == 1:  # every hit comes along here
            return self.members[0].loaded
        return self._in_order(Errand(identity))[0].loaded

    def note(self, identity: Identity, ask: Ask) -> None:
        """Remember what the caller of an ask chose itself, wherever the ask may go."""
        for member in self.members:
            member.loaded.note(identity.digest, ask)

    def note_stay(self, identity: Identity, ask: Ask) -> None:
        """An ask goes to Ollama: its caller may say that the model shall go sooner than was last seen."""
        if ask.keep_alive is not None:
            for member in self.members:
                member.crowding.shall_stay(identity.digest, _stay_s(ask.keep_alive))

    def forget_loaded(self) -> None:
        """A request that loads or unloads passed by: know nothing of what is loaded until it is read again."""
        for member in self.members:
            member.loaded.forget()
            member.crowding.forget()

    def is_home(self, member: Member, name: str) -> bool:
        """Whether it is this one that loads a model ahead; with one that is installed nowhere the first has to cope."""
        identity = self.models.known(name)
        having = [one for one in self.models.having(identity) if one.health.up] if identity is not None else []
        if identity is None or not having:
            return member is self.members[0]
        return affinity.home(identity.digest, [one.name for one in having]) == member.name

    def list_read(self, name: str, *, ok: bool, reason: str) -> None:
        """The Ollama called `name` gave its list of models, or did not."""
        member = self._by_name[name]
        if not ok:
            self._failed(member, reason)
        elif member.health.answered(self._clock.monotonic()) and len(self.members) > 1:
            _log.info("the Ollama at %s is taken back", name)
            self._health_changed()
        if len(self.members) > 1 and (differing := self.models.differing()) != self._told:
            self._told = differing
            if differing:
                names = ", ".join(differing[:_NAMES_LOGGED_MAX]) + (" …" if len(differing) > _NAMES_LOGGED_MAX else "")
                _log.warning("not the same at all Ollamas, so that only those that agree share asks: %s", names)

    # --- requests ---

    async def pass_on(self, request: UpstreamRequest) -> Reply:
        """Send a request that is passed through. Whoever gets the reply must close it.

        What it wants is read from its body, if that is held whole (`bytes`). Raises UpstreamError, and whatever the
        body's iterator raises.
        """
        safe = reads(request.method, request.target.partition("?")[0])
        return await self.send(lambda: request, self._errand(request), safe_to_repeat=safe)

    async def send(
        self,
        request: Callable[[], UpstreamRequest],
        errand: Errand,
        trail: Trail | None = None,
        *,
        safe_to_repeat: bool = False,
    ) -> Reply:
        """Send to the best Ollama there is for it; returns when the reply's head has come.

        `request` is asked for when its turn has come, and must then be the same each time. Whoever gets the reply must
        close it. Raises UpstreamError when the last one failed too, and whatever the body's iterator raises.
        """
        queue = self._in_order(errand)
        failures: list[UpstreamError] = []
        for at, member in enumerate(queue):
            if failures:
                self._metrics.failed_over(queue[at - 1].name)
            self._note(member, errand, trail)
            try:
                reply = await member.send(request, errand, trail, safe_to_repeat=safe_to_repeat)
            except UpstreamError as error:
                failures.append(error)
                if not self._goes_on(member, request, errand, failures):
                    break
                continue
            if reply.status != _BUSY or not self._spills(errand, queue[at + 1 :]):
                return reply
            await reply.close()
            failures.append(UpstreamBusyError(BUSY))
        raise next((one for one in failures if isinstance(one, UpstreamBusyError)), failures[-1])

    async def unload(self, model: str) -> None:
        """What `keep_alive: 0` asks for besides an answer, at every Ollama that has the model.

        It never loads one (contract: no prompt). Raises an UpstreamError of one that could not be told.
        """
        request = UpstreamRequest("POST", "/api/generate", _JSON, write({"model": model, "keep_alive": 0}))
        identity = self.models.known(model)
        members = self.models.having(identity) if identity is not None else [self.members[0]]
        failure: UpstreamError | None = None
        for member in members:
            if identity is not None:
                member.crowding.excuse(identity.digest)
            try:
                await (await member.client.send(request, safe_to_repeat=False)).close()
            except UpstreamError as error:
                failure = error
        if failure is not None:
            raise failure

    def _errand(self, request: UpstreamRequest) -> Errand:
        """What a request that is passed through wants.

        A name without identity gets an error from Ollama at once, and a remote model runs elsewhere: no place for them.
        """
        path = request.target.partition("?")[0]
        if reads(request.method, path):
            return Errand()
        if request.method != "POST" or path not in runner.PATHS:
            return Errand(changes=True)
        if not isinstance(request.body, bytes):
            return Errand()
        needs = runner.needs(path, request.body)
        identity = self.models.known(needs.model if needs is not None else runner.named(path, request.body))
        if needs is None or identity is None or identity.remote:
            return Errand(identity)
        return Errand(identity, Group(identity.digest, needs.options))

    def _in_order(self, errand: Errand) -> Sequence[Member]:
        """Who may get it, best first."""
        if len(self.members) == 1 or errand.changes:
            return self.members[:1]
        having = self.models.having(errand.identity) if errand.identity is not None else []
        if errand.identity is None or not having:
            return sorted(self.members, key=lambda member: not member.health.up)
        standings = (member.standing(errand) for member in having)
        return [self._by_name[name] for name in affinity.ranked(errand.identity.digest, standings)]

    def _note(self, member: Member, errand: Errand, trail: Trail | None) -> None:
        """Count who gets it; with several, its trail says who: by position, since callers may read it."""
        if errand.identity is not None:
            self._metrics.asked_upstream(member.name)
        if trail is not None and len(self.members) > 1:
            trail.note("at", self._positions[member.name])

    def _goes_on(
        self, member: Member, request: Callable[[], UpstreamRequest], errand: Errand, failures: Sequence[UpstreamError]
    ) -> bool:
        """Whether a request may go to another after the last of its `failures`, which was at `member`."""
        *before, error = failures
        if isinstance(error, UpstreamBusyError):
            return True
        if not isinstance(error, UpstreamAwayError | UpstreamDroppedError):
            return False
        if not isinstance(error, UpstreamStaleError):
            self._failed(member, str(error))
            member.models.unknown_nowait()  # whether it is there at all is known by its list
        if isinstance(error, UpstreamAwayError):
            return True
        body = request().body
        held = body is None or isinstance(body, bytes)
        return held and not errand.changes and not any(isinstance(one, UpstreamDroppedError) for one in before)

    def _spills(self, errand: Errand, rest: Sequence[Member]) -> bool:
        """Whether the next one would take at once what a busy one refused."""
        return bool(rest) and errand.group is not None and rest[0].health.up and rest[0].standing(errand).rounds == 0

    def _failed(self, member: Member, reason: str) -> None:
        if member.health.failed(self._clock.monotonic(), reason) and len(self.members) > 1:
            _log.warning("the Ollama at %s is away (%s); its asks go to others", member.name, reason)
            self._health_changed()

    def _health_changed(self) -> None:
        for tell in self.on_health:
            tell()


def _stay_s(keep_alive: object) -> float:
    """Seconds for which a caller lets a model stay; 0 where nobody can tell."""
    try:
        stay_s = parse_duration(keep_alive)
    except ValueError:  # Go writes durations that we do not, and negative ones: for ever
        return math.inf if str(keep_alive).startswith("-") else 0.0
    return math.inf if stay_s < 0 else stay_s
