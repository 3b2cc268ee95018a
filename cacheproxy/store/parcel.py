"""Entries as the lines of a signed file, and back.

    {"cacheproxy": "entries", "v": 1, "by": "key", "salt": …, "secret": …, …}      what it is, and how it is signed
    {"key": …, "fields": {…}, "check": …, "space": …, "vector": …}                 one entry a line
    {"entries": 2, "hmac": …}                                                      over every byte above

An entry proves which ask it answers by a digest keyed with its store's secret, and the ask itself is nowhere kept: so
an entry is worth nothing to a store with another secret, and no one can compute the digest anew. A parcel signed with
an operator's key therefore carries the secret too, encrypted; a store that holds nothing yet can take it over. One
signed with the store's own secret (no key given) can only come back to a store that has it already.
A line's vector is float32, as an `Entry` has it, so files from before Redis held float16 are read like those of today.
Signing and encrypting use two halves of scrypt(key, salt), fresh for each parcel. Refuses to talk to Redis.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import orjson

from cacheproxy.errors import EntryCorruptError, ParcelError
from cacheproxy.model import Entry
from cacheproxy.store import entry as entry_codec
from cacheproxy.store.half import halved, widened

VERSION = 1
LINE_BYTES_MAX = 64 * 1024**2
"""Longer than any answer that is kept."""
SECRET_BYTES = 32
_KEY = re.compile(r"[0-9a-f]{32}:[0-9a-f]{0,12}:[^:\s]{1,40}")


@dataclass(frozen=True, slots=True)
class Head:
    """The first line. `by`: what it is signed with, an operator's key or the store's own secret."""

    by: Literal["key", "store"]
    salt: bytes
    secret: bytes
    """The store's secret, encrypted; empty where that is what signs."""


@dataclass(frozen=True, slots=True)
class Sealer:
    """What a key and a salt make: one half signs, the other hides the secret."""

    signing: bytes
    hiding: bytes

    @classmethod
    def of(cls, key: bytes, salt: bytes) -> Sealer:
        """Takes 50 ms on purpose, so that a short key is not found by trying."""
        made = hashlib.scrypt(key, salt=salt, n=2**14, r=8, p=1, dklen=64)
        return cls(made[:32], made[32:])

    def hide(self, secret: bytes) -> bytes:
        """The secret encrypted, and the reverse: the salt is used for one parcel only, so this is a one-time pad."""
        return bytes(a ^ b for a, b in zip(secret, self.hiding, strict=True))


class Writer:
    """The lines of one parcel, to be written in this order: `head`, any number of `line`s, `tail`.

    `key`: the operator's; empty: the store's `secret` signs. `prefix` is the `redis.prefix` of the entries' keys.
    """

    def __init__(self, prefix: str, *, key: bytes, secret: bytes) -> None:
        self._prefix = prefix
        self._salt = secrets.token_bytes(16)
        self._sealer = Sealer.of(key or secret, self._salt)
        self._hidden = self._sealer.hide(secret) if key else b""
        self._signature = hmac.new(self._sealer.signing, digestmod="sha256")
        self.count = 0

    def head(self, *, made: float, version: str) -> bytes:
        """What it is. `made`: Unix time, s; `version`: of this program."""
        told = {
            "cacheproxy": "entries",
            "v": VERSION,
            "version": version,
            "made": made,
            "by": "key" if self._hidden else "store",
            "salt": self._salt.hex(),
            "secret": self._hidden.hex(),
        }
        return self._signed(told)

    def line(self, entry: Entry) -> bytes:
        """An entry, its vector included."""
        self.count += 1
        return self._signed(_told(entry, self._prefix))

    def tail(self) -> bytes:
        """The signature over all that was written."""
        return orjson.dumps({"entries": self.count, "hmac": self._signature.hexdigest()}) + b"\n"

    def _signed(self, told: dict[str, Any]) -> bytes:
        line = orjson.dumps(told) + b"\n"
        self._signature.update(line)
        return line


def _told(entry: Entry, prefix: str) -> dict[str, Any]:
    fields = entry_codec.encode(entry)
    vector = widened(fields.pop(entry_codec.vector_field(entry.space), b""))
    check = fields.pop("check")
    return {
        "key": entry.key.removeprefix(f"{prefix}:answer:"),
        "fields": {name: value.decode() for name, value in fields.items()},
        "check": base64.b64encode(check).decode(),
        "space": entry.space if vector else "",
        "vector": base64.b64encode(vector).decode(),
    }


def read_head(file: BinaryIO) -> Head:
    """The first line. Raises ParcelError."""
    told = _object(file.readline(LINE_BYTES_MAX), "the first line")
    if told.get("cacheproxy") != "entries":
        raise ParcelError("this is no file of cacheproxy's entries")
    if told.get("v") != VERSION:
        raise ParcelError(f"the file has version {told.get('v')!r}, this program reads {VERSION}")
    try:
        head = Head(told["by"], bytes.fromhex(told["salt"]), bytes.fromhex(told["secret"]))
    except (LookupError, ValueError, TypeError) as error:
        raise ParcelError("the first line of the file is damaged") from error
    if (head.by, len(head.secret)) not in (("key", SECRET_BYTES), ("store", 0)):
        raise ParcelError("the first line of the file is damaged")
    return head


def verify(file: BinaryIO, sealer: Sealer) -> int:
    """Read a parcel from its start; how many entries it has. Raises ParcelError unless its signature is right."""
    signature = hmac.new(sealer.signing, digestmod="sha256")
    last, count = b"", -1
    while line := file.readline(LINE_BYTES_MAX):
        if last:
            signature.update(last)
            count += 1
        last = line
    told = _object(last, "the last line")
    if not hmac.compare_digest(str(told.get("hmac", "")).encode(), signature.hexdigest().encode()):
        raise ParcelError("the signature is wrong: another key signed it, or the file was changed or cut off")
    return max(0, count)


def read(file: BinaryIO, count: int, prefix: str) -> Iterator[Entry | None]:
    """The entries after the first line; None for one that this program cannot read. `count`: as `verify` told."""
    for _ in range(count):
        try:
            yield _entry(_object(file.readline(LINE_BYTES_MAX), "a line"), prefix)
        except (ParcelError, EntryCorruptError, LookupError, ValueError, TypeError, AttributeError, binascii.Error):
            yield None


def _entry(told: dict[str, Any], prefix: str) -> Entry:
    if not _KEY.fullmatch(told["key"]):
        raise ValueError("no key of an entry")
    fields = {name: text.encode() for name, text in told["fields"].items()}
    fields["check"] = base64.b64decode(told["check"], validate=True)
    if told["space"]:
        vector = base64.b64decode(told["vector"], validate=True)
        fields[entry_codec.vector_field(told["space"])] = halved(vector)
    return entry_codec.decode(f"{prefix}:answer:{told['key']}", fields)


def _object(line: bytes, what: str) -> dict[str, Any]:
    try:
        told = orjson.loads(line)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise ParcelError(f"{what} is no JSON object: this is no file of cacheproxy's entries, or it was cut off")
    return told
