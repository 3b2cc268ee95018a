"""What the main process and a front say to each other: one line of JSON each, on a socket nobody else has.

    main ──► front   Start, then Orders in the order in which things happened
    front ──► main   Reports: that an order was carried out, and how asks were answered since the last one

Pure. Both ends are one version of this program, started by one another, so a line that cannot be read is a defect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from cacheproxy.model import Decision, Identity, Outcome
from cacheproxy.upstream.loaded import LoadedModel, Wish
from cacheproxy.upstream.view import View

LINE_BYTES_MAX = 64 * 1024**2
"""Longest line, bytes; the longest are the asks of a tenth of a second."""


@dataclass(frozen=True, slots=True)
class Start:
    """The first line: what a front is."""

    config: Mapping[str, Any]
    """As `config.Config` dumps itself, with the address of the port and of Redis as they are in use."""
    inside: str
    """Path of the Unix socket on which the main process serves what a front does not."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a front is to do; what is not set is not ordered."""

    number: int = 0
    """To be named in a report when the order was carried out; 0: no word is needed."""
    view: View | None = None
    """Identify models by this from now on."""
    clear: bool = False
    """Forget all copies of answers."""
    forget: str = ""
    """Forget the copy of the answer under this key: another one has taken its place."""
    config: Mapping[str, Any] | None = None
    """Take over what is live of this configuration."""
    drain_s: float | None = None
    """Take no more callers, finish what is under way within this time, and end."""


@dataclass(frozen=True, slots=True)
class Gauges:
    """A front at one moment."""

    in_flight: int = 0
    memory_entries: int = 0
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """What happened at a front since its last report. The first one says that it listens."""

    done: int = 0
    """Number of the order that was carried out; 0: none."""
    decisions: tuple[tuple[Decision, int], ...] = ()
    """How asks were answered, and how many so."""
    wishes: Mapping[str, Wish] = field(default_factory=dict)
    """What callers asked of models, by digest."""
    faults: Mapping[str, int] = field(default_factory=dict)
    gauges: Gauges = Gauges()


def encode(message: Start | Order | Report) -> bytes:
    """One line."""
    return orjson.dumps(message) + b"\n"


def read_start(line: bytes) -> Start:
    """The start in a line."""
    return Start(**orjson.loads(line))


def read_order(line: bytes) -> Order:
    """The order in a line."""
    members = orjson.loads(line)
    if members["view"] is not None:
        members["view"] = _view(**members["view"])
    return Order(**members)


def read_report(line: bytes) -> Report:
    """The report in a line."""
    members = orjson.loads(line)
    members["decisions"] = tuple((_decision(**told), count) for told, count in members["decisions"])
    members["wishes"] = {digest: Wish(**wish) for digest, wish in members["wishes"].items()}
    members["gauges"] = Gauges(**members["gauges"])
    return Report(**members)


def _view(
    trusted_s: float, identities: list[Any], loaded: list[Any], wishes: Mapping[str, Any], tells_loaded: bool
) -> View:
    return View(
        trusted_s,
        tuple(Identity(**identity) for identity in identities),
        tuple(LoadedModel(**model) for model in loaded),
        {digest: Wish(**wish) for digest, wish in wishes.items()},
        tells_loaded,
    )


def _decision(outcome: str, neighbour: None, **members: Any) -> Decision:
    """A front answers nothing by nearness, so there is never a neighbour."""
    return Decision(Outcome(outcome), neighbour=neighbour, **members)
