"""A question becomes a vector without the event loop, another question, or another caller paying for it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence

import numpy as np
import pytest

from cacheproxy.errors import EmbedderError
from cacheproxy.flow import vectors as module
from cacheproxy.flow.vectors import FAILURES_MAX, PROBE, QUEUE_MAX, Embedded, Vectors
from cacheproxy.store.entry import space_of
from embeddings.errors import EmbedError, WeightsError
from embeddings.load import load
from tests.fakes.house import until
from tests.fakes.stopwatch import Stopwatch

DIMS = 8


class FakeEmbedder:
    """Deterministic unit vectors; `gate` holds batches back, `batches` has what was asked for."""

    model = "fake"
    engine = "onnx"
    dims = DIMS
    max_tokens = 4
    fingerprint = "fake-1"
    threshold = None

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.spoil: Callable[[Sequence[str], np.ndarray], np.ndarray] = lambda _texts, rows: rows

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """What `spoil` leaves of a unit vector for each text."""
        self.batches.append(list(texts))
        self.threads.add(threading.current_thread().name)
        assert self.gate.wait(30)
        rows = np.stack([np.random.default_rng(abs(hash(text))).standard_normal(DIMS) for text in texts])
        return self.spoil(texts, (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))

    def count_tokens(self, text: str) -> int:
        """A token a word."""
        return len(text.split())

    def fits(self, text: str) -> bool:
        """Up to four words."""
        return self.count_tokens(text) <= self.max_tokens


@contextlib.asynccontextmanager
async def serving(embedder: object, **changes: float) -> AsyncIterator[Vectors]:
    """Vectors of a ready embedder."""
    limits = {"window_s": 0.0, "batch_max": 32, "timeout_s": 5.0, "memo_max": 100} | changes
    vectors = Vectors(lambda: embedder, **limits)  # type: ignore[arg-type]  # the fake is one by shape
    await vectors.open()
    try:
        assert await vectors.wait_ready(5)
        yield vectors
    finally:
        if isinstance(embedder, FakeEmbedder):
            embedder.gate.set()
        await vectors.close()


@contextlib.asynccontextmanager
async def busy(vectors: Vectors, embedder: FakeEmbedder) -> AsyncIterator[None]:
    """While the worker is held up by a question of its own; it goes on at the end of the block."""
    embedder.gate.clear()
    begun = len(embedder.batches)
    first = asyncio.create_task(vectors.embed("first"))
    await until(lambda: len(embedder.batches) > begun)
    try:
        yield
    finally:
        embedder.gate.set()
        with contextlib.suppress(EmbedderError):
            await first


def adds_up(vectors: Vectors) -> bool:
    """No question is counted twice, or not at all."""
    counts = vectors.statistics()
    return counts.asked == counts.remembered + counts.shared + counts.queued + counts.refused


async def test_a_question_becomes_a_unit_vector_of_its_space():
    """Float32, little endian, as Redis takes it, computed off the event loop."""
    embedder = FakeEmbedder()
    async with serving(embedder) as vectors:
        found = await vectors.embed("why is it")

        numbers = np.frombuffer(found.vector, dtype="<f4")
        assert found.fits
        assert numbers.shape == (DIMS,)
        assert np.linalg.norm(numbers) == pytest.approx(1, abs=1e-6)
        assert found.space == vectors.space == space_of("fake-1", DIMS)
        assert threading.current_thread().name not in embedder.threads


async def test_the_proxy_does_not_wait_for_loading():
    """Asks fail at once meanwhile, and who is told of readiness is told once."""
    gate, embedder, told = threading.Event(), FakeEmbedder(), []

    def slow() -> FakeEmbedder:
        assert gate.wait(30)
        return embedder

    vectors = Vectors(slow, window_s=0, batch_max=8, timeout_s=5, memo_max=8)  # type: ignore[arg-type]
    vectors.on_ready.append(told.append)
    await vectors.open()
    assert vectors.state == "loading"
    with pytest.raises(EmbedderError, match="loaded"):
        await vectors.embed("why")
    assert not await vectors.wait_ready(0)
    gate.set()
    assert await vectors.wait_ready(5)
    assert (vectors.state, vectors.reason, told) == ("ready", "", [embedder])
    await vectors.close()
    assert vectors.state == "off"


@pytest.mark.fault(111)
async def test_a_failed_load_is_tried_again():
    """Weights may appear later; until then the reason is there for the operator."""
    outcomes: list[object] = [WeightsError("model.safetensors is not the pinned one"), ValueError("x"), FakeEmbedder()]
    reasons = []

    def load_next() -> object:
        reasons.append(vectors.reason)
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    vectors = Vectors(load_next, window_s=0, batch_max=8, timeout_s=5, memo_max=8, retry_s=0.01)  # type: ignore[arg-type]
    await vectors.open()
    await until(lambda: vectors.state == "ready")

    assert reasons[1:] == ["model.safetensors is not the pinned one", "the embedder raised ValueError"]
    assert (await vectors.embed("why")).fits
    await vectors.close()


async def test_a_loader_that_ends_the_program_does_not():
    """Some libraries call sys.exit when they miss something."""

    def leave() -> object:
        raise SystemExit(3)

    vectors = Vectors(leave, window_s=0, batch_max=8, timeout_s=5, memo_max=8)  # type: ignore[arg-type]
    await vectors.open()
    assert not await vectors.wait_ready(5)
    assert (vectors.state, vectors.reason) == ("failed", "loading ended with SystemExit")
    await vectors.close()


async def test_closing_does_not_wait_for_a_load_under_way():
    """A download may take minutes; its end finds nobody and harms nobody."""
    gate = threading.Event()
    vectors = Vectors(lambda: gate.wait(30), window_s=0, batch_max=8, timeout_s=5, memo_max=8)  # type: ignore[arg-type,return-value]
    await vectors.open()
    watch = Stopwatch()
    await vectors.close()
    await vectors.close()
    gate.set()

    assert watch.seconds < 1


async def test_closing_does_not_fail_by_what_the_work_failed_by(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is to be closed after it is closed; the error is in the log."""
    vectors = Vectors(FakeEmbedder, window_s=0, batch_max=8, timeout_s=5, memo_max=8)  # type: ignore[arg-type]
    vectors.on_ready.append(lambda _embedder: 1 / 0)
    await vectors.open()
    assert vectors._main is not None
    await asyncio.wait({vectors._main}, timeout=5)
    await vectors.close()

    assert vectors.state == "off"
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ZeroDivisionError]


