"""The first reply of a turn of the event loop goes out at once, those that follow it together, and none is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from cacheproxy.counting import faults as counted
from cacheproxy.edge import outbox
from cacheproxy.edge.connection import KnownConnection
from cacheproxy.edge.outbox import Outbox
from tests.edge.test_lane import ask, heard, taught
from tests.fakes.house import MODEL, House, house, open_house  # noqa: F401 - a fixture
from tests.fakes.ollama import FakeOllama
from tests.fakes.redis_server import RedisServer
from tests.fakes.wire import Wire, connect, request


class Named:
    """A sender that writes down what happens to its reply."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log

    def send(self) -> Callable[[], None]:
        """As an `outbox.Sender`."""
        self.log.append(f"{self.name} sent")
        return lambda: self.log.append(f"{self.name} counted")


class Busy(Outbox):
    """An outbox under load, and a clock that its test sets."""

    def __init__(self, count: float = 2 * outbox.MANY) -> None:
        self.now_s = 0.0
        self.faults: list[counted.Fault] = []
        super().__init__(asyncio.get_running_loop(), self.faults.append, lambda: self.now_s)
        self._count = count


async def test_under_load_the_first_of_a_turn_is_sent_at_once_and_the_others_when_it_ends() -> None:
    """In the order in which they came; counting holds none of them up."""
    log: list[str] = []
    box = Busy()
    for name in "abc":
        box.add(Named(name, log))
    assert log == ["a sent", "a counted"]

    await asyncio.sleep(0)
    assert log[2:] == ["b sent", "c sent", "b counted", "c counted"]

    box.add(Named("d", log))
    assert log[6:] == ["d sent", "d counted"]


async def test_a_few_do_not_wait_for_each_other_and_many_do() -> None:
    """After some turns with as many, and until there have been some with fewer."""
    box = Busy(count=0)

    async def turn(count: int) -> int:
        log: list[str] = []
        for number in range(count):
            box.add(Named(str(number), log))
        sent = len(log) // 2
        await asyncio.sleep(0)
        assert len(log) == 2 * count
        return sent

    assert [await turn(outbox.MANY - 1) for _ in range(30)] == [outbox.MANY - 1] * 30
    assert [await turn(outbox.MANY + 10) for _ in range(30)][-1] == 1
    assert [await turn(2) for _ in range(30)][-1] == 2


async def test_none_waits_for_ends_that_come_late() -> None:
    """The turn has other work, which would be done before they go out; once it has none, they wait again."""
    log: list[str] = []
    box = Busy()

    async def turn(late_s: float) -> int:
        log.clear()
        for name in "ab":
            box.add(Named(name, log))
        sent = len(log) // 2
        box.now_s += late_s
        box._count = 2 * outbox.MANY
        await asyncio.sleep(0)
        return sent

    assert [await turn(0.01) for _ in range(4)] == [1, 2, 2, 2]
    assert [await turn(0.0) for _ in range(40)][-1] == 1


async def test_so_many_wait_and_no_more() -> None:
    """Else the first of a thousand would wait until the last is made."""
    log: list[str] = []
    box = Busy()
    for number in range(outbox.TOGETHER_MAX):
        box.add(Named(str(number), log))
    assert log == ["0 sent", "0 counted"]

    box.add(Named("one more", log))
    assert log[2:4] == ["1 sent", "2 sent"]
    assert log[-1] == "one more counted"


async def test_what_was_sent_early_is_not_sent_again_and_what_follows_waits() -> None:
    """The turn ends all the same."""
    log: list[str] = []
    box = Busy()
    for name in "ab":
        box.add(Named(name, log))
    box.flush()
    box.add(Named("c", log))
    assert log == ["a sent", "a counted", "b sent", "b counted"]

    await asyncio.sleep(0)
    assert log[4:] == ["c sent", "c counted"]


