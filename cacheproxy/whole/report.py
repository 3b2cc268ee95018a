"""What a person wants to know at start: who talks to whom, and what was found there.

Refuses to show it: `commands/serve.py` does.
"""

from __future__ import annotations

from dataclasses import dataclass

from cacheproxy.config import Config
from cacheproxy.store.connection import Connection
from cacheproxy.store.embedded import Embedded
from cacheproxy.upstream.member import Member


@dataclass(frozen=True, slots=True)
class Seen:
    """One Ollama at start; `version` is empty for one that is away, and `reason` says why."""

    url: str
    version: str
    reason: str
    models: list[str]

    @classmethod
    def of(cls, member: Member) -> Seen:
        """As it is now."""
        models = member.models
        return cls(member.url, models.server_version if models.reachable else "", models.reason, models.names)


@dataclass(frozen=True, slots=True)
class Report:
    """What a person wants to know at start. Empty texts mean that there is nothing to say."""

    proxy_url: str
    admin_url: str
    upstream: Seen
    redis: str
    redis_note: str
    near: str
    others: tuple[Seen, ...] = ()
    """Further Ollamas (`upstream.others`)."""
    workers: int = 1


def redis_line(connection: Connection, embedded: Embedded | None) -> str:
    """Where Redis is and what it is, or that it is away. `embedded`: our own, if it is that."""
    where = f"embedded in {embedded.folder}" if embedded else f"at {connection.where}"
    if connection.state != "up":
        return f"redis {where}: away ({connection.reason}); serving without the cache until it answers"
    found = connection.capabilities
    search = f", search {found.search_version}" if found.search_version else ""
    return f"redis {found.server_version} {where}{search}"


def redis_note(connection: Connection) -> str:
    """What a Redis that answers lacks; empty if nothing."""
    return connection.capabilities.note if connection.state == "up" else ""


def near_line(config: Config) -> str:
    """Whether questions are compared by meaning, by which model and from where."""
    semantic, model = config.semantic, config.embedding.model
    if semantic.mode == "off":
        return "off (semantic.mode)"
    shadow = ", shadow only: nothing is served" if semantic.mode == "shadow" else ""
    return f"{model}, from similarity {semantic.threshold:g}{shadow}; loading behind the scenes"
