"""Conformance cases I, 109 to 116: entries belong to a model's digest, and end with it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from cacheproxy.demo.library import digest_of, parse_name
from cacheproxy.rules.keep import until_midnight_s
from tests.fakes.clock import FakeClock
from tests.fakes.house import MODEL, House, open_house, until
from tests.fakes.ollama import FakeOllama, Fault
from tests.fakes.redis_server import RedisServer
from tests.fakes.wire import connect, request


async def stored(house: House) -> None:
    """Ask once and wait until it is kept."""
    assert (await house.chat(stream=False)).header("X-Cache") == "MISS"
    await house.settled()


@pytest.mark.case(109)
async def test_pulling_a_new_version_through_the_proxy_ends_the_hits_at_once(house: House) -> None:
    """The next ask after the pull is a miss."""
    await stored(house)
    before = house.ollama.digest(MODEL)
    name = parse_name(MODEL)
    offered = house.ollama.library.registry[name]
    house.ollama.library.registry[name] = replace(offered, digest=digest_of("a new version"))
    pulled = await house.ask("POST", "/api/pull", {"model": MODEL})
    assert pulled.lines()[-1] == {"status": "success"}
    assert house.ollama.digest(MODEL) != before

    assert (await house.chat(stream=False)).header("X-Cache") == "MISS"


@pytest.mark.case(109)
async def test_a_new_version_counts_before_a_client_can_read_that_it_is_there(house: House) -> None:
    """Many clients go on, or away, at the word "success" and never read the end of the stream."""
    await stored(house)
    name = parse_name(MODEL)
    offered = house.ollama.library.registry[name]
    house.ollama.library.registry[name] = replace(offered, digest=digest_of("a new version"))
    async with await connect(house.port) as wire:
        await wire.send(request("POST", "/api/pull", b'{"model":"llama3.2"}'))
        reply = await wire.head()
        while b"success" not in reply.body:
            assert await wire.chunk(reply)
        known = house.app.models.known(MODEL)

    assert known is not None
    assert known.digest == house.ollama.digest(MODEL)


@pytest.mark.case(110)
async def test_pulling_the_same_version_again_keeps_the_hits(house: House) -> None:
    """The digest is what counts, not the date."""
    await stored(house)
    await house.ask("POST", "/api/pull", {"model": MODEL})

    assert (await house.chat(stream=False)).header("X-Cache") == "EXACT"


@pytest.mark.case(111)
async def test_a_deleted_model_is_not_found_and_never_a_hit(house: House) -> None:
    """404 in Ollama's own words."""
    await stored(house)
    deleted = await house.ask("DELETE", "/api/delete", {"model": MODEL})
    assert (deleted.status, deleted.body) == (200, b"")

    reply = await house.chat(stream=False)

    assert (reply.status, reply.json()) == (404, {"error": f"model '{MODEL}' not found"})


@pytest.mark.case(46)
async def test_creating_a_model_anew_ends_its_hits(house: House) -> None:
    """Another system prompt in the Modelfile is another digest."""
    await house.ask("POST", "/api/create", {"model": "mine", "from": MODEL, "system": "be brief"})
    await house.chat(model="mine", stream=False)
    await house.settled()
    await house.ask("POST", "/api/create", {"model": "mine", "from": MODEL, "system": "be verbose"})

    assert (await house.chat(model="mine", stream=False)).header("X-Cache") == "MISS"


@pytest.mark.case(112)
async def test_a_change_behind_the_proxy_ends_the_hits_within_digest_ttl(house: House) -> None:
    """`ollama pull` on the machine itself."""
    await stored(house)
    digest = house.ollama.set_digest(MODEL)
    async with asyncio.timeout(house.app.config.upstream.digest_ttl + 0.5):
        await until(lambda: house.app.models.known(MODEL).digest == digest)

    assert (await house.chat(stream=False)).header("X-Cache") == "MISS"


@pytest.mark.case(113)
async def test_an_answer_during_which_the_model_changed_is_delivered_and_not_kept(house: House) -> None:
    """Nobody knows which of the two gave it."""
    house.ollama.next(Fault(stall_after_tokens=2))
    reply = asyncio.create_task(house.chat(stream=False))
    await house.ollama.wait_until(lambda: house.ollama.stalled == 1)
    house.ollama.set_digest(MODEL)
    house.ollama.release()

    assert (await reply).json()["done"] is True
    await house.settled()
    assert house.redis is not None
    assert house.redis.call("KEYS", "cacheproxy:answer:*") == []


@pytest.mark.case(114)
async def test_hits_go_on_with_the_last_list_while_it_cannot_be_read(house: House) -> None:
    """And nothing is an error."""
    await stored(house)
    house.ollama.tags_down()
    await until(lambda: not house.app.models.reachable)

    assert (await house.chat(stream=False)).header("X-Cache") == "EXACT"


@pytest.mark.case(114)
async def test_without_any_list_everything_goes_around_the_cache(
    fake_ollama: FakeOllama, clean_redis: RedisServer
) -> None:
    """A name without digest cannot be keyed, and is answered all the same."""
    fake_ollama.tags_down()
    async with open_house(fake_ollama, clean_redis) as house:
        reply = await house.chat(stream=False)

    assert (reply.status, reply.header("X-Cache")) == (200, "BYPASS")


@pytest.mark.case(116)
async def test_answers_of_a_model_that_knows_the_date_end_at_midnight(house: House) -> None:
    """Its template prints the day."""
    installed = house.ollama.find(MODEL)
    assert installed is not None
    house.ollama.library.install(replace(installed, template="{{ currentDate }} {{ .Prompt }}"))
    await stored(house)

    hit = await house.chat(stream=False)
    entry = house.app.memory._held[next(iter(house.app.memory._held))].entry

    assert hit.header("X-Cache") == "EXACT"
    assert entry.expires <= entry.made + until_midnight_s(entry.made) + 1


@pytest.mark.case(116)
async def test_an_answer_that_was_asked_for_before_midnight_is_old_after_it(
    fake_ollama: FakeOllama, clean_redis: RedisServer
) -> None:
    """It speaks of the day on which its prompt was rendered."""
    installed = fake_ollama.find(MODEL)
    assert installed is not None
    fake_ollama.library.install(replace(installed, template="{{ currentDate }} {{ .Prompt }}"))
    clock = FakeClock()
    clock.advance(until_midnight_s(clock.now()) - 1)
    async with open_house(fake_ollama, clean_redis, clock=clock) as house:
        fake_ollama.next(Fault(stall_after_tokens=1))
        asked = asyncio.create_task(house.chat(stream=False))
        await fake_ollama.wait_until(lambda: fake_ollama.stalled == 1)
        clock.advance(2)
        fake_ollama.release()
        await asked
        await house.settled()

        assert clean_redis.call("KEYS", "cacheproxy:answer:*") == []
