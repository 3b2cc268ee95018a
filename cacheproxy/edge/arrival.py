"""A request as it came on a connection, whole or in part, and what was found out about it there.

Refuses to parse, and to know the connection.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from aiohttp.streams import StreamReader

from cacheproxy.edge.reading import Read
from cacheproxy.flow.found import Looked


@dataclass(slots=True)
class Arrival:
    """A whole request as it came, which nothing keeps from being repeated as it is."""

    request: bytes
    head_bytes: int
    payload: StreamReader
    """aiohttp's name for the body: it belongs to this request alone."""
    apart: bool
    """The head came by itself."""
    read: Read | None = None
    """The body, once it has been read."""
    read_s: float = 0.0
    """How long that took."""
    said: Hashable = None
    """All that is read of it (`edge/admission.py`), once that is known, unless there is more to do than to reply."""
    looked: Looked | None = None
    """The look-up that was made for it, if any was."""

    @property
    def head(self) -> bytes:
        """From the request line to the empty line."""
        return self.request[: self.head_bytes]

    @property
    def body(self) -> bytes:
        """What follows the head."""
        return self.request[self.head_bytes :]


@dataclass(slots=True)
class Begun:
    """A request of which the end has not come yet."""

    came: bytes
    """All of it until now, if it may be repeated (`plain`)."""
    head_bytes: int
    missing_bytes: int
    payload: StreamReader
    plain: bool
    until: float
    """It is waited for no longer than this, on the loop's clock."""
    apart: bool

    def add(self, data: bytes) -> bool:
        """More of it came; False if that is more than it lacks."""
        self.missing_bytes -= len(data)
        if self.plain:
            self.came += data
        return self.missing_bytes >= 0

    @property
    def complete(self) -> bool:
        """Whether all of it is there, to the parser too."""
        return not self.missing_bytes and self.payload.is_eof()

    @property
    def arrival(self) -> Arrival | None:
        """It, complete, if it may be repeated."""
        return Arrival(self.came, self.head_bytes, self.payload, self.apart) if self.plain else None
