"""Settings that change while the program runs: which ones, and how.

A section of the configuration is read where it is used, so giving it new values is all it takes; what is not listed
in `LIVE` has shaped sockets, pools or processes at the start and waits for the next one.
Refuses to read files, and to take anything of a configuration that was not checked as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cacheproxy.config import Budgets, Config

LIVE: Mapping[str, tuple[str, ...]] = {
    "cache": (
        *("ttl", "ttl_jitter", "ttl_max", "remote_ttl", "stale_if_error"),
        *("memory", "body_max", "answer_max"),
        *("store_truncated", "max_temperature", "cache_control", "without_durations", "headers"),
    ),
    "semantic": ("threshold", "max_temperature", "guards"),
    "context": ("budget",),
    "budgets": tuple(Budgets.model_fields),
    "log": ("level",),
}
"""Keys by section that take effect at once; the rules of models (`models`) do as well."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Settings in which a configuration differs from the one in use, as `section.key`."""

    taken: tuple[str, ...] = ()
    """In use from now on."""
    waiting: tuple[str, ...] = ()
    """In use after the next start."""


def own(config: Config) -> Config:
    """A copy whose sections nobody else holds, so that they may change."""
    return config.model_copy(deep=True)


def take_over(config: Config, fresh: Config) -> Changes:
    """Let `config`, which must be an `own` one, have what is live of `fresh`; what differs."""
    taken: list[str] = []
    waiting: list[str] = []
    for section in type(config).model_fields:
        ours, theirs = getattr(config, section), getattr(fresh, section)
        if section == "models":
            if ours != theirs:
                config.__dict__[section] = theirs  # replaced, not changed: an ask may just be looking through it
                taken.append(section)
            continue
        for key in type(ours).model_fields:
            if getattr(ours, key) == getattr(theirs, key):
                continue
            live = key in LIVE.get(section, ())
            (taken if live else waiting).append(f"{section}.{key}")
            if live:
                ours.__dict__[key] = getattr(theirs, key)
    return Changes(tuple(taken), tuple(waiting))
