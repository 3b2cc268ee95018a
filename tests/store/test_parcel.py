"""A parcel gives back what was put in, and nothing of one that was changed or belongs to somebody else."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace

import numpy as np
import pytest

from cacheproxy.errors import ParcelError
from cacheproxy.model import Answer, Entry
from cacheproxy.store import parcel
from cacheproxy.store.entry import space_of

SECRET = bytes(range(32))
KEY = b"a key of ours"
SPACE = space_of("embedder", 2)
ENTRY = Entry(
    key=f"one:answer:{32 * 'a'}:{12 * 'b'}:0.7",
    check=bytes(range(32, 64)),
    partition="",
    scope=32 * "c",
    digest=64 * "b",
    answer=Answer(
        text="because\n\u2028 of \ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
        final={"eval_count": 3},
    ),
    made=1000.0,
    expires=4600.0,
    question="why?",
    vector=np.array([0.5, 0.75], dtype="<f4").tobytes(),
    space=SPACE,
)


def packed(*entries: Entry, key: bytes = KEY) -> bytes:
    """A parcel of one store's entries."""
    writer = parcel.Writer("one", key=key, secret=SECRET)
    lines = [writer.head(made=1.0, version="0"), *map(writer.line, entries)]
    return b"".join([*lines, writer.tail()])


def unpacked(data: bytes, key: bytes = KEY) -> list[Entry | None]:
    """Its entries under another prefix, after the signature was checked."""
    file = io.BytesIO(data)
    sealer = parcel.Sealer.of(key, parcel.read_head(file).salt)
    file.seek(0)
    count = parcel.verify(file, sealer)
    file.seek(0)
    file.readline()
    return list(parcel.read(file, count, "two"))


def test_entries_come_back_whole_under_the_other_prefix():
    """Answer, times, vector and check; with or without a vector, and none at all."""
    plain = replace(ENTRY, vector=b"", space="")

    assert unpacked(packed(ENTRY, plain)) == [
        replace(one, key=one.key.replace("one:", "two:")) for one in (ENTRY, plain)
    ]
    assert unpacked(packed()) == []


def test_a_line_holds_float32_as_files_of_earlier_versions_do():
    """So those come in too, rounded to what Redis holds; and earlier versions read the files of today."""
    line = json.loads(packed(ENTRY).splitlines()[1])
    assert base64.b64decode(line["vector"]) == ENTRY.vector
    line["vector"] = base64.b64encode(np.array([0.6, 0.8], dtype="<f4").tobytes()).decode()
    (found,) = parcel.read(io.BytesIO(json.dumps(line).encode() + b"\n"), 1, "two")

    assert found is not None
    assert np.frombuffer(found.vector, dtype="<f4") == pytest.approx([0.6, 0.8], rel=2**-11)
    assert found.space == SPACE


def test_the_secret_travels_only_hidden_and_only_with_a_key():
    """Who has the file alone learns nothing of it."""
    head = parcel.read_head(io.BytesIO(packed(ENTRY)))
    own = parcel.read_head(io.BytesIO(packed(ENTRY, key=b"")))

    assert parcel.Sealer.of(KEY, head.salt).hide(head.secret) == SECRET
    assert SECRET.hex().encode() not in packed(ENTRY)
    assert (own.by, own.secret) == ("store", b"")
    assert unpacked(packed(ENTRY, key=b""), SECRET) == unpacked(packed(ENTRY))


def test_another_key_is_refused():
    """Also the right one with a blank behind it."""
    with pytest.raises(ParcelError, match="signature"):
        unpacked(packed(ENTRY), KEY + b" ")


def test_every_change_is_found_before_an_entry_is_taken():
    """A byte turned, a line left out, doubled, or the end cut off."""
    data = packed(ENTRY, replace(ENTRY, question="how?"))
    lines = data.splitlines(keepends=True)
    changed = [data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in range(0, len(data) - 2, 37)]
    changed += [b"".join(lines[:1] + lines[2:]), b"".join(lines[:2] + lines[1:]), b"".join(lines[:-1]), lines[0], b""]

    for one in changed:
        with pytest.raises(ParcelError):
            unpacked(one)


@pytest.mark.parametrize(
    "head",
    [b"", b"[]\n", b"{}\n", b'{"cacheproxy": "entries", "v": 2}\n', b'{"cacheproxy": "entries", "v": 1, "by": "x"}\n'],
)
def test_what_is_no_parcel_is_told(head):
    """Before a key is even tried."""
    with pytest.raises(ParcelError):
        parcel.read_head(io.BytesIO(head))


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("key", "x:y"),
        ("key", 32 * "a" + ":" + 12 * "b" + ":\n"),
        ("check", "!"),
        ("fields", {}),
        ("vector", ""),
        ("vector", base64.b64encode(bytes(4)).decode()),
        ("vector", base64.b64encode(bytes(7)).decode()),
        ("vector", base64.b64encode(np.array([np.nan, 1], dtype="<f4").tobytes()).decode()),
        ("space", 7),
    ],
)
def test_a_signed_line_that_is_no_entry_is_left_out(member, value):
    """Another version may write what this one cannot read; the rest is still good."""
    line = json.loads(packed(ENTRY).splitlines()[1]) | {member: value}

    assert list(parcel.read(io.BytesIO(json.dumps(line).encode() + b"\n"), 1, "two")) == [None]
