"""The commands as a person or a service manager meets them: what they print where, and what they exit with."""

import asyncio
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from cacheproxy import __version__
from cacheproxy.app import Report
from cacheproxy.cli import describe
from cacheproxy.commands import stats
from cacheproxy.commands.admin_port import AdminPort, find, url_of
from cacheproxy.commands.check import look, ollama_address
from cacheproxy.commands.serve import banner, missing
from cacheproxy.config import Admin
from cacheproxy.errors import AdminPortError, ConfigError
from tests.fakes import wire
from tests.fakes.house import open_house
from tests.fakes.redis_server import free_port
from tests.fakes.terminal import run_on_terminal

ROOT = Path(__file__).parent.parent
COMMAND = (sys.executable, "-m", "cacheproxy")
HEAVY = ("torch", "sentence_transformers", "transformers", "onnxruntime", "redisvl", "aiohttp", "redis", "numpy")
"""What a command that only asks a running proxy must not load."""


CHAT = {"model": "llama3.2", "messages": [{"role": "user", "content": "why?"}]}


@pytest.fixture(scope="module")
def simulated():
    """The address of a simulated Ollama in a process of its own, for tests that block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cacheproxy.demo.ollama", "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        yield process.stdout.readline().split()[-1]
    finally:
        process.kill()
        process.communicate()


def environment(**more):
    """The one of the tests, without settings for the program, with `more`."""
    plain = {name: text for name, text in os.environ.items() if not name.startswith(("CACHEPROXY_", "OLLAMA_"))}
    return plain | {"PYTHONPATH": str(ROOT)} | more


def run(*arguments, check=None, cwd=ROOT, **env):
    """The installed command, run to its end; `check` is the exit code it must have."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
        env=environment(**env),
        stdin=subprocess.DEVNULL,
    )
    if check is not None:
        assert done.returncode == check, done.stdout + done.stderr
    return done


async def run_beside(*arguments, check=0, **env):
    """`run` while this test's event loop goes on serving."""
    return await asyncio.to_thread(run, *arguments, check=check, **env)


@contextmanager
def serving(tmp_path, *arguments, **env):
    """`cacheproxy serve` on free ports, yielded once its banner is out; killed if the test did not end it."""
    env.setdefault("CACHEPROXY_REDIS__DATA_DIR", str(tmp_path))
    process = subprocess.Popen(
        [*COMMAND, "serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**env),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_banner(process):
    """The banner's lines."""
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith("Point your app here"):
            return lines
    raise AssertionError(process.stderr.read())


def address(line):
    """Host and port of the first URL in a line of the banner."""
    host, _, port = line.split("http://")[1].split()[0].partition(":")
    return host, int(port)


def test_the_page_about_the_command_line_is_what_the_commands_say():
    """docs/reference/cli.md is made by `cacheproxy.cli.describe`; write it anew with that when this fails."""
    assert describe() == (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("arguments", [["--version"], ["version"]])
def test_the_version_is_told_in_both_ways_people_ask_for_it(arguments):
    """One line with the package's own version."""
    assert run(*arguments, check=0).stdout == f"cacheproxy {__version__}\n"


def test_no_command_shows_what_there_is():
    """Help, and the exit code of wrong use, since nothing was done."""
    done = run()

    assert done.returncode == 2
    assert "serve" in done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["stats"], ["purge", "--all", "--yes"]])
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


# --- serve ---


def test_serve_says_where_it_listens_and_what_to_paste(tmp_path, simulated):
    """The banner names both ports, Ollama with its version and models, Redis, and the line for clients."""
    with serving(tmp_path, "--upstream", simulated) as process:
        lines = read_banner(process)

        host, port = address(lines[1])
        assert lines[0] == f"cacheproxy {__version__}"
        assert f"->  Ollama 0.33.0 at {simulated} (5 models)" in lines[1]
        assert lines[3].endswith("search 2.10.5")
        assert str(tmp_path) in lines[3]
        assert lines[-1] == f"Point your app here:  export OLLAMA_HOST={host}:{port}"
        with socket.create_connection((host, port), timeout=5):
            pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_serve_with_exit_code_0(tmp_path, number):
    """A service manager takes 0 for a clean stop."""
    with serving(tmp_path) as process:
        read_banner(process)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)

    assert process.returncode == 0
    assert "stopping" in errors
    assert "Traceback" not in errors


