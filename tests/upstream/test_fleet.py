"""Several Ollamas answer as one: who gets an ask, who gets it next, and who comes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from cacheproxy.app import App
from cacheproxy.commands.stats import table
from cacheproxy.config import Config
from cacheproxy.demo.library import Model, digest_of, parse_name
from cacheproxy.demo.ollama import expected_text
from cacheproxy.errors import ConfigError, UpstreamStaleError
from cacheproxy.upstream import affinity
from cacheproxy.upstream.batcher import BUSY
from cacheproxy.upstream.member import Member
from tests.fakes import wire
from tests.fakes.house import MODEL, House, open_house, until
from tests.fakes.ollama import FakeOllama, Fault
from tests.fakes.redis_server import RedisServer
from tests.faults.load import Load

POOL = [f"m{number}:latest" for number in range(40)]
"""So many that each of two Ollamas is home to some of them, whatever their ports."""
MODELS = POOL[:8]


def installed(names: Sequence[str] = (MODEL, *POOL)) -> list[Model]:
    """Models of these names."""
    return [Model(parse_name(name), digest_of(name)) for name in names]


@asynccontextmanager
async def several(
    redis: RedisServer, count: int = 2, *, lists: Sequence[Sequence[str]] = (), **sections: Any
) -> AsyncIterator[tuple[House, list[FakeOllama]]]:
    """A proxy before `count` Ollamas with the same models, or with those in `lists`; they answer with one slot each."""
    async with AsyncExitStack() as stack:
        ollamas = []
        for number in range(count):
            models = installed(lists[number]) if lists else installed()
            ollama = FakeOllama(parallel=1, models=models, loaded_max=len(models))
            await ollama.open()
            stack.push_async_callback(ollama.close)
            ollamas.append(ollama)
        others = [ollama.url for ollama in ollamas[1:]]
        upstream = {"others": others, "parallel": 1} | sections.pop("upstream", {})
        house = await stack.enter_async_context(open_house(ollamas[0], redis, upstream=upstream, **sections))
        yield house, ollamas


def member_of(house: House, ollama: FakeOllama) -> Member:
    """What the proxy keeps about it."""
    return next(member for member in house.app.fleet.members if member.name == f"127.0.0.1:{ollama.port}")


def home_of(ollamas: Sequence[FakeOllama], model: str = MODEL) -> tuple[FakeOllama, list[FakeOllama]]:
    """The home of a model, and the others."""
    digest = ollamas[0].digest(model)
    name = affinity.home(digest, [f"127.0.0.1:{ollama.port}" for ollama in ollamas])
    home = next(ollama for ollama in ollamas if name.endswith(f":{ollama.port}"))
    return home, [ollama for ollama in ollamas if ollama is not home]


def asked(ollama: FakeOllama, path: str = "/api/chat") -> list[str]:
    """The models that it was asked for, in order."""
    return [json.loads(request.body)["model"] for request in ollama.requests if request.path == path]


def model_of(ollamas: Sequence[FakeOllama], home: FakeOllama) -> str:
    """A model whose home this is."""
    return next(model for model in POOL if home_of(ollamas, model)[0] is home)


async def load_at(house: House, ollama: FakeOllama, model: str = MODEL) -> None:
    """Load a model behind the proxy's back, and let the proxy see it."""
    await wire.ask(ollama.port, "POST", "/api/generate", {"model": model})
    await member_of(house, ollama).loaded.refresh()


@pytest.mark.parametrize(
    ("others", "told"),
    [
        (["http://127.0.0.1:11434/"], "named twice"),
        (["http://b", "http://b:80"], "named twice"),
        (["ftp://b"], r'upstream\.others = "ftp://b"'),
        (["http://me:secret@b"], r"upstream\.others holds a user or password"),
    ],
)
def test_a_list_that_cannot_work_is_refused_at_start(others: list[str], told: str) -> None:
    """With the key that it stands in, and no password in the message."""
    with pytest.raises(ConfigError, match=told) as refusal:
        App(Config.model_validate({"upstream": {"others": others}}))

    assert "secret" not in str(refusal.value)


# --- who gets an ask ---


async def test_a_models_asks_go_to_its_home(clean_redis: RedisServer) -> None:
    """Each Ollama loads its own models only, whoever comes first in the config."""
    async with several(clean_redis, 3) as (house, ollamas):
        for round_ in range(3):
            for model in MODELS:
                assert (await house.chat(f"question {round_}", model=model)).status == 200
        for ollama in ollamas:
            mine = [model for model in MODELS if home_of(ollamas, model)[0] is ollama]
            assert sorted(set(asked(ollama))) == sorted(mine)
            assert ollama.scheduler.loads == len(mine)


