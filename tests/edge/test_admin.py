"""The operator's port tells what it should, to whom it should, and to nobody else."""

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from cacheproxy.app import App
from cacheproxy.config import Config
from cacheproxy.edge.admin import Admin, Page, answer, check_exposure, host_name, origin_host, read_json
from cacheproxy.edge.condition import Condition, Part, Readiness
from cacheproxy.edge.entries import Entries, Selection, select
from cacheproxy.errors import ConfigError, StoreUnavailableError

OK = Part("ok")
DOWN = Part("down", "no connection to HOST:1")
DEGRADED = Part("degraded", "list is 40 s old")
LATIN_BYTE = b"\xe9"


@dataclass
class Parts:
    """What the port is built on, as a test sets it."""

    readiness: Readiness = field(default_factory=lambda: Readiness(redis=OK, upstream=OK, models=OK))
    purged: list[Selection] = field(default_factory=list)
    purge_error: Exception | None = None

    async def purge(self, selection: Selection) -> int:
        """Remember what was asked for and say that three entries went."""
        if self.purge_error:
            raise self.purge_error
        self.purged.append(selection)
        return 3


@dataclass
class Port:
    """A running admin port and a client of it."""

    number: int
    client: aiohttp.ClientSession
    parts: Parts

    async def ask(self, method, path, **options):
        """Status, headers and JSON (or text) of one call."""
        async with self.client.request(method, f"http://127.0.0.1:{self.number}{path}", **options) as response:
            text = await response.text()
            is_json = response.content_type == "application/json" and text
            return response.status, response.headers, json.loads(text) if is_json else text

    async def send(self, raw: bytes) -> bytes:
        """All that comes back for `raw` until the server closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.number)
        writer.write(raw)
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        await writer.wait_closed()
        return answer


PATHS = ["/", "/healthz", "/readyz", "/stats", "/metrics", "/entries", "/entries/", "/below/"]


async def nothing(_):
    """No entry."""


async def stats():
    """What is counted."""
    return {"asks": 7, "odd": "caf\udce9"}


async def below(request):
    """Says which path it was asked for."""
    return answer({"path": request.path})


async def below_read(request):
    """Says what it was sent, which has at most 100,000 bytes."""
    given = await read_json(request, 100_000, "send a list")
    return given if isinstance(given, web.StreamResponse) else answer({"given": given})


async def exposition():
    """What Prometheus would read."""
    return b"cacheproxy_asks_total 7\n", "text/plain; version=0.0.4; charset=utf-8"


@contextlib.asynccontextmanager
async def running(token="", listen="127.0.0.1:11436", **options):
    """An admin port on a free port of loopback, whatever `listen` it believes in."""
    parts = Parts()
    condition = Condition(
        readiness=lambda: parts.readiness,
        stats=stats,
        exposition=exposition,
    )
    pages = {
        **condition.pages(),
        **Entries(parts.purge, nothing, nothing, str, prompts=False).pages(),
        "/below/": Page("below", {"GET": below, "POST": below_read}),
    }
    admin = Admin(token, listen=listen, pages=pages, **options)
    runner = web.ServerRunner(web.Server(admin.handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with aiohttp.ClientSession() as client:
            yield Port(runner.addresses[0][1], client, parts)
    finally:
        await runner.cleanup()


@pytest.fixture
async def port():
    """The default: loopback, no token."""
    async with running() as started:
        yield started


@pytest.fixture
async def guarded():
    """The same with a token."""
    async with running(token="sésame") as started:
        yield started


async def test_the_process_is_alive_whatever_has_failed(port):
    """`/healthz` says 200 with Redis and Ollama away: restarting this process would help neither."""
    port.parts.readiness = Readiness(redis=DOWN, upstream=DOWN, models=DOWN, accepting=False)

    assert (await port.ask("GET", "/healthz"))[::2] == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("readiness", "status", "degraded"),
    [
        (Readiness(redis=OK, upstream=OK, models=OK), 200, []),
        (Readiness(redis=DOWN, upstream=OK, models=OK), 200, ["redis"]),
        (Readiness(redis=OK, upstream=DOWN, models=DEGRADED), 200, ["upstream", "models"]),
        (Readiness(redis=OK, upstream=DOWN, models=DOWN), 503, ["upstream", "models"]),
        (Readiness(redis=OK, upstream=OK, models=DOWN), 200, ["models"]),
        (Readiness(redis=OK, upstream=OK, models=OK, embedder=DOWN), 200, ["embedder"]),
        (Readiness(redis=OK, upstream=OK, models=OK, accepting=False), 503, []),
    ],
)
async def test_ready_means_that_some_asks_are_answered_as_they_should_be(port, readiness, status, degraded):
    """Only a proxy that starts, drains, or has neither Ollama nor its list of models is taken out of service."""
    port.parts.readiness = readiness
    answered, _, body = await port.ask("GET", "/readyz")

    assert answered == status
    assert body["ready"] is (status == 200)
    assert body["degraded"] == degraded
    assert body["parts"]["redis"] == {"state": readiness.redis.state, "reason": readiness.redis.reason}
    assert list(body["parts"]) == ["redis", "upstream", "models", "embedder", "workers"]


@pytest.mark.fault(78)
async def test_stats_are_json_even_with_a_lone_surrogate_in_them(port):
    """One odd byte of a client's does not end the operator's view."""
    status, headers, body = await port.ask("GET", "/stats")

    assert (status, body) == (200, {"asks": 7, "odd": "caf\udce9"})
    assert headers["Content-Type"].startswith("application/json")


async def test_metrics_are_passed_on_with_their_own_content_type(port):
    """Prometheus reads the version of the format from the content type."""
    status, headers, body = await port.ask("GET", "/metrics")

    assert (status, body) == (200, "cacheproxy_asks_total 7\n")
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


async def test_the_root_lists_every_path(port):
    """Who comes without the manual finds the rest from here."""
    status, _, body = await port.ask("GET", "/")

    assert status == 200
    assert list(body) == PATHS


async def test_a_page_for_all_paths_below_one_gets_these_and_not_its_own(port):
    """`/below/` takes what lies below it, however deep; itself it is no path."""
    assert (await port.ask("GET", "/below/a/b"))[2] == {"path": "/below/a/b"}
    assert (await port.ask("GET", "/below"))[0] == (await port.ask("GET", "/stats/a"))[0] == 404


@pytest.mark.fault(77)
@pytest.mark.parametrize(
    "path", ["/api/tags", "/stats/", "//stats", "/%2e%2e/stats", "/../stats", "/STATS", "/stats;a"]
)
async def test_another_path_is_404_with_the_list(port, path):
    """No path of Ollama's is here, and near misses are not guessed at."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    head, _, body = (await port.send(request.encode())).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 404 ")
    assert all(known in json.loads(body)["error"] for known in PATHS)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/stats", "GET, HEAD"),
        ("DELETE", "/metrics", "GET, HEAD"),
        ("PUT", "/entries", "GET, HEAD, DELETE"),
        ("POST", "/entries?all=true", "GET, HEAD, DELETE"),
        ("OPTIONS", "/entries", "GET, HEAD, DELETE"),
    ],
)
async def test_a_wrong_method_is_told_the_right_one(port, method, path, allow):
    """405 with `Allow`, a preflight included, and nothing is done."""
    status, headers, _ = await port.ask(method, path)

    assert (status, headers["Allow"]) == (405, allow)
    assert port.parts.purged == []


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/stats", "/metrics"])
async def test_head_is_get_without_the_body(port, path):
    """Same status and length, no body."""
    got, asked = await port.ask("GET", path), await port.ask("HEAD", path)

    assert asked[0] == got[0]
    assert asked[1]["Content-Length"] == got[1]["Content-Length"]
    assert asked[2] == ""


