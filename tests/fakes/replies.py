"""What a reply says, whatever its form."""

from __future__ import annotations

import json
from typing import Any

from tests.fakes.wire import Response

_TEXT_EVENTS = ("content_block_delta", "response.output_text.delta")


def events(reply: Response) -> list[Any]:
    """The chunks of a stream of OpenAI's form, `[DONE]` as a string."""
    assert reply.body.endswith(b"\n\n")
    lines = reply.body.removesuffix(b"\n\n").split(b"\n\n")
    return ["[DONE]" if line == b"data: [DONE]" else json.loads(line.removeprefix(b"data: ")) for line in lines]


def told(body: bytes) -> list[Any]:
    """The events of a stream whose events have names; each name is repeated in the data."""
    assert body.endswith(b"\n\n")
    told = []
    for event in body.removesuffix(b"\n\n").split(b"\n\n"):
        name, data = event.split(b"\n")
        told.append(json.loads(data.removeprefix(b"data: ")))
        assert name == b"event: " + told[-1]["type"].encode()
    return told


def said(reply: Response) -> str:
    """The text of a reply of any form."""
    if reply.body.startswith(b"event: "):
        deltas = [event["delta"] for event in told(reply.body) if event["type"] in _TEXT_EVENTS]
        return "".join(delta if isinstance(delta, str) else delta.get("text", "") for delta in deltas)
    if (reply.header("Content-Type") or "").startswith("text/event-stream"):
        choices = [choice for event in events(reply)[:-1] for choice in event["choices"]]
        return "".join(choice["text"] if "text" in choice else choice["delta"].get("content", "") for choice in choices)
    if "choices" in reply.text:
        choice = reply.json()["choices"][0]
        return str(choice["text"] if "text" in choice else choice["message"]["content"])
    if "output" in reply.text or '"type":"message"' in reply.text:
        whole = reply.json()
        items = [whole] if "content" in whole else whole["output"]
        return "".join(part.get("text", "") for item in items for part in item.get("content", ()))
    return "".join(line["message"]["content"] if "message" in line else line["response"] for line in reply.lines())
