"""One client that times replies on raw sockets: what it adds itself is some 20 µs an ask.

Reads replies with a length and chunked ones; refuses what else HTTP allows.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass

TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back, and when: seconds from the request's last byte sent."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    """As it came: with its chunks' sizes, if it came in chunks."""
    first_s: float
    """To the first byte of the body."""
    total_s: float


class Pending:
    """A reply on its way: fed with bytes, done when whole."""

    def __init__(self) -> None:
        self.began_s = time.perf_counter()
        self._first_s = 0.0
        self._received = bytearray()
        self._body_at = 0
        self._length = 0
        self._headers: dict[str, str] = {}

    def feed(self, piece: bytes) -> Reply | None:
        """Take what came; the reply if that was the last of it. Raises ConnectionError when it broke off."""
        now_s = time.perf_counter()
        if not piece:
            raise ConnectionError("the reply broke off")
        self._received += piece
        if not self._body_at:
            self._read_head()
        if self._body_at and len(self._received) > self._body_at and not self._first_s:
            self._first_s = now_s - self.began_s
        if not self._body_at or not self._is_whole():
            return None
        status = int(self._received[9:12])
        body = bytes(self._received[self._body_at :])
        total_s = now_s - self.began_s
        return Reply(status, self._headers, body, self._first_s or total_s, total_s)

    def _read_head(self) -> None:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        lines = self._received[:end].decode("latin-1").split("\r\n")[1:]
        self._headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self._body_at = end + 4
        self._length = int(self._headers.get("content-length", "0"))

    def _is_whole(self) -> bool:
        if self._headers.get("transfer-encoding") == "chunked":
            return self._received.endswith(b"\r\n0\r\n\r\n")
        return len(self._received) >= self._body_at + self._length


class Client:
    """One kept connection to a port of this machine."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, raw: bytes) -> Reply:
        """Send a request, wait for its whole reply."""
        self.socket.sendall(raw)
        pending = Pending()
        while (reply := pending.feed(self.socket.recv(1 << 18))) is None:
            pass
        return reply

    def close(self) -> None:
        """Leave."""
        self.socket.close()


def ask_all(port: int, raws: Iterable[bytes], *, connections: int) -> list[Reply]:
    """Send each request as soon as one of `connections` is free; the replies in the order they came."""
    ahead, replies = iter(raws), []
    with selectors.DefaultSelector() as selector:

        def send(client: Client) -> None:
            raw = next(ahead, None)
            if raw is None:
                selector.unregister(client.socket)
                client.close()
                return
            client.socket.sendall(raw)
            selector.modify(client.socket, selectors.EVENT_READ, (client, Pending()))

        for _ in range(connections):
            client = Client(port)
            selector.register(client.socket, selectors.EVENT_READ)
            send(client)
        while selector.get_map():
            for key, _ in selector.select(TIMEOUT_S):
                client, pending = key.data
                if (reply := pending.feed(client.socket.recv(1 << 18))) is not None:
                    replies.append(reply)
                    send(client)
    return replies
