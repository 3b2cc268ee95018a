"""Equal asks in flight share one fetch: nobody waits for ever, nobody gets less, and nothing is left behind."""

import asyncio
import contextlib
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cacheproxy.errors import UpstreamBrokenError, UpstreamUnreachableError
from cacheproxy.flow.coalesce import LAG_BYTES_MAX, Flights
from cacheproxy.flow.nearby import Question
from cacheproxy.flow.record import Recorder
from cacheproxy.model import Answer, Part
from cacheproxy.wire import chat

ASK = chat.parse(b'{"model":"m","messages":[{"role":"user","content":"hi"}]}')
BYTES_MAX = 100_000
WHOLE = Answer("xy", final={"eval_count": 2})


def chunk(text):
    """A line of a stream."""
    return json.dumps({"model": "m", "message": {"role": "assistant", "content": text}, "done": False}).encode() + b"\n"


LAST = b'{"model":"m","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","eval_count":2}\n'
REPLY = [chunk("x"), chunk("y"), LAST]
QUESTION = Question("hi", "scope", np.array([1.0], dtype="<f4").tobytes(), "space", 1)


async def let_all_run():
    """Give every task that can go on its turns."""
    for _ in range(30):
        await asyncio.sleep(0)


class FakeUpstream:
    """One reply after another, each step of it when the test says so."""

    def __init__(self, status=200):
        self.status, self.reason, self.headers = status, "OK", (("Content-Type", "application/x-ndjson"),)
        self.waited_s = 0.0
        self.source = "one"
        self.calls = self.closed = 0
        self.landed = []
        self.arrived = 0
        self.began = False
        self._steps = asyncio.Queue()
        self._head = asyncio.get_running_loop().create_future()

    async def fetch(self):
        """What the flight calls."""
        self.calls += 1
        await asyncio.shield(self._head)
        self.began = True
        return self

    async def chunks(self):
        """What the flight reads."""
        while (step := await self._steps.get()) is not None:
            if isinstance(step, BaseException):
                raise step
            yield step
            self.arrived += 1

    async def close(self):
        """What the flight does in the end."""
        self.closed += 1

    def answers(self, error=None):
        """The head comes, or an error in its stead."""
        if self._head.done():
            return
        if error is None:
            self._head.set_result(None)
        else:
            self._head.set_exception(error)
            self._head.exception()

    def sends(self, *steps):
        """Pieces, an error, or None for the end."""
        for step in steps:
            self._steps.put_nowait(step)

    async def land(self, flight):
        """What the flight calls when all went well."""
        self.landed.append(flight.answer)

    def follow(self, flights, key="key", *, landed=None, bytes_max=BYTES_MAX, ask=ASK, needs=frozenset()):
        """Join a flight of a key, or start one."""
        recorder = Recorder(chat.fold(), bytes_max=bytes_max)
        follower, _started = flights.follow(key, ask, recorder, self.fetch, landed or self.land, needs=needs)
        return follower


async def taken(flights, follower):
    """All bytes of a reply; then the follower leaves."""
    try:
        await follower.wait_head()
        return b"".join([piece async for piece in follower.pieces()])
    finally:
        flights.leave(follower)


async def converted(flights, follower):
    """All chunks of a reply; then the follower leaves."""
    try:
        await follower.wait_head()
        return [chunk async for chunk in follower.chunks()]
    finally:
        flights.leave(follower)


async def ended(flights, follower):
    """The whole answer; then the follower leaves."""
    try:
        return await follower.wait_end()
    finally:
        flights.leave(follower)


@pytest.fixture
async def flights():
    """The flights; none may be left at the end."""
    flights = Flights()
    yield flights
    await let_all_run()
    assert len(flights) == 0
    await flights.close()


