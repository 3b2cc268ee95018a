"""Contract, part A: routes the cache has no part in look as if the proxy were not there."""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.contract.conftest import Proxy
from tests.fakes.ollama import FakeOllama
from tests.fakes.wire import Response, ask, chunked, connect, request

NO_DATE_NOR_VIA = {"date", "via"}


def seen(response: Response) -> tuple[Any, ...]:
    """All a client can see of a response, but for when it came and through whom."""
    headers = sorted((name, value) for name, value in response.headers if name.lower() not in NO_DATE_NOR_VIA)
    return response.version, response.status, response.reason, headers, response.body, response.complete


async def same(
    proxy: Proxy, fake: FakeOllama, method: str, target: str, body: bytes | Any = b"", **more: Any
) -> Response:
    """The proxy's response, after checking that it is Ollama's own, asked once, with one Via more."""
    direct = await ask(fake.port, method, target, body, **more)
    count = len(fake.requests)
    relayed = await ask(proxy.port, method, target, body, **more)
    assert seen(direct) == seen(relayed)
    assert relayed.header("via") == "1.1 cacheproxy"
    assert len(fake.requests) == count + 1
    assert fake.requests[-1].body == fake.requests[-2].body
    return relayed


def resident_bytes() -> int:
    """Memory of this process, proxy, stand-in and test client together."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


@pytest.mark.case(1)
async def test_root_tells_that_ollama_is_running(proxy: Proxy, fake_ollama: FakeOllama) -> None:
    """The probe that every client makes."""
    response = await same(proxy, fake_ollama, "GET", "/")
    assert (response.status, response.body) == (200, b"Ollama is running")
    assert response.header("content-type") == "text/plain; charset=utf-8"
    assert response.header("content-length") == "17"
    assert response.header("server") is None


@pytest.mark.case(2)
async def test_head_of_root_keeps_the_length_and_has_no_body(proxy: Proxy, fake_ollama: FakeOllama) -> None:
    """The command line's heartbeat."""
    response = await same(proxy, fake_ollama, "HEAD", "/")
    assert (response.status, response.header("content-length"), response.body) == (200, "17", b"")


@pytest.mark.case(3)
@pytest.mark.parametrize(
    ("method", "target"),
    [("HEAD", "/api/version"), ("GET", "/api/version"), ("HEAD", "/api/tags"), ("GET", "/api/tags")],
)
async def test_version_and_tags_are_as_upstream(
    proxy: Proxy, fake_ollama: FakeOllama, method: str, target: str
) -> None:
    """Lists and versions are never changed on the way."""
    assert (await same(proxy, fake_ollama, method, target)).status == 200


@pytest.mark.case(4)
async def test_unknown_path_is_404_in_ollamas_words(proxy: Proxy, fake_ollama: FakeOllama) -> None:
    """What Ollama does not route the proxy does not route either."""
    response = await same(proxy, fake_ollama, "GET", "/nope")
    assert (response.status, response.body) == (404, b"404 page not found")


@pytest.mark.case(5)
async def test_wrong_method_is_405_with_allow(proxy: Proxy, fake_ollama: FakeOllama) -> None:
    """The allowed methods are Ollama's own list."""
    response = await same(proxy, fake_ollama, "GET", "/api/chat")
    assert (response.status, response.header("allow")) == (405, "POST")


@pytest.mark.case(6)
async def test_redirect_of_a_get_is_passed_and_not_followed(proxy: Proxy, fake_ollama: FakeOllama) -> None:
    """A trailing slash is answered by Ollama, not by the proxy going there."""
    response = await same(proxy, fake_ollama, "GET", "/api/version/")
    assert (response.status, response.header("location")) == (301, "/api/version")


@pytest.mark.case(7)
async def test_redirect_of_a_post_is_passed_and_not_followed(proxy: Proxy, fake_ollama: FakeOllama) -> None:
    """307 keeps the method; whether to go there is the client's decision."""
    response = await same(proxy, fake_ollama, "POST", "/api/chat/", {"model": "llama3"})
    assert (response.status, response.header("location")) == (307, "/api/chat")


@pytest.mark.case(8)
async def test_double_slash_gets_upstreams_redirect(proxy: Proxy, fake_ollama: FakeOllama) -> None:
    """The target reaches Ollama with both slashes."""
    response = await same(proxy, fake_ollama, "POST", "//v1/chat/completions", {"model": "llama3"})
    assert response.status == 301
    assert fake_ollama.requests[-1].target == "//v1/chat/completions"


@pytest.mark.case(9)
async def test_delete_carries_its_body(proxy: Proxy, fake_ollama: FakeOllama) -> None:
    """DELETE with a body is valid and has an effect."""
    before = json.loads((await ask(proxy.port, "GET", "/api/tags")).body)["models"]
    name = before[0]["name"]
    response = await ask(proxy.port, "DELETE", "/api/delete", {"model": name})
    assert (response.status, response.body, response.header("content-length")) == (200, b"", "0")
    after = json.loads((await ask(proxy.port, "GET", "/api/tags")).body)["models"]
    assert len(after) == len(before) - 1
    assert fake_ollama.calls["/api/delete"] == 1