async def test_a_lone_question_is_computed_at_once():
    """The window is for those who find the worker busy."""
    async with serving(FakeEmbedder(), window_s=30) as vectors:
        assert (await asyncio.wait_for(vectors.embed("why"), 5)).fits


async def test_questions_that_find_the_worker_busy_are_computed_together():
    """And no more of them than `batch_max`."""
    embedder = FakeEmbedder()
    async with serving(embedder, batch_max=3) as vectors:
        async with busy(vectors, embedder):
            asks = [asyncio.create_task(vectors.embed(f"q {number}")) for number in range(5)]
            await until(lambda: vectors.statistics().queue == 5)
        found = await asyncio.gather(*asks)

        assert embedder.batches == [["first"], ["q 0", "q 1", "q 2"], ["q 3", "q 4"]]
        assert len({each.vector for each in found}) == 5
        assert adds_up(vectors)


async def test_a_gathering_batch_leaves_early_when_full():
    """Nobody waits out a window that cannot gather more."""
    embedder = FakeEmbedder()
    async with serving(embedder, batch_max=2, window_s=30) as vectors:
        async with busy(vectors, embedder):
            one = asyncio.create_task(vectors.embed("one"))
            await until(lambda: vectors.statistics().queue == 1)
        await asyncio.wait_for(asyncio.gather(one, vectors.embed("two")), 5)

        assert embedder.batches == [["first"], ["one", "two"]]


async def test_a_gathering_batch_leaves_when_its_window_is_over():
    """However few have come."""
    embedder = FakeEmbedder()
    async with serving(embedder, window_s=0.02) as vectors:
        async with busy(vectors, embedder):
            one = asyncio.create_task(vectors.embed("one"))
            await until(lambda: vectors.statistics().queue == 1)

        assert (await asyncio.wait_for(one, 5)).fits


