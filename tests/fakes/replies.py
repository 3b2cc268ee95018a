"""What a reply says, whatever its form."""

from __future__ import annotations

import json
from typing import Any

from tests.fakes.wire import Response


def events(reply: Response) -> list[Any]:
    """The chunks of a stream of OpenAI's form, `[DONE]` as a string."""
    assert reply.body.endswith(b"\n\n")
    lines = reply.body.removesuffix(b"\n\n").split(b"\n\n")
    return ["[DONE]" if line == b"data: [DONE]" else json.loads(line.removeprefix(b"data: ")) for line in lines]


def said(reply: Response) -> str:
    """The text of a reply of any form."""
    if (reply.header("Content-Type") or "").startswith("text/event-stream"):
        choices = [choice for event in events(reply)[:-1] for choice in event["choices"]]
        return "".join(choice["text"] if "text" in choice else choice["delta"].get("content", "") for choice in choices)
    if "choices" in reply.text:
        choice = reply.json()["choices"][0]
        return str(choice["text"] if "text" in choice else choice["message"]["content"])
    return "".join(line["message"]["content"] if "message" in line else line["response"] for line in reply.lines())
