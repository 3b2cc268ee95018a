"""What was told to the ledger is in Redis once: with several proxies, over restarts, and when Redis was away."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cacheproxy.config import Redis
from cacheproxy.errors import StoreUnavailableError
from cacheproxy.metrics import Fault
from cacheproxy.model import Outcome
from cacheproxy.store import ledger as module
from cacheproxy.store.batch import LIFETIME_S, WRITER_S, Keys
from cacheproxy.store.ledger import MODELS_MAX, PARTITIONS_MAX
from tests.fakes.house import until
from tests.fakes.redis_proxy import RedisProxy
from tests.fakes.redis_server import PATIENT_S, free_port, running_redis
from tests.store.ledgers import MODEL, books, near

KEYS = Keys("cacheproxy")


async def test_counts_are_in_redis_after_a_flush_and_not_before(clean_redis):
    """By outcome and model, with what was saved."""
    async with books(clean_redis) as one:
        one.told(Outcome.MISS)
        one.told(Outcome.EXACT, saved_s=1.5, saved_tokens=40)
        one.told(Outcome.JOINED, 3)
        assert await one.asks() == 0
        await one.ledger.flush()

        fleet = await one.another().account.fleet()
        assert fleet["outcomes"] == {"exact": 1, "semantic": 0, "joined": 3, "miss": 1, "bypass": 0, "stale": 0}
        assert fleet["saved"] == {"seconds": 1.5, "tokens": 40}
        assert fleet["models"][MODEL]["asks"] == 5
        assert fleet["windows"]["1h"]["hit_rate"] == 0.8


async def test_two_proxies_on_one_redis_are_summed(clean_redis):
    """Each writes its own; whoever reads sees both, and how many there are."""
    async with books(clean_redis) as one, books(clean_redis) as other:
        for number, proxy in ((3, one), (4, other), (5, one)):
            for _ in range(number):
                proxy.told()
            await asyncio.gather(one.ledger.flush(), other.ledger.flush())

        fleet = await other.account.fleet()
        assert fleet["asks"] == 12
        assert fleet["proxies"] == 2


async def test_a_restart_goes_on_where_the_last_process_ended(clean_redis):
    """Closing writes the last second; a new process adds to the same rows."""
    async with books(clean_redis) as one:
        await one.ledger.open()
        one.told(count=2)
        await one.ledger.close()
        await one.ledger.close()
        after = one.another()
        after.told(count=5)
        await after.ledger.flush()

        assert await after.asks() == 7


async def test_an_idle_proxy_writes_nothing_but_that_it_is_there(clean_redis):
    """And that not more often than it must."""
    async with books(clean_redis) as one:
        await one.ledger.flush()
        calls = one.connection.statistics().calls
        for _ in range(10):
            one.clock.advance(1.0)
            await one.ledger.flush()
        assert one.connection.statistics().calls == calls

        one.clock.advance(10.0)
        await one.ledger.flush()
        assert one.connection.statistics().calls == calls + 1
        assert clean_redis.call("KEYS", f"{KEYS.rows}*") == []


@pytest.mark.parametrize("times", [1, 3])
async def test_a_batch_whose_reply_was_lost_is_counted_once(clean_redis, monkeypatch, times):
    """Redis took it, the answer came too late, and it is sent again as often as it takes."""
    monkeypatch.setattr(module, "WRITE_TIMEOUT_S", 0.1)
    slow = {"s": 0.0}
    async with RedisProxy(clean_redis.port, lambda: slow["s"]) as proxy:
        address = clean_redis.settings(url=f"redis://127.0.0.1:{proxy.port}", timeout=PATIENT_S)
        async with books(address) as one:
            one.told(count=7)
            slow["s"] = 0.5
            for _ in range(times):
                with pytest.raises(StoreUnavailableError):
                    await one.ledger.flush()
                one.told(count=1)
                slow["s"] = 0.5 if times > 1 else 0.0
            slow["s"] = 0.0
            await until(lambda: one.connection.state == "up")
            await until(lambda: clean_redis.call("XLEN", KEYS.asks) >= 1)
            await one.ledger.flush()

            assert await one.asks() == 7 + times
            assert clean_redis.call("XLEN", KEYS.asks) == 1 + times


async def test_a_redis_that_wakes_up_late_and_does_what_was_given_up_counts_it_once(tmp_path_factory, monkeypatch):
    """Frozen, it has the first sending in its socket: it may run before, after or between what comes next."""
    monkeypatch.setattr(module, "WRITE_TIMEOUT_S", 0.1)
    with running_redis(tmp_path_factory.mktemp("r"), search=False) as server:
        async with books(server) as one:
            one.told(count=7)
            server.freeze()
            with pytest.raises(StoreUnavailableError):
                await one.ledger.flush()
            one.told(count=2)
            server.thaw()
            await until(lambda: one.connection.state == "up")
            await one.ledger.flush()

            assert await one.asks() == 9


async def test_what_is_told_while_redis_is_away_is_written_when_it_is_back(tmp_path_factory):
    """Into the minutes in which it happened, and each second without Redis is a counted fault."""
    with running_redis(tmp_path_factory.mktemp("r"), search=False) as server:
        async with books(server) as one:
            server.kill()
            for _ in range(5):
                one.told(Outcome.MISS, 2)
                with pytest.raises(StoreUnavailableError):
                    await one.ledger.flush()
                one.clock.advance(60)
            server.start()
            await until(lambda: one.connection.state == "up")
            await one.ledger.flush()

            series = await one.account.series(0.2, 60, None)
            assert [row["miss"] for row in series["rows"] if row["miss"]] == [2, 2, 2, 2, 2]


async def test_the_loop_survives_a_redis_that_is_away_and_counts_that(tmp_path_factory, monkeypatch):
    """Nobody has to restart it."""
    monkeypatch.setattr(module, "FLUSH_S", 0.01)
    with running_redis(tmp_path_factory.mktemp("r"), search=False) as server:
        async with books(server) as one:
            server.kill()
            await one.ledger.open()
            one.told(count=4)
            await until(lambda: one.faults() >= 2)
            server.start()
            await until(lambda: server.call("EXISTS", KEYS.rows) == 1)
            await one.ledger.close()

            assert await one.asks() == 4


async def test_closing_without_redis_ends_and_says_what_is_lost(tmp_path_factory, caplog):
    """A stop is not held up by a Redis that is away."""
    with running_redis(tmp_path_factory.mktemp("r"), search=False) as server:
        async with books(server) as one:
            await one.ledger.open()
            one.told()
            server.kill()
            await one.ledger.close()

            assert one.faults() >= 1
            assert "lost to the ledger" in caplog.text


async def test_what_waits_for_redis_is_bounded_and_the_oldest_goes(clean_redis, monkeypatch):
    """Days of counts do not fill the memory; what is given up is a fault of its own."""
    monkeypatch.setattr(module, "WAITING_MAX", 20)
    async with books(clean_redis) as one:
        await one.connection.close()
        for _ in range(50):
            one.told()
            one.clock.advance(60)
            with pytest.raises(StoreUnavailableError):
                await one.ledger.flush()

        assert sum(len(row) for row in one.ledger._waiting.values()) <= 20
        assert one.faults(Fault.LEDGER_DROPPED) > 20


async def test_ten_thousand_asks_add_up(clean_redis):
    """In one second: all are counted, a sample is recorded one by one, and how many are not is told."""
    async with books(clean_redis) as one:
        told: Counter[Outcome] = Counter()
        for number in range(10_000):
            outcome = list(Outcome)[number % 6]
            told[outcome] += 1
            one.told(outcome, model=f"m{number % 7}:latest", dialect=["chat", "generate"][number % 2])
        await one.ledger.flush()

        fleet = await one.account.fleet()
        left_out, asks = await one.account.recent(1000)
        assert fleet["outcomes"] == dict(told)
        assert sum(model["asks"] for model in fleet["models"].values()) == 10_000
        assert len(asks) + left_out == 10_000
        assert len(asks) == module.ASKS_A_SECOND


async def test_names_without_end_fill_neither_redis_nor_us(clean_redis):
    """A header of one's own costs a caller nothing; the counts are right all the same."""
    async with books(clean_redis) as one:
        for number in range(6000):
            one.told(model=f"model-{number % 200}|\n:x", partition=f"{number:032x}"[::-1], dialect="chat")
        await one.ledger.flush()

        (row,) = clean_redis.call("KEYS", f"{{{KEYS.prefix}:ledger}}:asks:60:*")
        fields = clean_redis.call("HKEYS", row)
        assert sum(field.startswith(b"m|") for field in fields) == MODELS_MAX + 1
        assert sum(field.startswith(b"p|") for field in fields) <= PARTITIONS_MAX + 1
        assert await one.asks() == 6000


