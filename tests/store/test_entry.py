"""An entry is the same after Redis had it; anything else found under our keys is one known error."""

import string
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cacheproxy.errors import EntryCorruptError
from cacheproxy.model import Answer, Entry, Part
from cacheproxy.store.entry import (
    FIELDS,
    NEAR_ANSWER_BYTES_MAX,
    VERSION,
    decode,
    encode,
    size_bytes,
    space_of,
    vector_field,
)
from cacheproxy.wire.jsontext import read_answer, write

KEY = "cacheproxy:answer:00ff:abc:0.7"
HEX = st.text(string.hexdigits, max_size=32)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
MEMBERS = st.dictionaries(
    TEXT, TEXT | st.integers(-(2**53), 2**53) | st.booleans() | st.none() | st.just([1]), max_size=3
)
TIMES = st.integers(0, 4_000_000_000_000).map(lambda ms: ms / 1000)


def packed(*numbers: float, size: int = 0) -> bytes:
    """Little-endian float32, made up to `size` numbers."""
    return np.array([*numbers] + [0.0] * (size - len(numbers)), dtype="<f4").tobytes()


ENTRY = Entry(
    key=KEY,
    check=b"c" * 32,
    partition="ab",
    scope="cd",
    digest="ef",
    answer=Answer("text", final={"eval_count": 1}),
    made=1.5,
    expires=2.5,
)
ENTRIES = st.builds(
    Entry,
    key=st.just(KEY),
    check=st.binary(min_size=32, max_size=32),
    partition=HEX,
    scope=HEX,
    digest=HEX,
    answer=st.builds(
        Answer,
        text=TEXT,
        thinking=TEXT,
        tool_calls=st.lists(MEMBERS, max_size=2).map(tuple),
        logprobs=st.lists(MEMBERS, max_size=2).map(tuple),
        context=st.none() | st.lists(st.integers(0, 200_000), max_size=4).map(tuple),
        done_reason=st.sampled_from(["stop", "length"]),
        final=MEMBERS,
        missing=st.frozensets(st.sampled_from(Part)),
    ),
    made=TIMES,
    expires=TIMES,
    question=TEXT,
) | st.builds(
    lambda numbers: replace(ENTRY, vector=packed(*numbers), space="00ff_4"),
    st.lists(st.floats(-1, 1, width=16), min_size=4, max_size=4),
)


@given(entry=ENTRIES)
@example(entry=replace(ENTRY, answer=Answer('"tool_calls":null,"logprobs":null}', tool_calls=({"a": 1},))))
@example(entry=replace(ENTRY, answer=Answer("", final={"tool_calls": None, "logprobs": None})))
def test_an_entry_comes_back_as_it_went(entry):
    """Every field, whatever the model wrote."""
    assert decode(KEY, encode(entry)) == entry


def test_an_entry_of_an_earlier_program_lacks_nothing():
    """All that was kept before `missing` was there came from replies that tell everything."""
    fields = encode(ENTRY)

    assert b"missing" not in fields["answer"]
    assert decode(KEY, fields).answer.missing == frozenset()


def test_members_and_numbers_come_back_in_order_and_spelling():
    """Tool arguments in theirs, logprobs as Ollama wrote them."""
    line = b'{"tool_calls":[{"function":{"arguments":{"z":0.00001,"a":1.10}}}],"logprobs":[{"logprob":-1e-05}]}'
    parsed = read_answer(line)
    answer = Answer("", tool_calls=tuple(parsed["tool_calls"]), logprobs=tuple(parsed["logprobs"]))
    found = decode(KEY, encode(replace(ENTRY, answer=answer))).answer

    assert write({"tool_calls": found.tool_calls, "logprobs": found.logprobs}) == line


def test_the_fields_are_the_documented_ones():
    """And the answer's text stands in `answer` only, which no index covers."""
    fields = encode(replace(ENTRY, answer=Answer("SECRET TEXT")))

    assert tuple(fields) == FIELDS
    assert [name for name, value in fields.items() if b"SECRET" in value] == ["answer"]
    assert size_bytes(fields) == sum(len(value) for value in fields.values())


@pytest.mark.fault(20)
@pytest.mark.fault(21)
@pytest.mark.parametrize("version", [None, b"", b"0", b"2", b"1 ", b"\xff", b"99999999"])
def test_an_unknown_version_is_corrupt(version):
    """A newer program's entries are not guessed at."""
    with pytest.raises(EntryCorruptError, match="version"):
        decode(KEY, encode(ENTRY) | {"v": version})


@pytest.mark.fault(21)
@pytest.mark.parametrize("field", [name for name in FIELDS if name not in ("v", "check")])
@pytest.mark.parametrize("value", [None, b"\xff\xfe"])
def test_a_missing_or_garbled_field_is_corrupt(field, value):
    """Also if only one of them is."""
    fields = encode(ENTRY) | {field: value}
    with pytest.raises(EntryCorruptError):
        decode(KEY, fields)
    del fields[field]
    with pytest.raises(EntryCorruptError):
        decode(KEY, fields)


@pytest.mark.parametrize("field", ["made", "expires"])
@pytest.mark.parametrize("value", [b"nan", b"inf", b"-inf", b"1e999", b"soon", b""])
def test_a_time_that_is_none_is_corrupt(field, value):
    """An entry that expires at NaN would never expire."""
    with pytest.raises(EntryCorruptError):
        decode(KEY, encode(ENTRY) | {field: value})