def test_without_ollama_serve_says_so_in_one_line_and_goes_on(tmp_path):
    """The line names the address, the cause and the remedy; the port answers all the same."""
    url = f"http://127.0.0.1:{free_port()}"
    with serving(tmp_path, "--upstream", url) as process:
        lines = read_banner(process)
        with socket.create_connection(address(lines[1]), timeout=5):
            pass
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)

    expected = (
        f'no Ollama at {url} (connection refused): start it with "ollama serve" or set upstream.url; '
        "hits from Redis go on, everything else gets an error"
    )
    assert [line for line in errors.splitlines() if "no Ollama" in line] == [expected]


async def test_a_second_signal_ends_a_drain_at_once(tmp_path, fake_ollama):
    """A reply that would take minutes does not keep a person waiting who presses Ctrl-C twice."""
    fake_ollama.seconds_to_first_token = 100
    with serving(tmp_path, "--upstream", fake_ollama.url) as process:
        lines = await asyncio.to_thread(read_banner, process)
        waiting = asyncio.create_task(wire.ask(address(lines[1])[1], "POST", "/api/chat", CHAT))
        await fake_ollama.wait_until(lambda: fake_ollama.concurrency == 1)
        process.send_signal(signal.SIGINT)
        await asyncio.to_thread(lambda: next(line for line in process.stderr if "stopping" in line))
        drains = process.poll() is None
        process.send_signal(signal.SIGINT)
        await asyncio.to_thread(process.wait, 10)
        waiting.cancel()

    assert drains
    assert process.returncode == -signal.SIGINT


def test_a_taken_port_is_told_and_exits_1(tmp_path):
    """Trying again later may help, so it is not the exit code of a wrong configuration."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run("serve", "--listen", listen, check=1, CACHEPROXY_REDIS__DATA_DIR=str(tmp_path))

    assert listen in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({"CACHEPROXY_CACHE__TTTL": "1h"}, 'unknown key "tttl" (did you mean "ttl"?)'),
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


REPORT = Report(
    "http://127.0.0.1:1", "http://127.0.0.1:2", "http://ollama:11434", "0.33.0", "", ["a"], "redis 8 at x", ""
)


def test_the_banner_counts_one_model_as_one():
    """And names the file the settings came from."""
    lines = banner(REPORT, Path("my.toml"))

    assert lines[1].endswith("Ollama 0.33.0 at http://ollama:11434 (1 model)")
    assert lines[4] == "  config   my.toml"
    assert missing(REPORT) == []


# --- check ---


def states(findings):
    """State and thing of each finding."""
    return [(finding.state, finding.thing) for finding in findings]


def test_check_finds_everything_in_order(tmp_path, simulated, monkeypatch):
    """With Ollama there, Redis startable and both ports free nothing fails, and JSON says the same."""
    env = {
        "CACHEPROXY_UPSTREAM__URL": simulated,
        "CACHEPROXY_REDIS__DATA_DIR": str(tmp_path / "data"),
        "CACHEPROXY_SERVER__LISTEN": f"127.0.0.1:{free_port()}",
        "CACHEPROXY_ADMIN__LISTEN": f"127.0.0.1:{free_port()}",
    }
    for name, text in environment(**env).items():
        monkeypatch.setenv(name, text)
    lines = run("check", check=0, **env).stdout.splitlines()
    told = json.loads(run("check", "--json", check=0, **env).stdout)

    assert told["ok"] is True
    assert [finding["state"] for finding in told["findings"]] == ["ok"] * 7
    assert [line.split()[1] for line in lines] == ["config", "ollama", "data", "redis", "clients", "admin", "admin"]
    assert "0.33.0" in lines[1]
    assert "5 models" in lines[1]
    assert "search 2.10.5" in lines[3]
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize(("more", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_check_is_coloured_on_a_terminal_only(tmp_path, more, coloured):
    """And not when NO_COLOR is set; without one is the case above."""
    path = tmp_path / "config.toml"
    path.write_text("[cache]\nttl = true\n")
    env = environment(TERM="xterm", **more)
    env = {name: text for name, text in env.items() if name in more or name != "NO_COLOR"}
    code, shown = run_on_terminal([*COMMAND, "check", "--config", str(path)], env=env)

    assert code == 1
    assert ("\x1b[31mFAIL" in shown) is coloured


def test_check_fails_for_what_is_not_there(monkeypatch):
    """No Ollama, no Redis, a port that a stranger holds: each is one FAIL with its remedy."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        env = {
            "CACHEPROXY_UPSTREAM__URL": f"http://127.0.0.1:{free_port()}",
            "CACHEPROXY_REDIS__URL": f"redis://127.0.0.1:{free_port()}/0",
            "CACHEPROXY_SERVER__LISTEN": f"127.0.0.1:{taken.getsockname()[1]}",
            "CACHEPROXY_ADMIN__LISTEN": f"127.0.0.1:{free_port()}",
        }
        monkeypatch.setattr("cacheproxy.commands.check.TIMEOUT_S", 0.5)
        for name, text in env.items():
            monkeypatch.setenv(name, text)
        monkeypatch.delenv("OLLAMA_HOST", raising=False)
        found = list(look(None))

    failed = {finding.thing: finding.text for finding in found if finding.state == "FAIL"}
    assert set(failed) == {"ollama", "redis", "clients"}
    assert "ollama serve" in failed["ollama"]
    assert "redis.url" in failed["redis"]
    assert "taken" in failed["clients"]


