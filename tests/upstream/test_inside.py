"""What a front passes on reaches the main process as its client sent it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from cacheproxy.upstream.inside import MainClient
from cacheproxy.upstream.request import UpstreamRequest

REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\nX-Cache: MISS\r\n\r\nok"


@pytest_asyncio.fixture
async def client(tmp_path: Path) -> AsyncIterator[MainClient]:
    """A client of whoever listens at `inside` in the test's folder."""
    client = MainClient(tmp_path / "inside")
    await client.open()
    yield client
    await client.close()


async def test_the_head_is_the_clients_own(client: MainClient, tmp_path: Path) -> None:
    """Host, origin and hop-by-hop headers too: the main process judges them. Only the framing is this connection's."""
    came = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        came.set_result(head + await reader.readexactly(4))
        writer.write(REPLY)
        writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / "inside")
    headers = (
        ("host", "proxy.example:11435"),
        ("Origin", "http://page.example"),
        ("Connection", "keep-alive, X-Mine"),
        ("X-Mine", "\udcff"),
        ("Transfer-Encoding", "chunked"),
        ("Via", "1.1 before"),
    )
    reply = await client.send(UpstreamRequest("POST", "/api//chat?x=%2F", headers, b"body"), safe_to_repeat=False)

    assert await came == (
        b"POST /api//chat?x=%2F HTTP/1.1\r\nhost: proxy.example:11435\r\nOrigin: http://page.example\r\n"
        b"Connection: keep-alive, X-Mine\r\nX-Mine: \xff\r\nVia: 1.1 before\r\nContent-Length: 4\r\n\r\nbody"
    )
    assert (reply.status, await reply.read(10)) == (200, b"ok")
    assert reply.headers == (("Content-Length", "2"), ("X-Cache", "MISS"))
    server.close()


async def test_a_full_queue_of_connections_is_waited_for(client: MainClient, tmp_path: Path) -> None:
    """A Unix socket refuses what it cannot queue at once, where TCP would try again by itself."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "inside"))
        listener.listen(0)
        listener.setblocking(False)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(str(tmp_path / "inside"))
            asking = asyncio.create_task(client.send(UpstreamRequest("GET", "/", ()), safe_to_repeat=False))
            await asyncio.sleep(0.05)
            assert not asking.done()
            listener.accept()[0].close()
            taken, _ = await asyncio.get_running_loop().sock_accept(listener)
            with taken:
                taken.setblocking(False)
                await asyncio.get_running_loop().sock_sendall(taken, REPLY)
                reply = await asking

    assert reply.status == 200
