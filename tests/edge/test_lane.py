"""The repeat lane gives the replies and the counts that there would be without it, and only faster."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cacheproxy.edge import connection as edge_connection
from cacheproxy.edge import lane, outbox
from cacheproxy.flow import coalesce
from cacheproxy.model import Decision
from cacheproxy.store import contact
from tests.fakes.clock import FakeClock
from tests.fakes.house import MODEL, House, open_house, until
from tests.fakes.ollama import FakeOllama, Fault
from tests.fakes.redis_server import RedisServer
from tests.fakes.wire import Response, Wire, chunked, connect, request

ASK = {"model": MODEL, "messages": [{"role": "user", "content": "why?"}]}
WHOLE = ASK | {"stream": False}


def ask(body: Any = WHOLE, path: str = "/api/chat", **headers: str) -> bytes:
    """The bytes of one ask; in names of headers `_` stands for `-`."""
    return request("POST", path, body, headers=[(name.replace("_", "-"), value) for name, value in headers.items()])


def heard(house: House) -> Counter[str]:
    """Asks by the trail they will have left, from now on."""
    trails: Counter[str] = Counter()

    def hear(decision: Decision, count: int) -> None:
        trails[decision.trail] += count

    house.app.decisions.listeners.append(hear)
    return trails


async def taught(house: House, wire: Wire, data: bytes) -> None:
    """Send a request until the lane knows it."""
    for _ in range(3):
        await wire.send(data)
        assert (await wire.response()).status == 200
        await house.settled()
    assert data in house.app.lane._records


def told(response: Response) -> tuple[int, list[tuple[str, str]], bytes, list[int]]:
    """What a reply says, without what differs from one moment, or one run of the model, to the next."""
    assert response.complete
    headers = [(name, "" if name == "Content-Length" else value) for name, value in response.headers if name != "Date"]
    body = re.sub(rb'"(created_at|created|id|\w*_duration)":("[^"]*"|[0-9]+)', b"", response.body)
    return response.status, headers, body, [len(chunk.data) > 0 for chunk in response.chunks]


def told_any_time(response: Response) -> tuple[int, list[tuple[str, str]], bytes, list[int]]:
    """The same without the age, for two replies between which the clock may go on by a second."""
    status, headers, body, pieces = told(response)
    return status, [(name, re.sub(r"ttl=-?\d+|^\d+$", "", value)) for name, value in headers], body, pieces


async def answer(wire: Wire, *pieces: bytes) -> Response:
    """The reply to a request in these pieces, each seen by the server by itself."""
    for piece in pieces:
        await wire.send(piece)
        await asyncio.sleep(0.001)
    return await wire.response()


# --- With the lane and without it ---

REQUESTS = [
    ask(),
    ask(),
    *(ask(X_Request_Id=number) for number in "123"),
    *(ask(WHOLE | {"keep_alive": f"{number}m"}) for number in (7, 8)),
    ask(dict(reversed(WHOLE.items()))),
    ask(WHOLE | {"options": {"temperature": 0.5}}),
    ask(WHOLE | {"options": {"temperature": 0.50, "seed": None}}),
    ask(b'{"model":"llama3.2","stream":false,"stream":false,"messages":[{"role":"user","content":"why?"}]}'),
    ask(ASK),
    ask({"model": MODEL, "prompt": "why?", "stream": False}, "/api/generate"),
    ask(ASK | {"temperature": 0}, "/v1/chat/completions"),
    ask({"model": MODEL, "max_tokens": 50, "messages": ASK["messages"]}, "/v1/messages"),
    ask(Authorization="Bearer somebody"),
    ask(Origin="http://localhost:3000"),
    ask(Cache_Control="no-cache"),
    ask(Cache_Control="max-age=1"),
    ask(WHOLE | {"keep_alive": 0}),
    ask(WHOLE | {"model": "unheard-of"}),
    ask(Connection="close"),
    request("GET", "/api/version"),
    request("POST", "/api/chat", chunked(b'{"model":"llama3.2",'), headers=[("Transfer-Encoding", "chunked")]),
    request("POST", "/api/chat", WHOLE, version="1.0", headers=[("Connection", "keep-alive")]),
    b"POST /api/chat HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
]

ENDING = {number for number, data in enumerate(REQUESTS) if b": close" in data or b"HTTP/1.0" in data or b": x" in data}
"""Those after which the connection ends, at a moment of its own: the last of a batch, and the next takes a new one."""

SHORT = ("lane:hit", "plan:known memory:no exact:hit", "plan:known exact:same")
"""Trails of hits that aiohttp had no task for."""
EVENTS = ("", "purge", "copy", "new digest", "a second", "two seconds", "an hour")


@dataclass(frozen=True)
class Batch:
    """Requests sent one behind the other, cut into pieces at some places (shares of the whole, in 1/1000)."""

    connection: int
    requests: list[int]
    cuts: list[int] = field(default_factory=list)
    apart: bool = False
    """Each head in a piece of its own, as httpx and others send it."""
    event: str = ""
    """What happens before the last piece, when the requests sent by then have their replies."""
    crowded: bool = False
    """With each piece another caller's request comes, in the same turn of the event loop and before it."""

    def pieces(self) -> list[bytes]:
        """The bytes, cut."""
        data = b"".join(REQUESTS[number] for number in self.requests)
        at = {len(data) * cut // 1000 for cut in self.cuts}
        start = 0
        for number in self.requests if self.apart else []:
            at |= {start, start + REQUESTS[number].find(b"\r\n\r\n") + 4}
            start += len(REQUESTS[number])
        places = sorted(at - {0, len(data)})
        return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]

    def complete(self, pieces: list[bytes]) -> int:
        """How many requests these pieces complete."""
        sent, count = sum(map(len, pieces)), 0
        for number in self.requests:
            sent -= len(REQUESTS[number])
            count += sent >= 0
        return count


