"""The figures of the whole: what each part keeps, read for `/metrics` and `/stats` when somebody looks.

Refuses to count: what happens is counted where it happens (`metrics.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cacheproxy.edge.lane import Lane
from cacheproxy.edge.plans import Plans
from cacheproxy.errors import CacheError
from cacheproxy.flow.vectors import Vectors
from cacheproxy.metrics import Metrics
from cacheproxy.store.account import Account
from cacheproxy.store.connection import Connection
from cacheproxy.store.ledger import Ledger
from cacheproxy.store.memory import Memory
from cacheproxy.store.size import Sizes
from cacheproxy.upstream.fleet import Fleet
from cacheproxy.upstream.member import Member
from cacheproxy.whole.readiness import Parts
from cacheproxy.workers.fronts import Fronts


@dataclass(frozen=True, slots=True)
class Figures:
    """All who keep figures. `asks_in_flight`: those of this process."""

    metrics: Metrics
    parts: Parts
    fleet: Fleet
    fronts: Fronts
    connection: Connection
    sizes: Sizes
    memory: Memory
    lane: Lane
    plans: Plans
    ledger: Ledger
    account: Account
    vectors: Vectors
    asks_in_flight: Callable[[], int]

    def watch(self) -> None:
        """Let the metrics read, from now on, what the parts keep."""
        metrics = self.metrics
        metrics.watch("workers", lambda: 1.0 + self.fronts.up)
        metrics.watch("workers_configured", lambda: 1.0 + len(self.fronts))
        metrics.watch("asks_in_flight", lambda: float(self.asks_in_flight()))
        metrics.watch_models("loaded_bytes", lambda: self._loaded_bytes("size_bytes"))
        metrics.watch_models("loaded_vram_bytes", lambda: self._loaded_bytes("vram_bytes"))
        metrics.watch("upstream_in_flight", lambda: float(self.fleet.in_flight))
        metrics.watch("queue_length", lambda: float(self.fleet.waiting))
        metrics.watch("memory_bytes", lambda: float(self.memory.size_bytes))
        metrics.watch("memory_entries", lambda: float(len(self.memory)))
        metrics.watch("ledger_waiting", lambda: float(self.ledger.waiting))
        metrics.watch_labelled("dependency_up", self.parts.dependencies)
        self._watch_redis()
        self._watch_index()
        self._watch_embedder()

    def _watch_redis(self) -> None:
        metrics, connection, sizes = self.metrics, self.connection, self.sizes
        metrics.watch("redis_up", lambda: float(connection.state == "up"))
        metrics.watch("breaker_open", lambda: float(connection.left_alone))
        metrics.watch_if_known("redis_memory_bytes", lambda: sizes.last.memory_bytes if sizes.last else None)
        metrics.watch_if_known("redis_memory_max_bytes", lambda: sizes.last.memory_max_bytes if sizes.last else None)
        metrics.watch_if_known("redis_keys", lambda: sizes.last.keys if sizes.last else None)
        metrics.watch_if_known("redis_evicted_keys_total", lambda: sizes.last.evicted if sizes.last else None)

    def _watch_index(self) -> None:
        self.metrics.watch_if_known("near_index_entries", lambda: self._of_index("documents"))
        self.metrics.watch_if_known("near_index_refused", lambda: self._of_index("failures"))

    def _of_index(self, figure: Literal["documents", "failures"]) -> float | None:
        """What was last seen of the index; None while there is none to be seen."""
        semantic = self.parts.semantic
        return float(getattr(semantic.statistics(), figure)) if semantic.state in ("building", "ready") else None

    def _watch_embedder(self) -> None:
        metrics, vectors = self.metrics, self.vectors
        metrics.watch("questions_too_long_total", lambda: float(vectors.statistics().too_long))
        metrics.watch("vectors_computed_total", lambda: float(vectors.statistics().computed))
        metrics.watch("vector_batches_total", lambda: float(vectors.statistics().batches))
        metrics.watch_info("embedder_info", self._embedder_labels)

    def _embedder_labels(self) -> tuple[str, str, str] | None:
        embedder = self.vectors.embedder
        return None if embedder is None else (embedder.model, embedder.engine, self.vectors.space)

    def _loaded_bytes(self, part: Literal["size_bytes", "vram_bytes"]) -> dict[str, float]:
        """What each loaded model takes, at all Ollamas together."""
        found: dict[str, float] = {}
        for model in self.fleet.loaded_models:
            found[model.name] = found.get(model.name, 0) + getattr(model, part)
        return found

    async def exposition(self) -> tuple[bytes, str]:
        """What Prometheus reads, and its content type."""
        await self.sizes.look()
        self.lane.flush()
        return self.metrics.text()

    async def stats(self) -> dict[str, Any]:
        """What `/stats` shows."""
        fleet, fleet_reason = await self._all_proxies()
        self.lane.flush()
        models, readiness = self.fleet.models, self.parts.readiness()
        return self.metrics.snapshot() | {
            "models_installed": models.names,
            "models_loaded": [asdict(model) for model in self.fleet.loaded_models],
            "model_loading": self.fleet.loading,
            "ollama_version": models.server_version,
            "upstreams": [_told(member) for member in self.fleet.members],
            "parts": {name: {"state": part.state, "reason": part.reason} for name, part in readiness.parts.items()},
            "memory": {"entries": len(self.memory), "bytes": self.memory.size_bytes},
            "workers": [asdict(front) for front in self.fronts.states],
            "repeat_lane": {"records": len(self.lane), "bytes": self.lane.size_bytes},
            "plans": {"known": len(self.plans), "bytes": self.plans.size_bytes},
            "fleet": fleet,
            "fleet_reason": fleet_reason,
        }

    async def _all_proxies(self) -> tuple[dict[str, Any] | None, str]:
        """All proxies together, or why nothing is known of them."""
        try:
            return await self.account.fleet(), ""
        except CacheError as error:
            return None, str(error)


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
        "models_at_once_why": member.crowding.why,
        "models_apart": [sorted(map(member.models.name_of, pair)) for pair in member.crowding.fit.apart],
    }
