"""Entries are found by nearness within their scope, and no fault of the index reaches a caller."""

from __future__ import annotations

import asyncio
import contextlib
import math
import multiprocessing
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cacheproxy import behind
from cacheproxy.clock import SystemClock
from cacheproxy.errors import CacheError, EmbedderError, StoreRefusedError, StoreUnavailableError
from cacheproxy.metrics import Fault, Metrics
from cacheproxy.model import Answer, Entry
from cacheproxy.store import contact
from cacheproxy.store import semantic as module
from cacheproxy.store.breaker import FAILURES_IN_A_ROW
from cacheproxy.store.capabilities import capabilities
from cacheproxy.store.connection import Connection
from cacheproxy.store.entry import NEAR_ANSWER_BYTES_MAX, space_of, vector_field
from cacheproxy.store.exact import Doomed, Exact
from cacheproxy.store.half import halved
from cacheproxy.store.search import index_for, neighbours
from cacheproxy.store.semantic import Semantic
from embeddings.load import load
from tests.fakes.house import until
from tests.fakes.redis_server import PATIENT_S, RedisServer, running_redis
from tests.fakes.stopwatch import Stopwatch, now

PREFIX = "cacheproxy"
FINGERPRINT = "fake-1"
DIMS = 4
SPACE = space_of(FINGERPRINT, DIMS)
CROWD_DIMS = 384
SLACK_S = 1.0
"""What a busy machine may add to a deadline; without ours a frozen Redis costs many seconds."""
ROUNDING = 2e-3
"""What float16 may do to a similarity where the processor also adds up in float16; elsewhere it is 1e-4."""
SCOPE, OTHER_SCOPE = "aa" * 16, "bb" * 16


@dataclass(slots=True)
class Tier:
    """The tier under test with what it stands on."""

    semantic: Semantic
    exact: Exact
    connection: Connection
    metrics: Metrics
    server: RedisServer

    async def put(self, name: str, vector: bytes, *, stale_s: float = 0.0, **changes: Any) -> Entry:
        """An entry of one minute, stored and indexed."""
        kept = entry(name, vector, **changes)
        await self.exact.put(kept, stale_s=stale_s, epoch=self.exact.epoch)
        return kept

    async def names(self, vector: bytes, scope: str = SCOPE, partition: str = "", **more: Any) -> list[str]:
        """Names of the entries near a vector, nearest first."""
        found = await self.semantic.nearest(scope, partition, vector, space=self.semantic.space, **more)
        return [match.entry.id for match in found]

    def faults(self, kind: Fault) -> int:
        """How often something was counted."""
        return int(self.metrics.snapshot()["faults"][kind])


def toward(degrees: float, dims: int = DIMS) -> bytes:
    """The unit vector at an angle to the first axis."""
    radians = math.radians(degrees)
    return np.array([math.cos(radians), math.sin(radians)] + [0] * (dims - 2), dtype="<f4").tobytes()


def entry(name: str, vector: bytes, **changes: Any) -> Entry:
    """An entry of one minute."""
    now = time.time()
    made = Entry(
        key=f"{PREFIX}:answer:{name}:0123456789ab:0.7",
        check=b"c" * 32,
        partition="",
        scope=SCOPE,
        digest="d" * 64,
        answer=Answer(f"answer of {name}", final={"eval_count": 3}),
        made=now,
        expires=now + 60,
        question=f"question of {name}",
        vector=vector,
        space=SPACE,
    )
    return replace(made, **changes)


@contextlib.asynccontextmanager
async def tier(
    server: RedisServer, *, protocol: int = 2, timeout_s: float = 1.0, **changes: Any
) -> AsyncIterator[Tier]:
    """A tier that is ready, unless `ready` is False."""
    ready, fingerprint, dims = (changes.pop(name, default) for name, default in DEFAULTS.items())
    clock = changes.pop("clock", SystemClock())
    metrics = Metrics(clock)
    connection = Connection(server.settings(url=f"{server.unix_url}?protocol={protocol}", timeout=timeout_s), clock)
    semantic = Semantic(connection, PREFIX, clock, metrics, timeout_s=timeout_s)
    await connection.open()
    await semantic.open()
    try:
        semantic.use(fingerprint, dims)
        if ready:
            await until(lambda: semantic.state == "ready")
        yield Tier(semantic, Exact(connection, PREFIX), connection, metrics, server)
    finally:
        await semantic.close()
        await connection.close()


