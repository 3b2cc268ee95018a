"""`warm` asks a file's questions through the proxy, and says what became of them."""

from __future__ import annotations

import asyncio
import json

from cacheproxy.commands import warm
from cacheproxy.commands.client import Reply
from tests.fakes.command import COMMAND, environment, run_beside
from tests.fakes.redis_server import free_port
from tests.fakes.terminal import run_on_terminal

FILE = ["why?", '{"model": "llama3.2", "prompt": "how?"}', "", "why?", '{"question": "when?"}']


def written(tmp_path, lines=FILE):
    """The file."""
    file = tmp_path / "asks.txt"
    file.write_text("\n".join(lines) + "\n")
    return str(file)


async def test_what_was_warmed_is_a_hit_for_apps(house, tmp_path):
    """The bodies are sent as apps send them, and equal ones cost Ollama one call."""
    arguments = ("warm", written(tmp_path), "-m", "llama3.2", "--url", house.app.proxy_url)
    first = json.loads((await run_beside(*arguments, "--json")).stdout)
    await house.settled()
    again = (await run_beside(*arguments, "--parallel", "3")).stdout.splitlines()
    app = await house.chat("when?", stream=True)

    assert first["asks"] == 4
    assert first["outcomes"]["miss"] == 3
    assert sum(first["outcomes"].values()) == 4
    assert house.calls("/api/chat") + house.calls("/api/generate") == 3
    assert again[0].split() == ["OUTCOME", "ASKS", "SHARE", "MEAN", "TIME"]
    assert again[1].split()[:3] == ["exact", "4", "100.0%"]
    assert app.header("X-Cache") == "EXACT"


async def test_an_ask_that_fails_is_told_and_the_rest_goes_on(house, tmp_path):
    """Exit code 1, with Ollama's own words."""
    lines = ['{"model": "llama9", "prompt": "x"}', '{"model": "llama3.2", "prompt": "x"}']
    done = await run_beside("warm", written(tmp_path, lines), "--url", house.app.proxy_url, "--json", check=1)

    assert json.loads(done.stdout)["outcomes"] == {"error": 1, "miss": 1}
    assert "/api/generate gave status 404: model 'llama9' not found" in done.stderr


async def test_wrong_use_is_told_before_anything_is_asked(house, tmp_path):
    """No model, no file, nobody there: each with what to do."""
    file = written(tmp_path)
    modelless = await run_beside("warm", file, "--url", house.app.proxy_url, check=2)
    absent = await run_beside("warm", "/nowhere/asks", "-m", "m", check=2)
    nobody = await run_beside("warm", file, "-m", "m", "--url", f"127.0.0.1:{free_port()}", check=1)
    no_url = await run_beside("warm", file, "-m", "m", "--url", "ftp://x", check=2)

    assert "give one with --model" in modelless.stderr
    assert "/nowhere/asks" in absent.stderr
    assert "is it running there?" in nobody.stderr
    assert "expected a URL" in no_url.stderr
    assert house.calls("/api/chat") == 0


async def test_a_person_sees_a_bar_while_it_asks(house, tmp_path):
    """On a terminal only."""
    command = [*COMMAND, "warm", written(tmp_path), "-m", "llama3.2", "--url", house.app.proxy_url]
    code, shown = await asyncio.to_thread(run_on_terminal, command, env=environment())

    assert code == 0
    assert "asking" in shown


async def test_warming_ollama_itself_is_no_success(house, tmp_path):
    """It keeps nothing, so after one ask it is told where to go instead."""
    done = await run_beside("warm", written(tmp_path), "-m", "llama3.2", "--url", house.ollama.url, check=1)

    assert f"{house.ollama.url} is no cacheproxy: its reply has no X-Cache" in done.stderr
    assert house.calls("/api/chat") == 1


async def test_warming_with_nothing_but_asks_around_the_cache_is_no_success(house, tmp_path):
    """They got their answers, and the next caller will not get them faster."""
    lines = ['{"model": "llama3.2", "prompt": "x", "options": {"temperature": 9}}']
    done = await run_beside("warm", written(tmp_path, lines), "--url", house.app.proxy_url, check=1)

    assert done.stdout.splitlines()[1].split()[:3] == ["bypass", "1", "100.0%"]
    assert "nothing was warmed: all went around the cache" in done.stderr


async def test_a_file_creates_and_deletes_no_model(house, tmp_path):
    """Only paths of asks are sent; the first other one is refused before anything is."""
    lines = ["why?", '{"path": "/api/create", "body": {"model": "mine", "from": "llama3.2"}}']
    file = written(tmp_path, lines)
    done = await run_beside("warm", file, "-m", "llama3.2", "--url", house.app.proxy_url, check=2)

    assert f'{file}:2: "path" is "/api/create", where no asks go; there are /api/chat, ' in done.stderr
    assert house.calls("/api/create") == house.calls("/api/chat") == 0


def test_only_a_few_errors_are_remembered():
    """A file of a million asks at an Ollama that is gone must not fill the memory with texts."""
    done = warm.Done()
    for _ in range(100):
        done.count(Reply(500, "miss", "", 0.1), "e")

    assert len(done.errors) == warm.ERRORS_SHOWN
    assert done.outcomes == {"error": 100}
    assert not done.fine
