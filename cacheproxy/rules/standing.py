"""What a stored entry is to an ask: whether it may answer, and if not, why.

One rule for memory, Redis, neighbours, vectors and `explain`. Refuses to look anything up.
"""

from __future__ import annotations

from hmac import compare_digest

from cacheproxy.model import Entry, Plan

HIT, EXPIRED, CHECK_MISMATCH = "hit", "expired", "check-mismatch"
"""What an entry found by its key can be to an ask, besides what `shortcoming` says."""


def standing(entry: Entry, plan: Plan, now: float) -> str:
    """What an entry found under a plan's key is to it: `hit`, or in one word why it may not answer. `now`: Unix, s."""
    if not proves(entry, plan):
        return CHECK_MISMATCH
    return shortcoming(entry, plan, now) or (HIT if entry.expires > now else EXPIRED)


def proves(entry: Entry, plan: Plan) -> bool:
    """Whether an entry is the plan's: equal keyed digest and equal partition."""
    return compare_digest(entry.check, plan.check) and entry.partition == plan.partition


def shortcoming(entry: Entry, plan: Plan, now: float) -> str:
    """What an answer is short of, whoever asked for it: `too-old` for this caller, or `lacks-` with a part of it."""
    if plan.max_age_s is not None and now - entry.made > plan.max_age_s:
        return "too-old"
    missing = entry.answer.missing & plan.needs
    return "lacks-" + min(missing) if missing else ""