DEFAULTS: dict[str, Any] = {"ready": True, "fingerprint": FINGERPRINT, "dims": DIMS}


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
async def near(request: pytest.FixtureRequest, clean_redis: RedisServer) -> AsyncIterator[Tier]:
    """A ready tier on an empty Redis, once for each protocol."""
    async with tier(clean_redis, protocol=request.param) as opened:
        yield opened


@pytest.mark.fault(42)
async def test_the_nearest_come_first_with_their_similarity_and_whole_entry(near):
    """Similarity is the cosine, whatever protocol the reply came in; one round trip brings the answer too."""
    kept = [await near.put(str(degrees), toward(degrees)) for degrees in (60, 0, 90, 180)]
    before = near.connection.statistics().calls
    found = await near.semantic.nearest(SCOPE, "", toward(0), space=SPACE)

    assert near.connection.statistics().calls == before + 1
    assert [match.similarity for match in found] == pytest.approx([1, 0.5, 0, -1], abs=ROUNDING)
    assert all(-1 <= match.similarity <= 1 for match in found)
    expected = [replace(kept[at], vector=b"", space="") for at in (1, 0, 2, 3)]
    assert [replace(match.entry, made=0, expires=0) for match in found] == [
        replace(each, made=0, expires=0) for each in expected
    ]


async def test_so_many_neighbours_come_as_were_asked_for(near):
    """And never more."""
    for degrees in range(10):
        await near.put(str(degrees), toward(10 * degrees))

    assert await near.names(toward(0), k=3) == ["0", "1", "2"]
    assert await near.names(toward(0)) == ["0", "1", "2", "3", "4"]


async def test_another_scope_is_never_near(near):
    """However equal the question: the setting around it differs."""
    await near.put("a", toward(0))
    await near.put("b", toward(10), scope=OTHER_SCOPE)

    assert await near.names(toward(0)) == ["a"]
    assert await near.names(toward(0), OTHER_SCOPE) == ["b"]
    assert await near.names(toward(0), "cc" * 16) == []
    assert near.faults(Fault.CHECK_MISMATCH) == 0


@pytest.mark.fault(38)
async def test_another_partition_is_no_match_even_in_an_equal_scope(near):
    """It is checked again on each entry, and its presence is a counted alarm."""
    await near.put("a", toward(0), partition="11" * 16)

    assert await near.names(toward(0), partition="22" * 16) == []
    assert near.faults(Fault.CHECK_MISMATCH) == 1
    assert await near.names(toward(0), partition="11" * 16) == ["a"]


@pytest.mark.fault(38)
@pytest.mark.parametrize("upper", [False, True])
async def test_a_scope_is_compared_with_regard_to_case(near, upper):
    """RediSearch folds the case of tags unless told not to."""
    await near.put("a", toward(0), scope="abcd" if upper else "ABCD")

    assert await near.names(toward(0), "ABCD" if upper else "abcd") == []


