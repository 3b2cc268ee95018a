"""Who listens to the operator's port hears of each ask, is bounded in number and patience, and is let go cleanly."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field

import aiohttp
import pytest

from cacheproxy.edge import live as module
from cacheproxy.model import Decision, Outcome
from tests.fakes.house import open_house, until

DECISION = Decision(Outcome.EXACT, "chat", 1.0, 0.001, model="m:latest")


@dataclass
class Heard:
    """What one listener got."""

    events: list[tuple[str, dict]] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    ended: bool = False

    def of(self, name):
        """The bodies of one kind of event."""
        return [body for event, body in self.events if event == name]


async def listen(house, heard):
    """Read events until the stream ends."""
    async with aiohttp.ClientSession() as client, client.get(f"{house.app.admin_url}/events") as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        async for block in blocks(response.content):
            lines = dict(line.split(": ", 1) for line in block.splitlines())
            if "event" in lines:
                heard.events.append((lines["event"], json.loads(lines["data"])))
                heard.ids.append(int(lines["id"]))
            else:
                assert lines == {"retry": "2000"}
        heard.ended = True


async def blocks(content):
    """What stands between two empty lines."""
    text = ""
    async for piece in content.iter_any():
        text += piece.decode()
        *whole, text = text.split("\n\n")
        for block in whole:
            yield block
    assert text == ""


@contextlib.asynccontextmanager
async def listening(house, count=1):
    """So many listeners; all are gone at the end."""
    heard = [Heard() for _ in range(count)]
    tasks = [asyncio.create_task(listen(house, one)) for one in heard]
    try:
        await until(lambda: all(one.of("stats") for one in heard))
        yield heard
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_each_listener_hears_of_each_ask_and_of_the_counts(house):
    """As `/asks` and `/stats` have them, with ids that go up."""
    async with listening(house, 2) as heard:
        await house.chat("why?", stream=False)
        await house.settled()
        await house.chat("why?", stream=False)
        await until(lambda: all(len(one.of("ask")) == 2 for one in heard))
        await until(lambda: all(one.of("stats")[-1]["stats"]["asks"] == 2 for one in heard))

        for one in heard:
            assert [ask["outcome"] for ask in one.of("ask")] == ["miss", "exact"]
            assert sum(sum(body["per_s"].values()) for body in one.of("stats")) == 2
            assert one.ids == sorted(set(one.ids))
            assert one.of("stats")[-1]["stats"]["parts"]["redis"]["state"] == "ok"


async def test_a_flood_of_asks_is_sampled_and_the_rest_is_a_number(house):
    """At most fifty a second; nobody is left to guess how many more there were."""
    async with listening(house) as (one,):
        before = len(one.of("stats"))
        for _ in range(400):
            house.app.live.decided(DECISION)
        house.app.live.decided(DECISION, 100)
        await until(lambda: len(one.of("stats")) >= before + 2)
        asks = one.of("ask")

        singles = [ask for ask in asks if "outcome" in ask]
        assert len(singles) <= module.ASKS_A_SECOND
        assert sum(ask["count"] for ask in singles) + sum(ask.get("left_out", 0) for ask in asks) == 500
        assert sum(body["per_s"]["exact"] for body in one.of("stats")) == 500


async def test_nothing_is_gathered_while_nobody_listens(house):
    """Not for one ask, and the ticker is gone after the last listener."""
    house.app.live.decided(DECISION)
    assert house.app.live._asks == []
    async with listening(house):
        assert house.app.live._ticker is not None
    await until(lambda: house.app.live._ticker is None)
    house.app.live.decided(DECISION)

    assert (house.app.live._asks, house.app.live._listeners) == ([], set())
    async with listening(house):
        pass


async def test_listeners_are_bounded(house, monkeypatch):
    """One too many is told to come back; a place that gets free is given again."""
    monkeypatch.setattr(module, "LISTENERS_MAX", 2)
    async with listening(house, 2):
        answer = await house.admin("GET", "/events")
        assert answer.status == 503
        assert "2 listen already" in answer.json()["error"]
    await until(lambda: not house.app.live._listeners)
    async with listening(house):
        pass


async def test_the_stream_ends_as_streams_end_when_the_proxy_stops(house):
    """The client sees an end, no broken connection, and stopping does not take long."""
    async with listening(house, 3) as heard:
        async with asyncio.timeout(3):
            await house.app.close()
        await until(lambda: all(one.ended for one in heard))


async def test_a_listener_that_reads_nothing_is_let_go_and_harms_nobody(house, monkeypatch):
    """What waits for it is bounded; its connection is cut, others hear on."""
    monkeypatch.setattr(module, "TICKS_A_SECOND", 100)
    reader, writer = await asyncio.open_connection("127.0.0.1", house.admin_port, limit=1)
    writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await until(lambda: len(house.app.live._listeners) == 1)
    (deaf,) = house.app.live._listeners
    frame = b"x" * 1_000_000
    try:
        async with listening(house) as (one,):
            for _ in range(100):
                if deaf not in house.app.live._listeners:
                    break
                house.app.live._hand(deaf, frame)
                await asyncio.sleep(0)
            await until(deaf.done.is_set)
            count = len(one.of("stats"))
            await until(lambda: len(one.of("stats")) > count)
    finally:
        writer.transport.abort()
        del reader


async def test_head_is_the_head_of_the_stream_without_the_stream(house):
    """And takes no listener's place."""
    answer = await house.admin("HEAD", "/events")

    assert answer.status == 200
    assert not house.app.live._listeners


async def test_a_defect_in_the_figures_does_not_end_the_stream(house, caplog):
    """The asks go on."""
    async with listening(house) as (one,):

        async def fail():
            raise ZeroDivisionError("a defect")

        house.app.live._stats = fail
        await house.chat("why?", stream=False)
        await until(lambda: one.of("ask"))
        await until(lambda: "no stats for those who listen" in caplog.text)


@pytest.mark.parametrize("token", ["", "wrong"])
async def test_the_stream_is_behind_the_token(fake_ollama, clean_redis, token):
    """As every page but health."""
    async with open_house(fake_ollama, clean_redis, admin={"token": "right"}) as house:
        headers = [("Authorization", f"Bearer {token}")] if token else []
        assert (await house.admin("GET", "/events", headers=headers)).status == 401
