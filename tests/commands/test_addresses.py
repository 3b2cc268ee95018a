"""A proxy that would ask itself, or wants one port twice, is found before it starts."""

import pytest

from cacheproxy.commands.addresses import clashes, reaches
from cacheproxy.config import load
from cacheproxy.errors import ConfigError
from tests.fakes.command import run


def found(**sections):
    """The sentences about these settings."""
    return list(clashes(load(None, sections, env={})))


@pytest.mark.parametrize(
    ("host", "listen_host", "expected"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("localhost", "127.0.0.1", True),
        ("localhost", "::1", True),
        ("LOCALHOST.", "localhost", True),
        ("127.0.0.1", "localhost", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("::", "::1", True),
        ("::ffff:127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("127.0.0.2", "0.0.0.0", True),
        ("localhost", "0.0.0.0", True),
        ("cache", "Cache", True),
        ("::1", "127.0.0.1", False),
        ("127.0.0.2", "127.0.0.1", False),
        ("::1", "0.0.0.0", False),
        ("192.0.2.7", "0.0.0.0", False),
        ("192.0.2.7", "127.0.0.1", False),
        ("127.0.0.1", "192.0.2.7", False),
        ("host.docker.internal", "0.0.0.0", False),
        ("ollama", "cache", False),
    ],
)
def test_two_hosts_are_one_only_where_a_connection_would_come_out_there(host, listen_host, expected):
    """Loopback has many spellings, and another machine may use the same port."""
    assert reaches(host, listen_host) is expected


@pytest.mark.parametrize(
    ("upstream", "setting"),
    [
        ({"url": "http://localhost:11435"}, 'upstream.url = "http://localhost:11435"'),
        ({"others": ["http://127.0.0.1:11435/"]}, 'upstream.others = "http://127.0.0.1:11435/"'),
        ({"url": "http://127.0.0.1:11436"}, 'admin.listen = "127.0.0.1:11436"'),
    ],
)
def test_an_upstream_that_is_the_proxy_itself_is_named(upstream, setting):
    """With the setting it stands in, and where Ollama listens as a rule."""
    (text,) = found(upstream=upstream)

    assert setting in text
    assert "is this proxy itself" in text
    assert "http://127.0.0.1:11434" in text


def test_other_ports_and_ports_that_the_system_chooses_do_not_meet():
    """The defaults, the port of a scheme, and port 0, which is two ports in the end."""
    free = {"listen": "127.0.0.1:0"}

    assert found() == []
    assert found(server=free, admin=free) == []
    assert found(server={"listen": "127.0.0.1:80"}, upstream={"url": "https://127.0.0.1"}) == []
    assert len(found(server={"listen": "127.0.0.1:80"}, upstream={"url": "http://127.0.0.1"})) == 1


@pytest.mark.parametrize("listen", ["127.0.0.1:11436", "localhost:11436", ":11436"])
def test_clients_and_operators_cannot_have_one_port(listen):
    """Told as what it is: no other program is in the way."""
    (text,) = found(server={"listen": listen})

    assert f'server.listen = "{listen}" and admin.listen = "127.0.0.1:11436" are one port' in text


def test_what_is_no_address_is_an_error_of_its_own():
    """Under the key it stands in."""
    with pytest.raises(ConfigError, match=r'upstream\.url = "nonsense"'):
        found(upstream={"url": "nonsense"})


def test_serve_refuses_to_ask_itself_and_check_says_so():
    """Exit code 2: no retry of a service manager can help."""
    env = {"CACHEPROXY_UPSTREAM__URL": "http://localhost:11435", "CACHEPROXY_REDIS__URL": "redis://127.0.0.1:1"}
    served = run("serve", check=2, **env)
    checked = run("check", check=2, **env)

    assert served.stderr.startswith('cacheproxy: upstream.url = "http://localhost:11435" is this proxy itself')
    assert 'FAIL config   upstream.url = "http://localhost:11435" is this proxy itself' in checked.stdout
