"""The tier in the process: bounded, least recently used first out, and never an entry that is not the ask's."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.model import Answer, Entry, Part, Plan
from cacheproxy.store.memory import ENTRY_OVERHEAD_BYTES, Memory
from tests.fakes.clock import FakeClock

NOW = 1_000_000.0
ROOMY = 1_000_000


def entry(key="k", *, check=b"c", made=NOW, expires=NOW + 60, digest="d"):
    """An entry under a key."""
    return Entry(key, check, "", "", digest, Answer("x"), made=made, expires=expires)


def plan(key="k", *, check=b"c", max_age_s=None):
    """The plan of an ask for that key."""
    return Plan(key=key, check=check, max_age_s=max_age_s)


@pytest.fixture
def clock():
    """Time at NOW."""
    return FakeClock(NOW)


def test_what_was_put_is_got(clock):
    """And nothing else."""
    memory = Memory(ROOMY, clock)
    memory.put(entry(), 100)

    assert memory.get(plan()) == entry()
    assert memory.get(plan("other")) is None
    assert (len(memory), memory.size_bytes) == (1, 100 + ENTRY_OVERHEAD_BYTES)


@pytest.mark.fault(94)
@pytest.mark.parametrize("check", [b"", b"d", b"cc"])
def test_an_entry_of_another_check_is_not_served(clock, check):
    """Two asks whose keys collide never share; the entry stays for whom it is."""
    memory = Memory(ROOMY, clock)
    memory.put(entry(), 100)

    assert memory.get(plan(check=check)) is None
    assert memory.get(plan()) == entry()


@pytest.mark.parametrize("part", Part)
def test_an_answer_that_lacks_what_the_ask_needs_is_not_served(clock, part):
    """It stays for those who need less."""
    memory = Memory(ROOMY, clock)
    poor = replace(entry(), answer=Answer("x", missing=frozenset({part})))
    memory.put(poor, 100)

    assert memory.get(replace(plan(), needs=frozenset({part}))) is None
    assert memory.get(replace(plan(), needs=frozenset(Part) - {part})) == poor


def test_an_expired_entry_is_gone_at_that_moment(clock):
    """And its room is free again."""
    memory = Memory(ROOMY, clock)
    memory.put(entry(expires=NOW + 60), 100)
    clock.advance(59.9)
    assert memory.get(plan()) is not None

    clock.advance(0.1)
    assert memory.get(plan()) is None
    assert (len(memory), memory.size_bytes) == (0, 0)


def test_an_entry_older_than_the_caller_wants_is_a_miss_for_that_caller(clock):
    """Others still get it."""
    memory = Memory(ROOMY, clock)
    memory.put(entry(made=NOW - 10), 100)

    assert memory.get(plan(max_age_s=9.9)) is None
    assert memory.get(plan(max_age_s=10)) is not None
    assert memory.get(plan()) is not None


def test_the_least_recently_used_goes_first(clock):
    """Reading counts as use, a failed check does not."""
    memory = Memory(10 * (100 + ENTRY_OVERHEAD_BYTES), clock)
    for number in range(10):
        memory.put(entry(f"k{number}"), 100)
    memory.get(plan("k0"))
    memory.get(plan("k1", check=b"wrong"))
    memory.put(entry("new"), 100)

    assert memory.get(plan("k1")) is None
    assert memory.get(plan("k0")) is not None
    assert memory.get(plan("k2")) is not None
    assert len(memory) == 10


def test_putting_a_key_again_replaces_the_entry(clock):
    """Its size is counted once."""
    memory = Memory(ROOMY, clock)
    memory.put(entry(digest="old"), 100)
    memory.put(entry(digest="new"), 50)

    assert memory.get(plan()) == entry(digest="new")
    assert (len(memory), memory.size_bytes) == (1, 50 + ENTRY_OVERHEAD_BYTES)


def test_a_giant_is_not_held_and_takes_its_predecessor_along(clock):
    """An eighth of the room is the most for one entry; an older answer under its key must not be served instead."""
    memory = Memory(80_000, clock)
    memory.put(entry("other"), 100)
    memory.put(entry(), 10_000 - ENTRY_OVERHEAD_BYTES)
    assert memory.get(plan()) is not None

    memory.put(entry(), 10_001 - ENTRY_OVERHEAD_BYTES)
    assert memory.get(plan()) is None
    assert memory.get(plan("other")) is not None


def test_no_bytes_switch_the_tier_off(clock):
    """Nothing is ever held."""
    memory = Memory(0, clock)
    memory.put(entry(), 0)

    assert memory.get(plan()) is None
    assert (len(memory), memory.size_bytes) == (0, 0)


def test_purges_reach_what_they_name(clock):
    """One model's entries, or all."""
    memory = Memory(ROOMY, clock)
    for number in range(6):
        memory.put(entry(f"k{number}", digest=f"d{number % 2}"), 100)
    memory.forget(lambda held: held.digest == "d0")
    assert [memory.get(plan(f"k{number}")) is not None for number in range(6)] == [False, True] * 3

    memory.clear()
    assert (len(memory), memory.size_bytes) == (0, 0)
    assert memory.get(plan("k1")) is None


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["put", "get", "wait", "forget"]),
            st.sampled_from(["a", "b", "c", "d"]),
            st.integers(0, 3_000),
        ),
        max_size=40,
    )
)
def test_the_bound_holds_and_the_sum_adds_up_after_any_steps(steps):
    """No order of events makes it hold more than it may or miscount."""
    clock = FakeClock(NOW)
    memory = Memory(24_000, clock)
    sizes = {}
    for action, key, number in steps:
        if action == "put":
            memory.put(replace(entry(key), expires=clock.now() + 2_000), number)
            sizes[key] = number
        elif action == "get":
            memory.get(plan(key))
        elif action == "wait":
            clock.advance(number)
        else:
            memory.forget(lambda held, key=key: held.key == key)
        held = [each for each in "abcd" if each in memory._held]

        assert memory.size_bytes == sum(sizes[each] + ENTRY_OVERHEAD_BYTES for each in held) <= 24_000
        assert len(memory) == len(held)
