"""OpenTelemetry: decisions as traces, delivered by OTLP over HTTP behind the asks.

The listener only puts a decision into a queue. Twice a second a thread makes spans of what is there and delivers them;
a collector that is away costs the traces of that time, never an ask. Libraries are an extra (`otel`)
and are loaded only where `tracing.endpoint` is set.
Refuses to continue a caller's trace: a decision carries nothing of its request.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import random
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from cacheproxy import __version__
from cacheproxy.behind import Behind
from cacheproxy.config import Tracing
from cacheproxy.counting.faults import Fault
from cacheproxy.errors import ConfigError
from cacheproxy.metrics import Metrics
from cacheproxy.model import Decision
from cacheproxy.spans import Span, ask_span, step_spans

EXPORT_S = 0.5
EXPORT_MAX = 512
"""Asks delivered at once."""
WAITING_MAX = 4096
"""Asks that may wait for delivery; beyond, the newest are left out and counted."""
TIMEOUT_S = 5.0
"""How long one delivery may take, its retries included."""
CLOSE_S_MAX = 2.0
PACKAGES = ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http")
"""What the extra `otel` holds."""
PATH = "/v1/traces"
"""Where collectors take traces; for an endpoint without a path."""


class Traces:
    """Delivers traces. `make_exporter` stands for OTLP's; raises ConfigError where the libraries are missing."""

    def __init__(
        self,
        settings: Tracing,
        metrics: Metrics,
        *,
        make_exporter: Callable[[], Any] | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        if make_exporter is None:
            check_installed()
        self._settings = settings
        self._metrics = metrics
        self._make_exporter = make_exporter or self._otlp
        self._chance = chance
        self._waiting: deque[tuple[Decision, int]] = deque()
        self._exporter: Any = None
        self._behind = Behind(self.export, EXPORT_S, "traces")

    def decided(self, decision: Decision, count: int = 1) -> None:
        """An ask has ended. Listens on `Decisions`."""
        if self._chance() >= self._settings.share:
            return
        if len(self._waiting) >= WAITING_MAX:
            self._metrics.fault(Fault.TRACES)
            return
        self._waiting.append((decision, count))

    async def open(self) -> None:
        """Begin to deliver; returns at once."""
        self._behind.start()

    async def close(self) -> None:
        """Deliver what waits, for at most `CLOSE_S_MAX`. Safe to call twice."""
        if not await self._behind.stop():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S_MAX):
                await self.export()
                if self._exporter is not None:
                    await asyncio.to_thread(self._exporter.shutdown)

    async def export(self) -> None:
        """Deliver what waits. What cannot be delivered is given up and counted."""
        while self._waiting:
            some = [self._waiting.popleft() for _ in range(min(EXPORT_MAX, len(self._waiting)))]
            if not await asyncio.to_thread(self._deliver, some):
                self._metrics.fault(Fault.TRACES)

    def _deliver(self, asks: Sequence[tuple[Decision, int]]) -> bool:
        """Whether these asks were taken. Runs in a thread."""
        from opentelemetry.sdk.trace.export import SpanExportResult

        try:
            if self._exporter is None:
                self._exporter = self._make_exporter()
            spans = [span for decision, count in asks for span in _readable(decision, count)]
            return bool(self._exporter.export(spans) is SpanExportResult.SUCCESS)
        except Exception:  # noqa: BLE001 - whatever a library makes of a collector's answer must not end delivery
            return False

    def _otlp(self) -> Any:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter(endpoint=endpoint(self._settings.endpoint), timeout=TIMEOUT_S)


def endpoint(url: str) -> str:
    """Where traces go for a collector's URL: its own path, else the usual one."""
    return url if urlsplit(url).path.strip("/") else url.rstrip("/") + PATH


def check_installed() -> None:
    """Raise ConfigError, with the line that installs it, where what sends traces is missing."""
    for package in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"):
        try:
            found = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise ConfigError(
                f"tracing.endpoint needs opentelemetry, which is not installed: pip install {' '.join(PACKAGES)}"
            )


@functools.cache
def _identity() -> tuple[Any, Any]:
    """Who the spans are of: this process, and this package."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    instance = secrets.token_hex(8)
    about = {"service.name": "cacheproxy", "service.version": __version__, "service.instance.id": instance}
    return Resource.create(about), InstrumentationScope("cacheproxy", __version__)


def _readable(decision: Decision, count: int) -> list[Any]:
    """The ask's span and those of its steps, as OpenTelemetry's exporters take them."""
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext, SpanKind, TraceFlags

    resource, scope = _identity()
    trace_id = random.getrandbits(128) or 1  # 0 stands for none

    def made(span: Span, parent: SpanContext | None) -> ReadableSpan:
        return ReadableSpan(
            span.name,
            context=SpanContext(trace_id, random.getrandbits(64) or 1, False, TraceFlags(TraceFlags.SAMPLED)),
            parent=parent,
            resource=resource,
            attributes=dict(span.attributes),
            kind=SpanKind.INTERNAL if parent else SpanKind.SERVER,
            start_time=span.start_ns,
            end_time=span.end_ns,
            instrumentation_scope=scope,
        )

    root = made(ask_span(decision, count), None)
    return [root, *(made(span, root.context) for span in step_spans(decision))]
