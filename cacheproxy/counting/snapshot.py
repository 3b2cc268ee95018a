"""The counts as `/stats` tells them: totals since the start, windows, percentiles; ready for JSON.

Pure but for the clock behind the windows. Refuses to count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cacheproxy.budgets import Budgets
from cacheproxy.counting.counts import Counts
from cacheproxy.counting.durations import Histogram
from cacheproxy.counting.labels import Labels
from cacheproxy.counting.outcomes import WINDOWS_S, Window, totals

OUTCOME, DIALECT, MODEL, TIER = range(4)
"""The labels of `asks_total` by position."""


def snapshot(counts: Counts, window: Window, budgets: Budgets) -> dict[str, Any]:
    """What this proxy has counted, by the names that `/stats` has for it."""
    return {
        **totals(counts.by_label("asks_total", OUTCOME)),
        "windows": {name: window.summary(length_s) for name, length_s in WINDOWS_S.items()},
        "models": _totals_by_label(counts, MODEL),
        "dialects": _totals_by_label(counts, DIALECT),
        "tiers": counts.by_label("asks_total", TIER),
        "bypass": counts.by_label("bypass_total"),
        "near": counts.by_label("near_total"),
        "near_joined": counts.total("near_joined_total"),
        "feedback": counts.by_label("feedback_total"),
        "budgets": _budgets_kept(counts, budgets.limits_s),
        "faults": counts.by_label("faults_total"),
        "upstream": {
            "asks": counts.by_label("upstream_asks_total"),
            "failovers": counts.by_label("upstream_failovers_total"),
        },
        "model_changes": counts.total("model_changes_total"),
        "embeds_merged": counts.total("embeds_merged_total"),
        "kept": {"entries": counts.total("kept_total"), "bytes": counts.total("kept_bytes_total")},
        "not_kept": counts.by_label("not_kept_total"),
        "saved": {"seconds": counts.total("saved_seconds_total"), "tokens": counts.total("saved_tokens_total")},
        "passed_through": {
            "paths": counts.by_label("passed_through_total", 0),
            "statuses": counts.by_label("passed_through_total", 1),
        },
        "latency": {
            "outcomes": _by_outcome(counts.asks),
            "first_bytes": _by_outcome(counts.first_bytes),
            "steps": _step_latency(counts),
        },
    }


def _totals_by_label(counts: Counts, position: int) -> dict[str, dict[str, Any]]:
    groups: dict[str, dict[str, float]] = {}
    for labels, number in counts.counters["asks_total"].items():
        group = groups.setdefault(labels[position], {})
        group[labels[OUTCOME]] = group.get(labels[OUTCOME], 0) + number
    return {name: totals(group) for name, group in groups.items()}


def _budgets_kept(counts: Counts, limits_s: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """How often each step with a limit kept to it; in the order of `STEPS`."""
    breaches = counts.by_label("budget_breaches_total")
    return {
        step: {"limit_s": limits_s[step], "breaches": breaches.get(step, 0), "asks": durations.count}
        for step, durations in counts.steps.items()
        if step in limits_s
    }


def _by_outcome(durations: Mapping[Labels, Histogram]) -> dict[str, dict[str, dict[str, float | None]]]:
    found: dict[str, dict[str, dict[str, float | None]]] = {}
    for (outcome, tier), histogram in durations.items():
        found.setdefault(outcome, {})[tier] = histogram.summary()
    return found


def _step_latency(counts: Counts) -> dict[str, dict[str, float | None]]:
    return {step: histogram.summary() for step, histogram in counts.steps.items() if histogram.count}
