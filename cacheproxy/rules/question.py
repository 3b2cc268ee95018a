"""An ask split into the question, which alone is compared by meaning, and the setting, which must be equal.

The question is the user's last message or the prompt; and where that is a library's prompt around a question, only
what the library put there. Everything else is the setting, byte for byte, the text around the question included. So
whatever tells two asks of one setting apart lies in their questions, and is seen by embedder and guards.
`docs/explain/questions.md` shows why a hostile document among the retrieved ones cannot move that border.

Refuses to guess: a prompt that could be read in two ways, or only begins like a known one, gets no near answers.
Judges neither how long a question is for the embedder nor how alike two are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cacheproxy.config import Semantic, parse_pattern
from cacheproxy.model import Ask
from cacheproxy.rules.templates import PATTERNS
from cacheproxy.wire.canonical import canonical_bytes

NEAR_OFF = (
    "images", "tools", "tool-history", "context", "suffix", "raw", "logprobs", "seed", "temperature",
    "not-a-user-turn", "no-question", "unclear-prompt", "too-long",
)  # fmt: skip
"""Why an ask gets no near answers; closed, explained in `docs/explain/questions.md`."""

QUESTION_CHARS_MAX = 32_768
"""The longest question: four characters for each of the 8,192 tokens that the longest-sighted embedder reads.

It also bounds the search for a question's border, so that a prompt of any size costs the same.
"""

_OPENING_CHARS = 40
_OPENING_CHARS_MIN = 24
"""A known prompt is suspected by so much of its beginning; with less (`Question: `) only at the very start."""
_HEAD_CHARS = 512
"""How far into a text the beginning of a known prompt is looked for."""
_LAYERS_MAX = 3
"""Prompts within prompts: a chat written out as one text, and in its last turn a question with retrieved text."""
_IMAGE_MEMBERS = ("images", "width", "height", "steps")


@dataclass(frozen=True, slots=True)
class Split:
    """The two parts of an ask, or why it has none (`near_off`, one of NEAR_OFF; the parts are then empty)."""

    question: str = ""
    """As it stands in the ask, spaces included."""
    setting: bytes = b""
    """Canonical JSON of all the rest. Where the question's text stood is a list, which no text of a client can be."""
    near_off: str = ""


@dataclass(frozen=True, slots=True)
class Template:
    """A prompt's layout: its texts in order, and what stands between them."""

    name: str
    """Part of the setting."""
    texts: tuple[str, ...]
    """What must be there letter for letter; the first begins the prompt and the last ends it. Either may be empty."""
    question_at: int
    """Index in `texts` of the text after which the question comes; -1 where there is none to compare."""
    opening: str = ""
    """A text with this near its beginning may be such a prompt even if it does not fit; empty: no such suspicion."""

    @classmethod
    def of(cls, name: str, pattern: str) -> Template:
        """Read a pattern as `[semantic.prompts]` takes it. Raises ValueError."""
        parts = parse_pattern(pattern)
        texts, slots = parts[::2], parts[1::2]
        if "{question}" not in slots:
            return cls(name, texts, -1)
        return cls(name, texts, slots.index("{question}"), _opening(texts[0]) if "{context}" in slots else "")

    def fits(self, text: str) -> bool:
        """Whether a text has this layout's texts in their order."""
        first, *inner, last = self.texts
        at, end = len(first), len(text) - len(last)
        if at > end or not text.startswith(first) or not text.endswith(last):
            return False
        for literal in inner:
            found = text.find(literal, at, end)
            if found < 0:
                return False
            at = found + len(literal)
        return True

    def find(self, text: str) -> tuple[int, int] | None:
        """Where in a text the question begins and ends; None where this is not, or not surely, the text's layout."""
        first, last = self.texts[0], self.texts[-1]
        begin, end = len(first), len(text) - len(last)
        if begin > end or not text.startswith(first) or not text.endswith(last):
            return None
        if len(self.texts) == 2:
            return begin, end
        left, right = self.texts[self.question_at : self.question_at + 2]
        goes_on = self.question_at < len(self.texts) - 2
        span = _between(text, begin, end, before=left if self.question_at else "", after=right if goes_on else "")
        # Its own labels inside a question: another prompt of the same kind (with examples, say), or several questions.
        labels = left.strip().rpartition("\n")[2], right.strip().partition("\n")[0]
        return None if span and any(label and label in text[slice(*span)] for label in labels) else span

    def begins(self, text: str) -> bool:
        """Whether a text that does not fit may still be such a prompt around other texts, judged by its very start."""
        first = self.texts[0]
        return len(self.texts) > 2 and (text.startswith(first) if first else self.texts[1] in text)


def _opening(text: str) -> str:
    """What a rewritten form of a prompt probably still begins with: its first line, or more if that says little."""
    first_line = text.strip().partition("\n")[0]
    opening = (first_line if len(first_line) >= _OPENING_CHARS_MIN else text.strip())[:_OPENING_CHARS]
    return opening if len(opening) >= _OPENING_CHARS_MIN else ""


def templates_of(settings: Semantic) -> tuple[Template, ...]:
    """The layouts that are switched on: the operator's own, then those of the libraries. Raises ValueError."""
    own = [Template.of(name, prompt.pattern) for name, prompt in settings.prompts.items()]
    known = [Template.of(library, pattern) for library in settings.templates for pattern in PATTERNS[library]]
    return (*own, *known)


