"""`redis.url`, understood: which kind of Redis, where, and with which options. Pure; connects to nothing.

    embedded                                        the private server of `embedded.py`
    redis://[user:password@]host[:port][/db]        rediss:// is the same over TLS and never falls back to plain text
    unix:///path/to/socket[?db=0]
    redis+sentinel://[user:password@]host[:port][,host[:port]…]/service[/db]    as redisvl spells it; also rediss+…
    redis+cluster://[user:password@]host[:port][,host[:port]…]                  also rediss+…

with `ssl_…`, `db`, `protocol`, `username` and `password` as query members, as redis-py knows them. Others are refused:
a URL that brings its own timeouts or retries would undo the deadlines of `connection.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import redis.asyncio.connection

from cacheproxy.errors import ConfigError

Kind: TypeAlias = Literal["single", "sentinel", "cluster"]

_FORMS = '"embedded", redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://'
_MEMBERS = {"db", "protocol", "username", "password"}
_NODE = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::(\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class Address:
    """Where Redis is."""

    kind: Kind
    where: str
    """`host:port` or a path, without user and password; for messages."""
    nodes: tuple[tuple[str, int], ...] = ()
    service: str = ""
    """The name sentinels know the primary by."""
    tls: bool = False
    options: dict[str, Any] = field(default_factory=dict, repr=False)
    """Arguments for redis-py's connections. May hold a password, so it is not in the repr."""

    @property
    def database(self) -> int:
        """Its number; only 0 can be searched."""
        return int(self.options.get("db") or 0)


def parse(url: str) -> Address:
    """The address a URL stands for. Raises ConfigError, whose text never repeats a password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        # Its text would quote user and password.
        raise ConfigError(f"redis.url: not a URL; expected {_FORMS}") from None
    try:
        return _understood(parts)
    except ValueError as error:
        raise ConfigError(f"redis.url: {error}") from None


def _understood(parts: SplitResult) -> Address:
    base, _, form = parts.scheme.partition("+")
    if parts.scheme == "unix" and parts.path:
        return Address("single", unquote(parts.path), options=_options(parts))
    if base not in ("redis", "rediss") or form not in ("", "sentinel", "cluster"):
        raise ValueError(f"expected {_FORMS}")
    user, at, hosts = parts.netloc.rpartition("@")
    nodes = tuple(_node(host, 26379 if form == "sentinel" else 6379) for host in hosts.split(","))
    service, database = _path(parts.path, form)
    first = f"{user}{at}{hosts.split(',')[0]}"
    options = _options(parts._replace(scheme=base, netloc=first, path=database))
    if not form:
        if len(nodes) > 1:
            raise ValueError("several hosts need redis+sentinel:// or redis+cluster://")
        return Address("single", hosts, nodes, options=options)
    for name in ("host", "port", "connection_class"):
        options.pop(name, None)
    if form == "cluster":
        return Address("cluster", hosts, nodes, tls=base == "rediss", options=options)
    return Address("sentinel", f"{hosts}/{service}", nodes, service, base == "rediss", options)


def _options(parts: SplitResult) -> dict[str, Any]:
    """What redis-py reads from a URL of one host. Raises ValueError for members that are not ours to take."""
    for member in parse_qs(parts.query):
        if member not in _MEMBERS and not member.startswith("ssl_"):
            raise ValueError(f'"{member}" cannot be set there')
    return dict(redis.asyncio.connection.parse_url(parts.geturl()))


def _node(text: str, default_port: int) -> tuple[str, int]:
    """Host and port of `host`, `host:port` or `[ipv6]:port`. Raises ValueError."""
    found = _NODE.fullmatch(text)
    if found is None or int(found[2] or 0) > 65535:
        raise ValueError("expected HOST:PORT after the scheme (percent-encode special characters of a password)")
    return unquote(found[1].strip("[]")), int(found[2] or default_port)


def _path(path: str, form: str) -> tuple[str, str]:
    """Service name, and the database as a path. Raises ValueError."""
    names = [unquote(name) for name in path.split("/") if name]
    service = names.pop(0) if form == "sentinel" and names else ""
    if form == "sentinel" and not service:
        raise ValueError("expected redis+sentinel://HOST:PORT/SERVICE with the name the sentinels know the primary by")
    if len(names) > 1 or not all(name.isascii() and name.isdigit() for name in names):
        raise ValueError("expected the number of a database at the end, for example redis://HOST:PORT/0")
    if form == "cluster" and names not in ([], ["0"]):
        raise ValueError("a cluster has only database 0")
    return service, f"/{names[0]}" if names and form != "cluster" else ""
