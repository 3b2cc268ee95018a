"""The fronts of a main process: started, told what they must know, listened to, started again when they end.

A front answers only by what it was told, so each thing that makes an answer wrong is an order, and whoever causes it
waits here until every front has carried it out. One that does not say so in time is killed: what is dead serves
nothing. A front that ends takes with it the asks it was answering and at most a tenth of a second of counts.
Refuses to know what is told, and to answer asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cacheproxy
from cacheproxy.config import Config
from cacheproxy.upstream.view import View
from cacheproxy.workers.messages import LINE_BYTES_MAX, Gauges, Order, Report, Start, encode, read_report

_log = logging.getLogger("cacheproxy.workers")

DONE_S_MAX = 2.0
"""What carrying out an order may take: it takes microseconds, and this is for a machine with too much to do."""
SILENCE_S_MAX = 20.0
"""A front reports at least once a second; one that is silent for so long hangs."""
START_S_MAX = 60.0
"""The same for the first report. Measured: under a second when idle."""
STOP_S_MAX = 2.0
"""Past its time for draining."""
_RESTART_S_MIN = 0.1
_RESTART_S_MAX = 10.0
_STEADY_S = 10.0
"""A front that lived this long had started well, so its successor is not held back."""
_SOCKET_PATH_MAX = 100
"""Bytes. A Unix socket's path holds 107 on Linux, 103 on macOS."""


@dataclass(frozen=True, slots=True)
class State:
    """One front, for operators."""

    pid: int | None
    state: Literal["starting", "up", "down"]
    restarts: int
    answered: int
    """Asks, by this front and those it took the place of."""
    gauges: Gauges


def take_alone(host: str, port: int) -> None:
    """Raise OSError if anybody listens there: whoever shares a port would not notice that it is a stranger's."""
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)


class _Front:
    """One front's place, whoever holds it now."""

    def __init__(self) -> None:
        self.child: asyncio.subprocess.Process | None = None
        self.writer: asyncio.StreamWriter | None = None
        """Set while it listens."""
        self.restarts = 0
        self.answered = 0
        self.gauges = Gauges()
        self._number = 0
        self._waiting: dict[int, asyncio.Event] = {}

    @property
    def state(self) -> State:
        """As it is now."""
        running = self.child is not None and self.child.returncode is None
        up = self.writer is not None
        return State(
            self.child.pid if self.child is not None and running else None,
            "up" if up else "starting" if running else "down",
            self.restarts,
            self.answered,
            self.gauges if up else Gauges(),
        )

    def tell(self, **what: object) -> None:
        """Order something, and do not wait."""
        if self.writer is not None:
            self.writer.write(encode(Order(**what)))  # type: ignore[arg-type]  # as the fields of Order

    async def have_done(self, **what: object) -> None:
        """Order something; return when it was done, or when there is no front left that could do otherwise."""
        if self.writer is None:
            return  # it knows nothing yet, and will first be told how things are then
        self._number += 1
        number, done = self._number, asyncio.Event()
        self._waiting[number] = done
        self.tell(number=number, **what)
        try:
            async with asyncio.timeout(DONE_S_MAX):
                await done.wait()
        except TimeoutError:
            _log.error("a worker did not do what it was told within %g s and is killed", DONE_S_MAX)
            self.kill()
            await done.wait()
        finally:
            self._waiting.pop(number, None)

    def done(self, number: int) -> None:
        """It has carried out this order."""
        if waiting := self._waiting.get(number):
            waiting.set()

    def kill(self) -> None:
        """End it at once."""
        if self.child is not None and self.child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.child.kill()

    def gone(self) -> None:
        """Its process has ended, so whatever it should not do it does not."""
        self.writer = None
        for waiting in self._waiting.values():
            waiting.set()