@pytest.mark.fault(21)
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'"x"',
        b'{"text":"x"}',
        b'{"text":1,"thinking":"","context":null,"done_reason":"","final":{},"tool_calls":null,"logprobs":null}',
        b'{"text":"","thinking":"","context":"12","done_reason":"","final":{},"tool_calls":null,"logprobs":null}',
        b'{"text":"","thinking":"","context":["1"],"done_reason":"","final":{},"tool_calls":null,"logprobs":null}',
        b'{"text":"","thinking":"","context":null,"done_reason":null,"final":{},"tool_calls":null,"logprobs":null}',
        b'{"text":"","thinking":"","context":null,"done_reason":"","final":5,"tool_calls":null,"logprobs":null}',
        b'{"text":"","thinking":"","context":null,"done_reason":"","final":{},"tool_calls":"ab","logprobs":null}',
        b'{"text":"","thinking":"","context":null,"done_reason":"","final":{},"tool_calls":[1],"logprobs":null}',
        b'{"text":"","thinking":"","context":null,"done_reason":"","final":{},"tool_calls":null,"logprobs":{"a":1}}',
        b'{"missing":["x"],"text":"","thinking":"","context":null,"done_reason":"","final":{},"tool_calls":[],"logprobs":[]}',
        b'{"tool_calls":' + b"[" * 100_000,
        b"[" * 100_000,
    ],
)
def test_an_answer_that_encode_did_not_write_is_corrupt(answer):
    """Right JSON of a wrong form too: nothing behind may stumble over it."""
    with pytest.raises(EntryCorruptError):
        decode(KEY, encode(ENTRY) | {"answer": answer})


@pytest.mark.fault(20)
@pytest.mark.fault(21)
@given(
    changes=st.dictionaries(st.sampled_from(FIELDS), st.none() | st.binary(max_size=60), max_size=4),
    flip=st.integers(0, 10_000),
    field=st.sampled_from(FIELDS),
)
@settings(max_examples=300)
def test_random_bytes_are_an_entry_or_one_known_error(changes, flip, field):
    """A flipped bit, or anything at all under our key."""
    fields = dict(encode(ENTRY) | changes)
    if value := fields[field]:
        flipped = bytearray(value)
        flipped[flip % len(value)] ^= 1 << (flip % 8)
        fields[field] = bytes(flipped)
    try:
        found = decode(KEY, fields)
    except EntryCorruptError:
        return

    assert fields["v"] == VERSION
    assert isinstance(found.answer.text, str)
    assert encode(found).keys() == fields.keys()


@pytest.mark.fault(29)
@pytest.mark.fault(30)
def test_vectors_of_two_embedders_lie_in_two_fields():
    """Also where they have the same dims; an index over one field never sees the other."""
    ours, theirs = space_of("model-a-mean-unit", 4), space_of("model-b-mean-unit", 4)
    fields = encode(replace(ENTRY, vector=packed(1.0, size=4), space=ours))

    assert fields[vector_field(ours)] == np.array([1, 0, 0, 0], dtype="<f2").tobytes()
    assert vector_field(theirs) not in fields
    assert vector_field(space_of("model-a-mean-unit", 8)) not in fields


@pytest.mark.fault(31)
@pytest.mark.parametrize("size", [1, 12, 15, 17, 20, 64])
def test_a_vector_of_wrong_length_is_not_written(size):
    """Redis would take it and silently leave it out of the index."""
    with pytest.raises(EntryCorruptError, match=f"{size} bytes"):
        encode(replace(ENTRY, vector=b"v" * size, space=space_of("model-a", 4)))


@pytest.mark.fault(32)
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 65520.0, -1e30])
def test_a_number_beyond_float16_is_not_written(number):
    """It would be infinite in Redis, and every similarity with it no number."""
    with pytest.raises(EntryCorruptError, match="beyond float16"):
        encode(replace(ENTRY, vector=packed(1.0, number, size=4), space="00ff_4"))


@given(numbers=st.lists(st.floats(-1, 1, width=32), min_size=4, max_size=4))
def test_a_vector_comes_back_rounded_to_eleven_bits(numbers):
    """And is then the same however often it is written and read."""
    once = decode(KEY, encode(replace(ENTRY, vector=packed(*numbers), space="00ff_4")))

    assert np.frombuffer(once.vector, dtype="<f4") == pytest.approx(numbers, rel=2**-11, abs=2**-25)
    assert decode(KEY, encode(once)) == once


@pytest.mark.fault(29)
def test_a_vector_of_an_earlier_program_is_not_read():
    """It was float32, in a field of another name; the entry goes on as an exact answer."""
    space = space_of("model-a", 4)

    assert decode(KEY, encode(ENTRY) | {f"vector_{space}": packed(1.0, size=4)}) == ENTRY
    assert vector_field(space) != f"vector_{space}"


@pytest.mark.fault(31)
@pytest.mark.parametrize("size", [0, 1, 7, 9, 16])
def test_a_stored_vector_of_wrong_length_is_corrupt(size):
    """A foreign writer's."""
    with pytest.raises(EntryCorruptError, match=f"{size} bytes"):
        decode(KEY, encode(ENTRY) | {vector_field(space_of("model-a", 4)): b"v" * size})


def test_a_giant_answer_has_no_vector():
    """Each neighbour's whole answer travels with a near look-up's reply."""
    giant = replace(ENTRY, answer=Answer("x" * NEAR_ANSWER_BYTES_MAX), vector=packed(1.0, size=4), space="00ff_4")

    assert tuple(encode(giant)) == FIELDS


def test_an_error_shows_no_stored_text():
    """A prompt or an answer never gets into a log by way of its corruption."""
    with pytest.raises(EntryCorruptError) as caught:
        decode(KEY, encode(ENTRY) | {"answer": b'{"text":"SECRET"', "question": b"SECRET\xff"})

    assert "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_the_public_name_of_an_entry_is_the_hash_in_its_key():
    """As `X-Cache-Entry` shows it."""
    assert ENTRY.id == "00ff"
    assert replace(ENTRY, key="p:answer:x:answer:1:y").id == "x"