async def test_check_knows_a_running_cacheproxy_and_ollama_on_its_ports(fake_ollama, clean_redis, monkeypatch):
    """A port held by the proxy itself is fine; one held by Ollama means that OLLAMA_HOST was set for it too."""
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    async with open_house(fake_ollama, clean_redis) as house:
        monkeypatch.setenv("CACHEPROXY_UPSTREAM__URL", fake_ollama.url)
        monkeypatch.setenv("CACHEPROXY_REDIS__URL", clean_redis.url)
        monkeypatch.setenv("CACHEPROXY_SERVER__LISTEN", f"127.0.0.1:{house.port}")
        monkeypatch.setenv("CACHEPROXY_ADMIN__LISTEN", f"127.0.0.1:{house.admin_port}")
        found = await asyncio.to_thread(lambda: list(look(None)))
        monkeypatch.setenv("CACHEPROXY_SERVER__LISTEN", fake_ollama.url.removeprefix("http://"))
        with_ollama = await asyncio.to_thread(lambda: list(look(None)))

    assert ("ok", "clients") in states(found)
    assert ("FAIL", "clients") not in states(found)
    assert next(one.text for one in found if one.thing == "admin").endswith("a cacheproxy is serving there")
    assert any("OLLAMA_HOST" in one.text for one in with_ollama if one.state == "FAIL" and one.thing == "clients")


async def test_check_warns_of_a_shell_whose_ollama_host_names_the_proxy(fake_ollama, clean_redis, monkeypatch):
    """`ollama serve` started there would take the proxy's port."""
    port = free_port()
    monkeypatch.setenv("CACHEPROXY_SERVER__LISTEN", f"127.0.0.1:{port}")
    monkeypatch.setenv("CACHEPROXY_REDIS__URL", clean_redis.url)
    monkeypatch.setenv("CACHEPROXY_UPSTREAM__URL", fake_ollama.url)
    monkeypatch.setenv("OLLAMA_HOST", f"localhost:{port}")
    found = await asyncio.to_thread(lambda: list(look(None)))

    assert ("warn", "env") in states(found)


def test_check_names_every_mistake_in_a_config_file(tmp_path):
    """All of them at once, each with the nearest valid name."""
    path = tmp_path / "config.toml"
    path.write_text('[cache]\ntll = "1h"\n[redis]\ntimeout = "soon"\n')
    done = run("check", "--config", str(path), check=1)

    assert 'FAIL config   config.toml: [cache] unknown key "tll" (did you mean "ttl"?)' in done.stdout
    assert "redis.timeout = 'soon'" in done.stdout


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:11435", ("127.0.0.1", 11435)),
        ("localhost", ("localhost", 11434)),
        ("http://localhost", ("localhost", 80)),
        ("https://there", ("there", 443)),
        (":11435", ("127.0.0.1", 11435)),
        ("[::1]:11435", ("::1", 11435)),
        ("0.0.0.0", ("0.0.0.0", 11434)),
    ],
)
def test_ollama_host_is_read_as_ollama_reads_it(text, expected):
    """A bare host means 11434, one with a scheme that scheme's port."""
    assert ollama_address(text) == expected


# --- stats and purge ---


async def test_stats_shows_what_was_asked(house):
    """One miss and one hit read as 50 %, per model and in all."""
    await house.chat("why?", stream=False)
    await house.settled()
    await house.chat("why?", stream=False)
    url = house.app.admin_url
    lines = (await run_beside("stats", "--admin", url)).stdout.splitlines()
    told = json.loads((await run_beside("stats", "--admin", url, "--json")).stdout)

    assert lines[0].split()[:4] == ["MODEL", "ASKS", "HIT", "EXACT"]
    assert lines[1].split()[:4] == ["llama3.2:latest", "2", "50.0%", "1"]
    assert lines[2].split()[:4] == ["all", "2", "50.0%", "1"]
    assert any(line.startswith("exact (memory)") for line in lines)
    assert told["asks"] == 2