batches = st.builds(
    Batch,
    connection=st.integers(0, 1),
    requests=st.lists(st.sampled_from([0] * 8 + list(range(len(REQUESTS)))), min_size=1, max_size=3).map(
        lambda numbers: (
            [number for number in numbers if number not in ENDING]
            + [number for number in numbers if number in ENDING][:1]
        )
    ),
    cuts=st.one_of(st.just([]), st.lists(st.integers(1, 999), max_size=3)),
    apart=st.booleans(),
    event=st.sampled_from(("",) * 6 + EVENTS),
    crowded=st.booleans(),
)


BYSTANDER = ask({"model": MODEL, "messages": [{"role": "user", "content": "what else?"}], "stream": False})


class Client:
    """Two connections to one house, opened when needed and again when they were closed; and another caller's."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.wires: dict[int, Wire] = {}
        self.bystander: Wire | None = None

    async def take(self, number: int, count: int) -> list[Any]:
        """So many replies; `closed` in place of those that do not come."""
        replies: list[Any] = []
        for _ in range(count):
            try:
                reply = await self.wires[number].response()
            except (asyncio.IncompleteReadError, ConnectionError):
                replies.append("closed")
                self.wires.pop(number).close()
                break
            replies.append(told(reply))
            if reply.header("Connection") == "close":
                self.wires.pop(number).close()
                break
        await self.house.settled()
        return replies

    async def write(self, number: int, data: bytes, *, begins: bool, crowded: bool) -> list[Any]:
        """Send one piece, and let the server see it by itself, or with a request of the bystander's: the reply to that.

        `begins`: it is the first of a batch, for which there is a connection; later the server may have ended it, since
        it need not wait for the end of a head that is none.
        """
        if crowded and self.bystander is None:
            self.bystander = await connect(self.house.port)
        wire = self.wires.get(number)
        if begins and (wire is None or wire.reader.at_eof()):
            if wire is not None:
                wire.close()
            wire = self.wires[number] = await connect(self.house.port)
        if crowded and self.bystander is not None:
            self.bystander.writer.write(BYSTANDER)
        if wire is not None:
            with contextlib.suppress(ConnectionError):
                await wire.send(data)
                await asyncio.sleep(0.001)
        return [told(await self.bystander.response())] if crowded and self.bystander is not None else []

    def close(self) -> None:
        """Close what is open."""
        for wire in (*self.wires.values(), self.bystander):
            if wire is not None:
                wire.close()


@dataclass
class Pair:
    """Two houses that differ in the lane alone, before one Ollama, at one time."""

    houses: list[House]
    clock: FakeClock
    lane_answers: Counter[str]

    async def begin(self) -> None:
        """Nothing stored, nothing known."""
        for house in self.houses:
            assert (await house.admin("DELETE", "/entries?all=true")).status == 200
            await house.app.models.refresh()

    async def happen(self, event: str) -> None:
        """The same to both."""
        self.clock.advance({"a second": 1, "two seconds": 2, "an hour": 3600}.get(event, 0))
        if event == "new digest":
            self.houses[0].ollama.set_digest(MODEL)
        for house in self.houses:
            if event == "purge":
                assert (await house.admin("DELETE", "/entries?all=true")).status == 200
            elif event == "copy":
                await house.ask("POST", "/api/copy", {"source": MODEL, "destination": "another"})
            elif event == "new digest":
                await house.app.models.refresh()

    async def exchange(self, clients: list[Client], batch: Batch) -> list[list[Any]]:
        """Send a batch to both; the replies of each, those first that were due before the event."""
        pieces = batch.pieces()
        due = batch.complete(pieces[:-1]) if batch.event else 0
        replies: list[list[Any]] = []
        for client in clients:
            replies.append([])
            for at, piece in enumerate(pieces[:-1]):
                replies[-1] += await client.write(batch.connection, piece, begins=not at, crowded=batch.crowded)
            replies[-1] += await client.take(batch.connection, due)
        await self.happen(batch.event)
        for number, client in enumerate(clients):
            begins = len(pieces) == 1
            replies[number] += await client.write(batch.connection, pieces[-1], begins=begins, crowded=batch.crowded)
            replies[number] += await client.take(batch.connection, len(batch.requests) - due)
            if batch.requests[-1] in ENDING and (wire := client.wires.pop(batch.connection, None)):
                wire.close()
        return replies

    async def counts(self) -> list[Counter[str]]:
        """What each has counted until now."""
        counted = []
        for house in self.houses:
            stats = await house.stats()
            flat = Counter(
                {"asks": stats["asks"], "tokens": stats["saved"]["tokens"], "kept": stats["kept"]["entries"]}
            )
            for name in ("outcomes", "tiers", "bypass", "not_kept", "faults"):
                flat.update({f"{name} {key}": number for key, number in stats[name].items()})
            for name in ("models", "dialects"):
                flat.update({f"{name} {key}": total["asks"] for key, total in stats[name].items()})
            counted.append(flat)
        return counted


@pytest_asyncio.fixture(params=["64MiB", "0B"])
async def pair(
    request: pytest.FixtureRequest,
    fake_ollama: FakeOllama,
    clean_redis: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Pair]:
    """Both open, empty; what decides by the time that passed is switched off, replies of one turn always wait for each
    other. Without memory all hits are Redis's.
    """
    monkeypatch.setattr(coalesce, "LANDING_S_MAX", 10.0)
    monkeypatch.setattr(outbox, "MANY", 0)
    monkeypatch.setattr(outbox, "LATE_S", 10.0)
    # A heartbeat that had begun before a purge makes the proxy forget its copies once more, some time after it.
    monkeypatch.setattr(contact, "HEARTBEAT_S", 3600.0)
    clock = FakeClock()
    for on in (True, False):  # one secret, so that entries of partitions have one name
        clean_redis.call("SET", f"lane-{on}:secret", b"s" * 32)
    async with AsyncExitStack() as stack:
        houses = [
            await stack.enter_async_context(
                open_house(
                    fake_ollama,
                    clean_redis,
                    clock=clock,
                    server={"repeat_lane": on},
                    upstream={"digest_ttl": 3600},
                    redis={"prefix": f"lane-{on}"},
                    cache={"ttl_jitter": 0, "ttl": 1800, "memory": request.param},
                )
            )
            for on in (True, False)
        ]
        yield Pair(houses, clock, heard(houses[0]))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(batches, min_size=1, max_size=8))
async def test_any_stream_of_requests_gets_the_replies_and_counts_it_would_get_without(
    pair: Pair, steps: list[Batch]
) -> None:
    """Whatever is pipelined, cut, purged, expired or changed in between; and after it hits still take the short way."""
    await pair.begin()
    before = await pair.counts()
    clients = [Client(house) for house in pair.houses]
    try:
        last = Batch(2, [0], apart=bool(len(steps) % 2), crowded=bool(len(steps) % 3))
        for batch in [*steps, *[last] * 4]:
            short = sum(pair.lane_answers[trail] for trail in SHORT)
            with_lane, without = await pair.exchange(clients, batch)
            assert with_lane == without
    finally:
        for client in clients:
            client.close()

    after = await pair.counts()
    assert sum(pair.lane_answers[trail] for trail in SHORT) > short
    assert after[0] - before[0] == after[1] - before[1]


# --- What it is for, and where it stays out ---


async def test_a_repeated_request_is_answered_like_any_other_hit(house: House) -> None:
    """Same status, headers and body; the counts have it the moment that somebody looks."""
    trails = heard(house)
    async with await connect(house.port) as wire:
        replies = []
        for _ in range(4):
            await wire.send(ask())
            replies.append(await wire.response())
            await house.settled()
    _, slow, _, fast = replies

    assert told_any_time(fast) == told_any_time(slow)
    assert fast.header("X-Cache") == "EXACT"
    stats = await house.stats()
    assert trails == {"memory:no exact:no near:mode-off upstream:200": 1, "memory:hit": 2, "lane:hit": 1}
    assert (stats["outcomes"]["exact"], stats["tiers"]["memory"], stats["gauges"]["asks_in_flight"]) == (3, 3, 0)
    assert stats["latency"]["outcomes"]["exact"]["memory"]["count"] == 3
    assert stats["repeat_lane"]["records"] == 2


@pytest.mark.parametrize(
    "spelt",
    [
        pytest.param(lambda number: ask(X_Request_Id=number, User_Agent=f"team-{number}/1.0"), id="other heads"),
        pytest.param(lambda number: ask(WHOLE | {"keep_alive": f"{number}m"}), id="another time to stay loaded"),
        pytest.param(lambda number: ask(WHOLE | {f"option_{number}": None}), id="members that are null"),
        pytest.param(lambda number: ask(b" " * int(number) + json.dumps(WHOLE).encode()), id="other spaces"),
    ],
)
async def test_a_request_that_says_the_same_in_other_bytes_needs_no_look_up(
    house: House, spelt: Callable[[str], bytes]
) -> None:
    """Each caller has a head of its own, many number their requests, and libraries write JSON each in its way."""
    trails = heard(house)
    async with await connect(house.port) as wire:
        for number in range(1, 7):
            await wire.send(spelt(str(number)))
            reply = await wire.response()
            await house.settled()
    house.app.lane.flush()

    assert (reply.status, reply.header("X-Cache"), reply.header("Via")) == (200, "EXACT", "1.1 cacheproxy")
    assert trails == {"memory:no exact:no near:mode-off upstream:200": 1, "memory:hit": 2, "lane:said": 3}
    assert len(house.app.lane) == 1


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"messages": [{"role": "user", "content": "Why?"}]}, id="the question"),
        pytest.param({"stream": True}, id="the form of the reply"),
        pytest.param({"model": f"{MODEL}:latest"}, id="the name as the caller spells it"),
        pytest.param({"options": {"temperature": 0.1}}, id="an option"),
        pytest.param({"options": {"cache": {"ttl": "1m"}}}, id="what the caller says of the cache"),
        pytest.param({"keep_alive": 0}, id="that the model is to go"),
        pytest.param({"format": "json"}, id="the form of the answer"),
    ],
)
async def test_a_body_that_says_something_else_is_another_request(house: House, changed: dict[str, Any]) -> None:
    """Whatever it shares with a known one."""
    async with await connect(house.port) as wire:
        for number in range(4):
            await wire.send(ask(X_Request_Id=str(number)))
            await wire.response()
            await house.settled()
        house.app.lane.flush()
        trails = heard(house)
        await wire.send(ask(WHOLE | changed))
        assert (await wire.response()).status == 200
        await house.settled()

    house.app.lane.flush()
    assert sum(trails.values()) == 1
    assert not any(trail.startswith("lane:") for trail in trails)


async def test_what_a_caller_wants_of_a_model_is_remembered_from_each_request(house: House) -> None:
    """`keep_alive` is nothing to the reply, so requests that differ in it share a record, but each is heard."""
    async with await connect(house.port) as wire:
        for number in range(4):
            await wire.send(ask(X_Request_Id=str(number)))
            await wire.response()
            await house.settled()
        digest = house.app.models.known(MODEL).digest  # type: ignore[union-attr]
        before = house.first.loaded.wish(digest)
        house.app.lane.flush()
        trails = heard(house)
        await wire.send(ask(WHOLE | {"keep_alive": "7m"}))
        await wire.response()
    house.app.lane.flush()

    assert trails == {"lane:said": 1}
    assert (before.keep_alive, house.first.loaded.wish(digest).keep_alive) == (False, True)


async def test_a_caller_who_said_nothing_of_a_model_is_not_taken_for_one_who_did(house: House) -> None:
    """Though the record that answers was learned from another's request, which had a `keep_alive`."""
    async with await connect(house.port) as wire:
        for number in range(4):
            await wire.send(ask(WHOLE | {"keep_alive": f"{number + 5}m"}))
            await wire.response()
            await house.settled()
        digest = house.app.models.known(MODEL).digest  # type: ignore[union-attr]
        house.app.lane.flush()
        house.first.loaded._wishes.clear()
        trails = heard(house)
        await wire.send(ask(X_Request_Id="1"))
        await wire.response()
        house.app.lane.flush()

    assert trails == {"lane:said": 1}
    assert not house.first.loaded.wish(digest).keep_alive