@pytest.mark.parametrize(
    ("query", "selection"),
    [
        ("model=llama3.2:latest", Selection("model", "llama3.2:latest")),
        ("id=" + "0a" * 16, Selection("id", "0a" * 16)),
        ("partition=ffee", Selection("partition", "ffee")),
        ("older=3600", Selection("older", "3600")),
        ("all=true", Selection("all")),
    ],
)
async def test_delete_takes_one_selector_and_says_how_many_went(port, query, selection):
    """The selector arrives as it was written and the number comes back."""
    assert (await port.ask("DELETE", f"/entries?{query}"))[::2] == (200, {"deleted": 3})
    assert port.parts.purged == [selection]


@pytest.mark.parametrize(
    "query",
    ["", "model=", "all=false", "all=", "all", "model=a&id=b", "all=true&all=true", "model=a&all=true", "modle=a",
     "model=%00", "id=" + "a" * 1025, "id=*", "id=" + "?" * 32, "id=" + "A" * 32, "older=1h", "older=-1"],
)  # fmt: skip
async def test_delete_without_exactly_one_selector_deletes_nothing(port, query):
    """An empty shell variable or a slip of the pen is told what to write, and no entry goes."""
    status, _, body = await port.ask("DELETE", f"/entries?{query}")

    assert status == 400
    assert "exactly one of ?model=NAME, ?id=ID, ?partition=HEX, ?older=SECONDS, ?all=true" in body["error"]
    assert port.parts.purged == []


