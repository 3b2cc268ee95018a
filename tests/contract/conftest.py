"""The proxy under the contract's cases: `proxy` listens in front of `fake_ollama`.

The cases know nothing but the two ports, so the fixture can put any build of the proxy between them.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest_asyncio

from tests.fakes.house import House


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
async def proxy(house: House) -> Proxy:
    """The port of an open proxy whose upstream is `fake_ollama`."""
    return Proxy(house.port)
