"""The command line: what it takes, what it exits with, and how soon it is there."""

import asyncio
import json
import platform
import resource
import subprocess
import sys

import pytest

from cacheproxy import __version__
from cacheproxy.cli import describe
from tests.fakes.command import COMMAND, ROOT, environment, run
from tests.fakes.redis_server import free_port
from tests.fakes.speed import slowness
from tests.fakes.terminal import run_on_terminal

HEAVY = ("torch", "sentence_transformers", "transformers", "onnxruntime", "redisvl", "aiohttp", "redis", "numpy")
"""What a command that only asks a running proxy must not load."""


def test_the_page_about_the_command_line_is_what_the_commands_say():
    """docs/reference/cli.md is made by `cacheproxy.cli.describe`; write it anew with that when this fails."""
    assert describe() == (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("arguments", [["--version"], ["version"]])
def test_the_version_is_told_in_both_ways_people_ask_for_it(arguments):
    """One line with the package's own version."""
    assert run(*arguments, check=0).stdout == f"cacheproxy {__version__}\n"


def test_the_version_is_told_to_programs_too():
    """With the Python it runs on, which is the next question."""
    told = json.loads(run("version", "--json", check=0).stdout)

    assert told == {"version": __version__, "python": platform.python_version()}


def test_no_command_shows_what_there_is():
    """Help, and the exit code of wrong use, since nothing was done."""
    done = run()

    assert done.returncode == 2
    assert "serve" in done.stdout + done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["stats"],
        ["tail"],
        ["explain", "why?", "-m", "llama3.2"],
        ["ls"],
        ["show", 32 * "a"],
        ["rm", "--all", "--yes"],
        ["warm", "README.md", "-m", "llama3.2", "--url", "127.0.0.1:1"],
        ["bench", "-m", "llama3.2"],
        ["purge", "--all", "--yes"],
    ],
)
def test_commands_that_only_ask_load_nothing_heavy(arguments):
    """They would otherwise start in seconds and take half a gigabyte; what they import is read, not timed."""
    code = (
        "import sys\n"
        "from cacheproxy.cli import commands\n"
        "try:\n    commands(sys.argv[1:])\n"
        f"except SystemExit:\n    print(sorted(set({HEAVY!r}) & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=environment(CACHEPROXY_ADMIN__LISTEN=f"127.0.0.1:{free_port()}"),
    )

    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["stats"], ["purge", "--all"]])
def test_starting_takes_a_fraction_of_a_second(arguments):
    """A person waits for these: less than a second of a processor, however busy the machine is (measured: 0.2 s)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(*arguments, CACHEPROXY_ADMIN__LISTEN=f"127.0.0.1:{free_port()}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)

    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.8 * slowness()


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({"CACHEPROXY_CACHE__TTTL": "1h"}, "CACHEPROXY_CACHE__TTTL (did you mean CACHEPROXY_CACHE__TTL?)"),
        ({"CACHEPROXY_ADMIN__LISTEN": "0.0.0.0:11436"}, "admin.token is empty"),
        ({"CACHEPROXY_SERVER__LISTEN": "11435"}, "expected HOST:PORT"),
        ({"CACHEPROXY_CONFIG": "/nowhere/config.toml"}, "/nowhere/config.toml"),
        ({"CACHEPROXY_REDIS__URL": "http://127.0.0.1"}, "redis.url"),
    ],
)
def test_a_wrong_configuration_is_told_and_exits_2(env, told):
    """So that a service manager need not try again (RestartPreventExitStatus=2)."""
    done = run("serve", check=2, **env)

    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_config_file_that_merely_lies_there_is_not_read(tmp_path):
    """The place a command is started from must not change what it does."""
    (tmp_path / "config.toml").write_text('[admin]\nlisten = "127.0.0.1:1"\n')
    unread = run("stats", check=1, cwd=tmp_path, CACHEPROXY_ADMIN__LISTEN="127.0.0.1:2")
    named = run("stats", "--config", "config.toml", check=1, cwd=tmp_path)

    assert "http://127.0.0.1:2 " in unread.stderr
    assert "http://127.0.0.1:1 " in named.stderr


@pytest.mark.parametrize("arguments", [[], ["--all", "--model", "x"], ["--admin", "ftp://x", "--all"]])
def test_purge_wants_exactly_one_selector_and_a_usable_url(arguments):
    """Anything else deletes nothing and is wrong use."""
    run("purge", *arguments, check=2)


@pytest.mark.parametrize(("typed", "code", "left"), [(b"n\n", 1, 1), (b"\n", 1, 1), (b"y\n", 0, 0)])
async def test_purging_everything_asks_a_person_first(house, typed, code, left):
    """On a terminal, unless `--yes` is given; anything but yes keeps every entry."""
    await house.chat("why?", stream=False)
    await house.settled()
    command = [*COMMAND, "purge", "--all", "--admin", house.app.admin_url]
    found, shown = await asyncio.to_thread(run_on_terminal, command, typed=typed, env=environment())

    assert "Forget every entry" in shown
    assert found == code
    assert len(house.redis.call("KEYS", "*:answer:*")) == left
