"""What the program counts, each figure declared once with its unit and a sentence that says when to worry.

One set of counts feeds both faces: `text` (Prometheus) and `snapshot` (the operator's `/stats`), so they cannot
disagree. Counting is plain dictionary arithmetic; Prometheus shapes are made only when somebody looks.
Called from the event loop's thread only. This module refuses to see prompt text, and bounds every set of labels.
"""

from __future__ import annotations

import math
import platform
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, TypeAlias

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from cacheproxy import __version__
from cacheproxy.buckets import Buckets
from cacheproxy.budgets import NONE, Budgets
from cacheproxy.clock import Clock
from cacheproxy.lately import Lately
from cacheproxy.model import Decision, Neighbour, Outcome

PREFIX = "cacheproxy_"
OTHER = "other"
"""Label that stands for every name outside a closed or known list."""
SERIES_MAX = 4096
"""Series of one family; past it, new combinations count under `other` (50 models need about 1,000)."""

SAVED_S_MAX, SAVED_TOKENS_MAX = 86_400, 10_000_000
"""No answer takes longer or is longer; a figure beyond is not counted."""

HITS = (Outcome.EXACT, Outcome.SEMANTIC, Outcome.JOINED, Outcome.STALE)
"""Asks that cost Ollama nothing. Hit rate = these / (these + misses); a bypass is in neither."""
TIERS = ("memory", "redis", "none")
SIMILARITY_BOUNDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, *(at / 100 for at in range(80, 101)))
AGE_BOUNDS_S = (1, 10, 60, 300, 900, 3600, 10_800, 21_600, 43_200, 86_400, 259_200, 604_800, 1_209_600, 2_592_000)
WRONG, BY_MEANING = "wrong", "by_meaning"
PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
WINDOWS_S = {"1m": 60, "5m": 300, "15m": 900}

STEPS: Mapping[str, str] = {
    "parse": "bytes of the request to an ask",
    "memory": "look-up in the process's own tier",
    "exact": "look-up in Redis by key",
    "embed": "question to vector",
    "semantic": "look-up in Redis by nearness, guards included",
    "queue": "waiting for a free place at Ollama",
    "upstream_first_byte": "request sent to Ollama until its first byte",
    "upstream_total": "request sent to Ollama until its last byte",
    "reply": "answer to bytes taken by the client's connection; of a short whole reply, until it is put together",
    "store": "complete answer to entry written",
}


class Group(StrEnum):
    """What became of the neighbour of an ask. Closed."""

    SERVED = "served"
    """In shadow mode: would have been."""
    BELOW = "below"
    GUARDED = "guarded"
    """Refused for another reason than its similarity: a guard, or what people said of the pair."""

    @classmethod
    def of(cls, neighbour: Neighbour) -> Group:
        """What became of it."""
        if neighbour.served:
            return cls.SERVED
        return cls.BELOW if neighbour.verdict == "below_threshold" else cls.GUARDED


class Fault(StrEnum):
    """What went wrong without the caller having caused it. Closed."""

    REDIS_UNAVAILABLE = "redis_unavailable"
    BREAKER_OPENED = "breaker_opened"
    ENTRY_CORRUPT = "entry_corrupt"
    CHECK_MISMATCH = "check_mismatch"
    STORE_FAILED = "store_failed"
    STORE_DROPPED = "store_dropped"
    EMBEDDER = "embedder"
    GUARD = "guard"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_BROKEN = "upstream_broken"
    UPSTREAM_ERROR = "upstream_error"
    QUEUE_FULL = "queue_full"
    LEDGER = "ledger"
    LEDGER_DROPPED = "ledger_dropped"
    TRACES = "traces"
    DIGEST_CHANGED = "digest_changed"
    TAGS_UNAVAILABLE = "tags_unavailable"
    INTERNAL = "internal"


FAULTS: Mapping[Fault, str] = {
    Fault.REDIS_UNAVAILABLE: "no answer from Redis in time; the ask went on without it",
    Fault.BREAKER_OPENED: "Redis failed often enough that it is left alone for a while",
    Fault.ENTRY_CORRUPT: "bytes under one of our keys could not be read; one is a curiosity, many a foreign writer",
    Fault.CHECK_MISMATCH: "an entry was found under a key it does not answer; any at all is a reason to look",
    Fault.STORE_FAILED: "a complete answer could not be written",
    Fault.STORE_DROPPED: "too many answers were waiting to be written, so this one was not",
    Fault.EMBEDDER: "no vector for a question; only exact answers while it lasts",
    Fault.GUARD: "a guard raised; its match was not served",
    Fault.UPSTREAM_UNREACHABLE: "no connection to Ollama, or none that gave a byte",
    Fault.UPSTREAM_BROKEN: "an answer of Ollama's began and did not end properly; it was not kept",
    Fault.UPSTREAM_ERROR: "Ollama answered with a status of 500 or more",
    Fault.QUEUE_FULL: "more misses were waiting than `upstream.queue` allows; callers saw 503",
    Fault.LEDGER: "counts could not be written to Redis this second; they are kept here and written later",
    Fault.LEDGER_DROPPED: "Redis was away for so long that the oldest counts that waited for it were given up",
    Fault.TRACES: "traces could not be delivered to `tracing.endpoint`, or were too many; they are given up",
    Fault.DIGEST_CHANGED: "a model was replaced while it was answering; the answer was not kept",
    Fault.TAGS_UNAVAILABLE: "Ollama's list of models could not be read",
    Fault.INTERNAL: "a mistake in this program; any at all should be reported",
}

