"""The ledger read back: whole rows, few round trips, and the same figures from every side."""

from __future__ import annotations

import time

import pytest

from cacheproxy.errors import StoreUnavailableError
from cacheproxy.model import Outcome
from cacheproxy.store import account as module
from cacheproxy.store.account import READ_TOGETHER, ROWS_MAX, STEPS_SHOWN, step_for
from tests.fakes.speed import slowness
from tests.store.ledgers import START, books, near


async def test_a_series_has_a_row_for_each_step_with_zeros_where_nothing_was(clean_redis):
    """Aligned to the step, the present row included, whatever the step is made of."""
    async with books(clean_redis) as one:
        for _ in range(4):
            one.told(Outcome.MISS, saved_s=0.25, saved_tokens=3)
            one.clock.advance(1800)
            await one.ledger.flush()
        for step_s in (60, 120, 600, 1800, 3600):
            series = await one.account.series(3, step_s, None)
            rows = series["rows"]

            assert [row["t"] for row in rows] == list(range(series["from"], series["to"], step_s))
            assert series["from"] <= one.clock.now() - 3 * 3600
            assert series["to"] - step_s <= one.clock.now() < series["to"]
            assert sum(row["miss"] for row in rows) == 4
            assert sum(row["saved_tokens"] for row in rows) == 12
            assert sum(row["saved_s"] for row in rows) == 1.0
            assert max(row["miss"] for row in rows) == (2 if step_s == 3600 else 1)


async def test_a_fortnight_is_read_in_few_round_trips(clean_redis):
    """From the rows of hours, a few dozen at once; a second look asks for the present row only."""
    async with books(clean_redis) as one:
        calls = one.connection.statistics().calls
        await one.account.series(336, step_for(336), None)
        assert one.connection.statistics().calls - calls <= 337 // READ_TOGETHER + 1

        calls = one.connection.statistics().calls
        one.clock.advance(5)
        await one.account.series(336, step_for(336), None)
        assert one.connection.statistics().calls - calls == 1


async def test_a_step_that_takes_too_many_rows_is_refused_with_one_that_does_not(clean_redis):
    """A minute's rows of a fortnight would be twenty thousand."""
    async with books(clean_redis) as one:
        with pytest.raises(ValueError, match="try step=7200"):
            await one.account.series(336, 60, None)
        assert len((await one.account.series(35 - 1 / 60, 60, None))["rows"]) <= ROWS_MAX


async def test_a_past_hour_can_be_looked_at_in_minutes(clean_redis):
    """A week later still; a time to come is now."""
    async with books(clean_redis) as one:
        one.told(count=7)
        await one.ledger.flush()
        one.clock.advance(7 * 86_400)
        past = await one.account.series(1, 60, None, START + 60)
        to_come = await one.account.series(1, 60, None, START * 2)

        assert [row["exact"] for row in past["rows"]][-2:] == [7, 0]
        assert to_come["to"] == (await one.account.series(1, 60, None))["to"]


@pytest.mark.parametrize("hours", [0.1, 1, 3, 3.4, 24, 100, 336])
def test_the_step_chosen_makes_a_picture(hours):
    """Not more rows than a page is wide, and not coarser than it must be."""
    assert hours * 3600 / step_for(hours) <= STEPS_SHOWN
    assert step_for(hours) == 60 or hours * 3600 / step_for(hours) > STEPS_SHOWN / 4


async def test_windows_hold_what_lies_in_them(clean_redis):
    """An ask leaves the hour, the day and the week one after the other."""
    async with books(clean_redis) as one:
        one.told()
        await one.ledger.flush()
        found = []
        for hours in (0.5, 2, 30, 24 * 8, 24 * 15):
            one.clock.seconds = START + hours * 3600
            windows = (await one.account.fleet())["windows"]
            found.append([windows[name]["asks"] for name in ("1h", "24h", "7d", "14d")])

        assert found == [[1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]]


async def test_what_another_proxy_writes_is_seen_within_a_moment(clean_redis):
    """The present rows are read anew; nothing is remembered for longer than a look takes."""
    async with books(clean_redis) as one, books(clean_redis) as other:
        assert (await one.account.fleet())["asks"] == 0
        other.told(count=3)
        await other.ledger.flush()
        one.clock.advance(1)

        assert (await one.account.fleet())["asks"] == 3


async def test_late_counts_of_a_proxy_that_could_not_write_are_seen_in_the_end(clean_redis):
    """Rows of the past are believed for ten minutes."""
    async with books(clean_redis) as one, books(clean_redis) as other:
        other.told(count=3)
        one.clock.advance(3600)
        assert (await one.account.fleet())["asks"] == 0
        await other.ledger.flush()
        one.clock.advance(module.SETTLED_FOR_S)

        assert (await one.account.fleet())["asks"] == 3