async def test_an_ask_stays_where_its_model_is_loaded(clean_redis: RedisServer) -> None:
    """Although its home is elsewhere: loading costs seconds."""
    async with several(clean_redis) as (house, ollamas):
        home, (other,) = home_of(ollamas)
        await load_at(house, other)
        await house.chat()

        assert (asked(home), asked(other)) == ([], [MODEL])


async def test_a_full_home_sheds_asks_to_where_the_model_is_loaded_too(clean_redis: RedisServer) -> None:
    """At once: nobody waits for a place while another is free."""
    async with several(clean_redis) as (house, ollamas):
        home, (other,) = home_of(ollamas)
        await load_at(house, home)
        await load_at(house, other)
        home.next(Fault(stall_after_tokens=1))
        first = asyncio.create_task(house.chat("one?"))
        await home.wait_until(lambda: home.stalled == 1)
        assert (await house.chat("two?")).status == 200
        home.release()
        await first

        assert (len(asked(home)), len(asked(other))) == (1, 1)


async def test_a_long_line_makes_one_more_ollama_load_the_model(clean_redis: RedisServer) -> None:
    """Two asks rather wait than load; a third finds that loading is shorter."""
    async with several(clean_redis) as (house, ollamas):
        home, (other,) = home_of(ollamas)
        home.next(Fault(stall_after_tokens=1))
        asks = [asyncio.create_task(house.chat("one?"))]
        await home.wait_until(lambda: home.stalled == 1)
        for waiting, question in enumerate(["two?", "three?"], 1):
            asks.append(asyncio.create_task(house.chat(question)))
            await until(lambda wanted=waiting: house.app.fleet.waiting == wanted)  # type: ignore[misc]
        assert (await house.chat("four?")).status == 200
        assert len(asked(other)) == 1
        home.release()
        await asyncio.gather(*asks)

        assert len(asked(home)) == 3


async def test_a_model_that_one_ollama_has_is_asked_for_there(clean_redis: RedisServer) -> None:
    """Wherever it stands in the config; what is at only one of them is no difference."""
    async with several(clean_redis, lists=[["a"], ["b"]]) as (house, (first, second)):
        assert (await house.chat(model="b")).status == 200
        assert (await house.chat(model="a")).status == 200
        assert (await house.chat(model="c")).status == 404

        assert (asked(first), asked(second)) == (["a", "c"], ["b"])
        assert house.app.models.differing() == []


async def test_the_first_ollama_decides_what_a_name_stands_for(clean_redis: RedisServer) -> None:
    """One with another digest gets no ask while the first is up; its answers never serve the other's asks."""
    async with several(clean_redis) as (house, (first, second)):
        second.set_digest(MODEL)
        await house.app.models.refresh()
        for question in ("one?", "two?", "three?"):
            await house.chat(question, stream=False)
        await house.settled()
        assert (len(asked(first)), len(asked(second))) == (3, 0)
        assert house.app.models.differing() == ["llama3.2:latest"]

        await first.close()
        await until(lambda: not house.first.health.up)
        others = await house.chat("one?", stream=False)
        await house.settled()
        await first.open()
        await until(lambda: house.first.health.up, 15)
        firsts = await house.chat("one?", stream=False)

        assert [others.header("X-Cache"), firsts.header("X-Cache")] == ["MISS", "EXACT"]
        assert others.json()["message"]["content"] != firsts.json()["message"]["content"]


async def test_an_answer_is_kept_only_if_its_own_ollama_still_has_the_model(clean_redis: RedisServer) -> None:
    """That another one has it proves nothing of the one that answered."""
    async with several(clean_redis) as (house, ollamas):
        home = ollamas[1]
        model = model_of(ollamas, home)
        home.next(Fault(stall_after_tokens=1))
        asking = asyncio.create_task(house.chat(model=model))
        await home.wait_until(lambda: home.stalled == 1)
        home.set_digest(model)
        await house.app.models.refresh()
        home.release()
        await asking
        await house.settled()

        assert clean_redis.call("KEYS", "cacheproxy:answer:*") == []


# --- who gets it next ---