@pytest.mark.parametrize("known", [True, False])
async def test_a_request_that_is_cut_anywhere_is_answered_as_if_it_were_not(
    fake_ollama: FakeOllama, clean_redis: RedisServer, known: bool
) -> None:
    """At every byte in turn, where its bytes have a record and where only what it says has one."""
    data = ask(X_Request_Id="1")
    async with (
        open_house(fake_ollama, clean_redis, clock=FakeClock()) as house,
        await connect(house.port) as wire,
    ):
        await taught(house, wire, data)
        expected = told(await answer(wire, data))
        for cut in range(1, len(data)):
            sent = data if known else data.replace(b"X-Request-Id: 1", b"X-Request-Id: %d" % (cut % 8 + 2))
            assert told(await answer(wire, sent[:cut], sent[cut:])) == expected, cut
        stats = await house.stats()

    assert stats["outcomes"]["exact"] == stats["asks"] - 1 == len(data) + 2


@pytest.mark.parametrize("known_bytes", [True, False])
async def test_a_known_request_does_not_overtake_one_that_waited_before_it(house: House, known_bytes: bool) -> None:
    """A caller who pipelines gets the replies in the order of the requests."""
    async with await connect(house.port) as wire:
        await taught(house, wire, ask())
        house.ollama.next(Fault(first_token_delay_s=0.2), count=2)
        await wire.send(ask(WHOLE | {"messages": [{"role": "user", "content": "first"}]}))
        await asyncio.sleep(0.02)
        await wire.send(ask(WHOLE | {"messages": [{"role": "user", "content": "second"}]}))
        first = await wire.response()
        await asyncio.sleep(0.02)
        await wire.send(ask() if known_bytes else ask(X_Request_Id="new"))
        second, third = await wire.response(), await wire.response()

    assert [reply.header("X-Cache") for reply in (first, second, third)] == ["MISS", "MISS", "EXACT"]


