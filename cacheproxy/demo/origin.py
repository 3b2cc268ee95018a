"""Who may call the simulated Ollama: the CORS and Host rules of gin-contrib/cors 1.7.2 and Ollama's allowedHosts."""

from __future__ import annotations

import ipaddress
import socket

from cacheproxy.demo.gohttp import Exchange

_SCHEMES_ALLOWED = ("app://", "file://", "tauri://", "vscode-webview://", "vscode-file://")
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "0.0.0.0")  # noqa: S104  # as an Origin names it, no bind
_LOCAL_ORIGINS = tuple(f"{scheme}://{host}" for host in _LOCAL_HOSTS for scheme in ("http", "https"))
_STAINLESS = "Arch Async Custom-Poll-Interval Helper-Method Lang Os Package-Version Poll-Helper Retry-Count Runtime"
_ALLOWED_HEADERS = ",".join(
    ["Authorization", "Content-Type", "User-Agent", "Accept", "X-Requested-With", "Openai-Beta"]
    + [f"X-Stainless-{name}" for name in f"{_STAINLESS} Runtime-Version Timeout".split()]
)
_PREFLIGHT = [
    ("Access-Control-Allow-Headers", _ALLOWED_HEADERS),
    ("Access-Control-Allow-Methods", "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"),
    ("Access-Control-Max-Age", "43200"),
    ("Vary", "Origin"),
    ("Vary", "Access-Control-Request-Method"),
    ("Vary", "Access-Control-Request-Headers"),
]


def turned_away(exchange: Exchange, origins: tuple[str, ...]) -> bool:
    """Answer requests that get no further (preflights, refused origins and hosts) and say so.

    `origins` are the extra ones allowed (OLLAMA_ORIGINS). For requests that go on, CORS headers are put on the reply.
    """
    request = exchange.request
    origin, host = request.header("origin"), request.header("host")
    if origin and origin not in (f"http://{host}", f"https://{host}"):
        if not _origin_allowed(origin, origins):
            exchange.answer(403)
            return True
        exchange.headers.append(("Access-Control-Allow-Origin", origin))
        if request.method == "OPTIONS":
            exchange.answer(204, extra=_PREFLIGHT)
            return True
        exchange.headers.append(("Vary", "Origin"))
    if _address_is_near(host):
        return False
    if not _name_is_local(_host_only(host)):
        exchange.answer(403)
        return True
    if request.method == "OPTIONS":
        exchange.answer(204)
        return True
    return False


def _origin_allowed(origin: str, origins: tuple[str, ...]) -> bool:
    if origin in origins or "*" in origins or origin.startswith(_SCHEMES_ALLOWED):
        return True
    return any(origin == local or origin.startswith(f"{local}:") for local in _LOCAL_ORIGINS)


def _host_only(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, colon, _ = host.rpartition(":")
    return name if colon and ":" not in name else host


def _address_is_near(host: str) -> bool:
    try:
        address = ipaddress.ip_address(_host_only(host))
    except ValueError:
        return False
    return address.is_loopback or address.is_private or address.is_unspecified


def _name_is_local(name: str) -> bool:
    lowered = name.lower()
    return (
        lowered in ("", "localhost")
        or lowered == socket.gethostname().lower()
        or lowered.endswith((".localhost", ".local", ".internal"))
    )
