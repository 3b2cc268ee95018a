"""The figures as a picture: a bar a figure, its range as a line, its aim as a tick. Needs matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.report.figures import Figure, UnavailableError
from benchmarks.report.table import TIMES, number

COLOURS = {"pass": "#3b8f6b", "short": "#c4653b", "": "#9aa5b1"}
"""By verdict; figures without an aim are grey."""
BAR_INCHES = 0.27
LEFT_MIN = 0.01
"""What is less is drawn as if it were this."""


def plot(figures: Sequence[Figure], file: Path) -> None:
    """Write a PNG: what is a multiple of another's above, what is a time or a size below. Raises UnavailableError."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise UnavailableError("the PNG needs matplotlib: pip install matplotlib") from None
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    panels = [
        (title, chosen)
        for title, chosen in (
            ("ours ÷ the other's (right is better)", [each for each in figures if each.shown == "ratio"]),
            ("times and sizes, each in its unit (left is better)", [each for each in figures if each.shown != "ratio"]),
        )
        if chosen
    ]
    ink = "#3d454c"
    light: dict[Any, Any] = {"axes.labelcolor": ink, "xtick.color": ink, "ytick.color": ink, "text.color": ink}
    light |= {"axes.edgecolor": "#c9d0d6", "font.size": 8}
    with plt.rc_context(light):
        heights = [len(chosen) + 2.5 for _, chosen in panels]
        picture, axes = plt.subplots(
            len(panels), 1, figsize=(10, sum(heights) * BAR_INCHES + 0.6), squeeze=False, layout="constrained",
            gridspec_kw={"height_ratios": heights},
        )  # fmt: skip
        for axis, (title, chosen) in zip(axes[:, 0], panels, strict=True):
            _panel(axis, title, chosen)
        picture.savefig(file, dpi=150)
        plt.close(picture)


def _panel(axis: Any, title: str, figures: Sequence[Figure]) -> None:
    floor = left_end(figures)
    for place, figure in enumerate(figures):
        low, high, middle = (max(value, floor) for value in (*figure.spread, figure.median))
        axis.barh(place, middle, color=COLOURS[figure.verdict], height=0.6, alpha=0.85)
        axis.plot([low, high], [place, place], color="#2b2f33", linewidth=0.8)
        if figure.aim:
            axis.plot([figure.aim.value] * 2, [place - 0.42, place + 0.42], color="#101418", linewidth=1.6)
        where = (max(high, figure.aim.value if figure.aim else 0), place)
        axis.annotate(told(figure), where, xytext=(5, 0), textcoords="offset points", va="center")
    axis.set_title(title, loc="left")
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(lambda value, _place: f"{value:,g}")
    axis.xaxis.set_minor_formatter(lambda _value, _place: "")
    axis.set_xlim(left=floor)
    axis.margins(x=0.12)
    axis.set_yticks(range(len(figures)), [f"{each.row}: {each.name}" for each in figures])
    axis.set_ylim(len(figures) - 0.4, -0.6)
    axis.tick_params(which="both", length=0)
    axis.grid(axis="x", color="#e4e8eb", linewidth=0.6)
    axis.set_axisbelow(True)
    for edge in ("top", "right", "left"):
        axis.spines[edge].set_visible(False)


def left_end(figures: Sequence[Figure]) -> float:
    """The power of ten below all that is shown; a difference may be zero or below, which no logarithm shows."""
    shown = [value for each in figures for value in (each.spread[0], each.aim.value if each.aim else each.median)]
    least = max(LEFT_MIN, min(shown))
    return float(10 ** math.floor(math.log10(least * 0.9)))


def told(figure: Figure) -> str:
    """The judged median with its unit."""
    return f"{number(figure.median)}{TIMES if figure.shown == 'ratio' else f' {figure.unit}'}"
