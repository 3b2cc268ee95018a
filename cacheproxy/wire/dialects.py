"""Path to dialect. A further dialect is one more file and one more line here.

A dialect is a module with the names and the functions of `Dialect`, all pure; one that asks for vectors has those of
`EmbedDialect`. `docs/how-to/add-a-dialect.md` adds one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from cacheproxy.model import Answer, Ask
from cacheproxy.wire import (
    chat,
    embed,
    embeddings,
    generate,
    messages,
    openai_chat,
    openai_completions,
    openai_embeddings,
    responses,
)
from cacheproxy.wire.embedding import EmbedAsk, Made, Stored, Vector
from cacheproxy.wire.native import Fold


class Dialect(Protocol):
    """One way to ask and be answered."""

    NAME: str
    PATH: str
    FAMILY: str
    WHOLE_TYPE: str
    """Content type of a reply that is not streamed."""
    STREAM_TYPE: str
    STREAM_HEADERS: tuple[tuple[str, str], ...]
    """What a streamed reply's head says besides."""

    def parse(self, body: bytes) -> Ask:
        """The ask in a body. Raises UnkeyableError."""
        ...

    def fold(self) -> Fold:
        """An empty fold for one reply of Ollama's to an ask of this dialect; it reads it as native chunks."""
        ...

    def whole(self, ask: Ask, answer: Answer, now: float) -> bytes:
        """The reply as one body."""
        ...

    def stream(self, ask: Ask, answer: Answer, now: float) -> Iterator[bytes]:
        """The reply as the frames of a stream; the last one is written apart from the others."""
        ...

    def relay(self, ask: Ask, now: float) -> Callable[[Mapping[str, Any]], bytes]:
        """Writer of this caller's frames from the native chunks of an equal ask under way, in their order."""
        ...


_ALL: tuple[Dialect, ...] = (
    chat,
    generate,
    openai_chat,
    openai_completions,
    messages,
    responses,
)

BY_PATH: Mapping[str, Dialect] = {dialect.PATH: dialect for dialect in _ALL}
UNIQUE_IDS = frozenset({messages.NAME, responses.NAME})
"""Dialects whose replies have an id that no other reply may have."""


class EmbedDialect(Protocol):
    """One way to ask for vectors and be given them."""

    NAME: str
    PATH: str
    CONTENT_TYPE: str
    MERGES: bool
    """Whether texts of several asks may go to Ollama in one call."""

    def parse(self, body: bytes) -> EmbedAsk:
        """The ask in a body. Raises UnkeyableError."""
        ...

    def usable(self, stored: Stored) -> list[Vector | None]:
        """Those of the stored vectors that a reply may use, in the same places."""
        ...

    def ask_for(self, body: bytes, inputs: Sequence[str]) -> bytes:
        """The body of the same request for some of its texts, in that order."""
        ...

    def split(self, body: bytes, count: int) -> tuple[list[str], dict[str, Any]]:
        """The `count` vectors of a reply, and what it says of its cost. Raises ValueError for another form."""
        ...

    def whole(self, made: Made) -> bytes:
        """The reply put together from vectors."""
        ...


EMBED_BY_PATH: Mapping[str, EmbedDialect] = {
    dialect.PATH: dialect for dialect in (embed, embeddings, openai_embeddings)
}
