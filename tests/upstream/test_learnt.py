"""What fits into Ollama's memory is known again after a restart, and what is no longer true of it mends itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.errors import CacheError, EntryCorruptError, StoreRefusedError, StoreUnavailableError
from cacheproxy.upstream.crowding import APART_MAX, BEFORE, NOTHING_SEEN, OLLAMAS_OWN, Crowding, Fit
from cacheproxy.upstream.learnt import KEPT_S, MODELS_MAX, TOUCH_S, WHY_MAX, Learnt, note, read
from tests.fakes.clock import FakeClock
from tests.fakes.house import House, open_house, until
from tests.fakes.ollama import FakeOllama
from tests.fakes.redis_server import RedisServer

ONE, OTHER = "llama3", "llama3.2"
AB, CD = frozenset("ab"), frozenset("cd")
LEARNT = Fit(1, "a had to go for b", (AB,))
NOTE = {"version": 1, "models": 1, "why": "a had to go for b", "apart": [["a", "b"]]}


class Paper:
    """Where the note is; `trouble` is raised by whoever reads or writes."""

    def __init__(self, noted: Any = None) -> None:
        self.noted = noted
        self.reads = self.writes = 0
        self.trouble: Exception | None = None

    async def remember(self, value: Any) -> None:
        """Write it."""
        self.writes += 1
        if self.trouble is not None:
            raise self.trouble
        self.noted = json.loads(json.dumps(value))

    async def recall(self) -> Any:
        """Read it."""
        self.reads += 1
        if self.trouble is not None:
            raise self.trouble
        return self.noted


def started(paper: Paper, models_at_once: int | str = "auto") -> tuple[Crowding, Learnt]:
    """The parts of a proxy that was just started."""
    crowding = Crowding(models_at_once, FakeClock())
    return crowding, Learnt(crowding, crowding._clock, remember=paper.remember, recall=paper.recall)


async def looked(learnt: Learnt) -> None:
    """A look, and what it began."""
    learnt.look()
    if learnt._work is not None:
        await learnt._work


def learn(crowding: Crowding, fit: Fit) -> None:
    """Reads showed this."""
    crowding._learn(fit)


@pytest.mark.parametrize(
    "fit", [LEARNT, Fit(3, NOTHING_SEEN, (AB, CD)), Fit(5, "5 were loaded at once"), Fit(MODELS_MAX, "")]
)
def test_a_note_says_what_was_learnt(fit: Fit) -> None:
    """Also after its way through JSON; the sizes of the day are left out."""
    assert read(json.loads(json.dumps(note(fit)))) == fit
    assert note(Fit(fit.models, fit.why, fit.apart, seen_bytes=7)) == note(fit)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(value, id=str(value))
        for value in (
            None, 5, "x", [], {}, [NOTE], {"version": 1},
            NOTE | {"version": 0}, NOTE | {"version": 2}, NOTE | {"version": "1"},
            NOTE | {"models": 0}, NOTE | {"models": -1}, NOTE | {"models": MODELS_MAX + 1}, NOTE | {"models": 1.0},
            NOTE | {"models": True}, NOTE | {"models": "1"}, NOTE | {"models": None}, NOTE | {"why": None},
            NOTE | {"apart": None}, NOTE | {"apart": {"a": "b"}}, NOTE | {"apart": ["ab"]}, NOTE | {"apart": [["a"]]},
            NOTE | {"apart": [["a", "a"]]}, NOTE | {"apart": [["a", "b", "c"]]}, NOTE | {"apart": [["a", 1]]},
            NOTE | {"apart": [["a", ["b"]]]}, NOTE | {"apart": [["a", "b"], None]},
        )
    ],
)  # fmt: skip
def test_what_is_no_note_is_none(value: Any) -> None:
    """Another version's, somebody else's, half a note."""
    assert read(value) is None


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
                    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*NOTE]), inner)))  # fmt: skip
def test_whatever_lies_there_is_read_without_an_error(value: Any) -> None:
    """And is a note only if all of it is."""
    fit = read(value)
    assert fit is None or read(note(fit)) == fit


def test_a_note_is_read_up_to_a_bound() -> None:
    """However much somebody wrote into it; the newest pairs count."""
    fit = read(NOTE | {"why": "x" * 10**6, "apart": [["a", f"b{number}"] for number in range(3 * APART_MAX)]})
    assert fit is not None
    assert (len(fit.why), len(fit.apart)) == (WHY_MAX, APART_MAX)
    assert frozenset(("a", f"b{3 * APART_MAX - 1}")) in fit.apart


async def test_what_was_learnt_is_known_after_a_restart() -> None:
    """Who acts on it is told; the reason says since when."""
    paper = Paper()
    crowding, learnt = started(paper)
    learn(crowding, LEARNT)
    await looked(learnt)
    again, learnt = started(paper)
    told: list[Any] = []
    again.on_learnt.append(lambda *what: told.append(what))
    await looked(learnt)

    assert (again.fit.models, again.fit.apart, again.fit.why) == (1, (AB,), "a had to go for b" + BEFORE)
    assert told == [(1, frozenset((AB,)), False)]


async def test_a_note_is_written_only_when_it_changes() -> None:
    """Not at every look, not because it was read, and not before anything is learnt: its days are counted."""
    paper = Paper()
    for _restart in range(3):
        crowding, learnt = started(paper)
        for _look in range(3):
            await looked(learnt)
        assert paper.writes == 0
    learn(crowding, LEARNT)
    for _look in range(3):
        await looked(learnt)
    for _restart in range(3):
        _, learnt = started(paper)
        await looked(learnt)

    assert (paper.writes, paper.reads, paper.noted) == (1, 6, NOTE)


async def test_a_note_is_read_now_and_then_so_that_a_full_redis_keeps_it() -> None:
    """It drops what nobody reads. That changes nothing, is no write, and a read that fails is not made up for."""
    paper = Paper(NOTE)
    crowding, learnt = started(paper)
    clock = crowding._clock
    assert isinstance(clock, FakeClock)
    await looked(learnt)
    for trouble in (None, StoreUnavailableError("away"), None):
        paper.noted, paper.trouble = NOTE | {"models": 7}, trouble
        reads = paper.reads
        clock.advance(TOUCH_S - 1)
        await looked(learnt)
        assert paper.reads == reads
        clock.advance(1)
        for _look in range(3):
            await looked(learnt)
        assert paper.reads == reads + 1

    assert (crowding.fit.models, paper.writes) == (1, 0)


async def test_where_nothing_was_learnt_nothing_is_read_again() -> None:
    """There is no note to keep."""
    paper = Paper()
    crowding, learnt = started(paper)
    await looked(learnt)
    assert isinstance(crowding._clock, FakeClock)
    crowding._clock.advance(TOUCH_S)
    await looked(learnt)
    assert (paper.reads, paper.writes) == (1, 0)


async def test_what_is_learnt_while_a_note_is_written_is_written_too() -> None:
    """In the same go."""
    paper = Paper()
    crowding, learnt = started(paper)
    await looked(learnt)
    learn(crowding, LEARNT)
    learnt.look()
    await asyncio.sleep(0)
    learn(crowding, Fit(2, "2 were loaded at once"))
    learnt.look()
    await looked(learnt)

    assert read(paper.noted) == Fit(2, "2 were loaded at once")


@pytest.mark.parametrize("trouble", [StoreUnavailableError("away"), CacheError("?")])
async def test_while_redis_is_away_nothing_is_lost_but_time(trouble: CacheError) -> None:
    """The note is read at the first look that can, and what was learnt meanwhile is written then, beside it."""
    paper = Paper(NOTE)
    paper.trouble = trouble
    crowding, learnt = started(paper)
    await looked(learnt)
    learn(crowding, Fit(2, "c had to go for d", (CD,)))
    await looked(learnt)
    assert (paper.reads, paper.writes) == (2, 0)
    paper.trouble = None
    await looked(learnt)

    assert crowding.fit == Fit(2, "c had to go for d", (AB, CD))
    assert read(paper.noted) == crowding.fit


@pytest.mark.parametrize("trouble", [EntryCorruptError("x"), StoreRefusedError("x", "WRONGTYPE")])
async def test_what_cannot_be_read_is_overwritten_when_there_is_something_to_write(trouble: CacheError) -> None:
    """Somebody else's value, and it is not asked for again."""
    paper = Paper()
    paper.trouble = trouble
    crowding, learnt = started(paper)
    await looked(learnt)
    paper.trouble = None
    await looked(learnt)
    assert (paper.reads, crowding.fit.models) == (1, OLLAMAS_OWN)
    learn(crowding, LEARNT)
    await looked(learnt)

    assert paper.noted == NOTE


