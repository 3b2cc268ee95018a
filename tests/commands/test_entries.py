"""`ls`, `show` and `rm` tell and take away what is stored, in words that people read."""

from __future__ import annotations

import json

import pytest

from cacheproxy.commands import entries
from tests.fakes.clock import FakeClock
from tests.fakes.command import run_beside
from tests.fakes.house import near_ready, open_house

ENTRY = {
    "id": 32 * "a",
    "key": "cacheproxy:answer:aa:bb:default",
    "model": "llama3.2:latest",
    "digest": 64 * "b",
    "made": 1000.0,
    "expires": 4600.0,
    "question": "why \x1b[2J?",
    "kind": "text",
    "near": True,
    "bytes": 3400,
    "tokens": 12,
    "partition": "",
    "scope": 32 * "c",
    "space": "s_384",
    "done_reason": "stop",
    "answer": {"text": "because\x1b[31m\nof it"},
    "prompts": True,
}


async def filled(house, *questions):
    """Ask each question once and wait until its answer is kept."""
    for question in questions:
        await house.chat(question, stream=False)
        await house.settled()


async def test_what_is_stored_is_listed_shown_and_removed(fake_ollama, clean_redis):
    """The id from the list is what the other two take."""
    async with open_house(fake_ollama, clean_redis, semantic={"mode": "serve"}, log={"prompts": True}) as house:
        await near_ready(house)
        await filled(house, "first?", "second?")
        port = ("--admin", house.app.admin_url)
        lines = (await run_beside("ls", *port)).stdout.splitlines()
        found = json.loads((await run_beside("ls", "--limit", "1", *port, "--json")).stdout)["entries"]
        shown = (await run_beside("show", found[0]["id"], *port)).stdout
        gone = await run_beside("rm", found[0]["id"], *port)
        left = (await run_beside("ls", *port)).stdout.splitlines()

    assert lines[0].split() == ["ID", "MODEL", "AGE", "LEFT", "KIND", "TOKENS", "SIZE", "QUESTION"]
    assert [line.split()[0] for line in lines[1:]] == [found[0]["id"], lines[2].split()[0]]
    assert lines[1].endswith("second?")
    assert "second?" in shown
    assert gone.stdout == "forgot 1 entry\n"
    assert len(left) == len(lines) - 1


async def test_without_permission_no_question_is_shown(house):
    """The table has no such column, and one entry says why."""
    await filled(house, "my secret?")
    port = ("--admin", house.app.admin_url)
    listed = (await run_beside("ls", *port)).stdout
    shown = (await run_beside("show", listed.splitlines()[1].split()[0], *port)).stdout

    assert "QUESTION" not in listed
    assert "secret" not in listed + shown
    assert "log.prompts is off" in shown


async def test_entries_can_be_removed_by_their_age(fake_ollama, clean_redis):
    """What is younger stays."""
    clock = FakeClock()
    async with open_house(fake_ollama, clean_redis, clock=clock) as house:
        await filled(house, "old?")
        clock.advance(1800)
        await filled(house, "young?")
        port = ("--admin", house.app.admin_url)
        none = await run_beside("rm", "--older", "1h", *port)
        one = await run_beside("rm", "--older", "20m", *port, "--json")
        left = await house.chat("young?", stream=False)

    assert none.stdout == "forgot 0 entries\n"
    assert json.loads(one.stdout) == {"deleted": 1}
    assert left.header("X-Cache") == "EXACT"


@pytest.mark.parametrize(
    "arguments", [[], [32 * "a", "--all"], ["--older", "1h", "--all"], ["--older", "soon"], ["--older", "99999999999"]]
)
async def test_rm_wants_exactly_one_selector(arguments):
    """Anything else is wrong use and removes nothing: no port is asked."""
    done = await run_beside("rm", *arguments, check=2)

    assert "--older" in done.stderr


async def test_an_entry_that_is_not_there_is_an_error_that_says_so(house):
    """Exit code 1."""
    unknown = await run_beside("show", 32 * "0", "--admin", house.app.admin_url, check=1)

    assert "no such entry" in unknown.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["show", "../stats"], "ID ../stats: an entry's id is the X-Cache-Entry of a reply, or from ls: 32 hex digits"),
        (["rm", "xyz"], "ID xyz: an entry's id is"),
        (["purge", "--id", "zz"], "--id zz: an entry's id is"),
        (["rm", "--partition", "zz"], "--partition zz: a partition is 32 hex digits"),
        (["purge", "--partition", "default"], "--partition default: a partition is 32 hex digits"),
    ],
)
async def test_what_can_name_no_entry_is_told_its_form(arguments, told):
    """Wrong use: no port is asked."""
    done = await run_beside(*arguments, check=2)

    assert done.stderr.startswith(f"cacheproxy: {told}")


@pytest.mark.parametrize("command", [["rm", "-m"], ["purge", "--model"]])
async def test_forgetting_a_model_that_nobody_installed_is_no_success(house, command):
    """It is a typo; one that is installed and has no entries is fine."""
    port = ("--admin", house.app.admin_url)
    unknown = await run_beside(*command, "nope", *port, check=1)
    empty = await run_beside(*command, "llama3.2", *port)

    assert "no model 'nope' is installed" in unknown.stderr
    assert unknown.stdout == ""
    assert empty.stdout == "forgot 0 entries\n"


def test_hostile_text_cannot_reach_the_terminal():
    """Questions and answers are other people's: what a terminal would act on is left out."""
    text = "\n".join([*entries.sheet(ENTRY, 2000.0), *entries.table(_list(), 2000.0)])

    assert "\x1b" not in text
    assert "because" in text


def test_a_list_says_what_it_did_not_see():
    """How many there are beside those shown, and that not all were looked at."""
    lines = list(entries.table(_list(looked_at=100_000, complete=False), 2000.0))

    assert "the newest 1 of 100,000 entries" in lines
    assert "more entries than were looked at" in lines[-1]
    assert list(entries.table(_list(entries=[]), 2000.0)) == ["no entries"]


def _list(**more):
    return {"entries": [ENTRY], "looked_at": 1, "complete": True, "prompts": True} | more