Labels: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. `name` lacks the prefix; `worry` is the sentence that says when an operator should act."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: Labels
    meaning: str
    worry: str


FAMILIES = (
    Family(
        "asks_total",
        "counter",
        ("outcome", "dialect", "model", "tier"),
        "Asks for an answer, by how they were answered.",
        "Worry when the share of misses rises and your users' habits have not changed.",
    ),
    Family(
        "bypass_total",
        "counter",
        ("reason",),
        "Asks that went around the cache, by reason.",
        "Worry when one reason dominates: those callers get nothing from the cache.",
    ),
    Family(
        "ask_duration_seconds",
        "histogram",
        ("outcome", "tier"),
        "Time from a parsed ask to the end of its reply.",
        "Worry when exact answers take more than 50 ms: Redis or this process is short of something.",
    ),
    Family(
        "step_duration_seconds",
        "histogram",
        ("step",),
        "Time spent in one step of an ask.",
        "Worry when `exact` nears `redis.timeout`, or `queue` outgrows `upstream_total`.",
    ),
    Family(
        "budget_breaches_total",
        "counter",
        ("step",),
        "Times a step of an ask took longer than its limit in `[budgets]`.",
        "Worry when it is more than 1 in 100 of `step_duration_seconds_count`: that step is short of something.",
    ),
    Family(
        "budget_seconds",
        "gauge",
        ("step",),
        "The limit of a step in `[budgets]`; absent for a step without.",
        "Worry never; it is there so that a picture can show the line.",
    ),
    Family(
        "similarity",
        "histogram",
        ("decision",),
        "Similarity (cosine) of the neighbour that was weighed, one an ask: `served` (in shadow mode it would have "
        "been), `below` the threshold, or `guarded` (a guard or feedback said no).",
        "Worry when `served` piles up just above the threshold, where a small change decides much: see the pairs.",
    ),
    Family(
        "wrong_hit_ratio",
        "gauge",
        (),
        "Estimate from below: answers reported as wrong by `/feedback`, in proportion to those given by meaning "
        "(semantic hits, and asks that joined one in other words) in the last day by this proxy. Absent without any.",
        "Worry above 0.01. 0 says only that nobody reported one; where nobody gives feedback it says nothing.",
    ),
    Family(
        "entry_age_seconds",
        "histogram",
        ("outcome",),
        "Age of the entry that answered.",
        "Worry when most answers are nearly as old as `cache.ttl` and your subject changes: shorten it.",
    ),
    Family(
        "near_total",
        "counter",
        ("verdict",),
        "Asks without an exact answer that had a neighbour, by what was decided on it: `serve` or why not.",
        "Worry when one guard takes most of what would be served; look at its pairs in shadow mode.",
    ),
    Family(
        "near_joined_total",
        "counter",
        (),
        "Asks that got the answer to a question in other words while it was being given (`semantic.join`).",
        "Worry when bad feedback comes with it: raise the threshold, or switch joining off.",
    ),
    Family(
        "feedback_total",
        "counter",
        ("verdict",),
        "What callers said of hits, `good` or `bad`.",
        "Worry about every bad one: raise the threshold for that model.",
    ),
    Family(
        "faults_total",
        "counter",
        ("kind",),
        "Things that went wrong and were survived, by kind.",
        "Worry when one kind keeps rising; `check_mismatch` and `internal` deserve a look at the first.",
    ),
    Family(
        "kept_total", "counter", (), "Answers written to the cache.", "Worry when it stands still while misses rise."
    ),
    Family(
        "kept_bytes_total",
        "counter",
        (),
        "Bytes of the entries written.",
        "Worry when one TTL's worth of it exceeds `redis.memory`: entries leave before they expire.",
    ),
    Family(
        "not_kept_total",
        "counter",
        ("reason",),
        "Answers that were not kept, by reason.",
        "Worry when it is most of the misses; the reason says which setting or model is behind it.",
    ),
    Family(
        "saved_seconds_total",
        "counter",
        (),
        "Estimate: seconds Ollama took for the answers now given from the cache.",
        "Worry never; it is what the cache is for.",
    ),
    Family(
        "saved_tokens_total",
        "counter",
        (),
        "Tokens of the answers given from the cache.",
        "Worry never; it is what the cache is for.",
    ),
    Family(
        "passed_through_total",
        "counter",
        ("path_class", "status"),
        "Requests that are not asks, relayed as they are.",
        "Worry when 502 or 504 appear: Ollama was away.",
    ),
    Family(
        "upstream_asks_total",
        "counter",
        ("upstream",),
        "Requests for a model that were sent to an Ollama (host and port), by which one.",
        "Worry when one gets nothing for an hour: it is down, or its models are not the same as the others'.",
    ),
    Family(
        "upstream_failovers_total",
        "counter",
        ("upstream",),
        "Requests that an Ollama did not take, and that went on to another before the first byte of a reply.",
        "Worry when it keeps rising for one of them: it comes and goes.",
    ),
    Family(
        "model_changes_total",
        "counter",
        (),
        "Misses for a model that was not among the last ones in use, so that Ollama had to load it.",
        "Worry when it rises with every few misses: models push each other out; see `upstream.models_at_once`.",
    ),
    Family(
        "embeds_merged_total",
        "counter",
        (),
        "Asks for vectors that went to Ollama in one call with others (`batching.merge_embeds`).",
        "Worry never; when it stands still, nobody had to wait.",
    ),
    Family(
        "context_trimmed_total",
        "counter",
        (),
        "Chats that were too long for the model's context and lost their oldest turns.",
        "Worry when it is most of the chats: a larger `num_ctx`, or apps that summarise, would serve them better.",
    ),
    Family(
        "context_dropped_total",
        "counter",
        (),
        "Messages that those chats lost.",
        "Worry with the above.",
    ),
    Family(
        "loads_total",
        "counter",
        ("reason", "result"),
        "Models loaded before they were asked for, by reason (`configured`, `predicted`) and what came of it.",
        "Worry when most are `called-off`: somebody always asks for another model first.",
    ),
    Family(
        "loaded_bytes",
        "gauge",
        ("model",),
        "Memory that a loaded model takes, as Ollama says.",
        "Worry when the sum nears what the machine has: the next load pushes one out.",
    ),
    Family(
        "loaded_vram_bytes",
        "gauge",
        ("model",),
        "The part of it on graphics cards.",
        "Worry when it is less than `loaded_bytes`: the rest runs on the processor, many times slower.",
    ),
    Family(
        "asks_in_flight",
        "gauge",
        (),
        "Asks being answered now.",
        "Worry when it grows and never falls: Ollama is too slow for the load.",
    ),
    Family(
        "upstream_up",
        "gauge",
        ("upstream",),
        "1 while asks are sent to an Ollama, 0 while it is taken for away.",
        "Worry when 0 for a minute; with `upstream.others` the rest carry its load.",
    ),
    Family(
        "models_at_once",
        "gauge",
        ("upstream",),
        "Models that may run at an Ollama at the same time: `upstream.models_at_once`, or what is seen to fit.",
        "Worry when 1 although all your models fit into memory together: then they take turns that need not.",
    ),
    Family(
        "upstream_in_flight",
        "gauge",
        (),
        "Requests that hold a place at Ollama now.",
        "Worry when it stays at `upstream.parallel`: callers are queueing.",
    ),
    Family(
        "queue_length",
        "gauge",
        (),
        "Misses that wait for a place at Ollama now.",
        "Worry when it nears `upstream.queue`: beyond it callers see 503.",
    ),
    Family(
        "memory_bytes",
        "gauge",
        (),
        "Bytes held by the process's own tier.",
        "Worry when it is above `cache.memory`.",
    ),
    Family(
        "memory_entries",
        "gauge",
        (),
        "Entries in the process's own tier.",
        "Worry when it is few while `memory_bytes` is full: single answers are very large.",
    ),
    Family(
        "workers",
        "gauge",
        (),
        "Processes that answer on the port, this one included.",
        "Worry when it is less than `workers_configured` for more than a few seconds.",
    ),
    Family("workers_configured", "gauge", (), "How many there should be: `server.workers`.", "Worry never."),
    Family(
        "ledger_waiting",
        "gauge",
        (),
        "Counts that wait to be written to the ledger in Redis.",
        "Worry when it keeps growing while `redis_up` is 1: Redis refuses the ledger's script; the log says why.",
    ),
    Family(
        "dependency_up",
        "gauge",
        ("name",),
        "1 while a part works as it should: `redis`, `ollama`, `embedder` (absent where it is not wanted).",
        "Worry when 0 for a minute; `/readyz` says why.",
    ),
    Family("redis_up", "gauge", (), "1 while Redis answers.", "Worry when 0 for a minute: every miss goes to Ollama."),
    Family(
        "breaker_open",
        "gauge",
        (),
        "1 while Redis is left alone after failures.",
        "Worry when it flaps: Redis is overloaded rather than gone.",
    ),
    Family("start_time_seconds", "gauge", (), "Unix time of this start.", "Worry when it changes by itself."),
    Family(
        "config_last_reload_successful",
        "gauge",
        (),
        "1 if the configuration was fine when it was last read, at the start or by SIGHUP; 0 if it was refused.",
        "Worry when 0: the settings from before are in use; the log says what is wrong with the new ones.",
    ),
    Family(
        "config_last_reload_success_timestamp_seconds",
        "gauge",
        (),
        "Unix time at which a configuration was last taken over, at the start or by SIGHUP.",
        "Worry when it is older than your last change of the file.",
    ),
    Family(
        "build_info",
        "gauge",
        ("version", "python"),
        "Always 1; the labels say what is running.",
        "Worry when proxies that share a Redis differ for longer than a roll-out takes.",
    ),
)