async def test_what_the_next_request_asks_is_not_taken_for_what_this_one_asks(house: House) -> None:
    """Also while this one waits for a change of models, before its body is looked at."""
    who = WHOLE | {"messages": [{"role": "user", "content": "who?"}]}
    when = WHOLE | {"messages": [{"role": "user", "content": "when?"}]}
    async with await connect(house.port) as wire, await connect(house.port) as other:
        await taught(house, wire, ask())
        async with house.app.models.changing():
            await wire.send(ask(WHOLE | {"messages": [{"role": "user", "content": "what?"}]}))
            await asyncio.sleep(0.02)
            await wire.send(ask(who))
            await asyncio.sleep(0.02)
            await wire.send(ask(when))
            await asyncio.sleep(0.02)
        replies = [(await wire.response()).json() for _ in range(3)]
        await house.settled()
        again = []
        for body in (who, when):
            await other.send(ask(body))
            again.append((await other.response()).json())

    assert [reply["message"] for reply in again] == [reply["message"] for reply in replies[1:]]
    assert replies[1]["message"] != replies[2]["message"]


@pytest.mark.parametrize(
    ("path", "one", "two"),
    [
        (
            "/v1/completions",
            {"prompt": "Hm?", "temperature": 0, "seed": 7},
            {
                "prompt": "Hm?",
                "options": {
                    "frequency_penalty": 0.0,
                    "presence_penalty": 0.0,
                    "seed": 7,
                    "temperature": 0.0,
                    "top_p": 1.0,
                },
            },
        ),
        (
            "/v1/chat/completions",
            {"messages": [{"content": "Hm?", "role": "user"}], "response_format": {"type": "json_object"}},
            {
                "messages": [{"content": "Hm?", "role": "user"}],
                "format": "json",
                "options": {"temperature": 1.0, "top_p": 1.0},
            },
        ),
    ],
)
async def test_asks_that_only_look_alike_once_they_are_canonical_stay_apart(
    house: House, path: str, one: dict[str, Any], two: dict[str, Any]
) -> None:
    """OpenAI's form has no `options`; Ollama ignores them there."""
    async with await connect(house.port) as wire:
        for number in range(4):
            await wire.send(ask({"model": MODEL} | one, path, X_Request_Id=str(number)))
            await wire.response()
            await house.settled()
        await wire.send(ask({"model": MODEL} | two, path))
        reply = await wire.response()

    assert (reply.status, reply.header("X-Cache")) == (200, "MISS")


