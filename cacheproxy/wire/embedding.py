"""What the embedding dialects share: asks of several texts, vectors as Ollama wrote them, and what their calls cost.

A reply to several texts is cut into one vector a text, kept as the text of its JSON (or base64), so no number is ever
spelt again. Ollama tells tokens and durations only for a call as a whole. A vector therefore remembers its call, and a
reply states tokens only where it is made of whole calls: the sum is then known, and nothing is ever divided or guessed.

Refuses to look anything up, and to know which dialect may serve what: that is each dialect's to say.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import orjson

from cacheproxy.errors import UnkeyableError
from cacheproxy.model import ALL_THERE, Answer, Ask, JSONObject
from cacheproxy.wire import request
from cacheproxy.wire.jsontext import write

INPUTS_MAX = 512
"""Texts of one request that are looked up: 5 MB of vectors of 768 numbers, about 30 ms. A longer list passes by."""
TOKENS = "prompt_eval_count"

_ROW = re.compile(rb"\[[-+.0-9eE, \t\r\n]*\]")
"""A list of numbers, if its parser agrees."""


@dataclass(frozen=True, slots=True)
class EmbedAsk:
    """A request for vectors. `ask` holds all but the texts: its `canonical` is the setting that they share."""

    ask: Ask
    inputs: tuple[str, ...]
    canonical_inputs: tuple[bytes, ...]
    """For each text the setting and the text: all that shapes its vector but the model and the partition."""
    encoding: str = "float"
    """How the caller wants the numbers: `float` or `base64`."""


@dataclass(frozen=True, slots=True)
class Cost:
    """One call to Ollama that gave vectors, and what Ollama said of it."""

    call: str
    """A random name."""
    by: str
    """Name of the dialect it was made in."""
    inputs: int
    """Texts in it, repeated ones counted."""
    final: JSONObject = field(default_factory=dict)
    """Members of the reply besides model and vectors, as they came; `prompt_eval_count` holds the tokens of all."""


@dataclass(frozen=True, slots=True)
class Vector:
    """One text's vector as Ollama wrote it: a JSON list, or base64. `times`: how often the text stood in its call."""

    text: str
    cost: Cost
    times: int = 1

    @property
    def packed(self) -> bool:
        """Whether it is base64."""
        return not self.text.startswith("[")


Stored: TypeAlias = Sequence[tuple[str, Vector | None]]
"""Texts in the order of a request, each with its vector where there is one."""


@dataclass(frozen=True, slots=True)
class Made:
    """All it takes to write a reply that is put together from vectors."""

    embed: EmbedAsk
    vectors: Sequence[Vector]
    fresh: Cost | None
    """The call that was made for it, if one was."""
    elapsed_s: float
    """How long the ask has taken so far."""

    @property
    def stored(self) -> Stored:
        """The texts, each with its vector."""
        return list(zip(self.embed.inputs, self.vectors, strict=True))


def answer_of(vector: Vector) -> Answer:
    """The vector in the form in which entries hold what Ollama said."""
    cost = vector.cost
    about = {"call": cost.call, "by": cost.by, "inputs": cost.inputs, "times": vector.times, "final": cost.final}
    return Answer(text=vector.text, final=about)


def vector_of(answer: Answer) -> Vector:
    """The reverse. Raises ValueError for an answer that is no vector."""
    try:
        call, by, inputs, times, final = (answer.final[name] for name in ("call", "by", "inputs", "times", "final"))
    except KeyError:
        raise ValueError("an answer that is no vector") from None
    texts = (answer.text, call, by)
    if not (all(isinstance(text, str) and text for text in texts) and isinstance(final, dict)):
        raise ValueError("a vector without its call")
    if not all(isinstance(number, int) and number > 0 for number in (inputs, times)):
        raise ValueError("a call without texts")
    return Vector(answer.text, Cost(call, by, inputs, final), times)


def embed_ask(
    parsed: request.Parsed, members: dict[str, Any], inputs: object, *, dialect: str, family: str, encoding: str = ""
) -> EmbedAsk:
    """Put the parts of a parsed request together; `members` are those that shape a vector besides its text.

    Raises UnkeyableError: `input` (not texts: Ollama refuses it), `load` (none), `too-many-inputs`, and what
    `request.ask` raises.
    """
    texts = [inputs] if isinstance(inputs, str) else inputs
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UnkeyableError("input")
    if not texts:
        raise UnkeyableError("load")
    if len(texts) > INPUTS_MAX:
        raise UnkeyableError("too-many-inputs")
    ask = request.ask(parsed, members, dialect=dialect, family=family, name_matters=False, needs=ALL_THERE)
    return EmbedAsk(
        ask=ask,
        inputs=tuple(texts),
        canonical_inputs=tuple(ask.canonical + b"\n" + write(text) for text in texts),
        encoding=encoding or "float",
    )


def size(value: object) -> dict[str, int]:
    """`dimensions` as a member of a setting; 0 is absent, as Ollama takes it. Raises UnkeyableError."""
    if type(value) is not int:
        raise UnkeyableError("dimensions")
    return {"dimensions": value} if value else {}


def rows(body: bytes) -> tuple[list[str], Any]:
    """The lists of numbers in a reply as they are spelt, and the reply with each of them empty.

    Raises ValueError for what is not JSON, and unless all lists have the same number of members, at least one.
    """
    texts = [text.decode() for text in _ROW.findall(body)]
    around = orjson.loads(_ROW.sub(b"[]", body))
    lengths = {len(orjson.loads(text)) for text in texts}
    if texts and (len(lengths) != 1 or 0 in lengths):
        raise ValueError("vectors of different lengths, or empty ones")
    return texts, around


def complete_calls(stored: Stored) -> dict[str, tuple[Cost, int]]:
    """The calls whose texts are all there, equally often, by name; and how often."""
    counts: dict[str, Counter[str]] = {}
    members: dict[tuple[str, str], Vector] = {}
    for text, vector in stored:
        if vector is not None:
            counts.setdefault(vector.cost.call, Counter())[text] += 1
            members[vector.cost.call, text] = vector
    whole = {}
    for call, texts in counts.items():
        cost = members[call, next(iter(texts))].cost
        times, left = divmod(texts.total(), cost.inputs)
        if not left and all(count == members[call, text].times * times for text, count in texts.items()):
            whole[call] = (cost, times)
    return whole


def tokens(stored: Stored) -> int | None:
    """Tokens of all texts, if each one's call is whole and Ollama counted them; else None."""
    calls = complete_calls(stored)
    total = 0
    for cost, times in calls.values():
        count = cost.final.get(TOKENS)
        if not isinstance(count, int):
            return None
        total += count * times
    return total if all(vector is not None and vector.cost.call in calls for _, vector in stored) else None


def seconds(stored: Stored) -> float:
    """How long Ollama took for those of a reply's vectors whose calls are whole in it, in s."""
    durations_ns = [cost.final.get("total_duration") for cost, _ in complete_calls(stored).values()]
    return sum(duration_ns for duration_ns in durations_ns if isinstance(duration_ns, int)) / 1e9
