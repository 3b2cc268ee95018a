"""One connection to Redis that all asks share: their commands go out together, and the replies come back in order.

    ask ──► packed ──► all of one turn of the event loop in one write ──► Redis ──► replies, first in first out ──► ask
              └──► at once, if no reply is awaited

A caller waits until its deadline, for the connection and its reply together. One that leaves or is late leaves its
place in the row, so that every other reply still finds its own asker. A line on which a reply is overdue or takes long
to arrive, or which says anything nobody asked for, is never used again: who asks next dials anew, and who waits on the
old one may still get its reply. Who is late behind a reply that is still arriving is told so: Redis is not to blame.
What waits is bounded by the asks under way, each of which waits for its deadline at most.

redis-py connects (TCP, TLS, AUTH, sentinels) and hands over; hiredis reads. Nothing is sent twice. Refuses commands
that block or whose replies come unasked, and to say what an error means.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import hiredis

Command: TypeAlias = tuple[str | bytes | int | float, ...]
"""A command with its arguments, as Redis wants them."""

LAST_LOOK_S = 0.001
"""After a deadline, for what has come and is not yet read: a busy event loop makes no Redis late."""
ARRIVING_S = 0.003
"""A reply that has not come to its end this long after its first piece has the connection to itself from then on."""
LULL_S = 0.02
"""Between two pieces of one reply; after a longer one Redis, or the way to it, has stalled."""
DIAL_S_MAX = 1.0
"""For a connection with its handshake, when nobody who waits for it has a shorter deadline."""

_pack: Callable[[Command], bytes] = hiredis.pack_command  # type: ignore[assignment]  # typed for one word only

_MORE = object()
"""What hiredis says when a reply has not come to its end."""


class LostError(ConnectionError):
    """The connection ended before the reply; the text says how, as the end of a sentence on Redis."""


class HeldUpError(TimeoutError):
    """The deadline passed while a reply, one's own or one before it, was still arriving: nothing is wrong."""


class RefusedError(Exception):
    """Redis refused this command; the text is its own, which can quote a prompt."""


class _Place:
    """One caller's place in the row: of several commands, `left` replies are still to come, and go out together."""

    __slots__ = ("due", "left", "replies", "waiter")

    def __init__(self, waiter: asyncio.Future[Any], left: int | None, due: float) -> None:
        self.waiter = waiter
        self.due = due
        self.left = left or 1
        self.replies: list[Any] | None = None if left is None else []


class Wire(asyncio.Protocol):
    """One established connection. `good` turns false for ever once it must not be used for anything new.

    `ended` is called once, when nobody waits on it any more and it is closed.
    """

    def __init__(self, writer: asyncio.StreamWriter, ended: Callable[[Wire], None]) -> None:
        self._ended = ended
        # Kept, because a StreamWriter that is let go closes its transport.
        self._writer = writer
        self._transport = writer.transport
        self._loop = asyncio.get_running_loop()
        self._parser = hiredis.Reader(notEnoughData=_MORE, replyError=RefusedError)
        self._row: deque[_Place] = deque()
        self._arriving: _Place | None = None
        self._begun = self._heard = 0.0
        self._unsent: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._looks_at = math.inf
        self.good = True
        self._transport.set_protocol(self)

    def send(self, packed: bytes, replies: int | None, due: float) -> asyncio.Future[Any]:
        """Send one command, or as many as `replies`; its reply, or a list. TimeoutError at `due`, a time of the loop's.

        Raises LostError at once when it is no longer good.
        """
        if not self.good:
            raise LostError("hung up")
        waiter: asyncio.Future[Any] = self._loop.create_future()
        alone = not self._row
        self._row.append(_Place(waiter, replies, due))
        if alone:
            self._transport.write(packed)
        else:
            if not self._unsent:
                self._loop.call_soon(self._flush)
            self._unsent.append(packed)
        if due < self._looks_at:
            self._look_at(due)
        return waiter

    def retire(self) -> None:
        """Take nothing new. It is closed as soon as nobody waits for a reply on it."""
        self.good = False
        if all(place.waiter.done() for place in self._row):
            self._transport.abort()

    def close(self, why: str = "is no longer asked") -> None:
        """End it now. Whoever waits gets a LostError."""
        self.good = False
        self._transport.abort()
        if self._timer is not None:
            self._timer.cancel()
        self._unsent.clear()
        row, self._row = self._row, deque()
        for place in row:
            if not place.waiter.done():
                place.waiter.set_exception(LostError(why))

    def data_received(self, data: bytes) -> None:
        """Give each reply to the first in the row."""
        row, gets = self._row, self._parser.gets
        try:
            self._parser.feed(data)
            while (reply := gets()) is not _MORE:
                if not row or isinstance(reply, hiredis.PushNotification):
                    return self.close("said what nobody asked for")
                self._give(reply)
        except (hiredis.HiredisError, TypeError, ValueError, MemoryError):  # also a map with a list as a key
            return self.close("does not speak as Redis does")
        if self._parser.has_data():
            if not row:
                return self.close("said what nobody asked for")
            self._note_arriving(row[0])
        if not self.good:
            self.retire()
        return None

    def _note_arriving(self, place: _Place) -> None:
        """Part of a reply for this place is here. One that takes long leaves the connection: who comes now dials."""
        self._heard = self._loop.time()
        if place is not self._arriving:
            self._arriving, self._begun = place, self._heard
        elif self._heard - self._begun > ARRIVING_S:
            self.good = False

    def _give(self, reply: Any) -> None:
        place = self._row[0]
        if place.replies is not None:
            place.replies.append(reply)
            place.left -= 1
            if place.left:
                return
            reply = place.replies
        self._row.popleft()
        self._arriving = None
        if not place.waiter.done():
            place.waiter.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why it ended does not matter
        """The other side ended it."""
        self.close("hung up")
        self._ended(self)

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if unsent:
            self._transport.write(b"".join(unsent))

    def _look_at(self, due: float) -> None:
        """Look at that time whether somebody waits too long. One timer serves the whole row."""
        if self._timer is not None:
            self._timer.cancel()
        self._looks_at = due
        self._timer = self._loop.call_at(due, self._look_once_more)

    def _look_once_more(self) -> None:
        self._timer = self._loop.call_later(LAST_LOOK_S, self._look)

    def _look(self) -> None:
        """Let those go whose deadline has passed."""
        now = self._loop.time()
        self._timer, self._looks_at = None, math.inf
        late, error = False, TimeoutError
        if self._arriving is not None and now - self._heard < LULL_S + LAST_LOOK_S:
            error = HeldUpError
        for place in self._row:
            if place.due > now:
                self._looks_at = min(self._looks_at, place.due)
            else:
                late = True
                if not place.waiter.done():
                    place.waiter.set_exception(error())
        if self._looks_at < math.inf:
            self._look_at(self._looks_at)
        if late:
            self.retire()


