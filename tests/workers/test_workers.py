"""Several processes on one port are one proxy: what a caller, an operator and Ollama see does not depend on which."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cacheproxy.app import App
from cacheproxy.config import Config
from cacheproxy.errors import ConfigError
from cacheproxy.workers import fronts as module
from cacheproxy.workers.messages import Report
from tests.fakes import wire
from tests.fakes.house import MODEL, House, open_house, until
from tests.fakes.ollama import FakeOllama, Fault
from tests.fakes.process import Process, serving
from tests.fakes.redis_server import RedisServer, running_redis
from tests.fakes.wire import Response, Wire
from tests.faults.load import Load

CALLERS = 24
"""Connections. The system deals them out by chance: none of them at one of two workers is one run in eight million."""
UP_S = 60.0


@asynccontextmanager
async def workers(
    ollama: FakeOllama, server: RedisServer | None, count: int = 2, **sections: Any
) -> AsyncIterator[House]:
    """A house of so many processes, all of which listen."""
    sections["server"] = {"workers": count} | sections.get("server", {})
    async with open_house(ollama, server, **sections) as house:
        async with asyncio.timeout(UP_S):
            await house.app.fronts.wait_up()
        yield house


@asynccontextmanager
async def callers(port: int, count: int = CALLERS) -> AsyncIterator[list[Wire]]:
    """Connections that stay open, at every worker."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(await wire.connect(port)) for _ in range(count)]


