"""Path to dialect. A further dialect is one more file and one more line here.

A dialect is a module with `NAME`, `PATH`, `FAMILY` and the functions of `Dialect`, all pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from cacheproxy.model import Answer, Ask
from cacheproxy.wire import chat, generate
from cacheproxy.wire.native import Fold


class Dialect(Protocol):
    """One way to ask and be answered."""

    NAME: str
    PATH: str
    FAMILY: str

    def parse(self, body: bytes) -> Ask:
        """The ask in a body. Raises UnkeyableError."""
        ...

    def fold(self) -> Fold:
        """An empty fold for the chunks of one upstream reply."""
        ...

    def whole(self, ask: Ask, answer: Answer, now: float) -> bytes:
        """The reply as one body."""
        ...

    def stream(self, ask: Ask, answer: Answer, now: float) -> Iterator[bytes]:
        """The reply as the frames of a stream."""
        ...

    def relay(self, ask: Ask, chunk: Mapping[str, Any]) -> bytes:
        """A live chunk of an equal ask as this caller's frame."""
        ...


BY_PATH: Mapping[str, Dialect] = {dialect.PATH: dialect for dialect in (chat, generate)}
BY_NAME: Mapping[str, Dialect] = {dialect.NAME: dialect for dialect in BY_PATH.values()}
