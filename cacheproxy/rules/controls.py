"""What a caller asked of the cache, read from request headers and from `options.cache` in the body.

Callers may only make the cache stricter: skip it, take only younger entries, keep for a shorter time than the operator
allows, demand more similarity. What is malformed or unknown is ignored, as an app must never break on it.
Refuses to read prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cacheproxy.config import parse_duration

MODES = ("exact", "off")


@dataclass(frozen=True, slots=True)
class Controls:
    """A caller's wishes. The defaults wish nothing."""

    no_store: bool = False
    """Stay out of the cache: neither look nor keep."""
    no_cache: bool = False
    """Do not look, but keep the fresh answer."""
    only_if_cached: bool = False
    max_age_s: float | None = None
    stale_if_error_s: float | None = None
    ttl_s: float | None = None
    threshold: float | None = None
    mode: str = ""
    """One of MODES, or empty."""


def read_controls(headers: Mapping[str, str], body: Mapping[str, Any], *, honor_cache_control: bool) -> Controls:
    """Combine headers and body members; where both speak, the body does, since it came with the call itself.

    `headers`: names compared without regard to case (a multidict does). Never raises.
    """
    if not body and not any(name in headers for name in CONTROL_HEADERS):
        return _NO_WISHES
    wishes: dict[str, Any] = {}
    if honor_cache_control:
        wishes |= _directives(headers.get("Cache-Control", ""))
    wishes |= _own({name: headers.get(header) for name, header in _HEADERS.items()})
    wishes |= _members(body)
    wishes |= _own(body)
    return Controls(**wishes)


_FLAGS = frozenset({"no_store", "no_cache", "only_if_cached"})
_ALIASES = {"s-maxage": "max-age", "s_maxage": "max-age"}
"""LiteLLM's name for it."""
_AGES = frozenset({"max_age", "stale_if_error"})
_HEADERS = {"ttl": "X-Cache-TTL", "threshold": "X-Cache-Threshold", "mode": "X-Cache-Mode"}
CONTROL_HEADERS = ("Cache-Control", *_HEADERS.values())
"""All that `read_controls` reads."""
_NO_WISHES = Controls()


def _directives(text: str) -> dict[str, Any]:
    """RFC 9111 section 5.2.1 request directives; those that mean nothing to a cache of answers are left out."""
    wishes: dict[str, Any] = {}
    for part in text.split(","):
        name, _, argument = part.partition("=")
        name, argument = name.strip().lower().replace("-", "_"), argument.strip().strip('"')
        if name in _FLAGS:
            wishes[name] = True
        elif name in _AGES and argument.isascii() and argument.isdigit():
            wishes[f"{name}_s"] = float(argument)
    return wishes


def _members(body: Mapping[str, Any]) -> dict[str, Any]:
    """The same directives as members: `{"no-cache": true, "max_age": 60}`."""
    wishes: dict[str, Any] = {}
    for member, value in body.items():
        name = _ALIASES.get(member, member).replace("-", "_")
        if name in _FLAGS and value is True:
            wishes[name] = True
        elif name in _AGES and isinstance(value, int) and (age_s := _number(value)) is not None and age_s >= 0:
            wishes[f"{name}_s"] = age_s
    return wishes


def _own(given: Mapping[str, Any]) -> dict[str, Any]:
    wishes: dict[str, Any] = {}
    if (ttl_s := _duration(given.get("ttl"))) is not None:
        wishes["ttl_s"] = ttl_s
    if (threshold := _number(given.get("threshold"))) is not None and 0 <= threshold <= 1:
        wishes["threshold"] = threshold
    if given.get("mode") is False:
        wishes["mode"] = "off"
    elif given.get("mode") in MODES:
        wishes["mode"] = given["mode"]
    return wishes


def _duration(value: object) -> float | None:
    try:
        return None if value is None else max(0.0, parse_duration(value))
    except ValueError:
        return None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):  # a whole number in JSON has no limit
        return None
