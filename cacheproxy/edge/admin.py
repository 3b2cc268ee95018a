"""The operator's port: is it alive, is it ready, what has it counted, and take these entries out.

It is a second listener, so no path of Ollama's and no client of the proxy port can reach it. It answers only callers
that hold the token (where there is one) and that are not a web page of somebody else's: `Host` must be ours, which ends
DNS rebinding, and `Origin`, where sent, must be this very page's. It never sends a CORS header.
This module refuses to know what lies behind the callables it is given.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from aiohttp import web

from cacheproxy.config import split_listen
from cacheproxy.errors import CacheError, ConfigError

logger = logging.getLogger(__name__)

TOKEN_HEADER = "X-Cacheproxy-Token"  # noqa: S105 - the name of a header, not a secret

PATHS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "/": (("GET", "HEAD"), "this list"),
    "/healthz": (("GET", "HEAD"), "200 while the process answers; needs no token"),
    "/readyz": (("GET", "HEAD"), "200 when asks can be answered, else 503; the state of each part"),
    "/stats": (("GET", "HEAD"), "counts, rates and percentiles as JSON"),
    "/metrics": (("GET", "HEAD"), "the same counts for Prometheus"),
    "/feedback": (
        ("POST",),
        'say {"entry": ID, "good": false, "question": TEXT} of a wrong hit: it goes, and the pair is kept apart',
    ),
    "/entries": (("DELETE",), "take entries out: ?model=NAME, ?id=ID, ?partition=HEX or ?all=true"),
}
"""Every path with its methods and what it is for."""

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

OPINION_BYTES_MAX = 65_536
"""More than any question takes that can be compared by meaning."""
_ENTRY_ID = re.compile(r"[0-9a-f]{32}")
SELECTOR_MAX = 1024
"""Longest selector value, characters. Ollama's longest name is a host of 350 and three parts of 80; the rest is hex."""


@dataclass(frozen=True, slots=True)
class Part:
    """How one part is. `degraded`: works less well than it should; `off`: not wanted, so nothing is missing."""

    state: Literal["ok", "degraded", "down", "off"]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether asks can be answered, and what is missing.

    Ready means that at least some asks are answered as they should be. So Redis or the embedder away is only degraded
    (Ollama answers), and so is Ollama away while its models are known (hits go on being served). Not ready are a proxy
    that is starting or draining, and one that can neither reach Ollama nor knows its models.
    """

    redis: Part
    upstream: Part
    models: Part
    """`degraded`: the list is old but still trusted (`upstream.digest_grace`); `down`: there is none."""
    embedder: Part = field(default=Part("off"))
    workers: Part = field(default=Part("off"))
    """The processes that share the port with this one; `off`: there are none."""
    accepting: bool = True
    """False while starting or draining."""

    @property
    def ready(self) -> bool:
        """True when this proxy should be sent asks."""
        return self.accepting and (self.upstream.state != "down" or self.models.state in ("ok", "degraded"))

    @property
    def parts(self) -> dict[str, Part]:
        """The parts by name."""
        return {
            "redis": self.redis,
            "upstream": self.upstream,
            "models": self.models,
            "embedder": self.embedder,
            "workers": self.workers,
        }

    @property
    def degraded(self) -> list[str]:
        """Names of the parts that are not as they should be."""
        return [name for name, part in self.parts.items() if part.state in ("degraded", "down")]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which entries to take out: those of a model, one by id, those of a partition, or all (`value` is empty then)."""

    by: Literal["model", "id", "partition", "all"]
    value: str = ""


@dataclass(frozen=True, slots=True)
class Opinion:
    """What somebody says of a hit; `entry` is its `X-Cache-Entry`."""

    entry: str
    good: bool
    question: str | None = None
    """What was asked, word for word; None: what the entry served last."""


