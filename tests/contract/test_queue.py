"""Misses reach Ollama in good order: as many as it runs, model by model, and nobody waits for nothing."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from cacheproxy.demo.library import default_models
from cacheproxy.upstream.crowding import OLLAMAS_OWN
from tests.fakes import wire
from tests.fakes.house import MODEL, House, open_house, until
from tests.fakes.ollama import FakeOllama, Fault
from tests.fakes.redis_server import RedisServer
from tests.fakes.wire import Response

OTHER = "llama3"
EMBEDDER = "nomic-embed-text"
RUNS: list[tuple[str, dict[str, Any]]] = [
    ("/api/chat", {"messages": [{"role": "user", "content": "another?"}]}),
    ("/api/generate", {"prompt": "another?"}),
    ("/api/generate", {"prompt": "another?", "options": {"cache": "off"}}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "another?"}]}),
    ("/v1/completions", {"prompt": "another?"}),
    ("/v1/messages", {"messages": [{"role": "user", "content": "another?"}], "max_tokens": 10}),
    ("/v1/responses", {"input": "another?"}),
]
RUNS_NOTHING: list[tuple[str, str, Any]] = [
    ("GET", "/api/tags", b""),
    ("GET", "/", b""),
    ("POST", "/api/show", {"model": MODEL}),
    ("POST", "/api/generate", {"model": MODEL}),
    ("POST", "/api/chat", {"model": MODEL, "messages": []}),
    ("POST", "/api/chat", {"model": "nobody", "messages": [{"role": "user", "content": "hello?"}]}),
]


@asynccontextmanager
async def narrow(ollama: FakeOllama, redis: RedisServer, **sections: Any) -> AsyncIterator[House]:
    """A proxy with one place a model, whose trail is shown."""
    upstream = {"parallel": 1} | sections.pop("upstream", {})
    async with open_house(ollama, redis, upstream=upstream, cache={"headers": "trail"}, **sections) as house:
        yield house


@asynccontextmanager
async def at_work(house: House, question: str = "why?") -> AsyncIterator[asyncio.Task[Response]]:
    """An ask that Ollama is in the middle of; it goes on after the block."""
    house.ollama.next(Fault(stall_after_tokens=2))
    stalled = house.ollama.stalled
    ask = asyncio.create_task(house.chat(question))
    await house.ollama.wait_until(lambda: house.ollama.stalled > stalled)
    yield ask
    house.ollama.calm()
    assert (await ask).complete


def followers(house: House) -> list[int]:
    """How many follow each flight, the oldest flight first."""
    return [len(flight._followers) for flights in house.app.flights._flying.values() for flight in flights]


async def waiting(house: House, count: int) -> None:
    """Wait until so many asks wait for a place."""
    await until(lambda: house.app.fleet.waiting == count)


async def test_a_lone_miss_does_not_wait_for_the_window(fake_ollama: FakeOllama, clean_redis: RedisServer) -> None:
    """However long it is; the trail has no word of waiting and the step no time."""
    async with narrow(fake_ollama, clean_redis, batching={"window": "1h"}) as house:
        for number in range(3):
            reply = await house.chat(f"question {number}?")

            assert reply.header("X-Cache-Trail") == "memory:no exact:no near:mode-off upstream:200"
            assert "queue;dur=0.000" in (reply.header("Server-Timing") or "")
            await house.settled()


@pytest.mark.parametrize(("path", "members"), RUNS)
async def test_what_ollama_would_keep_waiting_waits_here(
    fake_ollama: FakeOllama, clean_redis: RedisServer, path: str, members: dict[str, Any]
) -> None:
    """Cached, bypassed or passed through: it runs as soon as the place is free."""
    async with narrow(fake_ollama, clean_redis) as house:
        async with at_work(house):
            ask = asyncio.create_task(house.ask("POST", path, {"model": MODEL, "stream": False} | members))
            await waiting(house, 1)
            assert fake_ollama.concurrency == 1
        reply = await ask

        assert (reply.status, reply.complete) == (200, True)
        assert house.app.fleet.in_flight == house.app.fleet.waiting == 0


async def test_the_trail_says_that_an_ask_waited(fake_ollama: FakeOllama, clean_redis: RedisServer) -> None:
    """And what Ollama took is not mixed with it."""
    async with narrow(fake_ollama, clean_redis) as house:
        async with at_work(house):
            ask = asyncio.create_task(house.chat("another?"))
            await waiting(house, 1)
            await asyncio.sleep(0.05)  # so that there is something to tell apart
        reply = await ask
        trail, timing = (reply.header(name) or "" for name in ("X-Cache-Trail", "Server-Timing"))
        took_ms = {name: float(ms) for name, ms in (each.split(";dur=") for each in timing.split(", "))}

        assert trail.startswith("memory:no exact:no near:mode-off queue:")
        assert took_ms["queue"] >= 50
        assert took_ms["upstream_first_byte"] < 50


@pytest.mark.parametrize(("method", "target", "body"), RUNS_NOTHING)
async def test_what_runs_no_model_never_waits(
    fake_ollama: FakeOllama, clean_redis: RedisServer, method: str, target: str, body: Any
) -> None:
    """Lists, loads, and refusals."""
    async with narrow(fake_ollama, clean_redis) as house, at_work(house):
        assert (await house.ask(method, target, body)).complete


async def test_an_embedding_does_not_wait_for_a_chat(fake_ollama: FakeOllama, clean_redis: RedisServer) -> None:
    """Both models are loaded, so Ollama would run them side by side."""
    body = {"model": EMBEDDER, "input": "some text"}
    async with narrow(fake_ollama, clean_redis, batching={"window": "1h"}) as house:
        await house.ask("POST", "/api/embed", body)
        async with at_work(house):
            assert (await house.ask("POST", "/api/embed", body)).status == 200


@pytest.mark.parametrize(("path", "members"), RUNS)
async def test_a_full_queue_answers_as_ollama_does(
    fake_ollama: FakeOllama, clean_redis: RedisServer, path: str, members: dict[str, Any]
) -> None:
    """Status, headers and body are Ollama's own, who refuses before it thinks of streaming; the fault is counted."""
    body = {"model": MODEL, "stream": False} | members
    fake_ollama.scheduler.queue_max = 0
    own = await wire.ask(fake_ollama.port, "POST", path, body)
    fake_ollama.scheduler.queue_max = 512
    async with narrow(fake_ollama, clean_redis, upstream={"queue": 1}) as house, at_work(house):
        ask = asyncio.create_task(house.chat("one that waits?"))
        await waiting(house, 1)
        reply = await house.ask("POST", path, body | {"stream": True})
        stats = await house.stats()
        ask.cancel()
        await waiting(house, 0)

    assert (reply.status, reply.reason, told(reply)) == (own.status, own.reason, told(own))
    assert reply.status == 503
    assert {name: reply.header(name) for name in ("Content-Type", "Content-Length")} == {
        name: own.header(name) for name in ("Content-Type", "Content-Length")
    }
    assert stats["faults"]["queue_full"] == 1
    assert stats["faults"]["upstream_unreachable"] == stats["faults"]["upstream_broken"] == 0