class Fronts:
    """`count` fronts. `view` gives what they must know of models now; `told` gets what they report."""

    def __init__(self, count: int, *, view: Callable[[], View], told: Callable[[Report], None]) -> None:
        self._fronts = [_Front() for _ in range(count)]
        self._view = view
        self._told = told
        self._start = b""
        self._settings: dict[str, Any] = {}
        self._folder: Path | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._leaving = False
        self._failing = False
        """The last report could not be taken."""
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._fronts)

    @property
    def states(self) -> list[State]:
        """Each front's."""
        return [front.state for front in self._fronts]

    @property
    def up(self) -> int:
        """How many listen."""
        return sum(front.writer is not None for front in self._fronts)

    def make_inside(self) -> Path:
        """The path at which the main process must listen for fronts, in a folder of its owner's alone.

        Raises OSError.
        """
        folder = Path(tempfile.mkdtemp(prefix="cacheproxy-"))
        if len(str(folder)) + len("/inside") > _SOCKET_PATH_MAX:
            folder.rmdir()
            folder = Path(tempfile.mkdtemp(prefix="cacheproxy-", dir="/tmp"))
        self._folder = folder
        return folder / "inside"

    def open(self, config: Config) -> None:
        """Start them, and return at once. `config` has the addresses as they are in use."""
        if self._folder is not None:
            self.configure(config)
            self._tasks = [asyncio.create_task(self._keep_running(front), name="front") for front in self._fronts]

    def configure(self, config: Config) -> None:
        """Let those there are take over what is live of a configuration, and those to come start with it."""
        if self._folder is not None:
            self._settings = config.model_dump(mode="json")
            self._start = encode(Start(self._settings, str(self._folder / "inside")))
            for front in self._fronts:
                front.tell(config=self._settings, clear=True)

    async def wait_up(self) -> None:
        """Wait until all listen."""
        while self.up < len(self._fronts):
            self._changed.clear()
            await self._changed.wait()

    def publish_nowait(self) -> None:
        """Tell them what is known of models now."""
        if self.up:
            view = self._view()
            for front in self._fronts:
                front.tell(view=view)

    async def publish(self) -> None:
        """The same; returns when none goes by anything older."""
        view = self._view()
        await asyncio.gather(*(front.have_done(view=view) for front in self._fronts))

    def clear_nowait(self) -> None:
        """Let them forget all copies of answers."""
        for front in self._fronts:
            front.tell(clear=True)

    async def clear(self) -> None:
        """The same; returns when none serves from an older copy."""
        await asyncio.gather(*(front.have_done(clear=True) for front in self._fronts))

    def forget_nowait(self, key: str) -> None:
        """Let them forget their copies of the answer under a key."""
        for front in self._fronts:
            front.tell(forget=key)

    async def drain(self, timeout_s: float) -> None:
        """Let them finish what is under way within this time, and end. Safe to repeat."""
        self._leaving = True
        for front in self._fronts:
            if front.writer is None:
                front.kill()
            front.tell(drain_s=timeout_s)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s + STOP_S_MAX)
        await self._end()

    async def _end(self) -> None:
        for front in self._fronts:
            front.kill()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    async def _keep_running(self, front: _Front) -> None:
        """Hold a place: whenever its process ends, start another, the sooner the longer the last one lived."""
        loop, pause_s = asyncio.get_running_loop(), _RESTART_S_MIN
        while not self._leaving:
            began_s = loop.time()
            try:
                reason = await self._run(front)
            except OSError as error:
                reason = f"it cannot be started: {error.strerror or error}"
            except Exception:  # noqa: BLE001 - a defect must not leave the place empty
                _log.exception("a worker is given up for a defect")
                reason = "a defect"
            if self._leaving:
                return
            pause_s = _RESTART_S_MIN if loop.time() - began_s > _STEADY_S else min(pause_s * 2, _RESTART_S_MAX)
            _log.warning("a worker ended (%s); another takes its place in %.1f s", reason, pause_s)
            front.restarts += 1
            await asyncio.sleep(pause_s)

    async def _run(self, front: _Front) -> str:
        """Start one process and listen to it; why it ended."""
        ours, theirs = socket.socketpair()
        try:
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=LINE_BYTES_MAX)
        except BaseException:
            ours.close()
            theirs.close()
            raise
        try:
            with theirs:  # once the front has it, nobody else may: its end is how the front's end is seen
                front.child = await _spawn(theirs)
            writer.write(self._start)
            return await self._listen(front, reader, writer)
        finally:
            writer.close()
            front.kill()
            if front.child is not None:
                await front.child.wait()
            front.gone()

    async def _listen(self, front: _Front, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        """Take reports until there are no more; why there are none."""
        patience_s = START_S_MAX
        while True:
            try:
                async with asyncio.timeout(patience_s):
                    line = await reader.readline()
            except TimeoutError:
                return f"silent for {patience_s:g} s"
            except (OSError, ValueError) as error:
                return f"its reports cannot be read: {error}"
            if not line.endswith(b"\n"):
                return "the process is gone"
            if front.writer is None:
                patience_s = SILENCE_S_MAX
                front.writer = writer
                # With the settings of now: they may have changed since it was given those of its start.
                front.tell(config=self._settings, clear=True, view=self._view())
                self._changed.set()
            report = read_report(line)
            front.gauges = report.gauges
            front.answered += sum(count for _, count in report.decisions)
            self._take(report)
            front.done(report.done)

    def _take(self, report: Report) -> None:
        """Hand a report on; what fails there is not counted, and said once until it succeeds again."""
        try:
            self._told(report)
        except Exception:  # noqa: BLE001 - a defect must not end a worker that answers
            if not self._failing:
                _log.exception("what a worker told could not be counted; it goes on")
            self._failing = True
        else:
            self._failing = False


async def _spawn(theirs: socket.socket) -> asyncio.subprocess.Process:
    """A front's process, which gets its end of the channel and finds the package where this process did.

    A session of its own: Ctrl-C in the terminal is for the main process, which then lets the fronts drain.
    """
    found_in = str(Path(cacheproxy.__file__).parents[1])
    path = os.pathsep.join(filter(None, [found_in, os.environ.get("PYTHONPATH")]))
    return await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "cacheproxy.front", str(theirs.fileno()),
        pass_fds=(theirs.fileno(),), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": path}, start_new_session=True,
    )  # fmt: skip
