"""`warm` asks a file's questions through the proxy, and says what became of them."""

from __future__ import annotations

import json

from cacheproxy.commands import warm
from cacheproxy.commands.client import Reply
from tests.fakes.command import environment, run_beside
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


def test_a_person_sees_a_bar_while_it_asks(simulated, tmp_path):
    """On a terminal only. Ollama itself may be warmed too, and is told apart from a proxy."""
    from tests.fakes.command import COMMAND

    command = [*COMMAND, "warm", written(tmp_path), "-m", "llama3.2", "--url", simulated]
    code, shown = run_on_terminal(command, env=environment())

    assert code == 0
    assert "asking" in shown
    assert "not a cacheproxy" in shown


def test_only_a_few_errors_are_remembered():
    """A file of a million asks at an Ollama that is gone must not fill the memory with texts."""
    done = warm.Done()
    for _ in range(100):
        done.count(Reply(500, "miss", "", 0.1), "e")

    assert len(done.errors) == warm.ERRORS_SHOWN
    assert done.outcomes == {"error": 100}
    assert not done.fine
