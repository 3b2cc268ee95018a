"""The keys of all entries, found by scanning, and what lies under many of them, asked at once.

For operators' calls, of which no ask is one. They go in steps: each is a round trip with a deadline of its own and
takes little of Redis's time, so a large store only takes more of them, and nobody else is held up. Keys are made in
`wire/canonical.py`. Raises StoreUnavailableError. Refuses to know what an entry is.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Sequence
from typing import Any

from cacheproxy.errors import StoreUnavailableError
from cacheproxy.store.connection import OPERATOR_TIMEOUT_S, Connection
from cacheproxy.store.line import Command
from cacheproxy.store.pool import pipelined

SCAN_COUNT = 500
"""Keys that Redis looks at in one step, and that are asked about at once: about 0.2 ms of its time."""


def pattern(prefix: str, *, entry_id: str = "", digest: str = "") -> str:
    """What SCAN finds the keys of entries by: those of one id or of one model, or all. `prefix` is `redis.prefix`."""
    return f"{prefix}:answer:{entry_id or '*'}:{digest[:12] or '*'}:*"


def digest_of(key: bytes) -> str:
    """The first twelve digits of the digest of the model that an entry is by."""
    return key.rsplit(b":", 2)[1].decode(errors="replace")


async def scanned(connection: Connection, pattern: str) -> AsyncIterator[list[bytes]]:
    """The keys that match, a step at a time, in no order, some perhaps twice.

    None is missed that is there all the while, whatever else is written or deleted meanwhile.
    """
    cursors = {"": 0}
    """Where to go on, by node of a cluster; under no name at the first step, and where there is but one server."""
    while cursors:
        node, cursor = cursors.popitem()
        step = functools.partial(_step, pattern=pattern, cursor=cursor, node=node)
        left, found = await connection.run(step, timeout_s=OPERATOR_TIMEOUT_S)
        cursors |= {name: cursor for name, cursor in left.items() if cursor}
        yield found


async def _step(client: Any, *, pattern: str, cursor: int, node: str) -> tuple[dict[str, int], list[bytes]]:
    """One SCAN: where to go on, by node (0: nowhere), and what was found. Without a node all of a cluster are asked."""
    there = {}
    if node:
        there["target_nodes"] = client.get_node(node_name=node)
        if there["target_nodes"] is None:  # another one knows nothing of this cursor
            raise StoreUnavailableError(f"the redis cluster has lost {node} during a scan")
    left, found = await client.scan(cursor, match=pattern, count=SCAN_COUNT, **there)
    return left if isinstance(left, dict) else {node: left}, found


async def asked(connection: Connection, commands: Sequence[Command]) -> list[Any]:
    """The replies to commands, in one step; at most `SCAN_COUNT` of them are meant to be sent at once."""
    return await connection.run(lambda client: pipelined(client, commands, atomic=False), timeout_s=OPERATOR_TIMEOUT_S)