@pytest.mark.parametrize("controls", [{"x": 10**30}, "\ud800"])
async def test_controls_that_cannot_be_written_down_keep_the_lane_out_and_nothing_else(
    house: House, controls: object
) -> None:
    """They mean nothing to the cache, and never break an app."""
    body = json.dumps(WHOLE | {"options": {"cache": controls}}).encode()
    async with await connect(house.port) as wire:
        await taught(house, wire, ask())
        for _ in range(4):
            await wire.send(ask(body))
            reply = await wire.response()
            await house.settled()

    assert (reply.status, reply.header("X-Cache")) == (200, "EXACT")


async def test_a_defect_of_the_lane_costs_no_request_its_reply(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged and counted, and the request takes the way of all others."""
    async with await connect(house.port) as wire:
        await taught(house, wire, ask())
        monkeypatch.setattr(house.app.lane, "is_new", lambda _key: 1 / 0)
        await wire.send(ask(X_Request_Id="1"))
        reply = await wire.response()

    assert (reply.status, reply.header("X-Cache")) == (200, "EXACT")
    assert "the repeat lane failed" in caplog.text
    assert (await house.stats())["faults"]["internal"] >= 1


async def test_a_length_of_very_many_digits_is_refused(house: House) -> None:
    """With so many zeros before it Python does not read the number."""
    async with await connect(house.port) as wire:
        await taught(house, wire, ask())
        data = ask(X_Request_Id="1").replace(b"Content-Length: ", b"Content-Length: " + b"0" * 5000)
        await wire.send(data)
        reply = await wire.response()

    assert reply.status == 400


async def test_a_connection_that_was_due_to_be_closed_when_the_lane_answered_is_closed_later(
    fake_ollama: FakeOllama, clean_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`server.idle_timeout` may pass while a head waits for its body; then it counts from the reply."""
    monkeypatch.setattr(edge_connection, "HOLD_S", 5.0)
    async with (
        open_house(fake_ollama, clean_redis, server={"idle_timeout": 0.4}) as house,
        await connect(house.port) as wire,
    ):
        await taught(house, wire, ask(X_Request_Id="1"))
        data = ask(X_Request_Id="2")
        await wire.send(data[:-5])
        await asyncio.sleep(0.6)
        await wire.send(data[-5:])
        assert (await wire.response()).header("X-Cache") == "EXACT"
        assert await wire.rest(timeout_s=5) == b""


@pytest.mark.parametrize("size", [1, 7, 64, 200])
async def test_a_request_in_many_pieces_is_repeated_too(
    house: House, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it comes over a network."""
    monkeypatch.setattr(edge_connection, "HOLD_S", 5.0)
    trails = heard(house)
    async with await connect(house.port) as wire:
        for number in range(1, 7):
            data = ask(X_Request_Id=str(number))
            head_bytes = data.find(b"\r\n\r\n") + 4
            body = data[head_bytes:]
            pieces = [data[:head_bytes], *(body[start : start + size] for start in range(0, len(body), size))]
            if size > len(body) // 2:
                pieces = [data[:-5], data[-5:]]
            assert (await answer(wire, *pieces)).status == 200
            await house.settled()
        await wire.send(ask())
        await wire.response()
    house.app.lane.flush()

    assert trails == {"memory:no exact:no near:mode-off upstream:200": 1, "memory:hit": 2, "lane:said": 4}


async def test_a_slow_sender_is_waited_for_no_longer_because_its_pieces_keep_coming(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait begins with the head; then the server's own deadlines hold."""
    monkeypatch.setattr(edge_connection, "HOLD_S", 0.05)
    data = ask()
    async with await connect(house.port) as wire:
        for byte in range(len(data) - 20, len(data) - 8):
            await wire.send(data[:byte] if byte == len(data) - 20 else data[byte - 1 : byte])
            await asyncio.sleep(0.01)
        here = next(iter(house.app._proxy._listener._connections))  # type: ignore[union-attr]
        assert here._sleeper is None  # type: ignore[attr-defined]
        assert not house.app._proxy._listener.serving().empty.is_set()  # type: ignore[union-attr]
        await wire.send(data[byte:])
        assert (await wire.response()).status == 200


READ = {
    "Authorization": "Bearer somebody",
    "X-Api-Key": "k",
    "Cache-Control": "no-cache",
    "X-Cache-Mode": "off",
    "X-Cache-TTL": "1s",
    "X-Cache-Threshold": "0.99",
    "Content-Encoding": "gzip",
    "Via": "1.1 elsewhere",
}


@pytest.mark.parametrize(("name", "value"), READ.items())
async def test_a_header_that_is_read_makes_another_request_of_it(house: House, name: str, value: str) -> None:
    """Also where it is empty, which is not the same as absent."""
    async with await connect(house.port) as wire:
        for _ in range(4):
            await wire.send(ask())
            await wire.response()
            await house.settled()
        house.app.lane.flush()
        trails = heard(house)
        for given in (value, ""):
            await wire.send(ask(**{name.replace("-", "_"): given}))
            await wire.response()
            await house.settled()
    house.app.lane.flush()

    assert sum(trails.values()) == 2
    assert not any(trail.startswith("lane:") for trail in trails)


async def test_what_came_under_other_settings_is_not_learned(house: House) -> None:
    """A request that was read before they changed may be read otherwise now."""
    async with await connect(house.port) as wire:
        await taught(house, wire, ask())
        house.app.lane.renew(house.app.lane._bytes_max)
        assert len(house.app.lane) == 0
        serve = house.app.cached.serve.serve

        async def change_meanwhile(call: Any) -> Any:
            found = await serve(call)
            house.app.lane.renew(house.app.lane._bytes_max)
            return found

        object.__setattr__(house.app.cached, "serve", SimpleNamespace(serve=change_meanwhile))
        for _ in range(3):
            await wire.send(ask())
            assert (await wire.response()).header("X-Cache") == "EXACT"

    assert len(house.app.lane) == 0


async def test_age_is_told_as_it_is_at_each_hit(fake_ollama: FakeOllama, clean_redis: RedisServer) -> None:
    """Not as it was when the lane learned it."""
    clock, ages = FakeClock(), []
    async with (
        open_house(fake_ollama, clean_redis, clock=clock, cache={"ttl_jitter": 0}) as house,
        await connect(house.port) as wire,
    ):
        await taught(house, wire, ask())
        house.app.decisions.listeners.append(lambda decision, _count: ages.append(decision.age_s))
        for _ in range(2):
            clock.advance(100)
            await wire.send(ask())
            await wire.response()
            house.app.lane.flush()

    assert ages == [pytest.approx(100, abs=1), pytest.approx(200, abs=1)]


async def test_a_page_of_another_origin_gets_the_headers_that_are_its_own(house: House) -> None:
    """What a browser needs beside the answer is not on the reply to somebody else."""
    origins = ["http://localhost:3000", "http://localhost:4000"]
    async with await connect(house.port) as wire:
        allowed = []
        for origin in [*origins * 4, ""]:
            await wire.send(ask(**({"Origin": origin} if origin else {}), X_Number=str(len(allowed))))
            allowed.append((await wire.response()).header("Access-Control-Allow-Origin"))
            await house.settled()

    assert allowed == [*origins * 4, None]


def test_what_is_met_once_is_remembered_for_a_bounded_number(house: House) -> None:
    """Requests that never come again push nothing out."""
    for number in range(lane.MET_MAX + 5):
        assert house.app.lane.is_new(number)

    assert len(house.app.lane._met) == lane.MET_MAX
    assert not house.app.lane.is_new(lane.MET_MAX)
    assert house.app.lane.is_new(0)


async def test_a_repeated_stream_comes_as_it_came_with_its_last_line_apart(house: House) -> None:
    """Chunk by chunk the same."""
    async with await connect(house.port) as wire:
        await taught(house, wire, ask(ASK))
        await wire.send(ask(ASK | {"keep_alive": "5m"}))
        slow = await wire.response()
        await wire.send(ask(ASK))
        fast = await wire.response()

    assert told_any_time(fast) == told_any_time(slow)
    assert len(fast.chunks) == 2
    assert fast.lines()[-1]["done"] is True
    assert fast.header("X-Accel-Buffering") == "no"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(ask(WHOLE | {"keep_alive": 0}), id="the model is to be unloaded"),
        pytest.param(ask(Cache_Control="max-age=60"), id="the entry may become too old"),
        pytest.param(ask(ASK | {"max_tokens": 500}, "/v1/messages"), id="an id that no other reply may have"),
        pytest.param(ask(WHOLE | {"junk": "x" * lane.BYTES_MAX}), id="too long"),
    ],
)
async def test_what_wants_more_than_the_same_reply_gets_no_record(house: House, data: bytes) -> None:
    """It is answered all the same, each time the slow way."""
    trails = heard(house)
    async with await connect(house.port) as wire:
        for _ in range(5):
            await wire.send(data)
            reply = await wire.response()
            await house.settled()

    assert reply.header("X-Cache") == "EXACT"
    assert trails["lane:hit"] == len(house.app.lane) == 0


