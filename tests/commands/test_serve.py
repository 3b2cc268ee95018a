"""The proxy as a service manager and a person at a terminal meet it: its banner, its complaints, its end."""

import asyncio
import json
import os
import pty
import signal
import socket
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

import pytest

from cacheproxy import __version__
from cacheproxy.commands.serve import banner, missing
from cacheproxy.whole.report import Report, Seen
from tests.fakes import wire
from tests.fakes.command import address, read_banner, run, serving
from tests.fakes.redis_server import free_port

CHAT = {"model": "llama3.2", "messages": [{"role": "user", "content": "why?"}]}


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


def test_with_a_log_of_json_all_of_standard_error_is_json(tmp_path):
    """What is missing and the end of the run too: a machine reads it line by line."""
    url = f"http://127.0.0.1:{free_port()}"
    with serving(tmp_path, "--upstream", url, CACHEPROXY_LOG__FORMAT="json") as process:
        read_banner(process)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)

    told = [json.loads(line) for line in errors.splitlines()]
    assert any("no Ollama at" in str(one) for one in told)
    assert any("stopping" in str(one) for one in told)


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


def test_a_port_that_is_taken_is_told_in_one_plain_sentence(tmp_path):
    """With its section and the remedy; exit code 1, for it may be free at the next try."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run("serve", "--listen", listen, check=1, CACHEPROXY_REDIS__DATA_DIR=str(tmp_path))

    assert done.stderr.splitlines()[-1] == (
        f"cacheproxy: [server] listen: cannot listen on {listen} (address already in use); "
        "is another cacheproxy running there? Choose another port."
    )


def test_sighup_reads_the_configuration_again(tmp_path, simulated):
    """What can change does, what cannot is named, and a mistake changes nothing; it goes on serving in any case."""
    path = tmp_path / "cacheproxy.toml"
    path.write_text("")
    with serving(tmp_path, "--config", str(path), "--upstream", simulated) as process:
        lines = read_banner(process)
        told, fine = [], [reload_went_well(lines[2])]
        for text in ('[cache]\nttl = "never"', '[cache]\nttl = "5m"\n[redis]\nprefix = "other"'):
            path.write_text(text)
            process.send_signal(signal.SIGHUP)
            told.append(next(line for line in process.stderr if "reloaded" in line))
            fine.append(reload_went_well(lines[2]))
        told.append(next(line for line in process.stderr if "next start" in line))
        with socket.create_connection(address(lines[1]), timeout=5):
            pass
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)

    assert "was not reloaded and nothing changed: cacheproxy.toml: cache.ttl = 'never'" in told[0]
    assert told[1].endswith("configuration reloaded: cache.ttl\n")
    assert told[2].endswith("redis.prefix\n")
    assert fine == [True, False, True]
    assert process.returncode == 0


def reload_went_well(line):
    """What the metrics say of the last one, at the port in the banner's line."""
    with urlopen("http://{}:{}/metrics".format(*address(line)), timeout=5) as reply:
        return b"\ncacheproxy_config_last_reload_successful 1.0\n" in reply.read()


def test_a_terminal_that_is_closed_ends_it(tmp_path):
    """A hang-up of that kind reloads nothing: nobody is left to press Ctrl-C."""
    ours, theirs = pty.openpty()
    with serving(tmp_path, stdin=theirs) as process:
        os.close(theirs)
        read_banner(process)
        os.close(ours)
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=30)

    assert process.returncode == 0


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


OLLAMA = Seen("http://ollama:11434", "0.33.0", "", ["a"])
REPORT = Report("http://127.0.0.1:1", "http://127.0.0.1:2", OLLAMA, "redis 8 at x", "", "x")


def test_the_banner_counts_one_model_as_one():
    """And names the file the settings came from."""
    lines = banner(REPORT, Path("my.toml"))

    assert lines[1].endswith("Ollama 0.33.0 at http://ollama:11434 (1 model)")
    assert lines[4:6] == ["  near     x", "  config   my.toml"]
    assert missing(REPORT) == []


def test_every_ollama_has_its_line_and_one_that_is_away_its_complaint():
    """Named with its setting; while another answers, nothing is lost but its share."""
    away = Seen("http://other:11434", "", "cannot reach Ollama (connection refused); check", [])
    some = replace(REPORT, others=(away, replace(OLLAMA, url="http://third:11434")))

    assert [line for line in banner(some, None) if line.startswith("  also")] == [
        "  also     http://other:11434",
        "  also     Ollama 0.33.0 at http://third:11434 (1 model)",
    ]
    expected = (
        'no Ollama at http://other:11434 (connection refused): start it with "ollama serve" or set upstream.others; '
    )
    assert missing(some) == [expected + "the others answer"]


def test_with_every_ollama_away_only_hits_are_left():
    """Each has its line all the same."""
    away = Seen("http://ollama:11434", "", "(connection refused)", [])
    lines = missing(replace(REPORT, upstream=away, others=(replace(away, url="http://other:11434"),)))

    assert len(lines) == 2
    assert all(line.endswith("hits from Redis go on, everything else gets an error") for line in lines)
