"""`cacheproxy stats` shows a running proxy's own figures, in a form people read."""

import asyncio
import json
import signal
import subprocess

import pytest

from cacheproxy.commands import stats
from tests.fakes.command import COMMAND, environment, run_beside
from tests.fakes.house import open_house


async def test_stats_shows_what_was_asked(house):
    """One miss and one hit read as 50 %, per model and in all."""
    await house.chat("why?", stream=False)
    await house.settled()
    await house.chat("why?", stream=False)
    url = house.app.admin_url
    lines = (await run_beside("stats", "--admin", url)).stdout.splitlines()
    told = json.loads((await run_beside("stats", "--admin", url, "--json")).stdout)

    assert lines[0].split()[:4] == ["MODEL", "ASKS", "HIT", "EXACT"]
    assert lines[1].split()[:4] == ["llama3.2:latest", "2", "50.0%", "1"]
    assert lines[2].split()[:4] == ["all", "2", "50.0%", "1"]
    assert any(line.startswith("exact (memory)") for line in lines)
    assert any(line.startswith("miss, first byte ") for line in lines)
    assert any(line.split() == ["ALL", "PROXIES", "ASKS", "HIT", "SAVED"] for line in lines)
    assert told["asks"] == 2


async def test_stats_says_why_the_figures_of_all_proxies_are_missing(fake_ollama):
    """They come from Redis; this process's own are told all the same."""
    async with open_house(fake_ollama, None, redis={"url": "redis://127.0.0.1:1/0"}) as house:
        lines = (await run_beside("stats", "--admin", house.app.admin_url)).stdout.splitlines()

    assert lines[0].split()[:2] == ["MODEL", "ASKS"]
    assert any(line.startswith("all proxies: ") and "redis" in line for line in lines)


async def test_stats_can_be_watched_until_ctrl_c(house):
    """Off a terminal each look is a new block; Ctrl-C is how it ends, so it is no failure."""
    process = await asyncio.create_subprocess_exec(
        *[*COMMAND, "stats", "--watch", "--admin", house.app.admin_url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(PYTHONUNBUFFERED="1"),
    )
    heads = 0
    async with asyncio.timeout(20):
        while heads < 2:
            heads += (await process.stdout.readline()).startswith(b"MODEL")
        process.send_signal(signal.SIGINT)
        _, errors = await process.communicate()

    assert process.returncode == 0
    assert errors == b""


async def test_steps_over_their_budget_are_told(house):
    """By name and number; those that kept to it are no news."""
    fresh = stats.table(await house.stats())
    for step, seconds in (("exact", 9), ("exact", 9), ("embed", 0), ("queue", 99)):
        house.app.metrics.step(step, seconds)

    assert not any("over budget" in line for line in fresh)
    assert "over budget  exact 2, queue 1" in stats.table(await house.stats())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0009, "0.9 ms"), (0.25, "250 ms"), (2.4, "2.4 s"), (83, "1 m 23 s"), (4980, "1 h 23 m"), (0, "0.0 ms")],
)
def test_durations_are_told_in_the_unit_that_fits(seconds, text):
    """One to three digits."""
    assert stats.duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(12, "12 B"), (3400, "3.4 kB"), (2.5e6, "2.5 MB"), (7e12, "7000.0 GB")])
def test_sizes_are_told_in_the_unit_that_fits(count, text):
    """Decimal units, as disks and `ollama list` have them."""
    assert stats.size(count) == text
