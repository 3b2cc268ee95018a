"""What follows from rounds: ratios, ranges, verdicts, the table and the picture."""

import json

import pytest

from benchmarks.__main__ import arguments, limits, paces, run
from benchmarks.bench import Row
from benchmarks.load.pace import Pace
from benchmarks.load.processes import Cores
from benchmarks.report import table
from benchmarks.report.figures import Aim, Figure, Side, Skipped, UnavailableError, as_json, percentile, side
from benchmarks.report.plot import left_end, plot

OURS = Side("cacheproxy", (30.0, 10.0, 60.0), {"cpu_us": (90.0, 100.0, 80.0), "noise_share": (0.0, 0.3, 0.2)})
OTHER = Side("nginx", (20.0, 20.0, 30.0), {"cpu_us": (40.0, 41.0, 39.0)})


def figure(shown="ratio", aim=None, other=OTHER):
    """One figure of three rounds."""
    return Figure("repeat", "byte-equal", "req/s", OURS, other, shown, aim)


@pytest.mark.parametrize(
    ("shown", "rounds", "median"),
    [("ratio", (1.5, 0.5, 2.0), 1.5), ("difference", (10.0, -10.0, 30.0), 10.0), ("value", (30.0, 10.0, 60.0), 30.0)],
)
def test_both_sides_of_one_round_are_compared(shown, rounds, median):
    """The ratio of medians would compare rounds that met different noise."""
    judged = figure(shown)

    assert judged.rounds == rounds
    assert judged.median == median
    assert judged.spread == (min(rounds), max(rounds))


def test_sides_of_unequal_rounds_are_no_comparison():
    """A round that one side lacks has no partner."""
    with pytest.raises(ValueError, match="zip"):
        _ = figure(other=Side("nginx", (1.0,))).rounds


@pytest.mark.parametrize(
    ("aim", "verdict"),
    [
        (Aim(1.5), "pass"),
        (Aim(1.51), "short"),
        (Aim(1.5, at_least=False), "pass"),
        (Aim(1.49, at_least=False), "short"),
        (None, ""),
    ],
)
def test_the_median_is_held_against_the_aim(aim, verdict):
    """At the aim is good enough, in both directions."""
    assert figure(aim=aim).verdict == verdict


def test_readings_of_rounds_become_a_side():
    """The reading that counts is the value, the rest are its details."""
    made = side("nginx", "requests_per_s", [{"requests_per_s": 5.0, "cpu_us": 1.0}, {"requests_per_s": 7.0}])

    assert made.values == (5.0, 7.0)
    assert made.details == {}, "one round lacks the detail"


@pytest.mark.parametrize(("share", "value"), [(0.5, 51), (0.99, 100), (0.0, 1), (1.0, 100)])
def test_a_percentile_is_one_of_the_values(share, value):
    """Nothing is made up between two."""
    assert percentile(list(range(100, 0, -1)), share) == value


@pytest.mark.parametrize(
    ("value", "text"), [(12345.6, "12,346"), (99.94, "99.9"), (0.0833, "0.0833"), (0.00123, "0.001"), (0.0, "0")]
)
def test_numbers_show_what_counts(value, text):
    """Three digits are all that a busy machine leaves."""
    assert table.number(value) == text


def test_a_row_shows_both_sides_the_range_and_the_aim():
    """All that is needed to judge a figure stands in its line."""
    line = table.line(figure(aim=Aim(1.0)))

    assert "| 30 req/s | nginx: 20 req/s |" in line
    assert f"1.5{table.TIMES} (0.5 to 2)" in line
    assert f"≥ 1 | pass | 90 / 40, 0.444{table.TIMES} |" in line
    assert line.count("|") == table.HEAD.splitlines()[0].count("|")


def test_remarks_name_what_is_missing_and_what_is_noisy():
    """A table without them would look like more than it is."""
    said = table.remarks([figure()], [Skipped("redis", "needs nginx: apt-get install nginx-light")], ["two cores"])

    assert said[0] == "not measured: redis: needs nginx: apt-get install nginx-light"
    assert said[1] == "two cores"
    assert "10%" in said[2]
    assert said[2].endswith("quiet machine")
    assert "repeat" in said[2]


def test_json_has_every_round():
    """So that another median can be taken later."""
    whole = json.loads(json.dumps(as_json(figure(aim=Aim(1.0)))))

    assert whole["ours"]["rounds"] == [30.0, 10.0, 60.0]
    assert whole["other"]["details"]["cpu_us"] == [40.0, 41.0, 39.0]
    assert (whole["median"], whole["range"], whole["verdict"]) == (1.5, [0.5, 2.0], "pass")


def test_the_picture_is_drawn_also_of_figures_below_zero(tmp_path):
    """Noise can make an added time negative, which no logarithm shows."""
    file = tmp_path / "figures.png"
    below = Figure("lone", "added", "ms", Side("a", (1.0,)), Side("b", (2.0,)), "difference", Aim(1, at_least=False))
    plot([figure(aim=Aim(1.0)), below], file)

    assert file.read_bytes().startswith(b"\x89PNG")
    assert left_end([below]) == 0.001


def test_a_row_that_fails_costs_the_others_nothing(capsys):
    """What cannot be measured is said, whatever the reason."""

    def missing(_bench):
        raise UnavailableError("needs wrk: apt-get install wrk")
        yield

    def broken(_bench):
        yield figure()
        raise KeyError("parts")

    rows = [Row("missing", "", missing), Row("broken", "", broken), Row("good", "", lambda _bench: iter([figure()]))]
    found, skipped = run(rows, bench=None)

    assert len(found) == 2
    assert skipped == [
        Skipped("missing", "needs wrk: apt-get install wrk"),
        Skipped("broken", "failed: KeyError: 'parts'"),
    ]
    assert capsys.readouterr().out.count("byte-equal") == 2


def test_how_fast_the_machine_was_is_told_of_both_ends_of_the_run():
    """A busy hour shows, also one that began or ended meanwhile."""
    assert paces(Pace(98.2, 85.0), Pace(201.0, 140.4)).startswith(
        "this machine before and after: a million additions in 98 and 201 ms, a sleeping process woken in 85 and 140 µs"
    )


def test_what_one_core_cannot_say_is_said():
    """Pinning apart needs two."""
    one, two = frozenset([0]), frozenset([1])

    assert "one core" in limits(Cores(one, one), 1, 5)[0]
    assert "two cores" in limits(Cores(one, two), 2, 5)[0]
    assert not any("core" in line for line in limits(Cores(one, two), 8, 5))
    assert any("a median wants five" in line for line in limits(Cores(one, two), 8, 3))


def test_quick_is_one_short_round():
    """It shows that everything runs, whatever else was said."""
    read = arguments(["--quick", "--rounds", "9", "--only", "repeat,lone"])

    assert (read.rounds, read.seconds, read.only) == (1, 1, ["repeat", "lone"])


@pytest.mark.parametrize("given", [["--only", "nothing"], ["--rounds", "0"], ["--entries", "10,0"]])
def test_a_command_line_without_sense_is_refused(given, capsys):
    """Before anything starts."""
    with pytest.raises(SystemExit) as caught:
        arguments(given)

    assert caught.value.code == 2
    assert capsys.readouterr().err