async def test_a_defect_is_said_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """Looks come every few seconds."""
    paper = Paper(NOTE)
    paper.trouble = RuntimeError("a defect")
    crowding, learnt = started(paper)
    for _look in range(3):
        await looked(learnt)
    assert caplog.text.count("could not be noted") == 1
    paper.trouble = None
    await looked(learnt)
    assert crowding.fit.models == 1


async def test_a_number_of_the_operators_is_no_business_of_a_note() -> None:
    """It is neither read nor written, and stays for the day when the number is taken out again."""
    paper = Paper(NOTE)
    crowding, learnt = started(paper, 3)
    await looked(learnt)
    crowding.take(LEARNT)

    assert crowding.fit == Fit(3, "upstream.models_at_once")
    assert (paper.reads, paper.writes) == (0, 0)


async def test_closing_waits_for_no_redis() -> None:
    """Nor does looking."""
    held = asyncio.Event()

    async def recall() -> Any:
        await held.wait()

    learnt = Learnt(Crowding("auto", FakeClock()), FakeClock(), remember=Paper().remember, recall=recall)
    learnt.look()
    learnt.look()
    await asyncio.sleep(0)
    await learnt.close()
    await learnt.close()

    assert learnt._work is not None
    assert learnt._work.cancelled()


# --- a whole proxy ---


