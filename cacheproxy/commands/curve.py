"""Hit rate against wrong-hit rate, threshold by threshold: drawn in plain characters, and as a PNG; times as a PNG.

The PNG needs matplotlib, which is an extra (`plot`): nobody who serves answers has to install it.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cacheproxy.errors import ConfigError
from cacheproxy.rules.tuning import Row, Tally, percent

WIDTH, HEIGHT = 60, 15
"""Of the drawing area, in characters: with its axis it fits a terminal of 80 by 24."""
_GUARDED, _BARE, _BOTH, _CHOSEN, _LIMIT = "o", "x", "#", "@", ":"
_LABEL_EVERY = 5
"""Every fifth threshold is written beside its point, and the last."""
_BLUE, _GREY, _RED = "#1f6fb4", "#8a8a8a", "#c0392b"
_GREEN, _ORANGE = "#1a7f37", "#d9822b"


def draw(rows: Sequence[Row], *, max_wrong: float, chosen: Row | None = None) -> list[str]:
    """Lines with both curves: `o` with guards, `x` without, `#` where they meet, `@` the chosen threshold. Pure.

    Empty when there is no hit to draw.
    """
    bare, guarded = _points([row.bare for row in rows]), _points([row.guarded for row in rows])
    if not bare:
        return []
    right = _ceiling(max(x for x, _ in bare + guarded + [(max_wrong, 0.0)]))
    top = _ceiling(max(y for _, y in bare + guarded))
    area = [[" "] * WIDTH for _ in range(HEIGHT)]

    def cell(tally: Tally) -> tuple[int, int] | None:
        """Line and column of a threshold's point."""
        if tally.wrong_rate is None or tally.hit_rate is None:
            return None
        down = HEIGHT - 1 - round(tally.hit_rate / top * (HEIGHT - 1))
        return down, round(tally.wrong_rate / right * (WIDTH - 1))

    for line in area:
        line[round(max_wrong / right * (WIDTH - 1))] = _LIMIT
    for tallies, sign in (([row.bare for row in rows], _BARE), ([row.guarded for row in rows], _GUARDED)):
        for down, across in filter(None, map(cell, tallies)):
            area[down][across] = _BOTH if sign == _GUARDED and area[down][across] in (_BARE, _BOTH) else sign
    for at, row in enumerate(rows):
        if at % _LABEL_EVERY == 0 or row is rows[-1]:
            _label(area, cell(row.guarded), f"{row.threshold:.2f}")
    if chosen is not None and (place := cell(chosen.guarded)):
        area[place[0]][place[1]] = _CHOSEN
    return _framed(area, right, top, max_wrong, with_choice=chosen is not None)


def _points(tallies: Sequence[Tally]) -> list[tuple[float, float]]:
    """Wrong-hit rate and hit rate of each threshold with hits."""
    return [
        (one.wrong_rate, one.hit_rate) for one in tallies if one.wrong_rate is not None and one.hit_rate is not None
    ]


def _ceiling(share: float) -> float:
    """A round figure at or above the share: the end of an axis."""
    steps = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
    return next(step for step in steps if step >= min(share, 1.0))


def _label(area: list[list[str]], place: tuple[int, int] | None, text: str) -> None:
    """Write a threshold to the right of its point, where nothing stands yet."""
    if place is None:
        return
    line, start = area[place[0]], place[1] + 2
    if start + len(text) <= WIDTH and all(sign == " " for sign in line[start - 1 : start + len(text)]):
        line[start : start + len(text)] = text


