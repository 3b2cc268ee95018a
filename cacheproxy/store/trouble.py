"""Redis' errors, from redis-py or from a line, as ours in words of our own. Pure.

Redis' own texts go no further than this: they can quote a command, and with it a prompt.
"""

from __future__ import annotations

import re

import redis.exceptions

from cacheproxy.errors import StoreRefusedError, StoreUnavailableError
from cacheproxy.store.line import LostError, RefusedError

# Redis is there and serves nobody now.
_AWAY = {
    "LOADING": "is loading its data",
    "MASTERDOWN": "is a replica without its primary",
    "CLUSTERDOWN": "is part of a cluster that is down",
    "BUSY": "is busy with a script",
}
_INCURABLE = {
    "NOAUTH": "wants a password",
    "WRONGPASS": "refused the user name or password",
    "MOVED": "is part of a cluster; write redis+cluster:// in redis.url",
}
# Redis serves others: reads while it refuses writes, other keys, other commands.
_REFUSALS = {
    "OOM": "is out of memory and refuses writes; raise its maxmemory or set an eviction policy",
    "MISCONF": "cannot write its disk and refuses writes; see its log",
    "READONLY": "is a replica and refuses writes",
    "NOREPLICAS": "misses replicas and refuses writes",
    "NOPERM": "does not permit this command to our user; see its ACL",
    "WRONGTYPE": "holds a value of another type under one of our keys",
    "NOINDEX": "has no such search index",
    "DATABASE": "searches its database 0 only; leave the number out of redis.url",
}
# How the search module says it: up to 2.10, since 2.8, and since 8.10.
_NO_INDEX = ("no such index", "unknown index name", "index not found")
_SAID_OTHERWISE = {"index on db != 0": "DATABASE", "ACL failure in script": "NOPERM"}
WORTH_A_LINE = frozenset(_REFUSALS) - {"NOINDEX"}
"""Refusals an operator should hear of; a missing index is made again by the one who misses it."""


class IncurableError(StoreUnavailableError):
    """Waiting does not cure it: the operator's URL, user or password is wrong."""


class LoadingError(StoreUnavailableError):
    """It has just been started and is reading its data; a matter of seconds."""


class ArrivingError(StoreUnavailableError):
    """Its deadline passed while a large reply was arriving: no evidence against Redis."""


def translated(error: Exception, where: str) -> StoreUnavailableError:
    """Our error for one of redis-py's or a line's, to be raised `from None`. `where` names the server in its text."""
    text = str(error)
    if isinstance(error, LostError):
        return StoreUnavailableError(f"redis at {where} {text}")
    if isinstance(error, RefusedError) and "max number of clients" in text:
        return StoreUnavailableError(f"redis at {where} {_unreachable(text)}")
    code = _code(error, text)
    if code in _INCURABLE:
        return IncurableError(f"redis at {where} {_INCURABLE[code]}")
    if code in _AWAY:
        kind = LoadingError if code == "LOADING" else StoreUnavailableError
        return kind(f"redis at {where} {_AWAY[code]}")
    if isinstance(error, (redis.exceptions.ResponseError, redis.exceptions.DataError, RefusedError)):
        return StoreRefusedError(f"redis at {where} {_REFUSALS.get(code, f'refused a command ({code})')}", code)
    return StoreUnavailableError(f"redis at {where} {_unreachable(text)}")


def _code(error: Exception, text: str) -> str:
    """The first word of Redis' reply, which redis-py takes off for the kinds it knows."""
    if any(words in text.lower() for words in _NO_INDEX):
        return "NOINDEX"
    for words, code in _SAID_OTHERWISE.items():
        if words in text:
            return code
    if isinstance(error, redis.exceptions.AuthenticationError):
        return "NOAUTH" if getattr(error, "status_code", None) == "NOAUTH" else "WRONGPASS"
    if isinstance(error, redis.exceptions.MovedError):
        return "MOVED"
    if "Error running script (call to" in text and (within := re.search(r": -?([A-Z]{3,20}) ", text)):
        return within[1]  # up to Redis 6 a script's error is wrapped
    code = getattr(error, "status_code", None) or text.split(" ", 1)[0]
    return code if re.fullmatch(r"[A-Z]{2,20}", code) else "ERR"


def _unreachable(text: str) -> str:
    if "max number of clients" in text:
        return "has no connection left for us; raise its maxclients"
    if found := re.search(r"\[SSL: ([A-Z_]+)\]", text):
        return f"cannot be reached over TLS ({found[1]})"
    return "cannot be reached"
