"""The fault proxy does what its toxics say, and nothing when it has none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.fakes import wire
from tests.fakes.faultproxy import CLEAN, FaultProxy, Toxic
from tests.fakes.ollama import FakeOllama
from tests.fakes.wire import request


@pytest_asyncio.fixture
async def proxy(fake_ollama: FakeOllama) -> AsyncIterator[FaultProxy]:
    """A fault proxy in front of the fake Ollama."""
    proxy = FaultProxy(fake_ollama.port)
    await proxy.open()
    yield proxy
    await proxy.close()


async def test_without_a_toxic_bytes_pass_unchanged(proxy: FaultProxy, fake_ollama: FakeOllama) -> None:
    """A relay with no toxic is invisible."""
    through = await wire.ask(proxy.port, "GET", "/api/tags")
    direct = await wire.ask(fake_ollama.port, "GET", "/api/tags")

    assert direct.body == through.body
    assert through.complete


async def test_latency_delays_each_direction(proxy: FaultProxy) -> None:
    """One question and one answer take two delays."""
    proxy.toxic = Toxic(latency_s=0.05)
    began = time.monotonic()

    response = await wire.ask(proxy.port, "GET", "/")

    assert response.head_at - began >= 0.1


async def test_a_limit_ends_the_answer_cleanly(proxy: FaultProxy) -> None:
    """The client sees FIN after the bytes allowed."""
    proxy.toxic = Toxic(limit_bytes=40)
    async with await wire.connect(proxy.port) as client:
        await client.send(request("GET", "/"))

        assert len(await client.rest()) == 40


async def test_a_reset_breaks_the_answer_off(proxy: FaultProxy) -> None:
    """The client sees a reset, not an end."""
    proxy.toxic = Toxic(reset_after_bytes=40)
    async with await wire.connect(proxy.port) as client:
        await client.send(request("GET", "/"))

        with pytest.raises(ConnectionResetError):
            await client.reader.read(-1)


async def test_slices_cut_the_answer_into_small_pieces(proxy: FaultProxy) -> None:
    """A whole answer arrives, though in pieces of seven bytes."""
    proxy.toxic = Toxic(slice_bytes=7, latency_s=0.0005)

    response = await wire.ask(proxy.port, "GET", "/api/version")

    assert response.json() == {"version": "0.33.0"}


async def test_a_black_hole_swallows_what_was_asked(proxy: FaultProxy, fake_ollama: FakeOllama) -> None:
    """The connection opens and nothing ever comes."""
    proxy.toxic = Toxic(black_hole=True)
    async with await wire.connect(proxy.port) as client:
        await client.send(request("GET", "/"))

        with pytest.raises(TimeoutError):
            await client.head(timeout_s=0.1)
    assert fake_ollama.calls["/"] == 0


async def test_down_refuses_and_up_serves_on_the_same_port(proxy: FaultProxy) -> None:
    """A restart keeps the address."""
    port = proxy.port
    async with await wire.connect(port) as open_before:
        await open_before.send(request("GET", "/"))
        await open_before.response(method="GET")
        await proxy.down()
        with pytest.raises(ConnectionError):
            await wire.connect(port)
        with pytest.raises(ConnectionResetError):
            await open_before.reader.read(1)
    proxy.toxic = CLEAN
    await proxy.up()

    assert (await wire.ask(port, "GET", "/")).status == 200


async def test_closing_leaves_no_connection(proxy: FaultProxy) -> None:
    """All relays end with the proxy."""
    clients = await asyncio.gather(*(wire.connect(proxy.port) for _ in range(5)))
    for client in clients:
        await client.send(request("GET", "/"))
        await client.response(method="GET")
    await proxy.close()

    assert proxy.connections == 0
    assert [await client.rest() for client in clients] == [b""] * 5
    for client in clients:
        client.close()
