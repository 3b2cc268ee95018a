"""Which hosts are this very machine is told one way, wherever it is asked."""

from __future__ import annotations

import pytest

from cacheproxy.edge.hosts import is_loopback


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("::ffff:127.0.0.1", True), ("localhost", True), ("LocalHost", True),
     ("0.0.0.0", False), ("::", False), ("192.0.2.7", False), ("localhost.evil.test", False), ("", False)],
)  # fmt: skip
def test_loopback_is_told_by_address_not_by_looking_names_up(host, expected):
    """A name is never resolved: what it points to now it need not point to later."""
    assert is_loopback(host) is expected