async def test_the_slider_at_the_present_threshold_shows_what_was_served(clean_redis):
    """Served neighbours are the semantic hits; below and guarded are apart."""
    async with books(clean_redis) as one:
        for similarity in (0.92, 0.9200001, 0.95, 1.0):
            one.told(Outcome.SEMANTIC, neighbour=near(similarity), entry=near().entry)
        one.told(Outcome.JOINED, neighbour=near(0.93), entry=near().entry)
        one.told(Outcome.MISS, neighbour=near(0.9199999, "below_threshold"))
        one.told(Outcome.MISS, neighbour=near(0.2, "below_threshold"))
        one.told(Outcome.MISS, neighbour=near(0.99, "guard:numbers"))
        one.told(Outcome.EXACT, 5)
        one.told(Outcome.BYPASS, 2)
        await one.ledger.flush()
        found = await one.account.similarity(24, None)
        rows = found["rows"]

        assert (found["asks"], found["hits"], found["semantic"]) == (13, 10, 5)
        assert sum(row["served"] + row["below"] for row in rows if row["at"] >= 0.92) == found["semantic"]
        assert sum(row["below"] for row in rows) == 2
        assert sum(row["guarded"] for row in rows) == 1
        assert (await one.account.similarity(24, "another:latest"))["asks"] == 0
        assert (await one.account.similarity(24, "another:latest"))["semantic"] == 0


async def test_pairs_are_those_nearest_to_the_line(clean_redis):
    """Nearest first, as many as were asked for."""
    async with books(clean_redis, prompts=True) as one:
        for number in range(5):
            one.told(neighbour=near(0.8 + number / 20, asked=f"asked {number}", stored="<img src=x>"))
        await one.ledger.flush()
        pairs = await one.account.pairs(0.9, 2)

        assert pairs[0]["asked"] == "asked 2"
        assert [round(pair["similarity"], 2) for pair in pairs] in ([0.9, 0.85], [0.9, 0.95])
        assert pairs[0]["stored"] == "<img src=x>"


async def test_texts_are_not_shown_where_prompts_may_not_be(clean_redis):
    """Not even those that were written while they might; and long ones are cut before they are written."""
    async with books(clean_redis, prompts=True) as one:
        one.told(neighbour=near(asked="x" * 9000, stored="half a pair \ud83d"))
        await one.ledger.flush()
        (shown,) = (await one.account.recent(9))[1]
        assert len(shown["asked"]) == 500
        one.account.prompts = False

        for found in [*(await one.account.recent(9))[1], *await one.account.pairs(0.9, 9)]:
            assert (found["asked"], found["stored"]) == ("", "")


async def test_records_that_cannot_be_read_are_left_out(clean_redis):
    """Somebody else's bytes in our stream hide no ask of ours."""
    async with books(clean_redis) as one:
        one.told()
        await one.ledger.flush()
        for value in ("{", "[1]", "\xff"):
            clean_redis.call("XADD", one.account._keys.asks, "*", "j", value)
        clean_redis.call("XADD", one.account._keys.asks, "*", "x", "y")

        assert len((await one.account.recent(10))[1]) == 1


async def test_without_redis_there_is_one_known_error(clean_redis):
    """The pages word it."""
    async with books(clean_redis) as one:
        await one.connection.close()
        for read in (one.account.fleet(), one.account.series(1, 60, None), one.account.recent(1)):
            with pytest.raises(StoreUnavailableError):
                await read


async def test_counting_an_ask_costs_microseconds(clean_redis):
    """Against the cheapest listener there is, in one run; the bound is far above what it takes, for busy machines."""
    async with books(clean_redis) as one:
        decision = one.told(neighbour=near())
        began = time.thread_time()
        for _ in range(20_000):
            one.ledger.decided(decision, 1)
        each_s = (time.thread_time() - began) / 20_000

        assert each_s < 50e-6 * slowness()


async def test_a_row_read_while_it_was_open_is_read_again_once_it_is_settled(clean_redis):
    """Nobody looks between: what was asked in the rest of that minute is not missing from it ten minutes later."""
    async with books(clean_redis) as one:
        one.told(Outcome.MISS)
        await one.ledger.flush()
        assert sum(row["miss"] for row in (await one.account.series(1, 60, None))["rows"]) == 1
        one.told(Outcome.MISS, count=5)
        await one.ledger.flush()
        one.clock.advance(300)

        assert sum(row["miss"] for row in (await one.account.series(1, 60, None))["rows"]) == 6
        fleet = await one.account.fleet()
        assert {window["asks"] for window in fleet["windows"].values()} == {6}
