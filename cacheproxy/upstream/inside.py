"""From a front to the main process: a request as its client sent it, over a Unix socket.

Nothing is added, and nothing taken out but what frames the body on one connection: the main process judges origins,
loops and hop-by-hop headers as if the client had come to it. No connection is used twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cacheproxy import config
from cacheproxy.upstream.client import UpstreamClient
from cacheproxy.upstream.request import UpstreamRequest, framing

_FRAMES = frozenset({"content-length", "transfer-encoding", "expect"})
_FULL_PAUSE_S = 0.005
_Protocol = TypeVar("_Protocol", bound=asyncio.Protocol)


class MainClient(UpstreamClient):
    """Connections to the main process at `path`. Each is tried until `upstream.connect_timeout`'s default is over."""

    def __init__(self, path: Path) -> None:
        super().__init__(config.Upstream())
        self._path = path

    async def _dial(self, protocol: Callable[[], _Protocol]) -> _Protocol:
        while True:
            try:
                transport, wire = await asyncio.get_running_loop().create_unix_connection(protocol, str(self._path))
            except BlockingIOError:  # its queue of connections is full
                await asyncio.sleep(_FULL_PAUSE_S)
                continue
            try:
                transport.get_extra_info("socket").getpeername()
            except OSError:  # the same, which asyncio's own loop takes for "connected"
                transport.abort()
                await asyncio.sleep(_FULL_PAUSE_S)
            else:
                return wire

    def _head(self, request: UpstreamRequest) -> bytes:
        lines = [f"{request.method} {request.target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in request.headers if name.lower() not in _FRAMES]
        return "\r\n".join([*lines, *framing(request), "", ""]).encode("utf-8", "surrogateescape")
