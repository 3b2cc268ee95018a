"""Equal asks in flight share one fetch; every follower gets the whole reply, live, from its first byte.

A *flight* is one fetch with its followers. Who started it is a follower like the rest: anyone may leave without harm
to the others, and when the last one leaves the fetch ends. A flight is found by its key until its answer has been
kept, so an equal ask finds either the flight or the entry:

    1. ask A misses, starts flight F            4. F ends, A and B get their last bytes
    2. ask B misses, finds F, follows           5. F's answer is kept
    3. F delivers to A and B                    6. F is forgotten; ask C hits the entry

A flight may also be found by its question's meaning; whether it may then be joined is for others to say.

Replies up to the recorder's limit are held whole, so a slow follower slows nobody. A larger one is no longer joined
nor held: the fetch then waits for its slowest follower, at most `LAG_BYTES_MAX` behind.
Refuses to retry and to decide what is kept.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from cacheproxy.errors import UpstreamBrokenError, UpstreamError
from cacheproxy.flow.nearby import Nearby, Question
from cacheproxy.flow.record import Recorder
from cacheproxy.model import ALL_THERE, Answer, Ask, Parts

LANDING_S_MAX = 0.02
"""How long an equal ask waits for an answer that is being kept (it takes one small request to Ollama and one to Redis,
about 2 ms). Who repeats a question at once then finds it stored; who would wait longer joins the flight.
"""

LAG_BYTES_MAX = 256 * 1024
"""How far the fetch of a reply too large to hold may run ahead of its slowest follower."""


_TAKES_NO_BYTES = sys.maxsize


class Reply(Protocol):
    """An upstream reply whose head has come (`upstream.reply.UpstreamReply`)."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    waited_s: float
    """How long the request waited for its turn before it was sent."""
    source: str
    """Name of the Ollama it comes from."""

    def chunks(self) -> AsyncIterator[bytes]:
        """Bytes as they arrive. Raises UpstreamBrokenError."""
        ...

    async def close(self) -> None:
        """Give the connection back, or end it if the body was not read to its end."""
        ...


@dataclass(frozen=True, slots=True)
class Head:
    """Status line and end-to-end headers."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    source: str = ""
    """Name of the Ollama that answered."""


Fetch = Callable[[], Awaitable[Reply]]
Landed = Callable[["Flight"], Awaitable[None]]
"""Called when a reply has ended well, before the flight is forgotten. Must not raise."""


class Flight:
    """One fetch. `ask` is the ask that started it."""

    def __init__(self, ask: Ask, recorder: Recorder) -> None:
        self.ask = ask
        self.answer: Answer | None = None
        """The whole answer, once the reply has ended; None then means there is none to keep."""
        self.seconds = 0.0
        """From the request, once sent, to the reply's last byte, once it has ended."""
        self._recorder = recorder
        self._head: Head | None = None
        self._error: UpstreamError | None = None
        self._ended = False
        self._pieces: list[bytes] = []
        self._chunks: list[Mapping[str, Any]] = []
        self._held_bytes = 0
        self._taken = 0
        """Pieces every follower has taken, of a reply too large to hold; they are empty now, or no longer listed."""
        self._dropped = 0
        """Pieces no longer listed: `_pieces` begins with this one."""
        self._followers: dict[Follower, int] = {}
        self._chunks_wanted = False
        """Somebody waits for chunks, not for bytes."""
        self._waiting: list[asyncio.Future[None]] = []
        """Of all who wait for the next change."""
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "ended" if self._ended else "flying"
        return f"<Flight {self.ask.dialect} {state}, {len(self._followers)} followers, {len(self._pieces)} pieces>"

    @property
    def reason(self) -> str:
        """Why there is no answer to keep, in one word; empty if there is one."""
        return "broken" if self._error is not None else self._recorder.reason

    @property
    def head(self) -> Head:
        """Status and headers, once a follower's `wait_head` has returned."""
        assert self._head is not None  # noqa: S101 - the one caller has waited
        return self._head

    @property
    def ended(self) -> bool:
        """True once nothing more will come."""
        return self._ended

    @property
    def joinable(self) -> bool:
        """False once the first bytes are no longer held, or the reply has ended without an answer to share."""
        return not self._recorder.too_large and (self.answer is not None or not self._ended)

    def tells(self, needs: Parts) -> bool:
        """Whether its reply will tell all that a follower needs for a reply of another form."""
        return not self.ask.lacks & needs

    async def run(self, fetch: Fetch) -> None:
        """Fetch to the end, or until the last follower leaves. Never raises but for cancellation."""
        began_s = asyncio.get_running_loop().time()
        try:
            reply = await fetch()
            began_s += reply.waited_s
            try:
                self._head = Head(reply.status, reply.reason, reply.headers, reply.source)
                self._wake()
                async for piece in reply.chunks():
                    await self._deliver(piece)
            finally:
                await reply.close()
            if self._head.status == 200:
                self._chunks.extend(self._recorder.end())
                self.answer = self._recorder.answer()
        except UpstreamError as error:
            self._error = error
        except BaseException:
            self._break_off()
            raise
        finally:
            self.seconds = asyncio.get_running_loop().time() - began_s
            self._ended = True
            self._wake()

    def _break_off(self) -> None:
        """End without a reply: nobody who follows may wait for ever, or take a cut reply for a whole one."""
        self._error = UpstreamBrokenError("the request to Ollama was ended before its reply was complete")
        self._ended = True
        self._wake()

    async def _deliver(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._held_bytes += len(piece)
        self._wake()
        await asyncio.sleep(0)  # followers pass it on before it is read: a piece of many lines takes milliseconds
        chunks = self._recorder.feed(piece)
        if chunks and self.head.status == 200:
            self._chunks.extend(chunks)
            if self._chunks_wanted:
                self._wake()
        while self._recorder.too_large and self._lag_bytes() > LAG_BYTES_MAX:
            await self._moved()

    def _lag_bytes(self) -> int:
        """Forget the pieces every follower has taken; return the bytes the slowest has yet to take."""
        slowest = min([self._dropped + len(self._pieces), *self._followers.values()])
        for position in range(self._taken - self._dropped, slowest - self._dropped):
            self._held_bytes -= len(self._pieces[position])
            self._pieces[position] = b""
        self._taken = max(self._taken, slowest)
        if 2 * (self._taken - self._dropped) > len(self._pieces):  # seldom, for it moves all the others
            del self._pieces[: self._taken - self._dropped]
            self._dropped = self._taken
        return self._held_bytes

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)

    def _moved(self) -> asyncio.Future[None]:
        """Done once something has changed."""
        moved = asyncio.get_running_loop().create_future()
        self._waiting.append(moved)
        return moved


