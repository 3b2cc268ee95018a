"""A closed-loop load whose every reply is checked: the stand-in's answer is a function of the request."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Self

from cacheproxy.demo.ollama import expected_text
from tests.fakes import wire
from tests.fakes.house import MODEL, House
from tests.fakes.stopwatch import Stopwatch

KEYS = 60


@dataclass(slots=True)
class Load:
    """Workers that ask at random out of `KEYS` questions until `stop`, half of them streamed.

    `wrong` holds every reply that is not the complete answer to its request; it must stay empty.
    """

    house: House
    workers: int = 12
    seed: int = 1
    wrong: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    replies: int = 0
    _stopping: bool = False
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._work(random.Random(self.seed + n))) for n in range(self.workers)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def until_replies(self, more: int, timeout_s: float = 20.0) -> None:
        """Wait for so many further replies."""
        goal = self.replies + more
        async with asyncio.timeout(timeout_s):
            while self.replies < goal:  # noqa: ASYNC110 - a count has no event
                await asyncio.sleep(0.005)

    async def _work(self, dice: random.Random) -> None:
        while not self._stopping:
            await self._ask(f"question {dice.randrange(KEYS)}?", stream=dice.random() < 0.5)

    async def _ask(self, question: str, *, stream: bool) -> None:
        body = {"model": MODEL, "messages": [{"role": "user", "content": question}], "stream": stream}
        watch = Stopwatch()
        reply = await wire.ask(self.house.port, "POST", "/api/chat", body)
        self.slowest_s = max(self.slowest_s, watch.seconds)
        self.replies += 1
        self.outcomes[reply.header("X-Cache") or "none"] += 1
        expected = expected_text("/api/chat", json.dumps(body).encode(), digest=self.house.ollama.digest(MODEL))
        if reply.status != 200 or not reply.complete:
            self.wrong.append(f"{question}: status {reply.status}, complete {reply.complete}: {reply.text[:200]}")
            return
        lines = reply.lines()
        text = "".join(line["message"]["content"] for line in lines)
        if text != expected or lines[-1].get("done") is not True:
            self.wrong.append(f"{question}: {text!r} instead of {expected!r}")
