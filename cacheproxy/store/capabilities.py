"""What the Redis at the other end can do, and what an operator should know of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the Redis at the other end can do, found out at each contact after a break."""

    server_version: str = ""
    search_version: str | None = None
    """None: no search module, or not yet known."""
    maxmemory: int = 0
    """Bytes; 0: no limit set."""
    policy: str = ""
    """`maxmemory-policy`."""
    note: str = ""
    """One line on what is missing and how to get it; empty when nothing is."""


def capabilities(about: dict[str, Any]) -> Capabilities:
    """What INFO tells of the server, as redis-py reads it."""
    modules = about.get("modules", [])
    version = next((int(module["ver"]) for module in modules if module.get("name") == "search"), None)
    maxmemory, policy = int(about.get("maxmemory", 0)), str(about.get("maxmemory_policy", ""))
    missing = []
    if version is None:
        missing.append("no search module: near answers are off; use redis:8 or load redisearch")
    if maxmemory == 0:
        missing.append("maxmemory is not set: the cache grows until the host is full; set it and volatile-lru")
    elif policy == "noeviction":
        missing.append("maxmemory-policy is noeviction: a full cache keeps nothing new; set volatile-lru")
    return Capabilities(
        server_version=str(about.get("redis_version", "")),
        # Modules write 2.10.5 as 21005.
        search_version=None if version is None else f"{version // 10000}.{version // 100 % 100}.{version % 100}",
        maxmemory=maxmemory,
        policy=policy,
        note="; ".join(missing),
    )
