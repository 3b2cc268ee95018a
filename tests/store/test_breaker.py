"""The breaker opens when Redis does not answer, lets one probe through at a time, and never gets stuck."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cacheproxy.store.breaker import OPEN_S, OPEN_S_MAX, PROBE_S_MAX, Breaker, State


class FakeClock:
    """Time that moves only when told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> float:
        """Seconds."""
        return self.seconds

    def monotonic(self) -> float:
        """Seconds."""
        return self.seconds


def make(clock: FakeClock, jitter: float = 0.0) -> tuple[Breaker, list[State]]:
    """A closed breaker, and the changes it announces."""
    changes: list[State] = []
    return Breaker(clock, lambda: jitter, changes.append), changes


def play(breaker: Breaker, results: str) -> None:
    """One call for each letter: s(ucceeded), f(ailed), c(ancelled)."""
    for letter in results:
        ticket = breaker.admit()
        assert ticket is not None
        {"s": breaker.succeeded, "f": breaker.failed, "c": breaker.cancelled}[letter](ticket)


def opened(clock: FakeClock) -> tuple[Breaker, list[State]]:
    """One that has just opened."""
    breaker, changes = make(clock)
    play(breaker, "fffff")
    return breaker, changes


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ("", State.CLOSED),
        ("ffff", State.CLOSED),
        ("fffff", State.OPEN),
        ("ffffsffff", State.CLOSED),
        ("ffffcf", State.OPEN),  # leaving early is no success either
        ("cccccccccc", State.CLOSED),
        ("fs" * 30, State.CLOSED),  # half of the last 20 is not more than half
        ("fsf" * 6 + "f", State.CLOSED),  # 19 results: the window is not full
        ("ffs" * 6 + "ff", State.OPEN),
        ("s" * 100 + "fffff", State.OPEN),
    ],
)
def test_it_opens_on_failures_in_a_row_or_on_a_bad_share_and_on_nothing_else(results: str, expected: State) -> None:
    """Five in a row, or more than half of the last twenty."""
    breaker, _ = make(FakeClock())

    play(breaker, results)

    assert expected is breaker.state


def test_while_open_nothing_goes_until_its_time_is_over() -> None:
    """The first call after 250 ms is the probe, and only one may go."""
    clock = FakeClock()
    breaker, _ = opened(clock)

    clock.seconds += OPEN_S - 0.001
    assert breaker.admit() is None
    clock.seconds += 0.001
    assert breaker.admit() is not None
    assert breaker.admit() is None
    assert breaker.state is State.HALF_OPEN


def test_each_failed_probe_doubles_the_wait_up_to_the_limit() -> None:
    """250 ms, 500 ms, 1 s, 2 s, 4 s, then 5 s for ever."""
    clock = FakeClock()
    breaker, _ = opened(clock)
    waits = []

    for _ in range(7):
        waits.append(breaker.wait_s)
        clock.seconds += breaker.wait_s
        play(breaker, "f")

    assert waits == pytest.approx([0.25, 0.5, 1, 2, 4, OPEN_S_MAX, OPEN_S_MAX])


def test_a_successful_probe_closes_it_and_the_next_wait_is_short_again() -> None:
    """Nothing is remembered of the time before."""
    clock = FakeClock()
    breaker, _ = opened(clock)
    for result in "ffs":
        clock.seconds += breaker.wait_s
        play(breaker, result)

    assert breaker.state is State.CLOSED
    play(breaker, "fffff")
    assert breaker.wait_s == pytest.approx(OPEN_S)


@pytest.mark.fault(23)
def test_a_cancelled_probe_makes_room_for_the_next_at_once() -> None:
    """A client that leaves proves nothing, and must not leave the breaker probing for ever."""
    clock = FakeClock()
    breaker, _ = opened(clock)
    clock.seconds += OPEN_S
    play(breaker, "c")

    play(breaker, "s")

    assert breaker.state is State.CLOSED


def test_a_probe_that_never_reports_does_not_wedge_it() -> None:
    """After five seconds it counts as lost, and its late word counts for nothing."""
    clock = FakeClock()
    breaker, _ = opened(clock)
    clock.seconds += OPEN_S
    lost = breaker.admit()
    assert lost is not None

    clock.seconds += PROBE_S_MAX
    play(breaker, "s")
    breaker.failed(lost)

    assert breaker.state is State.CLOSED


