"""How good is a hit? Prints the tables of docs/explain/quality.md for this code on a folder of labelled questions.

    python -m benchmarks.quality FOLDER [--threshold 0.92] [--guards numbers,dates,...] [--json FILE]

The folder holds JSON lines; what is missing is skipped. Pairs `{a, b, y, fam}` (y = 1: one answer serves both) in
adversarial, checklist and qqp; streams `{q, key}` (same key = same answer) in banking77 and snips; questions on one
text `{ctx, q, ans}` in rag_questions. The pairs of tests/cases are measured with them.

A pair is served when its similarity reaches the threshold and no guard objects. In a stream an unanswered question is
stored, and one whose nearest stored questions hold an acceptable one is served. Embedding 20,000 questions takes two
to three minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cacheproxy.rules.guards import GUARDS, object_to
from cacheproxy.rules.replay import first_served
from embeddings.load import load

CASES = Path(__file__).parent.parent / "tests" / "cases"
BATCH = 64
TRAFFIC = {"repeat": 1000, "reworded": 600, "new": 400}
SEED = 7

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two questions with their similarity, the label, and the guard that objects ("" for none)."""

    a: str
    b: str
    same: bool
    family: str
    similarity: float
    objection: str


class Space:
    """Vectors of all texts, each embedded once."""

    def __init__(self, texts: Iterable[str], threads: int) -> None:
        embedder = load(threads=threads, offline=True)
        ordered = sorted(set(texts), key=len)  # texts of one length pad each other least
        batches = [embedder.embed(ordered[start : start + BATCH]) for start in range(0, len(ordered), BATCH)]
        self.vectors: npt.NDArray[np.float32] = np.concatenate(batches)
        self.place = {text: place for place, text in enumerate(ordered)}
        self.name = f"{embedder.model}, {embedder.engine}"

    def vector(self, text: str) -> npt.NDArray[np.float32]:
        """The unit vector of a text that was given to the constructor."""
        vector: npt.NDArray[np.float32] = self.vectors[self.place[text]]
        return vector

    def similarity(self, a: str, b: str) -> float:
        """Cosine of two such texts."""
        return float(self.vector(a) @ self.vector(b))


