"""The operator's port: who is let in, and which path goes to which page.

It is a second listener, so no path of Ollama's and no client of the proxy port can reach it. It answers only callers
that hold the token (where there is one) and that are not a web page of somebody else's: `Host` must be ours, which ends
DNS rebinding, and `Origin`, where sent, must be this very page's. It never sends a CORS header.
This module refuses to know what the pages say; each is made beside what it tells of, and `app.py` lays them out.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from aiohttp import web

from cacheproxy.config import split_listen
from cacheproxy.edge.hosts import address_of, is_loopback
from cacheproxy.errors import ConfigError

TOKEN_HEADER = "X-Cacheproxy-Token"  # noqa: S105 - the name of a header, not a secret

HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""What keeps browsers from storing, framing, sniffing and sharing an answer of this port."""

Handler: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Page:
    """One path of the port, or with a key that ends in `/` all paths one level or more below it."""

    use: str
    """What it is for, as the list of paths tells it."""
    handlers: Mapping[str, Handler]
    """By method. A handler of `GET` gets `HEAD` too; the server leaves the body out."""
    open: bool = False
    """True: no token is needed."""

    @property
    def methods(self) -> tuple[str, ...]:
        """All it takes, in the order of `handlers`."""
        return tuple(name for given in self.handlers for name in ((given, "HEAD") if given == "GET" else (given,)))

    def handler(self, method: str) -> Handler | None:
        """Who answers this method; None for one it does not take."""
        return self.handlers.get("GET" if method == "HEAD" else method)


class Admin:
    """Handler of the operator's port; `app` mounts `handle` on a server of its own.

    `token`: empty for none. `listen`: what the port is bound to, as in the config; its host is a `Host` that is let in.
    `pages`: by path, besides `/`, which is the list of them. `front`: answers those callers of `/` who would rather
    see HTML than that list. It needs no token, so it must tell nothing.
    `allowed_hosts`: further names a caller may use for it (a service name in a container network).
    """

    def __init__(
        self,
        token: str,
        *,
        listen: str,
        pages: Mapping[str, Page],
        front: Handler | None = None,
        allowed_hosts: Iterable[str] = (),
    ) -> None:
        self._token = token.encode("utf-8", "surrogateescape")
        self._listen_host = split_listen(listen)[0].lower()
        self._allowed_hosts = frozenset(host.lower() for host in allowed_hosts)
        self._front = front
        use = "this list; the dashboard for browsers" if front else "this list"
        self.pages: Mapping[str, Page] = {"/": Page(use, {"GET": self.index}, open=True), **pages}

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request. Refusals come in the order: foreign page, unknown path, no token, wrong method."""
        if reason := self._foreign(request):
            return answer({"error": reason}, 403)
        page = self._page(request.path)
        if page is None:
            return answer({"error": f"no such path here; there are: {', '.join(self.pages)}"}, 404)
        if not page.open and not self._authorized(request):
            return _wants_token()
        handler = page.handler(request.method)
        if handler is None:
            allow = ", ".join(page.methods)
            return answer({"error": f"{request.path} takes {allow}"}, 405, {"Allow": allow})
        return await handler(request)

    async def index(self, request: web.BaseRequest) -> web.StreamResponse:
        """Every path with its methods and what it is for; what `front` has for browsers."""
        if self._front and wants_html(request):
            return await self._front(request)
        if not self._authorized(request):
            return _wants_token()
        listed = {path: f"{', '.join(page.methods)}: {page.use}" for path, page in self.pages.items()}
        return answer(listed, headers={"Vary": "Accept"})

    def _page(self, path: str) -> Page | None:
        """The page of this very path, else the one for all paths below its first part."""
        first, slash, rest = path[1:].partition("/")
        return self.pages.get(path) or (self.pages.get(f"/{first}/") if slash and rest and first else None)

    def _authorized(self, request: web.BaseRequest) -> bool:
        if not self._token:
            return True
        given = request.headers.get(TOKEN_HEADER, "")
        scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
        if not given and scheme.lower() == "bearer":
            given = credentials.strip()
        return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._token)

    def _foreign(self, request: web.BaseRequest) -> str:
        """Why the request may come from a web page that is not ours; empty when it does not.

        A request without `Host` (HTTP/1.0, some health checkers) is let through: no browser can send one.
        """
        hosts = request.headers.getall("Host", [])
        for host in hosts:
            if not self._host_allowed(host):
                return "this Host is not served here; use the address of admin.listen"
        for origin in request.headers.getall("Origin", []):
            if origin_host(origin) not in hosts:
                return "pages of another origin may not use this port"
        return ""

    def _host_allowed(self, host: str) -> bool:
        name = host_name(host)
        if name in self._allowed_hosts or name == self._listen_host or is_loopback(name):
            return True
        # Bound to every interface, the port has any of the machine's addresses. A name cannot be told from a rebound
        # one, an address cannot be rebound.
        listen = address_of(self._listen_host)
        return listen is not None and listen.is_unspecified and address_of(name) is not None


class Unnamed(web.StreamResponse):
    """A streamed answer that does not tell which software made it."""

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.popall("Server", None)


class UnnamedWhole(Unnamed, web.Response):
    """The same, whole."""


def answer(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> web.StreamResponse:
    """JSON with the headers that every answer of this port has."""
    text = json.dumps(body, indent=2) + "\n"
    sent = {**HEADERS, **(headers or {})}
    return UnnamedWhole(text=text, status=status, content_type="application/json", headers=sent)


async def read_json(request: web.BaseRequest, bytes_max: int, form: str) -> Any | web.StreamResponse:
    """What a request's body says, or the refusal of one that is longer or no JSON; `form`: what to send instead."""
    body = b""
    while len(body) <= bytes_max and (piece := await request.content.readany()):
        body += piece
    if len(body) > bytes_max:
        return answer({"error": f"the body has more than {bytes_max:,} bytes; {form}"}, 413)
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return answer({"error": f"the body is not JSON; {form}"}, 400)


