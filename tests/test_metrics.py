"""What is counted adds up, in both faces, and stays bounded."""

import itertools
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from cacheproxy import __version__
from cacheproxy.counting.counts import SERIES_MAX
from cacheproxy.counting.families import FAMILIES, PREFIX
from cacheproxy.counting.faults import FAULTS, Fault
from cacheproxy.counting.labels import STEPS, TIERS
from cacheproxy.counting.manual import describe
from cacheproxy.edge.tally import SAVED_S_MAX, SAVED_TOKENS_MAX
from cacheproxy.metrics import Metrics
from cacheproxy.model import Decision, Outcome

DOCS = Path(__file__).parents[1] / "docs" / "reference" / "metrics.md"


class FakeClock:
    """Time that moves only when told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> float:
        """Unix time in seconds."""
        return 1_700_000_000.0 + self.seconds

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment."""
        return self.seconds


@pytest.fixture
def clock():
    """A clock the test moves."""
    return FakeClock()


@pytest.fixture
def metrics(clock):
    """Metrics that know two models."""
    made = Metrics(clock)
    made.set_known_models(["llama3.2:latest", "qwen3:8b"])
    return made


def samples(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample of the exposition by name and label values (in the order of the family's table row)."""
    order = {PREFIX + family.name: family.labels for family in FAMILIES}
    found = {}
    for family in text_string_to_metric_families(metrics.text()[0].decode()):
        for sample in family.samples:
            base = sample.name.removesuffix("_count").removesuffix("_sum").removesuffix("_bucket")
            names = (*order.get(base, ()), *(("le",) if sample.name.endswith("_bucket") else ()))
            found[sample.name, tuple(sample.labels[name] for name in names)] = sample.value
    return found


def ask(metrics, outcome=Outcome.EXACT, *, dialect="chat", model="qwen3:8b", tier="memory", seconds=0.001):
    """Count one ask, an exact hit unless told otherwise."""
    metrics.decided(Decision(outcome, dialect, 1.0, seconds, tier=tier, model=model))


calls = st.one_of(
    st.tuples(
        st.just("ask"),
        st.sampled_from(Outcome),
        st.sampled_from(["chat", "generate"]),
        st.sampled_from(["llama3.2", "qwen3:8b", "unknown", "\udce9", ""]),
        st.sampled_from([*TIERS, "elsewhere"]),
        st.floats(),
        st.text(max_size=5),
        st.floats(0, SAVED_S_MAX),
        st.integers(0, SAVED_TOKENS_MAX),
        st.integers(1, 1000),
    ),
    st.tuples(st.just("step"), st.sampled_from(list(STEPS)), st.floats()),
    st.tuples(st.just("fault"), st.sampled_from(Fault)),
    st.tuples(st.just("kept"), st.integers(0, 2**40)),
    st.tuples(st.just("not_kept"), st.text(max_size=5)),
    st.tuples(st.just("passed_through"), st.sampled_from(["tags", "other"]), st.integers()),
    st.tuples(st.just("wait"), st.floats(0, 2000)),
)


@given(st.lists(calls, max_size=60))
def test_whatever_happens_asks_are_the_sum_of_outcomes_in_both_faces(sequence):
    """Both faces say the same number of asks, and that number is the sum over outcomes, models, tiers and dialects."""
    clock = FakeClock()
    metrics = Metrics(clock)
    metrics.set_known_models(["llama3.2:latest", "qwen3:8b"])
    for name, *arguments in sequence:
        if name == "wait":
            clock.seconds += arguments[0]
        elif name == "ask":
            outcome, dialect, model, tier, seconds, reason, saved_s, tokens, count = arguments
            decision = Decision(
                outcome,
                dialect,
                1.0,
                seconds,
                first_byte_s=seconds if tier == "redis" else None,
                tier=tier,
                model=model,
                reason=reason,
                saved_s=saved_s,
                saved_tokens=tokens,
            )
            metrics.decided(decision, count)
        else:
            getattr(metrics, name)(*arguments)

    asks = sum(arguments[-1] for name, *arguments in sequence if name == "ask")
    stats = json.loads(json.dumps(metrics.snapshot(), allow_nan=False))
    exposed = samples(metrics)

    assert asks == stats["asks"] == sum(stats["outcomes"].values()) == sum(stats["tiers"].values())
    assert asks == sum(model["asks"] for model in stats["models"].values())
    assert asks == sum(dialect["asks"] for dialect in stats["dialects"].values())
    assert asks == sum(value for (name, _), value in exposed.items() if name == PREFIX + "asks_total")
    assert asks == sum(value for (name, _), value in exposed.items() if name == PREFIX + "ask_duration_seconds_count")
    began = {labels: value for (name, labels), value in exposed.items() if name == PREFIX + "first_byte_seconds_count"}
    assert {tier for _, tier in began} <= {"redis"}
    assert sum(began.values()) == stats["tiers"].get("redis", 0)
    for outcome in Outcome:
        counted = sum(rest[-1] for name, *rest in sequence if name == "ask" and rest[0] is outcome)
        exposed_asks = {labels: n for (name, labels), n in exposed.items() if name == PREFIX + "asks_total"}
        assert counted == stats["outcomes"][outcome]
        assert counted == sum(value for labels, value in exposed_asks.items() if labels[0] == outcome)
    assert all(math.isfinite(value) and value >= 0 for value in exposed.values())


def test_hit_rate_leaves_bypasses_out(metrics):
    """Hits over hits and misses; a bypass changes nothing, and without either there is no rate."""
    assert metrics.snapshot()["hit_rate"] is None
    ask(metrics, Outcome.BYPASS)
    assert metrics.snapshot()["hit_rate"] is None

    for outcome in (Outcome.EXACT, Outcome.SEMANTIC, Outcome.JOINED, Outcome.STALE, Outcome.MISS):
        ask(metrics, outcome)

    assert metrics.snapshot()["hit_rate"] == 4 / 5
    assert metrics.snapshot()["models"]["qwen3:8b"]["hit_rate"] == 4 / 5


def test_a_model_that_ollama_does_not_list_counts_as_other(metrics):
    """Names a client makes up never become labels; a listed name is known with and without `:latest`."""
    for model in ("llama3.2", "llama3.2:latest", "made-up", "qwen3"):
        ask(metrics, model=model)

    models = {name: found["asks"] for name, found in metrics.snapshot()["models"].items()}
    assert models == {"llama3.2:latest": 2, "other": 2}
    assert metrics.known_models == {"llama3.2:latest", "qwen3:8b"}


@pytest.mark.fault(122)
def test_ten_thousand_model_names_do_not_make_ten_thousand_series(metrics):
    """Even names that Ollama lists stop becoming series at the bound, and no ask is lost by it."""
    metrics.set_known_models([f"model-{number}" for number in range(10_000)])
    for number in range(10_000):
        ask(metrics, model=f"model-{number}")
        metrics.not_kept(f"reason-{number}")

    series = [labels for name, labels in samples(metrics) if name == PREFIX + "asks_total"]
    stats = metrics.snapshot()
    assert SERIES_MAX <= len(series) <= SERIES_MAX + len(Outcome)
    assert stats["asks"] == stats["outcomes"]["exact"] == sum(stats["not_kept"].values()) == 10_000
    assert stats["models"]["other"]["asks"] == 10_000 - SERIES_MAX


@pytest.mark.fault(78)
def test_a_lone_surrogate_in_a_name_is_escaped_in_the_exposition(metrics):
    """One odd byte in a model's name must not end every later scrape."""
    metrics.set_known_models(["caf\udce9"])
    ask(metrics, model="caf\udce9")

    assert (PREFIX + "asks_total", ("exact", "chat", r"caf\udce9", "memory")) in samples(metrics)


def test_windows_forget_what_is_older_than_they_are(metrics, clock):
    """An ask is in the windows that still reach it and in no other; totals keep it."""
    ask(metrics)
    clock.seconds += 120
    ask(metrics, Outcome.MISS)

    windows = metrics.snapshot()["windows"]
    assert {name: window["asks"] for name, window in windows.items()} == {"1m": 1, "5m": 2, "15m": 2}
    assert windows["1m"]["hit_rate"] == 0
    assert windows["5m"]["hit_rate"] == 0.5

    clock.seconds += 1000
    stats = metrics.snapshot()
    assert [window["asks"] for window in stats["windows"].values()] == [0, 0, 0]
    assert stats["asks"] == 2


def test_rates_are_over_the_time_really_covered(metrics, clock):
    """A process 10 s old that had 20 asks says 2 a second, not 20 in 15 minutes."""
    for _ in range(20):
        ask(metrics)
        clock.seconds += 0.5

    rates = {name: window["asks_per_s"] for name, window in metrics.snapshot()["windows"].items()}
    assert rates == {"1m": 2.0, "5m": 2.0, "15m": 2.0}


def test_a_steady_rate_reads_the_same_at_any_moment_of_a_row(metrics, clock):
    """After an hour at 4 asks a second each window says about 4, whatever part of a row has passed."""
    for _ in range(3600 * 4):
        ask(metrics)
        clock.seconds += 0.25
        if clock.seconds > 4500 and clock.seconds < 4520:
            rates = [window["asks_per_s"] for window in metrics.snapshot()["windows"].values()]
            assert rates == pytest.approx([4.0, 4.0, 4.0], rel=0.02)


def test_latency_is_told_per_outcome_and_tier_and_per_step(metrics):
    """`/stats` has percentiles for each outcome by tier and each step that ran."""
    ask(metrics, seconds=0.25)
    metrics.step("memory", 0.001)

    latency = metrics.snapshot()["latency"]
    assert latency["outcomes"]["exact"]["memory"]["p99_s"] == pytest.approx(0.25, rel=0.02)
    assert list(latency["steps"]) == ["memory"]
    assert latency["steps"]["memory"]["count"] == 1


def test_an_unknown_step_fault_or_gauge_is_refused(metrics):
    """Closed lists stay closed: a slip of the pen is found by the first test that passes by."""
    with pytest.raises(KeyError):
        metrics.step("coffee", 1.0)
    with pytest.raises(ValueError, match="coffee"):
        metrics.fault("coffee")
    for name in ("coffee", "asks_total", "build_info"):
        with pytest.raises(KeyError, match=name):
            metrics.watch(name, lambda: 1)


def test_faults_start_at_zero_so_that_the_first_is_an_increase(metrics):
    """Every kind is exposed before it happens; a counter born at 1 shows no increase to Prometheus."""
    before = {labels[0]: value for (name, labels), value in samples(metrics).items() if name == PREFIX + "faults_total"}
    metrics.fault(Fault.CHECK_MISMATCH)

    assert before == dict.fromkeys(map(str, Fault), 0)
    assert samples(metrics)[PREFIX + "faults_total", ("check_mismatch",)] == 1
    assert metrics.snapshot()["faults"]["check_mismatch"] == 1


def test_a_refused_configuration_shows_until_one_is_taken_over(clock, metrics):
    """The start is one that went well; the time is that of the settings in use."""
    started = clock.now()
    told = [reload_told(metrics)]
    for ok in (False, True):
        clock.seconds += 60
        metrics.config_read(ok=ok)
        told.append(reload_told(metrics))

    assert told == [(1, started), (0, started), (1, started + 120)]


def reload_told(metrics):
    """Success and time of the last reload, as exposed."""
    found, name = samples(metrics), PREFIX + "config_last_reload_"
    return found[name + "successful", ()], found[name + "success_timestamp_seconds", ()]


def test_kept_bypass_and_passed_through_are_told_by_reason(metrics):
    """Each plain counter shows in both faces under its own words."""
    metrics.kept(100)
    metrics.kept(50)
    metrics.not_kept("truncated")
    metrics.decided(Decision(Outcome.BYPASS, "chat", 1.0, 0.001, reason="images"))
    metrics.passed_through("tags", 200)
    metrics.passed_through("tags", 700)

    stats, exposed = metrics.snapshot(), samples(metrics)
    assert stats["kept"] == {"entries": 2, "bytes": 150}
    assert stats["not_kept"] == {"truncated": 1}
    assert stats["bypass"] == {"images": 1}
    assert stats["passed_through"] == {"paths": {"tags": 2}, "statuses": {"200": 1, "other": 1}}
    assert exposed[PREFIX + "kept_bytes_total", ()] == 150
    assert exposed[PREFIX + "bypass_total", ("images",)] == 1
    assert exposed[PREFIX + "passed_through_total", ("tags", "200")] == 1


def test_a_gauge_is_read_when_somebody_looks(metrics):
    """A watched gauge shows its value of that moment in both faces; an unwatched one is absent."""
    level = itertools.count(7)
    metrics.watch("asks_in_flight", lambda: next(level))

    assert metrics.snapshot()["gauges"]["asks_in_flight"] == 7
    exposed = samples(metrics)
    assert exposed[PREFIX + "asks_in_flight", ()] == 8
    assert (PREFIX + "redis_up", ()) not in exposed


def test_a_gauge_by_model_names_listed_models_only(metrics):
    """The others are one sum, so that names cannot make series."""
    metrics.set_known_models(["llama3:latest"])
    metrics.watch_models("loaded_bytes", lambda: {"llama3:latest": 5, "ghost:1b": 2, "ghost:2b": 3})
    lines = metrics.text()[0].decode().splitlines()

    assert [line for line in lines if line.startswith("cacheproxy_loaded_bytes{")] == [
        'cacheproxy_loaded_bytes{model="llama3:latest"} 5.0',
        'cacheproxy_loaded_bytes{model="other"} 5.0',
    ]
    with pytest.raises(KeyError):
        metrics.watch_labelled("asks_in_flight", dict)


def test_the_process_says_what_runs_and_since_when(metrics, clock):
    """Version, Python, start time and uptime are there for the first question of every incident."""
    clock.seconds += 60
    exposed = samples(metrics)

    assert [labels[0] for name, labels in exposed if name == PREFIX + "build_info"] == [__version__]
    assert exposed[PREFIX + "start_time_seconds", ()] == 1_700_001_000.0
    assert any(name == "process_resident_memory_bytes" for name, _ in exposed)
    assert metrics.snapshot()["uptime_s"] == 60


def test_two_proxies_in_one_process_do_not_meet(clock):
    """There is no global registry."""
    first, second = Metrics(clock), Metrics(clock)
    ask(first)

    assert (first.snapshot()["asks"], second.snapshot()["asks"]) == (1, 0)


def test_every_family_says_when_to_worry_and_every_fault_what_happened():
    """No figure without its sentence, no kind or step without its meaning, no name twice."""
    assert all(family.meaning.endswith(".") and family.worry.startswith("Worry ") for family in FAMILIES)
    assert set(FAULTS) == set(Fault)
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


def test_the_reference_page_is_the_table_of_metrics():
    """docs/reference/metrics.md is what `describe` says; on a difference this test names the remedy."""
    assert describe() == DOCS.read_text(encoding="utf-8"), "write describe() to docs/reference/metrics.md"