async def test_equal_questions_under_way_are_computed_once():
    """Whether they wait in the queue or are being computed."""
    embedder = FakeEmbedder()
    async with serving(embedder) as vectors:
        async with busy(vectors, embedder):
            asks = [asyncio.create_task(vectors.embed(text)) for text in ("first", "same", "same", "same")]
            await until(lambda: vectors.statistics().shared == 3)
        found = await asyncio.gather(*asks)

        assert embedder.batches == [["first"], ["same"]]
        assert found[1] == found[2] == found[3] != found[0]
        assert adds_up(vectors)


async def test_a_repeated_question_is_remembered():
    """The worker hears of it once; letters of another case are another question."""
    embedder = FakeEmbedder()
    async with serving(embedder) as vectors:
        first = await vectors.embed("why")
        assert await vectors.embed("why") == first
        await vectors.embed("Why")

        assert embedder.batches == [["why"], ["Why"]]
        assert vectors.statistics().remembered == 1


@pytest.mark.parametrize("memo_max", [0, 2])
async def test_the_memo_holds_as_many_as_it_may(memo_max):
    """The least recently used goes first, and its bytes with it."""
    embedder = FakeEmbedder()
    async with serving(embedder, memo_max=memo_max) as vectors:
        for question in ("a", "b", "a", "c", "a", "b"):
            await vectors.embed(question)

        assert vectors.statistics().memo_entries == memo_max
        assert bool(vectors.statistics().memo_bytes) is bool(memo_max)
        expected = ["a", "b", "a", "c", "a", "b"] if memo_max == 0 else ["a", "b", "c", "b"]
        assert [text for batch in embedder.batches for text in batch] == expected


async def test_the_memo_is_bounded_in_bytes_too(monkeypatch):
    """Long questions push out more than one short one."""
    monkeypatch.setattr(module, "MEMO_BYTES_MAX", 2000)
    async with serving(FakeEmbedder()) as vectors:
        for number in range(20):
            await vectors.embed(f"{number}")

        assert vectors.statistics().memo_bytes <= 2000
        assert 1 < vectors.statistics().memo_entries < 20


@pytest.mark.fault(110)
@pytest.mark.parametrize("question", ["one two three four five", "x" * 129, "x" * 5_000_000])
async def test_a_question_longer_than_the_embedder_reads_is_not_embedded(question):
    """Two questions that differ only behind the end would be the same to it."""
    embedder = FakeEmbedder()
    async with serving(embedder) as vectors:
        embedder.fits = lambda text: len(text.split()) <= 4 and len(text) < 129  # type: ignore[method-assign]
        found = await vectors.embed(question)

        assert found == Embedded()
        assert not found.fits
        assert embedder.batches == []
        assert vectors.statistics().too_long == 1


async def test_a_long_question_does_not_spoil_the_batch_it_came_in():
    """The others have their vectors."""
    embedder = FakeEmbedder()
    async with serving(embedder) as vectors:
        async with busy(vectors, embedder):
            asks = [asyncio.create_task(vectors.embed(text)) for text in ("one", "a b c d e", "two")]
            await until(lambda: vectors.statistics().queue == 3)
        found = await asyncio.gather(*asks)

        assert [each.fits for each in found] == [True, False, True]
        assert embedder.batches[1:] == [["one", "two"]]


def _nan(texts: Sequence[str], rows: np.ndarray) -> np.ndarray:
    rows[[text == "bad" for text in texts], 0] = np.nan
    return rows


def _zero(texts: Sequence[str], rows: np.ndarray) -> np.ndarray:
    rows[[text == "bad" for text in texts]] = 0
    return rows


def _long(texts: Sequence[str], rows: np.ndarray) -> np.ndarray:
    rows[[text == "bad" for text in texts]] *= 1.01
    return rows


def _infinite(texts: Sequence[str], rows: np.ndarray) -> np.ndarray:
    rows[[text == "bad" for text in texts], 1] = np.inf
    return rows


def _wide(texts: Sequence[str], rows: np.ndarray) -> np.ndarray:
    return np.hstack([rows, rows]) / np.float32(2**0.5) if "bad" in texts else rows


def _short(texts: Sequence[str], rows: np.ndarray) -> np.ndarray:
    return rows[:-1] if "bad" in texts else rows


def _ragged(texts: Sequence[str], rows: np.ndarray) -> np.ndarray:
    return [1.0] if "bad" in texts else rows  # type: ignore[return-value]


