"""`cacheproxy bench`: the times of this installation, hits and what a miss costs more than asking Ollama directly.

It asks made-up questions with a number nobody else uses: one answer is stored, asked for again (*exact*) and asked for
in other words (*semantic*, `only-if-cached`, so that a refusal costs Ollama nothing). For misses, fresh questions go to
Ollama directly and through the proxy in turn, cut off after one token, which is too little to be kept. What was stored
all the same is deleted by its id at the end, and nothing else is.
"""

from __future__ import annotations

import itertools
import json
import math
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from cacheproxy import __version__
from cacheproxy.commands import curve
from cacheproxy.commands.admin_port import AdminPort, purge
from cacheproxy.commands.client import Client, Reply
from cacheproxy.commands.stats import columns, counted, duration
from cacheproxy.errors import AskFailedError, ConfigError

ONLY_CACHED = {"Cache-Control": "only-if-cached"}
KEPT_S_MAX = 10.0
"""How long an answer may take to be kept: one write to Redis, behind a fresh list of models from Ollama."""
STARTS = ("How do I", "How can I", "How could I", "How should I", "How would I", "How may I")
ENDS = ("?", "", " please?", ", please?", " now?", " ?")
FILL = ("", "Hello, ", "Hi, ", "Please, ", "Say, ")
"""Rewordings of one question: 180 of them, each asked once, so that no vector is remembered."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do. `repeats`: asks for exact hits; `rewordings` and `rounds` likewise for the others."""

    model: str
    repeats: int = 200
    rewordings: int = 60
    rounds: int = 5


@dataclass(slots=True)
class Times:
    """Seconds by what was measured, and what else should be told."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    entries: set[str] = field(default_factory=set)
    """Ids of what was stored."""

    def add(self, name: str, seconds: float) -> None:
        """One more."""
        self.seconds.setdefault(name, []).append(seconds)


def run(
    port: AdminPort, proxy_url: str, ollama_url: str, plan: Plan, *, as_json: bool, out: Path | None, png: Path | None
) -> None:
    """Measure, clean up, and print. Raises AskFailedError, AdminPortError, ConfigError."""
    if png is not None:
        curve.check_png()
    for path in (out, png):
        if path is not None:
            curve.check_writable(path)
    if not as_json:
        typer.echo(announcement(plan, proxy_url), err=True)
    port.ask("/healthz")  # without it nothing could be deleted afterwards
    times = Times()
    number = 10**9 + secrets.randbelow(9 * 10**9)
    with Client(proxy_url) as proxy, Client(ollama_url) as ollama:
        _check_direct(ollama, plan, number)
        try:
            _measure_hits(proxy, plan, number, times)
            _measure_misses(proxy, ollama, plan, number, times)
        finally:
            deleted = sum(purge(port, {"id": entry}) for entry in times.entries)
    report = told(times, plan, proxy_url, deleted)
    text = json.dumps(report, indent=2)
    typer.echo(text if as_json else "\n".join(lines(report)))
    if out is not None:
        _write(out, text)
    if png is not None:
        curve.write_times_png(png, times.seconds, title=f"cacheproxy {__version__}, {plan.model}")


def announcement(plan: Plan, proxy_url: str) -> str:
    """What it is going to do to the installation. Pure."""
    return (
        f"asking {plan.model} through {proxy_url}: one short answer, then {counted(2 * plan.rounds + 1, 'ask')} "
        f"of one token each; {plan.repeats + plan.rewordings:,} asks for what is stored. What it adds to the cache "
        "(one entry, rarely some more) it deletes at the end; the asks stay in the statistics."
    )


def _check_direct(ollama: Client, plan: Plan, number: int) -> None:
    """Load the model, and make sure that it is Ollama that is asked directly. Raises AskFailedError, ConfigError."""
    reply = _checked(ollama.ask("/api/chat", _body(plan.model, f"What is the balance of account {number}?", tokens=1)))
    if reply.proxied:
        raise ConfigError(
            f"{ollama.url} is a cacheproxy itself, so nothing could be compared with Ollama; "
            "name Ollama's own address with --upstream"
        )


def _measure_hits(proxy: Client, plan: Plan, number: int, times: Times) -> None:
    stored = _body(plan.model, f"{STARTS[0]} close account {number}?")
    first = _checked(proxy.ask("/api/chat", stored))
    if not first.outcome:
        raise AskFailedError(f"{proxy.url} is no cacheproxy: its reply has no X-Cache")
    times.entries.add(_wait_kept(proxy, stored))
    for _ in range(plan.repeats):
        reply = _checked(proxy.ask("/api/chat", stored, ONLY_CACHED))
        if reply.outcome == "exact":
            times.add("exact", reply.seconds)
    refused = 0
    for question in itertools.islice(rewordings(number), plan.rewordings):
        reply = proxy.ask("/api/chat", _body(plan.model, question), ONLY_CACHED)
        if reply.outcome == "semantic":
            times.add("semantic", reply.seconds)
        else:
            refused += 1
    if refused:
        times.notes.append(f"{refused:,} of {plan.rewordings:,} rewordings were no semantic hit")
    if "semantic" not in times.seconds:
        times.notes.append("no semantic hit at all: see `cacheproxy stats` for the embedder, and semantic.mode")


def rewordings(number: int) -> Iterator[str]:
    """Ways to ask the stored question in other words. Pure."""
    for fill, end, start in itertools.product(FILL, ENDS, STARTS):
        text = f"{fill}{start if not fill else start[0].lower() + start[1:]} close account {number}{end}"
        if text != f"{STARTS[0]} close account {number}?":
            yield text


def _wait_kept(proxy: Client, body: Mapping[str, Any]) -> str:
    """Id of the entry that answers `body`, once it is kept. Raises AskFailedError."""
    until = time.monotonic() + KEPT_S_MAX
    while time.monotonic() < until:
        reply = proxy.ask("/api/chat", body, ONLY_CACHED)
        if reply.outcome == "exact":
            return reply.entry
        time.sleep(0.05)
    raise AskFailedError(
        'the answer was not kept, so there are no hits to measure: `cacheproxy stats` says why under "not kept"; '
        "a model that rambles is cut off at 64 tokens here, choose another with --model"
    )


def _measure_misses(proxy: Client, ollama: Client, plan: Plan, number: int, times: Times) -> None:
    """Fresh questions directly and through the proxy in turn, so that what slows the machine slows both."""
    fresh = (f"What is the balance of account {number + step}?" for step in itertools.count(1))
    for turn in range(plan.rounds):
        asked: list[tuple[str, Client]] = [("direct", ollama), ("miss", proxy)]
        for name, client in asked if turn % 2 else reversed(asked):
            body = _body(plan.model, next(fresh), tokens=1)
            reply = _checked(client.ask("/api/chat", body))
            if name == "direct" or reply.outcome == "miss":
                times.add(name, reply.seconds)
            if name == "miss":
                again = proxy.ask("/api/chat", body, ONLY_CACHED)
                times.entries |= {again.entry} if again.outcome == "exact" else set()


def _body(model: str, question: str, *, tokens: int = 64) -> dict[str, Any]:
    turns = [("system", "Answer with the single word OK."), ("user", question)]
    messages = [{"role": role, "content": text} for role, text in turns]
    return {"model": model, "messages": messages, "stream": False, "options": {"num_predict": tokens}}


def _checked(reply: Reply) -> Reply:
    if reply.status >= 400:
        raise AskFailedError(f"status {reply.status}: {reply.error}")
    return reply


def told(times: Times, plan: Plan, proxy_url: str, deleted: int) -> dict[str, Any]:
    """All that was found out, as JSON. Times in seconds. Pure."""
    figures = {name: summary(found) for name, found in times.seconds.items() if found}
    ratios: dict[str, float] = {}
    if "direct" in figures:
        direct = figures["direct"]["p50_s"]
        ratios = {
            f"direct/{name}": direct / figures[name]["p50_s"] for name in ("exact", "semantic") if name in figures
        }
        if "miss" in figures:
            ratios["miss/direct"] = figures["miss"]["p50_s"] / direct
    return {
        "version": __version__,
        "python": sys.version.split()[0],
        "proxy": proxy_url,
        "model": plan.model,
        "times": figures,
        "ratios_of_medians": ratios,
        "miss_overhead_s": figures["miss"]["p50_s"] - figures["direct"]["p50_s"] if len(ratios) > 2 else None,
        "deleted": deleted,
        "notes": times.notes,
    }


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Count, percentiles by nearest rank, and the longest. Pure."""
    ordered = sorted(seconds)

    def percentile(share: float) -> float:
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    return {
        "count": len(ordered),
        "p50_s": percentile(0.5),
        "p95_s": percentile(0.95),
        "p99_s": percentile(0.99),
        "longest_s": ordered[-1],
    }