def split(ask: Ask, templates: Sequence[Template], *, max_temperature: float) -> Split:
    """Split an ask of any dialect; those whose body has neither `messages` nor a `prompt` have no question."""
    if not _is_readable(ask.body):
        return Split(near_off="unclear-prompt")
    text, reason = _last_turn(ask.body)
    reason = _refusal(ask, max_temperature) or reason
    if reason:
        return Split(near_off=reason)
    place = _place(text, templates)
    if place is None:
        return Split(near_off="unclear-prompt")
    names, begin, end = place
    if end - begin > QUESTION_CHARS_MAX:
        return Split(near_off="too-long")
    question = text[begin:end]
    if not question.strip():
        return Split(near_off="no-question")
    return Split(question, canonical_bytes(_without(ask.body, [names, text[:begin], text[end:]])))


def _refusal(ask: Ask, max_temperature: float) -> str:
    """Why nothing in this ask may be compared by meaning; empty: something may."""
    body = ask.body
    messages = body.get("messages", ())
    objections = {
        "images": any(name in body for name in _IMAGE_MEMBERS) or any("images" in message for message in messages),
        "tools": "tools" in body,
        "tool-history": any(_of_tools(message) for message in messages),
        "context": "context" in body,
        "suffix": "suffix" in body,
        "raw": "raw" in body,
        "logprobs": ask.logprobs,
        "seed": "seed" in body or "seed" in body.get("options", {}),
        "temperature": ask.temperature is not None and ask.temperature > max_temperature,
    }
    return next((reason for reason, holds in objections.items() if holds), "")


def _is_readable(body: Mapping[str, Any]) -> bool:
    """Whether the members looked at below are what they are named for, where Ollama itself may not look at them."""
    messages = body.get("messages", [])
    well_formed = isinstance(messages, list) and all(
        isinstance(message, dict) and not isinstance(message.get("content"), list) for message in messages
    )  # a list of parts may hold images and results of tools
    return well_formed and isinstance(body.get("options", {}), dict)


def _of_tools(message: Mapping[str, Any]) -> bool:
    return message.get("role") == "tool" or any(name.startswith("tool_") for name in message)


def _last_turn(body: Mapping[str, Any]) -> tuple[str, str]:
    """The text that holds the question, or why there is none."""
    if "messages" in body:
        last = body["messages"][-1] if body["messages"] else {}
        if last.get("role") != "user":
            return "", "not-a-user-turn"
        text = last.get("content")
    else:
        text = body.get("prompt")
    return (text, "") if isinstance(text, str) else ("", "no-question")


def _without(body: Mapping[str, Any], hole: list[Any]) -> dict[str, Any]:
    """The body with `hole` where the text was that holds the question."""
    if "messages" not in body:
        return {**body, "prompt": hole}
    *earlier, last = body["messages"]
    return {**body, "messages": [*earlier, {**last, "content": hole}]}


def _place(text: str, templates: Sequence[Template]) -> tuple[list[str], int, int] | None:
    """The layouts around the question, outermost first, and where it begins and ends; None if that is not clear."""
    names: list[str] = []
    begin, end = 0, len(text)
    for _ in range(_LAYERS_MAX):
        inner = text[begin:end]
        likely = [template for template in templates if inner.startswith(template.texts[0])]
        if any(template.question_at < 0 and template.fits(inner) for template in likely):
            return None
        found = [
            (span, template.name) for template in likely if template.question_at >= 0 and (span := template.find(inner))
        ]
        if not found:
            return None if _suspect(inner, templates, likely) else (names, begin, end)
        (low, high), name = min(found, key=lambda match: match[0][1] - match[0][0])
        if any(low < other_low or high > other_high for (other_low, other_high), _ in found):
            return None
        names.append(name)
        begin, end = begin + low, begin + high
    return names, begin, end


def _suspect(text: str, templates: Sequence[Template], likely: Sequence[Template]) -> bool:
    """Whether a text that fits no layout may still be a prompt around other texts: a known one, rewritten a little."""
    head = text[:_HEAD_CHARS]
    return any(template.question_at >= 0 and template.begins(text) for template in likely) or any(
        template.opening and template.opening in head for template in templates
    )


def _between(text: str, begin: int, end: int, *, before: str, after: str) -> tuple[int, int] | None:
    """Where a question stands in text[begin:end], of which `before` parts a context in front, `after` one behind.

    Of several such places it is the one that makes the question shortest, so that no context is in it: a context can
    hold the same text, but only on its own side of the true place. Between two contexts that is no help; there each of
    the texts must occur once.
    """
    if before and after:
        left = text.find(before, begin, end)
        right = text.find(after, left + len(before), end) if left >= 0 else -1
        if right < 0 or text.find(before, left + 1, end) >= 0 or text.find(after, begin, end) != right:
            return None
        return (left + len(before), right) if text.find(after, right + 1, end) < 0 else None
    if before:
        left = text.rfind(before, max(begin, end - QUESTION_CHARS_MAX - len(before)), end)
        return (left + len(before), end) if left >= 0 else None
    if after:
        right = text.find(after, begin, min(end, begin + QUESTION_CHARS_MAX + len(after)))
        return (begin, right) if right >= 0 else None
    return begin, end
