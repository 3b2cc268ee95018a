"""A `models_at_once` that is more than fits is noticed, and nothing else is taken for it."""

from __future__ import annotations

import logging

import pytest

from cacheproxy.upstream.crowding import AGAIN_S, TIMES, WITHIN_S, Crowding
from cacheproxy.upstream.loaded import LoadedModel
from tests.fakes.clock import FakeClock
from tests.fakes.house import open_house, until
from tests.fakes.ollama import FakeOllama
from tests.fakes.redis_server import RedisServer

MINUTES = 60.0


def said(caplog: pytest.LogCaptureFixture, models_at_once: int, *reads: str, every_s: float = 5.0) -> int:
    """How often it was said after these reads, each the models that were loaded, one letter each.

    A model in capitals has minutes left; another one's time is over by the next read.
    """
    clock = FakeClock()
    crowding = Crowding(models_at_once, clock)
    with caplog.at_level(logging.WARNING, "cacheproxy.upstream"):
        for names in reads:
            left_s = {name: 10 * MINUTES if name.isupper() else 1.0 for name in names}
            crowding.read(
                [LoadedModel(name.lower(), name.lower(), 1, 0, 0, clock.now() + left_s[name]) for name in names]
            )
            clock.advance(every_s)
    return len([record for record in caplog.records if "models_at_once" in record.getMessage()])


@pytest.mark.parametrize(
    ("models_at_once", "reads"),
    [
        (2, ["A", "B"] * 3),
        (3, ["A", "B"] * 3),
        (3, ["A", "", "B", ""] * 3),
        (3, ["AB", "BC", "CA", "AB", "BC"]),
    ],
)
def test_models_that_push_each_other_out_are_said_once(
    caplog: pytest.LogCaptureFixture, models_at_once: int, reads: list[str]
) -> None:
    """Also where a read falls between the unloading and the loading."""
    assert said(caplog, models_at_once, *reads) == 1
    fit = max(map(len, reads))
    assert f"models_at_once = {models_at_once} says so; {fit} would spare" in caplog.messages[0]


@pytest.mark.parametrize(
    ("models_at_once", "reads"),
    [
        pytest.param(1, ["A", "B"] * 5, id="as the setting says"),
        pytest.param(2, ["AB", "BC", "CA"] * 3, id="one more than fit"),
        pytest.param(3, ["a", "b"] * 5, id="their time was over"),
        pytest.param(3, ["A", "AB", "ABC", "A"] * 3, id="they fit"),
        pytest.param(3, ["A", "", "A", "B", "B"] * 1, id="unloaded once or twice"),
        pytest.param(3, ["A", "", "", "B", "", ""] * 4, id="unloaded, and later another one loaded"),
    ],
)
def test_what_else_makes_models_come_and_go_is_not_said(
    caplog: pytest.LogCaptureFixture, models_at_once: int, reads: list[str]
) -> None:
    """More models than the setting allows, `keep_alive`, an operator."""
    assert said(caplog, models_at_once, *reads) == 0


async def test_a_running_proxy_looks_on(clean_redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """In front of an Ollama that holds one model at a time, with the setting left as it comes."""
    ollama = FakeOllama(loaded_max=1)
    await ollama.open()
    try:
        async with open_house(ollama, clean_redis, upstream={"digest_ttl": 0.2}) as house:
            for number in range(TIMES + 1):
                model = ("llama3:latest", "llama3.2:latest")[number % 2]
                await house.chat(f"{number}?", model=model)
                await until(lambda model=model: [m.name for m in house.first.loaded.models] == [model])  # type: ignore[misc]
            await until(lambda: "models_at_once = 3 says so; 1 would spare" in caplog.text)
    finally:
        await ollama.close()


def test_it_is_said_only_if_it_goes_on_and_not_again_for_hours(caplog: pytest.LogCaptureFixture) -> None:
    """Now and then is chance; and a log that repeats itself is not read."""
    assert said(caplog, 3, *["A", "B"] * 10, every_s=WITHIN_S / (TIMES - 1) + 1) == 0
    pairs = int(AGAIN_S / (2 * 5.0))
    assert said(caplog, 3, *["A", "B"] * (pairs - 10)) == 1
    caplog.clear()
    assert said(caplog, 3, *["A", "B"] * (pairs + 10)) == 2
