"""The dashboard's files reach browsers as they are, with a policy that lets nothing else in."""

import re
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

import cacheproxy
from cacheproxy.edge.admin import Admin
from cacheproxy.edge.dashboard import TYPES, Dashboard

FOLDER = Path(cacheproxy.__file__).parent / "page"
FILES = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file())
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
OURS = [name for name in FILES if not name.startswith("vendor/")]


@pytest.fixture
async def ask():
    """Ask a port with a token for a path."""
    dashboard = Dashboard()
    admin = Admin("sesame", listen="127.0.0.1:11436", pages=dashboard.pages(), front=dashboard.front)
    runner = web.ServerRunner(web.Server(admin.handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:

        async def call(path, method="GET", **headers):
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            async with client.request(method, path, headers=names) as response:
                return response.status, response.headers, await response.read()

        yield call
    await runner.cleanup()


def text_of(name):
    """A file of the page."""
    return (FOLDER / name).read_text(encoding="utf-8")


async def test_a_browser_gets_the_page_and_others_the_list(ask):
    """Without the token: the page holds no figure. The list stays behind it, and caches keep the two apart."""
    status, headers, body = await ask("/", **BROWSER)
    assert (status, headers["Content-Type"], headers["Vary"]) == (200, "text/html; charset=utf-8", "Accept")
    assert body == (FOLDER / "index.html").read_bytes()
    assert (await ask("/"))[0] == (await ask("/", Accept="application/json"))[0] == 401
    status, headers, body = await ask("/", Authorization="Bearer sesame")

    assert (status, headers["Content-Type"], headers["Vary"]) == (200, "application/json; charset=utf-8", "Accept")
    assert b"/page/" in body


@pytest.mark.parametrize("name", FILES)
async def test_each_file_is_served_as_it_is(ask, name):
    """With its type, which is never sniffed, and never from a cache without asking."""
    status, headers, body = await ask(f"/page/{name}")

    assert (status, body) == (200, (FOLDER / name).read_bytes())
    assert headers["Content-Type"] == f"{TYPES[name.rpartition('.')[2]]}; charset=utf-8"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-cache"
    assert "Server" not in headers


async def test_the_policy_allows_nothing_but_those_files(ask):
    """No other host, nothing inline, no eval, no frame around it."""
    policy = (await ask("/", **BROWSER))[1]["Content-Security-Policy"]

    assert policy.startswith("default-src 'self';")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "*" not in policy


async def test_a_file_that_did_not_change_is_not_sent_again(ask):
    """304 without a body for its own tag, and only for that."""
    tag = (await ask("/page/main.js"))[1]["ETag"]
    status, headers, body = await ask("/page/main.js", If_None_Match=tag)

    assert (status, body, headers["ETag"]) == (304, b"", tag)
    assert (await ask("/page/style.css", If_None_Match=tag))[0] == 200


async def test_head_has_the_length_and_no_body(ask):
    """As everywhere on this port."""
    status, headers, body = await ask("/page/main.js", method="HEAD")

    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) == (FOLDER / "main.js").stat().st_size


@pytest.mark.parametrize(
    "path", ["../app.py", "%2e%2e/app.py", "..%2fapp.py", "none.js", "vendor", "vendor/", "/etc/passwd", "main.js/", ""]
)
async def test_what_is_not_a_file_of_the_page_is_404(ask, path):
    """No path of a request reaches the file system."""
    assert (await ask(f"/page/{path}"))[0] == 404


def test_the_page_names_only_files_that_exist():
    """Its links, its scripts' imports; and none of another host."""
    for name in OURS:
        text = text_of(name)
        named = re.findall(r'(?:href|src)="(?!#)([^"]+)"', text) if name.endswith(".html") else []
        named = [link.removeprefix("page/") for link in named if link not in ("stats", "metrics")]
        named += [link.removeprefix("./") for link in re.findall(r'from "([^"]+)"', text) if name.endswith(".js")]
        assert set(named) <= set(FILES), name
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), name


def test_nothing_in_the_page_is_inline_and_no_script_writes_markup():
    """The policy would stop the first in browsers that know it; the second is how a prompt would become a script."""
    html = text_of("index.html")
    assert not re.search(r"\son\w+=|style=|<style|<script>|javascript:", html)
    for name in OURS:
        if name.endswith(".js"):
            assert not re.search(
                r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text_of(name)
            ), name


def test_modules_import_only_what_stands_lower():
    """The order is in docs/architecture.md; the first joins all others."""
    page = (FOLDER.parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    order = re.findall(r"^\| `([a-z]+\.js)` \|", page.split("## The dashboard")[1], flags=re.MULTILINE)
    assert sorted(order) == sorted(name for name in OURS if name.endswith(".js"))
    for place, name in enumerate(order):
        imported = re.findall(r'from "\./([a-z]+\.js)"', text_of(name))
        assert all(order.index(other) > place for other in imported), name


def test_what_was_made_by_others_is_named_with_its_licence():
    """One library, as its makers published it."""
    vendored = [name for name in FILES if name.startswith("vendor/")]

    assert vendored == ["vendor/uPlot.LICENSE.txt", "vendor/uPlot.iife.min.js", "vendor/uPlot.min.css"]
    assert "MIT License" in text_of("vendor/uPlot.LICENSE.txt")
    assert "v1.6.32" in text_of("vendor/uPlot.iife.min.js")[:100]
