"""The figures as a Markdown table, and what must be said beside it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.report.figures import Figure, Side, Skipped

HEAD = (
    "| figure | ours | other | judged (range) | aim | | CPU µs a request, ours / other | ours, p50 / p99 µs |\n"
    "|---|---|---|---|---|---|---|---|"
)
TIMES = "\N{MULTIPLICATION SIGN}"
NOISE_SHARE_MAX = 0.1
"""Share of the server's core that others used, above which the times should be taken again."""


def number(value: float) -> str:
    """Three digits that count, with thousands set apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.01 or value == 0 else f"{value:.1g}"


def line(figure: Figure) -> str:
    """One figure as a row."""
    judged = f"{_judged(figure, figure.median)} ({number(figure.spread[0])} to {number(figure.spread[1])})"
    cells = [
        f"{figure.row}: {figure.name}",
        f"{number(figure.ours.median)} {figure.unit}",
        f"{figure.other.name}: {number(figure.other.median)} {figure.unit}" if figure.other else "",
        judged,
        str(figure.aim or ""),
        figure.verdict,
        _cpu(figure),
        _both(_detail(figure.ours, "p50_us"), _detail(figure.ours, "p99_us")),
    ]
    return "| " + " | ".join(cells) + " |"


def table(figures: Sequence[Figure]) -> str:
    """All figures."""
    return "\n".join([HEAD, *map(line, figures)])


def remarks(figures: Sequence[Figure], skipped: Sequence[Skipped], limits: Sequence[str]) -> list[str]:
    """What was not measured, and how far the rest can be trusted."""
    lines = [f"not measured: {each.row}: {each.reason}" for each in skipped]
    lines += limits
    loud = sorted({figure.row for figure in figures if _noise(figure) > NOISE_SHARE_MAX})
    if loud:
        lines.append(
            f"noise: others used more than {NOISE_SHARE_MAX:.0%} of the server's core in the median round of "
            f"{', '.join(loud)}; trust CPU a request before req/s there, or run again on a quiet machine"
        )
    return lines


def _judged(figure: Figure, value: float) -> str:
    match figure.shown:
        case "ratio":
            return f"{number(value)}{TIMES}"
        case "difference":
            return f"{value:+.3g} {figure.unit}"
        case "value":
            return f"{number(value)} {figure.unit}"


def _cpu(figure: Figure) -> str:
    """Both sides', and what their ratio would make of the figure: it hardly moves when others use the machine."""
    both = _both(_detail(figure.ours, "cpu_us"), _detail(figure.other, "cpu_us"))
    ours, other = (side.detail("cpu_us") if side else None for side in (figure.ours, figure.other))
    return f"{both}, {number(other / ours)}{TIMES}" if ours and other and figure.shown == "ratio" else both


def _detail(side: Side | None, name: str) -> str:
    value = side.detail(name) if side else None
    return "" if value is None else number(value)


def _both(one: str, other: str) -> str:
    return f"{one} / {other}" if one and other else one or other


def _noise(figure: Figure) -> float:
    sides = [side.detail("noise_share") for side in (figure.ours, figure.other) if side]
    return max((share for share in sides if share is not None), default=0.0)
