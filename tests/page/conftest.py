"""A browser, and proxies with real traffic for it to look at: one browser and one busy proxy for the whole session.

Without Chromium these tests are skipped, unless CACHEPROXY_BROWSER=required (as in CI) makes that a failure.
Everything here runs in the session's event loop, since the browser outlives a test.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, Request, async_playwright

from tests.fakes.house import House, open_house, until
from tests.fakes.ollama import FakeOllama
from tests.fakes.redis_server import RedisServer, running_redis

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",  # containers run tests as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE_MS = 20_000
"""For what happens within a second or two on a machine that has nothing else to do."""

HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
SERVED = [
    ("How do I reset my password?", "How can I reset my password?"),
    ("What are the opening hours of the library?", "What are the library's opening hours?"),
]
NEAR_MISSES = ["How do I change my password?", "When is the library open?", "Where do I reset passwords?"]
"""Near to the above, but not near enough."""


HAS_TEXT = r"""([selector, text]) => [...document.querySelectorAll(selector)]
  .some((found) => found.innerText.replace(/\u00a0/g, " ").includes(text))"""


@dataclass(slots=True)
class Screen:
    """An open page of a proxy, and everything it said and asked for."""

    house: House
    page: Page
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    """What its own script failed with; the page is closed at the first, so that nobody waits for what cannot come."""
    closing: asyncio.Task[None] | None = None

    async def text(self, selector: str) -> str:
        """What a reader sees of an element, in one line."""
        return plain(await self.page.locator(selector).first.inner_text())

    async def tile(self, key: str) -> tuple[str, str]:
        """A tile's figure and its note."""
        return await self.text(f'[data-key="{key}"] .value'), await self.text(f'[data-key="{key}"] .quiet')

    def find(self, selector: str) -> Locator:
        """Elements."""
        return self.page.locator(selector)

    async def shows(self, selector: str, text: str) -> None:
        """Wait until an element has this text in it."""
        await self.page.wait_for_function(HAS_TEXT, arg=[selector, text], timeout=PATIENCE_MS)

    async def live(self) -> None:
        """Wait until the line is live and the panels have what they asked for."""
        await self.shows("#live", "live")

    async def evaluate(self, script: str, given: Any = None) -> Any:
        """What a script gives in the page, within a time: the library itself would wait for ever."""
        async with asyncio.timeout(PATIENCE_MS / 1000):
            return await self.page.evaluate(script, given)

    def fail(self, error: str) -> None:
        """Note that the page's script failed, and end every wait for it."""
        self.broken.append(error)
        if self.closing is None:
            self.closing = asyncio.create_task(self.page.close())

    async def slide(self, threshold: float) -> None:
        """Move the slider there, as dragging does."""
        await self.find("#threshold-slider").evaluate(
            "(slider, to) => { slider.value = to; slider.dispatchEvent(new Event('input')); }", f"{threshold:.2f}"
        )


def plain(text: str) -> str:
    """Without the blanks that no line breaks at."""
    return " ".join(text.replace("\u00a0", " ").split())


def chromium() -> str:
    """Where Chromium is; skips, or fails where it must be there."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        remedy = "no Chromium here, so the dashboard is not looked at: apt-get install chromium"
        (pytest.fail if os.environ.get("CACHEPROXY_BROWSER") == "required" else pytest.skip)(remedy)
    return found


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One for all tests; each takes a context of its own, which shares nothing with another."""
    path = chromium()
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield opened
        await opened.close()


@asynccontextmanager
async def looking_at(browser: Browser, house: House, *, careful: bool = True, **context: Any) -> AsyncIterator[Screen]:
    """The dashboard of a proxy. `careful`: afterwards, nothing was logged as an error and no other host was asked."""
    opened = await browser.new_context(**{"viewport": {"width": 1360, "height": 900}} | context)
    page = await opened.new_page()
    page.set_default_timeout(PATIENCE_MS)
    screen = Screen(house, page)
    own = urlsplit(house.app.admin_url).netloc

    def asked(request: Request) -> None:
        if urlsplit(request.url).netloc != own:
            screen.foreign.append(request.url)

    page.on("request", asked)
    page.on("pageerror", lambda error: screen.fail(str(error)))
    page.on("console", lambda said: screen.errors.append(said.text) if said.type in ("error", "warning") else None)
    await page.goto(house.app.admin_url + "/")
    try:
        yield screen
    except Exception:
        assert screen.broken == [], "the page's script failed"
        raise
    finally:
        async with asyncio.timeout(PATIENCE_MS / 1000):
            await opened.close()
    assert screen.broken == [], "the page's script failed"
    if careful:
        assert screen.errors == []
        assert screen.foreign == []


@pytest_asyncio.fixture(loop_scope="session")
async def ollama() -> AsyncIterator[FakeOllama]:
    """As `fake_ollama`, in the session's loop."""
    fake = FakeOllama(parallel=2)
    await fake.open()
    yield fake
    await fake.close()


@pytest_asyncio.fixture(loop_scope="session")
async def quiet(ollama: FakeOllama, clean_redis: RedisServer) -> AsyncIterator[House]:
    """A proxy nobody has asked anything yet, its near tier off."""
    async with open_house(ollama, clean_redis) as opened:
        yield opened


@pytest.fixture(scope="session")
def busy_redis(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[RedisServer]:  # noqa: ARG001 - skips where there is none
    """A Redis of its own: others empty the shared one."""
    with running_redis(tmp_path_factory.mktemp("b")) as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def busy(busy_redis: RedisServer) -> AsyncIterator[House]:
    """A proxy that shows prompts and was asked things of every kind; tests that use it change nothing in it."""
    fake = FakeOllama(parallel=2)
    await fake.open()
    sections = {"semantic": {"mode": "serve"}, "log": {"prompts": True}}
    async with open_house(fake, busy_redis, **sections) as opened:
        assert await opened.app.vectors.wait_ready(60)
        await until(lambda: opened.app.semantic.state == "ready" and opened.app.apart.known, 20)
        await ask_things(opened)
        yield opened
    await fake.close()


async def ask_things(house: House) -> None:
    """Exact and semantic hits, near and far misses, a guard's no, and asks that go around the cache."""
    for stored, reworded in SERVED:
        await house.chat(stored)
        await house.settled()
        await house.chat(stored)
        assert (await house.chat(reworded)).header("x-cache") == "SEMANTIC"
    for question in [
        *NEAR_MISSES,
        HOSTILE,
        f"{HOSTILE}?!",
        "How do I enable dark mode?",
        "How do I disable dark mode?",
    ]:
        await house.chat(question)
        await house.settled()
    for _ in range(25):
        await house.chat("Why is the sky blue?", model="qwen3", stream=False, headers=[("Cache-Control", "no-cache")])
    await house.chat("Why?", headers=[("Cache-Control", "no-store")])
    await house.settled()
    await counted(house)


async def counted(house: House) -> dict[str, Any]:
    """/stats once the ledger has caught up with this process, which is the only one."""
    stats: dict[str, Any] = {}
    for _ in range(100):
        stats = await house.stats()
        if stats["fleet"] and stats["fleet"]["windows"]["1h"]["asks"] == stats["asks"]:
            return stats
        await asyncio.sleep(0.1)
    raise AssertionError(stats["fleet"])
