"""The dashboard when something is missing: the proxy, Redis, Ollama, the token, prompts, JavaScript."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
from playwright.async_api import Browser, Response

from cacheproxy.model import Decision, Neighbour, Outcome
from tests.fakes.house import House, open_house, until
from tests.fakes.ollama import FakeOllama
from tests.fakes.redis_server import RedisServer, free_port
from tests.page.conftest import HOSTILE, counted, looking_at

pytestmark = pytest.mark.asyncio(loop_scope="session")

TOKEN = "sésame-4711"
CANARY = "canary-4711"


async def test_a_proxy_that_stops_and_comes_back_is_live_again_without_a_reload(
    ollama: FakeOllama, clean_redis: RedisServer, browser: Browser
) -> None:
    """In between the page says so and keeps what it knew; afterwards no ask stands there twice."""
    port = {"listen": f"127.0.0.1:{free_port()}"}
    async with AsyncExitStack() as stack:
        async with open_house(ollama, clean_redis, admin=port) as house:
            await house.chat("why?")
            await counted(house)
            screen = await stack.enter_async_context(looking_at(browser, house, careful=False))
            await screen.live()
            await screen.shows("#ask-list", "miss")
        await screen.shows("#live", "reconnecting")
        assert (await screen.tile("rate-now"))[1] == "1 ask"
        async with open_house(ollama, clean_redis, admin=port) as house:
            await house.chat("when?")
            await screen.live()
            await screen.shows('[data-key="rate-now"]', "2 asks")
            await screen.page.wait_for_function("() => document.querySelectorAll('#ask-list > li').length === 2")
    assert screen.foreign == []
    assert all("Failed to load" in said for said in screen.errors), screen.errors


async def test_redis_away_is_said_first_and_ends_by_itself(
    ollama: FakeOllama, clean_redis: RedisServer, browser: Browser
) -> None:
    """With its reason, and what it means; what needs the history says so."""
    async with (
        open_house(ollama, clean_redis, redis={"timeout": 0.5}) as house,
        looking_at(browser, house, careful=False) as screen,
    ):
        await house.chat("why?")
        await counted(house)
        await screen.shows("#condition", "All parts work")
        clean_redis.freeze()
        try:
            for question in ("a?", "b?", "c?", "d?", "e?"):
                await house.chat(question)
            await screen.shows("#condition h1", "Redis is away")
            assert "Asks go to Ollama" in await screen.text("#condition p")
            assert await screen.find("#condition.bad").count() == 1
            assert "away" in await screen.text('.part:has-text("Redis")') or "impaired" in await screen.text(
                '.part:has-text("Redis")'
            )
            await screen.shows('[data-key="rate-now"]', "this proxy since its start")
        finally:
            clean_redis.thaw()
        await screen.shows("#condition", "All parts work")


async def test_ollama_away_is_said_with_what_still_works(quiet: House, browser: Browser) -> None:
    """Hits go on; that is why the page does not only say that all is lost."""
    async with looking_at(browser, quiet) as screen:
        await screen.shows("#condition", "All parts work")
        await quiet.ollama.close()
        await screen.shows("#condition h1", "Ollama is away")

        assert "still answered" in await screen.text("#condition p")
        assert "away" in await screen.text('.part:has-text("Ollama")')


async def test_a_token_is_asked_for_and_a_wrong_one_refused(
    ollama: FakeOllama, clean_redis: RedisServer, browser: Browser
) -> None:
    """The page itself loads without; figures need it, and a reload of the tab does not ask again."""
    async with (
        open_house(ollama, clean_redis, admin={"listen": "127.0.0.1:0", "token": TOKEN}) as house,
        looking_at(browser, house, careful=False) as screen,
    ):
        await screen.shows("#live", "needs token")
        assert await screen.text("#tiles") == ""
        await screen.page.keyboard.type("wrong")
        await screen.page.keyboard.press("Enter")
        await screen.shows("#token .wrong", "refused")
        await screen.page.keyboard.type(TOKEN)
        await screen.page.keyboard.press("Enter")
        await screen.live()
        await screen.shows("#condition", "All parts work")
        await screen.page.reload()
        await screen.live()

        assert not await screen.find("#token").is_visible()
        assert TOKEN not in screen.page.url
        assert all("401" in said for said in screen.errors), screen.errors


async def test_without_leave_to_show_prompts_none_is_in_page_or_network(
    ollama: FakeOllama, clean_redis: RedisServer, browser: Browser
) -> None:
    """`log.prompts` off: the page says which setting it would take, and has no text of a caller."""
    async with open_house(ollama, clean_redis, semantic={"mode": "serve"}) as house:
        assert await house.app.vectors.wait_ready(60)
        await until(lambda: house.app.semantic.state == "ready" and house.app.apart.known, 20)
        bodies: list[str] = []
        async with looking_at(browser, house) as screen:

            async def keep(response: Response) -> None:
                if response.status == 200 and not response.url.endswith("/events"):
                    bodies.append(await response.text())

            screen.page.on("response", keep)
            await screen.live()
            for question in (f"How do I reset {CANARY}?", f"How can I reset {CANARY}?"):
                await house.chat(question)
                await house.settled()
            await screen.shows("#ask-list", "semantic")
            await counted(house)
            await screen.page.reload()
            await screen.live()
            await screen.shows("#pair-list", "[log] prompts = true")
            await screen.shows("#ask-list", "semantic")
            await screen.find("#ask-list li.semantic button.ask").click()

            assert CANARY not in await screen.page.content()
            assert bodies
            assert not any(CANARY in body for body in bodies)


async def test_ten_thousand_asks_are_all_counted_and_the_newest_listed(quiet: House, browser: Browser) -> None:
    """The page holds a few dozen; hostile names of models and reasons are text."""
    models = ["llama3.2:latest", "qwen3:latest", HOSTILE]
    clock = quiet.app._clock
    for number in range(10_000):
        outcome = (Outcome.EXACT, Outcome.MISS, Outcome.SEMANTIC, Outcome.BYPASS)[number % 4]
        neighbour = Neighbour(
            "a" * 32, 0.6 + number % 40 / 100, 0.92, "serve" if outcome is Outcome.SEMANTIC else "below_threshold"
        )
        reason = HOSTILE if outcome is Outcome.BYPASS else ""
        quiet.app.decisions.tell(
            Decision(
                outcome,
                "chat",
                clock.now(),
                0.001,
                model=models[number % 3],
                reason=reason,
                neighbour=neighbour,
                entry="a" * 32,
            )
        )
    stats = await counted(quiet)
    async with looking_at(browser, quiet) as screen:
        await screen.live()
        await screen.shows('[data-key="rate-now"]', "10,000 asks")
        await screen.shows("#bypass-table", "2,500")

        assert stats["asks"] == 10_000
        assert 0 < await screen.find("#ask-list > li").count() <= 60
        assert "too many to be listed" in await screen.text("#ask-note")
        assert await screen.find("main img").count() == 0


async def test_without_javascript_it_says_where_the_figures_are(busy: House, browser: Browser) -> None:
    """Two links and a command; the first link works as it stands."""
    async with looking_at(browser, busy, java_script_enabled=False) as screen:
        text = await screen.text("noscript section")
        assert "cacheproxy stats" in text
        await screen.find("noscript a").first.click()
        await screen.page.wait_for_url("**/stats")


async def test_a_hidden_tab_lets_the_line_go(quiet: House, browser: Browser) -> None:
    """And is live again when it is looked at."""
    hide = """(state) => {
        Object.defineProperty(document, 'visibilityState', { value: state, configurable: true });
        document.dispatchEvent(new Event('visibilitychange'));
    }"""
    async with looking_at(browser, quiet) as screen:
        await screen.live()
        await screen.evaluate(hide, "hidden")
        await screen.shows("#live", "paused")
        await until(lambda: not quiet.app.live._listeners, 20)
        await screen.evaluate(hide, "visible")
        await screen.live()


async def test_with_listeners_enough_it_asks_every_few_seconds(
    quiet: House, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seventeenth page is told less often, and not left empty."""
    monkeypatch.setattr("cacheproxy.edge.live.LISTENERS_MAX", 0)
    async with looking_at(browser, quiet, careful=False) as screen:
        await screen.shows("#live", "every 5 s")
        await screen.shows("#condition", "All parts work")


