"""What is asked: whole HTTP requests as bytes, the same for every server, and the questions in them. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

NUMBER = "#########"
"""Where `asks.lua` puts nine digits that are new in each request."""
MODEL = "llama3.2"
QUESTION = "What does a cache do for a team that asks its model the same questions again and again, day after day?"

_SUBJECTS = (
    "invoice",
    "password",
    "backup",
    "contract",
    "delivery",
    "meeting",
    "budget",
    "printer",
    "holiday",
    "badge",
)
_VERBS = ("renew", "cancel", "find", "change", "print", "order", "report", "share", "archive", "approve")
_PLACES = ("Berlin", "Paris", "Madrid", "Rome", "Vienna", "Prague", "Lisbon", "Dublin", "Oslo", "Athens")
_REWORDINGS = ("How can I {}?", "How could I {}?", "How would I {}?", "How to {}?", "Please, how do I {}?",
               "Hello, how do I {}?", "How does one {}?")  # fmt: skip


def question(number: int) -> str:
    """One of any number of different questions."""
    return f"How do I {_wish(number)}?"


def reworded(number: int, wording: int) -> str:
    """The same question in other words. `wording`: from 0; the words come again after `WORDINGS`."""
    return _REWORDINGS[wording % WORDINGS].format(_wish(number))


WORDINGS = len(_REWORDINGS)


def _wish(number: int) -> str:
    verb, subject, place = _VERBS[number % 10], _SUBJECTS[number // 10 % 10], _PLACES[number // 100 % 10]
    return f"{verb} the {subject} of team {number // 1000 + 1} in {place}"


def chat(text: str = QUESTION, *, stream: bool = False, **members: Any) -> bytes:
    """A body for `/api/chat` and for `/v1/chat/completions`."""
    messages = [{"role": "user", "content": text}]
    return json.dumps({"model": MODEL, "messages": messages, "stream": stream, **members}).encode()


def respelt() -> bytes:
    """The same ask as `chat()`, in a body that is new each time: `keep_alive` does not change an answer."""
    return chat(keep_alive=NUMBER).replace(f'"{NUMBER}"'.encode(), NUMBER.encode())


def request(body: bytes, path: str = "/api/chat", headers: Mapping[str, str] | None = None) -> bytes:
    """The bytes of one POST."""
    head = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"]
    head += [f"{name}: {value}" for name, value in (headers or {}).items()]
    head.append(f"Content-Length: {len(body)}")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def numbered(raw: bytes, number: int) -> bytes:
    """As `asks.lua` does it: the request with its number. `number`: of nine digits."""
    return raw.replace(NUMBER.encode(), b"%d" % number)
