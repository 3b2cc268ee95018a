"""A reply is recorded as it passes; only a complete one becomes an answer, and why not is one word."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.flow.record import Recorder
from cacheproxy.model import Answer
from cacheproxy.wire import chat, generate

CHUNK = b'{"message":{"role":"assistant","content":"x"},"done":false}\n'
LAST = b'{"message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","eval_count":1}\n'


def recorder(bytes_max=10_000, dialect=chat):
    """A recorder of one reply."""
    return Recorder(dialect.fold(), bytes_max=bytes_max)


@given(cuts=st.lists(st.integers(0, 300), max_size=6).map(sorted), ending=st.sampled_from([b"", b"\n"]))
def test_an_answer_comes_out_however_the_stream_was_cut(cuts, ending):
    """Chunks come out as they complete, each exactly once; the last needs no line end."""
    data = (CHUNK + CHUNK + LAST).removesuffix(b"\n") + ending
    record = recorder()
    chunks = [chunk for a, b in zip([0, *cuts], [*cuts, None], strict=True) for chunk in record.feed(data[a:b])]
    chunks += record.end()

    assert [chunk["done"] for chunk in chunks] == [False, False, True]
    assert record.answer() == Answer("xx", final={"eval_count": 1})
    assert (record.reason, record.too_large, record.unreadable) == ("", False, False)


@pytest.mark.parametrize("ending", [b"", b"\n"])
def test_an_unstreamed_reply_is_one_chunk(ending):
    """Models of the cloud end it with a line end."""
    record = recorder()
    record.feed(LAST.rstrip() + ending)
    record.end()

    assert record.answer() == Answer("", final={"eval_count": 1})


@pytest.mark.case(66)
def test_a_last_line_of_a_megabyte_is_recorded():
    """The context of a long conversation passes every usual limit of a line."""
    context = list(range(100_000, 250_000))
    line = b'{"response":"","done":true,"done_reason":"stop","context":[%s]}\n' % ",".join(map(str, context)).encode()
    record = recorder(bytes_max=2_000_000, dialect=generate)
    for start in range(0, len(line), 65_536):
        record.feed(line[start : start + 65_536])
    record.end()

    assert record.answer() == Answer("", context=tuple(context))


@pytest.mark.fault(47)
@pytest.mark.fault(49)
@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        pytest.param([], "no-done", id="nothing"),
        pytest.param([CHUNK], "no-done", marks=pytest.mark.case(98), id="silent end"),
        pytest.param([LAST.replace(b"true", b"false")], "no-done", marks=pytest.mark.case(98), id="done false"),
        pytest.param([CHUNK, b'{"error":"x"}\n'], "error", marks=pytest.mark.case(97), id="error line"),
        pytest.param([b'{"error":"x"}'], "error", marks=pytest.mark.case(97), id="error alone"),
        pytest.param([LAST, CHUNK], "after-done", id="more after the end"),
        pytest.param([LAST, LAST], "after-done", id="two answers"),
        pytest.param([CHUNK, b"\n", LAST], "malformed", id="blank line"),
        pytest.param([LAST, b"  "], "malformed", id="blanks at the end"),
        pytest.param([CHUNK, b'{"mess'], "malformed", id="half a line"),
        pytest.param([CHUNK, b"oops\n", LAST], "malformed", id="no JSON"),
        pytest.param([b"\xef\xbb\xbf" + CHUNK, LAST], "malformed", id="BOM"),
        pytest.param([CHUNK.replace(b"x", b"\xff"), LAST], "malformed", id="invalid UTF-8"),
        pytest.param([b'{"logprobs":' + b"[" * 9_000 + b"\n", LAST], "malformed", id="too deep"),
        pytest.param([b"[]\n", LAST], "malformed", id="no object"),
        pytest.param([b"{}\n", LAST], "malformed", id="no message"),
        pytest.param([CHUNK] * 200, "too-large", id="too large"),
        pytest.param([LAST, b"x" * 10_000], "too-large", id="too large after its end"),
        pytest.param([b"oops\n"] + [CHUNK] * 200, "too-large", id="malformed, then too large"),
    ],
)
def test_what_is_no_complete_answer_is_none(pieces, reason):
    """It is delivered all the same; only nothing of it is kept."""
    record = recorder()
    for piece in pieces:
        record.feed(piece)
    record.end()

    assert record.answer() is None
    assert record.reason == reason
    assert record.too_large == (reason == "too-large")


@pytest.mark.parametrize("line", [b"oops\n", b"\n", b'{"a":"\xff"}\n', b"[]\n"])
def test_behind_what_cannot_be_read_no_chunks_come_out(line):
    """Whoever converts the reply for another caller is told so."""
    record = recorder()

    assert record.feed(CHUNK) != []
    assert not record.unreadable
    assert [*record.feed(line), *record.feed(LAST), *record.end()] == []
    assert record.unreadable


def test_a_reply_of_exactly_the_limit_is_recorded():
    """One byte more is not."""
    assert [recorded_of(len(CHUNK + LAST) - less) for less in (0, 1)] == [Answer("x", final={"eval_count": 1}), None]


def recorded_of(bytes_max):
    """The answer that a recorder with this limit keeps of a small reply."""
    record = recorder(bytes_max)
    record.feed(CHUNK + LAST)
    record.end()
    return record.answer()
