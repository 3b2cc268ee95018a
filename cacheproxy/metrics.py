"""What happened, counted: the one place that the rest of the program tells, and that the operator's port asks.

One set of counts feeds both faces, `text` (Prometheus) and `snapshot` (`/stats`), so they cannot disagree. Counting is
plain dictionary arithmetic. Called from the event loop's thread only.
This module refuses to see prompt text; names of models that Ollama does not list become `other`.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cacheproxy import __version__
from cacheproxy.budgets import NONE, Budgets
from cacheproxy.clock import Clock
from cacheproxy.counting.counts import Counts, durations, plain
from cacheproxy.counting.exposition import CONTENT_TYPE, Exposition
from cacheproxy.counting.faults import Fault
from cacheproxy.counting.gauges import Gauges
from cacheproxy.counting.labels import OTHER, TIERS, Group, Labels
from cacheproxy.counting.outcomes import Window
from cacheproxy.counting.snapshot import snapshot
from cacheproxy.lately import Lately
from cacheproxy.model import Decision

# `Fault` goes with `Metrics`: who counts needs both.
__all__ = ["OTHER", "Fault", "Group", "Metrics"]

WRONG, BY_MEANING = "wrong", "by_meaning"


class Metrics:
    """All counts of one proxy. Nothing here is global, so two proxies in one test do not meet."""

    def __init__(self, clock: Clock, budgets: Budgets = NONE) -> None:
        self._clock = clock
        self._start_s, self._start_time_s = clock.monotonic(), clock.now()
        self._budgets = budgets
        self.on_breach: list[Callable[[str, float], None]] = []
        """Told of each step that took longer than its budget, with the seconds it took."""
        self._config_ok, self._config_time_s = True, self._start_time_s
        self._counts = Counts()
        # What every ask touches, found once.
        self._asks = self._counts.counters["asks_total"]
        self._ask_durations, self._step_durations = self._counts.asks, self._counts.steps
        self._first_bytes = self._counts.first_bytes
        self._window = Window(clock)
        self._lately = Lately(clock)
        self._gauges = Gauges()
        self._exposition = Exposition(self._counts, self._gauges)
        self._model_labels: dict[str, str] = {}
        self.known_models: frozenset[str] = frozenset()
        self._counts.begin("faults_total", Fault)
        self.use(budgets)
        self._watch_own()

    def _watch_own(self) -> None:
        self.watch("start_time_seconds", lambda: self._start_time_s)
        self.watch("config_last_reload_successful", lambda: float(self._config_ok))
        self.watch("config_last_reload_success_timestamp_seconds", lambda: self._config_time_s)
        self.watch_labelled("budget_seconds", lambda: self._budgets.limits_s)
        self.watch_info("build_info", lambda: (__version__, platform.python_version()))
        self.watch_if_known("wrong_hit_ratio", self.wrong_hit_ratio)

    def use(self, budgets: Budgets) -> None:
        """Hold the steps of asks against these limits from now on."""
        self._budgets = budgets
        self._counts.begin("budget_breaches_total", budgets.limits_s)

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
        self._model_labels = {name.removesuffix(":latest"): plain(name) for name in self.known_models}
        self._model_labels.update({name: plain(name) for name in self.known_models})

    def decided(self, decision: Decision, count: int = 1) -> None:
        """Count an ask that has ended, exactly once; `count` of them where so many ended alike."""
        outcome = decision.outcome
        tier = decision.tier if decision.tier in TIERS else OTHER
        labels = (outcome, decision.dialect, self._model_labels.get(decision.model, OTHER), tier)
        if labels in self._asks:
            self._asks[labels] += count
        else:
            self._counts.add("asks_total", labels, count, past_bound=(outcome, OTHER, OTHER, OTHER))
        durations(self._ask_durations, outcome, tier).record(decision.seconds, count)
        if decision.first_byte_s is not None:
            durations(self._first_bytes, outcome, tier).record(decision.first_byte_s, count)
        self._window.count(outcome, count)
        if decision.reason:
            self._counts.add("bypass_total", (decision.reason,), count)
        if decision.saved_s:
            self._counts.add("saved_seconds_total", (), decision.saved_s * count)
        if decision.saved_tokens:
            self._counts.add("saved_tokens_total", (), decision.saved_tokens * count)
        self._found(decision, count)

    def _found(self, decision: Decision, count: int) -> None:
        """Count what the ask was answered from, and what was compared for it."""
        if decision.age_s is not None:
            self._counts.was_old(decision.outcome, max(0.0, decision.age_s), count)
        if decision.neighbour is not None:
            similarities = self._counts.similarities[Group.of(decision.neighbour)]
            similarities.record(decision.neighbour.similarity, count)
        if decision.by_meaning:
            self._lately.add(BY_MEANING, count)

    def step(self, step: str, seconds: float) -> None:
        """Count the time one step of an ask took. Raises KeyError for a step that is not in `STEPS`."""
        self._step_durations[step].record(seconds)
        if self._budgets.broken(step, seconds):
            self._counts.add("budget_breaches_total", (step,))
            for told in self.on_breach:
                told(step, seconds)

    def fault(self, kind: Fault) -> None:
        """Count one fault. Raises ValueError for one that is not in `Fault`."""
        self._counts.add("faults_total", (Fault(kind).value,))

    def watch_upstreams(self, names: Iterable[str], read: Callable[[], Mapping[str, float]]) -> None:
        """The Ollamas of the config, by host and port; their counts start at 0. `read` says which of them are up."""
        self.watch_labelled("upstream_up", read)
        names = tuple(names)
        for counter in ("upstream_asks_total", "upstream_failovers_total"):
            self._counts.begin(counter, names)

    def asked_upstream(self, name: str) -> None:
        """Count one request for a model that is sent to this Ollama."""
        self._counts.add("upstream_asks_total", (name,))

    def failed_over(self, name: str) -> None:
        """Count one request that this Ollama did not take, and that goes to another."""
        self._counts.add("upstream_failovers_total", (name,))

    def model_changed(self) -> None:
        """Count one miss that made Ollama load a model."""
        self._counts.add("model_changes_total")

    def embed_merged(self) -> None:
        """Count one ask for vectors that was part of a call for several; `decided` counts it too."""
        self._counts.add("embeds_merged_total")

    def kept(self, size_bytes: int) -> None:
        """Count one entry written."""
        self._counts.add("kept_total")
        self._counts.add("kept_bytes_total", (), size_bytes)

    def not_kept(self, reason: str) -> None:
        """Count one answer that was not kept."""
        self._counts.add("not_kept_total", (reason,))

    def dropped(self, messages: int) -> None:
        """Count one chat that was cut to fit the context, and the messages it lost."""
        self._counts.add("context_trimmed_total")
        self._counts.add("context_dropped_total", (), messages)

    def load(self, reason: str, result: str) -> None:
        """Count one model loaded ahead, or not: `done`, `failed` or `called-off`."""
        self._counts.add("loads_total", (reason, result))

    def verdict(self, verdict: str) -> None:
        """Count what was decided on the nearest entry: `serve`, or the reason why not (a closed list of rules/)."""
        self._counts.add("near_total", (verdict,))

    def near_joined(self) -> None:
        """Count one ask that joined one in other words; `decided` counts it too."""
        self._counts.add("near_joined_total")

    def feedback(self, *, good: bool) -> None:
        """Count what somebody said of a hit."""
        self._counts.add("feedback_total", ("good" if good else "bad",))
        if not good:
            self._lately.add(WRONG, 1)

    def passed_through(self, path_class: str, status: int) -> None:
        """Count one relayed request that was no ask. `path_class` comes from a closed list, never from the client."""
        self._counts.add("passed_through_total", (path_class, str(status) if 100 <= status <= 599 else OTHER))

    def watch(self, name: str, read: Callable[[], float]) -> None:
        """Read the figure `name` (without prefix) through `read` whenever somebody looks; `read` must not raise.

        A figure nobody watches is absent. Raises KeyError for a name that is no gauge, and no counter kept elsewhere,
        without labels.
        """
        self._gauges.watch(name, read)

    def watch_if_known(self, name: str, read: Callable[[], float | None]) -> None:
        """As `watch`, for a figure that is absent while `read` gives None."""
        self._gauges.watch_any(name, lambda: {} if (figure := read()) is None else {(): figure})

    def watch_info(self, name: str, read: Callable[[], Labels | None]) -> None:
        """As `watch`, for a figure that is always 1: `read` gives its labels, or None while there is nothing to say."""
        self._gauges.watch_any(name, lambda: {} if (labels := read()) is None else {tuple(map(plain, labels)): 1})

    def watch_labelled(self, name: str, read: Callable[[], Mapping[str, float]]) -> None:
        """As `watch`, for a figure with one label: `read` gives its values by it. They must be of a closed list."""
        self._gauges.watch_one_label(name, read)

    def watch_models(self, name: str, read: Callable[[], Mapping[str, float]]) -> None:
        """As `watch_labelled` for the label `model`: names of `ollama ps`; those not listed are summed as `other`."""
        self._gauges.watch_one_label(name, lambda: self._of_known_models(read()))

    def _of_known_models(self, values: Mapping[str, float]) -> dict[str, float]:
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
        return self._exposition.text(), CONTENT_TYPE

    def snapshot(self) -> dict[str, Any]:
        """Everything `/stats` says of this proxy, ready for JSON: totals since the start, windows, percentiles."""
        return {
            "version": __version__,
            "started": self._start_time_s,
            "uptime_s": self._clock.monotonic() - self._start_s,
            **snapshot(self._counts, self._window, self._budgets),
            "wrong_hit_ratio": self.wrong_hit_ratio(),
            "gauges": self._gauges.all_plain(),
        }
