"""What callers may ask of the cache, in headers and in the body; nothing they write there can fail a request."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict

from cacheproxy.rules.controls import Controls, read_controls


def controls(headers=None, body=None, *, honor=True):
    """The controls of a request."""
    return read_controls(CIMultiDict(headers or {}), body or {}, honor_cache_control=honor)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", Controls()),
        ("no-store", Controls(no_store=True)),
        ("no-cache", Controls(no_cache=True)),
        ("only-if-cached", Controls(only_if_cached=True)),
        ("max-age=60", Controls(max_age_s=60.0)),
        ("max-age=0", Controls(max_age_s=0.0)),
        ('max-age="60"', Controls(max_age_s=60.0)),
        ("stale-if-error=600", Controls(stale_if_error_s=600.0)),
        ("No-Cache , MAX-AGE = 5", Controls(no_cache=True, max_age_s=5.0)),
        ("no-cache, no-store, max-age=0", Controls(no_cache=True, no_store=True, max_age_s=0.0)),
        (",,no-store,,", Controls(no_store=True)),
        ("nonsense, no-store, =, a=b=c", Controls(no_store=True)),
        ("max-age=60, max-age=30", Controls(max_age_s=30.0)),
        ("max-age", Controls()),
        ("max-age=", Controls()),
        ("max-age=soon", Controls()),
        ("max-age=-1", Controls()),
        ("max-age=1.5", Controls()),
        ("max-age=\u00b2", Controls()),
        ("max-age=\u0663", Controls()),
        ("max-age=" + "9" * 400, Controls(max_age_s=float("inf"))),
        ("no-storex", Controls()),
        ("no_store", Controls(no_store=True)),  # our spelling in the body; harmless here
        ("max-stale=5, min-fresh=5, no-transform, public", Controls()),
    ],
)
def test_cache_control_is_read_as_rfc_9111_says(value, expected):
    """Directives that mean nothing to a cache of answers, and malformed ones, are left out."""
    assert controls({"Cache-Control": value}) == expected


def test_cache_control_can_be_ignored():
    """Some libraries send `no-store` on their own; our own headers still count."""
    found = controls({"Cache-Control": "no-store, max-age=5", "X-Cache-Mode": "exact"}, honor=False)

    assert found == Controls(mode="exact")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"X-Cache-TTL": "10m"}, Controls(ttl_s=600.0)),
        ({"x-cache-ttl": "0"}, Controls(ttl_s=0.0)),
        ({"X-Cache-TTL": " 90 "}, Controls(ttl_s=90.0)),
        ({"X-Cache-TTL": "1e9"}, Controls()),
        ({"X-Cache-TTL": "-5s"}, Controls()),
        ({"X-Cache-TTL": "soon"}, Controls()),
        ({"X-Cache-TTL": ""}, Controls()),
        ({"X-Cache-Threshold": "0.95"}, Controls(threshold=0.95)),
        ({"X-Cache-Threshold": "1"}, Controls(threshold=1.0)),
        ({"X-Cache-Threshold": "95"}, Controls()),
        ({"X-Cache-Threshold": "-0.1"}, Controls()),
        ({"X-Cache-Threshold": "nan"}, Controls()),
        ({"X-Cache-Threshold": "inf"}, Controls()),
        ({"X-Cache-Threshold": "high"}, Controls()),
        ({"X-Cache-Mode": "exact"}, Controls(mode="exact")),
        ({"X-Cache-Mode": "off"}, Controls(mode="off")),
        ({"X-Cache-Mode": "on"}, Controls()),
        ({"X-Cache-Mode": "OFF"}, Controls()),
    ],
)
def test_our_own_headers_are_read_or_ignored(headers, expected):
    """An app must never break on them."""
    assert controls(headers) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"no-store": True}, Controls(no_store=True)),
        ({"no_cache": True, "max_age": 60}, Controls(no_cache=True, max_age_s=60.0)),
        ({"only_if_cached": True, "stale-if-error": 5}, Controls(only_if_cached=True, stale_if_error_s=5.0)),
        ({"no_store": False, "no-cache": "yes", "only-if-cached": 1, "max_age": "60"}, Controls()),
        ({"no-store": 0, "no-cache": None, "no.store": True}, Controls()),
        ({"max_age": -1}, Controls()),
        ({"max_age": True}, Controls()),
        ({"max_age": 1.5}, Controls()),
        ({"ttl": "1h", "threshold": 0.99, "mode": "exact"}, Controls(ttl_s=3600.0, threshold=0.99, mode="exact")),
        ({"ttl": 90}, Controls(ttl_s=90.0)),
        ({"ttl": -90}, Controls(ttl_s=0.0)),
        ({"ttl": None, "threshold": None, "mode": None}, Controls()),
        ({"ttl": True, "threshold": True, "mode": True}, Controls()),
        ({"ttl": [], "threshold": {}, "mode": []}, Controls()),
        ({"ttl": 10**400, "threshold": 10**400, "max_age": 10**30}, Controls(max_age_s=1e30)),
        ({"mode": False}, Controls(mode="off")),
        ({"mode": "off"}, Controls(mode="off")),
        ({"unknown": 1, "": True, ",no-store": 5}, Controls()),
    ],
)
def test_the_body_may_say_the_same(body, expected):
    """For clients that cannot send headers: `options.cache`."""
    assert controls(body=body) == expected


def test_the_body_wins_over_the_headers():
    """It came with the call itself; the headers may be the library's for all its calls."""
    headers = {"Cache-Control": "max-age=60", "X-Cache-TTL": "1h", "X-Cache-Mode": "exact"}

    assert controls(headers, {"max_age": 5, "ttl": "5s", "mode": False}) == Controls(
        max_age_s=5.0, ttl_s=5.0, mode="off"
    )


ANY = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.lists(st.none(), max_size=1)


@given(
    headers=st.dictionaries(
        st.sampled_from(["Cache-Control", "X-Cache-TTL", "X-Cache-Threshold", "X-Cache-Mode"]),
        st.text(max_size=40) | st.from_regex(r"(no-store|max-age|stale-if-error) ?= ?\"?\w*\"?,?", fullmatch=True),
    ),
    body=st.dictionaries(
        st.sampled_from(["ttl", "threshold", "mode", "no-store", "max_age", "stale_if_error"]) | st.text(max_size=9),
        ANY,
    ),
)
@example(headers={"Cache-Control": "max-age=\u00b2"}, body={"threshold": 10**400, "ttl": 10**400})
def test_no_control_ever_raises_nor_passes_its_range(headers, body):
    """Whatever a client writes, it gets an answer."""
    found = controls(headers, body)

    assert found.threshold is None or 0 <= found.threshold <= 1
    assert found.ttl_s is None or found.ttl_s >= 0
    assert found.max_age_s is None or found.max_age_s >= 0
    assert found.mode in ("", "exact", "off")


@pytest.mark.parametrize("text", ["a=" + " " * 500_000 + '"', " " * 500_000 + "x y", "=" * 500_000, "," * 500_000])
def test_a_long_header_is_read_in_a_moment(text):
    """Its time grows with its length, not with the square of it."""
    began = time.perf_counter()
    assert controls({"Cache-Control": text}, {text: True}) == Controls()

    assert time.perf_counter() - began < 1


@pytest.mark.parametrize("name", ["s-maxage", "s_maxage", "max-age", "max_age"])
def test_litellms_name_for_an_age_is_known(name):
    """Its users write it into the body."""
    assert controls(body={name: 60}) == Controls(max_age_s=60.0)
