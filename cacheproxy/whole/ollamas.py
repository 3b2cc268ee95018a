"""The parts that stand for the Ollamas, built and joined: each one's by itself, then all as a fleet.

Refuses to start anything, and to know what asks are about.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable

from cacheproxy.clock import Clock
from cacheproxy.config import Config
from cacheproxy.errors import ConfigError
from cacheproxy.metrics import Fault, Metrics
from cacheproxy.store.notes import Notes
from cacheproxy.upstream.batcher import Batcher
from cacheproxy.upstream.client import UpstreamClient
from cacheproxy.upstream.crowding import Crowding
from cacheproxy.upstream.fleet import Fleet
from cacheproxy.upstream.health import Health
from cacheproxy.upstream.learnt import KEPT_S, Learnt
from cacheproxy.upstream.loaded import Loaded
from cacheproxy.upstream.member import Member
from cacheproxy.upstream.models import Models
from cacheproxy.upstream.order import Limits
from cacheproxy.upstream.preload import Preloader

ASIDE_TIMEOUT_S = 5.0
"""Deadline for what the proxy itself asks Ollama (lists of models); callers' requests have none."""


class Ollamas:
    """Builds the `fleet`. Raises ConfigError for URLs that cannot be used.

    `notes` keep the lists of models, and what fits into memory, over a restart. `wait_idle`: until no caller's request
    is under way, so that models may be loaded ahead.
    """

    def __init__(
        self, config: Config, clock: Clock, metrics: Metrics, notes: Notes, wait_idle: Callable[[], Awaitable[None]]
    ) -> None:
        self._config = config
        self._clock = clock
        self._metrics = metrics
        self._notes = notes
        self._wait_idle = wait_idle
        self._instance_id = secrets.token_hex(8)
        first, *others = config.upstream.urls
        members = [self._member(first, "upstream.url")]
        members += [self._member(url, "upstream.others") for url in others]
        names = [member.name for member in members]
        if len(set(names)) < len(names):
            raise ConfigError(f"upstream.others: the same Ollama is named twice in {', '.join(names)}")
        self.fleet = Fleet(members, metrics, clock)

    def _member(self, url: str, setting: str) -> Member:
        """One Ollama's parts; `setting` is where its URL stands."""
        settings = self._config.upstream
        client = UpstreamClient(
            settings.model_copy(update={"url": url}), instance_id=self._instance_id, setting=setting
        )
        crowding = Crowding(settings.models_at_once, self._clock)
        batcher = Batcher(self._limits(crowding), self._clock, self._metrics)
        crowding.on_learnt.append(lambda models, apart, unsure: batcher.learn(models, apart, unsure=unsure))
        models = self._models(client, lambda ok: self._models_read(member, ok))
        models.on_change.append(lambda: self._metrics.set_known_models(self.fleet.models.names))
        loaded = Loaded(
            lambda: client.get_json("/api/ps", timeout_s=ASIDE_TIMEOUT_S), every_s=max(0.2, settings.digest_ttl)
        )
        preload = Preloader(
            lambda target, body, timeout_s: client.get_json(target, body=body, timeout_s=timeout_s),
            models,
            loaded,
            self._config,
            self._metrics,
            wait_idle=self._wait_idle,
            is_ours=lambda name: self.fleet.is_home(member, name),
            unloads=crowding.excuse,
        )
        loaded.on_read.append(preload.loaded_read)
        loaded.on_read.append(lambda: crowding.read(loaded.models, readable=loaded.readable))
        learnt = self._learnt(crowding, client.name)
        loaded.on_read.append(learnt.look)
        health = Health() if settings.others else Health(rest_s=0)
        member = Member(client.name, url, client, batcher, models, loaded, preload, health, crowding, learnt)
        return member

    def _limits(self, crowding: Crowding) -> Limits:
        settings, batching = self._config.upstream, self._config.batching
        return Limits(
            parallel=settings.parallel,
            models_at_once=crowding.fit.models,
            waiting_max=settings.queue,
            window_s=batching.window,
            together=batching.max_size,
            turn_s=batching.turn,
        )

    def _learnt(self, crowding: Crowding, name: str) -> Learnt:
        note = f"fit:{name}"
        return Learnt(
            crowding,
            self._clock,
            remember=lambda value: self._notes.put(note, value, ttl_s=KEPT_S),
            recall=lambda: self._notes.get(note),
        )

    def _models(self, client: UpstreamClient, on_read: Callable[[bool], None]) -> Models:
        settings = self._config.upstream
        note = "models" if len(settings.urls) == 1 else f"models:{client.name}"
        return Models(
            lambda target, body: client.get_json(target, body=body, timeout_s=ASIDE_TIMEOUT_S),
            settings,
            self._clock,
            remember=lambda value: self._notes.put(note, value, ttl_s=settings.digest_grace),
            recall=lambda: self._notes.get(note),
            on_read=on_read,
        )

    def _models_read(self, member: Member, ok: bool) -> None:
        self.fleet.list_read(member.name, ok=ok, reason=member.models.reason)
        member.preload.models_read(ok and member.health.up)  # one that still rests is no model's home yet
        if not ok:
            self._metrics.fault(Fault.TAGS_UNAVAILABLE)