@pytest.mark.fault(38)
@given(scope=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_scope_is_read_as_a_query(clean_redis, scope):
    """Scopes are hex; if one ever were not, it would still be no syntax, and find nobody else's entries."""

    async def ask() -> None:
        async with tier(clean_redis, ready=False) as near:
            assert await near.connection.wait_up(5)
            await near.put("a", toward(0))
            with contextlib.suppress(StoreRefusedError):
                assert await near.names(toward(0), scope) == []

    asyncio.run(ask())


@pytest.mark.fault(35)
@pytest.mark.parametrize("protocol", [2, 3])
async def test_an_expired_neighbour_does_not_hide_a_live_one(tmp_path, protocol):
    """Redis keeps it among the nearest for a while after its end; here it never notices."""
    with running_redis(tmp_path, "--enable-debug-command", "yes") as server:
        server.call("DEBUG", "SET-ACTIVE-EXPIRE", 0)
        async with tier(server, protocol=protocol) as near:
            dead = await near.put("dead", toward(0), expires=time.time() + 0.05)
            await near.put("alive", toward(5))
            await until(lambda: time.time() > dead.expires + 0.01)

            assert await near.names(toward(0)) == ["alive"]
            assert near.faults(Fault.ENTRY_CORRUPT) == 0


async def test_an_entry_kept_for_bad_times_is_not_near(near):
    """What may be served as stale when Ollama is away is expired all the same."""
    await near.put("stale", toward(0), expires=time.time() - 1, stale_s=60)
    await near.put("fresh", toward(5))

    assert await near.names(toward(0)) == ["fresh"]


@pytest.mark.fault(36)
@pytest.mark.fault(40)
async def test_a_purged_entry_is_gone_for_both_tiers_at_once(near):
    """There is one hash, and nothing that points to it."""
    kept = await near.put("a", toward(0))
    await near.exact.purge(Doomed(entry_id=kept.id))

    assert await near.names(toward(0)) == []


@pytest.mark.fault(40)
async def test_a_neighbour_that_cannot_be_read_is_left_out_and_counted(near):
    """The others are found."""
    kept = await near.put("broken", toward(0))
    await near.put("whole", toward(5))
    near.server.call("HSET", kept.key, "answer", "{")

    assert await near.names(toward(0)) == ["whole"]
    assert near.faults(Fault.ENTRY_CORRUPT) == 1


async def test_an_entry_without_vector_is_not_indexed(near):
    """Near answers are off for its ask, or its answer is a giant."""
    await near.put("plain", b"", space="")
    await near.put("giant", toward(0), answer=Answer("x" * NEAR_ANSWER_BYTES_MAX))

    assert await near.names(toward(0)) == []
    await near.semantic.ensure_index()
    assert near.semantic.statistics().documents == 0
    assert near.semantic.statistics().failures == 0


async def test_a_rewritten_entry_has_its_new_vector_only(near):
    """The old one would match what the entry no longer answers."""
    await near.put("a", toward(0))
    await near.put("a", toward(90))

    (match,) = await near.semantic.nearest(SCOPE, "", toward(0), space=SPACE)
    assert match.similarity == pytest.approx(0, abs=ROUNDING)


@pytest.mark.fault(31)
async def test_a_vector_of_wrong_length_is_seen_by_the_operator(near):
    """A foreign writer's: Redis takes it and leaves it out of the index without a word."""
    near.server.call("HSET", f"{PREFIX}:answer:x:y:z", "scope", SCOPE, vector_field(SPACE), toward(0))  # float32
    await near.semantic.ensure_index()

    assert near.semantic.statistics().failures == 1
    assert near.semantic.statistics().documents == 0


@pytest.mark.fault(32)
@pytest.mark.parametrize(
    "vector",
    [
        b"",
        b"\0" * 15,
        b"\0" * 16,
        toward(0, dims=8),
        np.full(4, np.nan, dtype="<f4").tobytes(),
        np.array([np.inf, 0, 0, 0], dtype="<f4").tobytes(),
        np.array([1.01, 0, 0, 0], dtype="<f4").tobytes(),
    ],
)
async def test_a_question_vector_that_is_none_is_never_sent(near, vector):
    """Redis would answer it with silence, which would pass for a miss."""
    before = near.connection.statistics().calls
    with pytest.raises(EmbedderError):
        await near.semantic.nearest(SCOPE, "", vector, space=SPACE)

    assert near.connection.statistics().calls == before


@pytest.mark.fault(30)
async def test_a_vector_of_another_embedder_is_never_compared(near):
    """Not even where the dims are equal: neither as a question nor as an entry."""
    other = space_of("fake-2", DIMS)
    await near.put("theirs", toward(0), space=other)

    assert await near.names(toward(0)) == []
    with pytest.raises(EmbedderError, match="space"):
        await near.semantic.nearest(SCOPE, "", toward(0), space=other)


@pytest.mark.fault(29)
@pytest.mark.fault(30)
@pytest.mark.parametrize(("fingerprint", "dims"), [("fake-2", DIMS), (FINGERPRINT, 8)])
async def test_a_new_embedder_starts_empty_and_leaves_the_old_index_alone(clean_redis, fingerprint, dims):
    """A proxy that still runs the old one goes on; entries of the new one cost the old index nothing."""
    async with tier(clean_redis) as old, tier(clean_redis, fingerprint=fingerprint, dims=dims) as new:
        await old.put("old", toward(0))
        await new.put("new", toward(0, dims), space=new.semantic.space)

        assert await old.names(toward(0)) == ["old"]
        assert await new.names(toward(0, dims)) == ["new"]
        await old.semantic.ensure_index()
        assert old.semantic.statistics().documents == 1
        assert sorted(clean_redis.call("FT._LIST")) == sorted(
            index_for(PREFIX, each, size).name.encode() for each, size in ((FINGERPRINT, DIMS), (fingerprint, dims))
        )


async def test_an_embedder_can_change_while_running(near):
    """The tier then searches the new one's index, which it makes."""
    await near.put("old", toward(0))
    near.semantic.use("fake-2", DIMS)
    await until(lambda: near.semantic.state == "ready")
    await near.put("new", toward(0), space=near.semantic.space)

    assert await near.names(toward(0)) == ["new"]


@pytest.mark.fault(27)
@pytest.mark.parametrize("loss", [("FLUSHALL",), ("FT.DROPINDEX", index_for(PREFIX, FINGERPRINT, DIMS).name)])
async def test_a_lost_index_is_a_miss_and_comes_back_by_itself(near, loss):
    """With everything that is still there."""
    await near.put("a", toward(0))
    before = near.exact.epoch
    near.server.call(*loss)
    assert await near.names(toward(0)) == []
    await until(lambda: near.semantic.state == "ready")
    if loss[0] == "FLUSHALL":
        await until(lambda: near.exact.epoch not in (before, 0))  # until then nothing is kept
        await near.put("a", toward(0))

    assert await near.names(toward(0)) == ["a"]
    assert near.semantic.statistics().failed == 0


@pytest.mark.fault(27)
async def test_an_index_dropped_under_load_costs_nobody_an_error(near):
    """Whoever asks meanwhile misses; within half a second there are hits again."""
    await near.put("a", toward(0))
    name = index_for(PREFIX, FINGERPRINT, DIMS).name
    hits: list[float] = []
    done = asyncio.Event()

    async def ask() -> None:
        while not done.is_set():
            if await near.names(toward(0)):
                hits.append(now())

    workers = [asyncio.create_task(ask()) for _ in range(8)]
    for _ in range(5):
        near.server.call("FT.DROPINDEX", name)
        dropped = now()
        await until(lambda since=dropped: bool(hits) and hits[-1] > since + 0.02)
        assert hits[-1] - dropped < 0.5 + SLACK_S
    done.set()
    await asyncio.gather(*workers)


def _race(url: str, results: Any, barrier: Any) -> None:
    """One proxy of several that start at once."""

    async def main() -> str:
        clock = SystemClock()
        connection = Connection(RedisServer(Path()).settings(url=url, timeout=PATIENT_S), clock)
        await connection.open()
        semantic = Semantic(connection, PREFIX, clock, Metrics(clock), timeout_s=1.0)
        semantic.use(FINGERPRINT, DIMS)
        await until(lambda: connection.state == "up")
        barrier.wait(20)
        try:
            await semantic.ensure_index()
        except CacheError as error:
            return str(error)
        finally:
            await connection.close()
        return "ok"

    results.put(asyncio.run(main()))


@pytest.mark.fault(28)
async def test_proxies_that_start_at_once_make_one_index(clean_redis):
    """Four processes, five rounds: each finds its index afterwards, whoever made it."""
    context = multiprocessing.get_context("spawn")
    results, barrier = context.Queue(), context.Barrier(4)
    workers = [context.Process(target=_race, args=(clean_redis.unix_url, results, barrier)) for _ in range(4)]
    for worker in workers:
        worker.start()
    found = [await asyncio.to_thread(results.get, True, 60) for _ in workers]
    for worker in workers:
        await asyncio.to_thread(worker.join)

    assert found == ["ok"] * 4
    assert len(clean_redis.call("FT._LIST")) == 1


@pytest.mark.fault(28)
async def test_tiers_that_start_at_once_make_one_index(clean_redis):
    """Twenty rounds of eight in one process: nobody is refused."""
    async with contextlib.AsyncExitStack() as stack:
        tiers = [await stack.enter_async_context(tier(clean_redis)) for _ in range(8)]
        for _ in range(20):
            clean_redis.call("FT.DROPINDEX", index_for(PREFIX, FINGERPRINT, DIMS).name)
            await asyncio.gather(*(each.semantic.ensure_index() for each in tiers))

            assert {each.semantic.state for each in tiers} <= {"ready", "building"}
            assert len(clean_redis.call("FT._LIST")) == 1


FOREIGN = {
    "other dims": ("DIM", "4", "8"),
    "other numbers": ("TYPE", "FLOAT16", "FLOAT32"),
    "other metric": ("DISTANCE_METRIC", "COSINE", "L2"),
    "other prefix": ("1", f"{PREFIX}:answer:", "elsewhere:"),
    "no filter": ("FILTER", f"exists(@{vector_field(SPACE)})", "exists(@scope)"),
}


@pytest.mark.fault(28)
@pytest.mark.fault(42)
@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("difference", FOREIGN)
async def test_an_index_of_our_name_that_is_not_ours_is_left_alone(clean_redis, difference, protocol):
    """Near answers are off, the operator hears why, and when it is gone they are on."""
    key, old, new = FOREIGN[difference]
    words = [str(word) for word in index_for(PREFIX, FINGERPRINT, DIMS).create]
    at = next(at for at in range(len(words)) if words[at : at + 2] == [key, old])
    words[at + 1] = new
    clean_redis.call(*words)
    async with tier(clean_redis, protocol=protocol, ready=False) as near:
        await until(lambda: near.semantic.state == "down")
        assert "not one of ours" in near.semantic.reason
        with pytest.raises(StoreUnavailableError, match="not one of ours"):
            await near.names(toward(0))
        clean_redis.call("FT.DROPINDEX", words[1])
        while near.semantic.state != "ready":
            await near.semantic.ensure_index()

        assert await near.names(toward(0)) == []


@pytest.mark.fault(41)
async def test_a_redis_without_search_has_exact_answers_only(tmp_path):
    """It is said once, and no ask pays for finding out again."""
    with running_redis(tmp_path, search=False) as server:
        async with tier(server, ready=False) as near:
            await until(lambda: near.semantic.state == "down")
            before = near.connection.statistics().calls
            with pytest.raises(StoreUnavailableError, match="no search module"):
                await near.names(toward(0))

            assert "no search module" in near.semantic.reason
            assert near.connection.statistics().calls == before
            assert near.connection.state == "up"


@pytest.mark.fault(41)
async def test_a_search_module_without_float16_is_named_with_its_remedy(clean_redis, monkeypatch):
    """It refuses the index in words of its own; exact answers go on."""
    old = capabilities({"modules": [{"name": "search", "ver": 20812}]})
    monkeypatch.setattr(contact, "capabilities", lambda _: old)
    index = index_for(PREFIX, FINGERPRINT, DIMS)
    refused = tuple("FLOAT61" if word == "FLOAT16" else word for word in index.create)
    monkeypatch.setattr(module, "index_for", lambda *_: replace(index, create=refused))
    async with tier(clean_redis, ready=False) as near:
        await until(lambda: near.semantic.state == "down")
        with pytest.raises(StoreUnavailableError, match=r"2\.8\.12 is too old"):
            await near.names(toward(0))

        assert "2.10.0 or newer" in near.semantic.reason
        assert near.connection.state == "up"


@pytest.mark.fault(29)
async def test_vectors_of_an_earlier_program_are_not_near(near):
    """They are float32: read as float16 they would be near to anything."""
    kept = await near.put("old", b"", space="")
    near.server.call("HSET", kept.key, f"vector_{SPACE}", toward(0))
    await near.put("new", toward(5))

    assert await near.names(toward(0)) == ["new"]
    await near.semantic.ensure_index()
    assert (near.semantic.statistics().documents, near.semantic.statistics().failures) == (1, 0)


async def test_a_database_without_search_is_named_with_its_remedy(clean_redis):
    """RediSearch indexes database 0 only; exact answers work in any."""
    clock = SystemClock()
    connection = Connection(clean_redis.settings(url=f"{clean_redis.unix_url}?db=1", timeout=PATIENT_S), clock)
    semantic = Semantic(connection, PREFIX, clock, Metrics(clock), timeout_s=1)
    semantic.use(FINGERPRINT, DIMS)
    await connection.open()
    await semantic.open()
    await until(lambda: semantic.state == "down")
    reason = semantic.reason
    await semantic.close()
    await connection.close()

    assert "database 0 only" in reason


@pytest.mark.fault(33)
@pytest.mark.parametrize("protocol", [2, 3])
async def test_an_index_being_built_finds_what_it_has_so_far(clean_redis, protocol):
    """Its progress is shown, look-ups do not fail, and in the end it has everything."""
    field, count = vector_field(SPACE), 3000
    for start in range(0, count, 1000):
        clean_redis.call(
            "EVAL",
            "for i = 1, 1000 do redis.call('HSET', ARGV[1] .. (i + ARGV[2]), 'scope', ARGV[3], ARGV[4], ARGV[5]) end",
            0,
            f"{PREFIX}:answer:",
            start,
            SCOPE,
            field,
            halved(toward(0)),
        )
    async with tier(clean_redis, protocol=protocol, ready=False) as near:
        await near.put("whole", toward(0))
        while near.semantic.state != "ready":
            await near.names(toward(0))
            assert 0 <= near.semantic.statistics().indexed <= 1

        assert near.semantic.statistics().documents == count + 1
        assert near.semantic.statistics().failed == 0


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory):
    """A server whose every query takes longer than a millisecond."""
    index = index_for(PREFIX, FINGERPRINT, CROWD_DIMS)
    fill = "for i = 1, 10000 do redis.call('HSET', ARGV[1] .. i, 'scope', ARGV[2], ARGV[3], ARGV[4]) end"
    with running_redis(tmp_path_factory.mktemp("c")) as server:
        server.call(*index.create)
        for part in range(6):
            keys, field = f"{PREFIX}:answer:{part}-", vector_field(index.space)
            server.call("EVAL", fill, 0, keys, SCOPE, field, halved(toward(10, CROWD_DIMS)))
        yield server


