"""Places at Ollama: waited for in order, held to the last byte, given back whatever happens. Time stands still here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.errors import UpstreamBrokenError, UpstreamBusyError, UpstreamUnreachableError
from cacheproxy.metrics import Metrics
from cacheproxy.trail import Trail
from cacheproxy.upstream.batcher import Batcher
from cacheproxy.upstream.order import Group, Limits
from tests.fakes.clock import FakeClock

A, B = Group("A"), Group("B")


class Timer:
    """One call to come."""

    def __init__(self, at_s: float, call: Callable[[], None]) -> None:
        self.at_s, self.call, self.cancelled = at_s, call, False

    def cancel(self) -> None:
        """It will not come."""
        self.cancelled = True


class Bench:
    """A batcher, the clock and timers it runs on, and what it sent."""

    def __init__(self, **given: float) -> None:
        table = {"parallel": 1, "models_at_once": 1, "waiting_max": 4, "window_s": 0.05, "together": 8, "turn_s": 30.0}
        self.clock = FakeClock(0.0)
        self.metrics = Metrics(self.clock)
        self.timers: list[Timer] = []
        limits = Limits(**(table | given))  # type: ignore[arg-type]
        self.batcher = Batcher(limits, self.clock, self.metrics, call_later=self._call_later)
        self.sent: list[Upstream] = []

    def _call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(self.clock.seconds + delay_s, call))
        return self.timers[-1]

    @property
    def pending(self) -> list[Timer]:
        """Timers that will still ring."""
        return [timer for timer in self.timers if not timer.cancelled]

    async def pass_time(self, seconds: float) -> None:
        """Time goes on; what is due rings."""
        self.clock.advance(seconds)
        for timer in self.pending:
            if timer.at_s <= self.clock.seconds:
                self.timers.remove(timer)
                timer.call()
        await settle()

    async def ask(self, group: Group, **given: object) -> Asker:
        """Someone asks; what can happen at once has happened."""
        asker = Asker(self, group, **given)  # type: ignore[arg-type]
        await settle()
        return asker


class Upstream:
    """One reply of Ollama's, in the hands of the test."""

    def __init__(self) -> None:
        self.status, self.reason, self.headers, self.waited_s = 200, "OK", (), 0.0
        self.head: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed = False

    async def chunks(self) -> AsyncIterator[bytes]:
        """One piece, then nothing until the end."""
        yield b"piece"
        await self.end

    async def close(self) -> None:
        """No more of it."""
        self.closed = True


class Asker:
    """Someone who asks, reads the whole reply and closes it."""

    def __init__(self, bench: Bench, group: Group, trail: Trail | None = None) -> None:
        self.bench, self.group, self.trail = bench, group, trail
        self.upstream: Upstream | None = None
        self.read_all = False
        self.task = asyncio.create_task(self._run())

    async def _fetch(self) -> Upstream:
        self.upstream = Upstream()
        self.bench.sent.append(self.upstream)
        await self.upstream.head
        return self.upstream

    async def _run(self) -> None:
        reply = await self.bench.batcher.send(self.group, self._fetch, self.trail)  # type: ignore[arg-type]
        try:
            async for _piece in reply.chunks():
                pass
            self.read_all = True
        finally:
            await reply.close()

    async def answer(self) -> None:
        """Ollama sends the head and the first piece."""
        assert self.upstream is not None
        self.upstream.head.set_result(None)
        await settle()

    async def finish(self) -> None:
        """Ollama sends all there is left."""
        assert self.upstream is not None
        for step in (self.upstream.head, self.upstream.end):
            if not step.done():
                step.set_result(None)
        await settle()

    async def leave(self) -> None:
        """The caller is gone."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await settle()


async def settle() -> None:
    """Let every task run until it waits for something."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_lone_ask_is_sent_at_once():
    """No timer, no wait, no word about it in the trail; the step is counted with 0 s."""
    bench = Bench()
    trail = Trail(bench.clock, bench.metrics.step)
    asker = await bench.ask(A, trail=trail)

    assert bench.batcher.in_flight == 1
    assert (str(trail), trail.timings_s) == ("", {"queue": 0.0})
    assert bench.timers == []
    await asker.finish()
    assert asker.read_all
    assert bench.batcher.in_flight == 0


async def test_a_place_is_held_until_the_last_byte():
    """A reply that streams still works Ollama."""
    bench = Bench()
    first = await bench.ask(A)
    second = await bench.ask(A)
    await first.answer()
    assert second.upstream is None

    await first.finish()
    assert second.upstream is not None
    await second.finish()


async def test_the_trail_says_how_long_an_ask_waited():
    """In whole milliseconds; the step has it exactly."""
    bench = Bench()
    first = await bench.ask(A)
    trail = Trail(bench.clock, bench.metrics.step)
    second = await bench.ask(A, trail=trail)
    await bench.pass_time(0.0124)
    await first.finish()
    await second.finish()

    assert str(trail) == "queue:12ms"
    assert trail.timings_s["queue"] == pytest.approx(0.0124)
    assert bench.metrics.snapshot()["latency"]["steps"]["queue"]["count"] == 2


async def test_a_window_is_one_timer():
    """It rings once, and all who gathered go together."""
    bench = Bench(models_at_once=2, parallel=4)
    askers = [await bench.ask(A), await bench.ask(B), await bench.ask(B)]
    assert len(bench.sent) == 1
    assert len(bench.pending) == 1

    await bench.pass_time(0.05)
    assert len(bench.sent) == 3
    assert bench.pending == []
    for asker in askers:
        await asker.finish()