def _framed(area: list[list[str]], right: float, top: float, max_wrong: float, *, with_choice: bool) -> list[str]:
    """The area with axes and a legend."""
    named = {0: percent(top), HEIGHT // 2: percent(top / 2), HEIGHT - 1: "0%"}
    lines = ["hit rate"]
    lines += [f"{named.get(down, ''):>5} |{''.join(line)}".rstrip() for down, line in enumerate(area)]
    lines.append(f"{'':5} +{'-' * WIDTH}")
    title = "wrong-hit rate"
    lines.append(f"{'':7}0%{title:^{WIDTH - 8}}{percent(right):>6}")
    signs = [f"{_GUARDED} with guards", f"{_BARE} without", f"{_BOTH} both", f"{_LIMIT} {percent(max_wrong)} wrong"]
    return [*lines, f"{'':7}{'   '.join([*signs, f'{_CHOSEN} chosen'] if with_choice else signs)}"]


def check_writable(path: Path) -> None:
    """Raises ConfigError where no file can be written, so that nobody waits for one in vain."""
    if path.is_dir():
        raise ConfigError(f"{path}: is a directory; name a file in it")
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: there is no {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"{path}: may not be written")


def check_png() -> None:
    """Raises ConfigError where no PNG can be made, for the same reason."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError("--png needs matplotlib, which is not installed: pip install matplotlib")


def write_png(
    path: Path, rows: Sequence[Row], *, max_wrong: float, in_use: float, chosen: Row | None, title: str
) -> None:
    """Write the curve, and beside it the wrong-hit rate by threshold with its interval. Raises ConfigError."""
    check_png()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter, FuncFormatter, MaxNLocator

    figure = Figure(figsize=(12, 5.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: it would look for a display
    left, right = figure.subplots(1, 2)
    figure.suptitle(title, fontsize=12)
    _draw_curves(left, rows, max_wrong)
    _draw_rates(right, rows, max_wrong)
    _draw_thresholds(left, right, rows, in_use, chosen)
    as_percent = FuncFormatter(lambda share, _: percent(share))
    for axes in (left, right):
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(as_percent)
        axes.grid(color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
    left.set_xlim(-0.07 * left.get_xlim()[1])  # room for what stands beside points at 0
    left.xaxis.set_major_formatter(as_percent)
    left.xaxis.set_major_locator(MaxNLocator(prune="lower"))  # nothing is below 0
    right.xaxis.set_major_formatter(FormatStrFormatter("%.2f"))
    right.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5]))
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise ConfigError(f"--png {path}: {(error.strerror or str(error)).lower()}") from error


def _draw_curves(axes: Any, rows: Sequence[Row], max_wrong: float) -> None:
    """Hit rate over wrong-hit rate, thresholds written beside the points."""
    for name, colour, marker, label, aside, align in (
        ("bare", _GREY, "x", "without guards", (8, -6), "left"),
        ("guarded", _BLUE, "o", "with guards", (-8, 1), "right"),
    ):
        points = _points([getattr(row, name) for row in rows])
        style = {"color": colour, "marker": marker, "ms": 5, "lw": 1.4, "label": label}
        axes.plot([x for x, _ in points], [y for _, y in points], **style)
        for row in (row for at, row in enumerate(rows) if at % _LABEL_EVERY == 0 or row is rows[-1]):
            tally = getattr(row, name)
            if tally.hits:
                where = (tally.wrong_rate, tally.hit_rate)
                style = {"fontsize": 8, "color": colour, "ha": align, "clip_on": False}
                axes.annotate(f"{row.threshold:.2f}", where, aside, textcoords="offset points", **style)
    axes.axvline(max_wrong, color=_RED, ls="--", lw=1.2, label=f"wanted: at most {percent(max_wrong)}")
    axes.set(xlabel="wrong-hit rate (share of the hits)", ylabel="hit rate (share of the pairs)")
    axes.set_title("Hits against wrong hits, by threshold", fontsize=10)


def _draw_rates(axes: Any, rows: Sequence[Row], max_wrong: float) -> None:
    """Wrong-hit rate over threshold, with the 95 % interval whose upper end the choice goes by."""
    for name, colour, label in (("bare", _GREY, "without guards"), ("guarded", _BLUE, "with guards")):
        with_hits = [(row.threshold, getattr(row, name)) for row in rows if getattr(row, name).hits]
        thresholds, tallies = [one for one, _ in with_hits], [tally for _, tally in with_hits]
        axes.plot(thresholds, [tally.wrong_rate for tally in tallies], color=colour, lw=1.6, label=label)
        lows, highs = [tally.interval[0] for tally in tallies], [tally.interval[1] for tally in tallies]
        axes.fill_between(thresholds, lows, highs, color=colour, alpha=0.15, lw=0)
    axes.axhline(max_wrong, color=_RED, ls="--", lw=1.2)
    axes.set(xlabel="threshold (similarity)", ylabel="wrong-hit rate (share of the hits)")
    axes.set_title("Wrong hits, with their 95 % interval", fontsize=10)


def _draw_thresholds(left: Any, right: Any, rows: Sequence[Row], in_use: float, chosen: Row | None) -> None:
    """The threshold in use and the chosen one, in both pictures."""
    current = next((row for row in rows if row.threshold == in_use), None)
    for row, colour, sign, size, what in ((current, _ORANGE, "D", 8, "in use"), (chosen, _GREEN, "*", 15, "chosen")):
        if row is None:
            continue
        label = f"{what}: {row.threshold:g}"
        if row.guarded.hits:
            left.plot(row.guarded.wrong_rate, row.guarded.hit_rate, sign, color=colour, ms=size, label=label)
        right.axvline(row.threshold, color=colour, lw=1.2, label=label)


def write_times_png(path: Path, times: Mapping[str, Sequence[float]], *, title: str) -> None:
    """Write the spread of each kind of ask's times, the shortest on top, on a logarithmic axis. Raises ConfigError."""
    check_png()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kinds = sorted((kind for kind in times if times[kind]), key=lambda kind: sorted(times[kind])[len(times[kind]) // 2])
    figure = Figure(figsize=(9, 1.4 + 0.7 * len(kinds)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    figure.suptitle(title, fontsize=12)
    axes.boxplot([[1000 * one for one in times[kind]] for kind in kinds], orientation="horizontal", whis=(0, 99))
    axes.set_yticks(range(1, len(kinds) + 1), [f"{kind} ({len(times[kind])})" for kind in kinds])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("ms; box: quartiles, line: shortest to 99 %")
    axes.grid(axis="x", alpha=0.3)
    _save(figure, path)
