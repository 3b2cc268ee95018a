"""A step that takes longer than its budget is counted each time and told once a minute."""

from __future__ import annotations

import logging

import pytest

from cacheproxy import budgets as module
from cacheproxy.budgets import NONE, Breaches, Budgets, Watch, line
from cacheproxy.config import Budgets as Settings
from cacheproxy.config import Config
from cacheproxy.counting.labels import STEPS
from cacheproxy.metrics import Metrics
from tests.fakes.clock import FakeClock
from tests.fakes.house import open_house, until

TIGHT = Budgets.of({"exact": 0.005, "queue": 1.0, "reply": 0.0})


def lines(caplog):
    """What the log said of budgets."""
    return [record.getMessage() for record in caplog.records if "over budget" in record.getMessage()]


@pytest.mark.parametrize(
    ("step", "seconds", "broken"),
    [
        ("exact", 0.005, False),
        ("exact", 0.0051, True),
        ("queue", 0.9, False),
        ("reply", 99.0, False),
        ("embed", 9, False),
    ],
)
def test_a_budget_is_broken_by_what_is_longer(step, seconds, broken):
    """Exactly at the limit is within it; 0 and no limit at all are never broken."""
    assert TIGHT.broken(step, seconds) is broken


def test_without_budgets_nothing_is_broken():
    """The default of what is built without a config."""
    assert not any(NONE.broken(step, 1e9) for step in STEPS)


def test_each_step_can_have_a_budget_and_nothing_else_can():
    """A step added to the code gets a key, so that nobody looks for it in vain."""
    assert list(Settings.model_fields) == list(STEPS)


def test_breaches_are_counted_where_the_step_is():
    """Beside how often the step was taken, so that a share can be told."""
    metrics = Metrics(FakeClock(), TIGHT)
    for seconds in (0.001, 0.02, 0.004, 0.3):
        metrics.step("exact", seconds)
    metrics.step("reply", 100.0)
    found = metrics.snapshot()["budgets"]
    text = metrics.text()[0].decode()

    assert found == {
        "exact": {"limit_s": 0.005, "breaches": 2, "asks": 4},
        "queue": {"limit_s": 1.0, "breaches": 0, "asks": 0},
    }
    assert 'cacheproxy_budget_breaches_total{step="exact"} 2.0' in text
    assert 'cacheproxy_budget_breaches_total{step="queue"} 0.0' in text
    assert 'cacheproxy_budget_seconds{step="queue"} 1.0' in text


def test_the_line_names_the_step_how_often_and_the_worst():
    """In the units people think in."""
    found = {"exact": Breaches(12, 0.0482), "queue": Breaches(1, 2.5)}

    assert line(found, TIGHT) == "exact 12x over 5 ms, at worst 48.2 ms; queue 1x over 1 s, at worst 2.5 s"


def test_many_breaches_are_one_line(caplog):
    """And none are none."""
    watch = Watch(TIGHT)
    with caplog.at_level(logging.WARNING, logger="cacheproxy"):
        for _ in range(1000):
            watch.note("exact", 0.01)
        watch.tell()
        watch.tell()

    assert lines(caplog) == ["over budget: exact 1000x over 5 ms, at worst 10 ms"]


async def test_the_line_comes_by_itself_and_the_last_at_the_end(caplog, monkeypatch):
    """Closing does not swallow the last minute."""
    monkeypatch.setattr(module, "LINE_S", 0.01)
    watch = Watch(TIGHT)
    await watch.open()
    watch.note("exact", 0.01)
    await until(lambda: len(lines(caplog)) == 1)
    monkeypatch.setattr(module, "LINE_S", 60)
    watch.note("queue", 3.0)
    await watch.close()
    await watch.close()

    assert len(lines(caplog)) == 2


async def test_a_slow_step_of_a_real_ask_shows_in_stats(fake_ollama, clean_redis):
    """With a budget nobody can keep."""
    async with open_house(fake_ollama, clean_redis, budgets={"exact": "1ns", "queue": "0s"}) as house:
        await house.chat("why?", stream=False)
        await house.settled()
        found = (await house.stats())["budgets"]

    assert found["exact"] == {"limit_s": 1e-9, "breaches": 1, "asks": 1}
    assert "queue" not in found
    assert set(found) <= set(Config().budgets.model_dump())
