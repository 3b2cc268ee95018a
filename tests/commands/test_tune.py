"""`cacheproxy tune` says which threshold the evidence speaks for, and proposes none where it does not."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tomllib

import pytest

from cacheproxy.commands import tune
from cacheproxy.commands.evidence import Evidence
from cacheproxy.config import Config
from cacheproxy.rules.tuning import THRESHOLDS, Scored
from tests.commands.test_evidence import record, written
from tests.fakes.command import COMMAND, environment, run, run_beside
from tests.fakes.house import open_house, until
from tests.fakes.terminal import run_on_terminal

HEAVY = ("torch", "sentence_transformers", "onnxruntime", "numpy", "redis", "redisvl", "matplotlib", "aiohttp")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """120 labelled pairs: rewordings that share an answer, and amounts that differ."""
    path = tmp_path_factory.mktemp("tune") / "pairs.jsonl"
    right = [
        {
            "a": f"How do I close account {n}?",
            "b": f"What must I do in order to close account {n}?",
            "y": 1,
            "fam": "rewording",
        }
        for n in range(110)
    ]
    wrong = [
        {
            "a": f"How many euros are {n}.50 dollars today?",
            "b": f"How many euros are {n}.51 dollars today?",
            "y": 0,
            "fam": "[bold]number\x1b[2J",
        }
        for n in range(10)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in right + wrong))
    return path


def test_the_report_ends_with_lines_to_paste(pairs, tmp_path):
    """They are TOML the program takes; the table has a line for each threshold and marks the chosen and the used."""
    picture = tmp_path / "curve.png"
    lines = run("tune", str(pairs), "--max-wrong", "0.05", "--png", str(picture), check=0).stdout.splitlines()
    pasted = lines[lines.index("[semantic]") :]
    threshold = Config.model_validate(tomllib.loads("\n".join(pasted[:2]))).semantic.threshold

    assert lines[0] == "120 pairs of pairs.jsonl, embedded by all-MiniLM-L6-v2"
    table = [line for line in lines if line[2:6] in {f"{one:.2f}" for one in THRESHOLDS}]
    assert [line[2:6] for line in table] == [f"{one:.2f}" for one in THRESHOLDS]
    assert [line for line in table if line.startswith(">")] == [
        line for line in table if f"{threshold:.2f}" in line[:6]
    ]
    assert [line[2:6] for line in table if line.startswith("*")] == ["0.92"]
    assert "hit rate" in lines
    assert any(line.startswith("[bold]number?[2J") for line in lines)
    assert any(line.split()[:2] == ["numbers", "10"] for line in lines)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "\x1b" not in "".join(lines)


def test_json_has_the_whole_report(pairs):
    """Every figure by its name, with the counts it was made from."""
    told = json.loads(run("tune", str(pairs), "--max-wrong", "0.05", "--json", check=0).stdout)
    row = next(one for one in told["rows"] if one["threshold"] == told["threshold"])

    assert told["config"] == f"[semantic]\nthreshold = {told['threshold']:g}"
    assert told["threshold_in_use"] == 0.92
    assert told["reason"] == ""
    assert row["guarded"]["wrong_hits"] == 0
    assert row["unguarded"]["wrong_hits"] == 10
    assert row["guarded"]["wrong_hit_rate_high"] <= 0.05
    assert row["unguarded"]["precision"] == 1 - row["unguarded"]["wrong_hit_rate"]
    assert {one["name"] for one in told["families"]} == {"rewording", "[bold]number\x1b[2J"}
    assert told["guards"] == [{"guard": "numbers", "wrong_prevented": 10, "right_lost": 0}]


def test_a_wish_out_of_reach_exits_with_1(pairs):
    """And says what could be reached, and what it would take."""
    done = run("tune", str(pairs), check=1)

    assert "No threshold to recommend" in done.stdout
    assert "765 hits" in done.stdout
    assert "--max-wrong 0.034 would be reachable." in done.stdout
    assert "[semantic]" not in done.stdout


def test_too_few_labels_exit_with_1(tmp_path, pairs):
    """The count says how many are missing."""
    few = tmp_path / "few.jsonl"
    few.write_text("".join(pairs.read_text().splitlines(keepends=True)[-38:]))
    done = run("tune", str(few), "--max-wrong", "0.5", check=1)

    assert "not enough evidence (38 of 100 labels)" in done.stdout


def test_the_configuration_decides_as_in_the_proxy(tmp_path, pairs):
    """The threshold in use gets its row even between the others; without its guards every amount is a wrong hit."""
    path = tmp_path / "my.toml"
    path.write_text("[semantic]\nthreshold = 0.925\nguards = []\n")
    told = json.loads(run("tune", str(pairs), "--config", str(path), "--json", check=1).stdout)
    shown = run("tune", str(pairs), "--config", str(path), check=1).stdout

    row = next(one for one in told["rows"] if one["threshold"] == 0.925)
    assert row["guarded"] == row["unguarded"]
    assert row["guarded"]["wrong_hits"] == 10
    assert "\n* 0.925" in shown


def test_the_shadow_record_is_judged_as_an_estimate(clean_redis):
    """By model, and with the time it covers."""
    records = [record(similarity=0.95) for _ in range(130)] + [record(similarity=0.85, likeness=0.1)] * 3
    settings = asyncio.run(written(clean_redis, *records))
    done = run("tune", "--shadow", "--redis", settings.redis.url, "--max-wrong", "0.05", check=0)
    strict = run("tune", "--shadow", "--redis", settings.redis.url, "--max-wrong", "0.05", "--alike", "0.95", check=1)

    assert "133 near matches that shadow mode wrote down" in done.stdout
    assert "an estimate" in done.stdout
    assert "by model" in done.stdout
    assert "[semantic]\nthreshold = 0.95" in done.stdout
    assert "No threshold to recommend" in strict.stdout


async def test_what_a_proxy_in_shadow_mode_writes_is_what_is_judged(fake_ollama, clean_redis):
    """From two questions over the wire to one pair in the report."""
    async with open_house(fake_ollama, clean_redis, semantic={"mode": "shadow"}) as house:
        assert await house.app.vectors.wait_ready(20)
        await until(lambda: house.app.semantic.state == "ready" and house.app.apart.known)
        for question in ("How do I close account 7?", "What must I do in order to close account 7?"):
            await house.chat(question, stream=False)
            await house.settled()
        done = await run_beside("tune", "--shadow", "--redis", clean_redis.url, "--json", check=1)
    told = json.loads(done.stdout)
    served = [one["threshold"] for one in told["rows"] if one["guarded"]["hits"]]

    assert told["source"].startswith("1 near match")
    assert max(served) in (0.94, 0.95)
    assert [one["name"] for one in told["families"]] == ["llama3.2:latest"]


def test_an_empty_shadow_record_says_how_to_fill_it(clean_redis):
    """No table of zeros; there is nothing to draw either."""
    done = run("tune", "--shadow", "--redis", clean_redis.url, check=1)
    drawn = run("tune", "--shadow", "--redis", clean_redis.url, "--png", "curve.png", check=2)

    assert done.stdout.splitlines()[0].endswith('it does so while semantic.mode = "shadow"')
    assert "not enough evidence (0 of 100 labels)" in done.stdout
    assert "threshold  " not in done.stdout
    assert "nothing to draw" in drawn.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "either a file of labelled pairs or --shadow"),
        (["pairs.jsonl", "--shadow"], "either a file of labelled pairs or --shadow"),
        (["/nowhere/pairs.jsonl"], "/nowhere/pairs.jsonl: No such file"),
        (["--shadow", "--max-wrong", "5"], "--max-wrong 5: expected a share between 0 and 1"),
        (["--shadow", "--alike", "0"], "--alike 0: expected a share"),
        (["--shadow", "--engine", "quick"], "embedding.engine"),
    ],
)
def test_wrong_use_exits_with_2(arguments, told):
    """And says what is expected."""
    done = run("tune", *arguments, check=2)

    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_redis_that_is_away_exits_with_1():
    """Trying again may help."""
    done = run("tune", "--shadow", "--redis", "redis://127.0.0.1:1", check=1)

    assert done.stderr.splitlines() == [
        "cacheproxy: redis at 127.0.0.1:1 cannot be reached: start it, or name another with --redis"
    ]


def test_a_progress_bar_is_for_people_only(pairs):
    """It goes to standard error, and only to a terminal; the table fits 80 columns there."""
    command = [*COMMAND, "tune", str(pairs), "--max-wrong", "0.05"]
    code, shown = run_on_terminal(command, env=environment(TERM="xterm", COLUMNS="80"))

    assert code == 0
    assert "embedding" in shown
    assert "…" not in shown
    assert run("tune", str(pairs), "--max-wrong", "0.05").stderr == ""


@pytest.mark.parametrize("arguments", [["tune", "--help"], ["tune"]])
def test_help_and_wrong_use_load_nothing_heavy(arguments):
    """They would otherwise take a second and half a gigabyte."""
    code = (
        "import sys\nfrom cacheproxy.cli import commands\n"
        "try:\n    commands(sys.argv[1:])\n"
        f"except SystemExit:\n    print(sorted(set({HEAVY!r}) & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=False, capture_output=True, text=True, env=environment()
    )

    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_the_threshold_in_use_may_be_the_right_one():
    """Then that is said, so that nobody looks for a difference."""
    scored = [Scored(0.925, right=True)] * 1000 + [Scored(0.5, right=False)]
    report = tune.judge(Evidence(scored, "1,001 pairs"), max_wrong=0.01, in_use=0.92)

    assert report.choice.row is not None
    assert report.choice.row.threshold == 0.92
    assert "It is the threshold in use." in list(tune._verdict(report))


def test_a_long_list_of_families_is_cut(capsys):
    """The JSON has them all."""
    scored = [Scored(0.95, right=True, family=f"family {number}") for number in range(tune.FAMILIES_MAX + 5)]
    report = tune.judge(Evidence(scored, "45 pairs"), max_wrong=0.01, in_use=0.92)
    tune.show(report)

    assert "and 5 more" in capsys.readouterr().out
    assert len(tune.told(report)["families"]) == tune.FAMILIES_MAX + 5
