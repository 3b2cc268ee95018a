"""How full Redis is: its own figures, and nothing where they would mislead."""

from __future__ import annotations

from cacheproxy.store.size import Size, Sizes
from tests.fakes.redis_server import PATIENT_S, RedisServer, running_redis
from tests.store.test_connection import eventually, up


async def test_memory_keys_and_evictions_are_redis_own(tmp_path) -> None:
    """What was thrown out to make room is counted; what expired is not."""
    with running_redis(tmp_path, "--maxmemory", "16mb", "--maxmemory-policy", "allkeys-lru") as server:
        async with up(server.settings(timeout=PATIENT_S)) as connection:
            sizes = Sizes(connection)
            assert sizes.last is None
            server.call("SET", "gone", "v", "PX", "1")
            server.call("SET", "there", "v")
            await sizes.look()
            before = sizes.last
            server.call("EVAL", "for i = 1, 400 do redis.call('SET', 'n' .. i, string.rep('v', 100000)) end", 0)
            await sizes.look()

    assert before is not None
    assert (before.memory_max_bytes, before.evicted) == (16 * 1024**2, 0)
    assert before.keys in (3, 4)  # two are what proxies share: the secret and the epoch
    assert sizes.last is not None
    assert sizes.last.evicted > 100
    assert before.memory_bytes < sizes.last.memory_bytes < 400 * 100_000


async def test_of_a_redis_that_is_away_nothing_is_said(tmp_path) -> None:
    """Old figures would read as new ones."""
    with running_redis(tmp_path) as server:
        async with up(server.settings(timeout=PATIENT_S)) as connection:
            sizes = Sizes(connection)
            await sizes.look()
            assert isinstance(sizes.last, Size)
            server.kill()
            await eventually(lambda: connection.left_alone)
            await sizes.look()

            assert sizes.last is None


async def test_whoever_wants_to_know_is_told_once_that_redis_is_left_alone(clean_redis: RedisServer, tmp_path) -> None:
    """Once a break, however long it lasts."""
    assert clean_redis.call("PING")
    told: list[str] = []
    with running_redis(tmp_path) as server:
        async with up(server.settings(timeout=PATIENT_S)) as connection:
            connection.on_break.append(lambda: told.append("break"))
            assert not connection.left_alone
            server.kill()
            await eventually(lambda: connection.left_alone)
            server.start()
            await eventually(lambda: connection.state == "up")

            assert (told, connection.left_alone) == (["break"], False)
