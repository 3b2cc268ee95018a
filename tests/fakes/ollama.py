"""The tests' Ollama: the simulated one with fault switches.

`next(fault)` meets the next inference request (or those given by `count` and `path`), `always(fault)` all of them until
`calm()`. A `Fault` says what goes wrong while the model answers or while bytes leave; functions of this module build
the whole-response faults (broken framing, redirects, bombs).
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from cacheproxy.demo import native, openai
from cacheproxy.demo.asks import Ask, RefusedError
from cacheproxy.demo.engine import BUSY_MESSAGE, Piece, pause
from cacheproxy.demo.gohttp import Connection, Exchange
from cacheproxy.demo.library import Model, digest_of, parse_name
from cacheproxy.demo.ollama import INFERENCE, SimulatedOllama


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one request. Counts are of pieces (tokens) or of bytes of the response, head included."""

    # while the model answers
    first_token_delay_s: float = 0.0
    tokens_per_second: float = 0.0
    error_first: tuple[int, str] | None = None
    """Status and text instead of an answer."""
    error_after_tokens: tuple[int, str] | None = None
    """An error line after so many tokens (stream) or status 500 (whole)."""
    silent_end_after_tokens: int | None = None
    """A clean end without the last piece."""
    stall_after_tokens: int | None = None
    """Nothing more until `release()` or the client leaves."""
    done_reason: str | None = None
    text: str | None = None
    """This text, in one token, instead of the fingerprint's words."""
    context_length: int | None = None
    """The last line of /api/generate carries so many ints."""
    tool_calls_last: tuple[dict[str, Any], ...] = ()
    """Tool calls inside the final chunk."""
    # while bytes leave
    raw: bytes | None = None
    """These bytes instead of a response; the connection then closes."""
    raw_keeps_open: bool = False
    cut_after_bytes: int | None = None
    """The connection ends (FIN) after so many bytes of the response, as when the server crashes."""
    rewrite_chunk: Callable[[bytes], bytes] | None = None
    """Changes each body chunk (blank lines, CRLF)."""
    extra_headers: tuple[tuple[str, str], ...] = ()
    bytes_when_idle: bytes = b""
    """Sent after a complete response, on the then idle keep-alive connection."""
    close_when_idle: bool = False
    """Close right after a complete response that promised keep-alive."""
    close_before_answer: bool = False
    """Read the request, then close without a byte."""


@dataclass(slots=True)
class _Queued:
    fault: Fault
    path: str | None
    left: int


