"""Which turns of a chat are left out so that it fits the model's context. Pure.

Ollama cuts a chat that is too long by itself, late and silently, and reads all of the rest anew for it. This rule cuts
earlier, at turns, and says so. System messages and the last turn always stay.

A turn begins with a user's message and holds all that follows until the next one: answers, tool calls and what the
tools gave. So no result is ever left without its call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cacheproxy.errors import UnkeyableError
from cacheproxy.model import Ask
from cacheproxy.wire import jsontext, request

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
    calls = len(jsontext.write(message["tool_calls"])) / 4 if "tool_calls" in message else 0.0
    return MESSAGE_TOKENS + texts + calls + IMAGE_TOKENS * len(message.get("images", ()))


def limit(ask: Ask, loaded_length: int) -> int:
    """Tokens of context an ask has: its `num_ctx`, else what its model is loaded with; 0 where that is not known."""
    chosen = ask.body.get("options", {}).get("num_ctx")
    return chosen if isinstance(chosen, int) and chosen > 0 else loaded_length


def trim(ask: Ask, body: bytes, parse: Callable[[bytes], Ask], budget_tokens: float) -> Ask:
    """A chat that is too long, read anew without its oldest turns; any other ask as it is.

    `body`: what would be sent. A budget of 0 is none. `truncate: false` asks for Ollama's error instead, which stands.
    """
    messages = ask.body.get("messages")
    if not messages or not budget_tokens or ask.body.get("truncate") is False:
        return ask
    tools_tokens = len(jsontext.write(ask.body["tools"])) / 4 if "tools" in ask.body else 0.0
    staying = kept(messages, tools_tokens, budget_tokens)
    if len(staying) == len(messages):
        return ask
    try:
        trimmed = request.rewritten(
            ask, body, parse, lambda members: {"messages": [members["messages"][at] for at in staying]}
        )
    except UnkeyableError:
        return ask
    return replace(trimmed, dropped=len(messages) - len(staying))


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
    return turns
