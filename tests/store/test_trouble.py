"""Each of Redis' errors becomes one of ours, with its remedy and without its own text."""

import pytest
import redis.exceptions
from redis._parsers.base import BaseParser

from cacheproxy.errors import StoreRefusedError, StoreUnavailableError
from cacheproxy.store.trouble import WORTH_A_LINE, IncurableError, LoadingError, translated


@pytest.mark.parametrize(
    ("reply", "kind", "says"),
    [
        ("LOADING Redis is loading the dataset in memory", LoadingError, "is loading its data"),
        ("NOAUTH Authentication required.", IncurableError, "wants a password"),
        ("WRONGPASS invalid username-password pair", IncurableError, "refused the user name or password"),
        ("ERR invalid password", IncurableError, "refused the user name or password"),
        ("MASTERDOWN Link with MASTER is down", StoreUnavailableError, "replica without its primary"),
        ("CLUSTERDOWN The cluster is down", StoreUnavailableError, "cluster that is down"),
        ("MOVED 3999 127.0.0.1:6381", IncurableError, "redis+cluster://"),
        ("BUSY Redis is busy running a script", StoreUnavailableError, "busy with a script"),
        ("ERR max number of clients reached", StoreUnavailableError, "raise its maxclients"),
        ("OOM command not allowed", StoreRefusedError, "out of memory"),
        ("MISCONF Redis is configured to save", StoreRefusedError, "cannot write its disk"),
        ("READONLY You can't write against a read only replica.", StoreRefusedError, "is a replica"),
        ("NOREPLICAS Not enough good replicas", StoreRefusedError, "misses replicas"),
        ("NOPERM this user has no permissions", StoreRefusedError, "its ACL"),
        ("WRONGTYPE Operation against a key", StoreRefusedError, "another type"),
        (
            "ERR Error running script (call to f_ab): @user_script:4: @user_script: 4: -READONLY You can't write.",
            StoreRefusedError,
            "is a replica",
        ),
        (
            "ERR Error running script (call to f_ab): @user_script:4: WRONGTYPE Operation",
            StoreRefusedError,
            "another type",
        ),
        ("nowhere: no such index", StoreRefusedError, "no such search index"),
        ("Unknown Index name", StoreRefusedError, "no such search index"),
        ("SEARCH_INDEX_NOT_FOUND Index not found", StoreRefusedError, "no such search index"),
        ("Cannot create index on db != 0", StoreRefusedError, "database 0 only"),
        (
            "ERR unknown command 'X', with args beginning with: 'my prompt'",
            StoreRefusedError,
            "refused a command (ERR)",
        ),
        ("my prompt", StoreRefusedError, "refused a command (ERR)"),
    ],
)
def test_each_reply_gets_its_kind_and_its_remedy(reply: str, kind: type[Exception], says: str) -> None:
    """As redis-py parses it, which takes the first word off those it knows."""
    ours = translated(BaseParser.parse_error(reply), "h:1")  # type: ignore[no-untyped-call]  # redis-py leaves it bare

    assert type(ours) is kind
    assert str(ours).startswith("redis at h:1 ")
    assert says in str(ours)
    assert "my prompt" not in str(ours)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (redis.exceptions.ConnectionError("Error 111 connecting to h:1."), "cannot be reached"),
        (ConnectionResetError(104, "reset"), "cannot be reached"),
        (redis.exceptions.ConnectionError("[SSL: WRONG_VERSION_NUMBER] wrong"), "over TLS (WRONG_VERSION_NUMBER)"),
        (redis.exceptions.MaxConnectionsError(), "cannot be reached"),
        (redis.exceptions.RedisClusterException("no nodes"), "cannot be reached"),
        (redis.exceptions.SlotNotCoveredError("slot"), "cannot be reached"),
        (redis.exceptions.InvalidResponse("my prompt"), "cannot be reached"),
    ],
)
def test_everything_else_means_that_it_was_not_reached(error: Exception, says: str) -> None:
    """Also the errors of the cluster client, which are no RedisError (litellm #36804)."""
    ours = translated(error, "h:1")

    assert type(ours) is StoreUnavailableError
    assert says in str(ours)
    assert "my prompt" not in str(ours)


def test_a_missing_index_is_no_news_for_the_operator() -> None:
    """Whoever misses it makes it again; the others are worth a line."""
    assert "NOINDEX" not in WORTH_A_LINE
    assert "OOM" in WORTH_A_LINE