@pytest.mark.fault(34)
@pytest.mark.fault(37)
@pytest.mark.parametrize(("policy", "protocol"), [("fail", 2), ("fail", 3), ("return", 3)])
async def test_a_query_that_takes_too_long_is_an_error_and_no_empty_result(crowded, monkeypatch, policy, protocol):
    """Whatever Redis is set to do; after a few, look-ups pause so that exact ones have Redis for themselves."""
    crowded.call("FT.CONFIG", "SET", "ON_TIMEOUT", policy)
    async with tier(crowded, protocol=protocol, dims=CROWD_DIMS) as near:
        with monkeypatch.context() as hurry:
            hurry.setattr(module, "QUERY_SHARE", 0)  # which leaves one millisecond
            for _ in range(FAILURES_IN_A_ROW):
                with pytest.raises(StoreUnavailableError):
                    await near.names(toward(0, CROWD_DIMS))
            with pytest.raises(StoreUnavailableError, match="paused"):
                await near.names(toward(0, CROWD_DIMS))

        assert near.semantic.state == "down"
        assert near.semantic.statistics().paused
        assert near.semantic.statistics().failed == FAILURES_IN_A_ROW
        assert near.faults(Fault.BREAKER_OPENED) == 1
        assert near.connection.state == "up"
        await until(lambda: near.semantic.state == "ready")
        await near.put("whole", toward(0, CROWD_DIMS), space=near.semantic.space)
        assert await near.names(toward(0, CROWD_DIMS), k=1) == ["whole"]


