"""`cacheproxy export` and `import`: entries to a signed file, and back into this Redis or another.

Both go to Redis itself and not through the operator's port: that one tells texts only where `log.prompts` allows it,
and whoever can reach Redis has them anyway. A running proxy goes on serving meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import typer

from cacheproxy import __version__
from cacheproxy.commands.stats import counted
from cacheproxy.commands.store import quiet, reached
from cacheproxy.config import Config
from cacheproxy.errors import ConfigError, ParcelError
from cacheproxy.model import Entry
from cacheproxy.store import parcel
from cacheproxy.store.connection import Connection
from cacheproxy.store.entry import space_of
from cacheproxy.store.shelf import BATCH, Shelf
from cacheproxy.whole.embedder import load_embedder
from embeddings.errors import EmbeddingsError

KEY_CHARS_MIN = 8


@dataclass(slots=True)
class Imported:
    """What became of a file's entries."""

    kept: int = 0
    there: int = 0
    """Already in Redis, and left as they are."""
    expired: int = 0
    unreadable: int = 0
    vectors_dropped: int = 0
    """Of those kept: found by their key only, for their vectors are another embedder's."""
    secret_taken_over: bool = False


def export_file(settings: Config, path: Path, *, key: str, as_json: bool) -> None:
    """Write every live entry. Raises ConfigError, StoreUnavailableError."""
    _check_key(key)
    with quiet():
        count = asyncio.run(_export(settings, path, key.encode()))
    if as_json:
        typer.echo(json.dumps({"entries": count, "file": str(path), "signed_by": "key" if key else "store"}))
        return
    typer.echo(f"wrote {_entries(count)} to {path}, readable by you alone")
    if not key:
        typer.echo("signed by this Redis' own secret, so only it can take them back; --key lets another one do so")


def import_file(settings: Config, path: Path, *, key: str, as_json: bool) -> None:
    """Put the file's live entries into Redis. Raises ConfigError, ParcelError, StoreUnavailableError."""
    _check_key(key)
    space, why_none = own_space(settings)
    try:
        with path.open("rb") as file, quiet():
            found = asyncio.run(_import(settings, file, key.encode(), space))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    if as_json:
        typer.echo(json.dumps(asdict(found)))
        return
    typer.echo(
        f"kept {_entries(found.kept)}; already there {found.there:,}, expired {found.expired:,}, "
        f"unreadable {found.unreadable:,}"
    )
    if found.secret_taken_over:
        typer.echo("this Redis held nothing yet and took over the secret of the one that wrote the file")
    if found.vectors_dropped:
        why = why_none or "their vectors are another embedder's"
        typer.echo(f"{found.vectors_dropped:,} of them can be found by their exact question only: {why}")


def own_space(settings: Config) -> tuple[str, str]:
    """The vector space this configuration searches, or empty and why there is none. Blocks for about a second."""
    if settings.semantic.mode == "off":
        return "", "near answers are switched off (semantic.mode)"
    try:
        embedder = load_embedder(settings)
    except EmbeddingsError as error:
        return "", f"no embedder here ({error})"
    return space_of(embedder.fingerprint, embedder.dims), ""


async def _export(settings: Config, path: Path, key: bytes) -> int:
    async with reached(settings) as connection:
        prefix, now = settings.redis.prefix, time.time()
        writer = parcel.Writer(prefix, key=key, secret=connection.secret)
        with _written_whole(path) as file:
            file.write(writer.head(made=now, version=__version__))
            async for batch in Shelf(connection, prefix).every():
                for kept in batch:
                    if kept.entry.expires > now:
                        file.write(writer.line(kept.entry))
            file.write(writer.tail())
        return writer.count


@contextlib.contextmanager
def _written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` when all is written, and is readable by its owner alone."""
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


async def _import(settings: Config, file: BinaryIO, key: bytes, space: str) -> Imported:
    head = parcel.read_head(file)
    if head.by == "key" and not key:
        raise ParcelError("the file is signed with a key; give it with --key or CACHEPROXY_EXPORT_KEY")
    async with reached(settings) as connection:
        sealer = parcel.Sealer.of(key if head.by == "key" else connection.secret, head.salt)
        file.seek(0)
        try:
            count = parcel.verify(file, sealer)
        except ParcelError as error:
            if head.by == "key":
                raise
            raise ParcelError(
                "the signature is wrong: either the file was changed or cut off, or the secret of another Redis signed "
                "it; for this Redis export it there with --key"
            ) from error
        shelf = Shelf(connection, settings.redis.prefix)
        found = Imported(
            secret_taken_over=head.by == "key" and await _share(connection, shelf, sealer.hide(head.secret))
        )
        file.seek(0)
        file.readline(parcel.LINE_BYTES_MAX)
        entries = parcel.read(file, count, settings.redis.prefix)
        while batch := list(islice(entries, BATCH)):
            await _take(batch, shelf, space, found)
        return found


async def _share(connection: Connection, shelf: Shelf, secret: bytes) -> bool:
    """Make sure that this Redis has the secret that proves the entries; True if it took it over. Raises ParcelError."""
    if connection.secret == secret:
        return False
    if not await shelf.is_empty():
        raise ParcelError(
            "this Redis has a secret of its own and holds entries, which would be lost with it: an entry is proven by "
            "the secret of the Redis it was written to. Import into another redis.prefix, or purge and import first"
        )
    await shelf.adopt(secret)
    return True


async def _take(entries: Sequence[Entry | None], shelf: Shelf, space: str, found: Imported) -> None:
    """Keep some of the file's entries, and count what became of each."""
    now = time.time()
    alive = [entry for entry in entries if entry is not None and entry.expires > now]
    foreign = {entry.key for entry in alive if entry.vector and entry.space != space}
    put = await shelf.put_new(
        [replace(entry, vector=b"", space="") if entry.key in foreign else entry for entry in alive]
    )
    found.unreadable += sum(entry is None for entry in entries)
    found.expired += sum(entry is not None and entry.expires <= now for entry in entries)
    found.kept += len(put)
    found.there += len(alive) - len(put)
    found.vectors_dropped += len(put & foreign)


def _check_key(key: str) -> None:
    if key and len(key) < KEY_CHARS_MIN:
        raise ConfigError(
            f"--key: has {len(key)} characters; {KEY_CHARS_MIN} at least, or whoever has the file finds it"
        )


def _entries(count: int) -> str:
    return f"{count:,} entries" if count != 1 else counted(1, "entry")