def read_folder(folder: Path) -> dict[str, list[Row]]:
    sets = {}
    for name in ("adversarial", "checklist", "qqp", "banking77", "snips", "rag_questions"):
        path = folder / f"{name}.jsonl"
        if path.exists():
            sets[name] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    sets["cases"] = [
        {**row, "y": label, "fam": row["family"]}
        for name, label in (("must_not_serve", 0), ("should_serve", 1))
        for row in map(json.loads, (CASES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines())
    ]
    return sets


def judge(rows: list[Row], space: Space, guards: Sequence[str]) -> list[Pair]:
    return [
        Pair(
            row["a"], row["b"], bool(row["y"]), row.get("test") or row.get("fam", "all"),
            space.similarity(row["a"], row["b"]), object_to(row["a"], row["b"], guards) or "",
        )
        for row in rows
    ]  # fmt: skip


def share(part: int, whole: int) -> str:
    return f"{part / whole:.3f}" if whole else "-"


def percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    print(f"\n### {title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(str(cell) for cell in row)} |")


def count_pairs(pairs: list[Pair], threshold: float) -> dict[str, int]:
    near = [pair for pair in pairs if pair.similarity >= threshold]
    served = [pair for pair in near if not pair.objection]
    return {
        "wrong": sum(not pair.same for pair in pairs),
        "right": sum(pair.same for pair in pairs),
        "wrong_near": sum(not pair.same for pair in near),
        "right_near": sum(pair.same for pair in near),
        "wrong_served": sum(not pair.same for pair in served),
        "right_served": sum(pair.same for pair in served),
    }


def print_pairs(judged: dict[str, list[Pair]], threshold: float) -> dict[str, Any]:
    counts = {name: count_pairs(pairs, threshold) for name, pairs in judged.items()}
    table(
        f"Pairs at {threshold}: cosine alone, then with guards",
        ("set", "pairs wrong / right", "precision", "with guards", "wrong pairs served", "with guards",
         "right hits kept", "recall with guards"),
        (
            (name, f"{c['wrong']} / {c['right']}", share(c["right_near"], c["right_near"] + c["wrong_near"]),
             share(c["right_served"], c["right_served"] + c["wrong_served"]), percent(c["wrong_near"], c["wrong"]),
             percent(c["wrong_served"], c["wrong"]), percent(c["right_served"], c["right_near"]),
             share(c["right_served"], c["right"]))
            for name, c in counts.items()
        ),
    )  # fmt: skip
    for name, pairs in judged.items():
        print_families(name, pairs, threshold)
    print_guards(judged, threshold)
    return counts


def print_families(name: str, pairs: list[Pair], threshold: float) -> None:
    families: dict[tuple[bool, str], list[Pair]] = defaultdict(list)
    for pair in pairs:
        families[pair.same, pair.family].append(pair)
    if len(families) < 3:
        return
    for same, title in ((False, "wrong pairs"), (True, "right pairs")):
        rows = []
        for (label, family), members in sorted(families.items()):
            if label is same:
                c = count_pairs(members, threshold)
                near, served = c["right_near" if same else "wrong_near"], c["right_served" if same else "wrong_served"]
                free = sum(not pair.objection for pair in members)
                rows.append((family, len(members), near, served, free))
        if rows:
            table(f"{name}: {title}", ("family", "pairs", "served by cosine", "with guards", "no guard objects"), rows)


def print_guards(judged: dict[str, list[Pair]], threshold: float) -> None:
    table(
        "Which guard objects (first one named), wrong / right pairs that cosine would serve",
        ("guard", *judged),
        ((guard, *(_objections(pairs, guard, threshold) for pairs in judged.values())) for guard in GUARDS),
    )


def _objections(pairs: list[Pair], guard: str, threshold: float) -> str:
    labels = Counter(pair.same for pair in pairs if pair.objection == guard and pair.similarity >= threshold)
    return f"{labels[False]} / {labels[True]}"


class Store:
    """Questions asked before, found by nearness as the semantic tier finds them."""

    def __init__(self, space: Space, threshold: float, guards: Sequence[str]) -> None:
        self.space = space
        self.threshold = threshold
        self.guards = guards
        self.vectors = np.empty_like(space.vectors)
        self.questions: list[tuple[str, str]] = []

    def add(self, question: str, key: str) -> None:
        """Store a question that was answered."""
        self.vectors[len(self.questions)] = self.space.vector(question)
        self.questions.append((question, key))

    def find(self, question: str) -> str | None:
        """Key of the nearest acceptable question, None for a miss."""
        similarities = self.vectors[: len(self.questions)] @ self.space.vector(question)
        ranked = ((place, float(similarities[place])) for place in map(int, np.argsort(-similarities)))

        def objects(place: int) -> bool:
            return object_to(question, self.questions[place][0], self.guards) is not None

        served = first_served(ranked, self.threshold, objects)
        return None if served is None else self.questions[served][1]


def stream(rows: list[Row], store: Store) -> dict[str, int]:
    hits = wrong = 0
    for row in rows:
        key = store.find(row["q"])
        if key is None:
            store.add(row["q"], row["key"])
        else:
            hits, wrong = hits + 1, wrong + (key != row["key"])
    return {"asks": len(rows), "hits": hits, "wrong": wrong}


def print_streams(sets: dict[str, list[Row]], space: Space, threshold: float, guards: Sequence[str]) -> dict[str, Any]:
    results = {
        (name, label): stream(sets[name], Store(space, threshold, enabled))
        for name in ("banking77", "snips")
        if name in sets
        for label, enabled in (("cosine alone", ()), ("with guards", guards))
    }
    table(
        "Streams: a miss is stored, a hit is right when both questions have one key",
        ("stream", "", "asks", "hits", "precision"),
        (
            (name, label, r["asks"], f"{r['hits']} ({percent(r['hits'], r['asks'])})",
             share(r["hits"] - r["wrong"], r["hits"]))
            for (name, label), r in results.items()
        ),
    )  # fmt: skip
    return {f"{name}, {label}": result for (name, label), result in results.items()}


def keys_of(rows: list[Row]) -> dict[str, str]:
    """Every question to the first question it shares its answer with, through any number of right pairs."""
    parent: dict[str, str] = {}

    def top(text: str) -> str:
        while parent.setdefault(text, text) != text:
            text = parent[text]
        return text

    for row in rows:
        one, other = top(row["a"]), top(row["b"])
        if row["y"]:
            parent[other] = one
    return {text: top(text) for text in list(parent)}


def traffic(rows: list[Row], *, hard: bool) -> tuple[list[str], list[tuple[str, str]], dict[str, str]]:
    """What is stored before, 2,000 asks `(kind, question)`, and the key of every question.

    Rewordings are of stored questions. New questions are drawn from all pairs; `hard`: each is the other half of a
    wrong pair whose first half is stored, which is far worse than real traffic.
    """
    draw = random.Random(SEED)
    key = keys_of(rows)
    shuffled = draw.sample(rows, len(rows))
    right = [row for row in shuffled if row["y"] and row["a"] != row["b"]][: TRAFFIC["reworded"]]
    known = [row["a"] for row in right]
    taken = {key[text] for text in known}
    new: dict[str, str] = {}
    for row in shuffled:
        if len(new) == TRAFFIC["new"]:
            break
        if not ({key[row["a"]], key[row["b"]]} & taken or row["y"]):
            new[key[row["b"]]] = row["b"]
            taken |= {key[row["a"]], key[row["b"]]}
            known += [row["a"]] if hard else []
    asks = [("reworded", row["b"]) for row in right] + [("new", text) for text in new.values()]
    asks += [("repeat", draw.choice(known)) for _ in range(TRAFFIC["repeat"])]
    return known, draw.sample(asks, len(asks)), key


def serve_traffic(rows: list[Row], store: Store, *, hard: bool) -> Counter[str]:
    """Kinds of hits and wrong hits. Exact repeats never reach the semantic tier."""
    known, asks, key = traffic(rows, hard=hard)
    for question in known:
        store.add(question, key[question])
    exact, counts = set(known), Counter({"asks": len(asks)})
    for kind, question in asks:
        found = key[question] if question in exact else store.find(question)
        counts[f"{kind} hit"] += found is not None
        counts["wrong"] += found not in (None, key[question])
        if found is None:
            store.add(question, key[question])
            exact.add(question)
    return counts


def print_traffic(sets: dict[str, list[Row]], space: Space, threshold: float, guards: Sequence[str]) -> dict[str, Any]:
    rows = [row for name in ("qqp", "adversarial") for row in sets.get(name, [])]
    if len(rows) < sum(TRAFFIC.values()):
        return {}
    results = {
        (title, label): serve_traffic(rows, Store(space, threshold, enabled), hard=hard)
        for title, hard in (("new questions at random", False), ("each new one has a near, different one stored", True))
        for label, enabled in (("cosine alone", ()), ("with guards", guards))
    }
    table(
        "Traffic: 50 % repeats, 30 % rewordings, 20 % new",
        ("traffic", "", "hit rate", "best possible", "rewordings served", "wrong hits, of all asks"),
        (
            (title, label, percent(c["repeat hit"] + c["reworded hit"] + c["new hit"], c["asks"]),
             percent(TRAFFIC["repeat"] + TRAFFIC["reworded"], c["asks"]),
             percent(c["reworded hit"], TRAFFIC["reworded"]), f"{c['wrong']} ({percent(c['wrong'], c['asks'])})")
            for (title, label), c in results.items()
        ),
    )  # fmt: skip
    return {f"{title}, {label}": dict(counts) for (title, label), counts in results.items()}


def print_contexts(rows: list[Row], space: Space, threshold: float, guards: Sequence[str]) -> dict[str, int]:
    """Questions on one text: those with different answers must never share one."""
    by_context: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_context[row["ctx"]].append(row)
    pairs = [
        (one, other)
        for questions in by_context.values()
        for one, other in combinations(questions, 2)
        if one["q"].strip() != other["q"].strip()
    ]
    counts: Counter[str] = Counter()
    for one, other in pairs:
        kind = "same answer" if _one_answer(one["ans"], other["ans"]) else "other answer"
        counts[f"{kind}: pairs"] += 1
        if space.similarity(one["q"], other["q"]) >= threshold:
            counts[f"{kind}: near"] += 1
            counts[f"{kind}: served"] += object_to(one["q"], other["q"], guards) is None
    table(
        "Two questions in one RAG context",
        ("", "pairs", "served by cosine", "with guards"),
        (
            (kind, counts[f"{kind}: pairs"], counts[f"{kind}: near"], counts[f"{kind}: served"])
            for kind in ("other answer", "same answer")
        ),
    )
    return dict(counts)


def _one_answer(one: str, other: str) -> bool:
    """The data marks answers as spans of the text, so one answer may be a little longer than the other."""
    short, long = sorted(
        (" ".join(one.lower().split()).strip("."), " ".join(other.lower().split()).strip(".")), key=len
    )
    return short in long


def main() -> None:
    parser = argparse.ArgumentParser(description="Precision and recall of semantic hits on labelled questions.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threshold", type=float, default=0.92)
    parser.add_argument("--guards", default=",".join(GUARDS), help="names with commas; the default is all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the counts here as well")
    options = parser.parse_args()
    guards = [name for name in options.guards.split(",") if name]
    if unknown := set(guards) - set(GUARDS):
        parser.error(f"no guard {', '.join(sorted(unknown))}; there are {', '.join(GUARDS)}")
    sets = read_folder(options.folder)
    space = Space(
        (row[part] for rows in sets.values() for row in rows for part in "abq" if part in row), options.threads
    )
    print(f"{space.name}; {len(space.place)} questions; threshold {options.threshold}; guards: {', '.join(guards)}")
    judged = {name: judge(rows, space, guards) for name, rows in sets.items() if rows and "y" in rows[0]}
    results = {
        "pairs": print_pairs(judged, options.threshold),
        "streams": print_streams(sets, space, options.threshold, guards),
        "traffic": print_traffic(sets, space, options.threshold, guards),
        "contexts": print_contexts(sets.get("rag_questions", []), space, options.threshold, guards),
    }
    if options.json:
        options.json.write_text(json.dumps(results, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
