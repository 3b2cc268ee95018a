"""Fixtures around the stand-ins; a conftest makes them known with `pytest_plugins = ["tests.fakes.fixtures"]`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.fakes.ollama import FakeOllama


@pytest_asyncio.fixture
async def fake_ollama() -> AsyncIterator[FakeOllama]:
    """An open FakeOllama with two slots a model on a port of its own; closed after the test."""
    fake = FakeOllama(parallel=2)
    await fake.open()
    yield fake
    await fake.close()