async def test_closing_leaves_no_timer():
    """Nothing rings after the end."""
    bench = Bench(models_at_once=2)
    askers = [await bench.ask(A), await bench.ask(B)]
    await bench.batcher.close()

    assert bench.pending == []
    for asker in reversed(askers):
        await asker.leave()


async def test_a_full_queue_refuses_in_ollamas_words():
    """Its two spaces too; who waits already is not harmed, and a place that is free is not refused."""
    bench = Bench(models_at_once=2, waiting_max=1, window_s=0)
    first, second = await bench.ask(A), await bench.ask(A)
    refused = await bench.ask(A)
    other = await bench.ask(B)

    with pytest.raises(UpstreamBusyError, match=r"^server busy, please try again.  maximum pending requests exceeded$"):
        await refused.task
    assert bench.metrics.snapshot()["faults"]["queue_full"] == 1
    assert other.upstream is not None
    for asker in (first, second, other):
        await asker.finish()
        assert asker.read_all


async def test_whoever_leaves_the_queue_costs_nothing():
    """Ollama never hears of it."""
    bench = Bench()
    first, second, third = await bench.ask(A), await bench.ask(A), await bench.ask(A)
    await second.leave()
    assert bench.batcher.waiting == 1

    await first.finish()
    assert third.upstream is not None
    assert second.upstream is None
    await third.finish()


async def test_leaving_while_ollama_loads_frees_the_place():
    """The next one gets it."""
    bench = Bench()
    first, second = await bench.ask(A), await bench.ask(A)
    await first.leave()

    assert second.upstream is not None
    await second.finish()


async def test_leaving_in_the_middle_of_a_reply_frees_the_place():
    """The reply is closed first, so Ollama stops before it gets the next."""
    bench = Bench()
    first, second = await bench.ask(A), await bench.ask(A)
    await first.answer()
    await first.leave()

    assert first.upstream is not None
    assert first.upstream.closed
    assert second.upstream is not None
    await second.finish()


async def test_leaving_in_the_moment_of_ones_turn_frees_the_place():
    """The turn had come, the task had not run yet."""
    bench = Bench()
    first, second, third = await bench.ask(A), await bench.ask(A), await bench.ask(A)
    first.task.cancel()
    while bench.batcher.waiting == 2:  # noqa: ASYNC110 - the turn comes in some step of the loop
        await asyncio.sleep(0)
    assert bench.batcher.in_flight == 1  # it is the second's, who does not know yet
    await second.leave()

    assert second.upstream is None
    assert third.upstream is not None
    await third.finish()


@pytest.mark.parametrize("error", [UpstreamUnreachableError("away"), UpstreamBrokenError("cut")])
async def test_a_fetch_that_fails_frees_the_place(error: Exception):
    """Its error is the caller's."""
    bench = Bench()
    first, second = await bench.ask(A), await bench.ask(A)
    assert first.upstream is not None
    first.upstream.head.set_exception(error)
    await settle()

    with pytest.raises(type(error)):
        await first.task
    assert second.upstream is not None
    await second.finish()


async def test_a_reply_that_breaks_off_frees_the_place():
    """Its error is the reader's."""
    bench = Bench()
    first, second = await bench.ask(A), await bench.ask(A)
    await first.answer()
    assert first.upstream is not None
    first.upstream.end.set_exception(UpstreamBrokenError("cut"))
    await settle()

    with pytest.raises(UpstreamBrokenError):
        await first.task
    assert second.upstream is not None
    await second.finish()


STEPS = st.tuples(st.sampled_from(["ask", "answer", "finish", "leave", "fail", "wait"]), st.integers(0, 50))


async def play(steps: list[tuple[str, int]]) -> None:
    """Do the steps, then let everybody finish; every place must be free again and every count right."""
    bench = Bench(parallel=2, models_at_once=2, waiting_max=1000)
    askers: list[Asker] = []
    groups = [A, B, Group("C"), Group("A", (("num_ctx", "1"),))]
    for kind, number in steps:
        sent = [asker for asker in askers if asker.upstream is not None and not asker.task.done()]
        if kind == "ask":
            askers.append(await bench.ask(groups[number % 4]))
        elif kind == "wait":
            await bench.pass_time(number / 2)
        elif kind == "leave" and askers:
            await askers[number % len(askers)].leave()
        elif kind in ("answer", "fail") and (fresh := [asker for asker in sent if not asker.upstream.head.done()]):
            if kind == "answer":
                await fresh[number % len(fresh)].answer()
            else:
                fresh[number % len(fresh)].upstream.head.set_exception(UpstreamUnreachableError("away"))
                await settle()
        elif kind == "finish" and sent:
            await sent[number % len(sent)].finish()
        at_work = [asker for asker in askers if asker.upstream is not None and not asker.task.done()]
        assert bench.batcher.in_flight == len(at_work)
        assert bench.batcher.waiting == sum(a.upstream is None and not a.task.done() for a in askers)
    while at_work := [asker for asker in askers if asker.upstream is not None and not asker.task.done()]:
        await at_work[0].finish()
    assert bench.batcher.in_flight == bench.batcher.waiting == len(bench.pending) == len(bench.batcher._turns) == 0
    assert all(asker.task.done() for asker in askers)
    await asyncio.gather(*(asker.task for asker in askers), return_exceptions=True)


@given(st.lists(STEPS, max_size=40))
def test_whatever_happens_every_place_is_free_in_the_end(steps: list[tuple[str, int]]):
    """Asking, answering, finishing, failing, leaving and waiting in any order."""
    asyncio.run(play(steps))
