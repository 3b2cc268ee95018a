"""The only place that builds parts and joins them; start and drain order.

Parts open from the ground up and close from the top down: first no new callers, then the replies under way, then what
is being kept, then Ollama and Redis. Refuses to decide anything about an ask.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cacheproxy.budgets import Budgets, Watch
from cacheproxy.clock import Clock, SystemClock
from cacheproxy.config import Config
from cacheproxy.decisions import Decisions
from cacheproxy.edge.admin import Admin, check_exposure
from cacheproxy.edge.admission import Admission
from cacheproxy.edge.cached import Cached
from cacheproxy.edge.condition import Condition, Part, Readiness
from cacheproxy.edge.dashboard import Dashboard
from cacheproxy.edge.embed import Embed
from cacheproxy.edge.entries import Entries, Query, Selection
from cacheproxy.edge.explain import Explaining
from cacheproxy.edge.history import History
from cacheproxy.edge.lane import LANE_SHARE, Lane
from cacheproxy.edge.live import Live
from cacheproxy.edge.opinions import Opinion, Opinions
from cacheproxy.edge.origin import Origins
from cacheproxy.edge.passthrough import Passthrough
from cacheproxy.edge.replay import Replay
from cacheproxy.edge.routes import Routes
from cacheproxy.edge.server import Server
from cacheproxy.errors import CacheError, ConfigError
from cacheproxy.flow.coalesce import Flights
from cacheproxy.flow.embed import Embeddings
from cacheproxy.flow.embed_flights import Brought, EmbedFlights
from cacheproxy.flow.embed_shelf import VectorShelf
from cacheproxy.flow.explain import Explain
from cacheproxy.flow.feedback import Feedback
from cacheproxy.flow.keep import Keeper
from cacheproxy.flow.lookup import LookUp
from cacheproxy.flow.near import Near
from cacheproxy.flow.serve import Serve
from cacheproxy.flow.shadow import Compare
from cacheproxy.flow.together import Batches
from cacheproxy.flow.vectors import Vectors
from cacheproxy.metrics import Fault, Metrics
from cacheproxy.reload import Changes, own, take_over
from cacheproxy.rules.question import templates_of
from cacheproxy.store.account import Account
from cacheproxy.store.apart import Apart
from cacheproxy.store.connection import Connection
from cacheproxy.store.embedded import Embedded
from cacheproxy.store.exact import Doomed, Exact
from cacheproxy.store.ledger import Ledger
from cacheproxy.store.memory import Memory
from cacheproxy.store.notes import Notes
from cacheproxy.store.semantic import Semantic
from cacheproxy.store.served import Served
from cacheproxy.store.shadow import Shadow
from cacheproxy.store.shelf import Listing, Shelf, Wanted
from cacheproxy.store.size import Sizes
from cacheproxy.traces import Traces
from cacheproxy.upstream import tuning
from cacheproxy.upstream.batcher import Batcher
from cacheproxy.upstream.client import UpstreamClient
from cacheproxy.upstream.crowding import Crowding
from cacheproxy.upstream.fleet import Fleet
from cacheproxy.upstream.health import Health
from cacheproxy.upstream.loaded import Loaded
from cacheproxy.upstream.member import Member
from cacheproxy.upstream.models import Models
from cacheproxy.upstream.order import Limits
from cacheproxy.upstream.preload import Preloader
from cacheproxy.upstream.view import view_of
from cacheproxy.wire.dialects import BY_PATH, EMBED_BY_PATH
from cacheproxy.workers.fronts import Fronts, take_alone
from cacheproxy.workers.messages import Report as FrontReport
from embeddings.load import load

ASIDE_TIMEOUT_S = 5.0
"""Deadline for what the proxy itself asks Ollama (lists of models); callers' requests have none."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One Ollama at start; `version` is empty for one that is away, and `reason` says why."""

    url: str
    version: str
    reason: str
    models: list[str]

    @classmethod
    def of(cls, member: Member) -> Seen:
        """As it is now."""
        models = member.models
        return cls(member.url, models.server_version if models.reachable else "", models.reason, models.names)


@dataclass(frozen=True, slots=True)
class Report:
    """What a person wants to know at start. Empty texts mean that there is nothing to say."""

    proxy_url: str
    admin_url: str
    upstream: Seen
    redis: str
    redis_note: str
    near: str
    others: tuple[Seen, ...] = ()
    """Further Ollamas (`upstream.others`)."""
    workers: int = 1


