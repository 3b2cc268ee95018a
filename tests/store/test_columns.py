"""A row of the ledger adds up to what was told, and puts each similarity where the threshold puts it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.metrics import Group
from cacheproxy.model import Neighbour, Outcome
from cacheproxy.rules.accept import accept
from cacheproxy.store import columns
from cacheproxy.store.columns import DIALECT, MODEL, PARTITION

LABELS = st.text(max_size=12)
CELLS = st.lists(
    st.tuples(
        st.sampled_from(Outcome),
        LABELS.filter(bool),
        LABELS.filter(bool),
        LABELS,
        st.tuples(st.integers(1, 9), st.integers(0, 99), st.integers(0, 99)),
    ),
    max_size=30,
)


def neighbour(similarity: float, threshold: float, verdict: str = "") -> Neighbour:
    """As `flow/near.py` words it, the guards apart."""
    found = accept("", "", similarity, threshold=threshold, guards=())
    return Neighbour("", similarity, threshold, verdict or found.reason or "serve")


@given(CELLS)
def test_sums_read_back_are_those_told(cells):
    """Whatever characters a label has, over models and over dialects alike."""
    row: columns.Row = {}
    for outcome, model, dialect, partition, numbers in cells:
        labels = {MODEL: model, DIALECT: dialect, PARTITION: partition}
        columns.add(row, columns.ask_fields(outcome, labels, numbers))
    read = columns.read({field.encode(): str(number).encode() for field, number in row.items()})

    by_model, by_dialect = columns.by_label([read]), columns.by_label([read], DIALECT)
    whole = columns.totals(columns.together(by_model.values()))
    for outcome in Outcome:
        told = sum(numbers[0] for found, *_, numbers in cells if found is outcome)
        assert whole["outcomes"][outcome] == told
        assert columns.together(by_dialect.values()).get(outcome, 0) == told
    assert whole["saved_tokens"] == sum(numbers[2] for *_, numbers in cells)
    assert round(whole["saved_seconds"] * 1000) == sum(numbers[1] for *_, numbers in cells)
    for model, sums in by_model.items():
        assert columns.totals(sums)["asks"] == sum(numbers[0] for _o, name, *_, numbers in cells if name == model)


@given(st.floats(-0.1, 1.1) | st.integers(0, 100).map(lambda at: at / 100), st.integers(51, 100))
def test_a_similarity_lies_on_the_side_of_a_whole_threshold_where_its_verdict_is(similarity, threshold):
    """So the slider at the present threshold shows what is really served, to the ask."""
    found = neighbour(similarity, threshold / 100)

    assert (columns.bin_of(similarity) >= threshold) == found.served
    assert Group.of(found) == (Group.SERVED if found.served else Group.BELOW)


def test_what_is_not_a_number_lies_in_the_lowest_row():
    """It is never served either."""
    assert columns.bin_of(float("nan")) == columns.bin_of(-1.0) == columns.bin_of(0.123) == 50
    assert [columns.bin_of(at / 100) for at in range(50, 101)] == list(range(50, 101))


def test_every_refusal_but_the_thresholds_is_a_guards():
    """What people said of a pair, and a guard that raised, are no question of similarity."""
    verdicts = ["guard:numbers", "guard:raised", "feedback"]

    assert {Group.of(neighbour(0.95, 0.9, verdict)) for verdict in verdicts} == {Group.GUARDED}


def test_a_histogram_has_a_row_for_each_hundredth_and_is_of_one_model_if_asked():
    """Empty rows too, so that a page need not fill gaps."""
    row = columns.read({b"served|94|a": b"2", b"below|50|a": b"1", b"guarded|94|b|c": b"3", b"m|exact|a": b"9"})

    rows = {found["at"]: found for found in columns.histogram([row])}
    assert list(rows) == [at / 100 for at in range(50, 101)]
    assert rows[0.94] == {"at": 0.94, Group.SERVED: 2, Group.BELOW: 0, Group.GUARDED: 3}
    assert sum(found[Group.GUARDED] for found in columns.histogram([row], "b|c")) == 3
    assert sum(found[Group.SERVED] for found in columns.histogram([row], "b|c")) == 0


def test_fields_of_somebody_elses_are_left_out():
    """A foreign value under our key costs its own figure only."""
    assert columns.read({b"m|exact|a": b"x", b"\xff": b"1", b"plain": b"1", b"m|miss|a": b"2"}) == {
        ("m", "miss", "a"): 2
    }
