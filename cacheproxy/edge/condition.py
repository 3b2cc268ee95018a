"""Pages of the operator's port on how the proxy is: alive, ready, and what it has counted.

Refuses to find anything out itself: it words what the callables it is given tell.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from aiohttp import web

from cacheproxy.edge.admin import HEADERS, Page, UnnamedWhole, answer


@dataclass(frozen=True, slots=True)
class Part:
    """How one part is. `degraded`: works less well than it should; `off`: not wanted, so nothing is missing."""

    state: Literal["ok", "degraded", "down", "off"]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether asks can be answered, and what is missing.

    Ready means that at least some asks are answered as they should be. So Redis or the embedder away is only degraded
    (Ollama answers), and so is Ollama away while its models are known (hits go on being served). Not ready are a proxy
    that is starting or draining, and one that can neither reach Ollama nor knows its models.
    """

    redis: Part
    upstream: Part
    models: Part
    """`degraded`: the list is old but still trusted (`upstream.digest_grace`); `down`: there is none."""
    embedder: Part = field(default=Part("off"))
    workers: Part = field(default=Part("off"))
    """The processes that share the port with this one; `off`: there are none."""
    accepting: bool = True
    """False while starting or draining."""

    @property
    def ready(self) -> bool:
        """True when this proxy should be sent asks."""
        return self.accepting and (self.upstream.state != "down" or self.models.state in ("ok", "degraded"))

    @property
    def parts(self) -> dict[str, Part]:
        """The parts by name."""
        return {
            "redis": self.redis,
            "upstream": self.upstream,
            "models": self.models,
            "embedder": self.embedder,
            "workers": self.workers,
        }

    @property
    def degraded(self) -> list[str]:
        """Names of the parts that are not as they should be."""
        return [name for name, part in self.parts.items() if part.state in ("degraded", "down")]


@dataclass(frozen=True, slots=True)
class Condition:
    """`/healthz`, `/readyz`, `/stats` and `/metrics`, each from the callable of its kind."""

    readiness: Callable[[], Readiness]
    stats: Callable[[], Awaitable[dict[str, Any]]]
    exposition: Callable[[], Awaitable[tuple[bytes, str]]]
    """What Prometheus reads, and its content type."""

    def pages(self) -> Mapping[str, Page]:
        """By path."""
        return {
            "/healthz": Page("200 while the process answers; needs no token", {"GET": self._alive}, open=True),
            "/readyz": Page("200 when asks can be answered, else 503; the state of each part", {"GET": self._ready}),
            "/stats": Page("counts, rates and percentiles as JSON", {"GET": self._stats}),
            "/metrics": Page("the same counts for Prometheus", {"GET": self._metrics}),
        }

    async def _alive(self, _: web.BaseRequest) -> web.StreamResponse:
        return answer({"status": "ok"})

    async def _ready(self, _: web.BaseRequest) -> web.StreamResponse:
        found = self.readiness()
        body = {
            "ready": found.ready,
            "accepting": found.accepting,
            "degraded": found.degraded,
            "parts": {name: asdict(part) for name, part in found.parts.items()},
        }
        return answer(body, 200 if found.ready else 503)

    async def _stats(self, _: web.BaseRequest) -> web.StreamResponse:
        return answer(await self.stats())

    async def _metrics(self, _: web.BaseRequest) -> web.StreamResponse:
        body, content_type = await self.exposition()
        return UnnamedWhole(body=body, headers={**HEADERS, "Content-Type": content_type})