class App:
    """The whole proxy. Constructing it does no I/O; raises ConfigError for settings that cannot work together."""

    def __init__(self, config: Config, *, clock: Clock | None = None) -> None:
        check_exposure(config.admin.listen, config.admin.token)
        self.config = config = own(config)
        self._clock = clock or SystemClock()
        self._accepting = False
        self._in_use: dict[str, Any] = {}
        self._build_store()
        self._build_embedder()
        self._build_upstream()
        self._build_fronts()
        self._build_proxy()
        self._build_admin()

    def _build_store(self) -> None:
        config = self.config
        budgets = Budgets.of(config.budgets.model_dump())
        self.metrics = Metrics(self._clock, budgets)
        self.budgets = Watch(budgets)
        self.metrics.on_breach.append(self.budgets.note)
        self.decisions = Decisions()
        self.decisions.listeners.append(self.metrics.decided)
        self.embedded = Embedded(config.redis) if config.redis.url == "embedded" else None
        self.connection = Connection(config.redis, self._clock, embedded=self.embedded)
        self.connection.on_break.append(lambda: self.metrics.fault(Fault.BREAKER_OPENED))
        self._sizes = Sizes(self.connection)
        self.memory = Memory(config.cache.memory, self._clock)
        self.connection.on_change.append(self.memory.clear)
        prefix = config.redis.prefix
        self.exact = Exact(self.connection, prefix)
        self.shelf = Shelf(self.connection, prefix)
        self._notes = Notes(self.connection, prefix)
        self._served = Served(self.connection, prefix)
        self._shadow = Shadow(self.connection, prefix, prompts=config.log.prompts)
        self.ledger = Ledger(self.connection, prefix, self._clock, self.metrics)
        self.decisions.listeners.append(self.ledger.decided)
        self.traces = Traces(config.tracing, self.metrics) if config.tracing.endpoint else None
        if self.traces is not None:
            self.decisions.listeners.append(self.traces.decided)
        self.account = Account(self.connection, prefix, self._clock, prompts=config.log.prompts)
        self.connection.on_change.append(self.account.forget)
        self.apart = Apart(self.connection, prefix, self._clock)
        self.semantic = Semantic(self.connection, prefix, self._clock, self.metrics, timeout_s=config.redis.timeout)

    def _build_embedder(self) -> None:
        settings = self.config.embedding
        self.vectors = Vectors(
            lambda: load(
                settings.model,
                engine=settings.engine,
                path=settings.path or None,
                threads=settings.threads,
                ollama_url=self.config.upstream.url,
            ),
            window_s=settings.window,
            batch_max=settings.batch,
            timeout_s=settings.timeout,
            memo_max=settings.memo,
        )
        self.vectors.on_ready.append(lambda embedder: self.semantic.use(embedder.fingerprint, embedder.dims))

    def _build_upstream(self) -> None:
        instance_id = secrets.token_hex(8)
        first, *others = self.config.upstream.urls
        members = [self._build_member(first, "upstream.url", instance_id)]
        members += [self._build_member(url, "upstream.others", instance_id) for url in others]
        names = [member.name for member in members]
        if len(set(names)) < len(names):
            raise ConfigError(f"upstream.others: the same Ollama is named twice in {', '.join(names)}")
        self.fleet = Fleet(members, self.metrics, self._clock)
        self.models = self.fleet.models

    def _build_member(self, url: str, setting: str, instance_id: str) -> Member:
        """One Ollama's parts; `setting` is where its URL stands. Raises ConfigError."""
        config, settings, batching = self.config, self.config.upstream, self.config.batching
        own_settings = settings.model_copy(update={"url": url})
        client = UpstreamClient(own_settings, instance_id=instance_id, setting=setting)
        crowding = Crowding(settings.models_at_once, self._clock)
        limits = Limits(
            parallel=settings.parallel,
            models_at_once=crowding.fit.models,
            waiting_max=settings.queue,
            window_s=batching.window,
            together=batching.max_size,
            turn_s=batching.turn,
        )
        note = "models" if len(settings.urls) == 1 else f"models:{client.name}"
        models = Models(
            lambda target, body: client.get_json(target, body=body, timeout_s=ASIDE_TIMEOUT_S),
            settings,
            self._clock,
            remember=lambda value: self._notes.put(note, value, ttl_s=settings.digest_grace),
            recall=lambda: self._notes.get(note),
            on_read=lambda ok: self._models_read(member, ok),
        )
        loaded = Loaded(
            lambda: client.get_json("/api/ps", timeout_s=ASIDE_TIMEOUT_S), every_s=max(0.2, settings.digest_ttl)
        )
        preload = Preloader(
            lambda target, body, timeout_s: client.get_json(target, body=body, timeout_s=timeout_s),
            models,
            loaded,
            config,
            self.metrics,
            wait_idle=self._wait_idle,
            is_ours=lambda name: self.fleet.is_home(member, name),
            unloads=crowding.excuse,
        )
        loaded.on_read.append(preload.loaded_read)
        loaded.on_read.append(lambda: crowding.read(loaded.models))
        batcher = Batcher(limits, self._clock, self.metrics)
        crowding.on_learnt.append(batcher.learn)
        health = Health() if settings.others else Health(rest_s=0)
        member = Member(client.name, url, client, batcher, models, loaded, preload, health, crowding)
        return member

    def _build_fronts(self) -> None:
        """The processes that share the port. What they go by is told to them as soon as it changes here."""
        count = self.config.server.workers - 1
        if count and not hasattr(socket, "SO_REUSEPORT"):
            raise ConfigError("server.workers: this system does not let several processes share a port; set it to 1")
        self.fronts = fronts = Fronts(count, view=lambda: view_of(self.fleet), told=self._front_told)
        if count:
            for member in self.fleet.members:
                member.models.before_change.append(fronts.publish)
                member.models.on_change.append(fronts.publish_nowait)
                member.loaded.on_read.append(fronts.publish_nowait)
                member.loaded.on_forget.append(fronts.publish_nowait)
                member.loaded.on_wish.append(lambda _digest, _wish: fronts.publish_nowait())
            self.fleet.on_health.append(fronts.publish_nowait)
            self.connection.on_change.append(fronts.clear_nowait)
        self.metrics.watch("workers", lambda: 1.0 + fronts.up)
        self.metrics.watch("workers_configured", lambda: 1.0 + len(fronts))

    def _front_told(self, report: FrontReport) -> None:
        """Count what a front answered as if it had been answered here."""
        for decision, count in report.decisions:
            for step, seconds in decision.timings_s.items():
                self.metrics.step(step, seconds)
            self.decisions.tell(decision, count)
        for digest, wish in report.wishes.items():
            for member in self.fleet.members:
                member.loaded.wished(digest, wish)
        for kind, count in report.faults.items():
            for _ in range(count):
                self.metrics.fault(Fault(kind))

    def _build_flow(self) -> Serve:
        config, metrics, clock = self.config, self.metrics, self._clock
        self.flights = Flights()
        self._guards = guards = list(config.semantic.guards)
        shadowing = config.semantic.mode == "shadow"
        compare = Compare(self._shadow, metrics, clock, guards) if shadowing else None
        keeper = Keeper(
            config.cache, self.memory, self.exact, self.models, compare, self.fronts.forget_nowait, metrics, clock
        )
        near = Near(
            self.vectors,
            self.semantic,
            self.apart,
            metrics,
            clock,
            guards,
            serves=not shadowing,
            joins=config.semantic.join and not shadowing,
            prompts=config.log.prompts,
        )
        self.feedback = Feedback(self.exact, self.memory, self.apart, self._served, metrics, clock)
        shelf = VectorShelf(self.memory, self.exact, self.models, config.cache, metrics, clock)
        batches = Batches[Brought](config.batching.max_size)
        calls = EmbedFlights(shelf, self.models, config.cache, metrics, clock, batches)
        self.embeddings = Embeddings(shelf, calls, clock)
        lookup = LookUp(self.memory, self.exact, metrics.fault, clock)
        return Serve(lookup, self.exact, near, self.flights, keeper, clock)

    def _build_cached(self, passthrough: Passthrough) -> None:
        """What answers asks; its look at the repeat lane, and its double that only explains."""
        config, clock = self.config, self._clock
        fills = self._fills = tuning.Fills(config)
        serve = self._build_flow()
        self.lane = Lane(
            self.memory, self.models, self.flights, self.decisions, clock, bytes_max=config.cache.memory // LANE_SHARE
        )
        admission = Admission(
            self.models,
            self.fleet,
            fills,
            config,
            clock,
            secret=lambda: self.connection.secret,
            generation=lambda: self.lane.generation,
        )
        self._origins = Origins(config.server)
        self._replay = Replay(self.lane, config.server.repeat_lane, self._origins, admission, serve.flight_key)
        self.cached = Cached(
            admission=admission,
            replay=self._replay,
            serve=serve,
            fleet=self.fleet,
            passthrough=passthrough,
            config=config,
            metrics=self.metrics,
            decisions=self.decisions,
            clock=clock,
            templates=templates_of(config.semantic),
            feedback=self.feedback,
        )
        self._explain = Explain(
            serve=serve,
            shelf=self.shelf,
            models=self.models,
            config=config,
            templates=self.cached.templates,
            fit=admission.fit,
            secret=lambda: self.connection.secret,
        )

    def _build_proxy(self) -> None:
        config, metrics = self.config, self.metrics
        passthrough = Passthrough(self.fleet, config.server, metrics.passed_through)
        self._build_cached(passthrough)
        cached = self.cached
        embed = Embed(
            embeddings=self.embeddings,
            fleet=self.fleet,
            passthrough=passthrough,
            config=config,
            metrics=metrics,
            decisions=self.decisions,
            clock=self._clock,
            after_hit=cached.unload_behind,
            secret=lambda: self.connection.secret,
        )
        routes = Routes(
            dialects=BY_PATH,
            cached=cached,
            embed_dialects=EMBED_BY_PATH,
            embed=embed,
            passthrough=passthrough,
            models=self.models,
            origins=self._origins,
            metrics=metrics,
        )
        self._handle = routes.handle
        self._proxy = Server(
            routes.handle,
            config.server.listen,
            config.server,
            known=self._replay if config.server.repeat_lane else None,
            reuse_port=bool(len(self.fronts)),
        )
        self._inside: Server | None = None
        metrics.watch("asks_in_flight", lambda: float(cached.in_flight + embed.in_flight))

    def _build_admin(self) -> None:
        config, metrics, dashboard = self.config, self.metrics, Dashboard()
        self.live = Live(self.stats, self._clock)
        self.decisions.listeners.append(self.live.decided)
        pages = {
            **Condition(self.readiness, self.stats, self._exposition).pages(),
            **History(self.account, config).pages(),
            **self.live.pages(),
            **Opinions(self.take_feedback).pages(),
            **Entries(self.purge, self.list_entries, self.shelf.find, self.models.name_of, config.log.prompts).pages(),
            **Explaining(self._explain.explain, config.log.prompts).pages(),
            **dashboard.pages(),
        }
        self.admin = admin = Admin(
            config.admin.token,
            listen=config.admin.listen,
            pages=pages,
            front=dashboard.front,
            allowed_hosts=config.admin.hosts,
        )
        self._admin = Server(admin.handle, config.admin.listen, config.server)
        metrics.watch_models("loaded_bytes", lambda: self._loaded_bytes("size_bytes"))
        metrics.watch_models("loaded_vram_bytes", lambda: self._loaded_bytes("vram_bytes"))
        metrics.watch("upstream_in_flight", lambda: float(self.fleet.in_flight))
        metrics.watch("queue_length", lambda: float(self.fleet.waiting))
        metrics.watch("memory_bytes", lambda: float(self.memory.size_bytes))
        metrics.watch("memory_entries", lambda: float(len(self.memory)))
        metrics.watch("ledger_waiting", lambda: float(self.ledger.waiting))
        metrics.watch_labelled("dependency_up", self._dependencies)
        self._watch_redis()
        self._watch_embedder()

    def _watch_redis(self) -> None:
        metrics, connection, sizes = self.metrics, self.connection, self._sizes
        metrics.watch("redis_up", lambda: float(connection.state == "up"))
        metrics.watch("breaker_open", lambda: float(connection.left_alone))
        metrics.watch_if_known("redis_memory_bytes", lambda: sizes.last.memory_bytes if sizes.last else None)
        metrics.watch_if_known("redis_memory_max_bytes", lambda: sizes.last.memory_max_bytes if sizes.last else None)
        metrics.watch_if_known("redis_keys", lambda: sizes.last.keys if sizes.last else None)
        metrics.watch_if_known("redis_evicted_keys_total", lambda: sizes.last.evicted if sizes.last else None)

    def _watch_embedder(self) -> None:
        metrics, vectors = self.metrics, self.vectors
        metrics.watch("questions_too_long_total", lambda: float(vectors.statistics().too_long))
        metrics.watch("vectors_computed_total", lambda: float(vectors.statistics().computed))
        metrics.watch("vector_batches_total", lambda: float(vectors.statistics().batches))
        metrics.watch_info("embedder_info", self._embedder_labels)

    def _embedder_labels(self) -> tuple[str, str, str] | None:
        embedder = self.vectors.embedder
        return None if embedder is None else (embedder.model, embedder.engine, self.vectors.space)

    @property
    def proxy_url(self) -> str:
        """Where clients point their apps; the port in use once open."""
        return _url(self._proxy)

    @property
    def admin_url(self) -> str:
        """Where operators look."""
        return _url(self._admin)

    async def open(self) -> None:
        """Start everything; returns when both ports listen. Raises ConfigError; what had started is then stopped.

        Neither Redis nor Ollama needs to be there.
        """
        try:
            if self.embedded is not None:
                await self.embedded.open()
            await self.connection.open()
            await self.ledger.open()
            await self.budgets.open()
            if self.traces is not None:
                await self.traces.open()
            await self.fleet.open()
            await _listen(self._proxy, "server", shared=bool(len(self.fronts)))
            await _listen(self._admin, "admin")
            await self._open_fronts()
            await self.fleet.open_preload()
            if self.config.semantic.mode != "off":  # last: loading takes seconds, and nothing above waits for it
                await self.apart.open()
                await self.semantic.open()
                await self.vectors.open()
        except BaseException:
            await self.close()
            raise
        self._accepting = True

    async def _open_fronts(self) -> None:
        """Start them; they listen within a second. They get the addresses as they are in use."""
        if not len(self.fronts):
            return
        config = self.config
        try:
            path = self.fronts.make_inside()
            self._inside = Server(self._handle, config.server.listen, config.server, path=path)
            await self._inside.open()
        except OSError as error:
            raise ConfigError(f"server.workers: no socket for them can be made: {error}") from error
        host = f"[{self._proxy.host}]" if ":" in self._proxy.host else self._proxy.host
        server = config.server.model_copy(update={"listen": f"{host}:{self._proxy.port}"})
        redis = config.redis.model_copy(update={"url": self.embedded.url} if self.embedded else {})
        self._in_use = {"server": server, "redis": redis}
        self.fronts.open(config.model_copy(update=self._in_use))

    def reload(self, fresh: Config) -> Changes:
        """Take over what is live of another configuration; what differs. Asks under way may see some of each."""
        changes = take_over(self.config, fresh)
        self._guards[:] = self.config.semantic.guards
        self._fills.forget()
        budgets = Budgets.of(self.config.budgets.model_dump())
        self.metrics.use(budgets)
        self.budgets.use(budgets)
        self.memory.resize(self.config.cache.memory)
        self.memory.clear()
        self.lane.renew(self.config.cache.memory // LANE_SHARE)
        self.fronts.configure(self.config.model_copy(update=self._in_use))
        self.metrics.config_read(ok=True)
        return changes

    async def close(self) -> None:
        """Drain and stop. Replies under way have `server.drain_timeout`; complete answers are kept. Safe to repeat."""
        self._accepting = False
        await self.fleet.close_preload()
        drain_s = self.config.server.drain_timeout
        await asyncio.gather(self._proxy.drain(drain_s), self.fronts.drain(drain_s))
        if self._inside is not None:
            await self._inside.close()
        self.lane.flush()
        await self.live.close()
        await self._admin.close()
        await self.flights.close()
        await self.embeddings.close()
        await self.vectors.close()
        await self.semantic.close()
        await self.apart.close()
        await self.fleet.close()
        await self.ledger.close()
        await self.budgets.close()
        if self.traces is not None:
            await self.traces.close()
        await self.connection.close()
        if self.embedded is not None:
            await self.embedded.close()

    async def wait_ready(self, timeout_s: float) -> None:
        """Wait until Ollama has answered or refused for the first time, Redis answers and all workers listen.

        At most `timeout_s`.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.models.wait_first_read()
                while self.connection.state != "up":  # noqa: ASYNC110 - a freshly started Redis loads its data
                    await asyncio.sleep(0.01)
                await self.fronts.wait_up()

    async def _wait_idle(self) -> None:
        """Until no caller's request is under way at any process, and it is known which model is at home where."""
        await self.models.wait_first_read()
        servers = [server for server in (self._proxy, self._inside) if server is not None]
        while any(server.in_flight for server in servers):
            for server in servers:
                await server.wait_idle()

    def _loaded_bytes(self, part: Literal["size_bytes", "vram_bytes"]) -> dict[str, float]:
        """What each loaded model takes, at all Ollamas together."""
        found: dict[str, float] = {}
        for model in self.fleet.loaded_models:
            found[model.name] = found.get(model.name, 0) + getattr(model, part)
        return found

    def readiness(self) -> Readiness:
        """What works, part by part."""
        redis = self.connection
        names = self.models.names
        return Readiness(
            redis=Part("ok") if redis.state == "up" else Part("degraded", redis.reason or redis.state),
            upstream=self._upstream_part(),
            models=self._models_part(bool(names)),
            embedder=self._embedder_part(),
            workers=self._workers_part(),
            accepting=self._accepting,
        )

    def _dependencies(self) -> dict[str, float]:
        """Which parts work as they should, as the metrics have it."""
        found = self.readiness()
        parts = {"redis": found.redis, "ollama": found.upstream, "embedder": found.embedder}
        up = {name: float(part.state == "ok") for name, part in parts.items() if part.state != "off"}
        return up | {"ollama": float(found.upstream.state != "down")}  # one of several away leaves the rest

    def _upstream_part(self) -> Part:
        if not self.models.reachable:
            return Part("down", self.models.reason)
        away = [f"{one.name}: {one.health.reason}" for one in self.fleet.members if not one.health.up]
        return Part("degraded", "; ".join(away)) if away and len(self.fleet.members) > 1 else Part("ok")

    def _models_part(self, known: bool) -> Part:
        if self.models.reachable:
            return Part("ok")
        if known:
            return Part("degraded", "the list is from before Ollama went away")
        return Part("down", "no list of models yet")

    def _workers_part(self) -> Part:
        away = len(self.fronts) - self.fronts.up
        if not len(self.fronts):
            return Part("off")
        return Part("degraded", f"{away} of {len(self.fronts) + 1} do not listen") if away else Part("ok")

    def _embedder_part(self) -> Part:
        if self.config.semantic.mode == "off":
            return Part("off")
        if self.vectors.state != "ready":
            return Part("degraded", self.vectors.reason)
        state = self.semantic.state
        return Part("ok") if state == "ready" else Part("degraded", self.semantic.reason)

    async def _exposition(self) -> tuple[bytes, str]:
        await self._sizes.look()
        self.lane.flush()
        return self.metrics.text()

    async def stats(self) -> dict[str, Any]:
        """What `/stats` shows."""
        fleet, fleet_reason = await self._fleet()
        self.lane.flush()
        readiness = self.readiness()
        return self.metrics.snapshot() | {
            "models_installed": self.models.names,
            "models_loaded": [asdict(model) for model in self.fleet.loaded_models],
            "model_loading": self.fleet.loading,
            "ollama_version": self.models.server_version,
            "upstreams": [_told(member) for member in self.fleet.members],
            "parts": {name: {"state": part.state, "reason": part.reason} for name, part in readiness.parts.items()},
            "memory": {"entries": len(self.memory), "bytes": self.memory.size_bytes},
            "workers": [asdict(front) for front in self.fronts.states],
            "repeat_lane": {"records": len(self.lane), "bytes": self.lane.size_bytes},
            "fleet": fleet,
            "fleet_reason": fleet_reason,
        }

    async def _fleet(self) -> tuple[dict[str, Any] | None, str]:
        """All proxies together, or why nothing is known of them."""
        try:
            return await self.account.fleet(), ""
        except CacheError as error:
            return None, str(error)

    async def purge(self, selection: Selection) -> int:
        """Delete entries from Redis and forget them here. Raises CacheError."""
        match selection.by:
            case "model":
                doomed = [Doomed(digest=digest) for digest in self.models.digests(selection.value)]
                if not doomed:
                    return 0
            case "id":
                doomed = [Doomed(entry_id=selection.value)]
            case "partition":
                doomed = [Doomed(partition=selection.value)]
            case "older":
                doomed = [Doomed(made_before=self._clock.now() - int(selection.value))]
            case "all":
                doomed = [Doomed()]
        self.memory.clear()
        try:
            return sum([await self.exact.purge(each) for each in doomed])
        finally:
            self.memory.clear()
            await self.fronts.clear()

    async def list_entries(self, query: Query) -> Listing | None:
        """The newest entries; None for a model nobody has installed. Raises CacheError."""
        digests = frozenset(self.models.digests(query.model)) if query.model else frozenset()
        if query.model and not digests:
            return None
        return await self.shelf.newest(query.limit, Wanted(digests, query.question))

    async def take_feedback(self, opinion: Opinion) -> dict[str, Any] | None:
        """Act on what somebody said of a hit; None if nothing is known of it. Raises CacheError."""
        if opinion.good:
            self.metrics.feedback(good=True)
            return {}
        try:
            deleted, apart = await self.feedback.bad(opinion.entry, opinion.question)
        finally:
            await self.fronts.clear()
        if not deleted and not apart:
            return None
        self.metrics.feedback(good=False)
        return {"deleted": deleted, "kept_apart": apart}

    def report(self) -> Report:
        """What a person wants to know at start."""
        upstream, *others = (Seen.of(member) for member in self.fleet.members)
        redis = self.connection
        found = redis.capabilities
        where = f"embedded in {self.embedded.folder}" if self.embedded else f"at {redis.where}"
        if redis.state == "up":
            search = f", search {found.search_version}" if found.search_version else ""
            line = f"redis {found.server_version} {where}{search}"
        else:
            line = f"redis {where}: away ({redis.reason}); serving without the cache until it answers"
        return Report(
            proxy_url=self.proxy_url,
            admin_url=self.admin_url,
            upstream=upstream,
            others=tuple(others),
            redis=line,
            redis_note=found.note if redis.state == "up" else "",
            near=self._near_line(),
            workers=len(self.fronts) + 1,
        )

    def _near_line(self) -> str:
        semantic, model = self.config.semantic, self.config.embedding.model
        if semantic.mode == "off":
            return "off (semantic.mode)"
        shadow = ", shadow only: nothing is served" if semantic.mode == "shadow" else ""
        return f"{model}, from similarity {semantic.threshold:g}{shadow}; loading behind the scenes"

    def _models_read(self, member: Member, ok: bool) -> None:
        self.fleet.list_read(member.name, ok=ok, reason=member.models.reason)
        member.preload.models_read(ok and member.health.up)  # one that still rests is no model's home yet
        if ok:
            self.metrics.set_known_models(self.models.names)
        else:
            self.metrics.fault(Fault.TAGS_UNAVAILABLE)


@contextlib.asynccontextmanager
async def running(config: Config, *, clock: Clock | None = None) -> AsyncIterator[App]:
    """An open app inside, a closed one after."""
    app = App(config, clock=clock)
    await app.open()
    try:
        yield app
    finally:
        await app.close()


def _told(member: Member) -> dict[str, Any]:
    """One Ollama in `/stats`."""
    return {
        "name": member.name,
        "up": member.health.up,
        "reason": member.health.reason,
        "version": member.models.server_version,
        "models": member.models.names,
        "loaded": [model.name for model in member.loaded.models],
        "loading": member.preload.loading,
        "in_flight": member.batcher.in_flight,
        "waiting": member.batcher.waiting,
        "models_at_once": member.batcher.models_at_once,
        "models_at_once_why": member.crowding.fit.why,
        "models_apart": [sorted(map(member.models.name_of, pair)) for pair in member.crowding.fit.apart],
    }


async def _listen(server: Server, section: str, *, shared: bool = False) -> None:
    """Listen; where the port will be `shared` with processes of ours, no other may be there."""
    try:
        if shared:
            take_alone(server.host, server.port)
        await server.open()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(
            f"[{section}] listen: cannot listen on {server.host}:{server.port} ({reason}); "
            f"is another cacheproxy running there? Choose another port."
        ) from error


def _url(server: Server) -> str:
    host = "127.0.0.1" if server.host in ("0.0.0.0", "::") else server.host  # noqa: S104 - shown, not bound
    return f"http://[{host}]:{server.port}" if ":" in host else f"http://{host}:{server.port}"
