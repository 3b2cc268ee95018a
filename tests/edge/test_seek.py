"""An ask whose plan is known is looked up and answered before there is a task for it, and as it would be with one."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from cacheproxy.edge import plans, seek
from cacheproxy.edge.connection import KnownConnection
from cacheproxy.edge.fixed import Fixed
from cacheproxy.edge.reply import Form
from cacheproxy.flow.keep import Keeper
from cacheproxy.flow.lookup import LookUp
from cacheproxy.model import Decision, Plan
from cacheproxy.store.exact import Exact, Stored
from cacheproxy.upstream.catalog import Catalog
from tests.fakes.clock import FakeClock
from tests.fakes.house import MODEL, House, open_house, until
from tests.fakes.ollama import FakeOllama, Fault
from tests.fakes.redis_server import RedisServer
from tests.fakes.wire import Wire, connect, request

ASK = {"model": MODEL, "messages": [{"role": "user", "content": "why?"}], "stream": False}
SOUGHT = "plan:known memory:no exact:hit"
SAME = "plan:known exact:same"


def ask(body: Any = ASK, path: str = "/api/chat", **headers: str) -> bytes:
    """The bytes of one ask; in names of headers `_` stands for `-`."""
    return request("POST", path, body, headers=[(name.replace("_", "-"), value) for name, value in headers.items()])


@pytest_asyncio.fixture
async def house(fake_ollama: FakeOllama, clean_redis: RedisServer) -> AsyncIterator[House]:
    """Nothing is kept in the process, so that every hit is Redis's."""
    async with open_house(fake_ollama, clean_redis, cache={"memory": "0B"}) as opened:
        yield opened


@pytest_asyncio.fixture
async def wire(house: House) -> AsyncIterator[Wire]:
    """A connection on which one ask was answered by Ollama and then from Redis, so that its plan is known."""
    opened = await connect(house.port)
    await taught(house, opened)
    yield opened
    opened.close()


async def taught(house: House, wire: Wire, data: bytes | None = None) -> None:
    """Send an ask until its plan is known."""
    for _ in range(2):
        await wire.send(data or ask())
        assert (await wire.response()).status == 200
        await house.settled()
    assert len(plans_of(house)) > 0


async def repeated(house: House, wire: Wire) -> str:
    """Ask once more, so that the hit may be repeated; what it says."""
    text = await said_again(wire)
    assert [planned.last is not None for planned in plans_of(house)._planned.values()] == [True]
    return text


async def said_again(wire: Wire) -> str:
    """The text of a hit."""
    await wire.send(ask())
    reply = await wire.response()
    assert reply.header("X-Cache") == "EXACT"
    return str(reply.json()["message"]["content"])


def plans_of(house: House) -> plans.Plans:
    """What the house has planned."""
    return house.app.plans


def reply_steps(house: House) -> int:
    """How often a reply's time was told."""
    return house.app.metrics._step_durations["reply"].count


def heard(house: House) -> list[Decision]:
    """What is told from now on."""
    decisions: list[Decision] = []
    house.app.decisions.listeners.append(lambda decision, count: decisions.extend([decision] * count))
    return decisions


async def test_it_is_a_hit_from_redis_like_any_other(house: House, wire: Wire) -> None:
    """Reply, headers, counts and steps; the bytes may be others as long as they say the same."""
    decisions = heard(house)
    before = await house.stats()
    for data in (ask(), ask(X_Request_Id="7"), ask(dict(reversed(ASK.items()))), ask(ASK | {"keep_alive": "7m"})):
        await wire.send(data)
        reply = await wire.response()
        assert reply.status == 200
        assert reply.header("X-Cache") == "EXACT"
        assert reply.header("Age") == "0"
        assert reply.json()["message"]["content"]
    after = await house.stats()

    assert [decision.trail for decision in decisions] == [SOUGHT, SAME, SAME, SAME]
    assert {(decision.outcome, decision.tier, decision.model) for decision in decisions} == {
        ("exact", "redis", f"{MODEL}:latest")
    }
    assert all(decision.entry and decision.saved_tokens and decision.seconds > 0 for decision in decisions)
    assert {step for decision in decisions for step in decision.timings_s} == {"parse", "memory", "exact", "reply"}
    assert after["outcomes"]["exact"] - before["outcomes"]["exact"] == 4
    assert house.calls() == 1


