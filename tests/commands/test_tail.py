"""`tail` prints each decision as it falls, for people and for programs."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from contextlib import asynccontextmanager

import pytest

from cacheproxy.commands import tail
from cacheproxy.commands.admin_port import read_events
from tests.fakes.command import COMMAND, environment, run_beside
from tests.fakes.house import until
from tests.fakes.redis_server import free_port

ASK = {
    "at": 0.0,
    "outcome": "semantic",
    "dialect": "chat",
    "model": "llama3.2:3b",
    "tier": "redis",
    "reason": "",
    "seconds": 0.0089,
    "trail": "near:0.947",
    "entry": 32 * "a",
    "similarity": 0.947,
    "threshold": 0.92,
    "verdict": "serve",
    "asked": "",
    "stored": "",
    "count": 1,
}


@asynccontextmanager
async def tailing(house, *arguments):
    """`tail` in a process of its own, once the proxy knows that it listens."""
    process = await asyncio.create_subprocess_exec(
        *[*COMMAND, "tail", "--admin", house.app.admin_url, *arguments],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
    )
    try:
        await until(lambda: bool(house.app.live._listeners), 30)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def read_line(process):
    """The next line it prints."""
    async with asyncio.timeout(20):
        return (await process.stdout.readline()).decode()


async def test_decisions_are_printed_as_they_fall_until_ctrl_c(house):
    """A miss and then a hit of the same question; Ctrl-C is how it ends, so it is no failure."""
    async with tailing(house) as process:
        await house.chat("why?", stream=False)
        await house.settled()
        miss = await read_line(process)
        await house.chat("why?", stream=False)
        hit = await read_line(process)
        process.send_signal(signal.SIGINT)
        _, errors = await asyncio.wait_for(process.communicate(), 20)

    assert re.match(r"\d\d:\d\d:\d\d  MISS  .* ms?  llama3\.2:latest  chat", miss)
    assert re.match(r"\d\d:\d\d:\d\d  EXACT  .* ms  llama3\.2:latest  chat  entry [0-9a-f]{32}\n", hit)
    assert "\x1b" not in miss + hit
    assert process.returncode == 0
    assert errors == b""


async def test_programs_get_one_object_a_line_and_only_what_they_want(house):
    """Other outcomes are left out."""
    async with tailing(house, "--json", "--outcome", "exact,bypass") as process:
        await house.chat("why?", stream=False)
        await house.settled()
        await house.chat("why?", stream=False)
        told = json.loads(await read_line(process))

    assert (told["outcome"], told["model"], told["asked"]) == ("exact", "llama3.2:latest", "")


async def test_it_ends_with_an_error_when_the_proxy_does(house):
    """Whoever pipes it somewhere should hear of it."""
    async with tailing(house) as process:
        await house.app.live.close()
        _, errors = await asyncio.wait_for(process.communicate(), 20)

    assert process.returncode == 1
    assert b"ended its events" in errors


async def test_an_unknown_outcome_and_a_proxy_that_is_away_are_told():
    """Wrong use is 2, nobody there is 1."""
    wrong = await run_beside("tail", "--outcome", "hits", check=2)
    away = await run_beside("tail", "--admin", f"http://127.0.0.1:{free_port()}", check=1)

    assert "there are exact, semantic" in wrong.stderr
    assert "cacheproxy serve" in away.stderr


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({}, [f"SEMANTIC  0.947    8.9 ms  llama3.2:3b  chat  entry {32 * 'a'}"]),
        ({"outcome": "miss", "verdict": "guard:numbers", "entry": ""}, ["MISS    ", "chat  guard:numbers"]),
        ({"outcome": "bypass", "similarity": None, "verdict": "", "reason": "images"}, ["BYPASS  ", "images"]),
        ({"count": 7}, ["x7"]),
        ({"asked": "why\x1b[2J?", "stored": "how?"}, ['"why [2J?" ~ "how?"']),
        ({"model": ""}, ["  -  chat"]),
    ],
)
def test_a_line_tells_what_decided(changes, parts):
    """Outcome, similarity, time, model, and why; nothing a terminal would act on."""
    line = tail.line(ASK | changes)

    assert all(part in line for part in parts), line
    assert "\x1b" not in line


def test_what_was_left_out_is_told_to_people():
    """Programs get whole decisions only."""
    assert tail.worded({"left_out": 1234}, (), "", as_json=False) == "... and 1,234 more in this second"
    assert tail.worded({"left_out": 1234}, (), "", as_json=True) == ""


def test_a_model_is_also_meant_by_its_name_without_a_tag():
    """As for Ollama, `latest` may be left out."""
    named = ASK | {"model": "llama3.2:latest"}

    assert tail.worded(named, (), "llama3.2", as_json=False)
    assert not tail.worded(ASK, (), "llama3.2", as_json=False)


def test_events_are_read_from_any_stream_of_lines():
    """Comments, ids, several lines of data; what is no object is left out."""
    lines = b': hi\nretry: 1\n\nid: 7\nevent: ask\ndata: {"a":\ndata: 1}\n\ndata: 3\n\nevent: x\n\ndata: {}\r\n\r\n'

    assert list(read_events(lines.splitlines(keepends=True))) == [("ask", {"a": 1}), ("message", {})]
