"""Processes of a benchmark: started on a core, watched through /proc, ended by their own pid. Linux only.

A process started here ends with the block that started it. Nobody else's is ever touched.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report.figures import UnavailableError

ROOT = Path(__file__).resolve().parents[2]
END_S_MAX = 20.0
_SLOWING = frozenset({"PYTHONDONTWRITEBYTECODE"})
"""Settings of a developer's machine that would be measured too: without bytecode a start takes twice as long."""
_TICKS = os.sysconf("SC_CLK_TCK")
_SPIN = "import os\nos.nice(19)\nos.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\nwhile True: pass"


@dataclass(frozen=True, slots=True)
class Cores:
    """Who runs where: the measured server on one core, all else on another."""

    server: frozenset[int]
    load: frozenset[int]

    @property
    def apart(self) -> bool:
        """False on a machine of one core."""
        return not self.server & self.load

    @property
    def both(self) -> frozenset[int]:
        """For what needs more than one."""
        return self.server | self.load


def find_cores() -> Cores:
    """The first two that this process may use."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores(frozenset(usable[:1]), frozenset(usable[1:2] or usable[:1]))


@dataclass(frozen=True, slots=True)
class Running:
    """A process that was started, and where its output goes."""

    process: subprocess.Popen[bytes]
    output: Path

    @property
    def pid(self) -> int:
        """Of the process itself; `tree` has its children."""
        return self.process.pid

    def last_words(self) -> str:
        """The end of what it said, for an error message."""
        said = self.output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return " | ".join(said[-3:]) or "(it said nothing)"


@contextlib.contextmanager
def started(
    command: Sequence[str | Path],
    *,
    folder: Path,
    cores: frozenset[int],
    environment: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """Run `command` on `cores`; its output goes to a file in `folder`."""
    if not shutil.which("taskset"):
        raise UnavailableError("needs taskset to pin processes: apt-get install util-linux")
    name = Path(command[0]).name
    output = folder / f"{name}-{time.monotonic_ns()}.log"
    pinned = ["taskset", "-c", ",".join(map(str, sorted(cores))), *map(str, command)]
    with output.open("wb") as file:
        process = subprocess.Popen(
            pinned,
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if name not in _SLOWING} | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Running(process, output)
    finally:
        process.terminate()
        try:
            process.wait(END_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def awake(folder: Path, cores: frozenset[int]) -> Iterator[None]:
    """Keep cores from going to sleep: on each a process that runs whenever nobody else does, and gives way at once.

    A core that has slept for some milliseconds takes its time to wake, and its caches are empty then, more so on a
    virtual machine. A server under any other work never meets that.
    """
    with contextlib.ExitStack() as stack:
        for core in sorted(cores):
            stack.enter_context(started([sys.executable, "-c", _SPIN], folder=folder, cores=frozenset({core})))
        yield


def wait_until(is_met: Callable[[], bool], running: Running, *, seconds: float, every_s: float = 0.02) -> None:
    """Ask again and again. Raises UnavailableError when time is up or the process has ended."""
    end = time.monotonic() + seconds
    while not is_met():
        if running.process.poll() is not None:
            raise UnavailableError(f"{running.output.stem} ended at start: {running.last_words()}")
        if time.monotonic() > end:
            raise UnavailableError(f"{running.output.stem} was not ready in {seconds:g} s: {running.last_words()}")
        time.sleep(every_s)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on right now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Whether somebody takes connections on a port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def program(name: str, package: str) -> str:
    """The path of an installed program. Raises UnavailableError, which names the Debian package."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise UnavailableError(f"needs {name}: apt-get install {package}")
    return found


def tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(folder.name))
    found, ahead = [], [pid]
    while ahead:
        found.append(ahead.pop())
        ahead += children.get(found[-1], [])
    return found


def cpu_s(pid: int) -> float:
    """CPU seconds that a process and its descendants have used, to the microsecond."""
    total_ns = 0
    for each in tree(pid):
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{each}/task").iterdir():
                total_ns += int((thread / "schedstat").read_text().split()[0])
    return total_ns / 1e9


def rss_bytes(pid: int) -> int:
    """Memory that one process has in RAM, what it shares with others included."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0


def busy_s(cores: frozenset[int]) -> float:
    """Seconds that these cores have been busy since the machine started, but with what gives way (`nice`)."""
    total = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *counts = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            ticks = [int(count) for count in counts[:8]]
            total += sum(ticks) - ticks[1] - ticks[3] - ticks[4]  # nice, idle, and waiting for a disk
    return total / _TICKS


class Meter:
    """What a server's processes use from now on, and what others use of its core."""

    def __init__(self, pid: int, cores: Cores) -> None:
        self._pid = pid
        self._cores = cores
        self._cpu_s, self._busy_s, self._began_s = cpu_s(pid), busy_s(cores.server), time.monotonic()

    def readings(self, requests: int) -> dict[str, float]:
        """CPU time a request, and the others' share of the core, which only a core of its own has."""
        used_s = cpu_s(self._pid) - self._cpu_s
        readings = {"cpu_us": used_s / requests * 1e6}
        if self._cores.apart:
            others_s = busy_s(self._cores.server) - self._busy_s - used_s
            readings["noise_share"] = max(0.0, others_s) / (time.monotonic() - self._began_s)
        return readings
