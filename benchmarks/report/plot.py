"""The figures as a picture: a bar a figure, its range as a line, its aim as a tick. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.report.figures import Figure, UnavailableError
from benchmarks.report.table import number

COLOURS = {"pass": "#3b8f6b", "short": "#c4653b", "": "#9aa5b1"}
"""By verdict; figures without an aim are grey."""
BAR_INCHES = 0.27


def plot(figures: Sequence[Figure], file: Path) -> None:
    """Write a PNG: what is a multiple of another's above, what is a time or a size below. Raises UnavailableError."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise UnavailableError("the PNG needs matplotlib: pip install 'ollama-cacheproxy[plot]'") from None
    mpl.use("Agg")
    from matplotlib import pyplot

    panels = [
        (title, chosen)
        for title, chosen in (
            ("ours ÷ the other's (right is better)", [each for each in figures if each.shown == "ratio"]),
            ("times and sizes (left is better)", [each for each in figures if each.shown != "ratio"]),
        )
        if chosen
    ]
    light = {"font.family": "DejaVu Sans", "font.size": 8, "font.weight": "light", "axes.titleweight": "light"}
    with pyplot.rc_context(light):
        heights = [len(chosen) + 2.5 for _, chosen in panels]
        picture, axes = pyplot.subplots(
            len(panels), 1, figsize=(10, sum(heights) * BAR_INCHES + 0.6), squeeze=False, layout="constrained",
            gridspec_kw={"height_ratios": heights},
        )  # fmt: skip
        for axis, (title, chosen) in zip(axes[:, 0], panels, strict=True):
            _panel(axis, title, chosen)
        picture.savefig(file, dpi=150)
        pyplot.close(picture)


def _panel(axis: object, title: str, figures: Sequence[Figure]) -> None:
    axis.set_title(title, loc="left")
    least = min(min(each.spread[0] for each in figures), min((each.aim.value for each in figures if each.aim), default=1))
    floor = max(least, 1e-3) / 2  # a difference may be zero or below, which no logarithm shows
    for place, figure in enumerate(figures):
        low, high = (max(value, floor) for value in figure.spread)
        axis.barh(place, max(figure.median, floor), color=COLOURS[figure.verdict], height=0.6, alpha=0.85)
        axis.plot([low, high], [place, place], color="#2b2f33", linewidth=0.8)
        if figure.aim:
            axis.plot([figure.aim.value] * 2, [place - 0.42, place + 0.42], color="#101418", linewidth=1.6)
        unit = "×" if figure.shown == "ratio" else f" {figure.unit}"
        axis.annotate(
            f"{number(figure.median)}{unit}", (max(high, figure.median, floor), place), xytext=(4, 0),
            textcoords="offset points", va="center",
        )  # fmt: skip
    axis.set_xscale("log")
    axis.set_xlim(left=floor)
    axis.margins(x=0.12)
    axis.set_yticks(range(len(figures)), [f"{each.row}: {each.name}" for each in figures])
    axis.set_ylim(len(figures) - 0.4, -0.6)
    axis.tick_params(length=0)
    axis.grid(axis="x", color="#e4e8eb", linewidth=0.6)
    axis.set_axisbelow(True)
    for edge in ("top", "right", "left"):
        axis.spines[edge].set_visible(False)