class Admin:
    """Handler of the operator's port; `app` mounts `handle` on a server of its own.

    `token`: empty for none. `listen`: what the port is bound to, as in the config; its host is a `Host` that is let in.
    `allowed_hosts`: further names a caller may use for it (a service name in a container network).
    `purge` returns how many entries went, and raises CacheError when it could not finish.
    """

    def __init__(
        self,
        token: str,
        *,
        listen: str,
        readiness: Callable[[], Readiness],
        stats: Callable[[], dict[str, Any]],
        exposition: Callable[[], tuple[bytes, str]],
        purge: Callable[[Selection], Awaitable[int]],
        feedback: Callable[[Opinion], Awaitable[dict[str, Any] | None]] | None = None,
        allowed_hosts: Iterable[str] = (),
    ) -> None:
        self._token = token.encode("utf-8", "surrogateescape")
        self._listen_host = split_listen(listen)[0].lower()
        self._allowed_hosts = frozenset(host.lower() for host in allowed_hosts)
        self._readiness = readiness
        self._stats = stats
        self._exposition = exposition
        self._purge = purge
        self._feedback = feedback

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request. Refusals come in the order: foreign page, unknown path, no token, wrong method."""
        if reason := self._foreign(request):
            return _answer({"error": reason}, 403)
        path = PATHS.get(request.path)
        if path is None:
            return _answer({"error": f"no such path here; there are: {', '.join(PATHS)}"}, 404)
        if request.path != "/healthz" and not self._authorized(request):
            remedy = f"send the value of admin.token as 'Authorization: Bearer …' or as '{TOKEN_HEADER}: …'"
            return _answer({"error": f"this needs the admin token; {remedy}"}, 401, {"WWW-Authenticate": "Bearer"})
        methods, _ = path
        if request.method not in methods:
            allow = ", ".join(methods)
            return _answer({"error": f"{request.path} takes {allow}"}, 405, {"Allow": allow})
        return await self._answer_path(request)

    async def _answer_path(self, request: web.BaseRequest) -> web.StreamResponse:  # noqa: PLR0911 - one a path
        match request.path:
            case "/healthz":
                return _answer({"status": "ok"})
            case "/readyz":
                return self._ready()
            case "/stats":
                return _answer(self._stats())
            case "/metrics":
                body, content_type = self._exposition()
                return _Response(body=body, headers={**_HEADERS, "Content-Type": content_type})
            case "/entries":
                return await self._delete(request)
            case "/feedback":
                return await self._take_opinion(request)
            case _:
                return _answer({path: f"{', '.join(methods)}: {use}" for path, (methods, use) in PATHS.items()})

    def _ready(self) -> web.StreamResponse:
        found = self._readiness()
        body = {
            "ready": found.ready,
            "accepting": found.accepting,
            "degraded": found.degraded,
            "parts": {name: asdict(part) for name, part in found.parts.items()},
        }
        return _answer(body, 200 if found.ready else 503)

    async def _delete(self, request: web.BaseRequest) -> web.StreamResponse:
        selection = select(list(request.query.items()))
        if isinstance(selection, str):
            return _answer({"error": selection}, 400)
        try:
            deleted = await self._purge(selection)
        except CacheError as error:
            return _answer({"error": f"not all of it was deleted, ask again: {error}"}, 503)
        logger.info("entries deleted", extra={"by": selection.by, "value": selection.value, "deleted": deleted})
        return _answer({"deleted": deleted})

    async def _take_opinion(self, request: web.BaseRequest) -> web.StreamResponse:
        body = b""
        while len(body) <= OPINION_BYTES_MAX and (piece := await request.content.readany()):
            body += piece
        opinion = read_opinion(body)
        if isinstance(opinion, str):
            return _answer({"error": opinion}, 400)
        if self._feedback is None:
            return _answer({"error": "this proxy takes no feedback"}, 501)
        try:
            done = await self._feedback(opinion)
        except CacheError as error:
            return _answer({"error": f"not noted, say it again: {error}"}, 503)
        if done is None:
            return _answer({"error": "no such entry"}, 404)
        logger.info("feedback", extra={"entry": opinion.entry, "good": opinion.good} | done)
        return _answer({"entry": opinion.entry, "good": opinion.good} | done)

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
        listen = _address(self._listen_host)
        return listen is not None and listen.is_unspecified and _address(name) is not None


class _Response(web.Response):
    """A response that does not tell which software made it."""

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.popall("Server", None)


def check_exposure(listen: str, token: str) -> None:
    """Raise ConfigError where `[admin]` would let the network in without a token, or the token cannot be sent."""
    host, _ = split_listen(listen)
    if not token and not is_loopback(host.lower()):
        raise ConfigError(
            f'admin.listen = "{listen}": reachable from other machines, and admin.token is empty; '
            f'set admin.token (CACHEPROXY_ADMIN__TOKEN), or listen on "127.0.0.1:11436"'
        )
    if token != token.strip() or not token.isprintable():
        raise ConfigError("admin.token: has blanks around it or control characters, which no HTTP header can carry")


def read_opinion(body: bytes) -> Opinion | str:
    """The opinion in a request body, or what is wrong with it."""
    form = (
        'send {"entry": ID, "good": true or false}, ID being the X-Cache-Entry of the reply; '
        'and, if you like, "question": the text that was asked'
    )
    try:
        given = json.loads(body)
    except ValueError:
        return f"the body is not JSON; {form}"
    if not isinstance(given, dict) or not {"entry", "good"} <= set(given) <= {"entry", "good", "question"}:
        return form
    entry, good, question = given["entry"], given["good"], given.get("question")
    if not isinstance(entry, str) or not _ENTRY_ID.fullmatch(entry) or not isinstance(good, bool):
        return form
    if not (question is None or (isinstance(question, str) and _encodable(question))):
        return form
    return Opinion(entry, good, question)


def _encodable(text: str) -> bool:
    """False where half a surrogate pair was escaped, which JSON allows and no text holds."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def select(query: list[tuple[str, str]]) -> Selection | str:
    """The one selector of a `DELETE /entries`, or what is wrong with the query."""
    need = "give exactly one of ?model=NAME, ?id=ID, ?partition=HEX, ?all=true"
    if len(query) != 1:
        return f"{need}; got {len(query)} of them"
    ((name, value),) = query
    match name:
        case "all":
            return Selection("all") if value == "true" else f"{need}; 'all' must be 'true'"
        case "id" if not _ENTRY_ID.fullmatch(value):
            return f"{need}; 'id' is the X-Cache-Entry of a reply"
        case "model" | "id" | "partition":
            if not 0 < len(value) <= SELECTOR_MAX or not value.isprintable():
                return f"{need}; '{name}' must be 1 to {SELECTOR_MAX} printable characters"
            return Selection(name, value)
        case _:
            return need


def is_loopback(host: str) -> bool:
    """True for `localhost` and the addresses of this machine's loopback interface; any other name is not looked up."""
    address = _address(host)
    if address is None:
        return host == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


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


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _answer(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> web.StreamResponse:
    text = json.dumps(body, indent=2) + "\n"
    return _Response(text=text, status=status, content_type="application/json", headers={**_HEADERS, **(headers or {})})
