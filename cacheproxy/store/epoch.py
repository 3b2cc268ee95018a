"""The epoch: a number in Redis that every purge raises, and in which each answer was asked for. Pure."""

from __future__ import annotations


def number(value: bytes | str | None) -> int:
    """The epoch as stored; 0 for none and for a foreign value under our key."""
    try:
        return int(value or 0)
    except ValueError:
        return 0


def is_news(epoch: int, known: int, before: int) -> bool:
    """Whether an epoch that was heard replaces the one we know, which was `before` when it was asked for.

    Of two replies that were under way at once the higher is the later one: purges raise it. Alone, a lower one is news
    too: somebody has flushed Redis.
    """
    return epoch != known and (before == known or epoch > known)