async def test_who_waits_for_leave_to_send_the_body_gets_it_each_time(house: House) -> None:
    """The same bytes alone are not enough, so the lane stays out."""
    trails = heard(house)
    head, end, body = ask(Expect="100-continue").partition(b"\r\n\r\n")
    async with await connect(house.port) as wire:
        for _ in range(5):
            await wire.send(head + end)
            statuses = [(await wire.response()).status]
            await wire.send(body)
            statuses.append((await wire.response()).status)
            await house.settled()
    house.app.lane.flush()

    assert statuses == [100, 200]
    assert trails["memory:hit"] == 4
    assert len(house.app.lane) == 0


async def test_the_lane_can_be_switched_off(fake_ollama: FakeOllama, clean_redis: RedisServer) -> None:
    """Then every request goes the slow way."""
    async with open_house(fake_ollama, clean_redis, server={"repeat_lane": False}) as house:
        trails = heard(house)
        for _ in range(5):
            assert (await house.chat(stream=False)).status == 200
            await house.settled()

        assert trails["memory:hit"] == 4
        assert trails["lane:hit"] == 0


async def test_with_the_trail_in_the_headers_there_is_no_lane(
    fake_ollama: FakeOllama, clean_redis: RedisServer
) -> None:
    """The times in it are another request's."""
    async with open_house(fake_ollama, clean_redis, cache={"headers": "trail"}) as house:
        for _ in range(5):
            reply = await house.chat(stream=False)
            await house.settled()

        assert reply.header("X-Cache-Trail") == "memory:hit"