class Histogram:
    """Durations in log-linear bins: fixed memory (8 kB), any percentile within 1.6 % from 1 µs to 2.3 h.

    Each doubling of a millisecond is cut into 32 equal bins, so a bin is at most 1/32 of its lower bound wide and its
    middle is at most 1/64 off. A bin holds (lower, upper], as Prometheus's `le` demands; bounds that are powers of two
    of a millisecond are bounds of bins, so the exported buckets are exact sums.
    """

    BINS_PER_DOUBLING = 32
    LOWEST_EXPONENT = -10
    HIGHEST_EXPONENT = 23
    LONGEST_S = 2.0**HIGHEST_EXPONENT / 1000
    SHORTEST_S = 2.0**LOWEST_EXPONENT / 1000
    BOUNDS_MS = tuple(2.0**exponent for exponent in range(-3, 20))
    """Upper bounds of the exported buckets: 0.125 ms to 524 s, each twice the last."""

    __slots__ = ("bins", "count", "longest_s", "total_s")

    def __init__(self) -> None:
        doublings = self.HIGHEST_EXPONENT - self.LOWEST_EXPONENT
        self.bins = [0] * (doublings * self.BINS_PER_DOUBLING + 1)
        self.count = 0
        self.total_s = 0.0
        self.longest_s = 0.0

    def record(self, seconds: float, count: int = 1) -> None:
        """Count a duration so many times.

        What is negative or not a number counts as 0, what is too long as the longest.
        """
        if not 0.0 <= seconds <= self.LONGEST_S:
            seconds = self.LONGEST_S if seconds > 0 else 0.0
        self.bins[self._bin(seconds)] += count
        self.count += count
        self.total_s += seconds * count
        self.longest_s = max(self.longest_s, seconds)

    def percentile(self, share: float) -> float | None:
        """Duration in seconds that `share` (0..1) of those recorded did not exceed; None when there are none."""
        if not self.count:
            return None
        rank = max(1, math.ceil(share * self.count))
        seen = 0
        for index, number in enumerate(self.bins):
            seen += number
            if seen >= rank:
                return min(self._middle_s(index), self.longest_s)
        raise AssertionError("the bins always add up to the count")

    def buckets(self) -> list[tuple[str, float]]:
        """Upper bound in seconds and cumulative count, as Prometheus wants them."""
        found: list[tuple[str, float]] = []
        seen, start = 0, 0
        for bound_ms in self.BOUNDS_MS:
            end = self._bin(bound_ms / 1000) + 1
            seen += sum(self.bins[start:end])
            start = end
            found.append((repr(bound_ms / 1000), seen))
        found.append(("+Inf", self.count))
        return found

    def summary(self) -> dict[str, float | None]:
        """Count, mean, percentiles and longest, all in seconds, since the start of the process."""
        figures: dict[str, float | None] = {
            "count": self.count,
            "mean_s": self.total_s / self.count if self.count else None,
        }
        for name, share in PERCENTILES.items():
            figures[f"{name}_s"] = self.percentile(share)
        figures["longest_s"] = self.longest_s
        return figures

    def _bin(self, seconds: float) -> int:
        if seconds <= self.SHORTEST_S:
            return 0
        mantissa, exponent = math.frexp(seconds * 1000.0)
        within = math.ceil((mantissa - 0.5) * (2 * self.BINS_PER_DOUBLING))
        return (exponent - 1 - self.LOWEST_EXPONENT) * self.BINS_PER_DOUBLING + within

    def _middle_s(self, index: int) -> float:
        if index == 0:
            return self.SHORTEST_S
        doubling, within = divmod(index - 1, self.BINS_PER_DOUBLING)
        lower_ms = 2.0 ** (doubling + self.LOWEST_EXPONENT)
        return lower_ms * (1 + (within + 0.5) / self.BINS_PER_DOUBLING) / 1000