class Line:
    """The way to Redis: a `Wire` that is dialled when it is first needed, and anew when it is no longer good.

    `dial` gives a connection after its handshake, without unread bytes; it may be cancelled. Made in a running loop.
    """

    def __init__(self, dial: Callable[[], Awaitable[asyncio.StreamWriter]]) -> None:
        self._dial = dial
        self._time = asyncio.get_running_loop().time
        self._wire: Wire | None = None
        self._wires: set[Wire] = set()
        self._dialling: asyncio.Task[Wire] | None = None
        self._waiting = 0
        self._closed = False

    @property
    def connected(self) -> bool:
        """Whether a command could be sent without dialling."""
        return self._wire is not None and self._wire.good

    async def ask(self, command: Command, timeout_s: float) -> Any:
        """The reply to one command. Raises RefusedError, TimeoutError, LostError, and what `dial` raises."""
        wire, due = self._wire, self._time() + timeout_s
        if wire is None or not wire.good:
            wire = await self._ready(due)
        reply = await wire.send(_pack(command), None, due)
        if isinstance(reply, RefusedError):
            raise reply
        return reply

    async def ask_all(self, commands: Sequence[Command], timeout_s: float) -> list[Any]:
        """The replies to several commands, in order. Raises as `ask` does, for the first that was refused."""
        if not commands:
            return []
        packed = b"".join(map(_pack, commands))
        wire, due = self._wire, self._time() + timeout_s
        if wire is None or not wire.good:
            wire = await self._ready(due)
        replies: list[Any] = await wire.send(packed, len(commands), due)
        _raise_refusal(replies)
        return replies

    async def _ready(self, due: float) -> Wire:
        wire = await self._dialled(due)
        if not wire.good:  # told to dial anew, or hung up, in the very moment
            wire = await self._dialled(due)
        return wire

    async def connect(self, limit_s: float = DIAL_S_MAX) -> None:
        """Dial unless it is connected, for so long at most. Raises what `dial` raises, and TimeoutError."""
        if not self.connected:
            await self._dialled(self._time() + limit_s)

    def redial(self) -> None:
        """Use a new connection from now on."""
        if self._wire is not None:
            self._wire.retire()
            self._wire = None

    def close(self) -> None:
        """End it for good. Whoever waits gets a LostError."""
        self._closed = True
        if self._dialling is not None:
            self._dialling.cancel()
        for wire in tuple(self._wires):
            wire.close()

    async def _dialled(self, due: float) -> Wire:
        """A new wire, the same for all who want one now. The last who gives up waiting for it ends the attempt."""
        if self._closed:
            raise LostError("is no longer asked")
        self.redial()
        if self._dialling is None:
            self._dialling = asyncio.create_task(self._dialled_once(), name="redis line")
        dialling = self._dialling
        self._waiting += 1
        try:
            async with asyncio.timeout_at(due):
                return await asyncio.shield(dialling)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                raise LostError("is no longer asked") from None
            raise
        finally:
            self._waiting -= 1
            if not self._waiting and self._dialling is not None:
                self._dialling.cancel()
                self._dialling = None

    async def _dialled_once(self) -> Wire:
        try:
            async with asyncio.timeout(DIAL_S_MAX):
                self._wire = wire = Wire(await self._dial(), self._wires.discard)
            self._wires.add(wire)
            return wire
        finally:
            if self._dialling is asyncio.current_task():
                self._dialling = None


def _raise_refusal(replies: list[Any]) -> None:
    """Raise the first refusal, also of a command inside a transaction."""
    for reply in replies:
        if isinstance(reply, RefusedError):
            raise reply
        if isinstance(reply, list):
            _raise_refusal(reply)