def lines(report: Mapping[str, Any]) -> list[str]:
    """The report for a person. Pure."""
    names = ("p50_s", "p95_s", "p99_s", "longest_s")
    rows = [
        [name, f"{found['count']:,.0f}", *(_fine(found[figure]) for figure in names)]
        for name, found in report["times"].items()
    ]
    told_lines = columns([["TIME", "ASKS", "P50", "P95", "P99", "LONGEST"], *rows])
    told_lines.append("")
    words: Mapping[str, Callable[[float], str]] = {
        "direct/exact": lambda ratio: f"asking Ollama for one token takes {ratio:,.1f} times as long as an exact hit",
        "direct/semantic": lambda ratio: (
            f"asking Ollama for one token takes {ratio:,.2f} times as long as a semantic hit"
        ),
        "miss/direct": lambda ratio: f"a miss of one token takes {ratio:,.2f} times as long as asking Ollama directly",
    }
    told_lines += [words[name](ratio) for name, ratio in report["ratios_of_medians"].items()]
    if report["miss_overhead_s"] is not None:
        few = report["times"]["miss"]["count"]
        told_lines.append(f"a miss costs {1000 * report['miss_overhead_s']:+.1f} ms (medians of {few:.0f} each)")
    told_lines += report["notes"]
    told_lines.append(f"deleted {counted(report['deleted'], 'entry').replace('entrys', 'entries')} again")
    return told_lines


def _fine(seconds: float) -> str:
    """Two digits behind the point below 10 ms, where hits differ."""
    return f"{1000 * seconds:.2f} ms" if seconds < 0.01 else duration(seconds)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