async def test_the_figures_are_those_of_all_proxies_of_a_redis(
    quiet: House, ollama: FakeOllama, browser: Browser
) -> None:
    """Two proxies: the page of one counts what the other answered, lists it, and says how many there are."""
    async with open_house(ollama, quiet.redis) as other:
        await quiet.chat("why?")
        await quiet.settled()
        await counted(quiet)
        await other.chat("why?")
        async with looking_at(browser, quiet) as screen:
            await screen.shows('[data-key="rate-now"]', "2 asks")
            await screen.shows("#condition", "2 proxies share this Redis")
            await screen.shows("#ask-list", "exact")

            assert (await screen.tile("rate-now"))[0] == "50.0 %"


async def test_a_mistake_of_a_panel_is_told_and_does_not_end_the_line(quiet: House, browser: Browser) -> None:
    """It once read as "reconnecting" for ever, and nobody was told why."""
    follow = """async () => {
        const told = [], words = [];
        addEventListener("error", (event) => { told.push(event.message); event.preventDefault(); });
        const broken = () => { throw new Error("no such part"); };
        const { follow } = await import("/page/stream.js");
        const nothing = () => {};
        follow({
            line: (word) => words.push(word), stats: broken,
            second: nothing, ask: nothing, joined: nothing, locked: nothing,
        });
        while (!words.includes("live")) await new Promise((done) => setTimeout(done, 20));
        return [words, told[0]];
    }"""
    async with looking_at(browser, quiet) as screen:
        words, told = await screen.evaluate(follow)

        assert words == ["connecting", "live"]
        assert "no such part" in told


async def test_one_process_has_no_line_about_workers(quiet: House, browser: Browser) -> None:
    """As an off part it would read as if something were missing; with workers they are a part like the others."""
    async with looking_at(browser, quiet) as screen:
        await screen.shows("#condition", "All parts work")
        alone = await screen.text("#parts")
        told = (await quiet.stats()) | {"parts": {"workers": {"state": "ok", "reason": ""}}}
        script = "async (stats) => (await import('/page/now.js')).showNow(stats, null, null)"
        await screen.evaluate(script, told)

        assert "Redis" in alone
        assert "Workers" not in alone
        assert "Workers works" in await screen.text("#parts")


async def test_of_several_ollamas_the_one_that_is_away_is_named(
    ollama: FakeOllama, clean_redis: RedisServer, browser: Browser
) -> None:
    """A warning, not an alarm: the others answer. Each is listed with what waits there."""
    other = FakeOllama(parallel=2)
    await other.open()
    upstream = {"others": [other.url]}
    async with open_house(ollama, clean_redis, upstream=upstream) as house, looking_at(browser, house) as screen:
        await screen.shows("#condition", "All parts work")
        assert await screen.find('[aria-label="Ollamas"] tbody tr').count() == 2
        await other.close()
        await screen.shows("#condition h1", "One Ollama of several is away")

        assert await screen.find("#condition.warn").count() == 1
