"""The members that `/api/chat` and `/api/generate` share, made canonical.

Refuses to drop a member it does not know: a later Ollama may act on it, so it stays in the key.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from cacheproxy.errors import UnkeyableError
from cacheproxy.model import Ask, JSONObject, Parts
from cacheproxy.wire import canonical
from cacheproxy.wire.jsontext import check_names, write
from cacheproxy.wire.jsontext import read as read_json

COMMON_MEMBERS = frozenset(
    {"model", "stream", "format", "keep_alive", "options", "think", "truncate", "shift", "logprobs", "top_logprobs"}
    | {"_debug_render_only"}
)
_NOT_IN_KEY = frozenset({"model", "stream", "keep_alive"})
"""They choose the model's name (its digest is keyed), the form of the reply, and how long the model stays loaded."""
_ABSENT = {"format": "", "logprobs": False, "top_logprobs": 0, "_debug_render_only": False}
"""Values that mean the same as no value."""
_GO_PART = r"(\d++\.?\d*+|\.\d++)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)"
_GO_PARTS = re.compile(_GO_PART, re.ASCII)
_GO_DURATION = re.compile(rf"[-+]?(?:0|(?:{_GO_PART})++)", re.ASCII)
"""What Go's `time.ParseDuration` takes, unless it overflows.

A part has one reading (`++`): with two for each, thirty parts before a wrong end would be a billion to try.
"""
_GO_DURATION_CHARS_MAX = 100
"""A longer text is not looked into; Go itself writes 25 characters at most."""
_GO_UNITS_S = {"ns": 1e-9, "us": 1e-6, "\u00b5s": 1e-6, "\u03bcs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_GO_DURATION_S_MAX = 9.2e9
"""Go counts nanoseconds in 63 bits, 9.22e9 s or 292 years; a little less, so that rounding does not matter."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A body's members without nulls (null is absent to Ollama), and the cache controls that were among them."""

    members: JSONObject
    controls: JSONObject
    forward: bytes | None


def read(body: bytes, *, known: frozenset[str]) -> Parsed:
    """Parse a body and take `options.cache` out of it, which is ours. Raises UnkeyableError."""
    raw = read_json(body)
    check_names(raw, known)
    if raw.get("_debug_render_only"):
        raise UnkeyableError("debug")
    members = {name: value for name, value in raw.items() if value is not None}
    given = members.get("options")
    if not isinstance(given, dict) or "cache" not in given:
        return Parsed(members, {}, None)
    members["options"] = {name: value for name, value in given.items() if name != "cache"}
    controls = given["cache"]
    return Parsed(
        members=members,
        controls=controls if isinstance(controls, dict) else {"mode": controls},
        forward=write(raw | {"options": members["options"]}),
    )


def common(members: JSONObject) -> dict[str, Any]:
    """The members that shape the answer, the shared ones canonical. Raises UnkeyableError."""
    keyed = {name: value for name, value in members.items() if name not in _NOT_IN_KEY}
    options = canonical.options(keyed.pop("options", None))
    if options:
        keyed["options"] = options
    for name, absent in _ABSENT.items():
        if name in keyed and type(keyed[name]) is type(absent) and keyed[name] == absent:  # 0 is not false to Ollama
            del keyed[name]
    return keyed


def ask(parsed: Parsed, members: dict[str, Any], *, dialect: str, family: str, name_matters: bool, needs: Parts) -> Ask:
    """Put the parts together.

    Raises UnkeyableError (`model`, `stream`, `keep-alive`) where Ollama would refuse the request: none of the three is
    in the key, so a stored answer would hide the refusal.
    """
    model = parsed.members.get("model")
    streamed = parsed.members.get("stream", True)
    keep_alive = parsed.members.get("keep_alive")
    if not isinstance(model, str) or not model.strip():
        raise UnkeyableError("model")
    if not isinstance(streamed, bool):
        raise UnkeyableError("stream")
    if not _is_keep_alive(keep_alive):
        raise UnkeyableError("keep-alive")
    temperature = members.get("options", {}).get("temperature")
    logprobs = bool(members.get("logprobs"))
    plain = {name: value for name, value in members.items() if name not in ("logprobs", "top_logprobs")}
    return Ask(
        dialect=dialect,
        family=family,
        model=model,
        stream=streamed,
        canonical=canonical.canonical_bytes(members),
        body=members,
        temperature=temperature if isinstance(temperature, float) else None,
        logprobs=logprobs,
        canonical_plain=canonical.canonical_bytes(plain) if logprobs else b"",
        keep_alive=keep_alive,
        name_matters=name_matters,
        controls=parsed.controls,
        needs=needs,
        forward=parsed.forward,
    )


def rewritten(ask: Ask, body: bytes, parse: Callable[[bytes], Ask], change: Callable[[JSONObject], JSONObject]) -> Ask:
    """The ask that `body` is with other members, read anew: its key is made from what will be sent.

    `change`: from the members as the caller spelt them to those that replace or join them. What the caller said of
    `keep_alive` and the cache stays the caller's. Raises UnkeyableError where only the caller can spell the body (a
    number of 30 digits outside the key).
    """
    members = read_json(body)
    sent = write({**members, **change(members)})
    return replace(parse(sent), forward=sent, keep_alive=ask.keep_alive, controls=ask.controls)


def _is_keep_alive(value: object) -> bool:
    """Seconds as a number, or a duration as Go writes it ("10" alone is none)."""
    if isinstance(value, str):
        known = len(value) <= _GO_DURATION_CHARS_MAX and _GO_DURATION.fullmatch(value) is not None
        return known and _go_seconds(value) <= _GO_DURATION_S_MAX
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) <= sys.float_info.max
    return value is None or isinstance(value, float)


def _go_seconds(duration: str) -> float:
    """How long one is, whatever its sign."""
    return sum(float(number) * _GO_UNITS_S[unit] for number, unit in _GO_PARTS.findall(duration))
