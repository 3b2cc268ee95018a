"""`cacheproxy replay`: recorded asks at other thresholds, through the real embedder and the real guards.

Nothing is asked of Ollama, Redis or a running proxy. What it leaves out of the proxy's story: equal asks in flight,
eviction, what callers ask of the cache in headers, and thresholds of single models.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import typer

from cacheproxy.commands import asks as files
from cacheproxy.commands.evidence import with_progress
from cacheproxy.commands.stats import columns, share
from cacheproxy.config import Config
from cacheproxy.errors import ConfigError, EmbedderError, UnkeyableError
from cacheproxy.rules.guards import object_to
from cacheproxy.rules.question import Template, split, templates_of
from cacheproxy.rules.replay import Neighbours, Played, Result, play
from cacheproxy.whole.embedder import load_embedder
from cacheproxy.wire.dialects import BY_PATH
from cacheproxy.wire.jsontext import write
from embeddings.errors import EmbeddingsError
from embeddings.protocol import Embedder

ASKS_MAX = 50_000
"""Asks of a file. 20,000 different questions in one setting are compared in about a minute."""
KEPT_MAX = 200
"""Near questions remembered of one question: of so many, some are stored at any threshold."""
THRESHOLDS = (0.86, 0.88, 0.90, 0.92, 0.94, 0.96)

Room: TypeAlias = tuple[str, ...]
"""What two questions must have in common to be compared: model, form and setting."""


@dataclass(slots=True)
class Recording:
    """Asks with their questions numbered: number n is `texts[n]` in `rooms[n]`."""

    asks: list[Played] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    """Empty for an ask that is never compared by meaning."""
    rooms: list[Room] = field(default_factory=list)
    silent: int = 0
    """Records without a question."""
    bypassed: int = 0
    """Requests that go around the cache."""
    numbers: dict[tuple[Room, str], int] = field(default_factory=dict)

    def number(self, room: Room, text: str, identity: str) -> int:
        """The number of a question in its room; `identity` tells apart what has no question."""
        found = self.numbers.setdefault((room, text or identity), len(self.texts))
        if found == len(self.texts):
            self.texts.append(text)
            self.rooms.append(room)
        return found


@dataclass(frozen=True, slots=True)
class Report:
    """All that is told."""

    source: str
    notes: tuple[str, ...]
    in_use: float
    results: list[Result]


def run(settings: Config, path: Path, *, thresholds: Sequence[float], as_json: bool) -> None:
    """Print the report. Blocks for about 4 ms a question. Raises ConfigError for the file, EmbedderError."""
    recording = record(files.read(path, lines_max=ASKS_MAX), settings)
    try:
        embedder = load_embedder(settings)
        near, unread = neighbours(recording, embedder, settings.embedding.batch, lowest=min(thresholds))
    except EmbeddingsError as error:
        raise EmbedderError(str(error)) from error
    source = f"{len(recording.asks):,} asks of {path.name}, {len(recording.texts):,} different, by {embedder.model}"
    report = Report(
        source,
        tuple(_notes(recording, unread)),
        settings.semantic.threshold,
        judge(recording, near, thresholds, settings),
    )
    typer.echo(json.dumps(told(report), indent=2) if as_json else "\n".join(lines(report)))


def read_thresholds(text: str, in_use: float) -> list[float]:
    """The thresholds of `.88,.90`, rising, with the one in use; without any those of THRESHOLDS. Raises ConfigError."""
    found = {in_use}
    for part in text.split(",") if text.strip() else map(str, THRESHOLDS):
        try:
            value = float(part)
        except ValueError:
            value = 0.0
        if not 0 < value <= 1:
            raise ConfigError(f"--threshold {text}: {part.strip()!r} is no similarity between 0 and 1, such as .92")
        found.add(value)
    return sorted(found)


def record(asks: Iterable[files.Recorded], settings: Config) -> Recording:
    """The asks as the cache would take them apart. Pure."""
    recording, templates = Recording(), templates_of(settings.semantic)
    for ask in asks:
        if ask.path:
            number = _of_body(recording, ask, templates, settings)
        elif ask.question:
            number = recording.number((ask.model, ask.scope), ask.question, "")
        else:
            recording.silent += 1
            continue
        if number is None:
            recording.bypassed += 1
            continue
        recording.asks.append(Played(number, ask.time, ask.label))
    return recording


def _of_body(
    recording: Recording, recorded: files.Recorded, templates: Sequence[Template], settings: Config
) -> int | None:
    """The number of a request's question; None for one that goes around the cache."""
    dialect = BY_PATH.get(recorded.path)
    if dialect is None:
        return None
    try:
        ask = dialect.parse(write(dict(recorded.body)))
    except UnkeyableError:
        return None
    if ask.temperature is not None and ask.temperature > settings.cache.max_temperature:
        return None
    parts = split(ask, templates, max_temperature=settings.semantic.max_temperature)
    room = (ask.model, ask.family, parts.setting.decode())
    return recording.number(room, parts.question, ask.canonical.decode())