async def test_bytes_are_passed_on_before_they_are_read(flights):
    """Reading a piece of many lines takes milliseconds, which no caller waits for."""
    upstream, order = FakeUpstream(), []

    class Slow(Recorder):
        def feed(self, piece):
            order.append("read")
            return super().feed(piece)

    follower, _ = flights.follow("key", ASK, Slow(chat.fold(), bytes_max=BYTES_MAX), upstream.fetch, upstream.land)

    async def follow():
        async for piece in follower.pieces():
            assert piece
            order.append("passed on")

    following = asyncio.create_task(follow())
    upstream.answers()
    await follower.wait_head()
    for piece in REPLY:
        upstream.sends(piece)
        await let_all_run()
    upstream.sends(None)
    await following
    flights.leave(follower)

    assert order == ["passed on", "read"] * len(REPLY)


@pytest.mark.case(105)
@pytest.mark.fault(98)
async def test_a_thousand_equal_asks_are_one_fetch(flights):
    """Each gets every byte, and the answer lands once."""
    upstream = FakeUpstream()
    followers = [asyncio.create_task(taken(flights, upstream.follow(flights))) for _ in range(1_000)]
    await let_all_run()
    upstream.answers()
    upstream.sends(*REPLY, None)

    assert set(await asyncio.gather(*followers)) == {b"".join(REPLY)}
    await let_all_run()
    assert (upstream.calls, upstream.closed, upstream.landed) == (1, 1, [WHOLE])


@pytest.mark.fault(102)
async def test_asks_of_different_keys_are_different_flights(flights):
    """Nothing but the key decides."""
    one, other = FakeUpstream(), FakeUpstream()
    followers = [one.follow(flights, "a"), other.follow(flights, "b")]
    for upstream, text in ((one, "1"), (other, "2")):
        upstream.answers()
        upstream.sends(chunk(text), LAST, None)

    assert [(await ended(flights, follower)).text for follower in followers] == ["1", "2"]


@pytest.mark.case(105)
@pytest.mark.fault(66)
async def test_one_who_leaves_never_ends_the_fetch_for_the_rest(flights):
    """Not even the one who started it."""
    upstream = FakeUpstream()
    first = asyncio.create_task(taken(flights, upstream.follow(flights)))
    others = [asyncio.create_task(taken(flights, upstream.follow(flights))) for _ in range(3)]
    upstream.answers()
    upstream.sends(REPLY[0])
    await let_all_run()
    first.cancel()
    others.pop().cancel()
    await let_all_run()
    upstream.sends(*REPLY[1:], None)

    assert await asyncio.gather(*others) == [b"".join(REPLY)] * 2
    await let_all_run()
    assert (upstream.calls, upstream.closed, upstream.landed) == (1, 1, [WHOLE])


@pytest.mark.case(104)
@pytest.mark.fault(65)
@pytest.mark.parametrize("before", ["head", "first piece", "end"])
async def test_the_last_to_leave_ends_the_fetch(flights, before):
    """At any moment before the end; nothing is kept, and the next ask is asked anew."""
    upstream = FakeUpstream()
    followers = [asyncio.create_task(taken(flights, upstream.follow(flights))) for _ in range(2)]
    await let_all_run()
    if before != "head":
        upstream.answers()
    if before == "end":
        upstream.sends(REPLY[0])
    await let_all_run()
    for follower in followers:
        follower.cancel()
    await let_all_run()

    assert len(flights) == 0
    assert (upstream.calls, upstream.landed) == (1, [])
    assert upstream.closed == (0 if before == "head" else 1)
    fresh = FakeUpstream()
    fresh.answers()
    fresh.sends(*REPLY, None)
    assert await taken(flights, fresh.follow(flights)) == b"".join(REPLY)


async def test_one_who_leaves_before_the_fetch_began_leaves_nothing(flights):
    """Ollama is not even asked."""
    upstream = FakeUpstream()
    flights.leave(upstream.follow(flights))
    await let_all_run()

    assert (len(flights), upstream.calls) == (0, 0)


