"""Which turns of a chat are left out so that it fits the model's context. Pure.

Ollama cuts a chat that is too long by itself, late and silently, and reads all of the rest anew for it. This rule cuts
earlier, at turns, and says so. System messages and the last turn always stay.

A turn begins with a user's message and holds all that follows until the next one: answers, tool calls and what the
tools gave. Where a result comes only after the user has spoken again, both turns are one. So no result is ever left
without its call. It holds for chats of every dialect (`wire/history.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from cacheproxy.errors import UnkeyableError
from cacheproxy.model import Ask
from cacheproxy.wire import chat, jsontext, request
from cacheproxy.wire.history import History, history_of

MESSAGE_TOKENS = 4
"""What a template puts around a message: its role and the markers of beginning and end."""
IMAGE_TOKENS = 768
"""Taken for an image: models make 256 (gemma3) to some thousands (those that go by its size) of one."""
BLOCK_TURNS = 4
"""Turns leave by so many, so that the next asks of a growing chat begin alike: Ollama then reads only what is new."""


def estimate_tokens(text: str) -> float:
    """About how many tokens a text is: ASCII at 4 characters each, anything else at 3 bytes each.

    4 is the figure of Ollama's own estimate, for the usage it reports while a `/v1/messages` stream begins. 3 bytes are
    one character of Chinese, Japanese or Korean, taken as one token.
    """
    ascii_count = len(text.encode("ascii", "ignore"))
    return ascii_count / 4 + (len(text.encode("utf-8", "replace")) - ascii_count) / 3


def tokens(message: Mapping[str, Any]) -> float:
    """The estimate for one message in canonical form."""
    texts = estimate_tokens(message.get("content", "")) + estimate_tokens(message.get("thinking", ""))
    calls = len(jsontext.write_plain(message["tool_calls"])) / 4 if "tool_calls" in message else 0.0
    return MESSAGE_TOKENS + texts + calls + IMAGE_TOKENS * len(message.get("images", ()))


def limit(ask: Ask, loaded_length: int) -> int:
    """Tokens of context an ask has: its `num_ctx`, else what its model is loaded with; 0 where that is not known."""
    options = ask.body.get("options")  # of a request without native twin they are what the caller made of them
    chosen = options.get("num_ctx") if isinstance(options, dict) and ask.dialect == chat.NAME else None
    return chosen if isinstance(chosen, int) and chosen > 0 else loaded_length


def trim(ask: Ask, body: bytes, parse: Callable[[bytes], Ask], budget_tokens: float) -> Ask:
    """A chat that is too long, read anew without its oldest turns; any other ask as it is.

    `body`: what would be sent. A budget of 0 is none. A caller who forbids it (`truncate: false`, or `truncation:
    disabled` with `/v1/responses`) gets what Ollama makes of the whole.
    """
    if not budget_tokens or tokens_max(body) <= budget_tokens:
        return ask
    try:
        history = history_of(ask.dialect, jsontext.read(body))
        if history is None:
            return ask
        staying = kept(history.messages, _beside(history), budget_tokens)
        if len(staying) == len(history.messages):
            return ask
        trimmed = request.rewritten(
            ask, body, parse, lambda members: {history.member: [members[history.member][at] for at in staying]}
        )
    except UnkeyableError:
        return ask
    return replace(trimmed, dropped=len(history.messages) - len(staying))


def tokens_max(body: bytes) -> float:
    """At least what the estimate for a request's body comes to; most chats are far from too long, and need no more.

    No byte counts for more than a third of a token (but in numbers, which may be written longer), a message takes more
    bytes than `MESSAGE_TOKENS` stand for, and each image is named as such but in a list of them.
    """
    return math.inf if b'"images"' in body else len(body) / 3 + IMAGE_TOKENS * body.count(b"image")


def _beside(history: History) -> float:
    tools = len(jsontext.write_plain(history.tools)) / 4 if history.tools else 0.0
    return tools + estimate_tokens(history.beside)


def kept(messages: Sequence[Mapping[str, Any]], other_tokens: float, budget_tokens: float) -> list[int]:
    """Indices of the messages that stay, in order; all of them if the estimate is within the budget.

    `other_tokens`: what else the prompt holds (tools). Where nothing more can go, what stays may be over the budget.
    """
    everything = list(range(len(messages)))
    over = other_tokens + sum(map(tokens, messages)) - budget_tokens
    turns = _turns(messages)
    if over <= 0 or len(turns) < 2:
        return everything
    going = 0
    while over > 0 and going < len(turns) - 1:
        over -= sum(tokens(messages[at]) for at in turns[going])
        going += 1
    going = min(-(-going // BLOCK_TURNS) * BLOCK_TURNS, len(turns) - 1)
    gone = {at for turn in turns[:going] for at in turn}
    return [at for at in everything if at not in gone]


def _turns(messages: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Indices of the messages of each turn, system messages left out; several messages of the user in a row are one."""
    turns: list[list[int]] = []
    before = ""
    for at, message in enumerate(messages):
        role = message.get("role", "")
        if role == "system":
            continue
        if not turns or (role == "user" and before != "user"):
            turns.append([])
        turns[-1].append(at)
        before = role
    return _with_late_answers(turns, messages)


def _with_late_answers(turns: list[list[int]], messages: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """The turns, those made one between which there is a call of a tool and its answer."""
    reaches = list(range(len(turns)))  # the first turn that each one has an answer for
    calls = _Calls()
    for turn, at in ((turn, at) for turn, places in enumerate(turns) for at in places):
        for answered in messages[at].get("answers", ()):
            reaches[turn] = min(reaches[turn], calls.answered(answered, turn))
        for made in messages[at].get("calls", ()):
            calls.made(made, turn)
    from_here = list(accumulate(reversed(reaches), min))[::-1]
    merged: list[list[int]] = []
    for turn, places in enumerate(turns):
        if from_here[turn] < turn:
            merged[-1].extend(places)
        else:
            merged.append(places)
    return merged


class _Calls:
    """Calls of tools that are not answered yet, with the turn that each was made in."""

    def __init__(self) -> None:
        self._turns: list[int] = []
        self._by_id: dict[str, list[int]] = {}
        self._latest: list[int] = []
        self._answered: set[int] = set()

    def made(self, call_id: str, turn: int) -> None:
        """A call; an empty id is none."""
        self._by_id.setdefault(call_id, []).append(len(self._turns))
        self._latest.append(len(self._turns))
        self._turns.append(turn)

    def answered(self, call_id: str, turn: int) -> int:
        """The turn of the call that is answered in this one, the latest that it can be; this one if there is none."""
        calls = (self._by_id.get(call_id) or self._by_id.get("", [])) if call_id else self._latest
        while calls:
            call = calls.pop()
            if call not in self._answered:
                self._answered.add(call)
                return self._turns[call]
        return turn