async def test_delete_says_so_when_redis_is_away(port):
    """A purge that could not be finished is never reported as done."""
    port.parts.purge_error = StoreUnavailableError("redis at HOST:1 gave no answer in 0.05 s")
    status, _, body = await port.ask("DELETE", "/entries?all=true")

    assert status == 503
    assert "redis at HOST:1 gave no answer" in body["error"]


@pytest.mark.fault(129)
@pytest.mark.parametrize("path", ["/", "/readyz", "/stats", "/metrics", "/entries?all=true"])
async def test_without_the_token_there_is_only_healthz(guarded, path):
    """No token, a wrong one, and one under another scheme are all the same 401; nothing is deleted."""
    method = "DELETE" if path.startswith("/entries") else "GET"
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic sésame"},
        {"X-Cacheproxy-Token": ""},
    ):
        status, answer, body = await guarded.ask(method, path, headers=headers)
        assert (status, answer["WWW-Authenticate"]) == (401, "Bearer")
        assert "admin.token" in body["error"]
        assert "sésame" not in body["error"]

    assert (await guarded.ask("GET", "/healthz"))[0] == 200
    assert guarded.parts.purged == []


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": "Bearer sésame"}, {"authorization": "bearer  sésame"}, {"X-Cacheproxy-Token": "sésame"}],
)
async def test_the_token_opens_in_either_header(guarded, headers):
    """Prometheus sends the first, people with curl the second."""
    assert (await guarded.ask("GET", "/stats", headers=headers))[0] == 200
    assert (await guarded.ask("DELETE", "/entries?all=true", headers=headers))[2] == {"deleted": 3}


async def test_a_byte_that_is_not_utf8_in_the_token_is_a_401(guarded):
    """It arrives as a lone surrogate, which must not become a 500."""
    host = f"Host: 127.0.0.1:{guarded.number}\r\n".encode()
    answer = await guarded.send(
        b"GET /stats HTTP/1.1\r\n" + host + b"Connection: close\r\nX-Cacheproxy-Token: " + LATIN_BYTE + b"\r\n\r\n"
    )

    assert answer.startswith(b"HTTP/1.1 401 ")


@pytest.mark.fault(129)
@pytest.mark.parametrize(
    "host",
    ["evil.test", "evil.test:11436", "127.0.0.1.evil.test", "192.0.2.7", "evil@localhost", "[::1", "localhost/x"],
)
async def test_a_rebound_name_gets_nothing(port, host):
    """A page whose name was made to point here sends its own name as Host; not even health is told."""
    for method, path in (("GET", "/stats"), ("GET", "/healthz"), ("DELETE", "/entries?all=true")):
        assert (await port.ask(method, path, headers={"Host": host}))[0] == 403

    assert port.parts.purged == []


@pytest.mark.parametrize(
    "host", ["localhost:11436", "LOCALHOST", "localhost.", "127.0.0.1", "127.8.8.8:1", "[::1]:11436"]
)
async def test_loopback_by_any_name_is_let_in(port, host):
    """A forwarded port has another number, so the number does not matter."""
    assert (await port.ask("GET", "/stats", headers={"Host": host}))[0] == 200


@pytest.mark.fault(129)
@pytest.mark.parametrize(
    "origin", ["https://evil.test", "null", "http://localhost:3000", "http://127.0.0.1", "file://", "", "http://[::1"]
)
async def test_a_page_of_another_origin_gets_nothing(port, origin):
    """A script of another page, on this machine or not, can neither read nor delete, and no CORS header invites it."""
    for method, path in (("GET", "/stats"), ("DELETE", "/entries?all=true"), ("OPTIONS", "/entries")):
        status, headers, _ = await port.ask(method, path, headers={"Origin": origin})
        assert status == 403
        assert not [name for name in headers if name.lower().startswith("access-control-")]

    assert port.parts.purged == []


async def test_our_own_page_is_let_in(port):
    """The same origin as the Host is this port's own page."""
    origin = f"http://127.0.0.1:{port.number}"

    assert (await port.ask("DELETE", "/entries?all=true", headers={"Origin": origin}))[0] == 200