class Follower:
    """One caller's view of a flight. Leave it exactly once, through `Flights.leave`."""

    def __init__(self, flight: Flight) -> None:
        self.flight = flight
        flight._followers[self] = 0

    async def wait_head(self) -> Head:
        """Wait for status and headers. Raises the UpstreamError that came instead."""
        flight = self.flight
        while flight._head is None:
            if flight._error is not None:
                raise flight._error
            await flight._moved()
        return flight._head

    @property
    def has_piece(self) -> bool:
        """Whether the next of `pieces` is there already."""
        return self.flight._followers[self] - self.flight._dropped < len(self.flight._pieces)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The reply's bytes as they came. Raises UpstreamBrokenError where the reply broke off."""
        flight = self.flight
        while True:
            while (position := flight._followers[self] - flight._dropped) < len(flight._pieces):
                flight._followers[self] += 1
                yield flight._pieces[position]
                if flight._recorder.too_large:
                    flight._wake()
            if flight._ended:
                break
            await flight._moved()
        self._raise_if_broken()

    async def chunks(self) -> AsyncIterator[Mapping[str, Any]]:
        """The reply's chunks, each as soon as it is complete.

        Raises UpstreamBrokenError, also for a reply that became too large to be recorded or is none of Ollama's.
        """
        flight, taken = self.flight, 0
        flight._followers[self] = _TAKES_NO_BYTES
        flight._chunks_wanted = True
        while True:
            while taken < len(flight._chunks):
                taken += 1
                yield flight._chunks[taken - 1]
            if flight._recorder.unreadable:
                raise UpstreamBrokenError(f"the reply cannot be converted for a caller who joined: {flight.reason}")
            if flight._ended:
                break
            await flight._moved()
        self._raise_if_broken()

    async def wait_end(self) -> Answer | None:
        """Wait for the whole reply; None if it came to no good end. Raises UpstreamBrokenError."""
        self.flight._followers[self] = _TAKES_NO_BYTES
        while not self.flight._ended:
            await self.flight._moved()
        self._raise_if_broken()
        return self.flight.answer

    def error_text(self) -> str:
        """What Ollama said went wrong in the middle of the reply; empty if it said nothing."""
        last = self.flight._chunks[-1] if self.flight._chunks else {}
        return str(last.get("error", ""))

    def _raise_if_broken(self) -> None:
        if self.flight._error is not None:
            raise UpstreamBrokenError(str(self.flight._error)) from self.flight._error


