"""Models are there before they are asked for, and nobody waits for that."""

import asyncio
import json

import pytest

from cacheproxy import behind
from cacheproxy.demo.library import Model, digest_of, parse_name
from cacheproxy.upstream.preload import Preloader
from tests.fakes.house import House, open_house, until
from tests.fakes.ollama import FakeOllama, Fault

GIB = 1024**3


def loads(ollama):
    """The bodies of the requests that only load or unload."""
    bodies = [json.loads(request.body) for request in ollama.requests if request.path == "/api/generate"]
    return [body for body in bodies if "prompt" not in body]


def in_memory(house: House):
    """The names the proxy knows to be loaded."""
    return {model.name for model in house.first.loaded.models}


async def load_count(house: House, reason, result):
    """`cacheproxy_loads_total` for these labels."""
    text = (await house.admin("GET", "/metrics")).body.decode()
    wanted = f'cacheproxy_loads_total{{reason="{reason}",result="{result}"}} '
    return next((float(line.removeprefix(wanted)) for line in text.splitlines() if line.startswith(wanted)), 0.0)


async def test_configured_models_are_loaded_at_start_with_what_their_asks_will_bring(fake_ollama, clean_redis):
    """By name or by rule; an embedding model as well. The first ask then loads nothing."""
    rules = {
        "llama3.2": {"preload": True, "options": {"num_ctx": 2048, "temperature": 0}, "keep_alive": -1},
        "nomic*": {"options": {"num_ctx": 2048}},
    }
    tuning = {"preload": ["nomic-embed-text", "nowhere"]}
    async with open_house(fake_ollama, clean_redis, tuning=tuning, models=rules) as house:
        await until(lambda: in_memory(house) == {"llama3.2:latest", "nomic-embed-text:latest"})
        before = fake_ollama.scheduler.loads
        await house.chat("why?")

        assert fake_ollama.scheduler.loads == before == 2
        assert await load_count(house, "configured", "done") == 2
        assert await load_count(house, "configured", "failed") == 1
    wanted = {"model": "llama3.2:latest", "stream": False, "options": {"num_ctx": 2048}, "keep_alive": -1}
    assert wanted in loads(fake_ollama)
    embeds = [json.loads(request.body) for request in fake_ollama.requests if request.path == "/api/embed"]
    assert embeds == [{"model": "nomic-embed-text:latest", "keep_alive": 1800, "input": []}]


async def test_they_are_loaded_again_after_ollama_was_away(fake_ollama, clean_redis):
    """A restarted Ollama has nothing in memory."""
    async with open_house(fake_ollama, clean_redis, tuning={"preload": ["llama3.2"]}) as house:
        await until(lambda: len(in_memory(house)) == 1)
        fake_ollama.tags_down()
        await until(lambda: not house.app.models.reachable)
        fake_ollama.scheduler.unload(fake_ollama.library.find(parse_name("llama3.2")))
        await house.first.loaded.refresh()
        assert in_memory(house) == set()
        fake_ollama.calm()
        await until(lambda: len(in_memory(house)) == 1)


async def test_a_defect_in_one_load_costs_that_load_only(fake_ollama, clean_redis, monkeypatch, caplog):
    """The next model is loaded all the same."""
    monkeypatch.setattr(behind, "REST_S", 0.01)
    load = Preloader._load_model

    async def fail_once(_preloader, name):
        monkeypatch.setattr(Preloader, "_load_model", load)
        raise KeyError(name)

    monkeypatch.setattr(Preloader, "_load_model", fail_once)
    async with open_house(fake_ollama, clean_redis, tuning={"preload": ["llama3.2", "llama3"]}) as house:
        await until(lambda: in_memory(house) == {"llama3:latest"})

    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [KeyError]


async def test_a_warm_up_says_one_token(fake_ollama, clean_redis):
    """After the load, if it is wanted."""
    async with open_house(fake_ollama, clean_redis, tuning={"preload": ["llama3.2"], "warm_up": True}) as house:
        await until(lambda: len(in_memory(house)) == 1)
    warm = [json.loads(request.body) for request in fake_ollama.requests if request.path == "/api/generate"][-1]
    assert warm["prompt"]
    assert warm["options"] == {"num_predict": 1}


async def test_what_is_loaded_and_what_it_takes_is_told(fake_ollama, clean_redis):
    """In `/stats` and as gauges by model."""
    async with open_house(fake_ollama, clean_redis, tuning={"preload": ["llama3.2"]}) as house:
        await until(lambda: len(in_memory(house)) == 1 and house.first.preload.loading == "")
        stats = await house.stats()
        text = (await house.admin("GET", "/metrics")).body.decode()

    (told,) = stats["models_loaded"]
    assert (told["name"], told["size_bytes"], told["context_length"]) == ("llama3.2:latest", 4_661_224_676, 4096)
    assert stats["model_loading"] == ""
    assert 'cacheproxy_loaded_bytes{model="llama3.2:latest"} 4.661224676e+09' in text
    assert 'cacheproxy_loaded_vram_bytes{model="llama3.2:latest"} 4.661224676e+09' in text