async def test_names_are_told_apart_again_in_the_next_hour(clean_redis, monkeypatch):
    """The first fifty after a start are not the only ones for ever."""
    monkeypatch.setattr(module, "MODELS_MAX", 1)
    async with books(clean_redis) as one:
        named = one.another()
        for name in ("a", "b"):
            named.told(model=name)
            named.told(model="other one")
            await named.ledger.flush()
            named.clock.advance(3600)

        assert list((await named.account.fleet())["models"]) == ["a", "b", "other"]


async def test_rows_have_no_lifetime_and_go_after_a_fortnight(clean_redis):
    """Redis evicts what has one first, so a full cache would take the history; a later batch takes them out."""
    async with books(clean_redis) as one:
        one.told()
        await one.ledger.flush()
        rows = clean_redis.call("ZRANGE", KEYS.rows, 0, -1)
        assert {clean_redis.call("TTL", key) for key in rows} == {-1}
        assert len(rows) == 3

        one.clock.advance(LIFETIME_S + 3600)
        one.told()
        await one.ledger.flush()
        assert {clean_redis.call("EXISTS", key) for key in rows} == {0}
        assert clean_redis.call("ZCARD", KEYS.rows) == 3


async def test_writers_of_long_ago_are_forgotten(clean_redis):
    """Each start is a writer; they do not gather."""
    async with books(clean_redis) as one:
        for _ in range(3):
            await one.another().ledger.flush()
        assert clean_redis.call("HLEN", KEYS.writers) == 3
        one.clock.advance(WRITER_S + 1)
        await one.ledger.flush()

        assert clean_redis.call("HLEN", KEYS.writers) == clean_redis.call("ZCARD", KEYS.seen) == 1


