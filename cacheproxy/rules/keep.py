"""May this answer be stored, and for how long.

Only complete answers are: Ollama said `done` and gave a reason that is a real end. Everything else (an error line in
the stream, a silent end, a model that was loaded or changed meanwhile) is delivered and forgotten.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from cacheproxy.config import Cache
from cacheproxy.model import Answer, Plan


def refuse(answer: Answer, settings: Cache) -> str:
    """Empty if the answer may be kept, else one word: `done-reason`, `truncated`, `empty`."""
    if answer.done_reason == "length":
        return "" if settings.store_truncated else "truncated"
    if answer.done_reason != "stop":
        return "done-reason"
    if not (answer.text or answer.tool_calls or answer.thinking):
        return "empty"
    return ""


def lifetime_s(plan: Plan, settings: Cache, *, spread: float) -> float:
    """Seconds to keep an answer: the plan's, give or take `cache.ttl_jitter`. `spread`: a random number in 0..1.

    What was stored together then does not expire together, and Ollama is not asked everything at once.
    """
    return min(plan.ttl_s * (1 + settings.ttl_jitter * (2 * spread - 1)), plan.ttl_max_s)


def until_midnight_s(now: float) -> float:
    """Seconds from `now` (Unix time) to the next local midnight, for models whose template prints the date."""
    moment = datetime.fromtimestamp(now).astimezone()
    tomorrow = (moment + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    midnight = tomorrow.astimezone()  # with that day's offset, which differs where the clocks change in between
    return (midnight - moment).total_seconds()
