"""Who goes to Ollama next, as tables and as properties over any schedule of coming, going and time."""

from __future__ import annotations

from itertools import combinations, cycle

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cacheproxy.upstream.order import Group, Limits, Order, Pairs, Ticket

A, B, C, D = (Group(name) for name in "ABCD")
A_LONG = Group("A", (("num_ctx", "8192"),))


def limits(**given: float) -> Limits:
    """One place a model, one model at once, a window of 50 ms, turns of 30 s."""
    table = {"parallel": 1, "models_at_once": 1, "waiting_max": 512, "window_s": 0.05, "together": 8, "turn_s": 30.0}
    return Limits(**(table | given))  # type: ignore[arg-type]


class Play:
    """An order with the asks that were let go, by name, in order."""

    def __init__(self, **given: float) -> None:
        self.order = Order(limits(**given))
        self.now_s = 0.0
        self.tickets: dict[str, Ticket] = {}
        self.gone: list[str] = []

    def come(self, *names: str) -> Play:
        """Asks named after their group (`A1`, `B1`; `a1` is A with other runner options)."""
        for name in names:
            group = A_LONG if name[0] == "a" else Group(name[0])
            self.tickets[name] = self.order.come(group, self.now_s)
            self._start()
        return self

    def leave(self, *names: str) -> Play:
        """These end, or their callers leave."""
        for name in names:
            self.order.leave(self.tickets.pop(name), self.now_s)
            self._start()
        return self

    def wait(self, seconds: float) -> Play:
        """Time passes."""
        self.now_s += seconds
        self._start()
        return self

    def run_dry(self) -> Play:
        """Whoever is in flight ends, oldest first, until nobody is left."""
        while self.order.in_flight:
            self.leave(next(name for name in self.gone if name in self.tickets))
        return self

    def _start(self) -> None:
        started = self.order.start(self.now_s)
        self.gone += [name for ticket in started for name, other in self.tickets.items() if other is ticket]


def test_an_ask_on_an_idle_ollama_goes_at_once():
    """There is nothing to wait for."""
    assert Play().come("A1").gone == ["A1"]


def test_asks_of_the_model_in_flight_go_at_once_while_there_are_places():
    """Ollama would run them side by side at once, so waiting would gain nothing."""
    play = Play(parallel=3).come("A1", "A2", "A3", "A4")

    assert play.gone == ["A1", "A2", "A3"]
    assert play.leave("A2").gone == ["A1", "A2", "A3", "A4"]


def test_a_model_to_be_loaded_beside_another_waits_for_the_end_of_the_window():
    """So that the load is for all who ask for it."""
    play = Play(models_at_once=2, parallel=2).come("A1", "B1")
    assert play.order.wake_s(play.now_s) == pytest.approx(0.05)

    assert play.wait(0.02).come("B2").gone == ["A1"]
    assert play.wait(0.031).gone == ["A1", "B1", "B2"]
    assert play.order.wake_s(play.now_s) is None


def test_enough_asks_together_end_the_window():
    """Once a batch is full, waiting gains nothing more."""
    assert Play(models_at_once=2, together=3).come("A1", "B1", "B2", "B3").gone == ["A1", "B1"]


def test_the_window_ends_when_ollama_becomes_idle():
    """A lone miss never waits for company on an idle Ollama."""
    assert Play(models_at_once=2).come("A1", "B1").leave("A1").gone == ["A1", "B1"]


def test_a_model_used_a_moment_ago_has_no_window():
    """It is still loaded, so there is no load to share: an embedding beside a chat is not held up."""
    play = Play(models_at_once=2).come("A1").leave("A1").come("B1").leave("B1")

    assert play.come("A2", "B2").gone == ["A1", "B1", "A2", "B2"]


def test_one_model_in_two_forms_never_runs_side_by_side():
    """Ollama keeps one copy of a model, and would load it anew for each."""
    play = Play(models_at_once=3, parallel=3).come("A1", "a1", "A2").wait(1.0)

    assert play.gone == ["A1", "A2"]
    assert play.leave("A1", "A2").gone == ["A1", "A2", "a1"]


def test_no_more_models_than_fit_are_in_flight():
    """Another one would push out a model in use."""
    play = Play(models_at_once=2).come("A1").wait(1).come("B1").wait(1).come("C1").wait(1)

    assert play.gone == ["A1", "B1"]
    assert play.leave("B1").gone == ["A1", "B1", "C1"]


