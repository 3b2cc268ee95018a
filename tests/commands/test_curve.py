"""The curve of `cacheproxy tune`, in characters and as a PNG."""

from __future__ import annotations

import re

import pytest

from cacheproxy.commands import curve
from cacheproxy.errors import ConfigError
from cacheproxy.rules.tuning import THRESHOLDS, Scored, tabulate

SCORED = [Scored(0.8 + 0.0019 * number, number % 10 > 3 - number // 30) for number in range(100)]
GUARDED = [Scored(one.similarity, one.right, "" if one.right else "numbers") for one in SCORED]
HALF = [one if number % 2 else guarded for number, (one, guarded) in enumerate(zip(SCORED, GUARDED, strict=True))]


def area(lines):
    """What stands between the axes, line by line."""
    return [line[7:].ljust(curve.WIDTH) for line in lines[1 : 1 + curve.HEIGHT]]


def test_the_curve_shows_a_point_for_each_threshold():
    """Guards take wrong hits away, so their curve lies to the left; the chosen threshold and the wish are marked."""
    rows = tabulate(HALF, THRESHOLDS)
    lines = curve.draw(rows, max_wrong=0.1, chosen=rows[10])
    drawn = area(lines)

    assert lines[0] == "hit rate"
    assert max(map(len, lines)) <= 80
    assert sum(line.count("@") for line in drawn) == 1
    assert "o 0.80" in "".join(drawn)
    first = next(line for line in drawn if "x" in line)
    lowest = next(line for line in drawn if "o" in line)
    assert lowest.index("o") < first.index("x")
    assert len({line.index(":") for line in drawn if ":" in line}) == 1
    assert "10% wrong" in lines[-1]
    assert "chosen" in lines[-1]


def test_curves_that_meet_are_drawn_as_one():
    """Without a guard that objects there is nothing to tell apart; without a choice nothing is marked as one."""
    lines = curve.draw(tabulate(SCORED, THRESHOLDS), max_wrong=0.1)
    drawn = "".join(area(lines))

    assert "#" in drawn
    assert not set("ox@") & set(drawn)
    assert "chosen" not in lines[-1]


def test_every_line_is_plain_ascii():
    """So it reads the same in a mail and on a serial console."""
    assert all(line.isascii() for line in curve.draw(tabulate(HALF, THRESHOLDS), max_wrong=0.005))


@pytest.mark.parametrize("wrong", [0, 1])
def test_curves_at_the_edges_are_drawn(wrong):
    """All hits right, or all wrong."""
    rows = tabulate([Scored(0.95, not wrong)] * 10, THRESHOLDS)
    columns = {line.rindex("#") for line in area(curve.draw(rows, max_wrong=0.005)) if "#" in line}

    assert columns == {(curve.WIDTH - 1) * wrong}


def test_without_hits_there_is_nothing_to_draw():
    """Not even axes."""
    assert curve.draw(tabulate([Scored(0.1, right=True)], THRESHOLDS), max_wrong=0.1) == []


@pytest.mark.parametrize("scored", [HALF, SCORED, [Scored(0.1, right=True)], [Scored(0.95, right=False)]])
@pytest.mark.parametrize("with_choice", [True, False])
def test_a_png_is_written(tmp_path, scored, with_choice):
    """Of the size that a page or a chat shows well, whatever there is to draw."""
    rows = tabulate(scored, THRESHOLDS)
    path = tmp_path / "curve.png"
    chosen = rows[-1] if with_choice else None
    curve.write_png(path, rows, max_wrong=0.01, in_use=0.92, chosen=chosen, title="$ 7 pairs _of^ {x}")
    data = path.read_bytes()

    assert data.startswith(b"\x89PNG\r\n")
    assert (int.from_bytes(data[16:20]), int.from_bytes(data[20:24])) == (1440, 624)


def test_a_png_that_cannot_be_written_is_told(tmp_path):
    """With the path and the cause."""
    path = tmp_path / "none" / "curve.png"
    with pytest.raises(ConfigError, match=f"{re.escape(str(path))}: no such file or directory"):
        curve.write_png(path, tabulate(HALF, THRESHOLDS), max_wrong=0.1, in_use=0.92, chosen=None, title="")


@pytest.mark.parametrize(("name", "reason"), [("none/x.png", "there is no "), ("", "is a directory")])
def test_a_file_that_cannot_be_written_is_told_ahead(tmp_path, name, reason):
    """Before minutes of measuring; one that can be is left as it is."""
    with pytest.raises(ConfigError, match=reason):
        curve.check_writable(tmp_path / name)

    curve.check_writable(tmp_path / "new.png")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_it_is_told_what_to_install(monkeypatch):
    """Before anything is computed for a picture nobody can draw."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="pip install matplotlib"):
        curve.check_png()
