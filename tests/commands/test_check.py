"""`cacheproxy check` finds what is there, what is missing and what will surprise, and says how to mend it."""

import asyncio
import json
import socket

import pytest

from cacheproxy import config, traces
from cacheproxy.commands.check import Finding, Installed, differences, look, near, ollama_address, tunings
from tests.fakes.command import COMMAND, environment, run
from tests.fakes.house import open_house
from tests.fakes.redis_server import free_port
from tests.fakes.terminal import run_on_terminal


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
    assert [finding["state"] for finding in told["findings"]] == ["ok"] * 9
    things = ["config", "ollama", "tuning", "data", "redis", "near", "clients", "admin", "admin"]
    assert [line.split()[1] for line in lines] == things
    assert "0.33.0" in lines[1]
    assert "5 models" in lines[1]
    assert "search 2.10.5" in lines[4]
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize(("more", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_check_is_coloured_on_a_terminal_only(tmp_path, more, coloured):
    """And not when NO_COLOR is set; without one is the case above."""
    path = tmp_path / "config.toml"
    path.write_text("[cache]\nttl = true\n")
    env = environment(TERM="xterm", **more)
    env = {name: text for name, text in env.items() if name in more or name != "NO_COLOR"}
    code, shown = run_on_terminal([*COMMAND, "check", "--config", str(path)], env=env)

    assert code == 2
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


def test_check_tells_of_a_redis_that_is_away_once():
    """In its own line; the store's log would speak of serving, which nobody does here."""
    env = {"CACHEPROXY_REDIS__URL": f"redis://127.0.0.1:{free_port()}", "CACHEPROXY_SEMANTIC__MODE": "off"}
    done = run("check", check=1, **env)

    assert [line.split()[:2] for line in done.stdout.splitlines() if "redis" in line] == [["FAIL", "redis"]]
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("setting", "value", "state", "told"),
    [
        ("CACHEPROXY_SEMANTIC__MODE", "off", "ok", "switched off"),
        ("CACHEPROXY_SEMANTIC__MODE", "serve", "ok", "all-MiniLM-L6-v2 (onnx), 384 dimensions"),
        ("CACHEPROXY_EMBEDDING__PATH", "/nowhere", "warn", "only exact answers for now: "),
    ],
)
def test_check_tells_how_near_answers_are(monkeypatch, setting, value, state, told):
    """An embedder that cannot be loaded costs near answers only, so it is no failure."""
    monkeypatch.setenv(setting, value)
    found = near(config.load())

    assert found.state == state
    assert told in found.text


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


async def test_check_knows_its_own_admin_port_behind_a_token(fake_ollama, clean_redis, monkeypatch):
    """It says so without the token, which it sends to nobody it does not know."""
    monkeypatch.setenv("CACHEPROXY_ADMIN__TOKEN", "sekrit")
    monkeypatch.setenv("CACHEPROXY_UPSTREAM__URL", fake_ollama.url)
    monkeypatch.setenv("CACHEPROXY_REDIS__URL", clean_redis.url)
    async with open_house(fake_ollama, clean_redis, admin={"token": "sekrit"}) as house:
        monkeypatch.setenv("CACHEPROXY_ADMIN__LISTEN", f"127.0.0.1:{house.admin_port}")
        found = await asyncio.to_thread(lambda: list(look(None)))

    assert next(one for one in found if one.thing == "admin").text.endswith("a cacheproxy is serving there")


def test_check_fails_where_traces_cannot_be_sent(clean_redis, monkeypatch):
    """As `serve` does, with the line that installs what is missing."""
    monkeypatch.setattr(traces, "PACKAGES", ("some-package",))
    monkeypatch.setattr(traces.importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setenv("CACHEPROXY_TRACING__ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setenv("CACHEPROXY_REDIS__URL", clean_redis.url)
    (found,) = [one for one in look(None) if one.thing == "tracing"]

    assert found.state == "FAIL"
    assert "pip install some-package" in found.text


def test_check_warns_of_a_database_that_cannot_be_searched(clean_redis, monkeypatch):
    """Exact answers go on there; near ones do not."""
    monkeypatch.setenv("CACHEPROXY_REDIS__URL", f"redis://127.0.0.1:{clean_redis.port}/1")
    found = [one for one in look(None) if one.thing == "redis"]

    assert ("ok", "redis") in states(found)
    assert any(one.state == "warn" and "database 0 only" in one.text for one in found)


async def test_check_knows_a_running_cacheproxy_whose_ollama_is_away(fake_ollama, clean_redis, monkeypatch):
    """Its own errors carry `Via` too."""
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    away = f"http://127.0.0.1:{free_port()}"
    async with open_house(fake_ollama, clean_redis, ready=False, upstream={"url": away}) as house:
        monkeypatch.setenv("CACHEPROXY_UPSTREAM__URL", away)
        monkeypatch.setenv("CACHEPROXY_REDIS__URL", clean_redis.url)
        monkeypatch.setenv("CACHEPROXY_SERVER__LISTEN", f"127.0.0.1:{house.port}")
        monkeypatch.setenv("CACHEPROXY_ADMIN__LISTEN", f"127.0.0.1:{house.admin_port}")
        found = await asyncio.to_thread(lambda: list(look(None)))

    assert ("ok", "clients") in states(found)
    assert ("FAIL", "clients") not in states(found)


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
    """All of them at once, each with the nearest valid name; exit code 2, as `serve` has it."""
    path = tmp_path / "config.toml"
    path.write_text('[cache]\ntll = "1h"\n[redis]\ntimeout = "soon"\n')
    done = run("check", "--config", str(path), check=2)

    assert 'FAIL config   config.toml: [cache] unknown key "tll" (did you mean "ttl"?)' in done.stdout
    assert "redis.timeout = 'soon'" in done.stdout


def test_check_tells_a_stranger_from_ollama_and_from_a_cacheproxy(clean_redis, monkeypatch):
    """A Redis where Ollama or the proxy should be answers, but not in HTTP."""
    stranger = f"127.0.0.1:{clean_redis.port}"
    monkeypatch.setenv("CACHEPROXY_UPSTREAM__URL", f"http://{stranger}")
    monkeypatch.setenv("CACHEPROXY_REDIS__URL", clean_redis.url)
    monkeypatch.setenv("CACHEPROXY_SERVER__LISTEN", stranger)
    found = {finding.thing: finding for finding in look(None) if finding.state == "FAIL"}

    assert set(found) == {"config", "ollama", "clients"}  # config: one address stands for both
    assert f"no Ollama at http://{stranger}" in found["ollama"].text
    assert "taken by something that is no cacheproxy" in found["clients"].text


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


def test_check_tells_what_is_added_for_each_model():
    """The profile first, then every installed model that a rule treats otherwise."""
    tree = {"tuning": {"profile": "low-latency"}, "models": {"llama3.2": {"options": {"num_ctx": 4096}}}}
    found = list(tunings(config.Config.model_validate(tree), ["llama3.2:latest", "qwen3:latest"]))

    assert found == [
        Finding("ok", "tuning", "low-latency: num_predict 1024, num_ctx as loaded, keep_alive 24h"),
        Finding("ok", "tuning", "llama3.2:latest: num_ctx 4096, num_predict 1024, keep_alive 24h"),
    ]
    tree["tuning"]["profile"] = "off"
    assert [finding.state for finding in tunings(config.Config.model_validate(tree), ["llama3.2:latest"])] == [
        "ok",
        "warn",
    ]


async def test_check_looks_at_every_ollama(fake_ollama, clean_redis, monkeypatch):
    """One that is away is a warning while another answers, and names the setting it stands in."""
    away = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("CACHEPROXY_UPSTREAM__URL", away)
    monkeypatch.setenv("CACHEPROXY_UPSTREAM__OTHERS", fake_ollama.url)
    monkeypatch.setenv("CACHEPROXY_REDIS__URL", clean_redis.url)
    monkeypatch.setenv("CACHEPROXY_ADMIN__LISTEN", f"127.0.0.1:{free_port()}")  # no proxy that happens to run here
    found = [one for one in await asyncio.to_thread(lambda: list(look(None))) if one.thing == "ollama"]
    monkeypatch.setenv("CACHEPROXY_UPSTREAM__OTHERS", f"{away}/also")
    none = [one for one in await asyncio.to_thread(lambda: list(look(None))) if one.thing == "ollama"]

    assert [one.state for one in found] == ["warn", "ok"]
    assert "upstream.url" in found[0].text
    assert [one.state for one in none] == ["warn", "FAIL"]
    assert "upstream.others" in none[1].text


def test_check_tells_why_ollamas_share_no_asks():
    """Other versions, other digests, and models that one of them lacks."""
    one = Installed("http://one", "0.33.0", {"a": "1", "b": "2"})
    found = [
        finding.text
        for other in (
            Installed("http://same", "0.33.0", {"b": "2", "a": "1"}),
            Installed("http://old", "0.32.0", {"a": "1", "b": "2"}),
            Installed("http://other", "0.33.0", {"a": "9", "c": "3"}),
        )
        for finding in differences([one, other])
    ]

    assert found == [
        "http://old is 0.32.0, http://one is 0.33.0: they share no asks",
        "not the same at http://one and http://other: a; pull anew",
        "at only one of http://one and http://other: b, c",
    ]
    assert list(differences([one])) == list(differences([])) == []
