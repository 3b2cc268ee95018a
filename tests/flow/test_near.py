"""Redis's time is used to get ready for judging what it finds, and judging leaves others their turn."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, cast

import pytest

from cacheproxy.flow import near as flow_near
from cacheproxy.flow.near import Near
from cacheproxy.flow.vectors import Embedded
from cacheproxy.metrics import Metrics
from cacheproxy.model import Answer, Entry, Match, NearPlan, Plan
from cacheproxy.rules import accept
from cacheproxy.rules.guards import GUARDS, object_to, rehearse
from cacheproxy.trail import Trail
from tests.fakes.clock import FakeClock

PLAN = NearPlan(question="How do I renew the badge of team 3?", scope="s", threshold=0.9)
STORED = "How can I renew the badge of team 3?"


class Index:
    """Finds neighbours, once it is let."""

    state = "ready"

    def __init__(self, *stored: str) -> None:
        self.stored = stored or (STORED,)
        self.asked = asyncio.Event()
        self.answers = asyncio.Event()
        self.left = False

    async def nearest(self, *_: object, **__: object) -> list[Match]:
        """The neighbours, when `answers` is set."""
        self.asked.set()
        try:
            await self.answers.wait()
        except asyncio.CancelledError:
            self.left = True
            raise
        answer = Answer("Like this.")
        entries = [
            Entry("p:answer:e:d:t", b"c", "", "s", "d", answer, 0.0, 1e12, question=text) for text in self.stored
        ]
        return [Match(entry, 0.97) for entry in entries]


class Embedder:
    """One vector for all."""

    state = "ready"

    async def embed(self, _question: str) -> Embedded:
        """It, at once."""
        return Embedded(b"\0" * 8, "space")


class Apart:
    """Nothing is kept apart."""

    def is_apart(self, *_: str) -> bool:
        """Never."""
        return False


def near_of(index: Index) -> tuple[Near, Trail]:
    """The near tier over that index, and the trail of an ask."""
    clock = FakeClock()
    parts: Any = (Embedder(), index, Apart(), Metrics(clock), clock, list(GUARDS))
    return Near(*parts, serves=True, joins=False), Trail(clock)


async def test_while_redis_compares_vectors_the_question_is_made_ready_to_be_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once the search has been sent, and not when it has its answer already."""
    rehearsed: list[tuple[str, bool]] = []
    for answers in (False, True):
        index = Index()
        if answers:
            index.answers.set()
        near, trail = near_of(index)
        monkeypatch.setattr(
            flow_near,
            "rehearse",
            lambda question, _guards, index=index: rehearsed.append((question, index.asked.is_set())),
        )
        looking = asyncio.create_task(near.look(PLAN, Plan(key="k"), trail))
        await index.asked.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        index.answers.set()

        assert (await looking).acceptable
        assert rehearsed == [(PLAN.question, True)]


async def test_a_guard_that_raises_while_nobody_asks_its_verdict_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told where the verdict counts."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(flow_near, "rehearse", fail)
    index = Index()
    near, trail = near_of(index)
    looking = asyncio.create_task(near.look(PLAN, Plan(key="k"), trail))
    await index.asked.wait()
    await asyncio.sleep(0.01)
    index.answers.set()

    assert (await looking).acceptable


@pytest.mark.parametrize("turns", range(4))
async def test_a_caller_who_leaves_ends_the_search(turns: int) -> None:
    """At whatever moment."""
    index = Index()
    near, trail = near_of(index)
    looking = asyncio.create_task(near.look(PLAN, Plan(key="k"), trail))
    await index.asked.wait()
    for _ in range(turns):
        await asyncio.sleep(0)
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking
    await asyncio.sleep(0)

    assert cast("bool", index.left)


def test_getting_ready_changes_no_verdict() -> None:
    """Nothing is kept of it but what was read."""
    pairs = [(PLAN.question, STORED), (PLAN.question, PLAN.question.replace("3", "4"))]
    before = [object_to(*pair) for pair in pairs]
    rehearse(PLAN.question)

    assert [object_to(*pair) for pair in pairs] == before == [None, "numbers"]


async def test_between_two_neighbours_other_asks_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long questions take a while to judge; the first that may be served is still the last that is judged."""
    index = Index(PLAN.question.replace("3", "4"), PLAN.question.replace("3", "5"), STORED, PLAN.question)
    near, trail = near_of(index)
    turns = 0
    at: list[int] = []

    def judge(*pair: Any) -> str | None:
        at.append(turns)
        return object_to(*pair)

    monkeypatch.setattr(accept, "object_to", judge)
    looking = asyncio.create_task(near.look(PLAN, Plan(key="k"), trail))
    index.answers.set()
    while not looking.done():
        turns += 1
        await asyncio.sleep(0)

    assert looking.result().match is not None
    assert looking.result().acceptable
    assert len(set(at)) == len(at) == 3


async def test_long_questions_are_judged_aside_so_that_nobody_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt of 30 kB that is no known template would stop all others for more than a tenth of a second."""
    long = "The gate opens at seven and closes at nine. " * 100
    index = Index(f"{long}When does it open?", STORED)
    near, trail = near_of(index)
    judged: list[tuple[int, bool]] = []

    def judge(asked: str, stored: str, *more: Any) -> str | None:
        judged.append((len(stored), threading.current_thread() is threading.main_thread()))
        return object_to(asked, stored, *more)

    monkeypatch.setattr(accept, "object_to", judge)
    index.answers.set()
    looked = await near.look(PLAN, Plan(key="k"), trail)

    assert looked.acceptable
    assert judged == [(len(long) + len("When does it open?"), False), (len(STORED), True)]