@pytest.fixture
async def small() -> AsyncIterator[FakeOllama]:
    """An Ollama that holds one model at a time and takes a moment to load it; it goes on when the proxy restarts."""
    ollama = FakeOllama(parallel=4, loaded_max=1, load_s=0.1, tokens_per_second=500, answer_tokens=12)
    await ollama.open()
    yield ollama
    await ollama.close()


def opened(ollama: FakeOllama, redis: RedisServer, **more: Any) -> Any:
    """A proxy in front of it, `models_at_once` left as it comes."""
    return open_house(ollama, redis, upstream={"parallel": 4, **more})


async def burst(house: House, name: str, **members: Any) -> int:
    """32 asks at once, for two models in turn; the loads they cost."""
    before = house.ollama.scheduler.loads
    asks = [house.chat(f"{name}, {number}?", model=model, **members) for number in range(16) for model in (ONE, OTHER)]
    assert all(reply.complete for reply in await asyncio.gather(*asks))
    return house.ollama.scheduler.loads - before


async def learns_one(ollama: FakeOllama, redis: RedisServer) -> None:
    """A proxy finds out that one fits, notes it, and ends."""
    async with opened(ollama, redis) as house:
        await burst(house, "first")
        await until(lambda: said(redis, ollama) is not None)
        assert house.first.batcher.models_at_once == 1


def said(redis: RedisServer, ollama: FakeOllama) -> Fit | None:
    """What the note in Redis says."""
    text = redis.call("GET", key(ollama))
    return read(json.loads(text)) if text is not None else None


def key(ollama: FakeOllama) -> str:
    """The note's."""
    return f"cacheproxy:note:fit:127.0.0.1:{ollama.port}"


async def test_the_first_burst_after_a_restart_takes_two_loads(small: FakeOllama, clean_redis: RedisServer) -> None:
    """One for each model: nothing has to be found out again. The note has an end."""
    async with opened(small, clean_redis) as house:
        assert await burst(house, "first") > 2
        await until(lambda: said(clean_redis, small) is not None)
        fit = said(clean_redis, small)
    async with opened(small, clean_redis) as house:
        await until(lambda: house.first.batcher.models_at_once == 1)
        assert await burst(house, "second") <= 2
        (told,) = (await house.stats())["upstreams"]

    assert (told["models_at_once"], told["models_apart"]) == (1, [[f"{OTHER}:latest", f"{ONE}:latest"]])
    assert told["models_at_once_why"].endswith(f":latest{BEFORE}")
    assert said(clean_redis, small) == fit
    assert 0 < clean_redis.call("PTTL", key(small)) <= KEPT_S * 1000


