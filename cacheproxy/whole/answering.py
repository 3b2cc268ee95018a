"""The parts that answer asks, built and joined: flow, repeat lane, handlers, and the double that only explains.

Refuses to start anything, and to decide how an ask is answered.
"""

from __future__ import annotations

from cacheproxy.clock import Clock
from cacheproxy.config import Config
from cacheproxy.decisions import Decisions
from cacheproxy.edge.admission import Admission
from cacheproxy.edge.cached import Cached
from cacheproxy.edge.calls import Calls
from cacheproxy.edge.embed import Embed
from cacheproxy.edge.lane import LANE_SHARE, Lane
from cacheproxy.edge.origin import Origins
from cacheproxy.edge.passthrough import Passthrough
from cacheproxy.edge.plans import Plans
from cacheproxy.edge.replay import Replay
from cacheproxy.edge.routes import Routes
from cacheproxy.edge.seek import Seek
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
from cacheproxy.metrics import Metrics
from cacheproxy.rules.question import templates_of
from cacheproxy.upstream.fleet import Fleet
from cacheproxy.upstream.tuning import Fills
from cacheproxy.whole.stored import Stored
from cacheproxy.wire.dialects import BY_PATH, EMBED_BY_PATH
from cacheproxy.workers.fronts import Fronts


class Answering:
    """Builds all of them on what they stand on. `routes` is the way in; it handles the proxy port's requests."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        *,
        metrics: Metrics,
        decisions: Decisions,
        stored: Stored,
        vectors: Vectors,
        fleet: Fleet,
        fronts: Fronts,
    ) -> None:
        self._config = config
        self._clock = clock
        self._metrics = metrics
        self._decisions = decisions
        self._stored = stored
        self._vectors = vectors
        self._fleet = fleet
        self.flights = Flights()
        self.guards = list(config.semantic.guards)
        """Those in use; whoever changes the list changes what is served from then on."""
        self.fills = Fills(config)
        self.feedback = Feedback(stored.exact, stored.memory, stored.apart, stored.served, metrics, clock)
        self.lane = Lane(
            stored.memory, fleet.models, self.flights, decisions, clock, bytes_max=config.cache.memory // LANE_SHARE
        )
        self._admission = self._build_admission()
        self._serve = self._build_serve(fronts)
        self.embeddings = self._build_embeddings()
        self._origins = Origins(config.server)
        self._passthrough = Passthrough(fleet, config.server, metrics.passed_through, metrics.fault)
        self._calls = Calls(fleet, self._passthrough, metrics, decisions, clock)
        self.replay = self._build_replay()
        self.cached = self._build_cached()
        self.embed = self._build_embed()
        self.explain = self._build_explain()
        self.routes = self._build_routes()

    @property
    def in_flight(self) -> int:
        """Asks being answered right now."""
        return self._calls.in_flight

    def _secret(self) -> bytes:
        return self._stored.connection.secret

    def _build_admission(self) -> Admission:
        return Admission(
            self._fleet.models,
            self._fleet,
            self.fills,
            self._config,
            self._clock,
            secret=self._secret,
            generation=lambda: self.lane.generation,
        )

    def _build_routes(self) -> Routes:
        return Routes(
            dialects=BY_PATH,
            cached=self.cached,
            embed_dialects=EMBED_BY_PATH,
            embed=self.embed,
            passthrough=self._passthrough,
            models=self._fleet.models,
            origins=self._origins,
        )

    def _build_serve(self, fronts: Fronts) -> Serve:
        config, stored, metrics, clock = self._config, self._stored, self._metrics, self._clock
        shadowing = config.semantic.mode == "shadow"
        compare = Compare(stored.shadow, metrics, clock, self.guards) if shadowing else None
        keeper = Keeper(
            config.cache,
            stored.memory,
            stored.exact,
            self._fleet.models,
            compare,
            fronts.forget_nowait,
            metrics,
            clock,
        )
        near = Near(
            self._vectors,
            stored.semantic,
            stored.apart,
            metrics,
            clock,
            self.guards,
            serves=not shadowing,
            joins=config.semantic.join and not shadowing,
            prompts=config.log.prompts,
        )
        lookup = LookUp(stored.memory, stored.exact, metrics.fault, clock)
        return Serve(lookup, stored.exact, near, self.flights, keeper, clock)

    def _build_embeddings(self) -> Embeddings:
        config, stored, models = self._config, self._stored, self._fleet.models
        shelf = VectorShelf(stored.memory, stored.exact, models, config.cache, self._metrics, self._clock)
        batches = Batches[Brought](config.batching.max_size)
        calls = EmbedFlights(shelf, models, config.cache, self._metrics, self._clock, batches)
        return Embeddings(shelf, calls, self._clock)

    def _build_replay(self) -> Replay:
        stored, serve = self._stored, self._serve
        plans = Plans(stored.memory, self._fleet.models, self.flights, self._secret, serve.flight_key)
        seeker = Seek(
            serve.lookup, plans, self._decisions, self._clock, self._metrics.step, self._admission.note, self.lane.count
        )
        learns = self._config.server.repeat_lane
        return Replay(
            self.lane, learns, self._origins, self._admission, serve.flight_key, plans, seeker, self._metrics.fault
        )

    def _build_cached(self) -> Cached:
        return Cached(
            calls=self._calls,
            admission=self._admission,
            replay=self.replay,
            serve=self._serve,
            fleet=self._fleet,
            config=self._config,
            metrics=self._metrics,
            clock=self._clock,
            templates=templates_of(self._config.semantic),
            feedback=self.feedback,
        )

    def _build_embed(self) -> Embed:
        return Embed(
            calls=self._calls,
            admission=self._admission,
            embeddings=self.embeddings,
            fleet=self._fleet,
            config=self._config,
            metrics=self._metrics,
            clock=self._clock,
            after_hit=self.cached.unload_behind,
        )

    def _build_explain(self) -> Explain:
        return Explain(
            serve=self._serve,
            shelf=self._stored.shelf,
            models=self._fleet.models,
            config=self._config,
            templates=self.cached.templates,
            fit=self._admission.fit,
            secret=self._secret,
        )
