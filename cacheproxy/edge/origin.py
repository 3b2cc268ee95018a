"""Who may call: Ollama's CORS and Host rules, applied here because Ollama cannot apply them behind a proxy.

Ollama compares `Origin` with `Host`, and `Host` with the names of its own machine. The proxy sends upstream's address
as `Host` and no `Origin`, so Ollama would let every web page in: one that rebinds its name to 127.0.0.1 could use the
models. The rules are those of gin-contrib/cors 1.7.2 and Ollama's allowedHosts, order included: origin, then host.

Pure but for the machine's own names, read once at construction. This module refuses to know paths or bodies.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aiohttp import hdrs, web
from multidict import istr

from cacheproxy import config
from cacheproxy.edge.hosts import address_of, is_loopback
from cacheproxy.edge.plain import REPLY_HEADERS, Plain
from cacheproxy.edge.request import Headers

DEFAULT_ORIGINS = (
    *(
        f"{scheme}://{host}{port}"
        for host in ("localhost", "127.0.0.1", "0.0.0.0")  # noqa: S104 - as a page's Origin names it, no bind
        for scheme in ("http", "https")
        for port in ("", ":*")
    ),
    *(f"{scheme}://*" for scheme in ("app", "file", "tauri", "vscode-webview", "vscode-file")),
)
"""Allowed without configuration; `*` stands for anything."""

REQUEST_HEADERS = (
    *("Authorization", "Content-Type", "User-Agent", "Accept", "X-Requested-With", "Openai-Beta"),
    *(
        f"X-Stainless-{name}"
        for name in (
            *("Arch", "Async", "Custom-Poll-Interval", "Helper-Method", "Lang", "Os", "Package-Version"),
            *("Poll-Helper", "Retry-Count", "Runtime", "Runtime-Version", "Timeout"),
        )
    ),
    *("Cache-Control", "X-Cache-Ttl", "X-Cache-Threshold", "X-Cache-Mode"),
)
"""What a page's script may send: Ollama's list and the cache's controls."""

EXPOSED_HEADERS = (
    *("Cache-Status", "X-Cache", "Age", "X-Cache-Similarity", "X-Cache-Entry"),
    *("X-Cache-Context", "Via", "Server-Timing", "X-Cache-Trail"),
)
"""What a page's script may read besides the headers every script may read."""

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
MAX_AGE_S = 12 * 3600
HOST_MAX = 200
"""Longest `Host` remembered as allowed, characters, and"""
HOSTS_MAX = 100
"""most of them; others are looked at anew each time."""
_LOCAL_SUFFIXES = (".localhost", ".local", ".internal")


@dataclass(frozen=True, slots=True)
class Ruling:
    """`status`: give this empty answer and do not serve; None: go on. `headers` belong on whatever is answered."""

    status: int | None = None
    headers: Headers = ()

    @property
    def refusal(self) -> Plain | None:
        """The reply that ends the matter (a preflight's 204 is one too), or None. Its headers are already on it."""
        return None if self.status is None else Plain(status=self.status)


_GO_ON = Ruling()
_PRIVATE_NETWORK = istr("Access-Control-Request-Private-Network")


class Origins:
    """The rules of one listener. `settings.origins` are allowed besides the defaults, as with OLLAMA_ORIGINS."""

    def __init__(self, settings: config.Server) -> None:
        self._origins = (*DEFAULT_ORIGINS, *settings.origins)
        self._any_origin = "*" in settings.origins
        host, _ = config.split_listen(settings.listen)
        self._check_host = is_loopback(host)
        self._own_names = _own_names() if self._check_host else frozenset()
        self._hosts_allowed: set[str] = set()

    def judge(self, request: web.BaseRequest) -> Ruling:
        """The ruling on a request. Its headers are left on the request, for whatever reply it gets."""
        ruling = self.rule_for(request.method, request.headers)
        request[REPLY_HEADERS] = ruling.headers
        return ruling

    def rule_for(self, method: str, headers: Mapping[str, str]) -> Ruling:
        """The ruling on a request with these headers."""
        return self.rule(
            method,
            host=headers.get(hdrs.HOST, ""),
            origin=headers.get(hdrs.ORIGIN, ""),
            private_network=headers.get(_PRIVATE_NETWORK, "") == "true",
        )

    def rule(self, method: str, *, host: str, origin: str, private_network: bool = False) -> Ruling:
        """The ruling on what a request says of itself; absent headers are empty."""
        headers: Headers = ()
        crosses = bool(origin) and origin not in {f"http://{host}", f"https://{host}"}
        if crosses:
            if not self._origin_allowed(origin):
                return Ruling(403)
            if method == "OPTIONS":
                return Ruling(204, self._preflight(origin, private_network=private_network))
            headers = (*self._allow(origin), ("Access-Control-Expose-Headers", ",".join(EXPOSED_HEADERS)))
            headers += () if self._any_origin else (("Vary", "Origin"),)
        if self._check_host and not self._host_allowed(host):
            return Ruling(403, headers)
        return Ruling(None, headers) if headers else _GO_ON

    def _preflight(self, origin: str, *, private_network: bool) -> Headers:
        private = (("Access-Control-Allow-Private-Network", "true"),) if private_network else ()
        varies = ("Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers")
        return (
            *self._allow(origin),
            ("Access-Control-Allow-Methods", ",".join(METHODS)),
            ("Access-Control-Allow-Headers", ",".join(REQUEST_HEADERS)),
            ("Access-Control-Max-Age", str(MAX_AGE_S)),
            *private,
            *(() if self._any_origin else tuple(("Vary", name) for name in varies)),
        )

    def _allow(self, origin: str) -> Headers:
        return (("Access-Control-Allow-Origin", "*" if self._any_origin else origin),)

    def _origin_allowed(self, origin: str) -> bool:
        return any(_matches(pattern, origin) for pattern in self._origins)

    def _host_allowed(self, host: str) -> bool:
        if host in self._hosts_allowed:
            return True
        allowed = self._names_us(host)
        if allowed and len(host) <= HOST_MAX and len(self._hosts_allowed) < HOSTS_MAX:
            self._hosts_allowed.add(host)
        return allowed

    def _names_us(self, host: str) -> bool:
        name = _without_port(host).lower()
        if name in {"", "localhost"} or name in self._own_names or name.endswith(_LOCAL_SUFFIXES):
            return True
        address = address_of(name)
        return address is not None and (address.is_loopback or address.is_private or address.is_unspecified)


def _matches(pattern: str, origin: str) -> bool:
    """Equal, or equal around the pattern's one `*`."""
    start, star, end = pattern.partition("*")
    if not star:
        return pattern == origin
    return len(origin) >= len(start) + len(end) and origin.startswith(start) and origin.endswith(end)


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, colon, port = host.rpartition(":")
    return name if colon and ":" not in name and port.isdigit() else host


def _own_names() -> frozenset[str]:
    """The machine's name and the addresses it is known by."""
    name = socket.gethostname()
    try:
        addresses: Iterable[str] = [str(info[4][0]) for info in socket.getaddrinfo(name, None)]
    except OSError:  # a name that resolves to nothing is still a name
        addresses = []
    return frozenset({name.lower(), *addresses})
