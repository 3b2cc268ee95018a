"""Taking answers back from the dashboard: asked for twice, done once, and gone."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser

from tests.fakes.house import House
from tests.page.conftest import looking_at

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_wrong_answer_is_taken_back_and_the_pair_kept_apart(busy: House, browser: Browser) -> None:
    """After a confirmation; the next such ask is a miss, and the tile counts the report."""
    stored, reworded = "How do I cancel my subscription?", "How can I cancel my subscription?"
    await busy.chat(stored)
    await busy.settled()
    hit = await busy.chat(reworded)
    assert hit.header("x-cache") == "SEMANTIC"
    async with looking_at(browser, busy) as screen:
        await screen.shows("#ask-list li.semantic", reworded)
        ask = screen.find("#ask-list li.semantic").filter(has_text=reworded)
        await ask.locator("button.ask").click()
        assert hit.header("x-cache-entry") in await ask.inner_text()
        assert "near" in await ask.locator(".trail").inner_text()
        await ask.get_by_text("Wrong answer").click()
        assert reworded in await screen.text("#confirm")
        await screen.find("#confirm .keep").click()
        assert (await busy.chat(reworded)).header("x-cache") == "SEMANTIC"
        await ask.get_by_text("Wrong answer").click()
        await screen.find("#confirm .act").click()
        await screen.shows("#notes", "1 answer taken back, 1 pair kept apart.")

        assert (await busy.chat(stored)).header("x-cache") == "MISS"
        await busy.settled()
        assert (await busy.chat(reworded)).header("x-cache") == "MISS"
        await screen.shows('[data-key="semantic"]', "1 reported wrong")


async def test_one_answer_is_forgotten(quiet: House, browser: Browser) -> None:
    """The next ask like it is a miss; another's answer stays."""
    for question in ("why?", "when?"):
        await quiet.chat(question)
        await quiet.settled()
        await quiet.chat(question)
    async with looking_at(browser, quiet) as screen:
        await screen.shows("#ask-list", "exact")
        ask = screen.find("#ask-list li.exact").first
        await ask.locator("button.ask").click()
        await ask.get_by_text("Forget this answer").click()
        await screen.find("#confirm .act").click()
        await screen.shows("#notes", "1 answer forgotten.")

    assert (await quiet.chat("why?")).header("x-cache") == "EXACT"
    assert (await quiet.chat("when?")).header("x-cache") == "MISS"


async def test_a_model_or_everything_is_forgotten_after_a_confirmation(quiet: House, browser: Browser) -> None:
    """Escape keeps all; the model's go without the others'; then all go."""
    for model in ("llama3.2", "qwen3"):
        await quiet.chat(model=model)
    await quiet.settled()
    async with looking_at(browser, quiet) as screen:
        await screen.live()
        await screen.find("#forget-all").click()
        await screen.page.keyboard.press("Escape")
        assert [(await quiet.chat(model=model)).header("x-cache") for model in ("llama3.2", "qwen3")] == ["EXACT"] * 2
        await screen.find("#forget-choice").select_option("qwen3:latest")
        await screen.find("#forget-model").click()
        assert "qwen3:latest" in await screen.text("#confirm")
        await screen.find("#confirm .act").click()
        await screen.shows("#notes", "1 answer forgotten.")
        assert [(await quiet.chat(model=model)).header("x-cache") for model in ("llama3.2", "qwen3")] == [
            "EXACT",
            "MISS",
        ]
        await quiet.settled()
        await screen.find("#forget-all").click()
        await screen.find("#confirm .act").click()
        await screen.shows("#notes", "2 answers forgotten.")

        assert (await quiet.chat()).header("x-cache") == "MISS"


async def test_a_refused_act_says_why(quiet: House, browser: Browser) -> None:
    """Redis away: the page does not claim that something is gone."""
    async with looking_at(browser, quiet, careful=False) as screen:
        await screen.live()
        assert quiet.redis is not None
        quiet.redis.freeze()
        try:
            await screen.find("#forget-all").click()
            await screen.find("#confirm .act").click()
            await screen.shows("#notes .bad", "did not work")
        finally:
            quiet.redis.thaw()


async def test_the_list_holds_still_while_it_is_held(quiet: House, browser: Browser) -> None:
    """New asks are counted meanwhile, and come when it goes on; a filter hides the others."""
    async with looking_at(browser, quiet) as screen:
        await screen.live()
        await screen.find("#ask-pause").click()
        for question in ("one?", "two?", "two?"):
            await quiet.chat(question)
            await quiet.settled()
        await screen.shows("#ask-waiting", "3 new")
        assert await screen.find("#ask-list > li").count() == 0
        await screen.find("#ask-pause").click()
        assert await screen.find("#ask-list > li").count() == 3
        await screen.find("#ask-filter").select_option("exact")

        assert await screen.find("#ask-list > li:visible").count() == 1