async def test_more_memory_is_seen_though_a_note_says_that_one_fits(
    small: FakeOllama, clean_redis: RedisServer
) -> None:
    """The two take turns once; Ollama keeps both, and that is seen, and noted in its turn."""
    await learns_one(small, clean_redis)
    small.scheduler.loaded_max = 3
    async with opened(small, clean_redis) as house:
        await until(lambda: house.first.batcher.models_at_once == 1)
        assert await burst(house, "second") <= 2
        await until(lambda: house.first.batcher.models_at_once == 2)
        assert house.first.crowding.fit.apart == ()
        assert await burst(house, "third") == 0
        await until(lambda: said(clean_redis, small) == Fit(2, "2 were loaded at once"))
    async with opened(small, clean_redis) as house:
        await until(lambda: house.first.batcher.models_at_once == 2)


async def test_what_is_loaded_at_the_start_says_more_than_a_note(small: FakeOllama, clean_redis: RedisServer) -> None:
    """Ollama went on while the proxy was away, and has both by now: no ask is needed."""
    await learns_one(small, clean_redis)
    small.scheduler.loaded_max = 3
    async with opened(small, clean_redis, models_at_once=3) as house:
        await burst(house, "while the number was the operator's")
    async with opened(small, clean_redis) as house:
        await until(lambda: said(clean_redis, small) == Fit(2, "2 were loaded at once"))
        assert (house.first.batcher.models_at_once, house.calls()) == (2, 64)


async def test_less_memory_than_a_note_says_is_learnt_as_ever(small: FakeOllama, clean_redis: RedisServer) -> None:
    """Within the first burst."""
    clean_redis.call("SET", key(small), json.dumps(note(Fit(5, "5 were loaded at once"))))
    async with opened(small, clean_redis) as house:
        await until(lambda: house.first.batcher.models_at_once == 5)
        assert await burst(house, "first") <= 4
        assert house.first.batcher.models_at_once == 1
        assert await burst(house, "second") <= 2


async def test_models_that_never_stay_mend_nothing(small: FakeOllama, clean_redis: RedisServer) -> None:
    """Where all asks unload their model no two are ever seen together: a note stands until its days are over."""
    await learns_one(small, clean_redis)
    small.scheduler.loaded_max = 3
    for model in small.scheduler.runners():
        small.scheduler.unload(model.model)
    async with opened(small, clean_redis) as house:
        await until(lambda: house.first.batcher.models_at_once == 1)
        await burst(house, "second", keep_alive=0)
        assert house.first.batcher.models_at_once == 1


@pytest.mark.parametrize("command", [("HSET", "x", "1"), ("SET", "no JSON"), ("SET", '{"version": 9}')])
async def test_what_else_lies_under_its_name_harms_nothing(
    small: FakeOllama, clean_redis: RedisServer, command: tuple[str, ...]
) -> None:
    """It is as if there were nothing, and gives way to what is learnt."""
    clean_redis.call(command[0], key(small), *command[1:])
    async with opened(small, clean_redis) as house:
        await until(lambda: house.first.learnt._recalled)
        assert (house.first.batcher.models_at_once, house.first.crowding.fit.why) == (OLLAMAS_OWN, NOTHING_SEEN)
        assert await burst(house, "first") <= 4
        await until(lambda: clean_redis.call("TYPE", key(small)) == b"string")
        await until(lambda: said(clean_redis, small) is not None)


async def test_a_redis_that_does_not_answer_holds_up_neither_start_nor_asks(
    small: FakeOllama, clean_redis: RedisServer
) -> None:
    """The note is read when it does."""
    await learns_one(small, clean_redis)
    clean_redis.freeze()
    try:
        async with open_house(small, clean_redis, ready=False, redis={"timeout": 0.05}) as house:
            assert (await house.chat("during that?")).complete
            assert not house.first.learnt._recalled
            clean_redis.thaw()
            await until(lambda: house.first.learnt._recalled)
            await until(lambda: house.first.batcher.models_at_once == 1)
    finally:
        clean_redis.thaw()


async def test_each_of_several_ollamas_has_a_note_of_its_own(small: FakeOllama, clean_redis: RedisServer) -> None:
    """One machine's memory says nothing of another's."""
    await learns_one(small, clean_redis)
    large = FakeOllama()
    await large.open()
    try:
        async with opened(large, clean_redis, others=(small.url,)) as house:
            first, other = house.app.fleet.members
            await until(lambda: other.batcher.models_at_once == 1)
            await until(lambda: first.learnt._recalled)
            assert first.batcher.models_at_once == OLLAMAS_OWN
    finally:
        await large.close()
