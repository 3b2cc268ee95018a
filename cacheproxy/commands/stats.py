"""`cacheproxy stats`: a running proxy's counts as a table for people.

`table` is pure; it leaves out what has no figures yet, so a fresh proxy shows little.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from cacheproxy.commands.admin_port import AdminPort
from cacheproxy.errors import AdminPortError

WATCH_S = 1.0
_PAIRS_MAX = 5
_OUTCOMES = ("exact", "semantic", "joined", "stale", "miss", "bypass")


def run(port: AdminPort, *, as_json: bool, watch: bool) -> None:
    """Print the counts, once or every `WATCH_S`. Raises AdminPortError; while watching only for the first look."""
    answer = port.ask("/stats")
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
    elif watch:
        _watch(port, table(answer))
    else:
        typer.echo("\n".join(table(answer)))


def _watch(port: AdminPort, lines: list[str]) -> None:
    """Refresh until Ctrl-C: in place on a terminal, as a new block elsewhere. A proxy that is away is waited for."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    terminal = sys.stdout.isatty()
    with Live(Text("\n".join(lines)), console=Console(), auto_refresh=False) as live:
        try:
            while True:
                if not terminal:
                    typer.echo("\n".join([*lines, ""]))
                live.update(Text("\n".join(lines)), refresh=terminal)
                time.sleep(WATCH_S)
                try:
                    lines = table(port.ask("/stats"))
                except AdminPortError as error:
                    lines = [str(error)]
        except KeyboardInterrupt:
            return


def table(stats: Mapping[str, Any]) -> list[str]:
    """The lines for what `/stats` answered. Pure."""
    header = ["MODEL", "ASKS", "HIT", *(outcome.upper() for outcome in _OUTCOMES)]
    models = sorted(stats["models"].items(), key=lambda item: -item[1]["asks"])
    rows = [_row(name, totals) for name, totals in models]
    lines = columns([header, *rows, _row("all", stats)])
    lines.append("")
    lines += [*columns(_windows(stats["windows"])), ""]
    lines += [*fleet] if (fleet := _fleet(stats)) else []
    if latency := _latency(stats["latency"]):
        lines += [*columns(latency), ""]
    saved = stats["saved"]
    lines.append(f"saved    {duration(saved['seconds'])} of Ollama's time, {counted(saved['tokens'], 'token')}")
    lines.append(f"kept     {counted(stats['kept']['entries'], 'answer')}, {size(stats['kept']['bytes'])}")
    if len(asks := stats["upstream"]["asks"]) > 1:
        lines.append(f"{'sent to':<9}" + ", ".join(f"{name} {number:,.0f}" for name, number in asks.items()))
    fitting = [at_once(one, named=len(asks) > 1) for one in stats.get("upstreams", ())]
    lines += [f"{'at once':<9}{line}" for line in fitting if line]
    late = {step: kept["breaches"] for step, kept in stats["budgets"].items() if kept["breaches"]}
    if late:
        lines.append("over budget  " + ", ".join(f"{step} {number:,.0f}" for step, number in late.items()))
    for title, name in (("bypass", "bypass"), ("not kept", "not_kept"), ("faults", "faults")):
        if told := ", ".join(f"{what} {number:,.0f}" for what, number in stats[name].items() if number):
            lines.append(f"{title:<9}{told}")
    for name, part in stats.get("parts", {}).items():
        if part["state"] in ("degraded", "down"):
            lines.append(f"{part['state']:<9}{name}: {part['reason']}")
    return lines


def at_once(upstream: Mapping[str, Any], *, named: bool) -> str:
    """How many models may run at one Ollama, and why; empty for a proxy that does not tell."""
    if "models_at_once" not in upstream:
        return ""
    where = f" at {upstream['name']}" if named else ""
    pairs = ", ".join(" with ".join(pair) for pair in upstream["models_apart"][-_PAIRS_MAX:])
    apart = f"; not {pairs}" if pairs else ""
    return f"{counted(upstream['models_at_once'], 'model')}{where} ({upstream['models_at_once_why']}{apart})"


def _row(name: str, totals: Mapping[str, Any]) -> list[str]:
    outcomes = totals["outcomes"]
    return [name, f"{totals['asks']:,.0f}", share(totals["hit_rate"]), *(f"{outcomes[one]:,.0f}" for one in _OUTCOMES)]


def _windows(windows: Mapping[str, Any]) -> list[list[str]]:
    rows = [["LAST", "ASKS/S", "HIT"]]
    return rows + [[name, f"{one['asks_per_s']:,.1f}", share(one["hit_rate"])] for name, one in windows.items()]


def _fleet(stats: Mapping[str, Any]) -> list[str]:
    """What the ledger counted, over all proxies of this Redis and past restarts; empty for a proxy without one."""
    fleet = stats.get("fleet")
    if fleet is None:
        reason = stats.get("fleet_reason")
        return [f"all proxies: {reason}", ""] if reason else []
    rows = [["ALL PROXIES", "ASKS", "HIT", "SAVED"]]
    rows += [
        [name, f"{one['asks']:,.0f}", share(one["hit_rate"]), duration(one["saved_seconds"])]
        for name, one in fleet["windows"].items()
    ]
    return [*columns(rows), ""]


def _latency(latency: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]) -> list[list[str]]:
    """How long asks took, and when the first byte of the replies to misses was out."""
    found = _by_name(latency["outcomes"])
    began = _by_name(latency.get("first_bytes", {}))
    found |= {f"{name}, first byte": times for name, times in began.items() if name.startswith("miss")}
    rows = [
        [name, *(duration(times[figure]) for figure in ("p50_s", "p95_s", "p99_s", "longest_s"))]
        for name, times in sorted(found.items())
        if times["count"]
    ]
    return [["TIME", "P50", "P95", "P99", "LONGEST"], *rows] if rows else []


def _by_name(outcomes: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, Mapping[str, float]]:
    return {
        f"{outcome} ({tier})" if tier != "none" else outcome: times
        for outcome, tiers in outcomes.items()
        for tier, times in tiers.items()
    }


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with the first column to the left and the others to the right, two blanks between."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def counted(number: float, thing: str) -> str:
    """`1 model`, `2,000 models`."""
    return f"{number:,.0f} {thing}{'' if number == 1 else 's'}"


def share(ratio: float | None) -> str:
    """A ratio 0..1 as per cent; a dash for None."""
    return "-" if ratio is None else f"{100 * ratio:.1f}%"


def duration(seconds: float) -> str:
    """In the unit that gives one to three digits: `0.9 ms`, `2.4 s`, `1 h 23 m`."""
    if seconds < 1:
        return f"{seconds * 1000:.{0 if seconds >= 0.01 else 1}f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} m {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} m"


def size(count_bytes: float) -> str:
    """`512 B`, `3.4 kB`, `1.2 GB`."""
    for unit in ("B", "kB", "MB"):
        if count_bytes < 1000:
            return f"{count_bytes:.{1 if unit != 'B' else 0}f} {unit}"
        count_bytes /= 1000
    return f"{count_bytes:.1f} GB"
