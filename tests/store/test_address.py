"""Every form of `redis.url` is understood or refused with a remedy, and no password is ever repeated."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.errors import ConfigError
from cacheproxy.store.address import parse


@pytest.mark.parametrize(
    ("url", "kind", "where", "nodes", "options"),
    [
        ("redis://h", "single", "h", (("h", 6379),), {"host": "h"}),
        ("redis://h:1/2", "single", "h:1", (("h", 1),), {"host": "h", "port": 1, "db": 2}),
        ("redis://[::1]:7", "single", "[::1]:7", (("::1", 7),), {"host": "::1", "port": 7}),
        ("redis://u:p%40@h:1", "single", "h:1", (("h", 1),), {"username": "u", "password": "p@"}),
        ("redis://h?protocol=3&db=4", "single", "h", (("h", 6379),), {"protocol": 3, "db": 4}),
        ("rediss://h?ssl_ca_certs=/ca.pem", "single", "h", (("h", 6379),), {"ssl_ca_certs": "/ca.pem"}),
        ("unix:///run/r.sock?db=1", "single", "/run/r.sock", (), {"path": "/run/r.sock", "db": 1}),
        ("unix:///a%20b", "single", "/a b", (), {"path": "/a b"}),
        ("redis+sentinel://a,b:2/main/3", "sentinel", "a,b:2/main", (("a", 26379), ("b", 2)), {"db": 3}),
        ("redis+sentinel://:p@a/main", "sentinel", "a/main", (("a", 26379),), {"password": "p"}),
        ("redis+cluster://u:p@a:1,b:2", "cluster", "a:1,b:2", (("a", 1), ("b", 2)), {"username": "u", "password": "p"}),
        ("redis+cluster://a/0", "cluster", "a", (("a", 6379),), {}),
    ],
)
def test_each_form_of_url_is_understood(
    url: str, kind: str, where: str, nodes: tuple[tuple[str, int], ...], options: dict[str, object]
) -> None:
    """Kind, name for messages, nodes, and what redis-py is to be told."""
    found = parse(url)

    assert (found.kind, found.where, found.nodes) == (kind, where, nodes)
    assert options.items() <= found.options.items()


def test_what_names_one_server_is_kept_out_of_the_options_of_many() -> None:
    """Sentinel and cluster clients find their servers themselves."""
    for url in ("redis+sentinel://a:1/main", "rediss+sentinel://a:1/main", "redis+cluster://a", "rediss+cluster://a"):
        found = parse(url)
        assert not {"host", "port", "connection_class"} & set(found.options)
        assert found.tls == url.startswith("rediss")
    assert parse("redis+sentinel://a:1/main").service == "main"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "expected"),
        ("localhost:6379", "expected"),
        ("http://h", "expected"),
        ("redis+nonsense://h", "expected"),
        ("unix://", "expected"),
        ("redis://", "expected HOST:PORT"),
        ("redis://h:port", "expected HOST:PORT"),
        ("redis://h:99999", "expected HOST:PORT"),
        ("redis://h/name", "number of a database"),
        ("redis://h/1/2", "number of a database"),
        ("redis://a,b", r"redis\+cluster"),
        ("redis+sentinel://a", "SERVICE"),
        ("redis+cluster://a/1", "only database 0"),
        ("redis://h?socket_timeout=60", '"socket_timeout" cannot be set'),
        ("redis://h?retry_on_timeout=yes", '"retry_on_timeout" cannot be set'),
        ("redis://h?health_check_interval=1", "cannot be set"),
        ("redis://h?timeout=60", "cannot be set"),
        ("redis://h?protocol=three", "protocol"),
        ("redis://[::1", "not a URL"),
    ],
)
def test_what_cannot_be_used_is_refused_with_what_was_expected(url: str, says: str) -> None:
    """A URL may not loosen a deadline, either (litellm #35273: one from a URL dropped them all)."""
    with pytest.raises(ConfigError, match=says) as caught:
        parse(url)

    assert str(caught.value).startswith("redis.url: ")


@pytest.mark.fault(17)
@given(
    password=st.text(st.characters(exclude_characters="seh"), min_size=1).map(lambda text: f"s3{text}s3"),
    shape=st.sampled_from(
        ["redis://u:{}@h", "redis://u:{}@h/x", "redis://u:{}@[::", "x://{}@h", "redis+sentinel://{}@h"]
    ),
)
def test_no_password_is_ever_repeated(password: str, shape: str) -> None:
    """Neither by an error, nor by a repr, nor in the name for messages."""
    said, caught = "", None
    try:
        said = repr(parse(shape.format(password)))
    except ConfigError as error:
        said, caught = str(error), error

    assert caught is None or caught.__suppress_context__
    # Unencoded, some characters end the user part early; what follows is then no password but a host or a path.
    if caught is not None or not set("/?#@,\\[]:") & set(password):
        assert password not in said
