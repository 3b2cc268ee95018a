"""The async front of the embedder: a question in, its vector out, and the event loop never waits for a processor.

    embed() ──► memo ──► equal question under way? ──► queue ──► batch ──► one worker thread ──► memo, all who asked

A lone question is computed at once; those that come while the worker is busy gather and are computed together.
Loading happens in a thread of its own and is tried again after a failure; meanwhile `embed` fails at once.

This module refuses to guess: a vector that is not a finite direction of the right length, or that stands for only part
of its text, is none. It counts no faults: each ask that gets an EmbedderError is its caller's to count.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

import numpy as np

from cacheproxy.behind import end
from cacheproxy.errors import EmbedderError
from cacheproxy.store.entry import space_of
from embeddings.errors import EmbeddingsError
from embeddings.protocol import Embedder
from embeddings.text import short_enough

_log = logging.getLogger("cacheproxy.flow")

_T = TypeVar("_T")

QUEUE_MAX = 256
"""Questions that may wait for the worker: about half a second of its work (32 take 64 ms)."""
MEMO_BYTES_MAX = 64 * 1024**2
"""What remembered questions may take, however long they are: 4,096 short ones take 8 MB."""
MEMO_OVERHEAD_BYTES = 300
"""Objects around one remembered question, beside its text and vector."""
RETRY_S = 30.0
"""Pause before the embedder is loaded again after a failure: a download that failed is not repeated all the time."""
FAILURES_MAX = 5
"""So many batches in a row without a single vector, and the embedder has to show that it still works."""
PROBE = "Is anybody there?"
"""A question every embedder has a vector for: if it fails too, the embedder is at fault and not the questions."""
NORM_TOLERANCE = 1e-3
"""How far from 1 a vector's length may be; float32 arithmetic stays within 1e-6."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """A question's vector: float32 little endian, unit length, comparable within `space` only.

    Empty for a question the embedder does not read to its end: such questions must not be compared.
    """

    vector: bytes = b""
    space: str = ""

    @property
    def fits(self) -> bool:
        """Whether the vector stands for the whole question."""
        return bool(self.vector)


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts since the start, and what is held now."""

    asked: int
    """All `embed`s: = remembered + shared + too_long + queued + refused, and those still under way in between."""
    remembered: int
    """Answered by the memo."""
    shared: int
    """Joined an equal question under way."""
    queued: int
    """Questions given to the worker."""
    refused: int
    """Turned away at once: not ready, queue full, or the worker is stuck."""
    late: int
    """Gave up at their deadline."""
    too_long: int
    """Questions that are longer than the embedder reads."""
    batches: int
    computed: int
    failed: int
    """Questions of batches that gave no usable vector."""
    queue: int
    memo_entries: int
    memo_bytes: int


@dataclass(slots=True)
class _Counts:
    asked: int = 0
    remembered: int = 0
    shared: int = 0
    queued: int = 0
    refused: int = 0
    late: int = 0
    too_long: int = 0
    batches: int = 0
    computed: int = 0
    failed: int = 0


_Result: TypeAlias = Embedded | EmbedderError
"""An error is handed on as a value: asyncio reports a future whose exception nobody came for as a mistake."""

_TOO_LONG = Embedded()


@dataclass(slots=True)
class _Slot:
    """One question under way, for all who ask it."""

    question: str
    asked_s: float
    result: asyncio.Future[_Result]
    waiting: int = 0


