"""The tour shows true figures, never a wrong answer, and leaves nothing behind."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from rich.console import Console

from cacheproxy.demo.show import JOINT, TOGETHER, TOPICS, Ask, Reply, Tour, answer_to, script
from tests.fakes.terminal import run_on_terminal

ROOT = Path(__file__).parent.parent.parent
COMMAND = (sys.executable, "-m", "cacheproxy", "demo")
ROW = re.compile(r"^(EXACT|SEMANTIC|JOINED|MISS) +[\d.]+ (ms|s) ")


def environment(tmp_path):
    """One in which a trace of the tour would be found in `tmp_path`, and settings of a user's lie around."""
    return os.environ | {
        "TMPDIR": str(tmp_path),
        "HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "CACHEPROXY_SERVER__LISTEN": "nonsense",
        "CACHEPROXY_REDIS__URL": "redis://127.0.0.1:1/0",
    }


def test_the_tour_from_end_to_end(tmp_path):
    """Plain lines off a terminal; all answers right; misses for what is new, hits for what was said; exit code 0."""
    done = subprocess.run(
        [*COMMAND, "--fast"],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
        cwd=tmp_path,
        env=environment(tmp_path),
    )
    lines = done.stdout.splitlines()
    rows = [line for line in lines if ROW.match(line)]
    words = [row.split()[0] for row in rows]
    total = sum(map(len, script()))

    assert "simulated" in lines[0]
    assert len(rows) == total
    assert words[: len(TOPICS)] == ["MISS"] * len(TOPICS)
    assert words[len(TOPICS) : 3 * len(TOPICS)] == ["EXACT"] * 2 * len(TOPICS)
    assert sorted(words[3 * len(TOPICS) :][:TOGETHER]) == ["JOINED"] * (TOGETHER - 1) + ["MISS"]
    assert f"{total} asks, {total} of them answered with what belongs to the question." in lines
    assert f"Ollama was asked {words.count('MISS')} times" in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_on_a_terminal_the_words_are_coloured_and_the_figures_run_along(tmp_path):
    """The line with the running hit rate is gone at the end, and the rows stay."""
    env = environment(tmp_path) | {"TERM": "xterm", "COLUMNS": "200"}
    code, shown = run_on_terminal([*COMMAND, "--fast"], env=env)

    assert code == 0
    assert "\x1b[32mEXACT" in shown
    assert "\x1b[31mMISS" in shown
    assert "33 asks, hit rate" in shown
    assert "asks, hit rate" not in shown.rpartition("\x1b[2K")[2]


def test_a_redis_that_is_away_is_told_before_the_tour(tmp_path):
    """Without it there would be nothing to show; the directory is gone."""
    command = [*COMMAND, "--fast", "--redis", "redis://127.0.0.1:1"]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=30, env=environment(tmp_path), cwd=ROOT
    )

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("cacheproxy: redis at 127.0.0.1:1 ")
    assert done.stderr.endswith("start it, or name another with --redis\n")
    assert list(tmp_path.iterdir()) == []


async def test_sigterm_in_the_midst_of_the_tour_leaves_nothing_behind(tmp_path):
    """The embedded Redis and its directory go, as they do on Ctrl-C."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(tmp_path), cwd=ROOT
    )
    async with asyncio.timeout(60):
        while not ROW.match((await process.stdout.readline()).decode()):
            pass
        process.send_signal(signal.SIGTERM)
        _, errors = await process.communicate()

    assert process.returncode == 0
    assert errors == b""
    assert list(tmp_path.iterdir()) == []


async def test_the_tour_goes_on_serving_when_asked_to(tmp_path):
    """Its proxy answers at the address it tells until Ctrl-C, which is no failure and leaves nothing behind."""
    process = await asyncio.create_subprocess_exec(
        *[*COMMAND, "--fast", "--stay"], stdout=subprocess.PIPE, env=environment(tmp_path), cwd=ROOT
    )
    async with asyncio.timeout(30):
        line = ""
        while not line.startswith("It goes on serving"):
            line = (await process.stdout.readline()).decode()
        stats = await asyncio.to_thread(_read_json, re.search(r"http://\S+/stats", line)[0])
        process.send_signal(signal.SIGINT)
        await process.communicate()

    assert stats["asks"] == sum(map(len, script()))
    assert process.returncode == 0
    assert list(tmp_path.iterdir()) == []


def _read_json(url):
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as reply:
        return json.load(reply)


def test_the_tour_cleans_a_redis_that_is_not_its_own(clean_redis, tmp_path):
    """What it put there is gone afterwards; what was there stays."""
    clean_redis.call("SET", "mine", "1")
    command = [*COMMAND, "--fast", "--redis", clean_redis.url]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment(tmp_path), cwd=ROOT)

    assert "EXACT" in done.stdout
    assert clean_redis.call("KEYS", "*:answer:*") == []
    assert clean_redis.call("GET", "mine") in (b"1", "1")


def test_every_question_of_the_tour_has_its_own_answer():
    """And the simulated Ollama finds it in the prompt as it is sent."""
    for ask in [ask for asks in script() for ask in asks]:
        prompt = json.loads(ask.body())["messages"][0]["content"]
        topic = next(topic for topic in (*TOPICS, JOINT) if topic.context == ask.context)
        expected = topic.lookalike_answer if ask.question == topic.lookalike else topic.answer
        assert answer_to(prompt) == expected


def test_a_shuffled_body_means_the_same_and_is_other_bytes():
    """Only so does a hit on it show that the key is made of meaning."""
    plain, shuffled = Ask("why?", "c", "h"), Ask("why?", "c", "h", shuffled=True)
    read, reread = json.loads(plain.body()), json.loads(shuffled.body())

    assert plain.body() != shuffled.body()
    assert reread.pop("model") == f"{read.pop('model')}:latest"
    assert read == reread


def test_a_wrong_answer_is_shown_and_fails_the_tour():
    """The tour must not look fine when the cache gives one question's answer to another."""
    tour = Tour(Console())
    wrong = Reply(Ask(TOPICS[0].question, "", "h"), "EXACT", TOPICS[1].answer, 0.001)
    right = Reply(Ask(TOPICS[0].question, "", "h"), "MISS", TOPICS[0].answer, 0.5)

    assert not wrong.right
    assert right.right
    assert "WRONG ANSWER" in tour.row(wrong).plain
    assert "WRONG ANSWER" not in tour.row(right).plain


def test_how_much_faster_is_told_of_hits_only():
    """Against the miss in the middle; who joined waited as long as the miss."""
    tour = Tour(Console())
    ask = Ask(TOPICS[0].question, "", "h")
    for seconds in (0.4, 0.5, 0.9):
        tour.replies.append(Reply(ask, "MISS", "", seconds))

    assert tour.faster(Reply(ask, "EXACT", "", 0.001)) == "500 x"
    assert tour.faster(Reply(ask, "JOINED", "", 0.5)) == ""
    assert tour.hit_rate() == pytest.approx(0.0)
