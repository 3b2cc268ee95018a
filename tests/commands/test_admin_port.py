"""Commands that ask a running proxy find it, authenticate, and tell what went wrong with the remedy."""

import json

import pytest

from cacheproxy.commands.admin_port import AdminPort, find, url_of
from cacheproxy.config import Admin
from cacheproxy.errors import AdminPortError, ConfigError
from tests.fakes.command import run, run_beside
from tests.fakes.house import open_house
from tests.fakes.redis_server import free_port


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


async def test_purge_counts_for_programs_too(house):
    """One object, as `rm` prints it."""
    await house.chat("one?", stream=False)
    await house.settled()
    done = await run_beside("purge", "--all", "--json", "--admin", house.app.admin_url)

    assert json.loads(done.stdout) == {"deleted": 1}


async def test_the_token_comes_from_the_environment(fake_ollama, clean_redis):
    """With the wrong one the refusal is told and the exit code is 1."""
    async with open_house(fake_ollama, clean_redis, admin={"listen": "127.0.0.1:0", "token": "secret"}) as house:
        url = house.app.admin_url
        await run_beside("stats", "--admin", url, CACHEPROXY_ADMIN__TOKEN="secret")
        refused = await run_beside("stats", "--admin", url, "--token", "guess", check=1)

        tokenless = await run_beside("stats", "--admin", url, check=1)

    assert "--token or admin.token is not its token; give it with --token" in refused.stderr
    assert "it has a token, and none was given; give it with --token" in tokenless.stderr


async def test_the_port_for_clients_is_told_as_what_it_is(house):
    """The two stand beside each other, so they are easily mixed up."""
    done = await run_beside("stats", "--admin", house.app.proxy_url, check=1)

    expected = f"{house.app.proxy_url} is a cacheproxy's port for clients; name its operator's port with --admin"
    assert done.stderr.startswith(f"cacheproxy: {expected}")


def test_a_proxy_that_is_not_there_is_told_with_the_remedy():
    """The line names the address, the cause and what to do."""
    url = f"http://127.0.0.1:{free_port()}"
    done = run("stats", "--admin", url, check=1)

    assert f"no cacheproxy answers at {url} (connection refused)" in done.stderr
    assert "cacheproxy serve" in done.stderr


def test_what_is_no_operators_port_is_told(simulated):
    """The proxy port, or any other server, is a common mistake in --admin."""
    for path in ("/", "/stats", "/entries?limit=1"):
        with pytest.raises(AdminPortError, match=f"{simulated} is no operator's port of a cacheproxy: it"):
            AdminPort(simulated).ask(path)


def test_the_admin_port_is_found_from_the_configuration():
    """Every interface is reached over loopback; a bare authority is taken for HTTP."""
    assert find(Admin(listen=":1", token="t")) == AdminPort("http://127.0.0.1:1", "t")
    assert find(Admin(listen="[::1]:1")).url == "http://[::1]:1"
    assert find(Admin(), url="other:2/").url == "http://other:2"
    assert "t0ken" not in repr(find(Admin(token="t0ken")))
    with pytest.raises(ConfigError):
        url_of("no-port")