def chat(question: str = "why?", *, headers: Any = (), **members: Any) -> bytes:
    """The bytes of one chat turn."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": question}], "stream": False} | members
    return wire.request("POST", "/api/chat", body, headers=headers)


async def exchange(caller: Wire, request: bytes, *, method: str = "POST") -> Response:
    """One request on a connection that stays open."""
    await caller.send(request)
    return await caller.response(method=method)


async def outcomes(house: House, asks: int) -> dict[str, int]:
    """What `/stats` counts, once it is as many as were asked."""
    async with asyncio.timeout(10):
        while (stats := await house.stats())["asks"] < asks:  # noqa: ASYNC110 - counts that arrive have no event
            await asyncio.sleep(0.02)
    assert stats["asks"] == asks
    return {name: count for name, count in stats["outcomes"].items() if count}


@pytest.mark.parametrize("count", [2, 3])
async def test_each_worker_gives_the_answer_and_each_ask_is_counted_once(
    fake_ollama: FakeOllama, clean_redis: RedisServer, count: int
) -> None:
    """One call to Ollama serves all of them, whole and streamed; the counts of all are one set."""
    async with workers(fake_ollama, clean_redis, count) as house, callers(house.port) as connections:
        first = await exchange(connections[0], chat())
        await house.settled()
        for stream in (False, True):
            for caller in connections:
                reply = await exchange(caller, chat(stream=stream))
                assert reply.header("X-Cache") == "EXACT"
                text = "".join(line["message"]["content"] for line in reply.lines())
                assert text == first.json()["message"]["content"]

        assert await outcomes(house, 1 + 2 * CALLERS) == {"exact": 2 * CALLERS, "miss": 1}
        stats = await house.stats()
        assert [front["state"] for front in stats["workers"]] == ["up"] * (count - 1)
        assert all(front["answered"] for front in stats["workers"])
        assert sum(front["answered"] for front in stats["workers"]) < 2 * CALLERS
        assert stats["latency"]["steps"]["reply"]["count"] > count
        assert stats["latency"]["first_bytes"]["exact"] == stats["latency"]["outcomes"]["exact"]
        assert stats["models"][f"{MODEL}:latest"]["outcomes"]["exact"] == 2 * CALLERS
        assert house.calls() == 1


@pytest.mark.parametrize("section", [{"tuning": {"profile": "balanced"}}, {"context": {"budget": 0.5}}])
async def test_where_loaded_models_shape_a_key_all_workers_give_one_answer(
    fake_ollama: FakeOllama, clean_redis: RedisServer, section: dict[str, Any]
) -> None:
    """With several Ollamas only the main process knows what is loaded where; the others leave such asks to it."""
    other = FakeOllama()
    await other.open()
    said = [{"role": "user", "content": "long " * 1000}, {"role": "assistant", "content": "a"}]
    ask = chat(messages=[*said, {"role": "user", "content": "why?"}])
    try:
        sections = section | {"upstream": {"others": [other.url]}}
        async with workers(fake_ollama, clean_redis, **sections) as house, callers(house.port) as connections:
            before = await exchange(connections[0], ask)  # nothing is loaded yet
            await house.settled()
            await exchange(connections[0], chat("load it", options={"num_ctx": 2048}))
            await until(lambda: {model.context_length for model in house.app.fleet.loaded_models} == {2048})
            after = await exchange(connections[0], ask)
            await house.settled()
            replies = [await exchange(caller, ask) for caller in connections]

        assert (before.header("X-Cache"), after.header("X-Cache")) == ("MISS", "MISS")
        assert {reply.header("X-Cache") for reply in replies} == {"EXACT"}
        assert len({reply.header("X-Cache-Entry") for reply in replies}) == 1
    finally:
        await other.close()


async def test_after_a_purge_no_worker_has_the_answer(fake_ollama: FakeOllama, clean_redis: RedisServer) -> None:
    """Not one of those that held a copy gives it to anybody who asks after the purge was confirmed."""
    async with workers(fake_ollama, clean_redis, 3) as house, callers(house.port) as connections:
        await exchange(connections[0], chat())
        await house.settled()
        for _ in range(3):
            assert {(await exchange(caller, chat())).header("X-Cache") for caller in connections} == {"EXACT"}
            asks = [chat(headers=[("Cache-Control", "only-if-cached")])] * CALLERS
            assert (await house.admin("DELETE", "/entries?all=true")).json() == {"deleted": 1}
            replies = await asyncio.gather(*map(exchange, connections, asks))
            assert [reply.status for reply in replies] == [504] * CALLERS
            await exchange(connections[0], chat())
            await house.settled()


async def test_after_a_model_was_deleted_no_worker_answers_for_it(
    fake_ollama: FakeOllama, clean_redis: RedisServer
) -> None:
    """The reply to the deletion comes after the last hit."""
    async with workers(fake_ollama, clean_redis) as house, callers(house.port) as connections:
        await exchange(connections[0], chat())
        await house.settled()
        assert {(await exchange(caller, chat())).header("X-Cache") for caller in connections} == {"EXACT"}
        deleted = await exchange(connections[1], wire.request("DELETE", "/api/delete", {"model": MODEL}))
        replies = await asyncio.gather(*(exchange(caller, chat()) for caller in connections))

        assert deleted.status == 200
        assert [reply.status for reply in replies] == [404] * CALLERS


async def test_a_fresh_answer_takes_the_place_of_every_copy(fake_ollama: FakeOllama, clean_redis: RedisServer) -> None:
    """Who asks past the cache renews the answer for the callers of all workers."""
    async with workers(fake_ollama, clean_redis) as house, callers(house.port) as connections:
        for text in ("the first", "the second"):
            fake_ollama.next(Fault(text=text))
            await exchange(connections[0], chat(headers=[("Cache-Control", "no-cache")]))
            await house.settled()
            await asyncio.sleep(0.05)
            told = {(await exchange(caller, chat())).json()["message"]["content"] for caller in connections}
            assert told == {text}


async def test_equal_misses_at_different_workers_are_one_call(
    fake_ollama: FakeOllama, clean_redis: RedisServer
) -> None:
    """Flights are where they always were: in the one process that asks Ollama."""
    async with workers(fake_ollama, clean_redis) as house, callers(house.port) as connections:
        fake_ollama.next(Fault(stall_after_tokens=1))
        asks = [asyncio.create_task(exchange(caller, chat())) for caller in connections]
        await fake_ollama.wait_until(lambda: fake_ollama.stalled == 1)
        await until(lambda: house.app.cached.calls.in_flight == CALLERS)
        fake_ollama.release()
        replies = await asyncio.gather(*asks)

        assert house.calls() == 1
        assert len({reply.body for reply in replies}) == 1
        assert await outcomes(house, CALLERS) == {"joined": CALLERS - 1, "miss": 1}


async def test_a_miss_is_passed_on_live_by_every_worker(fake_ollama: FakeOllama, clean_redis: RedisServer) -> None:
    """What Ollama has said so far is there while it goes on thinking."""
    fake_ollama.scheduler.parallel = CALLERS
    fake_ollama.always(Fault(stall_after_tokens=2))
    async with workers(fake_ollama, clean_redis) as house, callers(house.port) as connections:
        for number, caller in enumerate(connections):
            await caller.send(chat(f"question {number}?", stream=True))
        await fake_ollama.wait_until(lambda: fake_ollama.stalled == CALLERS)
        replies = [await caller.head() for caller in connections]
        for caller, reply in zip(connections, replies, strict=True):
            await caller.chunk(reply)
        fake_ollama.calm()
        for caller, reply in zip(connections, replies, strict=True):
            while await caller.chunk(reply):
                pass

    assert all(reply.lines()[-1]["done"] for reply in replies)


async def test_a_caller_who_leaves_ends_its_call_at_every_worker(
    fake_ollama: FakeOllama, clean_redis: RedisServer
) -> None:
    """Ollama does not work on for nobody."""
    fake_ollama.scheduler.parallel = CALLERS
    fake_ollama.always(Fault(stall_after_tokens=2))
    async with workers(fake_ollama, clean_redis) as house:
        async with callers(house.port) as connections:
            for number, caller in enumerate(connections):
                await caller.send(chat(f"question {number}?", stream=True))
            await fake_ollama.wait_until(lambda: fake_ollama.stalled == CALLERS)
        await fake_ollama.wait_until(lambda: fake_ollama.concurrency == 0)


async def test_a_page_is_told_the_same_by_every_worker(fake_ollama: FakeOllama, clean_redis: RedisServer) -> None:
    """The headers for browsers are there once, on hits and on what is relayed; foreign pages are refused."""
    origin, page = "http://localhost:3000", ("Host", "127.0.0.1:11435")
    async with workers(fake_ollama, clean_redis) as house, callers(house.port) as connections:
        await exchange(connections[0], chat())
        await house.settled()
        for caller in connections:
            hit = await exchange(caller, chat(headers=[("Origin", origin)]))
            listed = await exchange(
                caller, wire.request("GET", "/api/tags", headers=[page, ("Origin", origin)], host=None), method="GET"
            )
            refused = await exchange(caller, chat(headers=[("Origin", "http://evil.example")]))
            told = [reply.header("Access-Control-Allow-Origin") for reply in (hit, listed, refused)]
            assert (told, hit.header("X-Cache"), refused.status) == ([origin, origin, None], "EXACT", 403)


async def test_what_callers_ask_of_a_model_is_known_from_every_worker(
    fake_ollama: FakeOllama, clean_redis: RedisServer
) -> None:
    """A time that somebody wants a model to stay is not prolonged, also if the ask itself was a hit at a front."""
    async with workers(fake_ollama, clean_redis) as house, callers(house.port, 12) as connections:
        await exchange(connections[0], chat())
        await house.settled()
        loaded, digest = house.app.fleet.members[0].loaded, fake_ollama.digest(MODEL)
        for caller in connections:
            loaded.take(loaded.models, {})
            await house.app.fronts.publish()
            assert (await exchange(caller, chat(keep_alive="7m"))).header("X-Cache") == "EXACT"
            await until(lambda: loaded.wish(digest).keep_alive)


async def test_a_worker_that_is_killed_is_replaced(fake_ollama: FakeOllama, clean_redis: RedisServer) -> None:
    """The others go on meanwhile; only what it was doing is lost, and readiness says that one is missing."""
    async with workers(fake_ollama, clean_redis, 3) as house:
        await house.chat()
        await house.settled()
        dead = house.app.fronts.states[0].pid
        assert dead is not None
        os.kill(dead, signal.SIGKILL)
        await until(lambda: house.app.fronts.up == 1)
        ready = (await house.admin("GET", "/readyz")).json()
        async with callers(house.port) as connections:
            assert {(await exchange(caller, chat())).header("X-Cache") for caller in connections} == {"EXACT"}
        await until(lambda: house.app.fronts.up == 2, UP_S)
        state = house.app.fronts.states[0]

        assert (ready["ready"], ready["degraded"]) == (True, ["workers"])
        assert state.pid not in (None, dead)
        assert state.restarts == 1
        assert (await house.admin("GET", "/readyz")).json()["degraded"] == []


async def test_a_worker_that_a_defect_took_away_is_replaced(
    fake_ollama: FakeOllama, clean_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One of its reports cannot be read, say: the place does not stay empty, and the log says why."""

    def unreadable(_line: bytes) -> Report:
        raise KeyError

    async with workers(fake_ollama, clean_redis) as house:
        before = house.app.fronts.states[0].pid
        with monkeypatch.context() as patch:
            patch.setattr(module, "read_report", unreadable)
            await until(lambda: house.app.fronts.up == 0)
        await until(lambda: house.app.fronts.up == 1, UP_S)

        assert house.app.fronts.states[0].pid not in (None, before)
        assert (await house.admin("GET", "/readyz")).json()["degraded"] == []
    assert any(record.exc_info and record.exc_info[0] is KeyError for record in caplog.records)


