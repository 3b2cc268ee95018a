"""What the Redis at the other end can do, and what an operator should know of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SEARCH_MIN = 21000
"""The oldest search module whose indexes hold float16, as modules write 2.10.0."""


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
    near_lack: str = ""
    """What near answers need and do not have, with its remedy; empty when nothing is missing."""
    note: str = ""
    """One line on what is missing and how to get it; empty when nothing is."""


def capabilities(about: dict[str, Any]) -> Capabilities:
    """What INFO tells of the server, as redis-py reads it."""
    modules = about.get("modules", [])
    version = next((int(module["ver"]) for module in modules if module.get("name") == "search"), None)
    maxmemory, policy = int(about.get("maxmemory", 0)), str(about.get("maxmemory_policy", ""))
    search = None if version is None else _spelt(version)
    near_lack = _near_lack(version)
    missing = [f"near answers are off: {near_lack}"] if near_lack else []
    if maxmemory == 0:
        missing.append("maxmemory is not set: the cache grows until the host is full; set it and volatile-lru")
    elif policy == "noeviction":
        missing.append("maxmemory-policy is noeviction: a full cache keeps nothing new; set volatile-lru")
    return Capabilities(
        server_version=str(about.get("redis_version", "")),
        search_version=search,
        maxmemory=maxmemory,
        policy=policy,
        near_lack=near_lack,
        note="; ".join(missing),
    )


def _near_lack(version: int | None) -> str:
    """What is wrong with the search module."""
    if version is None:
        return "no search module; use redis:8 or load redisearch"
    if version < SEARCH_MIN:
        return (
            f"search module {_spelt(version)} is too old; use redis:8, or load redisearch {_spelt(SEARCH_MIN)} or newer"
        )
    return ""


def _spelt(version: int) -> str:
    return f"{version // 10000}.{version // 100 % 100}.{version % 100}"
