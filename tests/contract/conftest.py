"""The proxy under the contract's cases: `proxy` listens in front of `fake_ollama`.

The cases know nothing but the two ports, so the fixture can put any build of the proxy between them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest_asyncio
from aiohttp import web

from cacheproxy import config
from cacheproxy.edge.origin import Origins
from cacheproxy.edge.passthrough import Passthrough
from cacheproxy.edge.server import Server
from cacheproxy.upstream.client import UpstreamClient
from tests.fakes.ollama import FakeOllama


@dataclass(frozen=True)
class Proxy:
    """Where the proxy listens."""

    port: int

    @property
    def host(self) -> str:
        """Its authority, as a client that was pointed at it writes it."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://{self.host}"


@pytest_asyncio.fixture
async def proxy(fake_ollama: FakeOllama) -> AsyncIterator[Proxy]:
    """An open proxy whose upstream is `fake_ollama`."""
    settings = config.Server(listen="127.0.0.1:0")
    client = UpstreamClient(config.Upstream(url=fake_ollama.url))
    passthrough = Passthrough(client, settings)
    origins = Origins(settings)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return origins.judge(request).refusal or await passthrough.handle(request)

    server = Server(handle, settings.listen, settings)
    await client.open()
    await server.open()
    yield Proxy(server.port)
    await server.close()
    await client.close()


@pytest_asyncio.fixture
async def proxy_url(proxy: Proxy) -> str:
    """The base URL of the proxy, for clients that take one."""
    return proxy.url
