"""What a row of the ledger holds: asks as named whole numbers, and rows read back as sums.

A row covers a minute, ten minutes or an hour. Of asks it holds marginal sums, one field an outcome and label of one
dimension (`m|exact|llama3.2:latest`), and what was saved; of neighbours one field a group, hundredth of similarity and
model (`served|94|llama3.2:latest`), and those really answered by meaning. Whole numbers only: sums over many proxies do
not drift.
Pure. Refuses to know Redis and time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from cacheproxy.counting import outcomes
from cacheproxy.metrics import Group
from cacheproxy.model import Outcome

Row: TypeAlias = dict[str, int]
"""Field to number, as it is written."""
Read: TypeAlias = dict[tuple[str, str, str], int]
"""The same as it is read: the field in its three parts."""
Sums: TypeAlias = dict[str, int]
"""Asks by outcome, and what was saved."""

MODEL, DIALECT, PARTITION = "m", "d", "p"
SAVED_MS, SAVED_TOKENS = "saved_ms", "saved_tokens"
ANSWERED = "answered"
"""Beside the groups of `near` rows: asks that were really answered by meaning, in no bin."""
LOWEST_BIN, HIGHEST_BIN = 50, 100
"""Hundredths of similarity that have a row of their own; what lies below is counted in the lowest."""
PARTITION_DIGITS = 8
"""Leading hex digits of a partition that name it here: enough to tell apart as many as are told apart."""


def bin_of(similarity: float) -> int:
    """The hundredth a similarity lies in: the largest `n` with `n / 100 <= similarity`, between the lowest and 100.

    Compared as `rules/accept.py` compares with a threshold, so of a threshold in whole hundredths all that reach it
    lie in its bin or above, and all that do not lie lower. `int(similarity * 100)` would put 0.57 into 56.
    """
    found = int(similarity * 100) if similarity > 0 else 0
    while (found + 1) / 100 <= similarity and found < HIGHEST_BIN:
        found += 1
    while found / 100 > similarity and found > LOWEST_BIN:
        found -= 1
    return max(LOWEST_BIN, min(HIGHEST_BIN, found))


def ask_fields(outcome: Outcome, labels: Mapping[str, str], numbers: tuple[int, int, int]) -> Iterator[tuple[str, int]]:
    """The fields of some asks of one outcome; `labels` by dimension; `numbers`: asks, ms saved, tokens saved."""
    asks, saved_ms, saved_tokens = numbers
    for dimension, label in labels.items():
        if label:
            yield f"{dimension}|{outcome}|{label}", asks
    if saved_ms:
        yield f"{MODEL}|{SAVED_MS}|{labels[MODEL]}", saved_ms
    if saved_tokens:
        yield f"{MODEL}|{SAVED_TOKENS}|{labels[MODEL]}", saved_tokens


def near_field(group: str, at: int, model: str) -> str:
    """The field of neighbours of one group, bin and model."""
    return f"{group}|{at}|{model}"


def add(row: Row, fields: Iterable[tuple[str, int]]) -> None:
    """Add numbers to a row."""
    for field, number in fields:
        row[field] = row.get(field, 0) + number


def read(found: Mapping[bytes, bytes]) -> Read:
    """A row as Redis holds it; what this program did not write is left out."""
    row: Read = {}
    for field, number in found.items():
        try:
            first, second, third = field.decode().split("|", 2)
            row[first, second, third] = int(number)
        except ValueError:
            continue
    return row


def by_label(rows: Iterable[Read], dimension: str = MODEL) -> dict[str, Sums]:
    """Sums by the label of a dimension.

    Every ask has a model's label and a dialect's, so these two give the same totals. Those without a partition are in
    no `PARTITION`. What was saved is known by `MODEL` only.
    """
    found: dict[str, Sums] = {}
    for row in rows:
        for (its_dimension, what, label), number in row.items():
            if its_dimension == dimension:
                sums = found.get(label)
                if sums is None:
                    sums = found[label] = {}
                sums[what] = sums.get(what, 0) + number
    return found


def together(parts: Iterable[Mapping[str, int]]) -> Sums:
    """The sum of sums."""
    found: Sums = {}
    for part in parts:
        add(found, part.items())
    return found


def totals(found: Mapping[str, int]) -> dict[str, Any]:
    """Such sums as the operator's port shows them."""
    saved = {"saved_seconds": found.get(SAVED_MS, 0) / 1000, "saved_tokens": found.get(SAVED_TOKENS, 0)}
    return outcomes.totals(found) | saved


def answered(rows: Iterable[Read], model: str | None = None) -> int:
    """Asks answered by meaning; of one model, or None for all."""
    return sum(
        number
        for row in rows
        for (group, _at, its_model), number in row.items()
        if group == ANSWERED and model in (None, its_model)
    )


def histogram(rows: Iterable[Read], model: str | None = None) -> list[dict[str, Any]]:
    """Neighbours by similarity, a row for each hundredth from the lowest on; of one model, or None for all."""
    counts = {at: dict.fromkeys((group.value for group in Group), 0) for at in range(LOWEST_BIN, HIGHEST_BIN + 1)}
    for row in rows:
        for (group, at, its_model), number in row.items():
            if group in counts[LOWEST_BIN] and at.isdecimal() and int(at) in counts and model in (None, its_model):
                counts[int(at)][group] += number
    return [{"at": at / 100, **groups} for at, groups in counts.items()]
