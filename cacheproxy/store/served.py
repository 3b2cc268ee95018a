"""Which questions were answered from which entry, so that one word of feedback can tell two of them apart.

A short Redis list beside each entry that has served somebody else's question, in the order in which Redis heard of it:
no proxy's clock decides which was the last. It goes when the entry's time is over, and holds keyed hashes only. Raises
CacheError only.
"""

from __future__ import annotations

from dataclasses import dataclass

from cacheproxy.store.connection import Connection

ASKED_MAX = 1000
"""Questions remembered for one entry; the longest not served are forgotten first."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """A stored question and one that got its answer, as `Contact.hashed` gives them, with their scope."""

    scope: str
    stored: str
    asked: str


class Pairings:
    """The lists, over one connection. `prefix` is `redis.prefix`."""

    def __init__(self, connection: Connection, prefix: str) -> None:
        self._connection = connection
        self._prefix = prefix

    async def put(self, entry_id: str, pairing: Pairing, *, ttl_s: float) -> None:
        """Remember a pairing as the last one, for as long as the entry lives. Raises StoreUnavailableError."""
        key, member = self._key(entry_id), f"{pairing.scope} {pairing.stored} {pairing.asked}"
        commands = (
            ("LREM", key, 0, member),
            ("RPUSH", key, member),
            ("LTRIM", key, -ASKED_MAX, -1),
            ("PEXPIRE", key, max(1, round(ttl_s * 1000))),
        )
        await self._connection.ask_all(commands, atomic=True)

    async def last(self, entry_id: str) -> Pairing | None:
        """The pairing that was served last from an entry, by any proxy. Raises StoreUnavailableError."""
        found: bytes | None = await self._connection.ask("LINDEX", self._key(entry_id), -1)
        parts = (found or b"").decode("ascii", "replace").split(" ")
        return Pairing(*parts) if len(parts) == 3 else None

    async def forget(self, entry_id: str) -> None:
        """Drop the pairings of an entry. Raises StoreUnavailableError."""
        await self._connection.ask("UNLINK", self._key(entry_id))

    def _key(self, entry_id: str) -> str:
        return f"{self._prefix}:served:{entry_id}"