@pytest.mark.parametrize("parallel", [1, 2, 4])
def test_alternating_asks_cost_one_load_a_model(parallel: int):
    """ABABAB… is sent as AAA…BBB…"""
    play = Play(parallel=parallel).come(*(f"{model}{number}" for number in range(20) for model in "AB")).run_dry()

    assert [name[0] for name in play.gone] == ["A"] * 20 + ["B"] * 20
    assert play.order.changes == 2


def test_a_model_that_waited_a_turn_gets_the_next_one():
    """However many asks come for the model in flight, and however old they are."""
    play = Play(parallel=2).come(*(f"A{number}" for number in range(9)), "B1", "B2")
    play.wait(29).leave("A0")
    assert play.gone == ["A0", "A1", "A2"]

    play.wait(1).leave("A1")
    assert play.gone == ["A0", "A1", "A2"]  # a free place, left free: A makes way
    assert play.leave("A2").gone == ["A0", "A1", "A2", "B1", "B2"]
    assert play.leave("B1", "B2").gone[5:] == ["A3", "A4"]


def test_only_the_model_that_stands_in_the_way_makes_way():
    """Others go on."""
    play = Play(models_at_once=2).come("A1").wait(1).come("B1").wait(1).come("a1", "A2", "B2").wait(30)

    assert play.leave("B1").gone == ["A1", "B1", "B2"]
    assert play.leave("A1").gone == ["A1", "B1", "B2", "a1"]


def test_asks_of_a_group_keep_their_order():
    """First come, first served."""
    play = Play().come(*(f"A{number}" for number in range(10)))

    assert play.leave("A5").run_dry().gone == ["A0", "A1", "A2", "A3", "A4", "A6", "A7", "A8", "A9"]


def test_more_than_may_wait_make_it_overfull():
    """Those in flight do not count."""
    play = Play(waiting_max=2).come("A1", "A2", "A3")
    assert not play.order.overfull

    assert play.come("A4").order.overfull
    assert not play.leave("A4").order.overfull


def test_where_fewer_fit_than_run_nothing_starts_until_the_rest_has_ended():
    """Whatever went to Ollama now would make it change models once more; then one after the other."""
    play = Play(models_at_once=3, parallel=2).come("A1", "A2", "A3", "B1").wait(0.05).come("B2", "B3")
    assert play.gone == ["A1", "A2", "B1", "B2"]
    play.order.learn(1)
    play.leave("A1", "B1")
    assert play.gone == ["A1", "A2", "B1", "B2"]
    play.leave("B2")
    assert play.gone == ["A1", "A2", "B1", "B2", "A3"]
    assert play.run_dry().gone[-2:] == ["A3", "B3"]
    assert play.come("A4", "B4").gone[-1] == "A4"


def test_two_that_do_not_fit_together_take_turns_beside_a_third():
    """And neither starves: one that is overdue makes the one that it does not fit with end."""
    play = Play(models_at_once=2, parallel=1)
    play.order.learn(2, frozenset({frozenset("AB")}))
    play.come("A1", "C1", "B1").wait(0.05)
    assert play.gone == ["A1", "C1"]
    assert (play.order.rounds(B), play.order.rounds(A)) == (2, 2)
    play.leave("C1").wait(0.05)
    assert play.gone == ["A1", "C1"]
    play.come("C2", "A2").wait(31).leave("A1")
    assert play.gone == ["A1", "C1", "C2", "B1"]
    assert play.leave("B1").gone[-1] == "A2"


def test_two_in_flight_that_turn_out_not_to_fit_together_end_first():
    """Nothing of either starts meanwhile."""
    play = Play(models_at_once=3, parallel=2).come("A1", "A2", "B1").wait(0.05).come("A3", "B2", "B3")
    play.order.learn(3, frozenset({frozenset("AB")}))
    assert play.leave("A1").gone == ["A1", "A2", "B1", "B2"]
    assert play.leave("A2").gone == ["A1", "A2", "B1", "B2"]
    assert play.leave("B1").gone[4:] == ["B3"]
    assert play.run_dry().gone[5:] == ["A3"]


def test_where_more_fit_than_was_thought_they_start():
    """At once, if their window is over."""
    play = Play().come("A1", "B1").wait(0.05)
    play.order.learn(2)
    assert play.wait(0).gone == ["A1", "B1"]


def test_one_that_fits_with_neither_of_two_that_fit_together_gets_its_turn():
    """What has made way for it does not start anew while it waits for the other."""
    play = Play(models_at_once=2)
    play.order.learn(2, frozenset({frozenset("AC"), frozenset("BC")}))
    play.come("A1", "B1").wait(0.05).come("A2", "B2", "C1").wait(30)
    play.leave("A1")
    assert play.gone == ["A1", "B1"]
    assert play.leave("B1").gone == ["A1", "B1", "C1"]
    assert play.leave("C1").gone[3:] == ["A2", "B2"]


