"""What Ollama has in memory is known as long as Ollama says so, and no longer."""

import asyncio
import json

import pytest

from cacheproxy.errors import UpstreamUnreachableError
from cacheproxy.upstream.loaded import FORGET_READS, LOOK_S_MIN, Loaded, LoadedModel, Wish, read
from cacheproxy.wire import chat
from tests.fakes.house import until

A = "ab" * 32
LINE = {
    "name": "llama3:latest",
    "model": "llama3:latest",
    "size": 4096,
    "size_vram": 1024,
    "digest": A,
    "expires_at": "2026-08-21T10:00:00.123456789+02:00",
    "context_length": 8192,
}
LLAMA = LoadedModel("llama3:latest", A, 4096, 1024, 8192, pytest.approx(1787299200.123456))


class Ollama:
    """Answers `/api/ps`, or does not."""

    def __init__(self, *lines):
        self.lines = lines
        self.away = False
        self.reads = 0

    async def __call__(self):
        """The reply."""
        self.reads += 1
        if self.away:
            raise UpstreamUnreachableError("away")
        return {"models": list(self.lines)}


def ask(**members):
    """A chat with these members."""
    return chat.parse(json.dumps({"model": "m", "messages": [{"content": "p"}]} | members).encode())


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"models": [LINE]}, [LLAMA]),
        ({"models": [LINE | {"expires_at": "soon"}, LINE]}, [LLAMA]),
        ({"models": [{"name": "x"}, 5, None, LINE | {"size": "many"}]}, []),
        ({"models": None}, []),
        ({}, []),
        ([], []),
        (None, []),
    ],
)
def test_the_reply_is_read_line_by_line(told, expected):
    """What is malformed costs its line only."""
    assert read(told) == expected


@pytest.mark.parametrize("moment", ["2318-12-02T00:00:00Z", "0001-01-01T00:00:00Z", "2026-08-21T10:00:00.1Z"])
def test_every_moment_that_ollama_writes_can_be_read(moment):
    """For ever is the year 2318; a model being loaded has Go's zero time."""
    assert len(read({"models": [LINE | {"expires_at": moment}]})) == 1


async def test_what_is_loaded_is_known_by_digest():
    """And unknown while Ollama is away, or since somebody loaded something."""
    ollama = Ollama(LINE)
    loaded = Loaded(ollama, every_s=60)
    assert loaded.of(A) is None
    await loaded.refresh()
    assert (loaded.of(A), loaded.models) == (LLAMA, [LLAMA])
    loaded.forget()
    assert loaded.of(A) is None
    await loaded.refresh()
    ollama.away = True
    await loaded.refresh()
    assert loaded.models == []


async def test_it_goes_on_reading_until_closed():
    """The first read comes at once."""
    ollama = Ollama(LINE)
    loaded = Loaded(ollama, every_s=0.001)
    await loaded.open()
    await until(lambda: loaded.of(A) is not None)
    ollama.lines = ()
    await until(lambda: loaded.of(A) is None)
    await loaded.close()


async def test_a_defect_is_said_once_and_the_reads_go_on(caplog):
    """In the reading (JSON nested too deep, say), or in who listens: the others hear of it all the same."""
    ollama, heard = Ollama(LINE), []

    async def fetch():
        if ollama.reads < 2:
            ollama.reads += 1
            raise RecursionError
        return await ollama()

    loaded = Loaded(fetch, every_s=0.001)
    loaded.on_read = [lambda: 1 / 0, lambda: heard.append(loaded.of(A))]
    await loaded.open()
    await until(lambda: ollama.reads >= 5)
    await loaded.close()

    assert heard[:2] == [None, None]
    assert heard[2:5] == [LLAMA] * 3
    assert len(caplog.records) == 2


async def test_what_callers_chose_is_remembered_while_the_model_stays():
    """An ask that chooses nothing takes nothing back; unloading does."""
    ollama = Ollama(LINE)
    loaded = Loaded(ollama, every_s=60)
    loaded.note(A, ask(options={"num_ctx": 8192}))
    loaded.note(A, ask(keep_alive="5m"))
    loaded.note(A, ask())
    assert loaded.wish(A) == Wish(num_ctx=8192, keep_alive=True)
    for _ in range(3):
        await loaded.refresh()
    assert loaded.wish(A) == Wish(num_ctx=8192, keep_alive=True)
    ollama.lines = ()
    for _ in range(FORGET_READS):
        await loaded.refresh()
    assert loaded.wish(A) == Wish()


