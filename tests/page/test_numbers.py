"""What the dashboard shows is what was counted."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import Browser

from tests.fakes.house import MODEL, House
from tests.page.conftest import SERVED, counted, looking_at

pytestmark = pytest.mark.asyncio(loop_scope="session")


DASH = "\N{EN DASH}"


def percent(share: float | None) -> str:
    """As the page writes it."""
    return DASH if share is None else f"{share * 100:.{0 if share in (0, 1) else 1}f} %"


async def test_the_numbers_on_the_page_are_those_of_stats(busy: House, browser: Browser) -> None:
    """Tiles, models and reasons alike."""
    stats = await counted(busy)
    day, hour, week = (stats["fleet"]["windows"][name] for name in ("24h", "1h", "7d"))
    async with looking_at(browser, busy) as screen:
        await screen.live()
        await screen.shows("#model-table", "qwen3")

        assert await screen.tile("rate-now") == (percent(hour["hit_rate"]), f"{hour['asks']} asks")
        assert (await screen.tile("rate-week"))[0] == percent(week["hit_rate"])
        looked = day["asks"] - day["outcomes"]["bypass"]
        served, wrong = day["outcomes"]["semantic"], stats["feedback"].get("bad", 0) or "none"
        assert served >= len(SERVED)
        told = f"{served} served; {wrong} reported wrong to this proxy since its start"
        assert await screen.tile("semantic") == (percent(served / looked), told)
        assert f"{week['saved_tokens']} tokens" in (await screen.tile("saved"))[1]
        for name, model in stats["fleet"]["models"].items():
            line = (await screen.text(f'#model-table tr:has(th:text-is("{name}"))')).split()
            assert str(model["asks"]) in line
            assert percent(model["hit_rate"]).split()[0] in line
        assert await screen.text("#bypass-table tbody tr") == "no-store 1"
        assert stats["budgets"]["exact"]["limit_s"] == 0.005
        assert " 5.0 ms " in await screen.text('#step-table tr:has-text("by key")')


async def test_the_poor_model_is_named(busy: House, browser: Browser) -> None:
    """25 asks that wanted no stored answer: at the top, and in the table."""
    rate = (await counted(busy))["fleet"]["models"]["qwen3:latest"]["hit_rate"]
    async with looking_at(browser, busy) as screen:
        await screen.shows('[data-key="poorest"]', "qwen3")

        value, note = await screen.tile("poorest")
        assert (value, note) == (percent(rate), "qwen3:latest, 25 asks")
        assert "poor" in await screen.text('#model-table tr:has-text("qwen3")')


async def test_a_hit_moves_the_figures_without_a_reload(quiet: House, browser: Browser) -> None:
    """Within seconds, by exactly one; and the ask is on top of the list, once."""
    await quiet.chat("why?")
    await quiet.settled()
    await counted(quiet)
    async with looking_at(browser, quiet) as screen:
        await screen.live()
        await screen.shows('[data-key="rate-now"]', "0 %")
        await quiet.chat("why?")
        await screen.shows('[data-key="rate-now"]', "50.0 %")

        assert (await screen.tile("rate-now"))[1] == "2 asks"
        await screen.shows("#ask-list li:first-child", "exact")
        await asyncio.sleep(1.5)  # long enough for the same ask to come again from the ledger
        assert await screen.find("#ask-list > li").count() == 2
        assert await screen.find("#ask-list > li.exact").count() == 1


async def test_an_empty_cache_says_so_in_words(quiet: House, browser: Browser) -> None:
    """No zero stands for what is not known, and nothing is called broken."""
    async with looking_at(browser, quiet) as screen:
        await screen.live()
        await screen.shows("#condition", "All parts work")
        await screen.shows("#hit-empty", "No asks in this time")

        assert await screen.tile("rate-now") == (DASH, "no asks in this hour")
        assert await screen.text("#ask-nothing") == "No asks yet."
        assert "No model was asked yet" in await screen.text("#model-table")
        assert "semantic.mode" in await screen.text("#threshold-note")
        assert await screen.text("#fault-table") == "Nothing has gone wrong since the start."


async def test_the_time_shown_can_be_chosen(busy: House, browser: Browser) -> None:
    """Ten minutes, a day, two weeks: each chart tells the same rate, as all of it happened just now."""
    rate = percent((await counted(busy))["hit_rate"])
    async with looking_at(browser, busy) as screen:
        await screen.live()
        for name in ("24h", "14d"):
            await screen.find(f'[data-range="{name}"]').click()
            await screen.shows("#hit-legend strong", rate)
            assert rate in (await screen.find("#hit-chart").get_attribute("aria-label") or "").replace("\u00a0", " ")
            assert await screen.find(f'[data-range="{name}"]').get_attribute("aria-pressed") == "true"


async def test_what_is_loaded_and_waiting_is_shown(busy: House, browser: Browser) -> None:
    """The models in Ollama's memory with what they take."""
    async with looking_at(browser, busy) as screen:
        await screen.shows("#loaded-table", MODEL)

        stats = await busy.stats()
        names = {model["name"] for model in stats["models_loaded"]}
        assert {await cell.inner_text() for cell in await screen.find("#loaded-table tbody th").all()} == names