STEPS = st.one_of(
    st.tuples(st.just("come"), st.sampled_from([A, B, C, D, A_LONG])),
    st.tuples(st.just("end"), st.integers(0, 20)),
    st.tuples(st.just("go away"), st.integers(0, 20)),
    st.tuples(st.just("wait"), st.sampled_from([0.01, 0.05, 1.0, 31.0])),
)


def test_while_nothing_is_known_only_asks_of_its_own_follow_a_second_model():
    """If it pushes the first one out, whatever else went there would bring that back at once."""
    play = Play(models_at_once=3, parallel=1)
    play.order.learn(3, unsure=True)
    play.come("A1", "A2", "B1", "B2", "C1").wait(0.05)

    assert play.gone == ["A1", "B1"]
    assert play.leave("A1").gone == ["A1", "B1"]
    assert play.leave("B1").gone == ["A1", "B1", "A2", "B2", "C1"]  # its replies told nothing: on as if three fit


def test_what_is_learnt_ends_the_trial_either_way():
    """All that fits goes on; or who was pushed out comes back when the other has had its turn."""
    for fits, gone in ((3, ["A1", "B1", "A2"]), (1, ["A1", "B1", "B2"])):
        play = Play(models_at_once=3, parallel=1)
        play.order.learn(3, unsure=True)
        play.come("A1", "A2", "B1", "B2").wait(0.05).leave("A1")
        play.order.learn(fits)
        play.wait(0)
        if fits == 1:
            play.leave("B1")

        assert play.gone == gone
        assert play.run_dry().order.in_flight == 0


class Schedule:
    """Any schedule, with what must hold after each step."""

    def __init__(self, parallel: int, models_at_once: int, apart: Pairs = frozenset(), *, unsure: bool = False) -> None:
        self.limits = limits(parallel=parallel, models_at_once=models_at_once)
        self.apart = apart
        self.order = Order(self.limits)
        self.order.learn(models_at_once, apart, unsure=unsure)
        self.now_s = 0.0
        self.waiting: list[Ticket] = []
        self.flying: list[Ticket] = []

    def step(self, kind: str, what: object) -> None:
        """Do one thing, let go who may, and check."""
        if kind == "come":
            self.waiting.append(self.order.come(what, self.now_s))  # type: ignore[arg-type]
        elif kind == "wait":
            self.now_s += what  # type: ignore[operator]
        elif some := (self.flying if kind == "end" else self.waiting):
            self.order.leave(some.pop(what % len(some)), self.now_s)  # type: ignore[operator]
        self.start()

    def start(self) -> None:
        """Let go who may."""
        for ticket in self.order.start(self.now_s):
            older = [other for other in self.waiting if other.group == ticket.group]
            assert older[0] is ticket
            self.waiting.remove(ticket)
            self.flying.append(ticket)
        self.check()

    def check(self) -> None:
        """The limits hold, the counts are right, and nobody waits for nothing."""
        groups = {ticket.group for ticket in self.flying}
        models = {group.model for group in groups}
        assert (self.order.waiting, self.order.in_flight) == (len(self.waiting), len(self.flying))
        assert len(models) == len(groups) <= self.limits.models_at_once
        assert not any(pair <= models for pair in self.apart)
        assert all(sum(t.group == group for t in self.flying) <= self.limits.parallel for group in groups)
        assert self.flying or not self.waiting
        wake_s = self.order.wake_s(self.now_s)
        assert wake_s is None or self.now_s < wake_s <= self.now_s + self.limits.window_s


@given(st.integers(1, 3), st.integers(1, 3), st.booleans(), st.lists(STEPS, max_size=60))
def test_whatever_happens_the_limits_hold_and_ollama_is_never_idle_while_someone_waits(parallel, models, unsure, steps):
    """Coming, ending, leaving and time in any order."""
    schedule = Schedule(parallel, models, unsure=unsure)
    for kind, what in steps:
        schedule.step(kind, what)
    while schedule.flying:
        schedule.step("end", 0)

    assert not schedule.waiting
    assert not schedule.order._lines