async def test_an_ollama_that_is_gone_costs_no_caller_anything(clean_redis: RedisServer) -> None:
    """Asks that wait for its first byte, and all that come after, are answered by another, each once."""
    async with several(clean_redis) as (house, ollamas):
        home, (other,) = home_of(ollamas)
        home.seconds_to_first_token = 60
        waiting = asyncio.create_task(house.chat("waiting?", stream=False))
        await home.wait_until(lambda: home.concurrency == 1)
        await home.close()
        replies = [await waiting, *[await house.chat(f"question {number}", stream=False) for number in range(5)]]

        assert [reply.status for reply in replies] == [200] * 6
        assert len(asked(other)) == 6
        for reply, question in zip(replies, ["waiting?", *(f"question {n}" for n in range(5))], strict=True):
            body = {"model": MODEL, "stream": False, "messages": [{"role": "user", "content": question}]}
            told = expected_text("/api/chat", json.dumps(body).encode(), digest=other.digest(MODEL))
            assert reply.json()["message"]["content"] == told
        stats = await house.stats()
        assert stats["upstream"]["failovers"][f"127.0.0.1:{home.port}"] == 1
        assert stats["faults"]["upstream_unreachable"] == 0


async def test_no_ask_is_lost_while_an_ollama_dies_and_comes_back_under_load(clean_redis: RedisServer) -> None:
    """Every reply is whole and right, but for those whose first bytes had come when it died."""
    async with several(clean_redis, upstream={"parallel": 4}, cache={"ttl": "0s"}) as (house, ollamas):
        home, _ = home_of(ollamas)
        load = Load(house, workers=8)
        async with load:
            await load.until_replies(50)
            await home.close()
            await load.until_replies(100)
            await home.open()
            await until(lambda: member_of(house, home).health.up, 15)
            await load.until_replies(50)

        assert [wrong for wrong in load.wrong if "status 200, complete False" not in wrong] == []
        assert len(load.wrong) <= load.workers


async def test_a_reply_that_breaks_off_is_not_begun_again(clean_redis: RedisServer) -> None:
    """The caller has half of it: another Ollama's answer must not follow."""
    async with several(clean_redis) as (house, ollamas):
        home, (other,) = home_of(ollamas)
        home.next(Fault(stall_after_tokens=2))
        asking = asyncio.create_task(house.chat())
        await home.wait_until(lambda: home.stalled == 1)
        await home.close()
        reply = await asking

        assert not reply.complete
        assert asked(other) == []


async def test_an_ask_that_kills_ollamas_gets_two_of_them_at_most(clean_redis: RedisServer) -> None:
    """The third lives on, and its caller learns the truth."""
    async with several(clean_redis, 3) as (house, ollamas):
        for ollama in ollamas:
            ollama.always(Fault(close_before_answer=True))
        reply = await house.chat()

        assert reply.status == 502
        assert sum(len(asked(ollama)) for ollama in ollamas) == 2


async def test_with_all_away_the_error_is_that_of_one(clean_redis: RedisServer) -> None:
    """502 in Ollama's shape, hits go on, and no address is told."""
    async with several(clean_redis) as (house, ollamas):
        await house.chat("known?")
        await house.settled()
        for ollama in ollamas:
            await ollama.close()
        hit, other = await house.chat("known?"), await house.chat("unknown?")

        assert hit.header("X-Cache") == "EXACT"
        expected = "cannot reach Ollama (connection refused); check that it runs and that upstream.url is its address"
        assert (other.status, other.json()["error"]) == (502, expected)
        assert (await house.admin("GET", "/readyz")).status == 200


async def test_vectors_are_asked_for_elsewhere_too_and_kept(clean_redis: RedisServer) -> None:
    """Whether they go alone or with others in one call; who gave them still has the model."""
    for merge in (False, True):
        async with several(clean_redis, batching={"merge_embeds": merge}) as (house, ollamas):
            home, (other,) = home_of(ollamas)
            await home.close()
            text = f"a text {merge}"
            first = await house.ask("POST", "/api/embed", {"model": MODEL, "input": text})
            await house.settled()
            again = await house.ask("POST", "/api/embed", {"model": MODEL, "input": text})

            assert [first.status, first.header("X-Cache"), again.header("X-Cache")] == [200, "MISS", "EXACT"]
            assert asked(other, "/api/embed") == [MODEL]


async def test_one_that_was_away_is_taken_back(clean_redis: RedisServer) -> None:
    """What is loaded elsewhere by now stays there; what is not comes home."""
    async with several(clean_redis) as (house, ollamas):
        home, (other,) = home_of(ollamas)
        at_home = model_of(ollamas, home)
        await home.close()
        await house.chat("one?")
        assert not member_of(house, home).health.up
        await home.open()
        await until(lambda: member_of(house, home).health.up, 15)
        await member_of(house, other).loaded.refresh()
        await house.chat("two?")
        await house.chat("three?", model=at_home)

        assert (asked(home), asked(other)) == ([at_home], [MODEL, MODEL])