async def test_an_answer_asked_for_anew_is_what_the_lane_gives_from_then_on(house: House) -> None:
    """Also while it is being kept: who asks again at once gets the new one."""
    async with await connect(house.port) as wire:
        await taught(house, wire, ask())
        await wire.send(ask(Cache_Control="no-cache"))
        await wire.response()
        await wire.send(ask())
        assert (await wire.response()).header("X-Cache") == "EXACT"
        entry = house.app.lane._records[ask()].hit.entry

    assert house.app.memory.touch(entry)


async def test_age_and_lifetime_in_the_headers_move_with_time(
    fake_ollama: FakeOllama, clean_redis: RedisServer
) -> None:
    """The lane renders anew when they would read otherwise, and only then."""
    clock = FakeClock(1_000_000.25)
    async with (
        open_house(fake_ollama, clean_redis, clock=clock, cache={"ttl_jitter": 0, "ttl": 100}) as house,
        await connect(house.port) as wire,
    ):
        await taught(house, wire, ask())
        read = []
        for seconds in (0.1, 0.6, 0.1, 0.3, 98.8, 0.2):
            clock.advance(seconds)
            await wire.send(ask())
            reply = await wire.response()
            status = reply.header("Cache-Status") or ""
            read.append((reply.header("X-Cache"), reply.header("Age"), status.split("; ")[2]))

    assert read == [
        ("EXACT", "0", "ttl=99"),
        ("EXACT", "0", "ttl=99"),
        ("EXACT", "0", "ttl=99"),
        ("EXACT", "1", "ttl=98"),
        ("EXACT", "99", "ttl=0"),
        ("MISS", None, "fwd-status=200"),
    ]


async def test_the_lane_forgets_what_was_used_least_recently(house: House) -> None:
    """What it holds is bounded, in bytes."""
    house.app.lane._bytes_max = 3 * (lane.OVERHEAD_BYTES + 2_000)
    for number in [*range(9)] * 3:
        data = ask(X_Number=str(number))
        async with await connect(house.port) as wire:
            await wire.send(data)
            await wire.response()
            await house.settled()

    assert 2 <= len(house.app.lane) <= 4
    assert house.app.lane.size_bytes <= house.app.lane._bytes_max
    assert ask(X_Number="8") in house.app.lane._records


async def test_a_record_does_not_hold_the_request_that_it_was_learned_from(house: House) -> None:
    """Nor its connection: there are thousands of records, and callers come and go."""
    async with await connect(house.port) as wire:
        await taught(house, wire, ask())
    await until(lambda: not house.app._proxy._listener._connections)  # type: ignore[union-attr]
    gc.collect()

    assert [thing for thing in gc.get_objects() if issubclass(type(thing), web.BaseRequest)] == []


async def test_an_idle_connection_holds_no_request(house: House) -> None:
    """There may be thousands of them, and a request may have 64 KiB."""
    async with await connect(house.port) as wire:
        for number in range(5):
            await wire.send(ask(X_Request_Id=str(number)))
            await wire.response()
            await house.settled()
            (here,) = house.app._proxy._listener._connections  # type: ignore[union-attr]
            await until(lambda here=here: here.received is None)  # type: ignore[attr-defined,misc]


async def test_with_an_earlier_reply_in_the_way_the_lane_is_closed(house: House) -> None:
    """It waits for no one: the slow way and its back-pressure take over until the caller has read."""
    async with await connect(house.port) as wire:
        await taught(house, wire, ask())
        here = next(iter(house.app._proxy._listener._connections))  # type: ignore[union-attr]
        trails = heard(house)
        here.pause_writing()
        await wire.send(ask())
        await until(lambda: trails["memory:hit"] == 1)
        here.resume_writing()
        assert (await wire.response()).header("X-Cache") == "EXACT"
        await wire.send(ask())
        await wire.response()

    house.app.lane.flush()
    assert trails == {"memory:hit": 1, "lane:hit": 1}


async def test_a_draining_proxy_tells_the_caller_to_leave(house: House) -> None:
    """`Connection: close`, which the lane never says."""
    async with await connect(house.port) as wire:
        await taught(house, wire, ask())
        house.app._proxy._listener.leaving = True  # type: ignore[union-attr]
        await wire.send(ask())
        reply = await wire.response()

    assert reply.header("Connection") == "close"


async def test_a_slow_hit_is_told_with_those_that_were_as_slow(house: House) -> None:
    """So that no mean hides it; the quick ones are told together."""
    told: list[tuple[int, float]] = []
    async with await connect(house.port) as wire:
        await taught(house, wire, ask())
    house.app.lane.flush()
    (record,) = (record for key, record in house.app.lane._records.items() if isinstance(key, bytes))
    house.app.decisions.listeners.append(lambda decision, count: told.append((count, round(decision.seconds, 6))))
    for seconds in (0.0001, 0.0005, 0.0101, 0.0102, 0.02):
        house.app.lane.count(record, seconds)
    house.app.lane.flush()

    assert told == [(2, 0.0003), (2, 0.01015), (1, 0.02)]


async def test_hits_are_told_soon_without_anyone_looking(house: House) -> None:
    """A ledger or a live view hears of them within a moment."""
    async with await connect(house.port) as wire:
        await taught(house, wire, ask())
        trails = heard(house)
        await wire.send(ask())
        await wire.response()

        await until(lambda: trails["lane:hit"] == 1)


async def test_a_first_request_answered_by_the_lane_ends_the_wait_for_a_head(
    fake_ollama: FakeOllama, clean_redis: RedisServer
) -> None:
    """Else `server.header_timeout` would end a connection that has had its reply."""
    async with open_house(fake_ollama, clean_redis, server={"header_timeout": 0.3}) as house:
        async with await connect(house.port) as wire:
            await taught(house, wire, ask())
        async with await connect(house.port) as wire:
            trails = heard(house)
            await wire.send(ask())
            await wire.response()
            await asyncio.sleep(0.5)
            await wire.send(ask())
            assert (await wire.response()).status == 200

        house.app.lane.flush()
        assert trails == {"lane:hit": 2}