@given(st.integers(1, 3), st.integers(1, 2), st.booleans(), st.lists(STEPS, max_size=40), st.floats(0.1, 20))
def test_nobody_is_overtaken_without_end(parallel, models, unsure, steps, seconds):
    """Under a flood of asks for other models, each as long as `seconds`, one ask for D waits a bounded time."""
    schedule = Schedule(parallel, models, unsure=unsure)
    for kind, what in steps:
        schedule.step(kind, what)
    mine = schedule.order.come(D, schedule.now_s)
    schedule.waiting.append(mine)
    schedule.start()
    others = len([t for t in schedule.waiting if t.group == D])
    came_s = schedule.now_s
    while not mine.in_flight:
        for group in (A, B, C, A_LONG):
            schedule.step("come", group)
        schedule.step("wait", seconds)
        for _ in range(len(schedule.flying)):
            schedule.step("end", 0)
        # Four others may be overdue before it, each with a turn; and it may be behind asks of its own group.
        # So long the one trial may take besides.
        assert schedule.now_s - came_s <= (4 + unsure + others) * (schedule.limits.turn_s + 3 * seconds)


def test_a_trial_ends_for_an_overdue_group_of_its_own_model_as_well():
    """It wants the model loaded with other options, so it cannot run beside; callers of the trial's go on coming."""
    schedule = Schedule(2, 2, frozenset(), unsure=True)
    for kind, what in (("come", B), ("come", A_LONG), ("wait", 1), ("come", A)):
        schedule.step(kind, what)
    assert [ticket.group for ticket in schedule.flying] == [B, A_LONG]
    schedule.step("end", 0)
    while A not in {ticket.group for ticket in schedule.flying}:
        schedule.step("come", A_LONG)
        schedule.step("wait", 2)
        schedule.step("end", 0)
        assert schedule.now_s <= schedule.limits.turn_s + 4


@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.frozensets(st.sampled_from([frozenset(pair) for pair in combinations("ABCD", 2)])),
    st.booleans(),
    st.lists(STEPS, max_size=40),
    st.lists(st.floats(2, 20), min_size=1, max_size=12),
)
@example(2, 2, frozenset(), True, [("come", B), ("come", A_LONG)], [2.0])
def test_no_group_waits_without_end_whichever_models_are_apart(  # noqa: PLR0917 - Hypothesis gives them by place
    parallel, models, apart, unsure, steps, lasting
):
    """Each ask lasts some time of its own, and two more of its group come when it ends: all groups get their turns."""
    schedule, lasts_s = Schedule(parallel, models, apart, unsure=unsure), cycle(lasting)
    for kind, what in steps:
        schedule.step(kind, what)
    groups = (A, B, C, D, A_LONG)
    for group in groups * 2:
        schedule.step("come", group)
    ends_s: dict[Ticket, float] = {}
    served_s = dict.fromkeys(groups, schedule.now_s)
    # The four others may be overdue before it, and each has a turn that ends with what it runs.
    bound_s = 31.0 + schedule.limits.turn_s + (len(groups) + 1) * 2 * max(lasting)
    bound_s += unsure * (schedule.limits.turn_s + 2 * max(lasting))  # so long the one trial may take
    while schedule.now_s < 3 * bound_s:
        for ticket in schedule.flying:
            if ticket not in ends_s:
                ends_s[ticket] = schedule.now_s + next(lasts_s)
                served_s[ticket.group] = schedule.now_s
        running = {ticket.group for ticket in schedule.flying}
        for group in groups:
            assert group in running or schedule.now_s - served_s[group] <= bound_s, group
        ending = min(schedule.flying, key=ends_s.__getitem__)
        schedule.now_s = ends_s[ending]
        schedule.step("end", schedule.flying.index(ending))
        served_s[ending.group] = schedule.now_s
        waiting = [ticket.group for ticket in schedule.waiting].count(ending.group)
        if waiting < 2 * parallel:
            schedule.step("come", ending.group)
            schedule.step("come", ending.group)


@pytest.mark.parametrize(
    ("given", "coming", "group", "rounds"),
    [
        ({}, [], A, 0),
        ({}, ["A1"], A, 1),  # behind the one in flight
        ({"parallel": 2}, ["A1"], A, 0),
        ({}, ["A1", "A2"], A, 2),
        ({"parallel": 2}, ["A1", "A2", "A3"], A, 1),  # beside the one that waits
        ({"parallel": 2}, ["A1", "A2", "A3", "A4"], A, 2),
        ({"parallel": 2, "models_at_once": 2}, ["A1"], A_LONG, 1),  # one form of a model at a time
        ({}, ["A1"], B, 1),
        ({"models_at_once": 2}, ["A1"], B, 0),
    ],
)
def test_how_many_rounds_would_go_before_an_ask_is_known(given, coming, group, rounds):
    """0: it would go at once, but for the window."""
    order = Play(**given).come(*coming).order

    assert order.rounds(group) == rounds
    assert order.runs("A") == bool(coming)
