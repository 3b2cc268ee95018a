"""All entries' keys are found however many there are, and however long each step takes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cacheproxy import config
from cacheproxy.errors import StoreUnavailableError
from cacheproxy.store import keys
from cacheproxy.store.connection import Connection
from cacheproxy.store.exact import Doomed, Exact
from cacheproxy.store.shelf import Shelf
from tests.fakes.redis_proxy import RedisProxy
from tests.fakes.redis_server import PATIENT_S, RedisServer, free_port, running_redis
from tests.store.test_connection import up, wait_for_cluster

FILL = """
for number = 1, ARGV[1] do
  redis.call('HSET', string.format('cacheproxy:answer:%032x:%s:default', number, ARGV[2]), 'made', number)
end
"""
ALL = keys.pattern("cacheproxy")


def fill(server: RedisServer, count: int, digest: str = 12 * "d") -> None:
    """So many entries of one model, as far as their keys go, the n-th made in the n-th second."""
    server.call("EVAL", FILL, 0, count, digest)


@contextlib.asynccontextmanager
async def far(server: RedisServer, delay_s: float) -> AsyncIterator[Connection]:
    """Redis at the end of a line that takes so long for a reply."""
    async with (
        RedisProxy(server.port, lambda: delay_s) as proxy,
        up(config.Redis(url=f"redis://127.0.0.1:{proxy.port}", timeout=PATIENT_S)) as connection,
    ):
        yield connection


async def found(connection: Connection, pattern: str = ALL) -> list[bytes]:
    """All that a scan finds."""
    return [key async for step in keys.scanned(connection, pattern) for key in step]


@pytest.mark.parametrize(
    ("wanted", "count"),
    [({}, 1300), ({"digest": 64 * "e"}, 100), ({"entry_id": f"{7:032x}"}, 2), ({"entry_id": f"{101:032x}"}, 1)],
)
async def test_every_key_is_found_over_many_steps(clean_redis: RedisServer, wanted: dict[str, str], count: int) -> None:
    """Those of one model or one id, too; what is no entry, or under another prefix, is not."""
    fill(clean_redis, 1200)
    fill(clean_redis, 100, 12 * "e")
    clean_redis.call("SET", "other:answer:1:2:3", "")
    async with up(clean_redis.settings(timeout=PATIENT_S)) as connection:
        assert len(set(await found(connection, keys.pattern("cacheproxy", **wanted)))) == count


async def test_every_key_of_a_cluster_is_found(tmp_path: Path) -> None:
    """Each of its servers is asked to the end; and all of them can be purged."""
    options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with running_redis(tmp_path, *options, search=False) as server:
        server.call("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        await asyncio.to_thread(wait_for_cluster, server)
        for number in range(1200):
            server.call("HSET", f"cacheproxy:answer:{number:032x}:abc:default", "made", number)
        async with up(config.Redis(url=f"redis+cluster://127.0.0.1:{server.port}", timeout=PATIENT_S)) as connection:
            assert len(set(await found(connection))) == 1200
            assert await Exact(connection, "cacheproxy").purge(Doomed(made_before=1000)) == 1000
            assert len(set(await found(connection))) == 200


async def test_a_server_that_left_the_cluster_during_a_scan_is_an_error() -> None:
    """To ask another one would pass keys over in silence."""

    class Cluster:
        def get_node(self, *, node_name: str) -> None:
            """It has none of this name."""

    with pytest.raises(StoreUnavailableError, match="has lost server:6379"):
        await keys._step(Cluster(), pattern=ALL, cursor=5, node="server:6379")


@pytest.mark.parametrize("doomed", [Doomed(), Doomed(made_before=1000.0)])
async def test_a_purge_over_a_slow_line_takes_few_round_trips(clean_redis: RedisServer, doomed: Doomed) -> None:
    """One for each key would take 10 ms each, and so more than any deadline."""
    fill(clean_redis, 600)
    async with far(clean_redis, 0.01) as connection:
        assert await Exact(connection, "cacheproxy").purge(doomed) == 600
        assert await found(connection) == []


async def test_a_deadline_is_that_of_one_step(clean_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a large store takes as long as it takes; one step that hangs ends it."""
    monkeypatch.setattr(keys, "SCAN_COUNT", 10)
    monkeypatch.setattr(keys, "OPERATOR_TIMEOUT_S", 0.5)
    fill(clean_redis, 300)
    async with far(clean_redis, 0.03) as connection:
        async with asyncio.timeout(30):
            assert len(set(await found(connection))) == 300
            assert await Shelf(connection, "cacheproxy").find(f"{7:032x}") is None
            assert await Exact(connection, "cacheproxy").purge(Doomed()) == 300
    async with far(clean_redis, 0.0) as connection:
        clean_redis.freeze()
        try:
            with pytest.raises(StoreUnavailableError):
                await found(connection)
        finally:
            clean_redis.thaw()
