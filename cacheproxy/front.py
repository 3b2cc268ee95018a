"""A front: a small process that answers exact hits on the shared port and relays the rest to the main process.

    python -m cacheproxy.front FD      started by `workers/fronts.py`; FD is its end of the channel, and nothing else

It knows only what it was told, keeps no state that matters, and lives exactly as long as the channel: when the main
process is gone, it is gone at once. Refuses signals, since whoever ends the proxy ends the main process.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import socket
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from cacheproxy import heap, log
from cacheproxy.clock import SystemClock
from cacheproxy.config import Config
from cacheproxy.decisions import Decisions
from cacheproxy.edge.admission import Admission
from cacheproxy.edge.front import Front, ToMain
from cacheproxy.edge.lane import LANE_SHARE, Lane
from cacheproxy.edge.origin import Origins
from cacheproxy.edge.plans import Plans
from cacheproxy.edge.replay import Replay
from cacheproxy.edge.seek import Seek
from cacheproxy.edge.server import Server
from cacheproxy.flow.lookup import LookUp
from cacheproxy.loop import loop_factory
from cacheproxy.metrics import Fault
from cacheproxy.model import Decision, Plan
from cacheproxy.reload import own, take_over
from cacheproxy.store.connection import Connection
from cacheproxy.store.exact import Exact
from cacheproxy.store.memory import Memory
from cacheproxy.upstream.inside import MainClient
from cacheproxy.upstream.loaded import Loaded, Wish
from cacheproxy.upstream.tuning import Fills
from cacheproxy.upstream.view import Replica
from cacheproxy.wire.dialects import BY_PATH
from cacheproxy.workers.messages import LINE_BYTES_MAX, Gauges, Order, Report, Start, encode, read_order, read_start

REPORT_S = 0.1
"""Between two reports while there is something to tell."""
PULSE_S = 1.0
"""Between two reports while there is nothing."""
UNTOLD_MAX = 20_000
"""Asks told one by one in a report. More, if the main process does not take them, are told by their kind and sums."""


@dataclass(slots=True)
class _Sum:
    """Asks of one kind that are not told one by one: what they come to, without what only one of them had."""

    kind: Decision
    """The last of them."""
    count: int = 0
    seconds: float = 0.0
    first_byte_s: float = 0.0
    saved_ms: int = 0
    saved_tokens: int = 0

    def add(self, decision: Decision, count: int) -> None:
        """More of them."""
        self.kind = decision
        self.count += count
        self.seconds += decision.seconds * count
        self.first_byte_s += (decision.first_byte_s or 0.0) * count
        self.saved_ms += round(decision.saved_s * 1000) * count
        self.saved_tokens += decision.saved_tokens * count

    def told(self) -> list[tuple[Decision, int]]:
        """As decisions whose sums are those of all: each has the mean, and as many as must have 1 ms or token more."""
        mean_ms, more_ms = divmod(self.saved_ms, self.count)
        mean_tokens, more_tokens = divmod(self.saved_tokens, self.count)
        like = replace(
            self.kind,
            seconds=self.seconds / self.count,
            first_byte_s=None if self.kind.first_byte_s is None else self.first_byte_s / self.count,
            entry="",
            age_s=None,
            trail="",
            timings_s={},
            neighbour=None,
        )
        cuts = sorted({0, more_ms, more_tokens, self.count})
        return [
            (
                replace(
                    like,
                    saved_s=(mean_ms + (start < more_ms)) / 1000,
                    saved_tokens=mean_tokens + (start < more_tokens),
                ),
                end - start,
            )
            for start, end in itertools.pairwise(cuts)
        ]


class Telling:
    """What is to be reported: gathered as it happens, taken at once."""

    def __init__(self) -> None:
        self.something = asyncio.Event()
        self._decisions: list[tuple[Decision, int]] = []
        self._more: dict[tuple[str | bool, ...], _Sum] = {}
        self._wishes: dict[str, Wish] = {}
        self._faults: Counter[str] = Counter()

    def decided(self, decision: Decision, count: int) -> None:
        """Asks ended so."""
        self.something.set()
        if len(self._decisions) < UNTOLD_MAX:
            self._decisions.append((decision, count))
            return
        began = decision.first_byte_s is not None
        kind = (decision.outcome, decision.dialect, decision.model, decision.tier, decision.partition, began)
        self._more.setdefault(kind, _Sum(decision)).add(decision, count)

    def wished(self, digest: str, wish: Wish) -> None:
        """Callers asked this of a model."""
        self.something.set()
        self._wishes[digest] = wish

    def fault(self, kind: Fault) -> None:
        """Something went wrong that the main process will not meet itself when it gets the ask."""
        if kind in (Fault.ENTRY_CORRUPT, Fault.INTERNAL):
            self.something.set()
            self._faults[kind] += 1

    def take(self, gauges: Gauges) -> Report:
        """All that was not reported yet."""
        report = Report(
            decisions=(*self._decisions, *(told for kind in self._more.values() for told in kind.told())),
            wishes=self._wishes,
            faults=dict(self._faults),
            gauges=gauges,
        )
        self._decisions, self._more, self._wishes, self._faults = [], {}, {}, Counter()
        self.something.clear()
        return report


class Process:
    """The parts of a front, joined."""

    def __init__(self, start: Start) -> None:
        self.config = config = own(Config.model_validate(start.config))
        self._clock = clock = SystemClock()
        self.telling = Telling()
        self._decisions = decisions = Decisions()
        decisions.listeners.append(self.telling.decided)
        self.connection = Connection(config.redis, clock)
        self.memory = Memory(config.cache.memory, clock)
        self.connection.on_change.append(self.memory.clear)
        loaded = Loaded.of_another()
        loaded.on_wish.append(self.telling.wished)
        self.replica = Replica(loaded, clock)
        self.client = MainClient(Path(start.inside))
        self._contacted = False
        self.fills = Fills(config)
        self.lane = Lane(
            self.memory, self.replica, frozenset(), decisions, clock, bytes_max=config.cache.memory // LANE_SHARE
        )
        lookup = LookUp(self.memory, Exact(self.connection, config.redis.prefix), self.telling.fault, clock)
        replay = self._build_replay(lookup)
        known = replay if config.server.repeat_lane else None
        handle = self._build_front(lookup, replay).handle
        self.server = Server(
            handle, config.server.listen, config.server, fault=self.telling.fault, known=known, reuse_port=True
        )

    def _secret(self) -> bytes:
        return self.connection.secret

    def _build_replay(self, lookup: LookUp) -> Replay:
        config, clock = self.config, self._clock
        admission = Admission(
            self.replica,
            self.replica,
            self.fills,
            config,
            clock,
            secret=self._secret,
            generation=lambda: self.lane.generation,
        )
        plans = Plans(self.memory, self.replica, frozenset(), self._secret, _key)
        seeker = Seek(
            lookup, plans, self._decisions, clock, lambda _step, _seconds: None, admission.note, self.lane.count
        )
        learns = config.server.repeat_lane
        return Replay(self.lane, learns, Origins(config.server), admission, _key, plans, seeker, self.telling.fault)

    def _build_front(self, lookup: LookUp, replay: Replay) -> Front:
        return Front(
            dialects=BY_PATH,
            admission=replay.admission,
            replay=replay,
            lookup=lookup,
            relay=ToMain(self.client, self.config.server),
            origins=replay.origins,
            config=self.config,
            decisions=self._decisions,
            fault=self.telling.fault,
            known=self._known,
            tells_loaded=lambda: self.replica.tells_loaded,
            clock=self._clock,
        )

    def _known(self) -> bool:
        """Whether the secret is that of all proxies on this Redis: it is from the first contact on."""
        self._contacted = self._contacted or self.connection.state == "up"
        return self._contacted

    async def open(self) -> None:
        """Listen. Raises OSError."""
        await self.connection.open()
        await self.client.open()
        await self.server.open()

    async def drain(self, timeout_s: float) -> None:
        """Finish what is under way."""
        await self.server.drain(timeout_s)
        await self.client.close()
        await self.connection.close()

    def report(self) -> Report:
        """What is to be told now."""
        self.lane.flush()
        return self.telling.take(Gauges(self.server.in_flight, len(self.memory), self.memory.size_bytes))

    def obey(self, order: Order) -> None:
        """Carry out an order, all but draining."""
        if order.config is not None:
            take_over(self.config, Config.model_validate(order.config))
            self.fills.forget()
            self.memory.resize(self.config.cache.memory)
            self.lane.renew(self.config.cache.memory // LANE_SHARE)
            log.configure(self.config.log)
        if order.view is not None:
            self.replica.take(order.view)
        if order.clear:
            self.memory.clear()
        if order.forget:
            self.memory.forget_key(order.forget)


async def _live(channel: socket.socket) -> None:
    """Be a front until told to end. The end of the channel is the end of the process, wherever it is."""
    reader, writer = await asyncio.open_unix_connection(sock=channel, limit=LINE_BYTES_MAX)
    line = await reader.readline()
    if not line:
        return
    start = read_start(line)
    process = Process(start)
    log.configure(process.config.log)
    await process.open()
    heap.settle()
    writer.write(encode(process.report()))
    telling = asyncio.create_task(_tell(process, writer))
    try:
        drain_s = await _obey(process, reader, writer, start)
        obeying = asyncio.create_task(_obey(process, reader, writer, start))  # what changes while it drains holds too
        await process.drain(drain_s)
        obeying.cancel()
    finally:
        telling.cancel()
    writer.write(encode(process.report()))
    await writer.drain()
    writer.close()


async def _obey(process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, start: Start) -> float:
    """Carry out orders until one says to drain; for how long."""
    while True:
        try:
            line = await reader.readline()
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            shutil.rmtree(Path(start.inside).parent, ignore_errors=True)
            os._exit(0)  # nothing here is worth a moment in which somebody is answered by a view that is nobody's
        order = read_order(line)
        process.obey(order)
        if order.number:
            writer.write(encode(Report(done=order.number)))
        if order.drain_s is not None:
            return order.drain_s


async def _tell(process: Process, writer: asyncio.StreamWriter) -> None:
    """Report: at once when something happens after a pause, then no more often than every `REPORT_S`."""
    something = process.telling.something
    while True:
        try:
            async with asyncio.timeout(PULSE_S):
                await something.wait()
        except TimeoutError:
            pass
        writer.write(encode(process.report()))
        await writer.drain()
        await asyncio.sleep(REPORT_S)


def _key(plan: Plan) -> str:
    return plan.key


def main() -> None:
    """Run the front whose channel the argument names."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_live(socket.socket(fileno=int(sys.argv[1]))))


if __name__ == "__main__":
    main()