async def test_a_port_on_every_interface_answers_to_addresses_and_to_names_it_was_told():
    """An address cannot be rebound; of names only the listed ones are let in."""
    async with running("token", listen=":11436", allowed_hosts=["Cacheproxy"]) as port:
        statuses = {}
        for host in ("192.0.2.7:11436", "[2001:db8::1]:11436", "cacheproxy:11436", "localhost", "evil.test"):
            statuses[host] = (await port.ask("GET", "/healthz", headers={"Host": host}))[0]

    assert list(statuses.values()) == [200, 200, 200, 200, 403]


async def test_a_named_listen_host_is_let_in_and_other_addresses_are_not():
    """What `admin.listen` says is what callers may say."""
    async with running("token", listen="ops.example:11436") as port:
        assert (await port.ask("GET", "/healthz", headers={"Host": "ops.example:11436"}))[0] == 200
        assert (await port.ask("GET", "/healthz", headers={"Host": "192.0.2.7"}))[0] == 403


async def test_a_health_checker_without_a_host_header_is_answered(port):
    """HTTP/1.0 has none, and no browser speaks it."""
    assert (await port.send(b"GET /healthz HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.0 200 ")


@pytest.mark.parametrize(
    ("method", "path", "host"),
    [
        ("GET", "/", "localhost"),
        ("GET", "/metrics", "localhost"),
        ("GET", "/nowhere", "localhost"),
        ("POST", "/stats", "localhost"),
        ("DELETE", "/entries", "localhost"),
        ("GET", "/stats", "evil.test"),
    ],
)
async def test_every_answer_has_the_headers_that_keep_browsers_out(port, method, path, host):
    """Nothing is sniffed, stored, framed or read across origins, and the software is not named."""
    _, headers, _ = await port.ask(method, path, headers={"Host": host})

    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "Server" not in headers


@pytest.mark.fault(129)
@pytest.mark.parametrize("listen", ["0.0.0.0:11436", ":11436", "192.0.2.7:11436", "[::]:11436", "ops.example:11436"])
def test_the_network_is_not_let_in_without_a_token(listen):
    """The refusal names the key, its value and both remedies; with a token the same is fine."""
    with pytest.raises(ConfigError, match=r"admin\.listen = .* admin\.token .*127\.0\.0\.1:11436"):
        check_exposure(listen, "")
    check_exposure(listen, "token")


@pytest.mark.parametrize("listen", ["127.0.0.1:11436", "localhost:0", "Localhost:0", "[::1]:11436", "127.9.9.9:1"])
def test_loopback_needs_no_token(listen):
    """Whoever is on the machine is let in."""
    check_exposure(listen, "")


@pytest.mark.parametrize("token", ["token\n", " token", "to\x00ken", " "])
def test_a_token_that_no_header_can_carry_is_refused(token):
    """The line end of a secrets file would lock everybody out; it is found at the start."""
    with pytest.raises(ConfigError, match=r"admin\.token"):
        check_exposure("127.0.0.1:11436", token)


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b'["a"]', 200, {"given": ["a"]}),
        (b"[" * 60_000, 400, {"error": "the body is not JSON; send a list"}),
        (b'"\xff"', 400, {"error": "the body is not JSON; send a list"}),
        (b"", 400, {"error": "the body is not JSON; send a list"}),
        (b" " * 200_000 + b"1", 413, {"error": "the body has more than 100,000 bytes; send a list"}),
    ],
)
async def test_a_body_is_json_of_bounded_length_or_refused_in_words(port, body, status, told):
    """Also one that is nested deeper than Python reads."""
    found_status, _, found = await port.ask("POST", "/below/x", data=body)

    assert (found_status, found) == (status, told)


def test_host_and_origin_are_read_strictly():
    """What is malformed matches nothing."""
    assert host_name("LocalHost:1") == "localhost"
    assert host_name("[::1]:1") == "::1"
    assert [host_name(odd) for odd in ("a@localhost", "localhost/", "localhost?", "[::1", "")] == [""] * 5
    assert origin_host("http://localhost:1") == "localhost:1"
    assert [origin_host(odd) for odd in ("null", "", "file://x", "http://[::1")] == [""] * 4


def test_the_reference_page_has_every_path_and_method():
    """docs/reference/admin.md has a row for each path."""
    page = (Path(__file__).parents[2] / "docs" / "reference" / "admin.md").read_text(encoding="utf-8")
    pages = App(Config()).admin.pages

    missing = [path for path, found in pages.items() if f"| `{path}` | {', '.join(found.handlers)} |" not in page]
    assert missing == []


def test_a_selection_is_one_pair():
    """The pure rule behind DELETE: a selection or a sentence."""
    assert select([("model", "a")]) == Selection("model", "a")
    assert isinstance(select([("model", "a"), ("model", "a")]), str)