@pytest.mark.case(106)
@pytest.mark.parametrize("take", [taken, converted, ended])
async def test_one_who_joins_midway_gets_everything(flights, take):
    """From the first byte on, in whatever form it is wanted."""
    upstream = FakeUpstream()
    first = asyncio.create_task(taken(flights, upstream.follow(flights)))
    upstream.answers()
    upstream.sends(REPLY[0][:10], REPLY[0][10:])
    await let_all_run()
    late = asyncio.create_task(take(flights, upstream.follow(flights)))
    await let_all_run()
    upstream.sends(*REPLY[1:], None)
    found = await late

    expected = {taken: b"".join(REPLY), converted: [json.loads(line) for line in REPLY], ended: WHOLE}
    assert found == expected[take]
    assert await first == b"".join(REPLY)
    assert upstream.calls == 1


@pytest.mark.fault(98)
async def test_every_piece_reaches_everyone_before_the_next_one_comes(flights):
    """A follower is never kept waiting for the end."""
    upstream = FakeUpstream()
    seen = [[], []]

    async def watch(number, follower):
        async for piece in follower.pieces():
            seen[number].append(piece)
        flights.leave(follower)

    watchers = [asyncio.create_task(watch(number, upstream.follow(flights))) for number in range(2)]
    upstream.answers()
    for count, piece in enumerate(REPLY, 1):
        upstream.sends(piece)
        await let_all_run()
        assert seen == [REPLY[:count]] * 2
    upstream.sends(None)
    await asyncio.gather(*watchers)


@pytest.mark.case(107)
async def test_each_follower_has_the_form_it_wants(flights):
    """One takes bytes, one chunks, one the whole answer."""
    upstream = FakeUpstream()
    followers = [asyncio.create_task(take(flights, upstream.follow(flights))) for take in (taken, converted, ended)]
    upstream.answers()
    upstream.sends(b"".join(REPLY)[:100], b"".join(REPLY)[100:], None)

    assert await asyncio.gather(*followers) == [b"".join(REPLY), [json.loads(line) for line in REPLY], WHOLE]
    assert upstream.calls == 1


@pytest.mark.fault(100)
async def test_an_error_in_place_of_the_head_reaches_all_at_once(flights):
    """And is not kept: the next ask is asked anew."""
    upstream = FakeUpstream()
    followers = [asyncio.create_task(taken(flights, upstream.follow(flights))) for _ in range(50)]
    await let_all_run()
    error = UpstreamUnreachableError("nobody there")
    upstream.answers(error)
    found = await asyncio.gather(*followers, return_exceptions=True)

    assert found == [error] * 50
    assert (len(flights), upstream.calls, upstream.landed) == (0, 1, [])
    again = FakeUpstream()
    again.answers()
    again.sends(*REPLY, None)
    assert await taken(flights, again.follow(flights)) == b"".join(REPLY)


@pytest.mark.case(99)
@pytest.mark.fault(45)
@pytest.mark.parametrize("take", [taken, converted, ended])
async def test_a_reply_that_breaks_off_is_an_error_for_all(flights, take):
    """After the bytes that came; nothing lands."""
    upstream = FakeUpstream()
    follower = upstream.follow(flights)
    seen = []

    async def watch(other):
        async for piece in other.pieces():
            seen.append(piece)  # noqa: PERF401 - what came before the error counts

    tasks = [asyncio.create_task(watch(follower)), asyncio.create_task(take(flights, upstream.follow(flights)))]
    upstream.answers()
    upstream.sends(REPLY[0], UpstreamBrokenError("cut"))
    found = await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(error) for error in found] == [UpstreamBrokenError] * 2
    assert seen == [REPLY[0]]
    assert (follower.flight.answer, follower.flight.reason) == (None, "broken")
    assert (upstream.closed, upstream.landed) == (1, [])
    flights.leave(follower)