@pytest.mark.parametrize(
    "data",
    [
        ask(ASK | {"stream": True}),
        ask(ASK | {"options": {"seed": 1}}),
        ask(Authorization="Bearer somebody"),
        ask(Cache_Control="no-cache"),
        ask(X_Cache_TTL="5"),
        ask(ASK | {"keep_alive": 0}),
        ask(Connection="close"),
        ask(ASK, "/v1/chat/completions"),
    ],
)
async def test_what_says_something_else_takes_the_long_way(house: House, wire: Wire, data: bytes) -> None:
    """It is planned anew."""
    decisions = heard(house)
    await wire.send(data)
    assert (await wire.response()).status == 200
    await until(lambda: bool(decisions))

    assert "plan:known" not in decisions[0].trail


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses", "/api/generate"])
async def test_every_form_of_reply_is_made_for_each_ask(house: House, path: str) -> None:
    """Ids that no other reply may have are new."""
    body: dict[str, Any] = {"model": MODEL, "stream": False}
    body |= {"prompt": "why?"} if path == "/api/generate" else {}
    body |= {"input": "why?"} if path == "/v1/responses" else {}
    body |= {"messages": ASK["messages"], "max_tokens": 50} if path.startswith(("/v1/c", "/v1/m")) else {}
    wire = await connect(house.port)
    await taught(house, wire, ask(body, path))
    decisions = heard(house)
    ids = []
    for _ in range(3):
        await wire.send(ask(body, path))
        ids.append((await wire.response()).json().get("id"))
    wire.close()
    house.app.lane.flush()
    unique = path in ("/v1/messages", "/v1/responses")

    assert [decision.trail for decision in decisions] == [SOUGHT] * 3 if unique else [SOUGHT, SAME, SAME]
    assert len(set(ids)) == 3 or not unique


async def test_a_hit_is_repeated_only_while_redis_says_the_same_of_it(house: House, wire: Wire) -> None:
    """Whatever has become another there is read anew, and then repeated."""
    decisions = heard(house)
    first = await repeated(house, wire)
    (key,) = house.redis.call("KEYS", "cacheproxy:answer:*")
    answer = house.redis.call("HGET", key, "answer")
    house.redis.call("HSET", key, "answer", answer.replace(b'"text":"', b'"text":"Another. ', 1))
    other = [await said_again(wire) for _ in range(2)]
    house.redis.call("HSET", key, "expires", "1")
    await wire.send(ask())
    anew = await wire.response()
    await house.settled()
    house.app.lane.flush()

    assert [text.removeprefix("Another. ") for text in other] == [first, first]
    assert other[0].startswith("Another. ")
    assert anew.header("X-Cache") == "MISS"
    again = "plan:known exact:other memory:no exact"
    expired = f"{again}:expired near:mode-off upstream:200"
    assert Counter(decision.trail for decision in decisions) == {SOUGHT: 1, f"{again}:hit": 1, SAME: 1, expired: 1}