async def test_a_busy_ollama_sheds_an_ask_to_one_that_has_a_place(clean_redis: RedisServer) -> None:
    """Its 503 is no answer while another has one; with no place anywhere it is passed on as it came."""
    async with several(clean_redis) as (house, ollamas):
        home, (other,) = home_of(ollamas)
        await load_at(house, home)
        home.always(Fault(error_first=(503, BUSY)))
        assert (await house.chat("one?")).status == 200
        assert (len(asked(home)), len(asked(other))) == (1, 1)

        other.next(Fault(stall_after_tokens=1))
        asking = asyncio.create_task(house.chat("two?"))
        await other.wait_until(lambda: other.stalled == 1)
        busy = await house.chat("three?")
        other.release()
        await asking

        assert (busy.status, busy.json()) == (503, {"error": BUSY})


async def test_a_full_queue_is_an_error_only_when_all_are_full(clean_redis: RedisServer) -> None:
    """One ask runs and one waits at each of two; the fifth gets Ollama's 503."""
    async with several(clean_redis, upstream={"queue": 1}) as (house, ollamas):
        for ollama in ollamas:
            ollama.always(Fault(stall_after_tokens=1))
        asks = []
        for number in range(4):
            asks.append(asyncio.create_task(house.chat(f"question {number}")))
            await until(lambda count=number + 1: house.app.fleet.in_flight + house.app.fleet.waiting == count)  # type: ignore[misc]
        refused = await house.chat("one more?")
        for ollama in ollamas:
            ollama.calm()
        replies = await asyncio.gather(*asks)

        assert (refused.status, refused.json()) == (503, {"error": BUSY})
        assert [reply.status for reply in replies] == [200] * 4


# --- what is no ask ---


async def test_changes_go_to_the_first_ollama_alone(clean_redis: RedisServer) -> None:
    """Up or not: nobody should have to guess where a model was deleted."""
    async with several(clean_redis) as (house, (first, second)):
        assert (await house.ask("POST", "/api/copy", {"source": MODEL, "destination": "mine"})).status == 200
        assert first.find("mine") is not None
        assert second.find("mine") is None

        await first.close()
        refused = await house.ask("DELETE", "/api/delete", {"model": MODEL})

        assert refused.status == 502
        assert second.find(MODEL) is not None
        assert second.calls["/api/delete"] == 0


async def test_what_only_reads_goes_to_the_first_that_is_up(clean_redis: RedisServer) -> None:
    """Its list is one Ollama's own, byte for byte."""
    async with several(clean_redis, lists=[["a"], ["b"]]) as (house, (first, _)):
        before = await house.ask("GET", "/api/tags")
        await first.close()
        after = await house.ask("GET", "/api/tags")

        assert [model["name"] for model in before.json()["models"]] == ["a:latest"]
        assert [model["name"] for model in after.json()["models"]] == ["b:latest"]


async def test_a_body_that_is_passed_on_as_it_comes_goes_whole_to_the_next(clean_redis: RedisServer) -> None:
    """Nothing of it is read before somebody is there to take it."""
    async with several(clean_redis, cache={"body_max": "1KiB"}) as (house, (first, second)):
        await first.close()
        body = json.dumps({"model": MODEL, "prompt": "why? " * 100_000}).encode()
        reply = await house.ask("POST", "/api/generate", body)

        assert reply.status == 200
        assert second.requests[-1].body == body


async def test_a_hit_that_unloads_does_so_wherever_the_model_is(clean_redis: RedisServer) -> None:
    """`keep_alive: 0` means that it shall be gone."""
    async with several(clean_redis) as (house, ollamas):
        await house.chat("one?")
        await house.settled()
        for ollama in ollamas:
            await load_at(house, ollama)
        assert (await house.chat("one?", keep_alive=0)).header("X-Cache") == "EXACT"

        await until(lambda: not any(ollama.scheduler.runners() for ollama in ollamas))


async def test_loading_a_model_loads_it_where_its_asks_go(clean_redis: RedisServer) -> None:
    """A request without a prompt."""
    async with several(clean_redis, 3) as (house, ollamas):
        home, others = home_of(ollamas)
        await house.ask("POST", "/api/generate", {"model": MODEL})

        assert [len(home.scheduler.runners()), *(len(other.scheduler.runners()) for other in others)] == [1, 0, 0]