async def test_an_idle_connection_is_kept_as_long_after_the_lane_as_after_others(
    fake_ollama: FakeOllama, clean_redis: RedisServer
) -> None:
    """`server.idle_timeout` counts from the last reply, and then ends the connection."""
    async with (
        open_house(fake_ollama, clean_redis, server={"idle_timeout": 1}) as house,
        await connect(house.port) as wire,
    ):
        await taught(house, wire, ask())
        for _ in range(3):
            await asyncio.sleep(0.6)
            await wire.send(ask())
            assert (await wire.response()).status == 200
        assert await wire.rest(timeout_s=5) == b""


async def test_what_is_half_read_is_not_the_lanes(house: House) -> None:
    """Bytes that look like a known request, in the middle of another, are that one's body."""
    async with await connect(house.port) as wire:
        await taught(house, wire, ask())
        inner = ask()
        outer = request("POST", "/api/generate", b"", headers=[("Content-Length", str(len(inner)))])
        await wire.send(outer)
        await asyncio.sleep(0.01)
        await wire.send(inner)
        reply = await wire.response()

    assert reply.status == 400


async def taught_apart(house: House, wire: Wire, head: bytes, body: bytes) -> None:
    """Send a request, head and body apart, until the lane knows it."""
    for _ in range(3):
        await wire.send(head)
        await asyncio.sleep(0.005)
        await wire.send(body)
        assert (await wire.response()).status == 200
        await house.settled()
    assert house.app.lane.knows_head(head)


@pytest.fixture
def apart() -> tuple[bytes, bytes]:
    """Head and body of an ask."""
    head, end, body = ask().partition(b"\r\n\r\n")
    return head + end, body


async def test_a_request_whose_body_comes_after_its_head_is_repeated_too(
    house: House, apart: tuple[bytes, bytes]
) -> None:
    """Most Python clients send it so. The same bytes at once are the same request."""
    head, body = apart
    async with await connect(house.port) as wire:
        await taught_apart(house, wire, head, body)
        trails = heard(house)
        for pieces in ((head, body), (head + body,)):
            for piece in pieces:
                await wire.send(piece)
                await asyncio.sleep(0.001)
            assert (await wire.response()).header("X-Cache") == "EXACT"

    house.app.lane.flush()
    assert trails == {"lane:hit": 2}


async def test_a_known_head_with_another_body_goes_the_slow_way(house: House, apart: tuple[bytes, bytes]) -> None:
    """And so does what follows in pieces that are neither."""
    head, body = apart
    other = body.replace(b"why?", b"who?")
    async with await connect(house.port) as wire:
        await taught_apart(house, wire, head, body)
        await wire.send(head)
        await asyncio.sleep(0.001)
        await wire.send(other + head[:20])
        assert (await wire.response()).header("X-Cache") == "MISS"
        await wire.send(head[20:])
        await asyncio.sleep(0.001)
        await wire.send(body)
        assert (await wire.response()).header("X-Cache") == "EXACT"


async def test_a_known_head_without_body_is_not_kept_from_the_server(
    house: House, apart: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a moment it counts as begun: the deadlines of a body hold, and a drain waits for it."""
    head, body = apart
    async with await connect(house.port) as wire:
        await taught_apart(house, wire, head, body)
        await wire.send(head)
        await until(lambda: not house.app._proxy._listener.serving().empty.is_set())  # type: ignore[union-attr]
        monkeypatch.setattr(edge_connection, "HOLD_S", 60.0)
        await wire.send(body)
        assert (await wire.response()).header("X-Cache") == "EXACT"
        await wire.send(head)
        here = next(iter(house.app._proxy._listener._connections))  # type: ignore[union-attr]
        await until(lambda: here._held == head)  # type: ignore[attr-defined]
        draining = asyncio.create_task(house.app._proxy.drain(5.0))
        await asyncio.sleep(0.01)
        await wire.send(body)
        reply = await wire.response()
        await draining

    assert (reply.header("X-Cache"), reply.header("Connection")) == ("EXACT", "close")


async def test_a_known_head_that_comes_as_the_connection_is_about_to_be_closed_is_answered(
    fake_ollama: FakeOllama, clean_redis: RedisServer, apart: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection on which a head waits for its body is not idle."""
    head, body = apart
    async with (
        open_house(fake_ollama, clean_redis, server={"idle_timeout": 0.5}) as house,
        await connect(house.port) as wire,
    ):
        await taught_apart(house, wire, head, body)
        monkeypatch.setattr(edge_connection, "HOLD_S", 5.0)
        await wire.send(head)
        await asyncio.sleep(0.8)
        await wire.send(body)
        assert (await wire.response()).header("X-Cache") == "EXACT"


async def test_a_caller_who_leaves_after_a_known_head_leaves_nothing_behind(
    house: House, apart: tuple[bytes, bytes]
) -> None:
    """Neither a timer nor a request."""
    head, body = apart
    async with await connect(house.port) as wire:
        await taught_apart(house, wire, head, body)
        before = (await house.stats())["asks"]
        await wire.send(head)
    await asyncio.sleep(2 * edge_connection.HOLD_S)

    assert (await house.stats())["asks"] == before
    assert not house.app._proxy._listener._connections  # type: ignore[union-attr]
