"""From what was found to bytes on the caller's connection, with back-pressure.

A hit is rendered in the caller's own form; a relay passes Ollama's bytes as they come, or, to a caller who joined an
ask of another form or in other words, the same answer in the caller's form. The status is decided before the first
byte. Refuses to know how an answer was found.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from aiohttp import web

from cacheproxy.clock import Clock
from cacheproxy.edge import headers
from cacheproxy.edge.fixed import Fixed, Writes
from cacheproxy.edge.passthrough import break_off
from cacheproxy.edge.plain import REPLY_HEADERS, PlainStream, error_reply
from cacheproxy.errors import UpstreamBrokenError
from cacheproxy.flow.coalesce import Follower, Head
from cacheproxy.flow.found import Hit, Relay, chunk_without_askers_own, without_askers_own
from cacheproxy.model import Answer, Ask, Plan
from cacheproxy.wire.dialects import Dialect
from cacheproxy.wire.jsontext import read_answer, write

NDJSON = "application/x-ndjson"


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom to reply to, and in which form. `extra`: headers besides those that tell how the reply came about."""

    request: web.BaseRequest
    ask: Ask
    dialect: Dialect
    extra: headers.Headers


@dataclass(frozen=True, slots=True)
class Form:
    """What a reply is made of besides the answer and the time; it may outlive the request.

    `extra`: a caller's, and what its page needs.
    """

    ask: Ask
    dialect: Dialect
    extra: headers.Headers

    @classmethod
    def of(cls, caller: Caller) -> Form:
        """A caller's."""
        return cls(caller.ask, caller.dialect, caller.extra + caller.request.get(REPLY_HEADERS, ()))

    def to_keep(self) -> Form:
        """The same without what no reply shows of the request, which may be all of its bytes three times over."""
        return replace(self, ask=replace(self.ask, body={}, canonical=b"", canonical_plain=b"", forward=None))

    def hit(self, found: Hit, now: float) -> Fixed:
        """The replay of an entry. `now`: Unix time, s."""
        return self.answer(found.entry.answer, headers.hit(found, now), now)

    def repeat(self, found: Hit, now: float) -> tuple[Writes, float]:
        """The same to a caller who keeps the connection, as it is written; and the time at which it reads otherwise."""
        return self.hit(found, now).writes(), headers.alike_until(found.entry, now)

    def answer(self, answer: Answer, head: headers.Headers, now: float) -> Fixed:
        """An answer whole, streamed or not as it was asked for."""
        ask, dialect = self.ask, self.dialect
        if ask.stream:
            return Fixed.stream(dialect.stream(ask, answer, now), _stream_head(dialect) + head + self.extra)
        body = dialect.whole(ask, answer, now)
        return Fixed.whole(body, (("Content-Type", dialect.WHOLE_TYPE), *head, *self.extra))


async def send_relay(caller: Caller, relay: Relay, plan: Plan, clock: Clock) -> web.StreamResponse:
    """Pass on a flight; one that broke off breaks off here too. Whoever called leaves the follower afterwards."""
    ask, follower = caller.ask, relay.follower
    flight = follower.flight
    told = headers.relayed(relay.outcome, plan, flight.head.status, relay.kin)
    head = told + caller.extra
    if relay.kin is None and _form(flight.ask) == _form(ask):
        return await _pass_flight_on(caller.request, follower, head)
    if flight.head.status != 200:
        return await _refused(caller, follower, head)
    if ask.stream and flight.ask.stream:
        return await _convert_live(caller, relay, head, clock.now())
    answer = await follower.wait_end()
    if answer is None or answer.missing & plan.needs:
        return _failed(caller.request, follower, head)
    if relay.kin is not None:
        answer = without_askers_own(answer)
    return await Form.of(caller).answer(answer, told, clock.now()).send(caller.request)


def _form(ask: Ask) -> tuple[object, ...]:
    """What must be equal for one reply's bytes to be another's."""
    return ask.dialect, ask.stream, ask.with_usage, ask.model, ask.echo


