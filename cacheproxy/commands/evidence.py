"""What `cacheproxy tune` judges by: labelled pairs of questions out of a file, or the record of shadow mode.

Both become pairs with a similarity, a verdict and the guard that objects, exactly as the proxy would see them.
Refuses to guess a label: a row without one is an error that names its line.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track

from cacheproxy.commands.asks import why_unreadable
from cacheproxy.commands.store import quiet, reached
from cacheproxy.config import Config
from cacheproxy.errors import ConfigError, EmbedderError
from cacheproxy.rules.guards import object_to
from cacheproxy.rules.tuning import Scored
from cacheproxy.store.shadow import Shadow, ShadowRecord
from cacheproxy.whole.embedder import load_embedder
from embeddings.errors import EmbeddingsError
from embeddings.protocol import Embedder

PAIRS_MAX = 200_000
"""Rows read of a file: a quarter of an hour of embedding, and more than anybody labels."""
RECORDS_MAX = 20_000
"""Records read of shadow mode, the newest: twice what it keeps."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """One row of a file: two questions, whether one answer serves both, and the kind of pair, if it was named."""

    a: str
    b: str
    right: bool
    family: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The pairs, and what a person should know of them."""

    pairs: list[Scored]
    source: str
    """One line: how many, of what, by which embedder."""
    notes: tuple[str, ...] = ()
    families: str = "family"
    """What a pair's family is called."""


def of_pairs(path: Path, settings: Config) -> Evidence:
    """The pairs of a file. Blocks for about 4 ms a pair. Raises ConfigError for the file, EmbedderError."""
    rows = list(read_pairs(path))
    try:
        embedder = load_embedder(settings)
        scored = list(_scored(rows, embedder, settings))
    except EmbeddingsError as error:
        raise EmbedderError(str(error)) from error
    notes = []
    if left_out := len(rows) - len(scored):
        notes.append(
            f"{left_out:,} left out: a question is longer than the embedder reads, or has signs it does not know"
        )
    return Evidence(scored, f"{len(scored):,} pairs of {path.name}, embedded by {embedder.model}", tuple(notes))


def read_pairs(path: Path) -> Iterator[Labelled]:
    """The rows of a file, empty lines left out. Raises ConfigError that names the line."""
    count = 0
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    count += 1
                    if count > PAIRS_MAX:
                        raise ConfigError(f"{path}: more than {PAIRS_MAX:,} pairs; take a sample of them")
                    yield _labelled(line, f"{path}:{number}")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {why_unreadable(error)}") from error


def _labelled(line: str, where: str) -> Labelled:
    example = '{"a": "a question", "b": "another", "y": 1}'
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not JSON ({error}); expected {example}") from error
    if not isinstance(row, dict):
        raise ConfigError(f"{where}: no JSON object; expected {example}")
    for name in ("a", "b"):
        if not isinstance(row.get(name), str):
            raise ConfigError(f'{where}: "{name}" is {"no text" if name in row else "missing"}; expected {example}')
    if row.get("y") not in (0, 1):
        told = f'"y" is {json.dumps(row["y"])}' if "y" in row else '"y" is missing'
        raise ConfigError(f"{where}: {told}; expected 1 where one answer serves both questions, else 0")
    return Labelled(row["a"], row["b"], bool(row["y"]), str(row.get("fam") or ""))


def _scored(rows: Sequence[Labelled], embedder: Embedder, settings: Config) -> Iterator[Scored]:
    """The pairs the embedder reads to their end, a batch at a time. Raises EmbeddingsError."""
    size = settings.embedding.batch
    for start in with_progress(range(0, len(rows), size), "embedding"):
        batch = [row for row in rows[start : start + size] if embedder.fits(row.a) and embedder.fits(row.b)]
        vectors = embedder.embed([text for row in batch for text in (row.a, row.b)])
        similarities = (vectors[0::2] * vectors[1::2]).sum(axis=1).tolist()
        for row, similarity in zip(batch, similarities, strict=True):
            objection = object_to(row.a, row.b, settings.semantic.guards) or ""
            yield Scored(similarity, row.right, objection, row.family)


def with_progress(starts: range, title: str) -> Iterator[int]:
    """A bar on standard error, for people only."""
    yield from track(starts, title, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


def of_shadow(settings: Config, *, alike: float) -> Evidence:
    """What shadow mode wrote down. Raises ConfigError, StoreUnavailableError."""
    with quiet():
        records = asyncio.run(_read_records(settings))
    source = f"{len(records):,} near match{'' if len(records) == 1 else 'es'} that shadow mode wrote down"
    if not records:
        source += '; it does so while semantic.mode = "shadow"'
    else:
        source += f" ({_day(records[-1])} to {_day(records[0])})"
    estimate = f"an estimate: taken as right is what Ollama then answered in much the same words (--alike {alike:g})"
    return Evidence([_judged(record, settings, alike) for record in records], source, (estimate,), families="model")


def _judged(record: ShadowRecord, settings: Config, alike: float) -> Scored:
    """A record as a pair. What somebody reported as wrong is wrong, however alike the answers are."""
    reported = record.reason == "feedback"
    objection = next((name for name in record.guards if name in settings.semantic.guards), "")
    if record.reason in ("feedback", "guard:raised"):
        objection = objection or record.reason.removeprefix("guard:")
    return Scored(record.similarity, record.likeness >= alike and not reported, objection, record.model)


def _day(record: ShadowRecord) -> str:
    try:
        return time.strftime("%Y-%m-%d", time.localtime(record.time))
    except (OverflowError, ValueError, OSError):
        return "?"  # a clock far off, or a foreign writer


async def _read_records(settings: Config) -> list[ShadowRecord]:
    """The newest records, newest first. Starts the embedded Redis for the moment if no proxy runs it."""
    async with reached(settings) as connection:
        return await Shadow(connection, settings.redis.prefix, prompts=False).read(RECORDS_MAX)