class FakeOllama(SimulatedOllama):
    """A SimulatedOllama that misbehaves on demand."""

    def __init__(self, **simulated: Any) -> None:
        super().__init__(**simulated)
        self._queue: list[_Queued] = []
        self._always: dict[str | None, Fault] = {}
        self._faults: dict[int, Fault] = {}
        self._released = asyncio.Event()
        self._calmed = 0
        self.stalled = 0
        """Requests that stopped at `stall_after_tokens` so far."""
        self.poisoned = 0
        """How often `bytes_when_idle` were sent."""

    # --- switches ---

    def next(self, fault: Fault, *, count: int = 1, path: str | None = None) -> None:
        """Let `fault` meet the next `count` requests to `path` (None: any inference route), once each, in order."""
        self._queue.append(_Queued(fault, path, count))

    def always(self, fault: Fault, *, path: str | None = None) -> None:
        """Let `fault` meet every request to `path` (None: any inference route) until `calm()`."""
        self._always[path] = fault

    def calm(self) -> None:
        """Take back all faults and release what stalls."""
        self._queue.clear()
        self._always.clear()
        self._calmed += 1
        self.release()

    def release(self) -> None:
        """Let stalled answers go on."""
        self._released.set()
        self._released = asyncio.Event()

    def tags_down(self) -> None:
        """Let /api/tags drop its connections until `calm()`."""
        self.always(Fault(close_before_answer=True), path="/api/tags")

    def set_digest(self, model: str, digest: str | None = None) -> str:
        """Change a model behind everyone's back, as the command line does; returns the new digest."""
        installed = self.library.find(parse_name(model))
        if installed is None:
            raise KeyError(model)
        digest = digest or digest_of(installed.digest, "changed")
        self.library.install(replace(installed, digest=digest, modified_at=self.clock.now()))
        return digest

    def digest(self, model: str) -> str:
        """Return the present digest of an installed model."""
        installed = self.library.find(parse_name(model))
        if installed is None:
            raise KeyError(model)
        return installed.digest

    # --- where they act ---

    def _take_fault(self, path: str) -> Fault | None:
        for queued in self._queue:
            if queued.path == path or (queued.path is None and path in INFERENCE):
                queued.left -= 1
                if queued.left == 0:
                    self._queue.remove(queued)
                return queued.fault
        return self._always.get(path) or (self._always.get(None) if path in INFERENCE else None)

    async def dispatch(self, exchange: Exchange) -> None:
        """Meet the request with its fault, if there is one."""
        fault = self._take_fault(exchange.request.path)
        if fault is None:
            await super().dispatch(exchange)
            return
        self._faults[id(exchange)] = fault
        try:
            await self._dispatch_faulty(exchange, fault)
        finally:
            del self._faults[id(exchange)]

    async def _dispatch_faulty(self, exchange: Exchange, fault: Fault) -> None:
        await self._answer_faulty(exchange, fault)
        if fault.bytes_when_idle:
            # The client reads the complete response first: the extra bytes meet an idle connection.
            asyncio.get_running_loop().call_later(0.01, self._poison, exchange.connection, fault.bytes_when_idle)
        if fault.close_when_idle:
            exchange.close = True

    def _poison(self, connection: Connection, data: bytes) -> None:
        connection.transport.write(data)
        self.poisoned += 1
        self._changed()

    async def _answer_faulty(self, exchange: Exchange, fault: Fault) -> None:
        if fault.close_before_answer or fault.raw is not None:
            await exchange.body()
            exchange.close = not fault.raw_keeps_open
            exchange.started = True
            exchange.send(fault.raw or b"")
            return
        exchange.headers.extend(fault.extra_headers)
        if fault.cut_after_bytes is not None:
            exchange.send = _cutter(exchange.connection, exchange.send, fault.cut_after_bytes)
        if fault.rewrite_chunk is not None:
            exchange.send = _rewriter(exchange.send, fault.rewrite_chunk)
        if fault.error_first is not None:
            await exchange.body()
            is_openai = exchange.request.path.startswith("/v1/")
            (openai.refuse if is_openai else native.refuse)(exchange, *fault.error_first)
        else:
            if "embed" in exchange.request.path:  # those routes run no tokens
                await exchange.body()
                await pause(fault.first_token_delay_s)
            await super().dispatch(exchange)

    async def run(self, ask: Ask, model: Model, exchange: Exchange) -> AsyncGenerator[Piece, None]:
        """Yield the answer, bent by the fault of this request."""
        fault = self._faults.get(id(exchange))
        honest = super().run(ask, model, exchange)
        async with aclosing(honest if fault is None else self._bent(fault, honest)) as pieces:
            async for piece in pieces:
                yield piece

    async def _bent(self, fault: Fault, honest: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece, None]:
        count = 0
        calmed = self._calmed
        async with aclosing(honest) as pieces:
            await pause(fault.first_token_delay_s)
            async for piece in pieces:
                if fault.error_after_tokens is not None and count >= fault.error_after_tokens[0]:
                    raise RefusedError(500, fault.error_after_tokens[1])
                if fault.silent_end_after_tokens is not None and count >= fault.silent_end_after_tokens:
                    return
                if fault.stall_after_tokens == count and calmed == self._calmed:
                    self.stalled += 1
                    self._changed()
                    await self._released.wait()
                if piece.done:
                    yield _bent_end(fault, piece)
                elif fault.text is None:
                    yield piece
                elif count == 0:
                    yield replace(piece, text=fault.text, thinking="", tool_calls=())
                count += 1
                await pause(1 / fault.tokens_per_second if fault.tokens_per_second else 0.0)


def _bent_end(fault: Fault, piece: Piece) -> Piece:
    if fault.done_reason is not None:
        piece = replace(piece, done_reason=fault.done_reason)
    if fault.context_length is not None:
        piece = replace(piece, context=tuple(range(fault.context_length)))
    if fault.tool_calls_last:
        piece = replace(piece, tool_calls=fault.tool_calls_last)
    return piece


def _cutter(connection: Connection, send: Callable[[bytes], None], left: int) -> Callable[[bytes], None]:
    """Return a `send` that lets `left` bytes through, hands them to the kernel and then drops the connection."""
    remaining = left

    def cut(data: bytes) -> None:
        nonlocal remaining
        send(data[:remaining])
        remaining -= len(data[:remaining])
        if remaining == 0 and not connection.transport.is_closing():
            # close() flushes what was let through; the client then sees a FIN inside a chunk, as after a crash.
            connection.transport.close()

    return cut


