"""Who may call is decided as Ollama decides it."""

import socket

import pytest

from cacheproxy import config
from cacheproxy.edge.origin import EXPOSED_HEADERS, REQUEST_HEADERS, Origins

LOCAL = Origins(config.Server(listen="127.0.0.1:0"))
OPEN = Origins(config.Server(listen="0.0.0.0:0"))
EXPOSE = ("Access-Control-Expose-Headers", ",".join(EXPOSED_HEADERS))


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost",
        "https://localhost:3000",
        "http://127.0.0.1:8080",
        "https://0.0.0.0",
        "app://obsidian.md",
        "file://",
        "tauri://localhost",
        "vscode-webview://abc",
        "vscode-file://vscode-app",
    ],
)
def test_pages_of_this_machine_and_desktop_apps_may_call(origin: str) -> None:
    """Ollama's defaults; the reply names the one origin and varies by it."""
    ruling = LOCAL.rule("POST", host="localhost:11435", origin=origin)
    assert ruling.status is None
    assert ruling.headers == (("Access-Control-Allow-Origin", origin), EXPOSE, ("Vary", "Origin"))


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.test",
        "null",
        "http://localhost.evil.test",
        "http://localhostx",
        "https://127.0.0.1.evil.test",
        "ftp://localhost",
        "chrome-extension://abc",
        "http://evil.test:11435",
    ],
)
@pytest.mark.parametrize("method", ["POST", "OPTIONS"])
@pytest.mark.parametrize("origins", [LOCAL, OPEN])
def test_other_pages_may_not(origins: Origins, method: str, origin: str) -> None:
    """403 and nothing else, preflight or not, wherever the proxy listens."""
    ruling = origins.rule(method, host="localhost:11435", origin=origin)
    assert (ruling.status, ruling.headers) == (403, ())


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0", "[::ffff:127.0.0.1]:0", "Localhost:0"])
def test_a_name_that_was_rebound_to_this_machine_may_not_call(listen: str) -> None:
    """However the loopback interface is written in the configuration."""
    origins = Origins(config.Server(listen=listen))

    assert origins.rule("POST", host="evil.test", origin="").status == 403
    assert origins.rule("POST", host="[::ffff:127.0.0.1]:11435", origin="").status is None
    assert origins.rule("POST", host="[::ffff:8.8.8.8]:11435", origin="").status == 403


def test_page_served_by_the_proxy_itself_is_no_cross_origin_page() -> None:
    """Origin equal to Host is the same origin (contract case 128)."""
    for origin in ("http://chat.example:8080", "https://chat.example:8080"):
        assert OPEN.rule("POST", host="chat.example:8080", origin=origin).status is None
    assert OPEN.rule("OPTIONS", host="a", origin="http://a").headers == ()


def test_configured_origins_are_allowed_besides_the_defaults() -> None:
    """One `*` in an origin stands for anything; `*` alone allows all and is said so."""
    some = Origins(config.Server(listen="127.0.0.1:0", origins=("https://app.example", "chrome-extension://*")))
    for origin in ("https://app.example", "chrome-extension://x", "http://localhost"):
        assert some.rule("GET", host="localhost", origin=origin).status is None
    assert some.rule("GET", host="localhost", origin="https://app.example.evil").status == 403
    everyone = Origins(config.Server(listen="127.0.0.1:0", origins=("*",)))
    ruling = everyone.rule("GET", host="localhost", origin="http://evil.test")
    assert ruling.headers == (("Access-Control-Allow-Origin", "*"), EXPOSE)


@pytest.mark.parametrize("private", [False, True])
def test_preflight_is_answered_here(private: bool) -> None:
    """204 with methods, headers, age, and three Vary; access to private networks where it is asked for."""
    ruling = LOCAL.rule("OPTIONS", host="localhost", origin="http://localhost:3000", private_network=private)
    assert ruling.status == 204
    assert [value for name, value in ruling.headers if name == "Vary"] == [
        "Origin",
        "Access-Control-Request-Method",
        "Access-Control-Request-Headers",
    ]
    headers = dict(ruling.headers)
    assert headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
    assert headers["Access-Control-Allow-Methods"] == "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
    assert headers["Access-Control-Max-Age"] == "43200"
    assert headers["Access-Control-Allow-Headers"].split(",") == list(REQUEST_HEADERS)
    assert {"X-Cache-Ttl", "X-Cache-Threshold", "X-Cache-Mode", "Cache-Control"} <= set(REQUEST_HEADERS)
    assert headers.get("Access-Control-Allow-Private-Network") == ("true" if private else None)


@pytest.mark.fault(83)
@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost", True),
        ("LOCALHOST:11435", True),
        ("", True),
        ("127.0.0.1:11435", True),
        ("[::1]:11435", True),
        ("192.168.1.5", True),
        ("10.0.0.1:80", True),
        ("0.0.0.0", True),
        ("my.local", True),
        ("a.b.internal:1", True),
        ("x.localhost", True),
        (f"{socket.gethostname()}:11435", True),
        ("evil.test", False),
        ("evil.test:11435", False),
        ("localhost.evil.test", False),
        ("local", False),
        ("8.8.8.8", False),
        ("[2001:4860:4860::8888]:1", False),
    ],
)
def test_name_that_was_rebound_to_this_machine_is_not_served(host: str, allowed: bool) -> None:
    """On a loopback listener Host must name this machine or a private one; elsewhere any name may lead here."""
    assert LOCAL.rule("POST", host=host, origin="").status == (None if allowed else 403)
    assert OPEN.rule("POST", host=host, origin="").status is None


@pytest.mark.parametrize(
    ("listen", "checked"),
    [("localhost:1", True), ("[::1]:1", True), ("127.9.9.9:1", True), (":1", False), ("192.168.1.1:1", False)],
)
def test_host_is_checked_exactly_where_only_this_machine_can_connect(listen: str, checked: bool) -> None:
    """As Ollama does for its own listener."""
    ruling = Origins(config.Server(listen=listen)).rule("GET", host="evil.test", origin="")
    assert ruling.status == (403 if checked else None)


def test_options_without_origin_goes_upstream() -> None:
    """It is no preflight; what it means is Ollama's to say."""
    assert LOCAL.rule("OPTIONS", host="localhost", origin="").status is None
