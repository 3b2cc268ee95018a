"""The dashboard can be read: on a phone, in the dark, by keyboard, without motion, with little sight."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.async_api import Browser

from tests.fakes.house import House
from tests.page.conftest import Screen, looking_at

pytestmark = pytest.mark.asyncio(loop_scope="session")

HERE = Path(__file__).parent
CONTRAST = (HERE / "contrast.js").read_text(encoding="utf-8")
NAMELESS = (HERE / "nameless.js").read_text(encoding="utf-8")


async def filled(screen: Screen) -> None:
    """Wait until every panel has something in it, and open one ask."""
    await screen.live()
    await screen.shows("#model-table", "qwen3")
    await screen.shows(".pairs", "password")
    await screen.slide(0.85)
    await screen.find("#ask-list li.semantic button.ask").first.click()


async def test_every_text_has_contrast_enough(busy: House, browser: Browser) -> None:
    """In both colour schemes, dialogs included; the dark one is dark, and the charts are drawn anew in it."""
    pixels = "() => document.querySelector('#similarity-chart canvas').toDataURL()"
    async with looking_at(browser, busy, color_scheme="light") as screen:
        await filled(screen)
        drawn = await screen.evaluate(pixels)
        assert await screen.evaluate(CONTRAST) == []
        await screen.page.emulate_media(color_scheme="dark")
        await screen.page.wait_for_function(f"(drawn) => ({pixels})() !== drawn", arg=drawn)
        assert await screen.evaluate(CONTRAST) == []
        await screen.find("#forget-all").click()
        assert await screen.evaluate(CONTRAST) == []

        ground = await screen.evaluate("getComputedStyle(document.body).backgroundColor")
        assert sum(map(int, re.findall(r"\d+", ground))) < 100


async def test_nothing_is_wider_than_the_screen(busy: House, browser: Browser) -> None:
    """From phone to desk; what must be wide scrolls by itself, and charts follow when the phone is turned."""
    async with looking_at(browser, busy, viewport={"width": 360, "height": 780}) as screen:
        await filled(screen)
        for width in (360, 768, 1360):
            await screen.page.set_viewport_size({"width": width, "height": 800})
            fits = "(width) => document.querySelector('#similarity-chart canvas').clientWidth > width * 0.7"
            await screen.page.wait_for_function(fits, arg=width)
            assert await screen.evaluate("document.documentElement.scrollWidth") <= width
            box = await screen.find("#similarity-chart canvas").bounding_box()
            assert box is not None
            assert box["width"] < width


async def test_everything_that_can_be_used_has_a_name_and_a_place_in_the_order(busy: House, browser: Browser) -> None:
    """For those who hear the page; the first stop of the keyboard skips to the figures."""
    async with looking_at(browser, busy) as screen:
        await filled(screen)
        assert await screen.evaluate(NAMELESS) == []
        await screen.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
        await screen.page.reload()
        await screen.page.keyboard.press("Tab")

        assert await screen.evaluate("document.activeElement.className") == "skip"


async def test_nothing_moves_for_those_who_want_no_motion(busy: House, browser: Browser) -> None:
    """No animation, transition or smooth scrolling is left; figures still come."""
    async with looking_at(browser, busy, reduced_motion="reduce") as screen:
        await filled(screen)

        assert await screen.evaluate("document.getAnimations().length") == 0
        assert await screen.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"


async def test_inline_scripts_and_styles_are_forbidden(busy: House, browser: Browser) -> None:
    """What got into the page all the same would not run: the policy of the page holds."""
    async with looking_at(browser, busy, careful=False) as screen:
        await screen.live()
        await screen.evaluate(
            "document.body.insertAdjacentHTML('beforeend', '<img src=\"/page/none.svg\" onerror=\"document.title=1\">')"
        )
        await screen.page.wait_for_timeout(300)

        assert await screen.page.title() != "1"
        assert any("Content Security Policy" in said for said in screen.errors)
