"""From pairs of questions with a verdict to the threshold to choose: how many hits each gives, and how many are wrong.

A *pair* is an asked and a stored question, a *hit* a pair that would be served, a *wrong hit* one whose two questions
have different answers. The wrong-hit rate is a share of the hits, not of the pairs, so that pairs nobody would ever
serve cannot make it look better. A threshold is proposed for what is proven of it, the upper end of the rate's 95 %
interval, never for the rate alone: no wrong hit in ten is no evidence for one in two hundred.
Refuses to know where pairs and their similarities come from.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LABELS_MIN = 100
"""With fewer pairs no threshold is proposed: 100 hits without a wrong one still allow for one in 27."""
THRESHOLDS = tuple(percent / 100 for percent in range(80, 100))
"""What is looked at. At 0.80 one pair of questions in three already has two answers (Quora pairs)."""
_Z = 1.959964
"""Standard normal quantile of a two-sided 95 % interval."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One pair. `similarity`: cosine; `right`: one answer serves both; `objection`: the guard that objects, if any."""

    similarity: float
    right: bool
    objection: str = ""
    family: str = ""


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of `pairs`, of which `right` may share an answer. Rates are 0..1, None where nothing was counted."""

    pairs: int
    right: int
    hits: int
    wrong: int
    """Wrong hits."""

    @property
    def hit_rate(self) -> float | None:
        """Hits of all pairs."""
        return _share(self.hits, self.pairs)

    @property
    def wrong_rate(self) -> float | None:
        """Wrong hits of all hits: 1 - precision."""
        return _share(self.wrong, self.hits)

    @property
    def interval(self) -> tuple[float, float]:
        """Where the wrong-hit rate lies with 95 % certainty."""
        return wilson(self.wrong, self.hits)

    @property
    def precision(self) -> float | None:
        """Right hits of all hits."""
        return _share(self.hits - self.wrong, self.hits)

    @property
    def recall(self) -> float | None:
        """Right hits of all pairs that may share an answer."""
        return _share(self.hits - self.wrong, self.right)


@dataclass(frozen=True, slots=True)
class Row:
    """One threshold: `guarded` as the proxy would serve, `bare` by similarity alone."""

    threshold: float
    guarded: Tally
    bare: Tally


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of pairs at one threshold."""

    name: str
    guarded: Tally
    bare: Tally


@dataclass(frozen=True, slots=True)
class Objections:
    """What one guard does at one threshold. A pair to which several object counts for the first."""

    guard: str
    wrong_prevented: int
    right_lost: int


@dataclass(frozen=True, slots=True)
class Choice:
    """`row` is the threshold to use; None: see `reason`, and `best`, whose hits are proven least wrong (if any hit)."""

    row: Row | None
    best: Row | None = None
    reason: str = ""


def tabulate(pairs: Iterable[Scored], thresholds: Sequence[float]) -> list[Row]:
    """One row a threshold, which rise. A pair is a hit from its own similarity downward, as the proxy has it."""
    steps = [_Step() for _ in range(len(thresholds) + 1)]  # the first: below all thresholds
    for pair in pairs:
        step = steps[bisect_right(thresholds, pair.similarity)]
        step.pairs += 1
        step.right += pair.right
        if not pair.objection:
            step.let_through += 1
            step.let_through_right += pair.right
    rows = []
    total, right = sum(step.pairs for step in steps), sum(step.right for step in steps)
    for at, threshold in enumerate(thresholds, start=1):
        above = steps[at:]
        hits, hits_right = sum(step.let_through for step in above), sum(step.let_through_right for step in above)
        bare, bare_right = sum(step.pairs for step in above), sum(step.right for step in above)
        guarded = Tally(total, right, hits, hits - hits_right)
        rows.append(Row(threshold, guarded, Tally(total, right, bare, bare - bare_right)))
    return rows


@dataclass(slots=True)
class _Step:
    """Counts of the pairs between two thresholds."""

    pairs: int = 0
    right: int = 0
    let_through: int = 0
    let_through_right: int = 0