@pytest.mark.case(10)
@pytest.mark.fault(63)
async def test_large_chunked_upload_is_streamed_in_flat_memory(proxy: Proxy) -> None:
    """A blob of 50 MB passes without being held anywhere."""
    piece = bytes(range(256)) * 256
    pieces = 800
    digest = hashlib.sha256(piece * pieces).hexdigest()
    framed = chunked(piece)[: -len(b"0\r\n\r\n")]
    async with await connect(proxy.port) as wire:
        before = resident_bytes()
        head = request("POST", f"/api/blobs/sha256:{digest}", headers=[("Transfer-Encoding", "chunked")])
        await wire.send(head)
        highest = 0
        for _ in range(pieces):
            await wire.send(framed)
            highest = max(highest, resident_bytes())
        await wire.send(b"0\r\n\r\n")
        response = await wire.response()
    assert response.status == 201
    assert highest - before < 16 * 1024**2
    assert (await ask(proxy.port, "HEAD", f"/api/blobs/sha256:{digest}")).status == 200


@pytest.mark.case(11)
async def test_head_of_a_missing_blob_is_404_without_body(proxy: Proxy, fake_ollama: FakeOllama) -> None:
    """The status alone tells a client to upload."""
    response = await same(proxy, fake_ollama, "HEAD", f"/api/blobs/sha256:{'0' * 64}")
    assert (response.status, response.body) == (404, b"")


@pytest.mark.case(12)
async def test_expecting_upload_gets_100_then_201_and_a_known_blob_no_100(proxy: Proxy) -> None:
    """The client is asked for the body only once Ollama wants it."""
    blob = b"weights"
    target = f"/api/blobs/sha256:{hashlib.sha256(blob).hexdigest()}"
    headers = [("Expect", "100-continue"), ("Content-Length", str(len(blob)))]
    async with await connect(proxy.port) as wire:
        await wire.send(request("POST", target, headers=headers))
        assert (await wire.head()).status == 100
        await wire.send(blob)
        assert (await wire.response()).status == 201
    async with await connect(proxy.port) as wire:
        await wire.send(request("POST", target, headers=headers))
        assert (await wire.response()).status == 200


@pytest.mark.case(13)
async def test_progress_lines_of_a_pull_arrive_as_they_are_made(proxy: Proxy, fake_ollama: FakeOllama) -> None:
    """A progress bar moves; nothing is saved up for the end."""
    fake_ollama.seconds_to_first_token = 0.02
    response = await ask(proxy.port, "POST", "/api/pull", {"model": "llama3"})
    times = [chunk.at for chunk in response.chunks]
    assert response.lines()[-1] == {"status": "success"}
    assert len(times) > 5
    assert times[-1] - times[0] > 0.08


@pytest.mark.case(14)
async def test_leaving_during_a_pull_stops_it(proxy: Proxy, fake_ollama: FakeOllama) -> None:
    """Ollama sees the client go within a second."""
    fake_ollama.seconds_to_first_token = 30.0
    async with await connect(proxy.port) as wire:
        await wire.send(request("POST", "/api/pull", {"model": "llama3"}))
        await wire.head()
    left = time.monotonic()
    await fake_ollama.wait_until(lambda: fake_ollama.aborted == 1, timeout_s=2.0)
    assert time.monotonic() - left < 1.0


@pytest.mark.case(15)
async def test_multipart_keeps_its_boundary(proxy: Proxy, fake_ollama: FakeOllama) -> None:
    """Bodies that are no JSON are passed as they are."""
    body = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n\x00\xff\r\n--b--\r\n'
    headers = [("Content-Type", 'multipart/form-data; boundary="b"')]
    await same(proxy, fake_ollama, "POST", "/v1/audio/transcriptions", body, headers=headers)
    assert fake_ollama.requests[-1].header("content-type") == 'multipart/form-data; boundary="b"'
    assert fake_ollama.requests[-1].header("content-length") == str(len(body))


@pytest.mark.case(16)
async def test_query_of_messages_is_kept(proxy: Proxy, fake_ollama: FakeOllama) -> None:
    """Clients of Anthropic's API add `?beta=true`."""
    relayed = await ask(proxy.port, "POST", "/v1/messages?beta=true", {"model": "llama3"})

    assert relayed.status == 400  # without max_tokens; its request id is another each time
    assert fake_ollama.requests[-1].target == "/v1/messages?beta=true"


@pytest.mark.case(17)
async def test_user_agent_reaches_show(proxy: Proxy, fake_ollama: FakeOllama) -> None:
    """Ollama answers Copilot differently, so it must know who asks; and no agent is invented."""
    agent = ("User-Agent", "GitHubCopilotChat/1.0")
    await same(proxy, fake_ollama, "POST", "/api/show", {"model": "llama3"}, headers=[agent])
    assert fake_ollama.requests[-1].header("user-agent") == agent[1]
    await same(proxy, fake_ollama, "POST", "/api/show", {"model": "llama3"})
    assert fake_ollama.requests[-1].header("user-agent") == ""


@pytest.mark.case(18)
@pytest.mark.parametrize("target", ["/api/blobs/sha256%3Aabc?x=%2F&&y", "/a%2Fb;c?d=%e4&e=+", "/x?", "/%7Euser/./.."])
async def test_target_reaches_upstream_byte_for_byte(proxy: Proxy, fake_ollama: FakeOllama, target: str) -> None:
    """Escapes stay escapes; nothing is normalised."""
    await same(proxy, fake_ollama, "GET", target)
    assert fake_ollama.requests[-1].target == target


@pytest.mark.case(19)
async def test_large_header_is_forwarded(proxy: Proxy, fake_ollama: FakeOllama) -> None:
    """9 KiB is more than aiohttp takes by default and less than Ollama does."""
    value = "v" * 9 * 1024
    assert (await same(proxy, fake_ollama, "GET", "/api/version", headers=[("X-Big", value)])).status == 200
    assert fake_ollama.requests[-1].header("x-big") == value
