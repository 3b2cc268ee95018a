"""What SIGHUP changes while the program runs, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cacheproxy.config import Config
from cacheproxy.reload import LIVE, Changes, own, take_over
from tests.fakes.house import House, open_house
from tests.fakes.ollama import FakeOllama
from tests.fakes.redis_server import RedisServer

MANUAL = Path(__file__).parent.parent / "config.toml"


def changed(config: Config, **sections: dict[str, Any]) -> Config:
    """The configuration with these settings over it."""
    tree = config.model_dump(mode="json")
    for section, keys in sections.items():
        tree[section] = tree[section] | keys
    return Config.model_validate(tree)


def test_what_is_live_is_taken_and_the_rest_waits() -> None:
    """Sections are changed where they are, so that whoever holds one has the new values."""
    config = own(Config())
    cache, semantic = config.cache, config.semantic
    fresh = changed(
        config,
        cache={"ttl": "5m", "partition_headers": ["X-User"]},
        semantic={"threshold": 0.97, "mode": "off"},
        models={"llama*": {"ttl": "6h"}},
        redis={"prefix": "other"},
    )

    assert take_over(config, fresh) == Changes(
        ("cache.ttl", "semantic.threshold", "models"),
        ("redis.prefix", "cache.partition_headers", "semantic.mode"),
    )
    assert (cache.ttl, semantic.threshold, semantic.mode) == (300.0, 0.97, "serve")
    assert config.model_rule("llama3.2:latest").ttl == 6 * 3600
    assert take_over(config, config) == Changes()


def test_a_configuration_of_ones_own_shares_nothing() -> None:
    """Defaults are one object for all configurations, and must not change with any."""
    ttl_s = Config().cache.ttl
    config = own(Config())
    take_over(config, changed(config, cache={"ttl": "5m"}))

    assert Config().cache.ttl == ttl_s


@pytest.mark.parametrize("setting", [f"{section}.{key}" for section, keys in LIVE.items() for key in keys])
def test_the_manual_names_what_is_live(setting: str) -> None:
    """And it exists."""
    section, _, key = setting.partition(".")
    told = MANUAL.read_text().split("# SIGHUP", 1)[1].split("# Durations", 1)[0].replace("\n# ", " ")

    assert hasattr(getattr(Config(), section), key)
    if section == "cache":
        assert key in told.split("of [cache]")[1].split(";")[0].replace(",", "").split()
    else:
        assert setting in told or f"all of [{section}]" in told


async def test_a_model_that_is_switched_off_is_not_answered_from_the_cache_any_more(house: House) -> None:
    """From the next ask on, and back again; what was stored stays."""
    await house.chat()
    await house.settled()
    outcomes = []
    for cache in (True, False, True):
        house.app.reload(changed(house.app.config, models={"llama3.2": {"cache": cache}}))
        outcomes.append((await house.chat()).header("X-Cache"))

    assert outcomes == ["EXACT", "BYPASS", "EXACT"]


async def test_new_limits_hold_from_the_next_ask_on(house: House) -> None:
    """Of the own tier, of bodies, and of what is judged by meaning."""
    app = house.app
    await house.chat()
    await house.settled()
    app.reload(changed(app.config, cache={"memory": 0, "body_max": 10}, semantic={"guards": ["numbers"]}))
    reply = await house.chat()

    assert reply.header("Cache-Status") == "cacheproxy; fwd=bypass; detail=too-large"
    assert list(app._guards) == ["numbers"]
    app.reload(changed(app.config, cache={"body_max": "1MiB"}))
    assert (await house.chat()).header("X-Cache") == "EXACT"
    assert len(app.memory) == 0


async def test_all_workers_take_it_over(fake_ollama: FakeOllama, clean_redis: RedisServer) -> None:
    """Also one that is started afterwards."""
    async with open_house(fake_ollama, clean_redis, ready=False, server={"workers": 2}) as house:
        await house.app.wait_ready(60)
        await house.chat()
        await house.settled()
        house.app.reload(changed(house.app.config, models={"llama3.2": {"cache": False}}))
        told = {(await house.chat()).header("X-Cache") for _ in range(24)}
        house.app.fronts._fronts[0].kill()
        await house.app.fronts._fronts[0].child.wait()  # type: ignore[union-attr]  # it was up
        told |= {(await house.chat()).header("X-Cache") for _ in range(4)}
        await house.app.wait_ready(60)
        told |= {(await house.chat()).header("X-Cache") for _ in range(24)}

    assert told == {"BYPASS"}


async def test_new_budgets_hold_from_the_next_step_on(house: House) -> None:
    """What took too long under the old ones stays counted."""
    app = house.app
    app.metrics.step("parse", 0.03)
    app.reload(changed(app.config, budgets={"parse": "1s", "reply": "1ms"}))
    app.metrics.step("parse", 0.03)
    app.metrics.step("reply", 0.03)

    found = (await house.stats())["budgets"]
    assert (found["parse"]["breaches"], found["parse"]["limit_s"]) == (1, 1.0)
    assert (found["reply"]["breaches"], found["reply"]["limit_s"]) == (1, 0.001)


async def test_the_repeat_lane_has_its_share_of_the_new_size(house: House) -> None:
    """And what it held is looked up anew."""
    for _ in range(4):
        await house.chat()
        await house.settled()
    house.app.reload(changed(house.app.config, cache={"memory": "4MiB"}))

    assert house.app.lane._bytes_max == 1024**2
    assert (await house.chat()).header("X-Cache") == "EXACT"