async def test_a_model_that_answers_without_being_known_to_be_loaded_is_looked_for_at_once():
    """Long before the next regular read; one that is known is not."""
    ollama = Ollama()
    loaded = Loaded(ollama, every_s=60)
    await loaded.open()
    await until(lambda: ollama.reads == 1)
    ollama.lines = (LINE,)
    loaded.answered(A)
    await until(lambda: loaded.of(A) is not None)
    loaded.answered(A)
    await asyncio.sleep(2 * LOOK_S_MIN)
    await loaded.close()

    assert ollama.reads == 2


async def test_a_model_that_is_never_listed_is_looked_for_less_and_less():
    """And not at all at an Ollama that does not tell what is loaded."""
    ollama = Ollama()
    loaded = Loaded(ollama, every_s=60)
    await loaded.open()
    for _ in range(100):
        loaded.answered(A)
        await asyncio.sleep(0.005)
    assert 2 <= ollama.reads <= 4
    ollama.away = True
    await loaded.refresh()
    reads = ollama.reads
    loaded.answered(A)
    await asyncio.sleep(2 * LOOK_S_MIN)
    await loaded.close()

    assert ollama.reads == reads


async def test_a_model_that_answers_during_a_read_from_before_it_was_loaded_is_looked_for_at_once():
    """That read says nothing of it."""
    ollama, asked, may_tell = Ollama(), asyncio.Event(), asyncio.Event()

    async def slow_to_tell():
        told = await ollama()
        if ollama.reads == 2:
            asked.set()
            await may_tell.wait()
        return told

    loaded = Loaded(slow_to_tell, every_s=60)
    await loaded.refresh()
    await loaded.open()
    await asked.wait()
    ollama.lines = (LINE,)
    loaded.answered(A)
    may_tell.set()
    await until(lambda: loaded.of(A) is not None)
    await loaded.close()

    assert ollama.reads == 3


async def test_a_model_that_answers_during_the_read_that_finds_it_is_not_looked_for_again():
    """It is known then."""
    ollama = Ollama()

    async def slow_to_tell():
        if ollama.reads == 1:
            ollama.lines = (LINE,)
            loaded.answered(A)
        return await ollama()

    loaded = Loaded(slow_to_tell, every_s=60)
    await loaded.refresh()
    await loaded.open()
    await until(lambda: loaded.of(A) is not None)
    await asyncio.sleep(2 * LOOK_S_MIN)
    await loaded.close()

    assert ollama.reads == 2


async def test_a_read_under_way_when_what_is_known_is_forgotten_does_not_count():
    """It may say what was loaded before; the next one comes at once, and what callers chose is not over by either."""
    ollama, asked, may_tell, heard = Ollama(LINE), asyncio.Event(), asyncio.Event(), []

    async def slow_to_tell():
        told = await ollama()
        asked.set()
        await may_tell.wait()
        return told

    loaded = Loaded(slow_to_tell, every_s=60)
    loaded.on_read.append(lambda: heard.append(loaded.models))
    loaded.note(A, ask(keep_alive="5m"))
    await loaded.open()
    await asked.wait()
    loaded.forget()
    ollama.lines = ()
    may_tell.set()
    await until(lambda: heard == [[]])
    await loaded.close()

    assert ollama.reads == 2
    assert loaded.readable
    assert loaded.wish(A) == Wish(keep_alive=True)


async def test_it_can_be_closed_in_the_very_moment_in_which_it_is_to_look():
    """A cancellation that got lost would keep the program from ending."""
    for _ in range(20):
        ollama = Ollama()
        loaded = Loaded(ollama, every_s=60)
        await loaded.open()
        await until(lambda ollama=ollama: ollama.reads == 1)
        await asyncio.sleep(1.2 * LOOK_S_MIN)
        loaded.answered(A)
        await asyncio.wait_for(loaded.close(), 1)