def test_results_of_calls_from_before_a_change_count_for_nothing() -> None:
    """A success that was under way while it opened does not close it; a failure does not reopen it."""
    clock = FakeClock()
    breaker, _ = make(clock)
    tickets = [breaker.admit() for _ in range(8)]
    for ticket in tickets[:5]:
        assert ticket is not None
        breaker.failed(ticket)
    assert tickets[5] is not None

    breaker.succeeded(tickets[5])
    assert breaker.admit() is None
    clock.seconds += OPEN_S
    play(breaker, "s")
    for ticket in [*tickets[6:]] * 3:
        assert ticket is not None
        breaker.failed(ticket)
    assert breaker.state is State.CLOSED


def test_probes_between_are_not_announced() -> None:
    """One word when it opens and one when it closes, so a log has one line for each."""
    clock = FakeClock()
    breaker, changes = opened(clock)
    for result in "fffcfs":
        clock.seconds += breaker.wait_s
        play(breaker, result)

    assert changes == [State.OPEN, State.CLOSED]
    assert breaker.opened == 1


def test_jitter_only_shortens() -> None:
    """The limit is a promise; proxies that opened together still probe apart."""
    waits = []
    for jitter in (0.0, 0.5, 1.0):
        breaker, _ = make(FakeClock(), jitter)
        play(breaker, "fffff")
        waits.append(breaker.wait_s)

    assert waits == pytest.approx([OPEN_S, 0.9 * OPEN_S, 0.8 * OPEN_S])


def test_trip_opens_it_at_once_and_only_once() -> None:
    """For one who knows more than five failures tell."""
    breaker, changes = make(FakeClock())

    breaker.trip()
    breaker.trip()

    assert breaker.admit() is None
    assert changes == [State.OPEN]


ROUNDING_S = 1e-9
"""What adding up seconds and taking them off again may leave: 17.5 + 5 - 17.5 is 5, other sums miss it by a bit."""


class BreakerMachine(RuleBasedStateMachine):
    """Calls begin, end, are cancelled and are lost in any order while time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.changes: list[State] = []
        self.breaker = Breaker(self.clock, lambda: 0.5, self.changes.append)
        self.running: list[int] = []

    @rule()
    def begin(self) -> None:
        """A call goes exactly when it may."""
        before, wait_s = self.breaker.state, self.breaker.wait_s
        ticket = self.breaker.admit()
        if before is State.CLOSED or wait_s == 0:
            assert ticket is not None, "a call that may go was turned away"
        else:
            assert ticket is None, "a call went while it was open"
        if ticket is not None:
            self.running.append(ticket)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), how=st.sampled_from(["succeeded", "failed", "cancelled", "lost"]))
    def end(self, data: st.DataObject, how: str) -> None:
        """While it is open, no late result changes anything."""
        ticket = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        before = self.breaker.state
        if how != "lost":
            getattr(self.breaker, how)(ticket)
        if before is State.OPEN or how == "lost":
            assert self.breaker.state is before

    @rule(seconds=st.floats(0, 10))
    def pass_time(self, seconds: float) -> None:
        """Up to twice the longest wait."""
        self.clock.seconds += seconds

    @invariant()
    def waits_are_bounded_so_it_cannot_get_stuck(self) -> None:
        """There is always a next call."""
        assert 0 <= self.breaker.wait_s <= max(OPEN_S_MAX, PROBE_S_MAX) + ROUNDING_S
        assert (self.breaker.state is State.CLOSED) <= (self.breaker.wait_s == 0)

    @invariant()
    def changes_alternate(self) -> None:
        """Opened, closed, opened, …"""
        assert self.changes == [State.OPEN, State.CLOSED] * (len(self.changes) // 2) + [State.OPEN] * (
            len(self.changes) % 2
        )
        assert self.breaker.opened == self.changes.count(State.OPEN)

    def teardown(self) -> None:
        """Whatever happened: Redis answering again closes it within one wait and one call."""
        self.clock.seconds += self.breaker.wait_s + ROUNDING_S
        ticket = self.breaker.admit()
        assert ticket is not None
        self.breaker.succeeded(ticket)
        assert self.breaker.state is State.CLOSED


BreakerMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
TestBreakerInAnyOrder = BreakerMachine.TestCase
