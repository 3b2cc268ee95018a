"""The headers that say how a reply came about. Pure; values never hold prompt text.

`X-Cache` for people, `Cache-Status` (RFC 9211) for tools, `Age` (RFC 9111 section 5.1) for both. A proxy that answers
a POST from a store must say so on every such reply: HTTP itself does not expect it (RFC 9110 section 9.3.3).
"""

from __future__ import annotations

from collections.abc import Sequence

from cacheproxy.flow.found import Hit, Kin
from cacheproxy.model import Ask, Entry, Outcome, Plan
from cacheproxy.trail import Trail
from cacheproxy.upstream.request import VIA

Headers = tuple[tuple[str, str], ...]


def hit(found: Hit, now: float) -> Headers:
    """For a reply made from an entry. `now`: Unix time, s."""
    entry, name = found.entry, found.entry.id
    ttl_s = int(entry.expires - now)
    detail = str(found.outcome)
    similarity: Headers = ()
    if found.outcome is Outcome.SEMANTIC:
        detail = f'"semantic; sim={found.similarity:.3f}; th={found.threshold:.3f}"'
        similarity = (("X-Cache-Similarity", f"{found.similarity:.4f}"),)
    return (
        ("X-Cache", found.outcome.upper()),
        ("Cache-Status", f'cacheproxy; hit; ttl={ttl_s}; key="{name}"; detail={detail}'),
        ("Age", str(max(0, int(now - entry.made)))),
        *similarity,
        ("X-Cache-Entry", name),
        ("Via", VIA),
    )


def alike_until(entry: Entry, now: float) -> float:
    """Unix time, s, from which on `hit` says something else of an entry's age than `now`, or `Date` another second."""
    return min(
        int(now) + 1,
        entry.made + max(0, int(now - entry.made) + 1),
        entry.expires - int(entry.expires - now),
    )


def stored(entries: Sequence[Entry], outcome: Outcome, now: float) -> Headers:
    """For a list of vectors, all from entries: the oldest's age, the lifetime of the first to expire."""
    ttl_s = int(min(entry.expires for entry in entries) - now)
    one = entries[0].id if len({entry.id for entry in entries}) == 1 else ""
    key = f'; key="{one}"' if one else ""
    name: Headers = (("X-Cache-Entry", one),) if one else ()
    return (
        ("X-Cache", outcome.upper()),
        ("Cache-Status", f"cacheproxy; hit; ttl={ttl_s}{key}; detail={outcome}"),
        ("Age", str(max(0, int(now - min(entry.made for entry in entries))))),
        *name,
        ("Via", VIA),
    )


def in_part(outcome: Outcome, count: int, stored_count: int, joined_count: int, asks: int) -> Headers:
    """For a list of `count` vectors of which some were stored, and some came with calls that others had made.

    Ollama gave the rest, in one call for so many asks.
    """
    told = [
        f"partial={stored_count}/{count}" if stored_count else "",
        f"joined={joined_count}/{count}" if 0 < joined_count < count else "",
        f"merged={asks}" if asks > 1 else "",
    ]
    detail = "; ".join(filter(None, told))
    collapsed = "; collapsed" if asks > 1 or joined_count else ""
    return (
        ("X-Cache", outcome.upper()),
        (
            "Cache-Status",
            f"cacheproxy; fwd={'partial' if stored_count else 'miss'}; fwd-status=200{collapsed}"
            + (f'; detail="{detail}"' if detail else ""),
        ),
        ("Via", VIA),
    )


def relayed(outcome: Outcome, plan: Plan, status: int, kin: Kin | None = None) -> Headers:
    """For a reply of Ollama's to a cacheable ask, or to the one in other words that it joined (`kin`)."""
    why = "request; detail=no-cache" if not plan.read else "miss"
    collapsed = "; collapsed" if outcome is Outcome.JOINED else ""
    near: Headers = ()
    if kin is not None:
        collapsed += f'; detail="near; sim={kin.similarity:.3f}; th={kin.threshold:.3f}"'
        near = (("X-Cache-Similarity", f"{kin.similarity:.4f}"), ("X-Cache-Entry", kin.answered.entry_id))
    return (
        ("X-Cache", outcome.upper()),
        ("Cache-Status", f"cacheproxy; fwd={why}; fwd-status={status}{collapsed}"),
        *near,
        ("Via", VIA),
    )


def failed(plan: Plan) -> Headers:
    """For the error that stands for a reply which Ollama did not give."""
    why = "request; detail=no-cache" if not plan.read else "miss"
    return (("X-Cache", Outcome.MISS.upper()), ("Cache-Status", f"cacheproxy; fwd={why}"), ("Via", VIA))


def bypassed(reason: str) -> Headers:
    """For a reply of Ollama's to an ask that went around the cache. `reason`: one word."""
    return (("X-Cache", Outcome.BYPASS.upper()), ("Cache-Status", f"cacheproxy; fwd=bypass; detail={reason}"))


def absent() -> Headers:
    """For the refusal of an ask that wanted stored answers only."""
    return (("X-Cache", Outcome.MISS.upper()), ("Cache-Status", "cacheproxy; detail=only-if-cached"), ("Via", VIA))


def dropped(ask: Ask) -> Headers:
    """For the answer to a chat that was cut to fit the context."""
    return (("X-Cache-Context", f"dropped={ask.dropped}"),) if ask.dropped else ()


def trail(steps: Trail) -> Headers:
    """The steps of the ask until its head went out, for `cache.headers = "trail"`; times in ms."""
    timings = ", ".join(f"{name};dur={seconds * 1000:.3f}" for name, seconds in steps.timings_s.items())
    return (("X-Cache-Trail", str(steps)), ("Server-Timing", timings))
