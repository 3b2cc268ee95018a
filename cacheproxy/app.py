"""The only place that joins all parts; start and drain order.

Parts open from the ground up and close from the top down: first no new callers, then the replies under way, then what
is being kept, then Ollama and Redis. Groups of parts are built in `whole/`. Refuses to decide anything about an ask.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

from cacheproxy.budgets import Budgets, Watch
from cacheproxy.clock import Clock, SystemClock
from cacheproxy.config import Config
from cacheproxy.decisions import Decisions
from cacheproxy.edge.admin import Admin, check_exposure
from cacheproxy.edge.condition import Condition, Readiness
from cacheproxy.edge.dashboard import Dashboard
from cacheproxy.edge.entries import Entries
from cacheproxy.edge.explain import Explaining
from cacheproxy.edge.history import History
from cacheproxy.edge.lane import LANE_SHARE
from cacheproxy.edge.live import Live
from cacheproxy.edge.opinions import Opinions
from cacheproxy.edge.server import Server
from cacheproxy.errors import ConfigError
from cacheproxy.flow.vectors import Vectors
from cacheproxy.metrics import Fault, Metrics
from cacheproxy.reload import Changes, own, take_over
from cacheproxy.traces import Traces
from cacheproxy.upstream.view import view_of
from cacheproxy.whole.answering import Answering
from cacheproxy.whole.embedder import load_embedder
from cacheproxy.whole.figures import Figures
from cacheproxy.whole.ollamas import Ollamas
from cacheproxy.whole.operators import Operators
from cacheproxy.whole.readiness import Parts
from cacheproxy.whole.report import Report, Seen, near_line, redis_line, redis_note
from cacheproxy.whole.stored import Stored
from cacheproxy.workers.fronts import Fronts, take_alone
from cacheproxy.workers.messages import Report as FrontReport


class App:
    """The whole proxy. Constructing it does no I/O; raises ConfigError for settings that cannot work together."""

    def __init__(self, config: Config, *, clock: Clock | None = None) -> None:
        check_exposure(config.admin.listen, config.admin.token)
        self.config = config = own(config)
        self._clock = clock or SystemClock()
        self._accepting = False
        self._in_use: dict[str, Any] = {}
        self._build_counts()
        self._build_store()
        self._build_embedder()
        self._build_upstream()
        self._build_fronts()
        self._build_proxy()
        self._build_condition()
        self._build_admin()

    def _build_counts(self) -> None:
        config = self.config
        budgets = Budgets.of(config.budgets.model_dump())
        self.metrics = Metrics(self._clock, budgets)
        self.budgets = Watch(budgets)
        self.metrics.on_breach.append(self.budgets.note)
        self.decisions = Decisions()
        self.traces = Traces(config.tracing, self.metrics) if config.tracing.endpoint else None

    def _build_store(self) -> None:
        self._stored = stored = Stored.of(self.config, self._clock, self.metrics)
        self.embedded, self.connection, self.memory = stored.embedded, stored.connection, stored.memory
        self.exact, self.shelf, self.ledger = stored.exact, stored.shelf, stored.ledger
        self.account, self.apart, self.semantic = stored.account, stored.apart, stored.semantic
        self.decisions.listeners += [self.metrics.decided, self.ledger.decided]
        if self.traces is not None:
            self.decisions.listeners.append(self.traces.decided)

    def _build_embedder(self) -> None:
        settings = self.config.embedding
        self.vectors = Vectors(
            lambda: load_embedder(self.config),
            window_s=settings.window,
            batch_max=settings.batch,
            timeout_s=settings.timeout,
            memo_max=settings.memo,
        )
        self.vectors.on_ready.append(lambda embedder: self.semantic.use(embedder.fingerprint, embedder.dims))

    def _build_upstream(self) -> None:
        self.fleet = Ollamas(self.config, self._clock, self.metrics, self._stored.notes, self._wait_idle).fleet
        self.models = self.fleet.models

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

    def _build_proxy(self) -> None:
        config = self.config
        self._answering = answering = Answering(
            config,
            self._clock,
            metrics=self.metrics,
            decisions=self.decisions,
            stored=self._stored,
            vectors=self.vectors,
            fleet=self.fleet,
            fronts=self.fronts,
        )
        self.flights, self.embeddings, self.cached = answering.flights, answering.embeddings, answering.cached
        self.lane, self.plans = answering.lane, answering.replay.plans
        self.feedback, self._guards = answering.feedback, answering.guards
        self._proxy = Server(
            answering.routes.handle,
            config.server.listen,
            config.server,
            fault=self.metrics.fault,
            known=answering.replay if config.server.repeat_lane else None,
            reuse_port=bool(len(self.fronts)),
        )
        self._inside: Server | None = None

    def _build_condition(self) -> None:
        self._parts = parts = Parts(
            self.config,
            self.connection,
            self.fleet,
            self.vectors,
            self.semantic,
            self.fronts,
            accepting=lambda: self._accepting,
        )
        self._figures = Figures(
            metrics=self.metrics,
            parts=parts,
            fleet=self.fleet,
            fronts=self.fronts,
            connection=self.connection,
            sizes=self._stored.sizes,
            memory=self.memory,
            lane=self.lane,
            plans=self.plans,
            ledger=self.ledger,
            account=self.account,
            vectors=self.vectors,
            asks_in_flight=lambda: self._answering.in_flight,
        )
        self._figures.watch()

    def _build_admin(self) -> None:
        config, figures, dashboard = self.config, self._figures, Dashboard()
        operators = Operators(
            self.exact, self.memory, self.shelf, self.fronts, self.models, self.feedback, self.metrics, self._clock
        )
        entries = Entries(
            operators.purge, operators.list_entries, self.shelf.find, self.models.name_of, config.log.prompts
        )
        self.live = Live(figures.stats, self._clock)
        self.decisions.listeners.append(self.live.decided)
        pages = {
            **Condition(self.readiness, figures.stats, figures.exposition).pages(),
            **History(self.account, config).pages(),
            **self.live.pages(),
            **Opinions(operators.take_feedback).pages(),
            **entries.pages(),
            **Explaining(self._answering.explain.explain, config.log.prompts).pages(),
            **dashboard.pages(),
        }
        self.admin = admin = Admin(
            config.admin.token,
            listen=config.admin.listen,
            pages=pages,
            front=dashboard.front,
            allowed_hosts=config.admin.hosts,
        )
        self._admin = Server(admin.handle, config.admin.listen, config.server, fault=self.metrics.fault)

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
            handle, fault = self._answering.routes.handle, self.metrics.fault
            self._inside = Server(handle, config.server.listen, config.server, fault=fault, path=path)
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
        self._answering.fills.forget()
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
        """Drain and stop. Replies under way have `server.drain_timeout`; complete answers are kept. Safe to repeat.

        A part that fails to close leaves none of the others open: its error is raised when all are closed.
        """
        self._accepting = False
        async with contextlib.AsyncExitStack() as parts:  # from the ground up: the last one is closed first
            if self.embedded is not None:
                parts.push_async_callback(self.embedded.close)
            parts.push_async_callback(self.connection.close)
            if self.traces is not None:
                parts.push_async_callback(self.traces.close)
            parts.push_async_callback(self.budgets.close)
            parts.push_async_callback(self.ledger.close)
            parts.push_async_callback(self.fleet.close)
            parts.push_async_callback(self.apart.close)
            parts.push_async_callback(self.semantic.close)
            parts.push_async_callback(self.vectors.close)
            parts.push_async_callback(self.embeddings.close)
            parts.push_async_callback(self.flights.close)
            parts.push_async_callback(self._admin.close)
            parts.push_async_callback(self.live.close)
            parts.callback(self.lane.flush)
            if self._inside is not None:
                parts.push_async_callback(self._inside.close)
            parts.push_async_callback(self._drain)
            parts.push_async_callback(self.fleet.close_preload)

    async def _drain(self) -> None:
        """Let replies under way end, here and at the fronts."""
        drain_s = self.config.server.drain_timeout
        await asyncio.gather(self._proxy.drain(drain_s), self.fronts.drain(drain_s))

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

    def readiness(self) -> Readiness:
        """What works, part by part."""
        return self._parts.readiness()

    async def stats(self) -> dict[str, Any]:
        """What `/stats` shows."""
        return await self._figures.stats()

    def report(self) -> Report:
        """What a person wants to know at start."""
        upstream, *others = (Seen.of(member) for member in self.fleet.members)
        return Report(
            proxy_url=self.proxy_url,
            admin_url=self.admin_url,
            upstream=upstream,
            others=tuple(others),
            redis=redis_line(self.connection, self.embedded),
            redis_note=redis_note(self.connection),
            near=near_line(self.config),
            workers=len(self.fronts) + 1,
        )


@contextlib.asynccontextmanager
async def running(config: Config, *, clock: Clock | None = None) -> AsyncIterator[App]:
    """An open app inside, a closed one after."""
    app = App(config, clock=clock)
    await app.open()
    try:
        yield app
    finally:
        await app.close()


async def _listen(server: Server, section: str, *, shared: bool = False) -> None:
    """Listen; where the port will be `shared` with processes of ours, no other may be there."""
    try:
        if shared:
            take_alone(server.host, server.port)
        await server.open()
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno and error.errno > 0:  # below are those of name look-ups, which only their text tells
            reason = os.strerror(error.errno).lower()
        raise ConfigError(
            f"[{section}] listen: cannot listen on {server.host}:{server.port} ({reason}); "
            f"is another cacheproxy running there? Choose another port."
        ) from error


def _url(server: Server) -> str:
    host = "127.0.0.1" if server.host in ("0.0.0.0", "::") else server.host  # noqa: S104 - shown, not bound
    return f"http://[{host}]:{server.port}" if ":" in host else f"http://{host}:{server.port}"