class Vectors:
    """Vectors of questions. `load` blocks and raises EmbeddingsError; it runs in a thread.

    `window_s`: how long a question waits for others once the worker has been busy; 0: not at all. `batch_max`:
    questions computed together. `timeout_s`: deadline of one ask. `memo_max`: questions remembered; 0: none.
    """

    def __init__(
        self,
        load: Callable[[], Embedder],
        *,
        window_s: float,
        batch_max: int,
        timeout_s: float,
        memo_max: int,
        retry_s: float = RETRY_S,
    ) -> None:
        self._load = load
        self._window_s = window_s
        self._batch_max = batch_max
        self._timeout_s = timeout_s
        self._retry_s = retry_s
        self._memo = _Memo(memo_max)
        self._main: asyncio.Task[None] | None = None
        self._worker: ThreadPoolExecutor | None = None
        self._slots: dict[str, _Slot] = {}
        self._queue: OrderedDict[str, _Slot] = OrderedDict()
        self._looked = asyncio.Event()
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()
        self._busy_since_s: float | None = None
        self._counts = _Counts()
        self.state: Literal["off", "loading", "ready", "failed"] = "off"
        self.reason = ""
        """Why it is not ready; empty when it is."""
        self.embedder: Embedder | None = None
        """For its facts (`dims`, `fingerprint`, `max_tokens`, `threshold`); None unless ready."""
        self.space = ""
        """The name of the vector space of the embedder loaded last."""
        self.on_ready: list[Callable[[Embedder], None]] = []
        """Called on the event loop with the embedder each time one has been loaded; must be quick and not raise."""

    def statistics(self) -> Statistics:
        """Counts since the start, and what is held now."""
        counts = self._counts
        return Statistics(
            asked=counts.asked,
            remembered=counts.remembered,
            shared=counts.shared,
            queued=counts.queued,
            refused=counts.refused,
            late=counts.late,
            too_long=counts.too_long,
            batches=counts.batches,
            computed=counts.computed,
            failed=counts.failed,
            queue=len(self._queue),
            memo_entries=len(self._memo),
            memo_bytes=self._memo.size_bytes,
        )

    async def open(self) -> None:
        """Begin to load; returns at once."""
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="embedder")
        self.state, self.reason = "loading", "the embedder is being loaded"
        self._main = asyncio.create_task(self._run(), name="embedder")

    async def close(self) -> None:
        """Stop; questions under way fail. Does not wait for the worker. Safe to call twice."""
        await end(self._main)
        self._main = None
        self._lose("off", "closed")
        if self._worker is not None:
            self._worker.shutdown(wait=False, cancel_futures=True)
            self._worker = None

    async def wait_ready(self, timeout_s: float) -> bool:
        """Wait until loading has succeeded or failed, at most `timeout_s`; whether it is ready."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._looked.wait()
        return self.state == "ready"

    async def embed(self, question: str) -> Embedded:
        """The vector of a question, within `timeout_s`.

        Raises EmbedderError: not ready, too many questions waiting, too late, or no usable vector. A question whose
        asker has left is still computed if the worker has begun with it.
        """
        self._counts.asked += 1
        if self.embedder is None:
            self._counts.refused += 1
            raise EmbedderError(f"no vectors: {self.reason or self.state}")
        if not short_enough(question, self.embedder.max_tokens):
            self._counts.too_long += 1
            return _TOO_LONG
        known = self._memo.get(question)
        if known is not None:
            self._counts.remembered += 1
            return known
        self._refuse_if_hopeless()
        slot = self._slots.get(question)
        if slot is None:
            slot = self._enqueue(question)
        else:
            self._counts.shared += 1
        return await self._wait(slot)

    def _refuse_if_hopeless(self) -> None:
        """Where one batch takes longer than anybody waits, who comes now would only wait for nothing."""
        if self._busy_since_s is None:
            return
        busy_s = asyncio.get_running_loop().time() - self._busy_since_s
        if busy_s > self._timeout_s:
            self._counts.refused += 1
            raise EmbedderError(f"the embedder has been busy with one batch for {busy_s:.1f} s")

    async def _wait(self, slot: _Slot) -> Embedded:
        slot.waiting += 1
        try:
            async with asyncio.timeout(self._timeout_s):
                result = await asyncio.shield(slot.result)
        except TimeoutError:
            self._counts.late += 1
            raise EmbedderError(f"no vector in {self._timeout_s:g} s") from None
        finally:
            slot.waiting -= 1
        if isinstance(result, EmbedderError):
            raise EmbedderError(str(result))  # not the shared one, which would collect the traceback of each who asked
        return result

    def _enqueue(self, question: str) -> _Slot:
        if len(self._queue) >= QUEUE_MAX:
            self._counts.refused += 1
            raise EmbedderError(f"{QUEUE_MAX} questions are waiting for the embedder")
        loop = asyncio.get_running_loop()
        slot = _Slot(question, loop.time(), loop.create_future())
        self._slots[question] = self._queue[question] = slot
        self._counts.queued += 1
        self._arrived.set()
        if len(self._queue) >= self._batch_max:
            self._full.set()
        return slot

    async def _run(self) -> None:
        """Load, serve until it fails too often, and again."""
        while True:
            try:
                embedder = await _in_thread(self._load)
            except Exception as error:  # noqa: BLE001 - engines and their libraries raise what they like
                self._lose("failed", _described(error))
            else:
                self._gain(embedder)
                await self._serve(embedder)
                self._lose("failed", "it gives no vectors any more")
            _log.warning("near answers are off: %s; trying again in %g s", self.reason, self._retry_s)
            await asyncio.sleep(self._retry_s)

    def _gain(self, embedder: Embedder) -> None:
        space = space_of(embedder.fingerprint, embedder.dims)
        if space != self.space:
            self._memo.clear()
        self.embedder, self.space = embedder, space
        self.state, self.reason = "ready", ""
        self._looked.set()
        _log.info("embedder %s ready (%s, %d dims)", embedder.model, embedder.engine, embedder.dims)
        for callback in self.on_ready:
            callback(embedder)

    def _lose(self, state: Literal["off", "failed"], reason: str) -> None:
        """No embedder any more; whoever waits is told."""
        self.embedder = None
        self.state, self.reason = state, reason
        self._looked.set()
        self._busy_since_s = None
        self._queue.clear()
        slots = list(self._slots.values())
        self._slots.clear()
        for slot in slots:
            slot.result.set_result(EmbedderError(f"no vectors: {reason}"))

    async def _serve(self, embedder: Embedder) -> None:
        """Compute batches until the embedder fails for good."""
        failures = 0
        while True:
            await self._arrived.wait()
            batch = self._take()
            if batch:
                results = await self._batch(embedder, [slot.question for slot in batch])
                self._settle(batch, results)
                failures = 0 if any(isinstance(result, Embedded) for result in results) else failures + 1
            if failures >= FAILURES_MAX:
                (proof,) = await self._batch(embedder, [PROBE])
                if isinstance(proof, EmbedderError):
                    return
                failures = 0
            await self._gather()

    async def _batch(self, embedder: Embedder, questions: list[str]) -> list[_Result]:
        loop = asyncio.get_running_loop()
        self._busy_since_s = begun_s = loop.time()

        def worth_it() -> bool:
            return loop.time() - begun_s <= self._timeout_s

        results = await loop.run_in_executor(self._worker, _compute, embedder, self.space, questions, worth_it)
        self._busy_since_s = None
        return results

    def _take(self) -> list[_Slot]:
        """The next batch, without the questions whose askers have all left."""
        batch: list[_Slot] = []
        while self._queue and len(batch) < self._batch_max:
            question, slot = self._queue.popitem(last=False)
            if slot.waiting:
                batch.append(slot)
            else:
                del self._slots[question]
        self._full.clear()
        return batch

    async def _gather(self) -> None:
        """Let those who came while the worker was busy be joined by others, for one window at most."""
        if not self._queue:
            self._arrived.clear()
            return
        if self._window_s <= 0 or len(self._queue) >= self._batch_max:
            return
        oldest = next(iter(self._queue.values()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(oldest.asked_s + self._window_s):
                await self._full.wait()

    def _settle(self, batch: list[_Slot], results: Sequence[_Result]) -> None:
        self._counts.batches += 1
        for slot, result in zip(batch, results, strict=True):
            del self._slots[slot.question]
            slot.result.set_result(result)
            if isinstance(result, EmbedderError):
                self._counts.failed += 1
                continue
            self._counts.computed += result.fits
            self._counts.too_long += not result.fits
            self._memo.put(slot.question, result)


class _Memo:
    """Least recently used questions with their vectors, bounded in number and bytes."""

    def __init__(self, entries_max: int) -> None:
        self._entries_max = entries_max
        self._held: OrderedDict[str, Embedded] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def get(self, question: str) -> Embedded | None:
        found = self._held.get(question)
        if found is not None:
            self._held.move_to_end(question)
        return found

    def put(self, question: str, embedded: Embedded) -> None:
        self._held[question] = embedded
        self.size_bytes += _size_bytes(question, embedded)
        while len(self._held) > self._entries_max or self.size_bytes > MEMO_BYTES_MAX:
            self.size_bytes -= _size_bytes(*self._held.popitem(last=False))

    def clear(self) -> None:
        self._held.clear()
        self.size_bytes = 0


def _size_bytes(question: str, embedded: Embedded) -> int:
    return sys.getsizeof(question) + len(embedded.vector) + MEMO_OVERHEAD_BYTES


def _compute(embedder: Embedder, space: str, questions: Sequence[str], worth_it: Callable[[], bool]) -> list[_Result]:
    """Vectors of a batch, in the worker thread. When it fails as a whole, each question is tried alone if `worth_it`.

    It is not once everybody who asked has given up.
    """
    try:
        fitting = [embedder.fits(question) for question in questions]
        wanted = [question for question, fits in zip(questions, fitting, strict=True) if fits]
        vectors = iter(_vectors(embedder, wanted) if wanted else [])
        return [Embedded(next(vectors), space) if fits else _TOO_LONG for fits in fitting]
    except Exception as error:  # noqa: BLE001 - engines and their libraries raise what they like
        failure = EmbedderError(_described(error))
    if len(questions) == 1:
        return [failure]
    return [
        result
        for question in questions
        for result in (_compute(embedder, space, [question], worth_it) if worth_it() else [failure])
    ]


def _vectors(embedder: Embedder, questions: Sequence[str]) -> list[bytes]:
    """One vector a question, checked. Raises EmbedderError, and whatever the engine does."""
    rows = np.asarray(embedder.embed(questions))
    if rows.shape != (len(questions), embedder.dims):
        raise EmbedderError(f"vectors of shape {list(rows.shape)}, not {[len(questions), embedder.dims]}")
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    if not bool((np.abs(norms - 1) <= NORM_TOLERANCE).all()):  # so written that NaN fails
        raise EmbedderError("a vector that has not unit length")
    return [row.tobytes() for row in rows.astype("<f4")]


def _described(error: Exception) -> str:
    """What went wrong, without texts that might quote a question: only our two packages' own are known not to."""
    if isinstance(error, (EmbedderError, EmbeddingsError)):
        return str(error)
    return f"the embedder raised {type(error).__name__}"


async def _in_thread(call: Callable[[], _T]) -> _T:
    """What a slow call returns. Its thread is a daemon: a download under way must not hold up the program's end."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, error: Exception | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(result)  # type: ignore[arg-type]  # the call returned it
        else:
            done.set_exception(error)

    def run() -> None:
        outcome: tuple[_T | None, Exception | None]
        try:
            outcome = call(), None
        except Exception as error:  # noqa: BLE001 - handed to the one who waits
            outcome = None, error
        except BaseException as error:  # noqa: BLE001 - a library that calls sys.exit must not end the proxy
            outcome = None, EmbedderError(f"loading ended with {type(error).__name__}")
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, name="embedder load", daemon=True).start()
    return await done
