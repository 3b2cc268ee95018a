"""Contract, part K: HTTP between the client and the proxy, and between the proxy and Ollama."""

import asyncio
import json

import pytest

from tests.contract.conftest import Proxy
from tests.fakes.house import MODEL, House
from tests.fakes.ollama import FakeOllama, Fault, unicode_lines
from tests.fakes.wire import ask, connect, request

CHAT = {"model": "llama3", "messages": [{"role": "user", "content": "why?"}]}


@pytest.mark.case(126)
async def test_preflight_of_an_allowed_page_is_answered_with_one_origin(proxy: Proxy, fake_ollama: FakeOllama) -> None:
    """The proxy answers it, since Ollama would compare with the wrong Host; the call itself gets one origin too."""
    page = ("Origin", "http://localhost:3000")
    asked = len(fake_ollama.requests)
    preflight = await ask(proxy.port, "OPTIONS", "/api/chat", headers=[page, ("Access-Control-Request-Method", "POST")])
    assert (preflight.status, preflight.body) == (204, b"")
    assert preflight.header("access-control-allow-origin") == page[1]
    assert preflight.header("access-control-max-age") == "43200"
    assert len([name for name, _ in preflight.headers if name.lower() == "vary"]) == 3
    assert len(fake_ollama.requests) == asked
    reply = await ask(proxy.port, "POST", "/api/chat", CHAT, headers=[page])
    assert reply.header("access-control-allow-origin") == page[1]
    assert "X-Cache" in str(reply.header("access-control-expose-headers"))


@pytest.mark.case(127)
async def test_page_that_may_not_call_gets_an_empty_403_and_ollama_no_request(
    proxy: Proxy, fake_ollama: FakeOllama
) -> None:
    """Whatever the method and path."""
    asked = len(fake_ollama.requests)
    for method, target in (("POST", "/api/chat"), ("OPTIONS", "/api/chat"), ("GET", "/api/tags"), ("DELETE", "/x")):
        reply = await ask(proxy.port, method, target, headers=[("Origin", "http://evil.test")])
        assert (reply.status, reply.body) == (403, b"")
        assert reply.header("access-control-allow-origin") is None
    assert len(fake_ollama.requests) == asked


@pytest.mark.case(128)
async def test_page_of_the_proxys_own_origin_may_call(proxy: Proxy, fake_ollama: FakeOllama) -> None:
    """Origin equals the Host the client used; Ollama sees neither."""
    reply = await ask(proxy.port, "GET", "/api/version", host=proxy.host, headers=[("Origin", f"http://{proxy.host}")])
    assert reply.status == 200
    assert fake_ollama.requests[-1].header("origin") == ""


@pytest.mark.case(129)
async def test_upstream_sees_its_own_host_whatever_the_client_called_the_proxy(
    proxy: Proxy, fake_ollama: FakeOllama
) -> None:
    """An Ollama on loopback would refuse a foreign Host."""
    reply = await ask(proxy.port, "GET", "/api/version", host="proxy.internal:11435")
    assert reply.status == 200
    assert fake_ollama.requests[-1].header("host") == f"127.0.0.1:{fake_ollama.port}"


@pytest.mark.fault(83)
async def test_rebound_host_is_refused(proxy: Proxy, fake_ollama: FakeOllama) -> None:
    """The proxy does not launder the Host header of a page that rebound its name."""
    asked = len(fake_ollama.requests)
    assert (await ask(proxy.port, "POST", "/api/chat", CHAT, host="evil.test")).status == 403
    assert len(fake_ollama.requests) == asked


@pytest.mark.case(130)
async def test_nothing_is_compressed(proxy: Proxy, fake_ollama: FakeOllama) -> None:
    """Streams must not sit in a compressor; upstream is asked for identity."""
    reply = await ask(proxy.port, "GET", "/api/tags", headers=[("Accept-Encoding", "gzip, br, zstd")])
    assert reply.header("content-encoding") is None
    assert fake_ollama.requests[-1].header("accept-encoding") == "identity"


@pytest.mark.case(131)
async def test_http_1_0_client_gets_an_unframed_body_and_a_close(proxy: Proxy) -> None:
    """Chunks would be text to it."""
    async with await connect(proxy.port) as wire:
        await wire.send(request("POST", "/api/chat", CHAT, version="1.0"))
        reply = await wire.response()
    assert reply.header("transfer-encoding") is None
    assert reply.header("content-length") is None
    assert reply.lines()[-1]["done"] is True


@pytest.mark.case(132)
async def test_connection_serves_another_request_after_a_stream(proxy: Proxy) -> None:
    """Keep-alive survives chunked replies, also in other words than the first."""
    async with await connect(proxy.port) as wire:
        for target in ("/api/chat", "/api/pull", "/api/chat"):
            body = CHAT if target == "/api/chat" else {"model": "llama3"}
            await wire.send(request("POST", target, body))
            reply = await wire.response()
            assert (reply.status, reply.complete) == (200, True)
        await wire.send(request("GET", "/"))
        assert (await wire.response()).body == b"Ollama is running"


