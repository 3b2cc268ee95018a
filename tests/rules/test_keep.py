"""Only complete answers are kept, for as long as the plan says, and not beyond the date they speak of."""

import os
import time
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.config import Cache
from cacheproxy.model import Answer, Plan
from cacheproxy.rules.keep import lifetime_s, refuse, until_midnight_s


@pytest.mark.case(103)
@pytest.mark.fault(48)
@pytest.mark.parametrize(
    ("answer", "settings", "expected"),
    [
        (Answer("x"), {}, ""),
        (Answer("", thinking="t"), {}, ""),
        (Answer("", tool_calls=({},)), {}, ""),
        (Answer(""), {}, "empty"),
        (Answer("", logprobs=({},), context=(1,)), {}, "empty"),
        (Answer("x", done_reason="length"), {}, "truncated"),
        (Answer("x", done_reason="length"), {"store_truncated": True}, ""),
        (Answer("x", done_reason="load"), {}, "done-reason"),
        (Answer("x", done_reason="unload"), {"store_truncated": True}, "done-reason"),
        (Answer("x", done_reason=""), {}, "done-reason"),
        (Answer("x", done_reason="Stop"), {}, "done-reason"),
        (Answer("x", done_reason="something new"), {"store_truncated": True}, "done-reason"),
    ],
)
def test_an_answer_is_kept_or_refused_in_one_word(answer, settings, expected):
    """A reason this program does not know is no end it can vouch for."""
    assert refuse(answer, Cache(**settings)) == expected


@given(ttl_s=st.floats(0, 1e9), jitter=st.floats(0, 0.5), spread=st.floats(0, 1))
def test_lifetimes_vary_by_no_more_than_the_jitter(ttl_s, jitter, spread):
    """And zero stays zero."""
    found = lifetime_s(Plan(ttl_s=ttl_s), Cache(ttl_jitter=jitter), spread=spread)

    assert ttl_s * (1 - jitter) * 0.999999 <= found <= ttl_s * (1 + jitter) * 1.000001


def test_no_lifetime_is_longer_than_the_longest():
    """That is the caller's own wish, where there is one."""
    plan, settings = Plan(ttl_s=100, ttl_max_s=100), Cache(ttl_jitter=0.1)

    assert [lifetime_s(plan, settings, spread=spread) for spread in (0, 0.5, 1)] == pytest.approx([90, 100, 100])


def test_lifetimes_use_the_whole_of_the_jitter():
    """What was stored together expires apart."""
    plan, settings = Plan(ttl_s=100), Cache(ttl_jitter=0.1)

    assert [lifetime_s(plan, settings, spread=spread) for spread in (0, 0.5, 1)] == pytest.approx([90, 100, 110])


@pytest.fixture
def local_time(monkeypatch):
    """A function that moves this process to another time zone."""

    def move(zone):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        return ZoneInfo(zone)

    yield move
    monkeypatch.undo()
    assert "TZ" not in os.environ or os.environ["TZ"]
    time.tzset()


@pytest.mark.case(116)
@pytest.mark.parametrize(
    ("zone", "moment", "hours"),
    [
        ("UTC", "2026-01-15T13:00:00", 11),
        ("UTC", "2026-01-15T00:00:00", 24),
        ("UTC", "2026-12-31T23:30:00", 0.5),
        ("America/New_York", "2026-07-04T18:00:00", 6),
        ("Europe/Berlin", "2026-03-29T01:00:00", 22),  # clocks go forward at 2
        ("Europe/Berlin", "2026-03-28T23:00:00", 1),
        ("Europe/Berlin", "2026-10-25T01:00:00", 24),  # and back at 3
        ("Asia/Kolkata", "2026-05-01T23:45:00", 0.25),
    ],
)
def test_midnight_is_the_machines_own(local_time, zone, moment, hours):
    """Also on the two days a year that have 23 and 25 hours: the date changes when the clock says so."""
    now = datetime.fromisoformat(moment).replace(tzinfo=local_time(zone)).timestamp()

    assert until_midnight_s(now) == hours * 3600