async def test_each_configured_model_is_preloaded_at_its_home(clean_redis: RedisServer) -> None:
    """Not everywhere: each Ollama's memory is for its own models."""
    async with several(clean_redis, tuning={"preload": MODELS}, upstream={"models_at_once": 8}) as (house, ollamas):
        await until(lambda: len(house.app.fleet.loaded_models) == len(MODELS))
        for ollama in ollamas:
            mine = [model for model in MODELS if home_of(ollamas, model)[0] is ollama]
            assert sorted(model.name for model in member_of(house, ollama).loaded.models) == sorted(mine)


# --- changes, and what is no fault ---


async def test_while_a_change_passes_through_no_name_has_an_identity_anywhere(clean_redis: RedisServer) -> None:
    """Else an ask would be keyed by what the name stands for elsewhere. It waits, and then the first decides again."""
    async with several(clean_redis) as (house, (first, second)):
        second.set_digest(MODEL)
        await house.app.fleet.models.refresh()
        models = house.app.fleet.models
        changes = {"the first": models.changing(), "the second": house.app.fleet.members[1].models.changing()}
        for where, changing in changes.items():
            async with changing:
                assert models.identify(MODEL) is None
                assert models.mark is None
                ask = asyncio.create_task(house.chat(f"a change at {where}?"))
                await until(lambda: house.app._proxy.in_flight == 1)
                assert models.identify(MODEL) is None
            assert (await ask).header("X-Cache") == "MISS"
            assert models.identify(MODEL).digest == first.digest(MODEL)  # type: ignore[union-attr]


async def test_a_connection_that_was_closed_for_being_idle_says_nothing_of_an_ollama(
    clean_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ask goes on to the next, and the first one gets the ask after that."""
    async with several(clean_redis) as (house, ollamas):
        home, (other,) = home_of(ollamas)
        member = member_of(house, home)
        send = member.client.send
        lost = [UpstreamStaleError("lost")]

        async def losing(request: Any, *, safe_to_repeat: bool) -> Any:
            if lost and request.target == "/api/chat":
                raise lost.pop()
            return await send(request, safe_to_repeat=safe_to_repeat)

        monkeypatch.setattr(member.client, "send", losing)
        assert (await house.chat()).status == 200
        assert member.health.up
        assert (asked(home), asked(other)) == ([], [MODEL])


# --- what operators and callers see ---


async def test_each_ollamas_state_is_told(clean_redis: RedisServer) -> None:
    """In `/stats`, `/metrics` and `/readyz`, by host and port."""
    async with several(clean_redis) as (house, ollamas):
        home, (other,) = home_of(ollamas)
        await house.chat()
        await other.close()
        await until(lambda: not member_of(house, other).health.up)
        stats = await house.stats()
        text = (await house.admin("GET", "/metrics")).body.decode()
        ready = (await house.admin("GET", "/readyz")).json()

        shown = table(stats)
        up = {one["name"]: one["up"] for one in stats["upstreams"]}
        here, there = f"127.0.0.1:{home.port}", f"127.0.0.1:{other.port}"
        assert up == {here: True, there: False}
        assert stats["upstream"] == {"asks": {here: 1, there: 0}, "failovers": {here: 0, there: 0}}
        assert f"{here} 1" in next(line for line in shown if line.startswith("sent to "))
        assert any(line.startswith(f"degraded upstream: {there}") for line in shown)
        assert f'cacheproxy_upstream_up{{upstream="{there}"}} 0.0' in text
        assert f'cacheproxy_upstream_asks_total{{upstream="{here}"}} 1.0' in text
        assert ready["ready"]
        assert ready["degraded"] == ["upstream"]
        assert ready["parts"]["upstream"]["reason"].startswith(there)


async def test_a_trail_says_which_one_by_position(clean_redis: RedisServer) -> None:
    """Callers may read it, and an address is none of their business. With one Ollama it says nothing."""
    trail = {"headers": "trail"}
    async with several(clean_redis, cache=trail) as (house, ollamas):
        position = ollamas.index(home_of(ollamas)[0]) + 1
        assert f" at:{position} upstream:200" in (await house.chat("one?")).header("X-Cache-Trail")
    async with several(clean_redis, 1, cache=trail) as (house, _):
        assert "at:" not in (await house.chat("two?")).header("X-Cache-Trail")