async def test_a_large_row_is_written_in_batches(clean_redis, monkeypatch):
    """Redis is never busy with one of them for long."""
    monkeypatch.setattr(module, "BATCH_FIELDS", 7)
    async with books(clean_redis) as one:
        for number in range(40):
            one.told(model=f"m{number}", neighbour=near(0.5 + number / 100))
        calls = one.connection.statistics().calls
        await one.ledger.flush()

        assert one.connection.statistics().calls - calls >= 10
        assert await one.asks() == 40
        found = await one.account.similarity(1, None)
        assert sum(row["served"] for row in found["rows"]) == 40


async def test_a_name_that_no_utf8_holds_is_counted_all_the_same(clean_redis):
    """Half a surrogate pair in a name of Ollama's would else end the writing for good."""
    async with books(clean_redis) as one:
        one.told(model="caf\udce9:latest", neighbour=near())
        await one.ledger.flush()

        assert list((await one.account.fleet())["models"]) == ["caf\\udce9:latest"]
        assert len((await one.account.recent(5))[1]) == 1


async def test_a_defect_in_writing_does_not_end_it(clean_redis, monkeypatch):
    """It is counted and logged, and the next second is another try."""
    monkeypatch.setattr(module, "FLUSH_S", 0.01)
    async with books(clean_redis) as one:
        monkeypatch.setattr(one.ledger, "_write", lambda _batch: 1 / 0)
        await one.ledger.open()
        one.told()
        await until(lambda: one.faults(Fault.INTERNAL) >= 2)
        monkeypatch.undo()
        await until(lambda: not one.ledger.waiting)
        await one.ledger.close()

        assert await one.asks() == 1