async def test_a_defect_costs_nobody_else_a_reply_or_a_count(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged and counted."""

    class Broken(Named):
        def send(self) -> Callable[[], None]:
            raise RuntimeError("a defect")

    class Uncountable(Named):
        def send(self) -> Callable[[], None]:
            self.log.append(f"{self.name} sent")
            return lambda: int("no number") and None

    log: list[str] = []
    box = Busy()
    for sender in (Uncountable("a", log), Broken("b", log), Uncountable("c", log), Named("d", log)):
        box.add(sender)
    await asyncio.sleep(0)
    box.add(Named("e", log))

    assert log == ["a sent", "c sent", "d sent", "d counted", "e sent", "e counted"]
    assert caplog.messages == ["a reply from the outbox failed"] * 3
    assert box.faults == [counted.Fault.INTERNAL] * 3


class Pair:
    """Two callers of one proxy, and the proxy's ends of their connections."""

    def __init__(self, house: House, first: Wire, second: Wire) -> None:  # noqa: F811
        self.house = house
        self.wires = first, second
        self.ends = tuple(map(self._end, self.wires))

    def _end(self, wire: Wire) -> KnownConnection:
        address = wire.writer.get_extra_info("sockname")
        (end,) = (
            end
            for end in self.house.app._proxy._listener._connections  # type: ignore[union-attr]
            if end.transport is not None and end.transport.get_extra_info("peername") == address
        )
        assert isinstance(end, KnownConnection)
        return end

    def ask_both(self, data: bytes = ask()) -> None:
        """A known request comes on each, in one turn of a busy proxy: the reply to the second waits."""
        box = self.ends[0]._outbox
        box._count, box._late_s = 2 * outbox.MANY, 0.0
        for end in self.ends:
            end.data_received(data)
        assert self.ends[1]._unsent is not None


@pytest_asyncio.fixture
async def pair(house: House) -> AsyncIterator[Pair]:  # noqa: F811
    """Both idle, their request known."""
    async with await connect(house.port) as first, await connect(house.port) as second:
        for wire in (first, second):
            await taught(house, wire, ask())
        house.app.lane.flush()
        yield Pair(house, first, second)


async def test_replies_of_one_turn_reach_all_who_asked(pair: Pair) -> None:
    """And each is counted."""
    trails = heard(pair.house)
    pair.ask_both()
    for wire in pair.wires:
        assert (await wire.response()).header("X-Cache") == "EXACT"

    pair.house.app.lane.flush()
    assert trails == {"lane:hit": 2}


async def test_a_reply_goes_out_before_what_comes_next_on_its_connection_is_seen(pair: Pair) -> None:
    """Whether that is known, new or no request at all."""
    trails = heard(pair.house)
    pair.ask_both()
    pair.ends[1].data_received(ask())
    pair.ends[1].data_received(ask({"model": MODEL, "messages": [{"role": "user", "content": "another?"}]}))
    pair.ends[1].data_received(b"nonsense\r\n\r\n")
    replies = [await pair.wires[1].response() for _ in range(4)]

    assert [reply.header("X-Cache") for reply in replies] == ["EXACT", "EXACT", "MISS", None]
    assert [reply.status for reply in replies] == [200, 200, 200, 400]
    pair.house.app.lane.flush()
    assert trails["lane:hit"] == 3


async def test_who_leaves_before_the_reply_goes_out_keeps_nobody_from_theirs(pair: Pair) -> None:
    """It is counted, as one is that was on its way."""
    trails = heard(pair.house)
    async with await connect(pair.house.port) as third:
        await third.send(request("GET", "/api/version"))
        await third.response()
        last = pair._end(third)
        pair.ask_both()
        last.data_received(ask())
        pair.ends[1].force_close()

        assert (await third.response()).header("X-Cache") == "EXACT"
    assert (await pair.wires[0].response()).header("X-Cache") == "EXACT"
    assert await pair.wires[1].rest() == b""
    pair.house.app.lane.flush()
    assert trails == {"lane:hit": 3}


async def test_who_sends_no_more_gets_what_was_made(pair: Pair) -> None:
    """The event loop tells that the caller's half is closed, and closes the connection."""
    pair.ask_both()
    pair.ends[1].eof_received()
    assert pair.ends[1].transport is not None
    pair.ends[1].transport.close()

    assert (await pair.wires[1].response()).header("X-Cache") == "EXACT"


async def test_a_reply_that_was_sought_goes_the_same_way(
    fake_ollama: FakeOllama, clean_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it has to wait or not; it is counted once."""
    added: list[object] = []
    add = Outbox.add
    monkeypatch.setattr(Outbox, "add", lambda box, sender: (added.append(sender), add(box, sender)))
    monkeypatch.setattr(outbox, "MANY", 0)
    async with AsyncExitStack() as stack:
        house = await stack.enter_async_context(open_house(fake_ollama, clean_redis, cache={"memory": "0B"}))
        wires = [await stack.enter_async_context(await connect(house.port)) for _ in range(3)]
        for wire in wires:
            for _ in range(2):
                await wire.send(ask())
                await wire.response()
                await house.settled()
        house.app.lane.flush()
        added.clear()
        trails = heard(house)
        for wire in wires:
            wire.writer.write(ask())
        for wire in wires:
            assert (await wire.response()).header("X-Cache") == "EXACT"
        house.app.lane.flush()

    assert len(added) == len(set(added)) == 3
    assert trails == {"plan:known exact:same": 3}


async def test_a_proxy_that_stops_sends_what_it_has_made(pair: Pair) -> None:
    """A connection with a reply in the outbox looks idle, and idle ones are closed."""
    pair.ask_both()
    await pair.house.app._proxy.drain(5.0)  # type: ignore[union-attr]

    for wire in pair.wires:
        assert (await wire.response()).header("X-Cache") == "EXACT"


async def test_a_connection_whose_time_is_over_sends_what_is_made_for_it(pair: Pair) -> None:
    """`server.idle_timeout` may end while a turn takes long."""
    pair.ask_both()
    pair.ends[1]._next_keepalive_close_time = 0.0
    pair.ends[1]._process_keepalive()

    assert (await pair.wires[1].response()).header("X-Cache") == "EXACT"