class Flights:
    """The flights under way, by key; of one key there are several where one tells what another does not."""

    def __init__(self) -> None:
        self._flying: dict[str, list[Flight]] = {}
        self._nearby: Nearby[Flight] = Nearby()

    def __len__(self) -> int:
        return sum(map(len, self._flying.values()))

    def __contains__(self, key: object) -> bool:
        """Whether anything of this key is under way, or just being kept."""
        return key in self._flying

    @property
    def followers(self) -> int:
        """Callers who wait for what is under way."""
        return sum(len(flight._followers) for flights in self._flying.values() for flight in flights)

    def follow(
        self,
        key: str,
        ask: Ask,
        recorder: Recorder,
        fetch: Fetch,
        landed: Landed,
        *,
        needs: Parts = ALL_THERE,
        question: Question | None = None,
    ) -> tuple[Follower, bool]:
        """Join a flight of `key` that tells what the ask `needs`, or start one, which `near` finds by its `question`.

        The second value is True for the follower that started it. `recorder`, `fetch` and `question` are used only
        then. The caller must `leave(follower)`.
        """
        flight = self._joinable(key, needs)
        if flight is not None:
            return Follower(flight), False
        flight = Flight(ask, recorder)
        self._flying.setdefault(key, []).append(flight)
        if question is not None:
            self._nearby.add(flight, question)
        follower = Follower(flight)
        flight._task = asyncio.create_task(self._fly(key, flight, fetch, landed))
        return follower, True

    def flying(self, key: str, needs: Parts = ALL_THERE) -> bool:
        """Whether an ask of this key would join a flight."""
        return self._joinable(key, needs) is not None

    def _joinable(self, key: str, needs: Parts) -> Flight | None:
        for flight in self._flying.get(key, ()):
            if flight.joinable and flight.tells(needs):
                return flight
        return None

    def near(self, question: Question, needs: Parts = ALL_THERE) -> Iterator[tuple[Flight, Question, float]]:
        """The flights of questions near this one that tell what is needed, nearest first, each with its similarity.

        Those that are known to have failed are left out. Nothing may be awaited between this and `join`.
        """
        for flight, answered, similarity in self._nearby.nearest(question):
            failed = flight._head is not None and flight._head.status != 200
            if flight.joinable and flight.tells(needs) and not failed:
                yield flight, answered, similarity

    def join(self, flight: Flight) -> Follower:
        """Follow a flight that `near` has just found. The caller must `leave(follower)`."""
        return Follower(flight)

    async def wait_landed(self, key: str, needs: Parts = ALL_THERE) -> None:
        """If the answer for `key` is complete and just being kept, wait for that, at most `LANDING_S_MAX`."""
        flight = self._joinable(key, needs)
        if flight is not None and flight.answer is not None and flight._task is not None:
            await asyncio.wait({flight._task}, timeout=LANDING_S_MAX)

    def leave(self, follower: Follower) -> None:
        """A follower has all it wanted, or is gone. The last one to leave an unfinished flight ends it."""
        flight = follower.flight
        flight._followers.pop(follower, None)
        flight._wake()
        if not flight._followers and not flight._ended and flight._task is not None:
            self._forget(flight)
            flight._task.cancel()

    async def _fly(self, key: str, flight: Flight, fetch: Fetch, landed: Landed) -> None:
        try:
            await flight.run(fetch)
            if flight._error is None:
                await landed(flight)
        finally:
            self._forget(flight, key)

    def _forget(self, flight: Flight, key: str | None = None) -> None:
        self._nearby.discard(flight)
        keys = [key] if key is not None else [key for key, flying in self._flying.items() if flight in flying]
        for each in keys:
            others = [other for other in self._flying.get(each, ()) if other is not flight]
            if others:
                self._flying[each] = others
            else:
                self._flying.pop(each, None)

    async def close(self) -> None:
        """Wait for what is being kept; end the rest."""
        flights = [flight for flying in self._flying.values() for flight in flying]
        for flight in flights:
            if not flight._ended and flight._task is not None:
                flight._task.cancel()
        await asyncio.gather(*(flight._task for flight in flights if flight._task is not None), return_exceptions=True)
        for flight in flights:
            if not flight._ended:  # a task that is cancelled before its first step runs nothing at all
                flight._break_off()
                self._forget(flight)