async def test_texts_that_find_the_queue_full_are_one_fault(fake_ollama: FakeOllama, clean_redis: RedisServer) -> None:
    """Nothing was broken, and nobody was away."""
    upstream = {"queue": 1, "models_at_once": 1}
    async with narrow(fake_ollama, clean_redis, upstream=upstream) as house, at_work(house):
        ask = asyncio.create_task(house.chat("one that waits?"))
        await waiting(house, 1)
        reply = await house.ask("POST", "/api/embed", {"model": EMBEDDER, "input": "a"})
        faults = (await house.stats())["faults"]
        ask.cancel()
        await waiting(house, 0)

    assert reply.status == 503
    assert {kind for kind, count in faults.items() if count} == {"queue_full"}


def told(reply: Response) -> str:
    """A body, without the id that Anthropic's errors have."""
    return re.sub(r"req_[0-9a-f]{24}", "req_", reply.text)


async def test_equal_asks_take_one_place_in_the_queue(fake_ollama: FakeOllama, clean_redis: RedisServer) -> None:
    """Fifty who ask the same wait as one; each of them gets the answer, and Ollama one call."""
    async with narrow(fake_ollama, clean_redis, upstream={"queue": 1}) as house:
        async with at_work(house):
            asks = [asyncio.create_task(house.chat("the same?")) for _ in range(50)]
            await until(lambda: followers(house) == [1, 50])
            await waiting(house, 1)
        replies = await asyncio.gather(*asks)

        assert all(reply.status == 200 and reply.complete for reply in replies)
        assert sorted({reply.header("X-Cache") for reply in replies}) == ["JOINED", "MISS"]
        assert house.calls() == 2