@pytest.mark.fault(37)
async def test_a_flood_of_equal_questions_leaves_a_look_up_bounded(crowded):
    """Sixty thousand clones in one scope: slower (9 ms on an idle machine), and none fails or pauses."""
    async with tier(crowded, dims=CROWD_DIMS, timeout_s=0.25) as near:
        await near.put("whole", toward(0, CROWD_DIMS), space=near.semantic.space)
        for _ in range(20):
            assert await near.names(toward(0, CROWD_DIMS), k=1) == ["whole"]

        assert near.semantic.statistics().failed == 0


async def test_a_frozen_redis_costs_one_deadline(tmp_path):
    """Cancelled or late, no reply of one look-up is ever another's."""
    with running_redis(tmp_path) as server:
        async with tier(server, timeout_s=0.05) as near:
            await near.put("a", toward(0))
            server.freeze()
            watch = Stopwatch()
            with pytest.raises(StoreUnavailableError):
                await near.names(toward(0))
            assert watch.seconds < 0.05 + SLACK_S
            server.thaw()
            await until(lambda: near.semantic.state == "ready")
            assert await near.names(toward(0)) == ["a"]


async def test_a_reply_to_another_query_is_no_match(near, monkeypatch):
    """Each query names its distances anew, so a reply that was mixed up shows none."""
    await near.put("a", toward(0))
    monkeypatch.setattr(module, "neighbours", lambda reply, alias: neighbours(reply, f"{alias}0"))
    with pytest.raises(StoreUnavailableError, match="no reply"):
        await near.names(toward(0))

    assert near.faults(Fault.CHECK_MISMATCH) == 1