@pytest.mark.case(97)
@pytest.mark.case(98)
@pytest.mark.parametrize(
    ("lines", "reason"),
    [([REPLY[0]], "no-done"), ([REPLY[0], b'{"error":"boom"}\n'], "error"), ([*REPLY, LAST], "after-done")],
)
async def test_a_reply_without_a_good_end_is_delivered_and_has_no_answer(flights, lines, reason):
    """As Ollama sent it; the one who waits for an answer is told there is none."""
    upstream = FakeUpstream()
    tasks = [asyncio.create_task(take(flights, upstream.follow(flights))) for take in (taken, converted, ended)]
    keep = upstream.follow(flights)
    upstream.answers()
    upstream.sends(*lines, None)

    assert await asyncio.gather(*tasks) == [b"".join(lines), [json.loads(line) for line in lines], None]
    await let_all_run()
    assert (keep.flight.reason, upstream.landed) == (reason, [None])
    assert keep.error_text() == ("boom" if reason == "error" else "")
    flights.leave(keep)


@pytest.mark.fault(49)
async def test_a_reply_that_cannot_be_read_is_passed_on_and_never_converted_in_part(flights):
    """Bytes go to those who take bytes; a converted stream that lacks its end must not look whole."""
    upstream = FakeUpstream()
    tasks = [asyncio.create_task(take(flights, upstream.follow(flights))) for take in (taken, converted, ended)]
    upstream.answers()
    upstream.sends(REPLY[0], b"garbage\n", LAST, None)
    found = await asyncio.gather(*tasks, return_exceptions=True)

    assert found[0] == REPLY[0] + b"garbage\n" + LAST
    assert isinstance(found[1], UpstreamBrokenError)
    assert found[2] is None


@pytest.mark.case(100)
@pytest.mark.fault(52)
async def test_a_status_that_is_not_200_has_no_answer(flights):
    """Whatever its body says."""
    upstream = FakeUpstream(status=503)
    follower = upstream.follow(flights)
    upstream.answers()
    upstream.sends(*REPLY, None)

    assert (await follower.wait_head()).status == 503
    assert await ended(flights, follower) is None
    await let_all_run()
    assert upstream.landed == [None]


async def test_an_ask_that_comes_while_the_answer_lands_needs_no_fetch(flights):
    """So between flight and store there is no gap into which a second fetch could fall."""
    upstream = FakeUpstream()
    stored = asyncio.Event()

    async def land(flight):
        assert flight.answer == WHOLE
        await stored.wait()

    first = upstream.follow(flights, landed=land)
    upstream.answers()
    upstream.sends(*REPLY, None)
    assert await taken(flights, first) == b"".join(REPLY)
    late = upstream.follow(flights)
    assert await taken(flights, late) == b"".join(REPLY)
    assert (len(flights), upstream.calls) == (1, 1)
    stored.set()
    await let_all_run()

    assert len(flights) == 0


@pytest.mark.fault(99)
async def test_a_reply_without_an_answer_is_not_joined_after_its_end(flights):
    """While its failure is being counted the next ask gets a chance of its own."""
    upstream = FakeUpstream(status=500)
    hold = asyncio.Event()

    async def land(_flight):
        await hold.wait()

    first = upstream.follow(flights, landed=land)
    upstream.answers()
    upstream.sends(b'{"error":"x"}', None)
    await taken(flights, first)
    fresh = FakeUpstream()
    fresh.answers()
    fresh.sends(*REPLY, None)

    assert await taken(flights, fresh.follow(flights)) == b"".join(REPLY)
    hold.set()


@pytest.mark.fault(103)
@pytest.mark.parametrize("failure", [RuntimeError("a bug"), asyncio.CancelledError()])
async def test_a_landing_that_fails_leaves_no_flight(flights, failure):
    """The caller has its answer, and the next ask starts anew."""
    upstream = FakeUpstream()

    async def land(_flight):
        raise failure

    follower = upstream.follow(flights, landed=land)
    upstream.answers()
    upstream.sends(*REPLY, None)

    assert await taken(flights, follower) == b"".join(REPLY)
    await let_all_run()
    assert len(flights) == 0
    with pytest.raises(type(failure)):
        await follower.flight._task


