"""One connection to Ollama: aiohttp's client protocol, deaf while nobody awaits a reply.

What comes while nobody asked is somebody else's or nobody's, so it ends the connection (aio-libs/aiohttp #13656 hands
it to the next request). Refuses to send anything.
"""

from __future__ import annotations

import asyncio
import select
import socket
import struct

from aiohttp.client_proto import ResponseHandler

HEAD_BYTES_MAX = 1024**2
"""Longest line and longest header field, bytes: what Go's server, and so Ollama, takes for a whole head."""

HEADER_FIELDS_MAX = 1000
_READ_BYTES = 64 * 1024
_BYTES_ACKED = struct.Struct("120xQ")
"""Where `tcpi_bytes_acked` stands in Linux' `struct tcp_info` (since 4.1)."""


class Wire(ResponseHandler):
    """One connection to upstream. It carries one exchange at a time, from `begin` until `expecting` is false again."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.expecting = False
        self.answered = False
        """True once a byte of the awaited reply has come."""
        self.idle_since_s = 0.0
        self.acknowledged_at_loss: int | None = None
        """As `acknowledged`, when the connection was lost."""

    def begin(self, *, bodyless: bool, read_timeout_s: float | None) -> None:
        """Get ready for one reply; `bodyless` for HEAD."""
        self.expecting = True
        self.answered = False
        self.set_response_params(
            skip_payload=bodyless,
            read_until_eof=True,
            auto_decompress=False,
            read_timeout=read_timeout_s,
            read_bufsize=_READ_BYTES,
            max_line_size=HEAD_BYTES_MAX,
            max_field_size=HEAD_BYTES_MAX,
            max_headers=HEADER_FIELDS_MAX,
        )

    def data_received(self, data: bytes) -> None:
        """Bytes came: of the awaited reply, or the last that this connection gets."""
        if not self.expecting:
            self.abort()
            return
        if data:
            self.answered = True
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """It has ended; so has a body that needed more of it, and not well."""
        self.acknowledged_at_loss = self.acknowledged()  # the socket is closed next
        # aiohttp ends a body without length cleanly at any loss of the connection; a reset is no end.
        if exc is not None:
            self._break_body(exc)
        super().connection_lost(exc)

    def set_exception(self, exc: BaseException, exc_cause: BaseException | None = None) -> None:
        """Tell whoever awaits the head, or reads the body."""
        # aiohttp tells only who awaits a head; who reads the body of a reply whose chunks turn to garbage would wait
        # for ever.
        super().set_exception(exc, exc_cause or exc)
        self._break_body(exc)

    def fail(self, error: BaseException) -> None:
        """End the exchange with `error`, for whoever awaits the reply or its body."""
        self.set_exception(error)
        if self.transport is not None:
            self.transport.abort()

    def silent(self) -> bool:
        """Open, and nothing on its socket, data or end, that the event loop has not seen yet."""
        sock = self._socket()
        if sock is None or not self.is_connected():
            return False
        poller = select.poll()
        poller.register(sock.fileno(), select.POLLIN)
        return not poller.poll(0)

    def acknowledged(self) -> int | None:
        """Bytes of this connection that the other side's system has taken; None where ours does not tell (Linux does).

        A closed socket takes none: what is sent there is answered with a reset.
        """
        sock = self._socket()
        if sock is None or not hasattr(socket, "TCP_INFO"):
            return None
        try:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.size)
            acknowledged: int = _BYTES_ACKED.unpack(info)[0]
        except (OSError, ValueError, struct.error):
            return None
        return acknowledged

    def _socket(self) -> socket.socket | None:
        return self.transport.get_extra_info("socket") if self.transport is not None else None

    def _break_body(self, error: BaseException) -> None:
        if self._payload is not None and not self._payload.is_eof() and self._payload.exception() is None:
            self._payload.set_exception(error)