@pytest.mark.fault(39)
async def test_cancelled_writes_leave_no_entry_without_an_end(near):
    """Hash, vector and lifetime are one transaction, wherever its writer is cut off."""
    for number in range(300):
        task = asyncio.create_task(near.put(str(number), toward(number)))
        await asyncio.sleep(0.0001 * (number % 7))
        task.cancel()
        await asyncio.wait([task])

    keys = near.server.call("KEYS", f"{PREFIX}:answer:*")
    assert keys
    assert all(near.server.call("PTTL", key) > 0 for key in keys)


async def test_an_asker_who_leaves_is_no_evidence_against_redis(near):
    """Cancelling look-ups opens nothing."""
    await near.put("a", toward(0))
    for number in range(50):
        task = asyncio.create_task(near.names(toward(0)))
        await asyncio.sleep(0.0001 * (number % 5))
        task.cancel()
        await asyncio.wait([task])

    assert await near.names(toward(0)) == ["a"]
    assert not near.semantic.statistics().paused


async def test_before_an_embedder_is_there_nothing_is_asked(clean_redis):
    """The state says so."""
    clock = SystemClock()
    connection = Connection(clean_redis.settings(), clock)
    semantic = Semantic(connection, PREFIX, clock, Metrics(clock), timeout_s=1)
    assert (semantic.state, semantic.reason, semantic.space) == ("off", "no embedder yet", "")
    with pytest.raises(StoreUnavailableError, match="no embedder yet"):
        await semantic.nearest(SCOPE, "", toward(0), space=SPACE)
    await semantic.ensure_index()
    await semantic.close()


