"""`cacheproxy tune`: from evidence to a threshold. What each would serve and get wrong, and the lines to paste.

It changes nothing for a running proxy, and writes nothing but the PNG that was asked for.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cacheproxy.commands import curve
from cacheproxy.commands.evidence import Evidence, of_pairs, of_shadow
from cacheproxy.config import Config
from cacheproxy.errors import ConfigError
from cacheproxy.rules import tuning
from cacheproxy.rules.tuning import Choice, Family, Objections, Row, Tally, percent

WIDTH = 100
"""Characters a line where no terminal says otherwise. The widest table needs 80."""
FAMILIES_MAX = 40
"""Lines of the table by family; the JSON has all."""


@dataclass(frozen=True, slots=True)
class Report:
    """All that is told. `families` and `guards` are at `shown`, the chosen threshold or else the one in use."""

    evidence: Evidence
    rows: list[Row]
    choice: Choice
    max_wrong: float
    in_use: float
    shown: float
    families: list[Family]
    guards: list[Objections]


def run(
    settings: Config, pairs: Path | None, *, max_wrong: float, alike: float, as_json: bool, png: Path | None
) -> bool:
    """Print the report; False if no threshold fulfils the wish. `pairs`: the file; None: the record of shadow mode.

    Raises ConfigError for what was given, EmbedderError and StoreUnavailableError for what could not be reached.
    """
    for name, value in (("--max-wrong", max_wrong), ("--alike", alike)):
        if not 0 < value < 1:
            raise ConfigError(f"{name} {value:g}: expected a share between 0 and 1, such as 0.005 for half a per cent")
    if png is not None:
        curve.check_png()
        curve.check_writable(png)
    evidence = of_shadow(settings, alike=alike) if pairs is None else of_pairs(pairs, settings)
    report = judge(evidence, max_wrong=max_wrong, in_use=settings.semantic.threshold)
    if as_json:
        typer.echo(json.dumps(told(report), indent=2))
    else:
        show(report)
    if png is not None:
        _write_png(png, report)
    return report.choice.row is not None


def judge(evidence: Evidence, *, max_wrong: float, in_use: float) -> Report:
    """The report on the evidence. `in_use`: the configured threshold, which gets its row. Pure."""
    rows = tuning.tabulate(evidence.pairs, sorted({*tuning.THRESHOLDS, in_use}))
    choice = tuning.choose(rows, max_wrong)
    shown = choice.row.threshold if choice.row else in_use
    families, guards = tuning.by_family(evidence.pairs, shown), tuning.by_guard(evidence.pairs, shown)
    return Report(evidence, rows, choice, max_wrong, in_use, shown, families, guards)


def to_paste(row: Row) -> str:
    """The lines of `config.toml` for a threshold."""
    return f"[semantic]\nthreshold = {row.threshold:g}"


def show(report: Report) -> None:
    """Print the report for a person."""
    # A pipe has no width of its own, and rich would cut figures to fit what it guesses.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    for line in (report.evidence.source, *report.evidence.notes):
        console.print(Text(line), soft_wrap=True)
    if report.evidence.pairs:
        console.print()
        console.print(_by_threshold(report))
        console.print(Text(_LEGEND))
        console.print()
        for line in curve.draw(report.rows, max_wrong=report.max_wrong, chosen=report.choice.row):
            console.print(Text(line), soft_wrap=True)
    for table in (_by_family(report), _by_guard(report)):
        if table.row_count:
            console.print()
            console.print(table)
    console.print()
    for line in _verdict(report):
        console.print(Text(line), soft_wrap=True)


_LEGEND = """\
> chosen, * in use. wrong-hit rate: wrong hits of all hits; precision: the rest.
recall: right hits of all pairs that may share an answer."""


def _by_threshold(report: Report) -> Table:
    table = _table(
        "threshold", "with\nguards:\nhit rate", "wrong\n/hits", "wrong-\nhit rate", "95%\ninterval", "recall"
    )
    for title in ("without\nguards:\nhit rate", "wrong-\nhit rate", "recall"):
        table.add_column(title, justify="right", style="dim")
    for column in table.columns:
        column.vertical = "bottom"
    for row in report.rows:
        chosen, in_use = row is report.choice.row, row.threshold == report.in_use
        sign = ">" if chosen else "*" if in_use else " "
        low, high = row.guarded.interval
        interval = f"{100 * low:.2f}-{100 * high:.2f}%" if row.guarded.hits else "-"
        count = f"{row.guarded.wrong:,}/{row.guarded.hits:,}"
        cells = [f"{sign} {row.threshold:.2f}" if row.threshold in tuning.THRESHOLDS else f"{sign} {row.threshold:g}"]
        cells += [_fixed(row.guarded.hit_rate), count, _fixed(row.guarded.wrong_rate, 2), interval]
        cells += [_fixed(row.guarded.recall)]
        cells += [_fixed(row.bare.hit_rate), _fixed(row.bare.wrong_rate, 2), _fixed(row.bare.recall)]
        table.add_row(*cells, style="bold green" if chosen else "bold" if in_use else "")
    return table


def _by_family(report: Report) -> Table:
    title = f"at {report.shown:g}, by {report.evidence.families}"
    table = _table(title, "wrong pairs", "served", "unguarded", "right pairs", "served", "unguarded")
    for one in report.families[:FAMILIES_MAX]:
        counts = [one.guarded.pairs - one.guarded.right, one.guarded.wrong, one.bare.wrong]
        counts += [one.guarded.right, one.guarded.hits - one.guarded.wrong, one.bare.hits - one.bare.wrong]
        table.add_row(_plain(one.name), *(f"{count:,}" for count in counts), style="bold" if one.guarded.wrong else "")
    if (more := len(report.families) - FAMILIES_MAX) > 0:
        table.add_row(f"and {more:,} more")
    return table


def _by_guard(report: Report) -> Table:
    table = _table(f"at {report.shown:g}, by guard", "wrong hits prevented", "right hits lost")
    for one in report.guards:
        table.add_row(_plain(one.guard), f"{one.wrong_prevented:,}", f"{one.right_lost:,}")
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column(first, no_wrap=True)
    for title in others:
        table.add_column(title, justify="right")
    return table


def _verdict(report: Report) -> Iterator[str]:
    """What to do, with the lines to paste."""
    row, best = report.choice.row, report.choice.best
    if row is not None:
        low, high = row.guarded.interval
        yield f"Wrong hits are {percent(low)} to {percent(high)} of the hits with 95 % certainty. To paste:"
        yield ""
        yield to_paste(row)
        if row.threshold == report.in_use:
            yield ""
            yield "It is the threshold in use."
        return
    yield f"No threshold to recommend: {report.choice.reason}."
    if best is not None and len(report.evidence.pairs) >= tuning.LABELS_MIN:
        # Rounded up: what is proposed must be reachable.
        reachable = math.ceil(best.guarded.interval[1] * 1000) / 1000
        if reachable < 1:
            yield f"--max-wrong {reachable:g} would be reachable."


def told(report: Report) -> dict[str, Any]:
    """The report as JSON. Rates are 0..1, null where there was nothing to count. Pure."""
    row = report.choice.row
    return {
        "source": report.evidence.source,
        "notes": list(report.evidence.notes),
        "max_wrong": report.max_wrong,
        "threshold_in_use": report.in_use,
        "threshold": row.threshold if row else None,
        "config": to_paste(row) if row else None,
        "reason": report.choice.reason,
        "best_threshold": report.choice.best.threshold if report.choice.best else None,
        "rows": [
            {"threshold": one.threshold, "guarded": _figures(one.guarded), "unguarded": _figures(one.bare)}
            for one in report.rows
        ],
        "families_at": report.shown,
        "families": [
            {"name": one.name, "guarded": _figures(one.guarded), "unguarded": _figures(one.bare)}
            for one in report.families
        ],
        "guards": [asdict(one) for one in report.guards],
    }


def _figures(tally: Tally) -> dict[str, Any]:
    low, high = tally.interval
    return {
        "pairs": tally.pairs,
        "right": tally.right,
        "hits": tally.hits,
        "wrong_hits": tally.wrong,
        "hit_rate": tally.hit_rate,
        "wrong_hit_rate": tally.wrong_rate,
        "wrong_hit_rate_low": low,
        "wrong_hit_rate_high": high,
        "precision": tally.precision,
        "recall": tally.recall,
    }


def _write_png(path: Path, report: Report) -> None:
    if not report.evidence.pairs:
        raise ConfigError(f"--png {path}: there is nothing to draw")
    curve.write_png(
        path,
        report.rows,
        max_wrong=report.max_wrong,
        in_use=report.in_use,
        chosen=report.choice.row,
        title=report.evidence.source,
    )


def _plain(name: str) -> Text:
    """A name that others chose, without what a terminal or rich would act on."""
    return Text("".join(sign if sign.isprintable() else "?" for sign in name))


def _fixed(share: float | None, digits: int = 1) -> str:
    """A share as per cent with so many digits behind the point, for columns."""
    return "-" if share is None else f"{100 * share:.{digits}f}%"