def _wants_token() -> web.StreamResponse:
    remedy = f"send the value of admin.token as 'Authorization: Bearer …' or as '{TOKEN_HEADER}: …'"
    return answer({"error": f"this needs the admin token; {remedy}"}, 401, {"WWW-Authenticate": "Bearer"})


def check_exposure(listen: str, token: str) -> None:
    """Raise ConfigError where `[admin]` would let the network in without a token, or the token cannot be sent."""
    host, _ = split_listen(listen)
    if not token and not is_loopback(host):
        raise ConfigError(
            f'admin.listen = "{listen}": reachable from other machines, and admin.token is empty; '
            f'set admin.token (CACHEPROXY_ADMIN__TOKEN), or listen on "127.0.0.1:11436"'
        )
    if token != token.strip() or not token.isprintable():
        raise ConfigError("admin.token: has blanks around it or control characters, which no HTTP header can carry")


def wants_html(request: web.BaseRequest) -> bool:
    """True for a browser that opens an address; scripts, `curl` and `fetch` name no HTML in `Accept`."""
    ranges = ",".join(request.headers.getall("Accept", [])).split(",")
    return any(given.partition(";")[0].strip().lower() == "text/html" for given in ranges)


def host_name(host: str) -> str:
    """The name or address in a `Host` header, lower case, without port and brackets; empty when it is malformed."""
    try:
        parts = urlsplit(f"//{host}")
        return (parts.hostname or "").removesuffix(".") if parts.netloc == host and "@" not in host else ""
    except ValueError:
        return ""


def origin_host(origin: str) -> str:
    """Host and port of an `Origin`, as a `Host` header would have them; empty for `null` and all that is not HTTP."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return ""
    return parts.netloc if parts.scheme in ("http", "https") else ""