async def test_stats_can_be_watched_until_ctrl_c(house):
    """Off a terminal each look is a new block; Ctrl-C is how it ends, so it is no failure."""
    process = await asyncio.create_subprocess_exec(
        *[*COMMAND, "stats", "--watch", "--admin", house.app.admin_url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(PYTHONUNBUFFERED="1"),
    )
    heads = 0
    async with asyncio.timeout(20):
        while heads < 2:
            heads += (await process.stdout.readline()).startswith(b"MODEL")
        process.send_signal(signal.SIGINT)
        _, errors = await process.communicate()

    assert process.returncode == 0
    assert errors == b""


async def test_purge_forgets_and_counts(house):
    """What was forgotten is asked of Ollama again."""
    for question in ("one?", "two?"):
        await house.chat(question, stream=False)
    await house.settled()
    first = await run_beside("purge", "--model", "llama3.2", "--admin", house.app.admin_url)
    second = await run_beside("purge", "--all", "--admin", house.app.admin_url)
    again = await house.chat("one?", stream=False)

    assert (first.stdout, second.stdout) == ("forgot 2 entries\n", "forgot 0 entries\n")
    assert again.header("x-cache") == "MISS"


async def test_the_token_comes_from_the_environment(fake_ollama, clean_redis):
    """With the wrong one the refusal is told and the exit code is 1."""
    async with open_house(fake_ollama, clean_redis, admin={"listen": "127.0.0.1:0", "token": "secret"}) as house:
        url = house.app.admin_url
        await run_beside("stats", "--admin", url, CACHEPROXY_ADMIN__TOKEN="secret")
        refused = await run_beside("stats", "--admin", url, "--token", "guess", check=1)

    assert "admin token" in refused.stderr


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


@pytest.mark.parametrize("arguments", [[], ["--all", "--model", "x"], ["--admin", "ftp://x", "--all"]])
def test_purge_wants_exactly_one_selector_and_a_usable_url(arguments):
    """Anything else deletes nothing and is wrong use."""
    run("purge", *arguments, check=2)


def test_a_proxy_that_is_not_there_is_told_with_the_remedy():
    """The line names the address, the cause and what to do."""
    url = f"http://127.0.0.1:{free_port()}"
    done = run("stats", "--admin", url, check=1)

    assert f"no cacheproxy answers at {url} (connection refused)" in done.stderr
    assert "cacheproxy serve" in done.stderr


def test_what_is_no_operators_port_is_told(simulated):
    """The proxy port, or any other server, is a common mistake in --admin."""
    with pytest.raises(AdminPortError, match=r"refused|no operator's port"):
        AdminPort(simulated).ask("/")


def test_the_admin_port_is_found_from_the_configuration():
    """Every interface is reached over loopback; a bare authority is taken for HTTP."""
    assert find(Admin(listen=":1", token="t")) == AdminPort("http://127.0.0.1:1", "t")
    assert find(Admin(listen="[::1]:1")).url == "http://[::1]:1"
    assert find(Admin(), url="other:2/").url == "http://other:2"
    assert "t0ken" not in repr(find(Admin(token="t0ken")))
    with pytest.raises(ConfigError):
        url_of("no-port")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0009, "0.9 ms"), (0.25, "250 ms"), (2.4, "2.4 s"), (83, "1 m 23 s"), (4980, "1 h 23 m"), (0, "0.0 ms")],
)
def test_durations_are_told_in_the_unit_that_fits(seconds, text):
    """One to three digits."""
    assert stats.duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(12, "12 B"), (3400, "3.4 kB"), (2.5e6, "2.5 MB"), (7e12, "7000.0 GB")])
def test_sizes_are_told_in_the_unit_that_fits(count, text):
    """Decimal units, as disks and `ollama list` have them."""
    assert stats.size(count) == text


@pytest.mark.parametrize("arguments", [["--help"], ["stats"], ["purge", "--all"]])
def test_starting_takes_a_fraction_of_a_second(arguments):
    """A person waits for these: half a second of a processor at most, however busy the machine is (measured: 0.2 s)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(*arguments, CACHEPROXY_ADMIN__LISTEN=f"127.0.0.1:{free_port()}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)

    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5
