"""An ask is one trace: its span, a child for each step, nothing of the prompt unless it may be told."""

from __future__ import annotations

import asyncio
import importlib.util
import threading
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cacheproxy import traces as module
from cacheproxy.app import App
from cacheproxy.config import Config, Tracing
from cacheproxy.errors import ConfigError
from cacheproxy.metrics import Fault, Metrics
from cacheproxy.model import Decision, Neighbour, Outcome
from cacheproxy.spans import OPERATIONS, ask_span, step_spans
from cacheproxy.traces import Traces, endpoint
from cacheproxy.wire.dialects import BY_PATH, EMBED_BY_PATH
from tests.fakes.clock import FakeClock
from tests.fakes.house import open_house, until

HIT = Decision(
    Outcome.SEMANTIC,
    "chat",
    1_700_000_000.5,
    0.040,
    tier="redis",
    model="llama3.2:latest",
    entry="ab" * 16,
    age_s=60.0,
    neighbour=Neighbour("ab" * 16, 0.944, 0.92, "serve"),
    saved_s=1.5,
    saved_tokens=40,
    trail="memory:no exact:no near:0.944 verdict:serve",
    timings_s={"parse": 0.001, "exact": 0.002, "semantic": 0.010, "reply": 0.005},
)
OTHER = replace(HIT, outcome=Outcome.BYPASS, reason="tools", neighbour=None, entry="", age_s=None, saved_tokens=0)


def traces(exporter=None, *, share=1.0, chance=lambda: 0.5):
    """Traces into memory, or into this exporter."""
    metrics = Metrics(FakeClock())
    exporter = exporter or InMemorySpanExporter()
    settings = Tracing(endpoint="http://collector", share=share)
    return Traces(settings, metrics, make_exporter=lambda: exporter, chance=chance), exporter, metrics


def faults(metrics):
    """How often traces were given up."""
    return metrics.snapshot()["faults"][Fault.TRACES]


def test_the_ask_is_named_as_the_conventions_name_it():
    """Operation and model; what only a cache knows has our own prefix."""
    span = ask_span(HIT)

    assert span.name == "chat llama3.2:latest"
    assert (span.end_ns, span.end_ns - span.start_ns) == (1_700_000_000_500_000_000, 40_000_000)
    assert span.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "ollama",
        "gen_ai.request.model": "llama3.2:latest",
        "gen_ai.usage.output_tokens": 40,
        "cacheproxy.outcome": "semantic",
        "cacheproxy.dialect": "chat",
        "cacheproxy.tier": "redis",
        "cacheproxy.trail": "memory:no exact:no near:0.944 verdict:serve",
        "cacheproxy.entry.id": "ab" * 16,
        "cacheproxy.entry.age": 60.0,
        "cacheproxy.saved.seconds": 1.5,
        "cacheproxy.near.similarity": 0.944,
        "cacheproxy.near.threshold": 0.92,
        "cacheproxy.near.verdict": "serve",
        "cacheproxy.near.entry": "ab" * 16,
    }
    assert ask_span(OTHER, 3).attributes["cacheproxy.bypass.reason"] == "tools"
    assert ask_span(OTHER, 3).attributes["cacheproxy.count"] == 3
    assert ask_span(replace(HIT, model="")).name == "chat"


def test_texts_are_told_only_where_the_decision_holds_them():
    """It does so with `log.prompts` only."""
    asked = replace(HIT, neighbour=Neighbour("e", 0.944, 0.92, "serve", asked="asked text", stored="stored text"))

    assert "text" not in repr(ask_span(HIT)) + repr(step_spans(HIT))
    assert ask_span(asked).attributes["cacheproxy.near.asked"] == "asked text"


def test_each_dialect_has_an_operation():
    """A new one is told apart in traces from its first day."""
    names = {dialect.NAME for dialect in (*BY_PATH.values(), *EMBED_BY_PATH.values())}

    assert set(OPERATIONS) == names


@given(st.floats(-1, 5), st.dictionaries(st.sampled_from("abcdefg"), st.floats(-1, 3)))
def test_steps_follow_one_another_and_stay_within_the_ask(seconds, timings_s):
    """Whatever the clocks said."""
    decision = replace(HIT, seconds=seconds, timings_s=timings_s)
    whole, steps = ask_span(decision), step_spans(decision)

    ends = [whole.start_ns, *(end for span in steps for end in (span.start_ns, span.end_ns)), whole.end_ns]
    assert ends == sorted(ends)
    assert [span.attributes["cacheproxy.step"] for span in steps] == list(timings_s)


