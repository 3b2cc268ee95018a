"""A request's body, read: the ask in it, and what of that must be equal for two asks to get the same reply.

Refuses to know the request around it, and what is done with the ask.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import fields
from functools import lru_cache
from operator import attrgetter

from cacheproxy.model import Ask
from cacheproxy.wire.canonical import canonical_bytes
from cacheproxy.wire.dialects import BY_PATH

READ_MAX = 128
"""Bodies that are remembered as they were read: who numbers the heads of equal requests has them read once."""
READ_BYTES_MAX = 4096
"""Longest of these; what is read of one takes up to 13 times as much."""

_NOT_ASKED = frozenset({"body", "controls", "echo", "forward", "keep_alive"})
"""Fields of an ask that say nothing more than `canonical`, are no texts, or do nothing to a reply."""
_fields_asked = attrgetter(*(each.name for each in fields(Ask) if each.name not in _NOT_ASKED))


class Asked:
    """What two asks must share to get the same reply. Raises UnkeyableError for controls that cannot be written.

    It is hashed once, and not before somebody wants to: it may be long, and is looked up with every request.
    """

    __slots__ = ("_hash", "_parts")

    def __init__(self, ask: Ask) -> None:
        more = canonical_bytes({"controls": ask.controls, "echo": ask.echo}) if ask.controls or ask.echo else b""
        self._parts: tuple[Hashable, ...] = (*_fields_asked(ask), more)
        self._hash: int | None = None

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(self._parts)
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Asked) and self._parts == other._parts)


class Read:
    """A body that was read."""

    __slots__ = ("_asked", "ask")

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self._asked: Asked | None = None

    @property
    def asked(self) -> Asked:
        """The same object each time; made when it is first wanted. Raises as `Asked` does."""
        if self._asked is None:
            self._asked = Asked(self.ask)
        return self._asked


def read(path: str, body: bytes) -> Read:
    """The ask in a body that was sent to a path with a dialect. Raises UnkeyableError."""
    return _remembered(path, body) if len(body) <= READ_BYTES_MAX else _read(path, body)


def _read(path: str, body: bytes) -> Read:
    return Read(BY_PATH[path].parse(body))


_remembered = lru_cache(maxsize=READ_MAX)(_read)