def _raising(texts: Sequence[str], rows: np.ndarray) -> np.ndarray:
    if "bad" in texts:
        raise RuntimeError(f"cannot read {texts}")
    return rows


@pytest.mark.fault(32)
@pytest.mark.fault(107)
@pytest.mark.parametrize("spoil", [_nan, _zero, _long, _infinite, _wide, _short, _ragged, _raising])
async def test_one_bad_vector_is_an_error_for_its_asker_only(spoil):
    """It is never handed on; who shared the batch has a good one; nothing bad is remembered."""
    embedder = FakeEmbedder()
    embedder.spoil = spoil
    async with serving(embedder) as vectors:
        async with busy(vectors, embedder):
            asks = [asyncio.create_task(vectors.embed(text)) for text in ("one", "bad", "two")]
            await until(lambda: vectors.statistics().queue == 3)
        one, bad, two = await asyncio.gather(*asks, return_exceptions=True)

        assert isinstance(bad, EmbedderError)
        assert "bad" not in str(bad)
        assert isinstance(one, Embedded)
        assert isinstance(two, Embedded)
        assert vectors.statistics().failed == 1
        embedder.spoil = lambda _texts, rows: rows
        assert (await vectors.embed("bad")).fits


async def test_a_question_nobody_can_embed_does_not_end_the_embedder():
    """However often it is asked: the embedder shows that it can do others."""
    embedder = FakeEmbedder()
    embedder.spoil = _raising
    async with serving(embedder) as vectors:
        for _ in range(2 * FAILURES_MAX):
            with pytest.raises(EmbedderError):
                await vectors.embed("bad")

        assert (await vectors.embed("good")).fits
        assert embedder.batches.count([PROBE]) == 2
        assert vectors.state == "ready"


@pytest.mark.fault(109)
async def test_an_embedder_that_has_died_is_loaded_anew():
    """Another model may come back; what was remembered of the old one is then forgotten."""
    dead, fresh = FakeEmbedder(), FakeEmbedder()
    fresh.fingerprint = "fake-2"
    made, told = [dead, fresh], []
    vectors = Vectors(lambda: made.pop(0), window_s=0, batch_max=8, timeout_s=5, memo_max=8, retry_s=0.01)  # type: ignore[arg-type,return-value]
    vectors.on_ready.append(told.append)
    await vectors.open()
    assert await vectors.wait_ready(5)
    old = await vectors.embed("why")

    def die(_texts: Sequence[str], _rows: np.ndarray) -> np.ndarray:
        raise EmbedError("the model was replaced while in use")

    dead.spoil = die
    for number in range(FAILURES_MAX):
        with pytest.raises(EmbedderError, match="replaced"):
            await vectors.embed(f"q {number}")
    await until(lambda: told == [dead, fresh])
    new = await vectors.embed("why")

    assert (old.space, new.space) == (space_of("fake-1", DIMS), space_of("fake-2", DIMS))
    assert fresh.batches == [["why"]]
    await vectors.close()


@pytest.mark.fault(108)
async def test_a_slow_embedder_costs_an_ask_its_deadline_and_no_more():
    """The work ends later and is remembered; those who come meanwhile are turned away at once."""
    embedder = FakeEmbedder()
    async with serving(embedder, timeout_s=0.3) as vectors:
        async with busy(vectors, embedder):
            with pytest.raises(EmbedderError, match="no vector in"):
                await vectors.embed("first")
            for question in ("first", "second"):
                watch = Stopwatch()
                with pytest.raises(EmbedderError, match="busy with one batch"):
                    await vectors.embed(question)
                assert watch.seconds < 0.25
        await until(lambda: vectors.statistics().memo_entries == 1)

        assert (await vectors.embed("first")).fits
        assert embedder.batches == [["first"]]
        assert vectors.statistics().late == 2


@pytest.mark.fault(108)
async def test_the_queue_is_bounded():
    """Whoever finds it full is told at once."""
    embedder = FakeEmbedder()
    async with serving(embedder) as vectors:
        async with busy(vectors, embedder):
            asks = [asyncio.create_task(vectors.embed(f"q {number}")) for number in range(QUEUE_MAX)]
            await until(lambda: vectors.statistics().queue == QUEUE_MAX)
            with pytest.raises(EmbedderError, match="waiting"):
                await vectors.embed("one more")
        await asyncio.gather(*asks)

        assert adds_up(vectors)


