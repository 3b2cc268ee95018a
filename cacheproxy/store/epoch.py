"""The epoch: a number in Redis that every purge raises, and in which each answer was asked for.

Equal epochs mean that nobody has purged in between, also where Redis has lost its data or come back with older ones. So
no number comes twice, but by a chance in millions: whoever finds none begins at a random one, and a purge raises it by
a random step. Proxies of the version before raise it by one and take a missing one for 0: the number they left goes on,
and while one of them runs, numbers may come twice.
Refuses to send anything: that is its callers'.
"""

from __future__ import annotations

import secrets

from cacheproxy.store.line import Command

NONE = 0
"""None is known. What was asked for then is not kept: nobody could tell whether it has been purged."""
END = 2**53
"""Below it, Lua tells any two whole numbers apart."""
BEGIN = 2**47
"""The first one lies between this and twice as much: above all that were counted by ones."""
STEP_MAX = 2**24
"""In steps of up to this, a billion purges come before `END`; then one is begun anew."""
MOVE = """
redis.call('SET', KEYS[1], ARGV[1], 'NX')
local epoch = redis.pcall('INCRBY', KEYS[1], ARGV[2])
if type(epoch) ~= 'number' or epoch < 1 or epoch >= 2^53 then
  redis.call('SET', KEYS[1], ARGV[1])
  epoch = tonumber(ARGV[1])
end
return epoch
"""
"""Key: the epoch. Arguments: one to begin with, a step. What is no epoch is replaced."""


def number(value: bytes | str | int | None) -> int:
    """The epoch in a reply; `NONE` for none, and for what neither a proxy nor Redis' own counting writes."""
    try:
        epoch = int(value or NONE)
    except ValueError:
        return NONE
    spelt = value.decode() if isinstance(value, bytes) else str(value)
    return epoch if 0 < epoch < END and spelt == str(epoch) else NONE


def begun(key: str) -> Command:
    """The command that begins an epoch under this key, unless there is one, and whose reply is the epoch."""
    return ("EVAL", MOVE, 1, key, BEGIN + secrets.randbelow(BEGIN), 0)


def raised(key: str) -> Command:
    """The command that raises the epoch under this key, and whose reply is the new one."""
    return ("EVAL", MOVE, 1, key, BEGIN + secrets.randbelow(BEGIN), 1 + secrets.randbelow(STEP_MAX))


def is_news(epoch: int, known: int, before: int) -> bool:
    """Whether an epoch that was heard replaces the one we know, which was `before` when it was asked for.

    Of two replies that were under way at once the higher is the later one: purges raise it. Alone, a lower one is news
    too: Redis has lost its data.
    """
    return epoch != known and (before == known or epoch > known)