@pytest.mark.fault(103)
@pytest.mark.parametrize("take", [taken, converted, ended])
@pytest.mark.parametrize("begun", [False, True])
async def test_a_bug_in_the_fetch_is_an_error_for_all_and_no_endless_wait(flights, take, begun):
    """Neither waits anybody for ever nor does a cut reply look whole."""
    upstream = FakeUpstream()
    first = upstream.follow(flights)
    other = asyncio.create_task(take(flights, upstream.follow(flights)))
    if begun:
        upstream.answers()
        upstream.sends(REPLY[0], RuntimeError("a bug"))
    else:
        upstream.answers(RuntimeError("a bug"))

    with pytest.raises(UpstreamBrokenError):
        await other
    flights.leave(first)
    with pytest.raises(RuntimeError):
        await first.flight._task


@pytest.mark.fault(112)
@pytest.mark.parametrize("when", ["before the first step", "before the head", "midway"])
async def test_closing_ends_what_flies_as_a_broken_reply(when):
    """No follower hangs at the end of the program, and none takes a cut reply for a whole one."""
    flights = Flights()
    upstream = FakeUpstream()
    task = asyncio.create_task(taken(flights, upstream.follow(flights)))
    if when != "before the first step":
        await let_all_run()
    if when == "midway":
        upstream.answers()
        upstream.sends(REPLY[0])
        await let_all_run()
    await flights.close()

    with pytest.raises(UpstreamBrokenError):
        await task
    assert (len(flights), upstream.landed) == (0, [])


async def test_closing_waits_for_what_is_being_kept():
    """An answer that is complete is not lost."""
    flights = Flights()
    upstream = FakeUpstream()
    kept = []

    async def land(flight):
        await let_all_run()
        kept.append(flight.answer)

    follower = upstream.follow(flights, landed=land)
    upstream.answers()
    upstream.sends(*REPLY, None)
    await taken(flights, follower)
    await flights.close()

    assert kept == [WHOLE]


PIECE = chunk("z" * 9_000)
MANY = (BYTES_MAX + 2 * LAG_BYTES_MAX) // len(PIECE)


@pytest.mark.fault(60)
@pytest.mark.fault(67)
async def test_a_reply_too_large_to_hold_waits_for_its_slowest_follower(flights):
    """Memory stays bounded, and both get every byte."""
    upstream = FakeUpstream()
    fast = asyncio.create_task(taken(flights, upstream.follow(flights)))
    slow = upstream.follow(flights)
    upstream.answers()
    upstream.sends(*[PIECE] * MANY, None)
    for _ in range(10):
        await let_all_run()

    held = sum(map(len, slow.flight._pieces))
    assert upstream.arrived < MANY
    assert LAG_BYTES_MAX < held <= LAG_BYTES_MAX + len(PIECE)
    assert await taken(flights, slow) == PIECE * MANY
    assert await fast == PIECE * MANY
    assert held > sum(map(len, slow.flight._pieces))


@pytest.mark.fault(67)
async def test_a_slow_follower_of_a_large_reply_costs_each_piece_once(flights):
    """However many small pieces it is behind by: a token is one, and others wait for the event loop meanwhile."""
    upstream = FakeUpstream()
    slow = upstream.follow(flights, bytes_max=300_000)
    upstream.answers()
    upstream.sends(*[b"0123456789"] * 40_000, None)
    await slow.wait_head()
    while not slow.flight._recorder.too_large:
        await let_all_run()

    taken_bytes = 0
    async with asyncio.timeout(5):  # it takes 0.3 s, and took 13 s when each piece was looked at for each other one
        async for piece in slow.pieces():
            taken_bytes += len(piece)
            await asyncio.sleep(0)
    flights.leave(slow)
    assert taken_bytes == 400_000


@pytest.mark.fault(67)
async def test_a_slow_follower_that_leaves_holds_nobody_up(flights):
    """The fetch goes on for the rest."""
    upstream = FakeUpstream()
    fast = asyncio.create_task(taken(flights, upstream.follow(flights)))
    slow = upstream.follow(flights)
    upstream.answers()
    upstream.sends(*[PIECE] * MANY, None)
    for _ in range(10):
        await let_all_run()
    assert not fast.done()
    flights.leave(slow)

    assert await fast == PIECE * MANY


