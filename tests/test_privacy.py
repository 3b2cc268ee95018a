"""No prompt, answer or credential is written anywhere but into Redis, unless the operator says so."""

from __future__ import annotations

import json
import logging

import pytest

from tests.fakes.house import House, open_house
from tests.fakes.ollama import FakeOllama, Fault
from tests.fakes.redis_server import RedisServer

CANARY = "canary-4711-sesame"
SECRET = "Bearer canary-secret-0815"


async def exercise(house: House) -> list[str]:
    """Ask in every way that could make something speak; return all that the operator's port says."""
    headers = [("Authorization", SECRET)]
    await house.chat(CANARY, headers=headers)
    await house.settled()
    await house.chat(CANARY, headers=headers)
    await house.generate(CANARY, headers=headers, suffix=CANARY)
    await house.ask("POST", "/api/chat", f'{{"Model":"{CANARY}"}}'.encode(), headers=headers)
    await house.chat(CANARY, model=CANARY, headers=headers)
    house.ollama.next(Fault(cut_after_bytes=500))
    await house.chat(CANARY + "2", headers=headers)
    assert house.redis is not None
    for key in house.redis.call("KEYS", "cacheproxy:answer:*"):
        house.redis.call("HSET", key, "answer", CANARY)
    house.app.memory.clear()
    await house.chat(CANARY, headers=headers)
    await house.ollama.close()
    await house.chat(CANARY + "3", headers=headers)
    await house.app.ledger.flush()
    pages = ("/stats", "/metrics", "/readyz", "/", "/series", "/similarity", "/asks", "/pairs")
    return [(await house.admin("GET", path)).text for path in pages]


@pytest.mark.fault(131)
async def test_prompts_and_credentials_appear_in_no_log_metric_or_page(
    fake_ollama: FakeOllama, clean_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Not at the most talkative log level, not after hits, misses, bypasses, damage and outages."""
    caplog.set_level(logging.DEBUG)
    async with open_house(fake_ollama, clean_redis) as house:
        pages = await exercise(house)

    logged = [json.dumps(vars(record), default=repr) for record in caplog.records if record.name.startswith("cachep")]
    for text in [*pages, *logged]:
        assert "canary" not in text
