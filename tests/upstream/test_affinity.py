"""Which of several Ollamas an ask goes to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.upstream.affinity import LOADING_ROUNDS, Standing, home, ranked, weight

NAMES = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20), min_size=2, max_size=6, unique=True)
DIGESTS = st.lists(st.text("0123456789abcdef", min_size=64, max_size=64), min_size=1, max_size=30)


@given(NAMES, DIGESTS, st.data())
def test_taking_one_away_moves_only_its_own_models(names, digests, data):
    """And bringing it back moves them back: who else is there has no part in a model's weight."""
    gone = data.draw(st.sampled_from(names))
    rest = [name for name in names if name != gone]
    for digest in digests:
        assert home(digest, names) in (gone, home(digest, rest))


@given(NAMES, DIGESTS, st.randoms())
def test_a_home_does_not_depend_on_the_order_of_the_config(names, digests, random):
    """Two proxies whose files list the same Ollamas agree."""
    shuffled = random.sample(names, len(names))

    assert [home(digest, names) for digest in digests] == [home(digest, shuffled) for digest in digests]


def test_models_spread_over_all():
    """Each of three Ollamas is home to a fair share of 3000 models (a third, within a fifth of it)."""
    names = ["10.0.0.1:11434", "10.0.0.2:11434", "10.0.0.3:11434"]
    homes = [home(f"{number:064x}", names) for number in range(3000)]

    assert all(800 < homes.count(name) < 1200 for name in names)


def test_the_weight_is_what_it_was():
    """A golden value (`b2sum -l 64`): another would move every model of every installation at an update."""
    assert weight("127.0.0.1:11434", "a" * 64) == 0x5A1CC675FE93E39F


A, B = sorted(("one", "two"), key=lambda name: -weight(name, "d"))
"""A is the home of model d."""


def standing(name, *, up=True, loaded=False, rounds=0):
    """How one stands."""
    return Standing(name, up, loaded, rounds)


@pytest.mark.parametrize(
    ("first", "second", "wins"),
    [
        ({}, {}, A),  # nothing speaks against the home
        ({}, {"loaded": True}, B),  # loading costs seconds
        ({"loaded": True}, {"loaded": True}, A),
        ({"loaded": True, "rounds": 1}, {"loaded": True}, B),  # it would wait at home
        ({"loaded": True, "rounds": 1}, {}, A),  # waiting a round is cheaper than loading
        ({"loaded": True, "rounds": LOADING_ROUNDS + 1}, {}, B),  # now it is not
        ({"loaded": True, "rounds": 9}, {"loaded": True, "rounds": 8}, B),
        ({"up": False, "loaded": True}, {"rounds": 9}, B),  # one that is away is the last resort
        ({"up": False}, {"up": False}, A),
    ],
)
def test_what_decides_is_how_long_an_ask_would_wait(first, second, wins):
    """And where that is equal, the home."""
    order = ranked("d", [standing(B, **second), standing(A, **first)])

    assert order[0] == wins
    assert sorted(order) == sorted([A, B])
