"""What is asked of the search module names nobody's text, and its replies are read or refused, never guessed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.store.entry import FIELDS, space_of, vector_field
from cacheproxy.store.search import about, index_for, neighbours, timed_out

INDEX = index_for("cacheproxy", "model-1-mean-unit", 4)
RESP2 = [2, b"k1", [b"d", b"0.25", b"answer", b"x"], b"k2", None]
RESP3 = {
    b"total_results": 2,
    b"results": [
        {b"id": b"k1", b"extra_attributes": {b"d": b"0.25", b"answer": b"x"}},
        {b"id": b"k2", b"extra_attributes": None},
    ],
    b"warning": [],
}
JUNK = st.recursive(
    st.none() | st.integers() | st.binary(max_size=8) | st.floats() | st.sampled_from([b"results", b"id", b"d"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.binary(max_size=4) | st.just(b"results"), inner),
)


@pytest.mark.fault(29)
@pytest.mark.fault(30)
@pytest.mark.parametrize(
    ("prefix", "fingerprint", "dims"),
    [("other", "model-1-mean-unit", 4), ("cacheproxy", "model-2-mean-unit", 4), ("cacheproxy", "model-1-mean-unit", 8)],
)
def test_what_must_not_meet_has_another_index_and_what_differs_in_vectors_another_field(prefix, fingerprint, dims):
    """The index's name carries prefix, embedder, dims and schema version."""
    other = index_for(prefix, fingerprint, dims)

    assert other.name != INDEX.name
    assert other.shape != INDEX.shape
    assert INDEX.name == "cacheproxy:near:model-1-mean-unit:4:2"
    if prefix == "cacheproxy":
        assert other.space != INDEX.space


def test_only_tags_and_the_vector_are_indexed():
    """Never a text; and only entries that have a vector of this embedder."""
    field = vector_field(space_of("model-1-mean-unit", 4))
    schema = INDEX.create[INDEX.create.index("SCHEMA") + 1 :]

    assert [word for word in schema if word in (*FIELDS, field)] == ["scope", "model", "partition", field]
    assert schema.count("TAG") == schema.count("CASESENSITIVE") == 3
    assert "TEXT" not in schema
    assert INDEX.create[INDEX.create.index("FILTER") + 1] == f"exists(@{field})"


@pytest.mark.fault(38)
@given(scope=st.text(max_size=50))
def test_the_query_is_the_same_whatever_the_scope(scope):
    """It travels as a parameter."""
    command = INDEX.search(scope, b"v" * 8, alias="d", k=5, timeout_ms=40)

    assert command[2] == INDEX.search("aa", b"v" * 8, alias="d", k=5, timeout_ms=40)[2]
    assert command[command.index("PARAMS") + 3] == scope


@pytest.mark.fault(42)
@pytest.mark.parametrize("reply", [RESP2, RESP3], ids=["RESP2", "RESP3"])
def test_both_protocols_say_the_same(reply):
    """An expired document has no fields."""
    first, second = neighbours(reply, "d")

    assert (first.key, first.values, first.similarity) == ("k1", (None, b"x", *[None] * (len(FIELDS) - 2)), 0.75)
    assert (second.key, second.values) == ("k2", ())


@pytest.mark.parametrize(
    ("distance", "similarity"),
    [
        (b"0", 1.0),
        (b"2", -1.0),
        (b"1", 0.0),
        (b"-1.2e-07", 1.0),
        (b"2.0000002", -1.0),
        (b"-0.001953125", 1.0),
        (b"0.0799999833107", 0.92),
    ],
)
def test_distance_becomes_similarity(distance, similarity):
    """Within -1..1, also where arithmetic in float32 or float16 leaves it a little."""
    (found,) = neighbours([1, b"k", [b"d", distance, b"answer", b"x"]], "d")

    assert found.similarity == pytest.approx(similarity, abs=1e-7)
    assert -1 <= found.similarity <= 1


@pytest.mark.parametrize("distance", [b"nan", b"inf", b"-1", b"-0.02", b"2.02", b"3", b"", b"x"])
def test_what_is_no_distance_is_no_similarity(distance):
    """NaN above all, which compares with every threshold as false."""
    with pytest.raises(ValueError, match=r"distance|float"):
        neighbours([1, b"k", [b"d", distance, b"answer", b"x"]], "d")


def test_a_reply_without_our_name_for_the_distance_is_refused():
    """It belongs to another query."""
    with pytest.raises(ValueError, match="without distance"):
        neighbours(RESP2, "e")


@given(reply=JUNK)
def test_any_reply_is_read_or_refused(reply):
    """Nothing else is raised."""
    for read in (lambda: neighbours(reply, "d"), lambda: about(reply)):
        try:
            read()
        except ValueError:
            continue


@pytest.mark.fault(34)
def test_a_timeout_beside_a_result_is_seen():
    """RESP3 has a place for it; RESP2 has none."""
    assert timed_out(RESP3 | {b"warning": [b"Timeout limit was reached"]})
    assert not timed_out(RESP3)
    assert not timed_out(RESP2)