def absent(request: web.BaseRequest) -> web.StreamResponse:
    """504, as RFC 9111 section 5.2.1.7 asks for `only-if-cached`, in the shape of Ollama's errors."""
    reply = error_reply(request.path, 504, "not in the cache, and the request says only-if-cached")
    reply.add_headers(headers.absent())
    return reply


async def send_whole(
    request: web.BaseRequest, body: bytes, head: headers.Headers, *, content_type: str
) -> web.StreamResponse:
    """A body of our own."""
    extra = request.get(REPLY_HEADERS, ())
    return await Fixed.whole(body, (("Content-Type", content_type), *head, *extra)).send(request)


def _stream_head(dialect: Dialect) -> headers.Headers:
    """What a stream of ours is; nginx holds one back that does not say otherwise."""
    return ("Content-Type", dialect.STREAM_TYPE), *dialect.STREAM_HEADERS, ("X-Accel-Buffering", "no")


async def pass_on(
    request: web.BaseRequest, upstream: Head, pieces: AsyncIterator[bytes], head: headers.Headers, *, with_first: bool
) -> web.StreamResponse:
    """Ollama's own status, headers and bytes, to their end or their break. `with_first`: the first piece is at hand."""
    reply = PlainStream(status=upstream.status, reason=upstream.reason)
    reply.add_headers(upstream.headers)
    reply.add_headers(head)
    return await _write_all(request, reply, pieces, with_first=with_first)


async def _pass_flight_on(request: web.BaseRequest, follower: Follower, head: headers.Headers) -> web.StreamResponse:
    return await pass_on(request, follower.flight.head, follower.pieces(), head, with_first=follower.has_piece)


async def _refused(caller: Caller, follower: Follower, head: headers.Headers) -> web.StreamResponse:
    """An error of Ollama's to an equal ask: as it came to a caller of the same dialect, else in this one's words."""
    upstream = follower.flight
    if upstream.ask.dialect == caller.ask.dialect:
        return await _pass_flight_on(caller.request, follower, head)
    message = error_text(b"".join([piece async for piece in follower.pieces()]))
    reply = error_reply(caller.request.path, upstream.head.status, message)
    reply.add_headers(head)
    return reply


async def _convert_live(caller: Caller, relay: Relay, head: headers.Headers, now: float) -> web.StreamResponse:
    """The chunks of an equal ask of another form or spelling, or of one in other words."""
    reply = PlainStream(status=200)
    reply.add_headers(_stream_head(caller.dialect) + head)
    frames = caller.dialect.relay(caller.ask, now)

    async def lines() -> AsyncIterator[bytes]:
        async for chunk in relay.follower.chunks():
            if frame := frames(chunk if relay.kin is None else chunk_without_askers_own(chunk)):
                yield frame

    return await _write_all(caller.request, reply, lines())


async def _write_all(
    request: web.BaseRequest, reply: PlainStream, pieces: AsyncIterator[bytes], *, with_first: bool = False
) -> web.StreamResponse:
    """`with_first`: the first piece is at hand."""
    await reply.begin(request, with_first=with_first)
    ends_line = True
    try:
        async for piece in pieces:
            await reply.write(piece)
            ends_line = piece.endswith(b"\n")
    except UpstreamBrokenError as error:
        if ends_line and reply.headers.get("Content-Type", "").startswith(NDJSON):
            await reply.write(error_line(error))
        break_off(request, reply)
    return reply


def error_line(error: Exception) -> bytes:
    """The last line of an NDJSON stream that broke off, for clients that would take a cut for an end."""
    return write({"error": str(error)}) + b"\n"


def error_text(body: bytes) -> str:
    """What an error of Ollama's says, in whichever of its forms."""
    try:
        error = read_answer(body)["error"]
    except (ValueError, KeyError):
        return body.decode("utf-8", "replace").strip() or "Ollama gave no reason"
    return str(error.get("message", "")) if isinstance(error, dict) else str(error)


def _failed(request: web.BaseRequest, follower: Follower, head: headers.Headers) -> web.StreamResponse:
    """A joined answer came to no good end: the error Ollama gives to `stream: false`."""
    message = follower.error_text() or "the answer ended without its end"
    reply = error_reply(request.path, 500, message)
    reply.add_headers(head)
    return reply
