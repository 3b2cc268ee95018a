"""A whole proxy in front of a stand-in Ollama and a real Redis, for tests that speak to it over sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest_asyncio

from cacheproxy.app import App
from cacheproxy.clock import Clock
from cacheproxy.config import Config
from cacheproxy.model import Decision
from cacheproxy.upstream.member import Member
from tests.fakes import wire
from tests.fakes.ollama import FakeOllama
from tests.fakes.redis_server import PATIENT_S, RedisServer
from tests.fakes.wire import Response

MODEL = "llama3.2"


@dataclass(slots=True)
class House:
    """The proxy under test with what stands behind it."""

    app: App
    ollama: FakeOllama
    redis: RedisServer | None

    @property
    def port(self) -> int:
        """The proxy's port."""
        return int(self.app.proxy_url.rsplit(":", 1)[1])

    @property
    def admin_port(self) -> int:
        """The operator's port."""
        return int(self.app.admin_url.rsplit(":", 1)[1])

    @property
    def first(self) -> Member:
        """What the proxy keeps about the Ollama, or about the first of several."""
        return self.app.fleet.members[0]

    def decided(self) -> list[Decision]:
        """How each ask was answered that ends from now on."""
        decisions: list[Decision] = []
        self.app.decisions.listeners.append(lambda decision, count: decisions.extend([decision] * count))
        return decisions

    async def ask(self, method: str, target: str, body: Any = b"", **more: Any) -> Response:
        """One request on a connection of its own."""
        return await wire.ask(self.port, method, target, body, **more)

    async def chat(self, question: str = "why?", *, headers: Any = (), **members: Any) -> Response:
        """POST /api/chat with one user message, unless `messages` is given."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": question}]} | members
        return await self.ask("POST", "/api/chat", body, headers=headers)

    async def generate(self, prompt: str = "why?", *, headers: Any = (), **members: Any) -> Response:
        """POST /api/generate."""
        return await self.ask("POST", "/api/generate", {"model": MODEL, "prompt": prompt} | members, headers=headers)

    async def admin(self, method: str, target: str, **more: Any) -> Response:
        """One request to the operator's port."""
        return await wire.ask(self.admin_port, method, target, **more)

    async def stats(self) -> Any:
        """The operator's `/stats`."""
        return (await self.admin("GET", "/stats")).json()

    def calls(self, path: str = "/api/chat") -> int:
        """How often Ollama was asked."""
        return self.ollama.calls[path]

    async def settled(self) -> None:
        """Wait until no answer is being kept any more, so that what follows finds it."""
        await until(lambda: len(self.app.flights) == 0 and self.app.embeddings.keeping == 0)


async def until(holds: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Wait for a state nobody announces."""
    async with asyncio.timeout(timeout_s):
        while not holds():  # noqa: ASYNC110 - for states that have no event
            await asyncio.sleep(0.002)


async def near_ready(house: House) -> None:
    """Wait until questions are compared by meaning, for a house whose `semantic.mode` says so."""
    assert await house.app.vectors.wait_ready(60)
    await until(lambda: house.app.semantic.state == "ready" and house.app.apart.known)


@asynccontextmanager
async def open_house(
    ollama: FakeOllama,
    server: RedisServer | None,
    /,
    *,
    clock: Clock | None = None,
    ready: bool = True,
    **sections: Any,
) -> AsyncIterator[House]:
    """An open proxy, its near tier off unless `semantic` says otherwise: loading an embedder for each test takes time.

    It has more places at Ollama than a test has asks, so that queueing happens in the tests that are about it.
    `sections` go over the defaults, as in the config file; `server` None takes its URL from them.
    """
    tree: dict[str, Any] = {
        "server": {"listen": "127.0.0.1:0", "drain_timeout": 5},
        "admin": {"listen": "127.0.0.1:0"},
        "upstream": {"url": ollama.url, "digest_ttl": 1, "parallel": 1024},
        "redis": {"url": server.unix_url, "timeout": PATIENT_S} if server else {},
        "semantic": {"mode": "off"},
        "embedding": {"timeout": 5},
    }
    for section, keys in sections.items():
        tree[section] = tree.get(section, {}) | keys
    app = App(Config.model_validate(tree), clock=clock)
    await app.open()
    try:
        if ready:
            await app.wait_ready(5)
        yield House(app, ollama, server)
    finally:
        await app.close()


@pytest_asyncio.fixture
async def house(fake_ollama: FakeOllama, clean_redis: RedisServer) -> AsyncIterator[House]:
    """An open proxy with the default settings, in front of `fake_ollama`, on an empty Redis."""
    async with open_house(fake_ollama, clean_redis) as opened:
        yield opened