async def test_whoever_waits_alone_and_leaves_is_never_sent(fake_ollama: FakeOllama, clean_redis: RedisServer) -> None:
    """Nor do two who ask the same, once both are gone."""
    async with narrow(fake_ollama, clean_redis) as house:
        async with at_work(house):
            first, second = await wire.connect(house.port), await wire.connect(house.port)
            for client in (first, second):
                body = {"model": MODEL, "messages": [{"role": "user", "content": "another?"}]}
                await client.send(wire.request("POST", "/api/chat", body))
            await until(lambda: followers(house) == [1, 2])
            first.close()
            await until(lambda: house.app.cached.calls.in_flight == 2)
            assert house.app.fleet.waiting == 1
            ended = house.decided()
            second.close()
            await waiting(house, 0)
            await until(lambda: bool(ended))
        assert house.calls() == 1
        assert ended[0].trail.endswith(" reply:cut")


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
async def test_leaving_in_the_middle_of_a_reply_frees_the_place(
    fake_ollama: FakeOllama, clean_redis: RedisServer, path: str
) -> None:
    """The next one runs."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "why?"}], "stream": True}
    async with narrow(fake_ollama, clean_redis) as house:
        fake_ollama.next(Fault(stall_after_tokens=2))
        async with await wire.connect(house.port) as client:
            await client.send(wire.request("POST", path, body))
            await fake_ollama.wait_until(lambda: fake_ollama.stalled == 1)
            ask = asyncio.create_task(house.chat("another?"))
            await waiting(house, 1)

        assert (await ask).complete


async def test_one_who_waits_is_served_after_ollama_dropped_the_one_before(
    fake_ollama: FakeOllama, clean_redis: RedisServer
) -> None:
    """A reply that breaks off gives its place back too."""
    async with narrow(fake_ollama, clean_redis) as house:
        fake_ollama.next(Fault(cut_after_bytes=700))
        replies = await asyncio.gather(house.chat("cut?"), house.chat("whole?"))

        assert sorted(reply.complete for reply in replies) == [False, True]  # either may have come first
        assert house.app.fleet.in_flight == 0


async def test_asks_for_two_models_that_do_not_fit_together_cost_two_loads(clean_redis: RedisServer) -> None:
    """Forty asks, one for each model in turn, all at once: Ollama by itself would load forty times."""
    ollama = FakeOllama(parallel=2, loaded_max=1)
    await ollama.open()
    try:
        async with narrow(ollama, clean_redis, upstream={"parallel": 2, "models_at_once": 1}) as house:
            async with at_work(house):
                models = [MODEL, OTHER] * 20
                asks = [asyncio.create_task(house.chat(f"{n}?", model=model)) for n, model in enumerate(models)]
                await until(lambda: sum(ask.done() for ask in asks) == 20)
            replies = await asyncio.gather(*asks)
            changes = (await house.stats())["model_changes"]

        assert all(reply.complete for reply in replies)
        models = [json.loads(request.body)["model"] for request in ollama.requests if request.path == "/api/chat"]
        assert models == [MODEL] * 21 + [OTHER] * 20
        assert ollama.scheduler.loads == changes == 2
    finally:
        await ollama.close()


async def test_how_many_models_fit_is_learnt_within_the_first_burst(clean_redis: RedisServer) -> None:
    """With the setting left as it comes: three loads where nothing is known, two for a burst after that."""
    ollama = FakeOllama(parallel=4, loaded_max=1, load_s=0.1, tokens_per_second=500, answer_tokens=12)
    await ollama.open()
    try:
        async with narrow(ollama, clean_redis, upstream={"parallel": 4}) as house:
            loads = []
            for burst in range(3):
                before = ollama.scheduler.loads
                asks = [house.chat(f"{burst}, {n}?", model=model) for n in range(16) for model in (MODEL, OTHER)]
                assert all(reply.complete for reply in await asyncio.gather(*asks))
                loads.append(ollama.scheduler.loads - before)
            assert loads[0] <= 3
            assert max(loads[1:]) <= 2
    finally:
        await ollama.close()


async def test_a_model_that_a_caller_lets_go_was_not_pushed_out(clean_redis: RedisServer) -> None:
    """`keep_alive: 0`, over whichever route: two fit, and that stays known."""
    ollama = FakeOllama(loaded_max=2)
    await ollama.open()
    try:
        async with narrow(ollama, clean_redis) as house:
            for number, (path, more) in enumerate([
                ("/api/embed", {"model": EMBEDDER, "input": "a"}),
                ("/api/generate", {"model": MODEL, "prompt": "a"}),
                ("/api/chat", {"model": MODEL, "messages": [{"role": "user", "content": "a"}]}),
            ]):  # fmt: skip
                await house.ask("POST", path, more | {"options": {"seed": 1}})
                await until(lambda more=more: more["model"] in str(house.first.loaded.models))  # type: ignore[misc]
                await house.ask("POST", path, more | {"keep_alive": 0, "options": {"seed": 2}})
                await house.chat(f"{number}?", model=OTHER, keep_alive="1h")
                await until(lambda: [one.name for one in house.first.loaded.models] == [f"{OTHER}:latest"])
                await house.ask("POST", "/api/generate", {"model": OTHER, "keep_alive": 0})
                await house.first.loaded.refresh()
            assert house.first.batcher.models_at_once == OLLAMAS_OWN
    finally:
        await ollama.close()


async def test_two_that_do_not_fit_together_take_turns_and_an_embedder_beside_them_makes_way_for_neither(
    clean_redis: RedisServer,
) -> None:
    """One that is small fits beside either of two large models, so two fit; those two do not."""
    sizes = {MODEL: 10, OTHER: 10, EMBEDDER: 1}
    models = [replace(model, size=sizes.get(model.name.model, 1)) for model in default_models()]
    ollama = FakeOllama(models=models, parallel=4, load_s=0.1, tokens_per_second=500, answer_tokens=12)
    ollama.scheduler.memory_bytes = 11
    await ollama.open()
    try:
        async with narrow(ollama, clean_redis, upstream={"parallel": 4}) as house:
            loads = []
            for burst in range(4):
                before = ollama.scheduler.loads
                await house.ask("POST", "/api/embed", {"model": EMBEDDER, "input": f"{burst}?"})
                asks = [house.chat(f"{burst}, {n}?", model=model) for n in range(16) for model in (MODEL, OTHER)]
                assert all(reply.complete for reply in await asyncio.gather(*asks))
                loads.append(ollama.scheduler.loads - before)
            (told,) = (await house.stats())["upstreams"]
            assert max(loads[2:]) <= 3  # the two large ones, and the embedder where it had to go as well
            assert told["models_apart"] == [sorted([f"{MODEL}:latest", f"{OTHER}:latest"])]
            assert told["models_at_once"] == 2
    finally:
        await ollama.close()


async def test_a_model_does_not_starve_while_another_is_asked_for_without_end(clean_redis: RedisServer) -> None:
    """It has its turn after `batching.turn`, and then the other goes on."""
    ollama = FakeOllama(parallel=1, loaded_max=1, seconds_to_first_token=0.005)
    await ollama.open()
    done: list[str] = []

    async def flood(worker: int) -> None:
        for number in range(1000):
            await house.chat(f"question {worker}.{number}?")
            done.append(MODEL)

    try:
        upstream = {"models_at_once": 1}
        async with narrow(ollama, clean_redis, upstream=upstream, batching={"turn": "50ms"}) as house:
            workers = [asyncio.create_task(flood(worker)) for worker in range(4)]
            await until(lambda: len(done) > 4)
            assert (await house.chat("something rare?", model=OTHER)).complete
            before = len(done)
            await until(lambda: len(done) > before + 4)
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
    finally:
        await ollama.close()


async def test_the_gauges_tell_who_waits(fake_ollama: FakeOllama, clean_redis: RedisServer) -> None:
    """One in flight, one waiting."""
    async with narrow(fake_ollama, clean_redis) as house:
        async with at_work(house):
            ask = asyncio.create_task(house.chat("another?"))
            await waiting(house, 1)
            gauges = (await house.stats())["gauges"]
        await ask

        assert (gauges["upstream_in_flight"], gauges["queue_length"]) == (1, 1)
