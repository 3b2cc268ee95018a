"""Asks that wait make one call: nobody waits for company, nobody gets another's result, and nothing is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cacheproxy.flow.together import Batch, Batches, Member

TEXTS_MAX = 4


async def let_all_run() -> None:
    """Give every task that can go on its turns."""
    for _ in range(10):
        await asyncio.sleep(0)


class Call:
    """One call, each step of it when the test says so."""

    def __init__(self, batch: Batch[Call]) -> None:
        self.batch = batch
        self.turn = asyncio.Event()
        self.result: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended = False

    async def run(self) -> Call:
        """Wait for the turn, close, bring the result."""
        try:
            await self.turn.wait()
            self.batch.close()
            await self.result
            return self
        finally:
            self.ended = True

    def comes(self, error: Exception | None = None) -> None:
        """The result, or an error in its stead, once its turn has come."""
        if not self.turn.is_set() or self.result.done():
            return
        if error is None:
            self.result.set_result(None)
        else:
            self.result.set_exception(error)
            self.result.exception()


class Stage:
    """Batches, the calls that were made of them, and every ask there was."""

    def __init__(self) -> None:
        self.batches: Batches[Call] = Batches(TEXTS_MAX)
        self.calls: list[Call] = []
        self.abandoned: list[Call] = []
        self.asks: list[tuple[str, asyncio.Task[tuple[Batch[Call], Call]]]] = []

    def ask(self, text: str, company: str = "company", *, texts: int = 1) -> asyncio.Task[tuple[Batch[Call], Call]]:
        """One more ask."""

        async def call(batch: Batch[Call]) -> Call:
            self.calls.append(Call(batch))
            return await self.calls[-1].run()

        async def abandon(result: Call) -> None:
            self.abandoned.append(result)

        member = Member([text] * texts, text.encode())
        task = asyncio.create_task(self.batches.send(company, member, call, abandon))
        self.asks.append((text, task))
        return task


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """A stage; nothing may be left on it."""
    stage = Stage()
    yield stage
    await let_all_run()
    assert len(stage.batches) == 0
    assert all(call.ended for call in stage.calls)


async def test_who_comes_before_the_turn_is_part_of_the_call_and_who_comes_after_makes_another(stage: Stage) -> None:
    """The first one alone if its turn comes at once."""
    first = stage.ask("a")
    await let_all_run()
    stage.calls[0].turn.set()
    await let_all_run()
    later = [stage.ask("b"), stage.ask("c"), stage.ask("b")]
    await let_all_run()
    assert stage.batches.gathered == 3
    for call in stage.calls:
        call.turn.set()
    await let_all_run()
    for call in stage.calls:
        call.comes()

    assert [(call.batch.asks, call.batch.texts) for call in stage.calls] == [(1, ("a",)), (3, ("b", "c"))]
    assert [(await task)[1] for task in (first, *later)] == [stage.calls[0], *[stage.calls[1]] * 3]


async def test_a_result_that_comes_as_the_last_one_leaves_is_abandoned(stage: Stage) -> None:
    """It may hold a connection."""
    task = stage.ask("a")
    await let_all_run()
    (call,) = stage.calls
    call.turn.set()
    await let_all_run()
    call.comes()
    await asyncio.sleep(0)
    assert call.ended
    task.cancel()
    await asyncio.wait({task})

    assert task.cancelled()
    assert stage.abandoned == [call]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 1)),
        st.tuples(st.just("ask much"), st.integers(0, 1)),
        st.tuples(st.sampled_from(["leave", "turn", "result", "error"]), st.integers(0, 9)),
        st.tuples(st.just("run"), st.just(0)),
    ),
    max_size=40,
)


@given(steps=STEPS)
@settings(max_examples=200)
def test_no_schedule_leaves_a_call_or_gives_anybody_anothers_result(steps: list[tuple[str, int]]) -> None:
    """Every ask that stays gets a result of a call with its texts, or its error; a call nobody waits for ends."""
    asyncio.run(asyncio.wait_for(play(steps), 10))


def act(stage: Stage, action: str, value: int) -> None:
    """One event of a schedule."""
    if action.startswith("ask"):
        stage.ask(f"{len(stage.asks)} of {value}", str(value), texts=3 if action == "ask much" else 1)
    elif action == "leave":
        for _, task in stage.asks[value : value + 1]:
            task.cancel()
    for call in stage.calls[value : value + 1]:
        if action == "turn":
            call.turn.set()
        elif action in ("result", "error"):
            call.comes(None if action == "result" else ValueError("no"))


async def play(steps: list[tuple[str, int]]) -> None:
    """Play a schedule, let everything come to its end, and look at what everybody got."""
    stage = Stage()
    for action, value in steps:
        act(stage, action, value)
        if action == "run":
            await let_all_run()
    await let_all_run()
    for call in stage.calls:
        call.turn.set()
    await let_all_run()
    for call in stage.calls:
        call.comes()
    results = await asyncio.gather(*(task for _, task in stage.asks), return_exceptions=True)
    await let_all_run()

    assert len(stage.batches) == 0
    assert all(call.ended for call in stage.calls)
    for (text, _), result in zip(stage.asks, results, strict=True):
        if isinstance(result, BaseException):
            assert isinstance(result, (ValueError, asyncio.CancelledError))
        else:
            batch, call = result
            assert call.batch is batch
            assert text in batch.texts
    for call in stage.calls:
        assert len({text.split(" of ")[1] for text in call.batch.texts}) <= 1
        assert call.batch.asks <= TEXTS_MAX
        assert len(call.batch.bodies) == call.batch.asks
