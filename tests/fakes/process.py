"""The proxy as its users run it: `python -m cacheproxy serve` in a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fakes import wire
from tests.fakes.redis_server import free_port


@dataclass(slots=True)
class Process:
    """A running `cacheproxy serve`."""

    child: asyncio.subprocess.Process
    port: int
    admin_port: int

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this process alone."""
        self.child.send_signal(number)

    async def wait(self, timeout_s: float = 20.0) -> int:
        """Its exit code."""
        async with asyncio.timeout(timeout_s):
            return await self.child.wait()

    async def ready(self, timeout_s: float = 20.0) -> None:
        """Wait until it is ready to serve."""
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    if (await wire.ask(self.admin_port, "GET", "/readyz")).status == 200:
                        return
                except OSError:
                    assert self.child.returncode is None, "it ended before it listened"
                await asyncio.sleep(0.02)


@asynccontextmanager
async def serving(upstream_url: str, data_dir: Path, **environment: str) -> AsyncIterator[Process]:
    """A proxy process with an embedded Redis in `data_dir`; killed at the end if it still runs."""
    port, admin_port = free_port(), free_port()
    settings = {
        "CACHEPROXY_SERVER__LISTEN": f"127.0.0.1:{port}",
        "CACHEPROXY_ADMIN__LISTEN": f"127.0.0.1:{admin_port}",
        "CACHEPROXY_UPSTREAM__URL": upstream_url,
        "CACHEPROXY_REDIS__DATA_DIR": str(data_dir),
        "CACHEPROXY_REDIS__TIMEOUT": "1s",
    }
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "cacheproxy",
        "serve",
        env=os.environ | settings | environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    process = Process(child, port, admin_port)
    try:
        await process.ready()
        yield process
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