async def test_a_reply_too_large_to_hold_is_not_joined(flights):
    """Its first bytes are gone, so a later ask is a fetch of its own."""
    upstream, fresh = FakeUpstream(), FakeUpstream()
    first = asyncio.create_task(taken(flights, upstream.follow(flights)))
    upstream.answers()
    upstream.sends(*[PIECE] * MANY)
    await let_all_run()
    second = asyncio.create_task(taken(flights, fresh.follow(flights)))
    fresh.answers()
    fresh.sends(*REPLY, None)
    assert await second == b"".join(REPLY)
    third = asyncio.create_task(taken(flights, fresh.follow(flights)))
    upstream.sends(None)

    assert await first == PIECE * MANY
    third.cancel()
    await let_all_run()
    assert (upstream.calls, upstream.landed) == (1, [None])


async def test_a_reply_too_large_to_hold_is_not_converted(flights):
    """The one who needed that is told, and holds nobody up."""
    upstream = FakeUpstream()
    tasks = [asyncio.create_task(take(flights, upstream.follow(flights))) for take in (taken, converted, ended)]
    upstream.answers()
    upstream.sends(*[PIECE] * MANY, None)
    found = await asyncio.gather(*tasks, return_exceptions=True)

    assert found[0] == PIECE * MANY
    assert isinstance(found[1], UpstreamBrokenError)
    assert found[2] is None


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.sampled_from([taken, converted, ended])),
        st.tuples(st.just("join near"), st.sampled_from([converted, ended])),
        st.tuples(st.sampled_from(["leave"]), st.integers(0, 9)),
        st.tuples(st.sampled_from(["head", "piece", "end", "break", "refuse", "run"]), st.none()),
    ),
    max_size=25,
)


@pytest.mark.fault(103)
@given(steps=STEPS)
@settings(max_examples=200)
def test_no_schedule_of_events_leaves_a_flight_or_mixes_a_reply(steps):
    """Every follower gets a whole reply of one fetch, an error, or left by itself; and at idle the maps are empty."""
    asyncio.run(asyncio.wait_for(play(steps), 10))


class Stage:
    """The flights, every fetch they made, and every follower there was."""

    def __init__(self):
        self.flights = Flights()
        self.upstreams = []
        self.followers = []

    def fetch(self):
        """Each fetch is a reply of its own text."""
        upstream = FakeUpstream()
        upstream.text = f"{len(self.upstreams)};"
        self.upstreams.append(upstream)
        return upstream.fetch()

    async def land(self, _flight):
        """Landing takes a moment."""
        await asyncio.sleep(0)

    def follow(self, key):
        """One more follower of a key."""
        recorder = Recorder(chat.fold(), bytes_max=BYTES_MAX)
        follower, _ = self.flights.follow(key, ASK, recorder, self.fetch, self.land, question=QUESTION)
        return follower

    async def act(self, action, value):
        """One event of a schedule."""
        live = self.upstreams[-1] if self.upstreams else FakeUpstream()
        if action == "run":
            await let_all_run()
        elif action in ("join", "join near"):
            near = next(self.flights.near(QUESTION), None) if action == "join near" else None
            follower = self.follow(action) if near is None else self.flights.join(near[0])
            self.followers.append((value, asyncio.create_task(value(self.flights, follower))))
        elif action == "leave":
            for _, task in self.followers[value : value + 1]:
                task.cancel()
        elif action == "head":
            live.answers()
        elif action == "refuse":
            live.answers(UpstreamUnreachableError("away"))
        elif self.upstreams:
            live.sends({"piece": chunk(live.text), "end": None, "break": UpstreamBrokenError("cut")}[action])

    async def end(self):
        """Let every reply come to a good end, and every follower to its own."""
        for _ in range(2):  # some fetches begin only now
            for upstream in self.upstreams:
                upstream.answers()
                upstream.sends(chunk(upstream.text), LAST, None)
            await let_all_run()
        results = await asyncio.gather(*(task for _, task in self.followers), return_exceptions=True)
        await let_all_run()
        return results