@pytest.mark.fault(108)
async def test_the_event_loop_goes_on_while_the_embedder_works():
    """A computation of half a second does not hold up a loop that ticks every few milliseconds."""
    embedder = FakeEmbedder()

    def slow(_texts: Sequence[str], rows: np.ndarray) -> np.ndarray:
        time.sleep(0.5)
        return rows

    embedder.spoil = slow
    async with serving(embedder) as vectors:
        ask = asyncio.create_task(vectors.embed("why"))
        stalls, last = [], time.monotonic()
        while not ask.done():
            await asyncio.sleep(0.002)
            stalls.append(time.monotonic() - last)
            last = time.monotonic()

        assert max(stalls) < 0.25
        assert len(stalls) > 5


async def test_one_who_leaves_does_not_take_the_vector_from_the_others():
    """Cancelling one of three who ask the same leaves two answers and no trace."""
    embedder = FakeEmbedder()
    async with serving(embedder) as vectors:
        async with busy(vectors, embedder):
            asks = [asyncio.create_task(vectors.embed("same")) for _ in range(3)]
            await until(lambda: vectors.statistics().shared == 2)
            asks[0].cancel()
            with pytest.raises(asyncio.CancelledError):
                await asks[0]
        assert await asks[1] == await asks[2]


async def test_a_question_everybody_has_left_is_not_computed():
    """Nor does it keep its place in the queue; asked again, it is a new one."""
    embedder = FakeEmbedder()
    async with serving(embedder) as vectors:
        async with busy(vectors, embedder):
            asks = [asyncio.create_task(vectors.embed(text)) for text in ("left", "stays")]
            await until(lambda: vectors.statistics().queue == 2)
            asks[0].cancel()
            await asyncio.wait(asks[:1])
        await asks[1]
        assert embedder.batches == [["first"], ["stays"]]

        assert (await vectors.embed("left")).fits


async def test_closing_answers_those_who_wait():
    """With an error, at once, and those who come later as well."""
    embedder = FakeEmbedder()
    async with serving(embedder) as vectors:
        embedder.gate.clear()
        asks = [asyncio.create_task(vectors.embed(text)) for text in ("one", "two")]
        await until(lambda: vectors.statistics().queued == 2)
        await vectors.close()
        for ask in asks:
            with pytest.raises(EmbedderError, match="closed"):
                await ask
        with pytest.raises(EmbedderError, match="closed"):
            await vectors.embed("three")


async def test_a_batch_that_fails_slowly_is_not_tried_question_by_question():
    """Once nobody waits any more, the worker has better things to do."""
    embedder = FakeEmbedder()

    def fail(texts: Sequence[str], rows: np.ndarray) -> np.ndarray:
        if texts != ["first"]:
            time.sleep(0.12)
            raise RuntimeError
        return rows

    embedder.spoil = fail
    async with serving(embedder, timeout_s=0.1) as vectors:
        async with busy(vectors, embedder):
            asks = [asyncio.create_task(vectors.embed(f"q {number}")) for number in range(20)]
            await until(lambda: vectors.statistics().queue == 20)
        found = await asyncio.gather(*asks, return_exceptions=True)
        await until(lambda: vectors.statistics().batches == 2)

        assert all(isinstance(each, EmbedderError) for each in found)
        assert len(embedder.batches) == 2


async def test_the_real_embedder_finds_a_paraphrase_nearer_than_another_question():
    """And gives the vectors it gives without any of this around it, one by one or in a batch."""
    embedder = load("all-MiniLM-L6-v2", engine="onnx")
    questions = ["How do I reset my password?", "How can I reset my password?", "What is the capital of France?"]
    async with serving(embedder) as vectors:
        alone = await vectors.embed(questions[0])
        found = await asyncio.gather(*(vectors.embed(question) for question in questions))
        long = await vectors.embed("word " * 300)
    rows = np.stack([np.frombuffer(each.vector, dtype="<f4") for each in found])

    assert found[0] == alone
    assert not long.fits
    assert rows[0] @ rows[1] > 0.95
    assert rows[0] @ rows[2] < 0.3
    np.testing.assert_allclose(rows, embedder.embed(questions), atol=1e-6)