async def test_a_foreign_value_under_a_key_of_ours_ends_nothing(clean_redis):
    """Redis refuses that batch once; what was not written of it is lost, and the rest goes on."""
    async with books(clean_redis) as one:
        clean_redis.call("SET", KEYS.row("asks", 60, int(one.clock.now())), "somebody else's")
        one.told()
        with pytest.raises(StoreUnavailableError):
            await one.ledger.flush()
        one.clock.advance(60)
        one.told(count=2)
        await one.ledger.flush()

        assert one.ledger.waiting == 0
        assert (await one.account.series(0.1, 60, None))["rows"][-1]["exact"] == 2


async def test_a_cluster_takes_the_script_and_gives_the_rows(tmp_path):
    """All in one slot, so on one node."""
    options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with running_redis(tmp_path, *options, search=False) as server:
        server.call("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        while b"cluster_state:ok" not in server.call("CLUSTER", "INFO"):  # noqa: ASYNC110 - a server has no event
            await asyncio.sleep(0.01)
        async with books(Redis(url=f"redis+cluster://127.0.0.1:{server.port}", timeout=PATIENT_S)) as one:
            one.told(count=3, neighbour=near())
            await one.ledger.flush()
            one.told()
            await one.ledger.flush()

            assert await one.asks() == 4
            assert len((await one.account.recent(5))[1]) == 2


async def test_keys_of_one_script_lie_on_one_node_of_a_cluster(clean_redis):
    """They share a hash tag."""
    async with books(clean_redis) as one:
        one.told(neighbour=near())
        await one.ledger.flush()
        keys = [key for key in clean_redis.call("KEYS", "*") if b"ledger" in key]

        assert len(keys) == 11
        assert all(key.startswith(b"{cacheproxy:ledger}:") for key in keys)


ASKS = st.lists(
    st.tuples(
        st.sampled_from(Outcome),
        st.sampled_from(["a:latest", "b:latest", ""]),
        st.integers(1, 4),
        st.integers(0, 9000),
        st.sampled_from(["kept", "lost", "refused"]),
    ),
    max_size=25,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ASKS)
def test_a_series_sums_to_what_was_told_whatever_becomes_of_replies(clean_redis, asks):
    """Batches that arrive, arrive without our hearing of it, or do not arrive at all, at any moment."""
    clean_redis.call("FLUSHALL")

    async def tell() -> None:
        async with books(clean_redis) as one:
            run = one.connection.run

            async def fail(use, *, timeout_s=None):
                if fate == "lost":
                    await run(use, timeout_s=timeout_s)
                raise StoreUnavailableError("away")

            for outcome, model, count, pause_s, fate in asks:
                one.told(outcome, count, model=model)
                one.connection.run = fail if fate != "kept" else run
                try:
                    await one.ledger.flush()
                except StoreUnavailableError:
                    assert fate != "kept"
                one.clock.advance(pause_s)
            one.connection.run = run
            await one.ledger.flush()
            for step_s in (3600, 7200):
                await check(one, step_s)

    async def check(one, step_s) -> None:
        series = await one.account.series(72, step_s, None)
        for outcome in Outcome:
            assert sum(row[outcome] for row in series["rows"]) == sum(n for o, _, n, *_ in asks if o is outcome)
        of_a = await one.account.series(72, step_s, "a:latest")
        assert sum(row[outcome] for row in of_a["rows"] for outcome in Outcome) == sum(
            n for _, model, n, *_ in asks if model == "a:latest"
        )

    asyncio.run(tell())