class Window:
    """Outcomes of the last quarter of an hour in rows of five seconds; a row without asks is never made."""

    ROW_S = 5

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._start_s = clock.monotonic()
        self._rows: deque[tuple[int, dict[str, int]]] = deque(maxlen=max(WINDOWS_S.values()) // self.ROW_S)
        self._slot = -1
        self._row: dict[str, int] = {}

    def count(self, outcome: Outcome, count: int = 1) -> None:
        """So many asks ended so, now."""
        slot = int(self._clock.monotonic() / self.ROW_S)
        if slot != self._slot:
            self._slot = slot
            self._row = dict.fromkeys(Outcome, 0)
            self._rows.append((slot, self._row))
        self._row[outcome] += count

    def summary(self, length_s: int) -> dict[str, Any]:
        """Asks of the last `length_s` (to within one row) and their rate over the time really covered."""
        now_s = self._clock.monotonic()
        first_slot = int(now_s / self.ROW_S) - length_s // self.ROW_S + 1
        covered_s = now_s - max(first_slot * self.ROW_S, self._start_s)
        outcomes: dict[str, float] = {}
        for slot, row in self._rows:
            if slot >= first_slot:
                for outcome, number in row.items():
                    outcomes[outcome] = outcomes.get(outcome, 0) + number
        totals = _totals(outcomes)
        # At least a second, so that the first ask of all does not read as thousands a second.
        return {"asks_per_s": totals["asks"] / max(covered_s, 1.0), **totals}


class Metrics:
    """All counts of one proxy. Nothing here is global, so two proxies in one test do not meet."""

    def __init__(self, clock: Clock, budgets: Budgets = NONE) -> None:
        self._clock = clock
        self._budgets = budgets
        self.on_breach: list[Callable[[str, float], None]] = []
        """Told of each step that took longer than its budget, with the seconds it took."""
        self._start_s = clock.monotonic()
        self._start_time_s = clock.now()
        self._counts: dict[str, dict[Labels, float]] = {f.name: {} for f in FAMILIES if f.kind == "counter"}
        self._durations: dict[str, dict[Labels, Histogram]] = {f.name: {} for f in FAMILIES if f.kind == "histogram"}
        self._config_ok, self._config_time_s = True, self._start_time_s
        self._gauges: dict[str, Callable[[], float]] = {
            "start_time_seconds": lambda: self._start_time_s,
            "config_last_reload_successful": lambda: float(self._config_ok),
            "config_last_reload_success_timestamp_seconds": lambda: self._config_time_s,
        }
        self._labelled_gauges: dict[str, Callable[[], Mapping[str, float]]] = {
            "budget_seconds": lambda: self._budgets.limits_s
        }
        self._similarities = {group.value: Buckets(SIMILARITY_BOUNDS) for group in Group}
        self._ages: dict[str, Buckets] = {}
        self._buckets: dict[str, dict[str, Buckets]] = {
            "similarity": self._similarities,
            "entry_age_seconds": self._ages,
        }
        self._window = Window(clock)
        self._lately = Lately(clock)
        self._model_labels: dict[str, str] = {}
        self.known_models: frozenset[str] = frozenset()
        self._registry = CollectorRegistry()
        self._registry.register(_Face(self._families))
        ProcessCollector(registry=self._registry)
        # What the hot path touches, found once.
        self._asks = self._counts["asks_total"]
        self._ask_durations = self._durations["ask_duration_seconds"]
        self._step_durations = {step: Histogram() for step in STEPS}
        self._durations["step_duration_seconds"].update({(step,): h for step, h in self._step_durations.items()})
        # A counter that exists from the start shows its first increase; one born at 1 does not.
        self._counts["faults_total"].update({(kind,): 0 for kind in Fault})
        self.use(budgets)
        for name in (
            "near_joined_total",
            "model_changes_total",
            "embeds_merged_total",
            "kept_total",
            "kept_bytes_total",
            "saved_seconds_total",
            "saved_tokens_total",
            "context_trimmed_total",
            "context_dropped_total",
        ):
            self._counts[name][()] = 0

    def use(self, budgets: Budgets) -> None:
        """Hold the steps of asks against these limits from now on."""
        self._budgets = budgets
        for step in budgets.limits_s:
            self._counts["budget_breaches_total"].setdefault((step,), 0)

    def config_read(self, *, ok: bool) -> None:
        """Remember that a configuration was taken over now, or refused for a mistake in it."""
        self._config_ok = ok
        if ok:
            self._config_time_s = self._clock.now()

    def set_known_models(self, names: Iterable[str]) -> None:
        """Names that may be a label (those of `/api/tags`); asks of any other model count under `other`.

        A name that ends in `:latest` is also known without it, under its full name.
        """
        self.known_models = frozenset(names)
        self._model_labels = {name.removesuffix(":latest"): _plain(name) for name in self.known_models}
        self._model_labels.update({name: _plain(name) for name in self.known_models})

    def decided(self, decision: Decision, count: int = 1) -> None:
        """Count an ask that has ended, exactly once; `count` of them where so many ended alike."""
        outcome = decision.outcome
        tier = decision.tier if decision.tier in TIERS else OTHER
        labels = (outcome, decision.dialect, self._model_labels.get(decision.model, OTHER), tier)
        if labels in self._asks:
            self._asks[labels] += count
        else:
            _add_series(self._asks, labels, count, past_bound=(outcome, OTHER, OTHER, OTHER))
        durations = self._ask_durations.get((outcome, tier))
        if durations is None:
            durations = self._ask_durations[outcome.value, tier] = Histogram()
        durations.record(decision.seconds, count)
        self._window.count(outcome, count)
        if decision.reason:
            self._add("bypass_total", (decision.reason,), count)
        self._saved(decision, count)
        self._found(decision, count)

    def _found(self, decision: Decision, count: int) -> None:
        """Count what the ask was answered from, and what was compared for it."""
        if decision.age_s is not None:
            ages = self._ages.get(decision.outcome)
            if ages is None:
                ages = self._ages[decision.outcome.value] = Buckets(AGE_BOUNDS_S)
            ages.record(max(0.0, decision.age_s), count)
        if decision.neighbour is not None:
            self._similarities[Group.of(decision.neighbour)].record(decision.neighbour.similarity, count)
        if decision.by_meaning:
            self._lately.add(BY_MEANING, count)

    def step(self, step: str, seconds: float) -> None:
        """Count the time one step of an ask took. Raises KeyError for a step that is not in `STEPS`."""
        self._step_durations[step].record(seconds)
        if self._budgets.broken(step, seconds):
            self._add("budget_breaches_total", (step,))
            for told in self.on_breach:
                told(step, seconds)

    def fault(self, kind: Fault) -> None:
        """Count one fault. Raises ValueError for one that is not in `Fault`."""
        self._add("faults_total", (Fault(kind).value,))

    def watch_upstreams(self, names: Iterable[str], read: Callable[[], Mapping[str, float]]) -> None:
        """The Ollamas of the config, by host and port; their counts start at 0. `read` says which of them are up."""
        self.watch_labelled("upstream_up", read)
        for counter in ("upstream_asks_total", "upstream_failovers_total"):
            self._counts[counter].update({(name,): 0 for name in names})

    def asked_upstream(self, name: str) -> None:
        """Count one request for a model that is sent to this Ollama."""
        self._add("upstream_asks_total", (name,))

    def failed_over(self, name: str) -> None:
        """Count one request that this Ollama did not take, and that goes to another."""
        self._add("upstream_failovers_total", (name,))

    def model_changed(self) -> None:
        """Count one miss that made Ollama load a model."""
        self._add("model_changes_total", ())

    def embed_merged(self) -> None:
        """Count one ask for vectors that was part of a call for several; `decided` counts it too."""
        self._add("embeds_merged_total", ())

    def kept(self, size_bytes: int) -> None:
        """Count one entry written."""
        self._add("kept_total", ())
        self._add("kept_bytes_total", (), size_bytes)

    def not_kept(self, reason: str) -> None:
        """Count one answer that was not kept."""
        self._add("not_kept_total", (reason,))

    def _saved(self, decision: Decision, count: int) -> None:
        """Add what the original answer had cost. Figures no answer can have (over a day, over 10 million) add nothing.

        They come from what Ollama once said, so they are not trusted: a counter must never fall or become infinite.
        """
        if 0 < decision.saved_s <= SAVED_S_MAX:
            self._add("saved_seconds_total", (), decision.saved_s * count)
        if 0 < decision.saved_tokens <= SAVED_TOKENS_MAX:
            self._add("saved_tokens_total", (), decision.saved_tokens * count)

    def dropped(self, messages: int) -> None:
        """Count one chat that was cut to fit the context, and the messages it lost."""
        self._add("context_trimmed_total", ())
        self._add("context_dropped_total", (), messages)

    def load(self, reason: str, result: str) -> None:
        """Count one model loaded ahead, or not: `done`, `failed` or `called-off`."""
        self._add("loads_total", (reason, result))

    def verdict(self, verdict: str) -> None:
        """Count what was decided on the nearest entry: `serve`, or the reason why not (a closed list of rules/)."""
        self._add("near_total", (verdict,))

    def near_joined(self) -> None:
        """Count one ask that joined one in other words; `decided` counts it too."""
        self._add("near_joined_total", ())

    def feedback(self, *, good: bool) -> None:
        """Count what somebody said of a hit."""
        self._add("feedback_total", ("good" if good else "bad",))
        if not good:
            self._lately.add(WRONG, 1)

    def passed_through(self, path_class: str, status: int) -> None:
        """Count one relayed request that was no ask. `path_class` comes from a closed list, never from the client."""
        self._add("passed_through_total", (path_class, str(status) if 100 <= status <= 599 else OTHER))

    def watch(self, name: str, read: Callable[[], float]) -> None:
        """Read the gauge `name` (without prefix) through `read` whenever somebody looks; `read` must not raise.

        A gauge nobody watches is absent. Raises KeyError for a name that is not a gauge without labels.
        """
        if name not in {f.name for f in FAMILIES if f.kind == "gauge" and not f.labels}:
            raise KeyError(f"no gauge is called {name!r}; declare it in metrics.FAMILIES")
        self._gauges[name] = read

    def watch_labelled(self, name: str, read: Callable[[], Mapping[str, float]]) -> None:
        """As `watch`, for a gauge with one label: `read` gives its values by it.

        Of the label `model` these are names of `ollama ps`; those that are not listed are summed under `other`. Any
        other label must be of a closed list. Raises KeyError for a name that is not such a gauge.
        """
        if name not in {f.name for f in FAMILIES if f.kind == "gauge" and len(f.labels) == 1}:
            raise KeyError(f"no gauge with one label is called {name!r}; declare it in metrics.FAMILIES")
        self._labelled_gauges[name] = read

    def _labelled(self, family: Family) -> Mapping[str, float]:
        values = self._labelled_gauges[family.name]()
        if family.labels != ("model",):
            return values
        found: dict[str, float] = {}
        for model, number in values.items():
            label = self._model_labels.get(model, OTHER)
            found[label] = found.get(label, 0) + number
        return found

    def wrong_hit_ratio(self) -> float | None:
        """Of the last day's answers given by meaning, the share reported as wrong, at most 1; None without any.

        A report may come later than its hit, and at another proxy than the one that served it.
        """
        answered = self._lately.sum(BY_MEANING)
        return min(1.0, self._lately.sum(WRONG) / answered) if answered else None

    def text(self) -> tuple[bytes, str]:
        """The Prometheus exposition and its content type."""
        return generate_latest(self._registry), "text/plain; version=0.0.4; charset=utf-8"

    def snapshot(self) -> dict[str, Any]:
        """Everything `/stats` says of this proxy, ready for JSON: totals since the start, windows, percentiles."""
        by_outcome = self._by_label("asks_total", 0)
        return {
            "version": __version__,
            "started": self._start_time_s,
            "uptime_s": self._clock.monotonic() - self._start_s,
            **_totals(by_outcome),
            "windows": {name: self._window.summary(length_s) for name, length_s in WINDOWS_S.items()},
            "models": self._totals_by_label(2),
            "dialects": self._totals_by_label(1),
            "tiers": self._by_label("asks_total", 3),
            "bypass": self._by_label("bypass_total", 0),
            "near": self._by_label("near_total", 0),
            "near_joined": self._counts["near_joined_total"][()],
            "feedback": self._by_label("feedback_total", 0),
            "wrong_hit_ratio": self.wrong_hit_ratio(),
            "budgets": self._budgets_kept(),
            "faults": self._by_label("faults_total", 0),
            "upstream": {
                "asks": self._by_label("upstream_asks_total", 0),
                "failovers": self._by_label("upstream_failovers_total", 0),
            },
            "model_changes": self._counts["model_changes_total"][()],
            "embeds_merged": self._counts["embeds_merged_total"][()],
            "kept": {"entries": self._counts["kept_total"][()], "bytes": self._counts["kept_bytes_total"][()]},
            "not_kept": self._by_label("not_kept_total", 0),
            "saved": {
                "seconds": self._counts["saved_seconds_total"][()],
                "tokens": self._counts["saved_tokens_total"][()],
            },
            "passed_through": {
                "paths": self._by_label("passed_through_total", 0),
                "statuses": self._by_label("passed_through_total", 1),
            },
            "latency": {"outcomes": self._outcome_latency(), "steps": self._step_latency()},
            "gauges": {name: read() for name, read in self._gauges.items()},
        }

    def _budgets_kept(self) -> dict[str, dict[str, float]]:
        """How often each step with a limit kept to it; in the order of `STEPS`."""
        breaches, limits_s = self._by_label("budget_breaches_total", 0), self._budgets.limits_s
        return {
            step: {"limit_s": limits_s[step], "breaches": breaches.get(step, 0), "asks": durations.count}
            for step, durations in self._step_durations.items()
            if step in limits_s
        }

    def _add(self, name: str, labels: Labels, amount: float = 1) -> None:
        series = self._counts[name]
        if labels in series:
            series[labels] += amount
        else:
            _add_series(series, labels, amount, past_bound=(OTHER,) * len(labels))

    def _totals_by_label(self, position: int) -> dict[str, dict[str, Any]]:
        groups: dict[str, dict[str, float]] = {}
        for labels, number in self._asks.items():
            group = groups.setdefault(labels[position], {})
            group[labels[0]] = group.get(labels[0], 0) + number
        return {name: _totals(group) for name, group in groups.items()}

    def _by_label(self, name: str, position: int) -> dict[str, float]:
        sums: dict[str, float] = {}
        for labels, number in self._counts[name].items():
            sums[labels[position]] = sums.get(labels[position], 0) + number
        return sums

    def _outcome_latency(self) -> dict[str, dict[str, dict[str, float | None]]]:
        found: dict[str, dict[str, dict[str, float | None]]] = {}
        for (outcome, tier), histogram in self._ask_durations.items():
            found.setdefault(outcome, {})[tier] = histogram.summary()
        return found

    def _step_latency(self) -> dict[str, dict[str, float | None]]:
        return {step: histogram.summary() for step, histogram in self._step_durations.items() if histogram.count}

    def _families(self) -> Iterator[Metric]:
        for family in FAMILIES:
            name, text = PREFIX + family.name, f"{family.meaning} {family.worry}"
            if family.kind == "counter":
                counter = CounterMetricFamily(name, text, labels=family.labels)
                for labels, number in self._counts[family.name].items():
                    counter.add_metric(labels, number)
                yield counter
            elif family.kind == "histogram":
                yield self._histogram(family, HistogramMetricFamily(name, text, labels=family.labels))
            else:
                yield self._gauge(family, GaugeMetricFamily(name, text, labels=family.labels))

    def _histogram(self, family: Family, shown: HistogramMetricFamily) -> Metric:
        for label, found in self._buckets.get(family.name, {}).items():
            shown.add_metric((label,), found.buckets(), found.total)
        for labels, durations in self._durations[family.name].items():
            shown.add_metric(labels, durations.buckets(), durations.total_s)
        return shown

    def _gauge(self, family: Family, shown: GaugeMetricFamily) -> Metric:
        if family.name == "build_info":
            shown.add_metric((__version__, platform.python_version()), 1)
        elif family.name == "wrong_hit_ratio":
            ratio = self.wrong_hit_ratio()
            if ratio is not None:
                shown.add_metric((), ratio)
        elif family.name in self._labelled_gauges:
            for label, number in self._labelled(family).items():
                shown.add_metric((label,), number)
        elif family.name in self._gauges:
            shown.add_metric((), self._gauges[family.name]())
        return shown


class _Face:
    """What prometheus_client calls a collector."""

    def __init__(self, families: Callable[[], Iterator[Metric]]) -> None:
        self.collect = families


def describe() -> str:
    """`docs/reference/metrics.md`: every family, step and fault, from the tables above."""
    lines = [_DESCRIPTION_HEAD]
    lines += ["| metric | kind | labels | meaning | when to worry |", "|---|---|---|---|---|"]
    for family in FAMILIES:
        labels = ", ".join(f"`{label}`" for label in family.labels)
        lines.append(f"| `{PREFIX}{family.name}` | {family.kind} | {labels} | {family.meaning} | {family.worry} |")
    lines += ["", "## Steps", "", "| `step` | from what to what |", "|---|---|"]
    lines += [f"| `{step}` | {sentence} |" for step, sentence in STEPS.items()]
    lines += ["", "## Faults", "", "| `kind` | what happened |", "|---|---|"]
    lines += [f"| `{kind}` | {sentence} |" for kind, sentence in FAULTS.items()]
    return "\n".join(lines) + "\n"


_DESCRIPTION_HEAD = f"""\
# Metrics

The admin port's `/metrics` (Prometheus) and `/stats` (JSON) read the same counts. This page is made from the tables in
`cacheproxy/metrics.py`; a test holds the two together.

* The number of asks is always the sum over `outcome`: {", ".join(f"`{outcome}`" for outcome in Outcome)}.
* **Hit rate** = hits / (hits + misses), where hits are the asks that cost Ollama nothing:
  {", ".join(f"`{outcome}`" for outcome in HITS)}. A `bypass` is in neither. As PromQL:

      sum(rate({PREFIX}asks_total{{outcome=~"{"|".join(HITS)}"}}[5m]))
        / sum(rate({PREFIX}asks_total{{outcome!="bypass"}}[5m]))

* `tier` says where the answer lay: {", ".join(f"`{tier}`" for tier in TIERS)}.
* `model` is a name that Ollama lists, else `{OTHER}`. A family holds at most {SERIES_MAX} series; past that, new ones
  count under `{OTHER}`.
* Percentiles in `/stats` cover the time since the start and are at most 1.6 % off between 1 µs and 2.3 h. Windows there
  (1, 5 and 15 minutes) are exact to within five seconds; their rates are over the time really covered.
* All workers (`server.workers`) are counted together, at most a tenth of a second late. `process_*` (memory, CPU time,
  open files) are the main one's, and come from the operating system; so are `memory_bytes` and `memory_entries`.
"""


def hit_rate(outcomes: Mapping[str, float]) -> float | None:
    """Hits / (hits + misses), 0..1; None while there is neither. An outcome that is absent counts as 0."""
    hits = sum(outcomes.get(outcome, 0) for outcome in HITS)
    looked_up = hits + outcomes.get(Outcome.MISS, 0)
    return hits / looked_up if looked_up else None


def _totals(found: Mapping[str, float]) -> dict[str, Any]:
    outcomes = {outcome.value: found.get(outcome, 0) for outcome in Outcome}
    return {"asks": sum(outcomes.values()), "hit_rate": hit_rate(outcomes), "outcomes": outcomes}


def _add_series(series: dict[Labels, float], labels: Labels, amount: float, past_bound: Labels) -> None:
    """Add to a series that may be new; when the family is full, to the one that stands for all others."""
    labels = tuple(_plain(label) for label in labels)
    if labels not in series and len(series) >= SERIES_MAX:
        labels = tuple(_plain(label) for label in past_bound)
    series[labels] = series.get(labels, 0) + amount


def _plain(label: str) -> str:
    """`label` as text that UTF-8 can carry: a lone surrogate would end every later scrape with an error."""
    return str(label).encode("utf-8", "backslashreplace").decode("utf-8")
