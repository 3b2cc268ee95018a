"""The parts are closed from the top down, whatever becomes of one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.fakes.house import open_house
from tests.fakes.ollama import FakeOllama
from tests.fakes.redis_server import RedisServer

ENDS = (
    "fleet.close_preload",
    "_proxy.drain",
    "fronts.drain",
    "live.close",
    "_admin.close",
    "flights.close",
    "embeddings.close",
    "vectors.close",
    "semantic.close",
    "apart.close",
    "fleet.close",
    "ledger.close",
    "budgets.close",
    "connection.close",
)
"""What ends a part, in order."""


@dataclass(frozen=True)
class Watched:
    """A part of the app, of which only its ends are called: each is noted in `ended`, and `failing` fails when done."""

    part: Any
    name: str
    ended: list[str]
    failing: str
    error: BaseException

    def __getattr__(self, end: str) -> Callable[..., Awaitable[None]]:
        async def ending(*arguments: Any) -> None:
            name = f"{self.name}.{end}"
            self.ended.append(name)
            await getattr(self.part, end)(*arguments)
            if name == self.failing:
                raise self.error

        return ending


@pytest.mark.parametrize("failing", ["", *ENDS])
@pytest.mark.parametrize("error", [RuntimeError("a defect"), asyncio.CancelledError()], ids=["defect", "cancelled"])
async def test_a_part_that_fails_to_close_leaves_no_other_open(
    fake_ollama: FakeOllama,
    clean_redis: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    failing: str,
    error: BaseException,
) -> None:
    """Its error comes out when all are closed, in the order in which they stand upon each other."""
    ended: list[str] = []
    async with open_house(fake_ollama, clean_redis) as house:
        for name in {end.split(".")[0] for end in ENDS}:
            part = getattr(house.app, name)
            monkeypatch.setattr(house.app, name, Watched(part, name, ended, failing, error))
        if failing:
            with pytest.raises(type(error)):
                await house.app.close()
        else:
            await house.app.close()
        monkeypatch.undo()

    assert ended == list(ENDS)