async def test_a_search_that_finds_its_last_hit_outdated_leaves_a_newer_one(
    house: House, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two searches for one plan may wait for Redis at once, and the other may have kept what it found."""
    await repeated(house, wire)
    known = plans_of(house)
    (planned,) = known._planned.values()
    assert planned.last is not None
    newer = replace(planned.last)

    async def other(*_given: Any) -> bool:
        planned.last = newer
        return False

    monkeypatch.setattr(LookUp, "holds", other)
    await said_again(wire)

    assert planned.last is newer
    assert known.size_bytes == planned.size_bytes


async def test_what_is_repeated_grows_old_and_ends_with_its_entry(
    fake_ollama: FakeOllama, clean_redis: RedisServer
) -> None:
    """By our clock, also where Redis keeps it longer for the time that Ollama is away."""
    clock = FakeClock()
    cache = {"memory": "0B", "ttl": 60, "ttl_jitter": 0, "stale_if_error": 3600}
    async with open_house(fake_ollama, clean_redis, clock=clock, cache=cache, upstream={"digest_ttl": 86400}) as house:
        wire = await connect(house.port)
        await taught(house, wire)
        await repeated(house, wire)
        decisions, ages = heard(house), []
        for _ in range(3):
            clock.advance(20)
            await wire.send(ask())
            reply = await wire.response()
            ages.append((reply.header("X-Cache"), reply.header("Age")))
        await until(lambda: any(decision.outcome == "miss" for decision in decisions))
        wire.close()

    assert ages == [("EXACT", "20"), ("EXACT", "40"), ("MISS", None)]
    missed = next(decision.trail for decision in decisions if decision.outcome == "miss")
    assert missed.startswith("plan:known exact:over memory:no exact:expired")


async def test_a_request_that_comes_before_the_task_waits_again_is_answered_without_it(
    house: House, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under load it does: the reply is out, and the task has not had its turn."""
    decisions, handle = heard(house), KnownConnection._handle_request

    async def handled(connection: KnownConnection, *given: Any) -> Any:
        replied = await handle(connection, *given)
        asyncio.get_running_loop().call_soon(connection.data_received, ask())
        return replied

    monkeypatch.setattr(KnownConnection, "_handle_request", handled)
    await wire.send(request("GET", "/api/version"))
    first, second = await wire.response(), await wire.response()
    monkeypatch.undo()
    last = await said_again(wire)
    house.app.lane.flush()

    assert first.json()["version"]
    assert second.json()["message"]["content"] == last
    assert [decision.trail for decision in decisions] == [SOUGHT, SAME]


async def test_what_memory_can_hold_is_not_repeated_from_redis_but_goes_there(
    fake_ollama: FakeOllama, clean_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if something was forgotten while it was read, and it was not put for that."""
    async with open_house(fake_ollama, clean_redis) as house:
        memory, get = house.app.memory, Exact.get
        wire = await connect(house.port)
        await wire.send(ask())
        await wire.response()
        await house.settled()
        memory.clear()
        await said_again(wire)  # its plan is known from here on
        memory.clear()

        async def overtaken(exact: Exact, plan: Plan) -> Stored:
            stored = await get(exact, plan)
            memory.forget_key("another")
            return stored

        monkeypatch.setattr(Exact, "get", overtaken)
        await said_again(wire)
        monkeypatch.undo()
        assert len(memory) == 0
        await said_again(wire)
        wire.close()

        assert len(memory) == 1


async def test_what_is_very_long_in_redis_is_not_repeated(
    house: House, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would push out the plans of many others."""
    known = plans_of(house)
    monkeypatch.setattr(plans, "BYTES_MAX", known.size_bytes + seek.LAST_BYTES)
    decisions = heard(house)
    for _ in range(2):
        await said_again(wire)

    assert [decision.trail for decision in decisions] == [SOUGHT, SOUGHT]
    assert [planned.last for planned in known._planned.values()] == [None]


async def test_where_memory_holds_answers_only_what_the_lane_cannot_keep_is_sought(
    fake_ollama: FakeOllama, clean_redis: RedisServer
) -> None:
    """The rest is the lane's, which needs no look-up."""
    async with open_house(fake_ollama, clean_redis) as house:
        wire = await connect(house.port)
        body = {"model": MODEL, "max_tokens": 50, "messages": ASK["messages"]}
        trails: Counter[str] = Counter()
        house.app.decisions.listeners.append(lambda decision, count: trails.update({decision.trail: count}))
        for data in (ask(), ask(body, "/v1/messages")):
            for _ in range(5):
                await wire.send(data)
                assert (await wire.response()).status == 200
                await house.settled()
        house.app.lane.flush()
        wire.close()

        assert trails["lane:hit"] == 2
        assert trails["plan:known memory:hit"] == 3


async def test_who_sends_the_next_ask_before_the_reply_gets_both_in_order(house: House, wire: Wire) -> None:
    """The search ends, and the server serves one after the other."""
    decisions = heard(house)
    house.redis.freeze()
    await wire.send(ask())
    await asyncio.sleep(0.02)
    await wire.send(request("GET", "/api/version"))
    await asyncio.sleep(0.02)
    house.redis.thaw()

    assert (await wire.response()).header("X-Cache") == "EXACT"
    assert "version" in (await wire.response()).json()
    assert [decision.trail for decision in decisions] == ["memory:no exact:hit"]


@pytest.mark.parametrize(
    ("asked_before", "begins"), [(2, "plan:known memory:no exact:away"), (3, "plan:known exact:away")]
)
async def test_a_frozen_redis_costs_one_deadline_and_is_asked_once(
    fake_ollama: FakeOllama, clean_redis: RedisServer, asked_before: int, begins: str
) -> None:
    """The long way goes on with what the search has found out: nothing. Also where a hit would have been repeated."""
    async with open_house(fake_ollama, clean_redis, cache={"memory": "0B"}, redis={"timeout": 0.3}) as house:
        wire = await connect(house.port)
        await taught(house, wire)
        for _ in range(asked_before - 2):
            await repeated(house, wire)
        decisions, failed = heard(house), house.app.connection.statistics().failed
        clean_redis.freeze()
        try:
            await wire.send(ask())
            reply = await wire.response()
            failures = house.app.connection.statistics().failed - failed
        finally:
            clean_redis.thaw()
        await until(lambda: bool(decisions))
        wire.close()

        assert reply.header("X-Cache") == "MISS"
        assert decisions[0].trail.startswith(begins)
        assert decisions[0].trail.count("exact:") == 1
        assert decisions[0].seconds >= 0.3
        assert decisions[0].timings_s["exact"] >= 0.3
        assert failures <= 2  # the heartbeat may have been under way
        assert (await house.stats())["faults"]["redis_unavailable"] == 1


async def test_an_expired_answer_is_asked_for_anew_or_is_stale_where_ollama_is_away(
    fake_ollama: FakeOllama, clean_redis: RedisServer
) -> None:
    """What the search found is what the long way goes on with."""
    clock = FakeClock()
    lifetimes = {"memory": "0B", "ttl": 60, "ttl_jitter": 0, "stale_if_error": 3600}
    async with open_house(
        fake_ollama, clean_redis, clock=clock, cache=lifetimes, upstream={"digest_ttl": 86400}
    ) as house:
        wire = await connect(house.port)
        await taught(house, wire)
        decisions = heard(house)
        clock.advance(61)
        fake_ollama.always(Fault(close_before_answer=True))
        await wire.send(ask())
        reply = await wire.response()
        await until(lambda: bool(decisions))
        wire.close()

        assert reply.header("X-Cache") == "STALE"
        assert decisions[0].trail.startswith("plan:known memory:no exact:expired")
        assert decisions[0].trail.count("exact:") == 1


async def test_a_purge_a_new_model_and_another_secret_end_a_plan(house: House, wire: Wire) -> None:
    """None of them may be answered by what was."""
    decisions = heard(house)
    assert (await house.admin("DELETE", "/entries?all=true")).status == 200
    await wire.send(ask())
    assert (await wire.response()).header("X-Cache") == "MISS"
    await house.settled()
    house.ollama.set_digest(MODEL)
    await house.app.models.refresh()
    await wire.send(ask())
    assert (await wire.response()).header("X-Cache") == "MISS"
    await house.settled()
    await taught(house, wire)
    house.app.connection._secret = b"x" * 32
    await wire.send(ask())
    assert (await wire.response()).header("X-Cache") == "MISS"
    await until(lambda: len(decisions) == 5)

    assert [decision.trail.split()[0] for decision in decisions] == [
        "plan:known", "memory:no", "memory:no", "plan:known", "memory:no"
    ]  # fmt: skip


async def test_while_an_equal_ask_is_under_way_nothing_is_sought(house: House, wire: Wire) -> None:
    """The long way knows how to wait for it."""
    house.ollama.next(Fault(stall_after_tokens=1))
    anew = asyncio.create_task(house.ask("POST", "/api/chat", ASK, headers=[("Cache-Control", "no-cache")]))
    await house.ollama.wait_until(lambda: house.ollama.stalled == 1)
    decisions = heard(house)
    await wire.send(ask())
    assert (await wire.response()).status == 200
    await until(lambda: bool(decisions))

    assert decisions[0].trail == "memory:no exact:hit"
    house.ollama.release()
    assert (await anew).status == 200


async def test_a_caller_who_leaves_while_it_is_sought_leaves_nothing_behind(house: House, wire: Wire) -> None:
    """The search ends with the connection, and nothing is counted as answered."""
    decisions = heard(house)
    tasks = len(asyncio.all_tasks())
    house.redis.freeze()
    await wire.send(ask())
    await asyncio.sleep(0.02)
    assert len(asyncio.all_tasks()) == tasks + 1
    wire.close()
    await until(lambda: len(asyncio.all_tasks()) < tasks)
    house.redis.thaw()

    assert decisions == []
    assert (await house.chat("what?")).header("X-Cache") == "MISS"  # no reply is taken for another's


async def test_a_proxy_that_stops_answers_what_it_seeks(house: House, wire: Wire) -> None:
    """It is drained like any other request, and the caller told to leave."""
    house.redis.freeze()
    await wire.send(ask())
    await asyncio.sleep(0.02)
    closing = asyncio.create_task(house.app._proxy.drain(5))
    await asyncio.sleep(0.02)
    house.redis.thaw()
    reply = await wire.response()
    await closing

    assert reply.header("X-Cache") == "EXACT"
    assert reply.header("Connection") == "close"


async def test_an_answer_too_long_for_one_go_is_sent_the_long_way_and_not_sought_again(
    house: House, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There it waits for a caller who takes it slowly. Its steps are told once, like any other's."""
    decisions, told = heard(house), reply_steps(house)
    for module in ("seek", "replay"):
        monkeypatch.setattr(f"cacheproxy.edge.{module}.BYTES_MAX", 100)
    for _ in range(3):
        await wire.send(ask())
        assert (await wire.response()).header("X-Cache") == "EXACT"
    await until(lambda: len(decisions) == 3)

    assert [decision.trail for decision in decisions] == [SOUGHT, "memory:no exact:hit", "memory:no exact:hit"]
    assert reply_steps(house) == told + 3
    assert len(plans_of(house)) == 0


async def test_what_the_search_found_is_kept_while_more_comes_on_the_connection(
    fake_ollama: FakeOllama, clean_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next request may come at any moment, also before the long way has begun in earnest."""
    async with open_house(fake_ollama, clean_redis, cache={"memory": "0B"}, redis={"timeout": 0.3}) as house:
        wire = await connect(house.port)
        await taught(house, wire)
        decisions = heard(house)

        async def overtaken(_models: Catalog) -> None:
            monkeypatch.undo()
            await wire.send(request("GET", "/api/version"))
            await asyncio.sleep(0.02)

        monkeypatch.setattr(Catalog, "wait_settled", overtaken)
        clean_redis.freeze()
        try:
            await wire.send(ask())
            assert (await wire.response()).header("X-Cache") == "MISS"
        finally:
            clean_redis.thaw()
        assert (await wire.response()).json()["version"]
        wire.close()

        assert decisions[0].trail.count("exact:away") == 1
        assert (await house.stats())["faults"]["redis_unavailable"] == 1


async def test_an_answer_that_lands_during_the_search_is_joined(
    house: House, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was told by Redis that there is none does not wait for it to be kept: there will be no second look."""
    other = await connect(house.port)
    assert (await house.admin("DELETE", "/entries?all=true")).status == 200
    landing, look, keep = asyncio.Event(), LookUp.look, Keeper.keep
    waiting = [landing.wait]

    async def late(*given: Any) -> Any:
        waits = waiting.pop() if waiting else None
        found = await look(*given)
        if waits is not None:
            await waits()
        return found

    async def slow(*given: Any) -> None:
        landing.set()
        await asyncio.sleep(0.005)
        await keep(*given)

    monkeypatch.setattr(LookUp, "look", late)
    monkeypatch.setattr(Keeper, "keep", slow)
    await wire.send(ask())
    await asyncio.sleep(0.02)
    await other.send(ask())
    replies = [await other.response(), await wire.response()]
    other.close()

    assert [reply.header("X-Cache") for reply in replies] == ["MISS", "JOINED"]
    assert house.calls() == 2  # the first was before the purge


async def test_a_search_that_is_ended_before_it_began_leaves_no_warning(
    house: House, wire: Wire, recwarn: pytest.WarningsRecorder
) -> None:
    """As when the connection is taken back in the very turn in which the request came."""
    (connection,) = (one for one in house.app._proxy._listener._ours() if one.idle)
    connection.data_received(ask())
    connection.release()
    reply = await wire.response()
    gc.collect()

    assert reply.header("X-Cache") == "EXACT"
    assert [str(warning.message) for warning in recwarn] == []


async def test_a_defect_in_the_search_costs_no_request_its_reply(
    house: House, wire: Wire, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The long way is there, and the log says why it was taken."""
    rendered, calls = Form.hit, []

    def fail_once(*given: Any) -> Fixed:
        calls.append(given)
        if len(calls) == 1:
            raise ZeroDivisionError
        return rendered(*given)

    monkeypatch.setattr(Form, "hit", fail_once)
    await wire.send(ask())
    reply = await wire.response()

    assert reply.header("X-Cache") == "EXACT"
    assert len(calls) == 2
    assert "a search for an answer failed" in caplog.text
    assert (await house.stats())["faults"]["internal"] == 1


async def test_plans_take_bounded_room_and_the_oldest_go(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently used ones."""
    monkeypatch.setattr(plans, "BYTES_MAX", 16 * plans.OVERHEAD_BYTES)
    wire = await connect(house.port)
    known = plans_of(house)
    for number in range(20):
        body = ASK | {"messages": [{"role": "user", "content": f"why {number}?"}]}
        await taught(house, wire, ask(body))
        for _ in range(number % 2):  # every other one with a hit to be repeated
            await wire.send(ask(body))
            await wire.response()
        assert known.size_bytes <= plans.BYTES_MAX
        assert known.size_bytes == sum(planned.size_bytes for planned in known._planned.values())
    wire.close()

    assert 0 < len(known) < 16
    for planned in list(known._planned.values()):
        if planned.last is not None:
            known.drop_last(planned, planned.last)
    assert known.size_bytes == sum(planned.size_bytes for planned in known._planned.values())
    assert max(planned.size_bytes for planned in known._planned.values()) < 2 * plans.OVERHEAD_BYTES