@pytest.fixture
async def slow_to_load():
    """An Ollama that takes half a second to load a model."""
    ollama = FakeOllama(parallel=1, load_s=0.5)
    await ollama.open()
    yield ollama
    await ollama.close()


async def test_a_load_gives_way_to_an_ask_for_another_model_and_is_made_good_later(slow_to_load, clean_redis):
    """Ollama loads one at a time and gives up a load whose caller leaves, so the ask waits for its own load only."""
    async with open_house(slow_to_load, clean_redis, tuning={"preload": ["llama3"]}) as house:
        await slow_to_load.wait_until(lambda: slow_to_load.calls["/api/generate"] == 1)
        reply = await house.chat("why?")
        assert reply.status == 200
        assert slow_to_load.aborted == 1
        assert in_memory(house) == set()
        await until(lambda: "llama3:latest" in in_memory(house))
        assert await load_count(house, "configured", "called-off") == 1
        assert await load_count(house, "configured", "done") == 1


async def test_stopping_calls_a_load_off(slow_to_load, clean_redis):
    """Nobody would use it, and Ollama then stops as well."""
    async with open_house(slow_to_load, clean_redis, tuning={"preload": ["llama3.2"]}):
        await slow_to_load.wait_until(lambda: slow_to_load.calls["/api/generate"] == 1)

    await slow_to_load.wait_until(lambda: slow_to_load.aborted == 1)
    assert slow_to_load.scheduler.runners() == []


async def test_an_ask_for_the_model_being_loaded_uses_that_load(slow_to_load, clean_redis):
    """It would have to wait as long without it."""
    async with open_house(slow_to_load, clean_redis, tuning={"preload": ["llama3.2"]}) as house:
        await slow_to_load.wait_until(lambda: slow_to_load.calls["/api/generate"] == 1)
        assert (await house.chat("why?")).status == 200
        assert (slow_to_load.scheduler.loads, slow_to_load.aborted) == (1, 0)


async def test_nothing_is_loaded_while_a_request_is_under_way(fake_ollama, clean_redis):
    """Not even while it is one that the cache has no part in."""
    fake_ollama.tags_down()
    fake_ollama.always(Fault(stall_after_tokens=1), path="/api/generate")
    tuning = {"preload": ["llama3"]}
    async with open_house(fake_ollama, clean_redis, tuning=tuning) as house:
        asking = asyncio.create_task(house.generate("why?"))
        await fake_ollama.wait_until(lambda: fake_ollama.stalled == 1)
        del fake_ollama._always["/api/tags"]
        await until(lambda: house.app.models.reachable)
        await house.first.loaded.refresh()
        assert loads(fake_ollama) == []

        fake_ollama.calm()
        await asking
        await until(lambda: "llama3:latest" in in_memory(house))


def small(name):
    """A model of 4 GiB."""
    return Model(parse_name(name), digest_of(name), size=4 * GIB)


@pytest.fixture
async def three_models():
    """An Ollama with three models of 4 GiB that holds two of them."""
    ollama = FakeOllama(parallel=1, models=[small("a"), small("b"), small("c")], loaded_max=2)
    await ollama.open()
    yield ollama
    await ollama.close()


async def ask_in_turn(house: House, order):
    """Ask each model something new, and wait until the proxy has seen it in memory."""
    for at, model in enumerate(order):
        await house.chat(f"question {at}", model=model)
        await house.first.loaded.refresh()


async def test_the_next_model_is_loaded_ahead_and_the_least_valuable_one_unloaded(three_models, clean_redis):
    """After a b a b a c: nobody knows; after b comes a, and c makes room for it."""
    tuning = {"predict": True, "memory": "8GiB", "profile": "off"}
    async with open_house(three_models, clean_redis, tuning=tuning) as house:
        await ask_in_turn(house, "ababacb")
        await until(lambda: in_memory(house) == {"a:latest", "b:latest"})

        assert {"model": "c:latest", "keep_alive": 0} in loads(three_models)
        assert await load_count(house, "predicted", "done") >= 1


@pytest.mark.parametrize("tuning", [{}, {"predict": True, "memory": "7GiB"}])
async def test_nothing_is_loaded_by_guess_unasked_or_over_the_budget(three_models, clean_redis, tuning):
    """The model in use stays, whatever comes next."""
    async with open_house(three_models, clean_redis, tuning=tuning) as house:
        await ask_in_turn(house, "ababacb")
        await house.first.loaded.refresh()

        assert loads(three_models) == []
