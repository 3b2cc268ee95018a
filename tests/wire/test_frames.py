"""Lines come out of a stream however it was cut into pieces, and never more than may be held."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.wire.frames import Lines


@given(
    lines=st.lists(st.binary(max_size=9).filter(lambda line: b"\n" not in line and b"\r" not in line), max_size=6),
    rest=st.binary(max_size=9).filter(lambda line: b"\n" not in line),
    ending=st.sampled_from([b"\n", b"\r\n"]),
    cuts=st.lists(st.integers(0, 60), max_size=8).map(sorted),
)
def test_pieces_and_lines_need_not_agree(lines, rest, ending, cuts):
    """A line may span many pieces and a piece may hold many lines."""
    data = b"".join(line + ending for line in lines) + rest
    reader = Lines(1000)
    found = [
        line for start, end in zip([0, *cuts], [*cuts, None], strict=True) for line in reader.feed(data[start:end])
    ]

    assert found == lines
    assert reader.rest() == rest
    assert not reader.overflow


def test_a_byte_at_a_time_is_a_stream_too():
    """As after the smallest of segments."""
    reader = Lines(10)

    assert [reader.feed(bytes([byte])) for byte in b"ab\n\nc"] == [[], [], [b"ab"], [b""], []]
    assert reader.rest() == b"c"


@pytest.mark.parametrize(
    "pieces", [[b"x" * 11], [b"x" * 8, b"x" * 3], [b"x" * 11 + b"\nab\n"], [b"x" * 8, b"xxx\nab\n"]]
)
def test_a_line_that_is_too_long_ends_the_lines(pieces):
    """Neither a part of it nor anything behind it comes out, and nothing is held."""
    reader = Lines(10)

    assert [reader.feed(piece) for piece in pieces] == [[]] * len(pieces)
    assert reader.overflow
    assert reader.feed(b"ab\n") == []
    assert reader.rest() == b""


def test_lines_before_the_one_that_is_too_long_come_out():
    """And one of exactly the limit is not too long."""
    reader = Lines(10)

    assert reader.feed(b"a\n" + b"x" * 10 + b"\n" + b"y" * 11) == [b"a", b"x" * 10]
    assert reader.overflow