def choose(rows: Sequence[Row], max_wrong: float) -> Choice:
    """The lowest threshold at which wrong hits are proven to be at most `max_wrong` (0..1) of the hits.

    A threshold between which and the next higher one no pair is served is passed over: nothing speaks for it.
    """
    if not rows:
        return Choice(None, reason=f"not enough evidence (0 of {LABELS_MIN} labels)")
    hits_above = [*(row.guarded.hits for row in rows[1:]), 0]
    worth = [row for row, above in zip(rows, hits_above, strict=True) if row.guarded.hits > above]
    best = min(worth, key=lambda row: row.guarded.interval[1], default=None)
    everything = rows[0].guarded
    if everything.pairs < LABELS_MIN:
        return Choice(None, best, f"not enough evidence ({everything.pairs} of {LABELS_MIN} labels)")
    if everything.right == everything.pairs:
        return Choice(None, best, "not enough evidence (no pair is wrong, so nothing shows where wrong hits begin)")
    row = next((row for row in worth if row.guarded.interval[1] <= max_wrong), None)
    return Choice(row, best, "" if row else _unreachable(rows, best, max_wrong))


def _unreachable(rows: Sequence[Row], best: Row | None, max_wrong: float) -> str:
    span = f"{rows[0].threshold:g} to {rows[-1].threshold:g}"
    wish = f"at most {percent(max_wrong)} wrong hits"
    if best is None:
        return f"no pair would be served at {span}, so nothing shows that there are {wish}"
    tally = best.guarded
    found = f"{tally.wrong:,} of {tally.hits:,} hits wrong, so at most {percent(tally.interval[1])}"
    text = f"no threshold from {span} is proven to give {wish}; the best is {best.threshold:g} ({found})"
    if (tally.wrong_rate or 0.0) <= max_wrong:
        text += f". More pairs may show it: {percent(max_wrong)} takes {hits_needed(max_wrong):,} hits, none wrong"
    return text


def by_family(pairs: Iterable[Scored], threshold: float) -> list[Family]:
    """One line a family that is named, the most wrong hits first."""
    groups: defaultdict[str, list[Scored]] = defaultdict(list)
    for pair in pairs:
        if pair.family:
            groups[pair.family].append(pair)
    rows = ((name, tabulate(group, [threshold])[0]) for name, group in groups.items())
    families = [Family(name, row.guarded, row.bare) for name, row in rows]
    return sorted(families, key=lambda one: (-one.guarded.wrong, -one.bare.wrong, one.name))


def by_guard(pairs: Iterable[Scored], threshold: float) -> list[Objections]:
    """What each guard that objected at this threshold prevented and cost, the busiest first."""
    found = Counter((pair.objection, pair.right) for pair in pairs if pair.objection and pair.similarity >= threshold)
    guards = {guard for guard, _ in found}
    rows = [Objections(guard, found[guard, False], found[guard, True]) for guard in guards]
    return sorted(rows, key=lambda one: (-one.wrong_prevented - one.right_lost, one.guard))


def wilson(count: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; (0, 1) of nothing. It holds for small counts and shares near 0 as well.

    E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).
    """
    if not total:
        return 0.0, 1.0
    share, squared = count / total, _Z * _Z
    middle = (share + squared / (2 * total)) / (1 + squared / total)
    half = _Z / (1 + squared / total) * math.sqrt(share * (1 - share) / total + squared / (4 * total * total))
    # At the ends the formula is exact in numbers and off by 1e-17 in floats.
    return 0.0 if not count else max(0.0, middle - half), 1.0 if count == total else min(1.0, middle + half)


def hits_needed(max_wrong: float) -> int:
    """Hits without a wrong one that prove at most `max_wrong` (above 0): 765 for 0.005."""
    return math.ceil(_Z * _Z * (1 - max_wrong) / max_wrong)


def percent(share: float | None) -> str:
    """A share 0..1 with two digits behind the point at most (`0.5%`, `12%`); a dash for None."""
    return "-" if share is None else f"{100 * share:.2f}".rstrip("0").rstrip(".") + "%"


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