async def test_an_ask_becomes_a_trace_with_its_steps_as_children():
    """As OpenTelemetry's own exporter sees it; two asks are two traces."""
    sent, exporter, metrics = traces()
    sent.decided(HIT)
    sent.decided(OTHER)
    await sent.export()
    spans = exporter.get_finished_spans()
    roots = [span for span in spans if span.parent is None]

    assert [span.name for span in roots] == ["chat llama3.2:latest"] * 2
    assert len({span.context.trace_id for span in roots}) == 2
    assert len({span.context.span_id for span in spans}) == len(spans) == 10
    for root in roots:
        children = [span for span in spans if span.parent and span.parent.span_id == root.context.span_id]
        assert [child.name for child in children] == [f"cacheproxy.{step}" for step in HIT.timings_s]
        assert {child.context.trace_id for child in children} == {root.context.trace_id}
        assert root.resource.attributes["service.name"] == "cacheproxy"
    assert faults(metrics) == 0


async def test_a_share_of_asks_is_traced():
    """Chosen by chance, at the listener, so that the rest costs nothing."""
    chances = iter([0.0, 0.29, 0.3, 0.99])
    sent, exporter, _metrics = traces(share=0.3, chance=lambda: next(chances))
    for _ in range(4):
        sent.decided(HIT)
    await sent.export()

    assert len([span for span in exporter.get_finished_spans() if span.parent is None]) == 2


async def test_what_waits_for_a_collector_is_bounded(monkeypatch):
    """The newest are left out, each a counted fault."""
    monkeypatch.setattr(module, "WAITING_MAX", 3)
    sent, exporter, metrics = traces()
    for _ in range(5):
        sent.decided(HIT)
    await sent.export()

    assert len([span for span in exporter.get_finished_spans() if span.parent is None]) == 3
    assert faults(metrics) == 2


@pytest.mark.parametrize("fails", [lambda _spans: SpanExportResult.FAILURE, lambda _spans: 1 / 0])
async def test_a_collector_that_takes_nothing_costs_the_traces_only(fails):
    """It is counted, and delivery goes on with what comes next."""
    exporter = InMemorySpanExporter()
    working, exporter.export = exporter.export, fails
    sent, _exporter, metrics = traces(exporter)
    sent.decided(HIT)
    await sent.export()
    assert faults(metrics) == 1

    exporter.export = working
    sent.decided(HIT)
    await sent.export()
    assert faults(metrics) == 1
    assert len(exporter.get_finished_spans()) == 5


async def test_delivery_does_not_hold_up_the_loop_and_ends_with_the_program(monkeypatch):
    """It happens in a thread, by itself, and what waits at the end is delivered."""
    monkeypatch.setattr(module, "EXPORT_S", 0.01)
    threads = []
    exporter = InMemorySpanExporter()
    working = exporter.export
    exporter.export = lambda spans: threads.append(threading.current_thread()) or working(spans)
    sent, _exporter, _metrics = traces(exporter)
    await sent.open()
    sent.decided(HIT)
    await until(lambda: len(exporter.get_finished_spans()) == 5)
    monkeypatch.setattr(module, "EXPORT_S", 60)
    await asyncio.sleep(0.02)
    sent.decided(HIT)
    await sent.close()
    await sent.close()

    assert len(exporter.get_finished_spans()) == 10
    assert threading.main_thread() not in threads


def test_without_the_libraries_the_setting_is_refused_with_the_remedy(monkeypatch):
    """At the start, not at the first ask; without the setting nobody needs them. It names what the extra holds."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    with pytest.raises(ConfigError, match=f"pip install {' '.join(module.PACKAGES)}"):
        App(Config.model_validate({"tracing": {"endpoint": "http://127.0.0.1:4318"}}))
    assert {text.partition(">=")[0] for text in project["optional-dependencies"]["otel"]} == set(module.PACKAGES)
    assert App(Config()).traces is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
        ("https://host/api/otlp", "https://host/api/otlp"),
    ],
)
def test_a_collector_needs_no_path(given, expected):
    """The usual one is added; its own is kept."""
    assert endpoint(given) == expected


async def test_a_real_ask_arrives_at_a_real_collector(fake_ollama, clean_redis):
    """Over OTLP, as protobuf, without the prompt."""
    bodies = []

    async def collect(request):
        bodies.append((request.path, await request.read()))
        return web.Response(content_type="application/x-protobuf")

    runner = web.ServerRunner(web.Server(collect))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with open_house(fake_ollama, clean_redis, tracing={"endpoint": url}) as house:
            await house.chat("a secret question", stream=False)
            await until(lambda: bool(bodies), timeout_s=20)
    finally:
        await runner.cleanup()
    path, body = bodies[0]
    (spans,) = ExportTraceServiceRequest.FromString(body).resource_spans
    names = [span.name for scope in spans.scope_spans for span in scope.spans]

    assert path == "/v1/traces"
    assert names[:3] == ["chat llama3.2:latest", "cacheproxy.parse", "cacheproxy.memory"]
    assert "cacheproxy.upstream_first_byte" in names
    assert b"secret question" not in body
