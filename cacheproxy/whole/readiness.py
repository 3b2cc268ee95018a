"""What works, part by part, as `/readyz` and the metrics have it.

Refuses to ask anybody: each part already knows how it is. What "ready" means is said in `edge/condition.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cacheproxy.config import Config
from cacheproxy.edge.condition import Part, Readiness
from cacheproxy.flow.vectors import Vectors
from cacheproxy.store.connection import Connection
from cacheproxy.store.semantic import Semantic
from cacheproxy.upstream.fleet import Fleet
from cacheproxy.workers.fronts import Fronts


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts that may be away while the proxy runs. `accepting`: false while it is starting or draining."""

    config: Config
    connection: Connection
    fleet: Fleet
    vectors: Vectors
    semantic: Semantic
    fronts: Fronts
    accepting: Callable[[], bool]

    def readiness(self) -> Readiness:
        """What works, part by part."""
        return Readiness(
            redis=self._redis(),
            upstream=self._upstream(),
            models=self._models(),
            embedder=self._embedder(),
            workers=self._workers(),
            accepting=self.accepting(),
        )

    def dependencies(self) -> dict[str, float]:
        """Which parts work as they should, as the metrics have it: 1 or 0 by name."""
        found = self.readiness()
        parts = {"redis": found.redis, "upstream": found.upstream, "embedder": found.embedder}
        up = {name: float(part.state == "ok") for name, part in parts.items() if part.state != "off"}
        return up | {"upstream": float(found.upstream.state != "down")}  # one of several away leaves the rest

    def _redis(self) -> Part:
        redis = self.connection
        return Part("ok") if redis.state == "up" else Part("degraded", redis.reason or redis.state)

    def _upstream(self) -> Part:
        models, members = self.fleet.models, self.fleet.members
        if not models.reachable:
            return Part("down", models.reason)
        away = [f"{one.name}: {one.health.reason}" for one in members if not one.health.up]
        return Part("degraded", "; ".join(away)) if away and len(members) > 1 else Part("ok")

    def _models(self) -> Part:
        models = self.fleet.models
        if models.reachable:
            return Part("ok")
        if models.names:
            return Part("degraded", "the list is from before Ollama went away")
        return Part("down", "no list of models yet")

    def _workers(self) -> Part:
        away = len(self.fronts) - self.fronts.up
        if not len(self.fronts):
            return Part("off")
        return Part("degraded", f"{away} of {len(self.fronts) + 1} do not listen") if away else Part("ok")

    def _embedder(self) -> Part:
        if self.config.semantic.mode == "off":
            return Part("off")
        if self.vectors.state != "ready":
            return Part("degraded", self.vectors.reason)
        state = self.semantic.state
        return Part("ok") if state == "ready" else Part("degraded", self.semantic.reason)