def _rewriter(send: Callable[[bytes], None], rewrite: Callable[[bytes], bytes]) -> Callable[[bytes], None]:
    """Return a `send` that changes what is inside each HTTP chunk, and leaves heads and the last chunk alone."""

    def rewriting(data: bytes) -> None:
        size, _, rest = data.partition(b"\r\n")
        is_chunk = rest.endswith(b"\r\n") and data[:1] in b"123456789abcdef" and int(size, 16) == len(rest) - 2
        if is_chunk:
            payload = rewrite(rest[:-2])
            data = b"%x\r\n%b\r\n" % (len(payload), payload)
        send(data)

    return rewriting


# --- Ready-made faults ---

_JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n"


def busy() -> Fault:
    """503 with Ollama's own words."""
    return Fault(error_first=(503, BUSY_MESSAGE))


def garbage_status_line() -> Fault:
    """Bytes that are no HTTP."""
    return Fault(raw=b"SSH-2.0-OpenSSH_9.6\r\n\r\n")


def content_length_too_long(body: bytes = b'{"done":true}', excess: int = 10) -> Fault:
    """The head promises `excess` bytes more than come."""
    return Fault(raw=_JSON_HEAD + b"Content-Length: %d\r\n\r\n" % (len(body) + excess) + body)


def content_length_too_short(body: bytes = b'{"done":true}', missing: int = 3) -> Fault:
    """The head promises `missing` bytes less than come; the rest stays in the pipe of an open connection."""
    framed = _JSON_HEAD + b"Content-Length: %d\r\n\r\n" % (len(body) - missing) + body
    return Fault(raw=framed, raw_keeps_open=True)


def content_length_and_chunked(body: bytes = b'{"done":true}') -> Fault:
    """Both framings in one head: the stuff of response smuggling."""
    framed = b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
    return Fault(raw=_JSON_HEAD + framed % (len(body), len(body), body))


def redirect(url: str) -> Fault:
    """302 to somewhere else, with a cookie."""
    head = f"HTTP/1.1 302 Found\r\nLocation: {url}\r\nSet-Cookie: who=upstream\r\nContent-Length: 0\r\n\r\n"
    return Fault(raw=head.encode(), raw_keeps_open=True)


def set_cookie(value: str = "who=upstream; Path=/") -> Fault:
    """A proper answer that sets a cookie."""
    return Fault(extra_headers=(("Set-Cookie", value),))


def gzip_bomb(plain_bytes: int = 100_000_000) -> Fault:
    """A small gzip body that unpacks to `plain_bytes` zeros."""
    packed = gzip.compress(b"\0" * plain_bytes, 9)
    head = _JSON_HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    return Fault(raw=head + packed)


def blank_lines() -> Fault:
    """A blank line after each line of NDJSON."""
    return Fault(rewrite_chunk=lambda chunk: chunk.replace(b"\n", b"\n\n"))


def crlf_lines() -> Fault:
    """CRLF where Ollama writes LF."""
    return Fault(rewrite_chunk=lambda chunk: chunk.replace(b"\n", b"\r\n"))


def unicode_lines() -> Fault:
    """Text with every character that some line splitter takes for the end of a line, and an emoji."""
    return Fault(text="a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\U0001f600h")


def long_line(text_bytes: int = 10_000_000) -> Fault:
    """One line of 10 MB."""
    return Fault(text="x" * text_bytes)


EVIL = b'{"model":"llama3","message":{"role":"assistant","content":"EVIL"},"done":true,"done_reason":"stop"}'
"""The body an attacker would like the next caller to get."""

_EVIL_RESPONSE = _JSON_HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(EVIL), EVIL)


def poisoned_connection(framing: str) -> Fault:
    """A complete response, and then an unasked second one on the idle connection.

    `framing` says how the first ends: `content-length`, `chunked`, `204`, `304` or `head-only` (a 200 of length 0).
    """
    bodies = {
        "content-length": _JSON_HEAD + b"Content-Length: 2\r\n\r\n{}",
        "chunked": _JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "204": b"HTTP/1.1 204 No Content\r\n\r\n",
        "304": b"HTTP/1.1 304 Not Modified\r\n\r\n",
        "head-only": _JSON_HEAD + b"Content-Length: 0\r\n\r\n",
    }
    return Fault(raw=bodies[framing], raw_keeps_open=True, bytes_when_idle=_EVIL_RESPONSE)


POISONED_FRAMINGS = ("content-length", "chunked", "204", "304", "head-only")
