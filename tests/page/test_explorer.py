"""The threshold explorer tells what another threshold would have given, and calls it an estimate."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import Browser

from cacheproxy.config import load
from tests.fakes.house import House
from tests.page.conftest import HOSTILE, SERVED, counted, looking_at
from tests.page.test_numbers import percent

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def similarity(house: House) -> dict[str, Any]:
    """What the port tells of a day."""
    await counted(house)
    told: dict[str, Any] = (await house.admin("GET", "/similarity?hours=24")).json()
    return told


def hits_at(told: dict[str, Any], threshold: float) -> int:
    """By hand: hits without the semantic ones, and all that had been near enough and was no guard's."""
    near = [row for row in told["rows"] if row["at"] > threshold - 0.005]
    return int(told["hits"] - told["semantic"] + sum(row["served"] + row["below"] for row in near))


async def test_at_the_present_threshold_it_shows_the_rate_there_is(busy: House, browser: Browser) -> None:
    """The real one, with no word of an estimate."""
    told = await similarity(busy)
    async with looking_at(browser, busy) as screen:
        await screen.shows("#threshold-change", "as it is now")

        assert await screen.text("#threshold-rate") == percent(told["hits"] / told["asks"])
        assert (await screen.text("#threshold-hits")).startswith(f"{told['hits']} of {told['asks']} asks")
        assert await screen.text("#threshold-value") == "0.92"
        assert not await screen.find("#threshold-estimate").is_visible()


async def test_what_it_shows_is_what_the_similarities_say(busy: House, browser: Browser) -> None:
    """The same number as computed here, at thresholds below and above."""
    told = await similarity(busy)
    async with looking_at(browser, busy) as screen:
        await screen.shows("#threshold-change", "as it is now")
        for threshold in (0.60, 0.75, 0.85, 0.9, 0.91, 0.93, 0.97, 1.0):
            await screen.slide(threshold)
            hits = hits_at(told, threshold)

            assert (await screen.text("#threshold-hits")).startswith(f"{hits} of {told['asks']} asks"), threshold
            assert await screen.text("#threshold-rate") == percent(hits / told["asks"])
            assert "estimate" in await screen.text("#threshold-change")
            assert "decides what gets stored" in await screen.text("#threshold-estimate")


async def test_the_keyboard_moves_it_and_hits_only_grow_downwards(busy: House, browser: Browser) -> None:
    """One hundredth a key; back at the present threshold stands the real rate again."""
    told = await similarity(busy)
    async with looking_at(browser, busy) as screen:
        await screen.shows("#threshold-change", "as it is now")
        slider = screen.find("#threshold-slider")
        await slider.focus()
        found = []
        for _ in range(32):
            found.append(int((await screen.text("#threshold-hits")).split()[0]))
            await slider.press("ArrowLeft")
        assert found == sorted(found)
        assert found[0] < found[-1]
        for _ in range(32):
            await slider.press("ArrowRight")

        assert await screen.text("#threshold-change") == "as it is now"
        assert await screen.text("#threshold-rate") == percent(told["hits"] / told["asks"])


async def test_the_mouse_moves_it_on_the_chart(busy: House, browser: Browser) -> None:
    """Pressing in the middle of the chart asks for the similarity that stands there; one button goes back."""
    async with looking_at(browser, busy) as screen:
        await screen.shows("#threshold-change", "as it is now")
        area = screen.find("#similarity-chart .u-over")
        await area.scroll_into_view_if_needed()
        box = await area.bounding_box()
        assert box is not None
        await screen.page.mouse.click(box["x"] + box["width"] * (0.80 - 0.60) / 0.41, box["y"] + 50)
        assert await screen.text("#threshold-value") == "0.80"
        await screen.find("#threshold-back").click()

        assert await screen.text("#threshold-change") == "as it is now"


async def test_the_lines_to_copy_are_a_configuration(busy: House, browser: Browser, tmp_path: Any) -> None:
    """They load, and say what the slider says; for one model they are about that model."""
    async with looking_at(browser, busy) as screen:
        await screen.shows("#threshold-change", "as it is now")
        await screen.slide(0.9)
        file = tmp_path / "c.toml"
        file.write_text(await screen.find("#threshold-toml").inner_text())
        assert load(file, env={}).semantic.threshold == 0.9
        await screen.find("#threshold-model").select_option("llama3.2:latest")
        await screen.shows("#threshold-toml", "models")
        file.write_text(await screen.find("#threshold-toml").inner_text())

        assert load(file, env={}).model_rule("llama3.2:latest").threshold == 0.9


async def test_the_tile_tells_what_a_little_less_would_give(busy: House, browser: Browser) -> None:
    """0.02 below the present one, the same estimate as the explorer's."""
    told = await similarity(busy)
    async with looking_at(browser, busy) as screen:
        await screen.shows('[data-key="what-if"]', "0.90")

        assert (await screen.tile("what-if"))[0] == percent(hits_at(told, 0.9) / told["asks"])


async def test_pairs_around_the_line_are_shown_as_text(busy: House, browser: Browser) -> None:
    """Asked beside stored, whatever they hold: markup in a question stays a question."""
    async with looking_at(browser, busy) as screen:
        for stored, reworded in SERVED:
            await screen.shows(".pairs .asked", reworded)
            await screen.shows(".pairs .stored", stored)
        await screen.shows(".pairs", HOSTILE)
        await screen.shows("#ask-list", HOSTILE[:20])

        assert await screen.find("main img").count() == 0
        assert await screen.evaluate("document.querySelectorAll('main script').length") == 0
        assert await screen.page.title() != "taken"