async def test_a_defect_does_not_end_the_looks_at_the_index(clean_redis, monkeypatch, caplog):
    """An index that went is made again as soon as it has passed."""
    monkeypatch.setattr(behind, "REST_S", 0.01)
    async with tier(clean_redis) as near:
        ensure = near.semantic.ensure_index

        async def fail_once():
            monkeypatch.setattr(near.semantic, "ensure_index", ensure)
            raise KeyError

        monkeypatch.setattr(near.semantic, "ensure_index", fail_once)
        clean_redis.call("FT.DROPINDEX", index_for(PREFIX, FINGERPRINT, DIMS).name)
        assert await near.names(toward(0)) == []
        await until(lambda: near.semantic.state == "ready")

    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [KeyError]


async def test_counts_add_up(near):
    """Every look-up that was sent found something, nothing, or failed."""
    await near.put("a", toward(0))
    await near.names(toward(0))
    await near.names(toward(0), OTHER_SCOPE)
    counts = near.semantic.statistics()

    assert (counts.asked, counts.found, counts.empty, counts.failed) == (2, 1, 1, 0)


async def test_a_paraphrase_is_found_through_the_real_embedder(clean_redis):
    """From text to Redis and back; what is about something else is far."""
    embedder = load("all-MiniLM-L6-v2", engine="onnx")
    texts = ["How do I reset my password?", "What is the capital of France?", "How can I reset my password?"]
    vectors = [row.astype("<f4").tobytes() for row in embedder.embed(texts)]
    async with tier(clean_redis, fingerprint=embedder.fingerprint, dims=embedder.dims) as near:
        for text, vector in zip(texts[:2], vectors[:2], strict=True):
            await near.put(text[-9:-1], vector, space=near.semantic.space, question=text)
        found = await near.semantic.nearest(SCOPE, "", vectors[2], space=near.semantic.space)

    assert [match.entry.question for match in found] == texts[:2]
    rows = [np.frombuffer(vector, dtype="<f4") for vector in vectors]
    assert [match.similarity for match in found] == pytest.approx([rows[2] @ rows[0], rows[2] @ rows[1]], abs=ROUNDING)
