"""What is stored can be listed and looked at; texts only where prompts may be shown."""

from __future__ import annotations

import pytest

from cacheproxy.edge.entries import Query, read_query
from tests.fakes.house import near_ready, open_house

TEXTS_ALLOWED = {"log": {"prompts": True}}


async def filled(house, *questions):
    """Ask each question once, one after another, and wait until all are kept."""
    for question in questions:
        await house.chat(question, stream=False)
        await house.settled()


async def test_the_newest_entries_come_first(fake_ollama, clean_redis):
    """Redis has no such order, so the list is made by looking at all; it says whether it did."""
    async with open_house(fake_ollama, clean_redis, **TEXTS_ALLOWED, semantic={"mode": "serve"}) as house:
        await near_ready(house)
        await filled(house, "first?", "second?", "third?")
        told = (await house.admin("GET", "/entries?limit=2")).json()

    assert [one["question"] for one in told["entries"]] == ["third?", "second?"]
    assert told["looked_at"] == 3
    assert told["complete"] is True
    assert told["entries"][0]["model"] == "llama3.2:latest"
    assert told["entries"][0]["kind"] == "text"
    assert told["entries"][0]["near"] is True
    assert told["entries"][0]["expires"] > told["entries"][0]["made"]


async def test_no_text_is_shown_unless_prompts_may_be(house):
    """Neither question nor answer, and questions cannot be found out by looking for parts of them."""
    await filled(house, "my secret plan?")
    listed = await house.admin("GET", "/entries")
    entry = listed.json()["entries"][0]["id"]
    shown = await house.admin("GET", f"/entries/{entry}")
    sought = await house.admin("GET", "/entries?question=secret")

    assert b"secret" not in listed.body + shown.body
    assert shown.json()["answer"] is None
    assert shown.json()["id"] == entry
    assert sought.status == 403


async def test_one_entry_tells_its_answer_where_prompts_may_be_shown(fake_ollama, clean_redis):
    """All that is kept of it, by the id that a reply carries."""
    async with open_house(fake_ollama, clean_redis, **TEXTS_ALLOWED) as house:
        await filled(house, "why?")
        reply = await house.chat("why?", stream=False)
        shown = (await house.admin("GET", f"/entries/{reply.header('X-Cache-Entry')}")).json()

    assert shown["answer"]["text"] == reply.json()["message"]["content"]
    assert shown["key"].endswith(":default")


async def test_a_list_can_be_of_one_model(house):
    """One nobody has installed is an error, so that a slip of the pen does not look like an empty cache."""
    await filled(house, "why?")
    of_it = (await house.admin("GET", "/entries?model=llama3.2")).json()
    other = await house.admin("GET", "/entries?model=llama9")

    assert len(of_it["entries"]) == 1
    assert other.status == 404


async def test_an_unknown_entry_is_404_and_no_id_is_400(house):
    """What is no id is told what one looks like."""
    assert (await house.admin("GET", "/entries/" + 32 * "0")).status == 404
    assert (await house.admin("GET", "/entries/12")).status == 400


async def test_looking_changes_nothing(house):
    """Neither the entries' lifetimes nor any count of asks."""
    await filled(house, "why?")
    key = house.redis.call("KEYS", "*:answer:*")[0]
    before = house.redis.call("PEXPIRETIME", key)
    asks = (await house.stats())["asks"]
    await house.admin("GET", "/entries")

    assert house.redis.call("PEXPIRETIME", key) == before
    assert (await house.stats())["asks"] == asks


@pytest.mark.parametrize(
    ("query", "read"),
    [
        ([], Query()),
        ([("limit", "7"), ("model", "m")], Query(7, "m")),
        ([("limit", "0")], None),
        ([("limit", "501")], None),
        ([("limit", "²")], None),
        ([("limit", "000000050000")], None),
        ([("limit", "000000050" + "0" * 5000)], None),
        ([("limit", "7\n")], None),
        ([("limit", "1"), ("limit", "2")], None),
        ([("order", "oldest")], None),
    ],
)
def test_what_a_list_can_be_asked_for(query, read):
    """Anything else is told, never guessed at."""
    found = read_query(query)

    assert found == read if read else isinstance(found, str)
