"""The operator's pages on what was agree with what the proxy was asked, and say what they take."""

from __future__ import annotations

import pytest

from cacheproxy.model import Outcome
from tests.fakes.house import MODEL, open_house, until

PAGES = ["/series", "/similarity", "/pairs", "/asks"]


async def asked(house):
    """Two misses and two hits, in the ledger."""
    for question in ("one", "two", "one", "one"):
        await house.chat(question, stream=False)
        await house.settled()
    house.app.lane.flush()
    await house.app.ledger.flush()


async def test_the_pages_agree_with_what_was_asked(house):
    """The same four asks from every side, by the model's name with and without its tag."""
    await asked(house)
    fleet = (await house.stats())["fleet"]
    of_model = (await house.admin("GET", f"/series?model={MODEL}&hours=2&step=600")).json()
    found = (await house.admin("GET", "/asks?limit=3")).json()
    similarity = (await house.admin("GET", f"/similarity?model={MODEL}:latest")).json()

    assert (fleet["asks"], fleet["outcomes"]["exact"], fleet["hit_rate"]) == (4, 2, 0.5)
    assert of_model["models"] == [f"{MODEL}:latest"]
    assert [sum(row[outcome] for row in of_model["rows"]) for outcome in (Outcome.EXACT, Outcome.MISS)] == [2, 2]
    assert [ask["outcome"] for ask in found["asks"]] == ["exact", "exact", "miss"]
    assert found["asks"][0]["trail"] in ("memory:hit", "lane:hit")
    assert found["left_out"] == 0
    assert (similarity["asks"], similarity["hits"], similarity["mode"]) == (4, 2, "off")


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("/series?hours=0", "hours: a number between 0.1 and 336"),
        ("/series?hours=nan", "hours: a number between 0.1 and 336"),
        ("/series?hours=1e9", "hours: a number between 0.1 and 336"),
        ("/series?to=nan", "to: a number from 0 on"),
        ("/series?step=90", "step: seconds, a multiple of 60"),
        ("/series?step=0", "step: a number between 60 and"),
        ("/series?hours=336&step=60", "too many rows; try step=7200"),
        ("/series?model=" + "x" * 2000, "model: at most 1024 characters"),
        ("/similarity?hours=x", "hours: a number between"),
        ("/pairs?around=2", "around: a number between 0 and 1"),
        ("/pairs?limit=0", "limit: a number between 1 and"),
        ("/asks?limit=1000000", "limit: a number between 1 and"),
    ],
)
async def test_a_query_out_of_range_is_told_what_it_may_be(house, target, reason):
    """400, and nothing was read for it."""
    answer = await house.admin("GET", target)

    assert answer.status == 400
    assert reason in answer.json()["error"]


async def test_a_model_nobody_knows_has_no_asks(house):
    """Hostile names come back nowhere."""
    await asked(house)
    for target in ("/series?model=%3Cscript%3E", "/similarity?model=%00"):
        answer = await house.admin("GET", target)
        assert answer.status == 200
        assert b"script" not in answer.body


async def test_similarity_tells_the_threshold_that_holds_for_the_model(fake_ollama, clean_redis):
    """The rule of a model goes before the general one."""
    rules = {"llama*": {"threshold": 0.97}}
    async with open_house(fake_ollama, clean_redis, models=rules, semantic={"mode": "off", "threshold": 0.9}) as house:
        thresholds = [
            (await house.admin("GET", target)).json()["threshold"]
            for target in ("/similarity", "/similarity?model=llama3.2", "/similarity?model=qwen")
        ]

    assert thresholds == [0.9, 0.97, 0.9]


async def test_without_redis_the_pages_say_why_and_stats_go_on(fake_ollama, tmp_path):
    """Figures of this process need no Redis."""
    async with open_house(fake_ollama, None, ready=False, redis={"url": f"unix://{tmp_path}/none"}) as house:
        for page in PAGES:
            answer = await house.admin("GET", page)
            assert answer.status == 503
            assert "the ledger is in Redis" in answer.json()["error"]
        stats = await house.stats()

    assert stats["fleet"] is None
    assert "redis" in stats["fleet_reason"]
    assert stats["asks"] == 0


async def test_prompts_are_in_no_page_and_no_key_unless_they_may_be(fake_ollama, clean_redis):
    """The default."""
    async with open_house(fake_ollama, clean_redis) as house:
        await house.chat("my secret question", stream=False)
        await house.settled()
        await house.app.ledger.flush()
        told = [(await house.admin("GET", page)).body for page in PAGES]
        told += [clean_redis.call("DUMP", key) for key in clean_redis.call("KEYS", "*ledger*")]

        assert not any(b"secret question" in text for text in told)
        assert (await house.admin("GET", "/pairs")).json() == {"prompts": False, "pairs": []}


async def test_the_slider_at_the_present_threshold_is_what_was_really_served(fake_ollama, clean_redis):
    """With the real embedder: replies marked SEMANTIC, the counter, and the histogram are one number."""
    settings = {"mode": "serve", "threshold": 0.92}
    async with open_house(fake_ollama, clean_redis, semantic=settings, log={"prompts": True}) as house:
        assert await house.app.vectors.wait_ready(20)
        await until(lambda: house.app.semantic.state == "ready" and house.app.apart.known)
        replies = []
        for question in ("How do I reset my password?", "How can I reset my password?", "What is the capital of Peru?"):
            replies.append(await house.chat(question, stream=False))
            await house.settled()
        await house.app.ledger.flush()
        found = (await house.admin("GET", "/similarity")).json()
        pairs = (await house.admin("GET", "/pairs?around=0.95")).json()
        shown = (await house.admin("GET", "/asks")).json()["asks"]
        semantic = sum(reply.header("X-Cache") == "SEMANTIC" for reply in replies)

        assert semantic == 1
        assert sum(row["served"] + row["below"] for row in found["rows"] if row["at"] >= 0.92) == semantic
        assert found["semantic"] == semantic
        assert (found["asks"], found["hits"], found["threshold"]) == (3, 1, 0.92)
        assert pairs["prompts"] is True
        assert (pairs["pairs"][0]["asked"], pairs["pairs"][0]["verdict"]) == ("How can I reset my password?", "serve")
        assert [ask["outcome"] for ask in shown] == ["miss", "semantic", "miss"]
        assert f"{shown[1]['similarity']:.3f}" == f"{float(replies[1].header('X-Cache-Similarity')):.3f}"
        assert shown[1]["age_s"] >= 0


async def test_shadow_mode_counts_what_would_have_been_served(fake_ollama, clean_redis):
    """No semantic hit, and the histogram knows it would have been one."""
    async with open_house(fake_ollama, clean_redis, semantic={"mode": "shadow"}) as house:
        assert await house.app.vectors.wait_ready(20)
        await until(lambda: house.app.semantic.state == "ready" and house.app.apart.known)
        for question in ("How do I reset my password?", "How can I reset my password?"):
            await house.chat(question, stream=False)
            await house.settled()
        await house.app.ledger.flush()
        found = (await house.admin("GET", "/similarity")).json()

        assert (found["mode"], found["semantic"]) == ("shadow", 0)
        assert sum(row["served"] for row in found["rows"]) == 1