def neighbours(recording: Recording, embedder: Embedder, batch: int, *, lowest: float) -> tuple[Neighbours, int]:
    """Which questions lie near which, and how many the embedder does not read to their end. Raises EmbeddingsError."""
    texts = sorted({text for text in recording.texts if text}, key=len)
    readable = [text for text in texts if embedder.fits(text)]
    place = {text: at for at, text in enumerate(readable)}
    rooms: dict[Room, list[int]] = defaultdict(list)
    for number, (room, text) in enumerate(zip(recording.rooms, recording.texts, strict=True)):
        if text in place:
            rooms[room].append(number)
    near: dict[int, list[tuple[int, float]]] = {}
    vectors: dict[str, Any] = {}
    for start in with_progress(range(0, len(readable), batch), "embedding"):
        part = readable[start : start + batch]
        vectors.update(zip(part, embedder.embed(part), strict=True))
    for numbers in rooms.values():
        near |= _in_room(numbers, [vectors[recording.texts[number]] for number in numbers], lowest)
    return near, len(texts) - len(readable)


def _in_room(numbers: Sequence[int], vectors: Sequence[Any], lowest: float) -> dict[int, list[tuple[int, float]]]:
    """Those near each question of a room, nearest first. `vectors`: float32 of unit length."""
    near: dict[int, list[tuple[int, float]]] = {}
    if len(numbers) == 1:
        return near
    stacked = vectors[0][None, :].repeat(len(vectors), axis=0)
    for at, vector in enumerate(vectors):
        stacked[at] = vector
    for at, number in enumerate(numbers):
        similarities = stacked @ vectors[at]
        places = (similarities >= lowest).nonzero()[0].tolist()
        found = sorted(((float(similarities[one]), numbers[one]) for one in places if one != at), reverse=True)
        near[number] = [(other, similarity) for similarity, other in found[:KEPT_MAX]]
    return near


def judge(recording: Recording, near: Neighbours, thresholds: Sequence[float], settings: Config) -> list[Result]:
    """A result for each threshold. Pure."""

    @cache
    def objects(one: int, other: int) -> bool:
        return object_to(recording.texts[one], recording.texts[other], settings.semantic.guards) is not None

    return [play(recording.asks, near, one, objects=objects, ttl_s=settings.cache.ttl) for one in thresholds]


def _notes(recording: Recording, unread: int) -> Iterable[str]:
    if not recording.asks:
        yield "nothing to replay: no record has a question; `tail --json` writes them only where log.prompts is on"
    if recording.silent:
        yield f"{recording.silent:,} records without a question left out"
    if recording.bypassed:
        yield f"{recording.bypassed:,} requests left out that go around the cache"
    if unread:
        yield f"{unread:,} questions are longer than the embedder reads: exact hits only"
    if any(ask.time is None for ask in recording.asks):
        yield "asks without a time: their answers never expire here, so the rates are upper bounds"


def lines(report: Report) -> list[str]:
    """The report for a person. Pure."""
    labelled = any(result.judged for result in report.results)
    head = ["THRESHOLD", "EXACT", "SEMANTIC", "MISS", "HIT RATE", *(["WRONG", "OF HITS", "95 %"] if labelled else [])]
    rows = [_row(result, report.in_use, labelled=labelled) for result in report.results]
    return [report.source, *report.notes, "", *columns([head, *rows]), "", "* in use"]


def _row(result: Result, in_use: float, *, labelled: bool) -> list[str]:
    sign = "*" if result.threshold == in_use else " "
    row = [f"{sign} {result.threshold:g}", *(f"{count:,}" for count in (result.exact, result.semantic, result.miss))]
    row.append(share(result.hit_rate))
    if not labelled:
        return row
    low, high = result.interval
    interval = f"{100 * low:.1f}-{100 * high:.1f}%" if result.judged else "-"
    return [*row, f"{result.wrong:,}/{result.judged:,}", share(result.wrong_rate), interval]


def told(report: Report) -> dict[str, Any]:
    """The report as JSON. Rates are 0..1, null where there was nothing to count. Pure."""
    return {
        "source": report.source,
        "notes": list(report.notes),
        "threshold_in_use": report.in_use,
        "rows": [
            {
                "threshold": one.threshold,
                "asks": one.asks,
                "exact": one.exact,
                "semantic": one.semantic,
                "miss": one.miss,
                "hit_rate": one.hit_rate,
                "judged": one.judged,
                "wrong_hits": one.wrong,
                "wrong_hit_rate": one.wrong_rate,
                "wrong_hit_rate_low": one.interval[0],
                "wrong_hit_rate_high": one.interval[1],
            }
            for one in report.results
        ],
    }