@pytest.mark.case(133)
async def test_silence_of_a_model_is_not_cut(proxy: Proxy, fake_ollama: FakeOllama) -> None:
    """No timeout runs while a model thinks (tests/edge holds the deadlines shorter than the silence)."""
    fake_ollama.next(Fault(first_token_delay_s=0.5))
    reply = await ask(proxy.port, "POST", "/api/chat", CHAT)
    assert reply.lines()[-1]["done"] is True


@pytest.mark.case(134)
async def test_authorization_reaches_upstream(proxy: Proxy, fake_ollama: FakeOllama) -> None:
    """Auth proxies before Ollama need it, also when a client names it in Connection (fault 76)."""
    headers = [("Authorization", "Bearer t"), ("Connection", "Authorization, X-Hop"), ("X-Hop", "1")]
    await ask(proxy.port, "GET", "/api/version", headers=headers)
    assert fake_ollama.requests[-1].header("authorization") == "Bearer t"
    assert fake_ollama.requests[-1].header("x-hop") == ""


@pytest.mark.case(135)
async def test_text_with_every_kind_of_line_end_passes_unchanged(proxy: Proxy, fake_ollama: FakeOllama) -> None:
    """Bytes are passed, so no splitter of ours can break them."""
    body = {**CHAT, "options": {"seed": 135}}
    fake_ollama.next(unicode_lines(), count=2)
    direct = await ask(fake_ollama.port, "POST", "/api/chat", body)
    relayed = await ask(proxy.port, "POST", "/api/chat", body)
    texts = [
        "".join(json.loads(line)["message"]["content"] for line in reply.body.split(b"\n") if line)
        for reply in (direct, relayed)
    ]
    assert texts[0] == texts[1]
    assert "\u2028" in texts[1]


@pytest.mark.case(136)
async def test_no_line_of_a_stream_is_blank(proxy: Proxy) -> None:
    """ollama-python dies on one."""
    reply = await ask(proxy.port, "POST", "/api/chat", CHAT)
    assert reply.body.endswith(b"\n")
    assert all(reply.body[:-1].split(b"\n"))


@pytest.mark.case(137)
async def test_hop_by_hop_headers_are_not_forwarded(proxy: Proxy, fake_ollama: FakeOllama) -> None:
    """They belong to one connection."""
    names = ("Keep-Alive", "TE", "Trailer", "Upgrade", "Proxy-Authorization", "Proxy-Connection", "HTTP2-Settings")
    headers = [(name, "x") for name in names] + [("Connection", "keep-alive, TE, Upgrade"), ("X-End", "1")]
    await ask(proxy.port, "GET", "/api/version", headers=headers)
    seen = fake_ollama.requests[-1]
    assert [name for name in (*names, "Connection") if seen.header(name)] == []
    assert seen.header("x-end") == "1"


@pytest.mark.case(138)
async def test_pipelined_requests_are_answered_while_a_model_is_busy(proxy: Proxy, fake_ollama: FakeOllama) -> None:
    """Other connections go on while one waits for a silent model; requests on one connection keep their order."""
    fake_ollama.next(Fault(stall_after_tokens=0))
    waiting = asyncio.create_task(ask(proxy.port, "POST", "/api/chat", {**CHAT, "options": {"seed": 138}}))
    await fake_ollama.wait_until(lambda: fake_ollama.stalled == 1)
    async with await connect(proxy.port) as wire:
        await wire.send(request("GET", "/") + request("GET", "/api/version") + request("HEAD", "/"))
        assert (await wire.response()).body == b"Ollama is running"
        assert "version" in (await wire.response()).json()
        assert (await wire.response(method="HEAD")).header("content-length") == "17"
    fake_ollama.release()
    assert (await waiting).status == 200


async def test_who_closes_the_sending_half_gets_lists_and_hits_and_a_miss_ends(house: House) -> None:
    """As Ollama has it: what is at hand is delivered, and what would have to be generated is not."""
    asked = {"model": MODEL, "messages": [{"role": "user", "content": "why?"}], "stream": False}
    await house.ask("POST", "/api/chat", asked)
    await house.settled()
    for method, target, body in (("GET", "/api/version", None), ("POST", "/api/chat", asked)):
        async with await connect(house.port) as wire:
            wire.writer.write(request(method, target, body or b""))
            wire.half_close()
            assert (await wire.response()).status == 200
            assert await wire.rest(timeout_s=2) == b""

    house.ollama.next(Fault(stall_after_tokens=1))
    async with await connect(house.port) as wire:
        wire.writer.write(request("POST", "/api/chat", asked | {"options": {"seed": 1}}))
        wire.half_close()
        await house.ollama.wait_until(lambda: house.ollama.aborted == 1, timeout_s=2)