async def play(steps):
    """Play a schedule, let everything come to its end, and look at what everybody got."""
    stage = Stage()
    for action, value in steps:
        await stage.act(action, value)
    results = await stage.end()

    assert (len(stage.flights), len(stage.flights._nearby)) == (0, 0)
    for upstream in stage.upstreams:
        assert upstream.closed == (upstream.began and 1)
    for (take, _), found in zip(stage.followers, results, strict=True):
        if isinstance(found, BaseException):
            assert isinstance(found, (UpstreamBrokenError, UpstreamUnreachableError, asyncio.CancelledError))
        else:
            assert len(set(text_of(take, found).split(";")) - {""}) <= 1


def text_of(take, found):
    """The text of a reply in whatever form it was taken."""
    if take is ended:
        return found.text if found is not None else ""
    chunks = found if take is converted else [json.loads(line) for line in found.splitlines()]
    return "".join(chunk["message"]["content"] for chunk in chunks)


@pytest.mark.parametrize("state", ["refused", "error in place of the head", "too large", "left", "landed"])
async def test_a_flight_that_has_nothing_to_share_is_not_found_by_meaning(flights, state):
    """Its answer is no answer, or is not held; and what is over is found in the store, if anywhere."""
    upstream = FakeUpstream(status=500 if state == "refused" else 200)
    recorder = Recorder(chat.fold(), bytes_max=10)
    follower, _ = flights.follow("key", ASK, recorder, upstream.fetch, upstream.land, question=QUESTION)
    assert [flight for flight, _, _ in flights.near(QUESTION)] == [follower.flight]
    await let_all_run()
    upstream.answers(UpstreamUnreachableError("away") if state.startswith("error") else None)
    if state == "too large":
        upstream.sends(REPLY[0])
    elif state == "landed":
        upstream.sends(None)
    elif state == "left":
        flights.leave(follower)
    await let_all_run()

    assert list(flights.near(QUESTION)) == []
    flights.leave(follower)


async def test_a_flight_is_not_found_by_meaning_for_what_it_will_not_tell(flights):
    """As with equal asks."""
    upstream = FakeUpstream()
    lacking = replace(ASK, lacks=frozenset({Part.COUNTS}))
    recorder = Recorder(chat.fold(), bytes_max=BYTES_MAX)
    follower, _ = flights.follow("key", lacking, recorder, upstream.fetch, upstream.land, question=QUESTION)

    assert list(flights.near(QUESTION, frozenset({Part.COUNTS}))) == []
    flights.leave(follower)


async def test_a_flight_tells_its_state():
    """For whoever looks at it in a debugger."""
    flights = Flights()
    upstream = FakeUpstream()
    follower = upstream.follow(flights)
    upstream.answers()
    upstream.sends(REPLY[0])
    await let_all_run()

    assert repr(follower.flight) == "<Flight chat flying, 1 followers, 1 pieces>"
    flights.leave(follower)
    with contextlib.suppress(asyncio.CancelledError):
        await follower.flight._task
    assert repr(follower.flight) == "<Flight chat ended, 0 followers, 1 pieces>"


@pytest.mark.case(107)
async def test_a_flight_that_will_not_tell_what_an_ask_needs_is_not_joined(flights):
    """A second one starts under the same key; who needs nothing joins the first, and each is forgotten by itself."""
    poor, rich = FakeUpstream(), FakeUpstream()
    lacking = replace(ASK, lacks=frozenset({Part.COUNTS}))
    first = poor.follow(flights, ask=lacking)
    second = rich.follow(flights, needs=frozenset({Part.COUNTS}))
    third = poor.follow(flights, ask=lacking)
    fourth = rich.follow(flights, needs=frozenset({Part.COUNTS}))

    assert (first.flight, second.flight) == (third.flight, fourth.flight)
    assert first.flight is not second.flight
    assert (len(flights), flights.followers) == (2, 4)
    for follower in (first, third):
        flights.leave(follower)
    await let_all_run()
    assert (len(flights), flights.flying("key", frozenset({Part.COUNTS}))) == (1, True)
    for follower in (second, fourth):
        flights.leave(follower)