async def test_what_cannot_be_counted_costs_no_worker(
    fake_ollama: FakeOllama, clean_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor the time in which it would be waited for, and it is said once."""
    told: list[Report] = []

    def fail(report: Report) -> None:
        told.append(report)
        raise KeyError

    async with workers(fake_ollama, clean_redis) as house:
        monkeypatch.setattr(house.app.fronts, "_told", fail)
        async with asyncio.timeout(module.DONE_S_MAX / 2):
            await house.app.fronts.clear()
        await until(lambda: len(told) > 1)

        assert (house.app.fronts.up, house.app.fronts.states[0].restarts) == (1, 0)
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [KeyError]


async def test_a_worker_that_hangs_is_not_waited_for(fake_ollama: FakeOllama, clean_redis: RedisServer) -> None:
    """A purge that it does not confirm ends it, since a copy that it holds may still be served when it wakes."""
    async with workers(fake_ollama, clean_redis) as house:
        hung = house.app.fronts.states[0].pid
        assert hung is not None
        os.kill(hung, signal.SIGSTOP)
        purged = await house.admin("DELETE", "/entries?all=true")

        assert purged.status == 200
        assert not alive(hung)


def alive(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.fault(1)
async def test_redis_killed_under_load_of_several_workers(fake_ollama: FakeOllama, tmp_path: Path) -> None:
    """Nobody gets another's answer or none, and hits come back."""
    with running_redis(tmp_path) as redis:
        async with workers(fake_ollama, redis, redis={"timeout": "50ms"}) as house, Load(house) as load:
            await load.until_replies(300)
            redis.kill()
            await load.until_replies(200)
            await asyncio.to_thread(redis.start)
            await until(lambda: house.app.connection.state == "up", 20)
            before = load.outcomes["EXACT"]
            await until(lambda: load.outcomes["EXACT"] > before + 50, 30)

    assert load.wrong == []


async def process_of(pids: list[int]) -> None:
    """Wait until none of them runs."""
    await until(lambda: not any(map(alive, pids)), 20)


async def fronts(process: Process) -> list[int]:
    """The process ids of its fronts, once they listen."""
    async with asyncio.timeout(UP_S):
        while True:
            states = (await wire.ask(process.admin_port, "GET", "/stats")).json()["workers"]
            if all(front["state"] == "up" for front in states):
                return [front["pid"] for front in states]
            await asyncio.sleep(0.05)


async def test_when_the_main_process_is_killed_no_worker_is_left(fake_ollama: FakeOllama, tmp_path: Path) -> None:
    """The port is free for the next one."""
    async with serving(fake_ollama.url, tmp_path, CACHEPROXY_SERVER__WORKERS="3") as process:
        pids = await fronts(process)
        process.child.kill()
        await process.wait()
        await process_of(pids)
        await until(lambda: is_free(process.port))  # the last thread of a process that has ended gives it back

    assert len(pids) == 2


def is_free(port: int) -> bool:
    """Whether nobody listens there."""
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False


async def test_all_workers_finish_what_is_under_way(fake_ollama: FakeOllama, tmp_path: Path) -> None:
    """Streams in flight everywhere, then SIGTERM to the whole group: all end whole, and all processes end."""
    fake_ollama.scheduler.parallel = CALLERS
    settings = {"CACHEPROXY_UPSTREAM__PARALLEL": str(CALLERS), "CACHEPROXY_SERVER__WORKERS": "2"}
    async with serving(fake_ollama.url, tmp_path, **settings) as process:
        pids = await fronts(process)
        fake_ollama.always(Fault(stall_after_tokens=2))
        async with callers(process.port) as connections:
            asks = [
                asyncio.create_task(exchange(caller, chat(f"question {number}?", stream=True)))
                for number, caller in enumerate(connections)
            ]
            await fake_ollama.wait_until(lambda: fake_ollama.stalled == CALLERS)
            for pid in pids:
                os.kill(pid, signal.SIGTERM)
            process.signal(signal.SIGTERM)
            await asyncio.sleep(0.2)
            fake_ollama.calm()
            replies = await asyncio.gather(*asks)

        assert all(reply.complete and reply.lines()[-1]["done"] for reply in replies)
        assert await process.wait() == 0
        assert not any(map(alive, pids))


async def test_a_port_that_is_taken_is_not_shared_with_a_stranger(fake_ollama: FakeOllama) -> None:
    """Another proxy on the port would get every other caller, and nobody would know why."""
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        tree = {
            "server": {"listen": f"127.0.0.1:{stranger.getsockname()[1]}", "workers": 2},
            "admin": {"listen": "127.0.0.1:0"},
            "upstream": {"url": fake_ollama.url},
            "redis": {"url": "redis://127.0.0.1:1"},
            "semantic": {"mode": "off"},
        }
        app = App(Config.model_validate(tree))
        with pytest.raises(ConfigError, match="is another cacheproxy running there"):
            await app.open()
