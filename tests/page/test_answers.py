"""What the page says in words follows from the figures: its pure functions, called in the browser with made-up ones."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.fakes.house import House
from tests.page.conftest import Screen, looking_at, plain

pytestmark = pytest.mark.asyncio(loop_scope="session")

OK = {"state": "ok", "reason": ""}
PARTS = {"redis": OK, "upstream": OK, "models": OK, "embedder": OK}
AWAY = {"state": "down", "reason": "connection refused"}
BUDGET = {"limit_s": 0.005, "breaches": 0, "asks": 1000}
SLOW = BUDGET | {"breaches": 6}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def screen(busy: House, browser: Browser) -> Any:
    """One page for all of them: nothing here changes it."""
    async with looking_at(browser, busy) as opened:
        yield opened


async def call(screen: Screen, module: str, function: str, *given: Any) -> Any:
    """What a function of a module of the page returns."""
    script = "async ([module, name, given]) => (await import(`/page/${module}.js`))[name](...given)"
    return await screen.evaluate(script, [module, function, list(given)])


@pytest.mark.parametrize(
    ("changed", "before", "tone", "text"),
    [
        ({}, None, "ok", "All parts work"),
        ({"parts": PARTS | {"embedder": {"state": "off", "reason": ""}}}, None, "ok", "All parts work"),
        ({"parts": PARTS | {"redis": AWAY | {"state": "degraded"}}}, None, "bad", "Redis is away: connection refused"),
        ({"parts": PARTS | {"upstream": AWAY, "models": AWAY}}, None, "bad", "Ollama is away: connection refused"),
        ({"parts": PARTS | {"upstream": AWAY | {"state": "degraded", "reason": "gpu2: gone"}}}, None, "warn",
         "One Ollama of several is away: gpu2: gone"),
        ({"parts": PARTS | {"embedder": AWAY}}, None, "warn", "Exact answers only: connection refused"),
        ({"faults": {"check_mismatch": 1}}, None, "warn", "1 answer lay under the key of another ask since the start"),
        ({"budgets": {"exact": BUDGET | {"breaches": 900}}}, None, "ok", "All parts work"),
        ({"budgets": {"exact": SLOW}}, {"exact": BUDGET | {"asks": 900}}, "warn", "All parts work, some slowly"),
        ({"budgets": {"exact": SLOW}}, {"exact": BUDGET | {"asks": 990}}, "ok", "All parts work"),
    ],
)  # fmt: skip
async def test_the_first_line_tells_the_worst(
    screen: Screen, changed: dict[str, Any], before: dict[str, Any] | None, tone: str, text: str
) -> None:
    """A slow hour of the past is not called slow now, and a few asks prove nothing."""
    stats = {"parts": PARTS, "faults": {}, "budgets": {}, "uptime_s": 60} | changed
    told = await call(screen, "answers", "condition", stats, {"budgets": before} if before else None)

    assert (told["tone"], told["text"]) == (tone, text)


@pytest.mark.parametrize(
    ("function", "given", "text"),
    [
        ("percent", None, "\N{EN DASH}"), ("percent", 0, "0 %"), ("percent", 1, "100 %"), ("percent", 0.4612, "46.1 %"),
        ("percent", 0.0001, "< 0.1 %"), ("percent", 0.99999, "> 99.9 %"),
        ("points", 0.071, "+7.1 points"), ("points", -0.028, "\N{MINUS SIGN}2.8 points"), ("points", 0, "no change"),
        ("points", 0.0002, "under 0.1 points"),
        ("duration", 0, "0 s"), ("duration", 1e-7, "< 0.01 ms"), ("duration", 0.00041, "0.41 ms"),
        ("duration", 0.0031, "3.1 ms"), ("duration", 0.9, "900 ms"), ("duration", 3.4, "3.4 s"),
        ("duration", 150, "2.5 min"), ("duration", 5040, "84 min"), ("duration", 26640, "7.4 h"),
        ("duration", 400000, "4.6 days"),
        ("count", 4544, "4,544"), ("count", 1234567, "1.2M"), ("bytes", 8400000, "8.4 MB"), ("bytes", 12, "12 B"),
        ("threshold", 0.9, "0.90"), ("threshold", 0.925, "0.925"), ("threshold", 1, "1.00"),
        ("rate", 0, "0.0 / s"), ("rate", 0.034, "0.03 / s"), ("rate", 34.2, "34 / s"),
    ],
)  # fmt: skip
async def test_figures_read_as_people_write_them(screen: Screen, function: str, given: float | None, text: str) -> None:
    """Unknown is a dash; what is neither nothing nor all never reads as 0 or 100."""
    assert plain(await call(screen, "words", function, given)) == text


async def test_a_threshold_between_two_bins_changes_nothing_by_itself(screen: Screen) -> None:
    """0.925 lies in the bin of 0.92: what was served there stays until the slider passes it."""
    rows = [
        {"at": at / 100, "served": 3 if at >= 92 else 0, "below": 2 if at <= 92 else 0, "guarded": 1}
        for at in range(50, 101)
    ]
    found = {"threshold": 0.925, "bin": 0.01, "mode": "serve", "asks": 200, "hits": 60, "rows": rows}
    changes = {
        at: (await call(screen, "whatif", "estimate", found, at))["hits"] - 60 for at in (0.9, 0.92, 0.925, 0.93, 0.94)
    }

    assert changes == {0.9: 6, 0.92: 2, 0.925: 0, 0.93: -3, 0.94: -6}


async def test_in_shadow_mode_the_estimate_adds_what_would_have_been_served(screen: Screen) -> None:
    """Nothing is served there, so the hits do not hold them."""
    rows = [{"at": at / 100, "served": 3 if at >= 92 else 0, "below": 0, "guarded": 0} for at in range(50, 101)]
    found = {"threshold": 0.92, "bin": 0.01, "mode": "shadow", "asks": 200, "hits": 60, "rows": rows}
    told = await call(screen, "whatif", "estimate", found, 0.92)

    assert (told["hits"], told["change"]) == (87, 0)
