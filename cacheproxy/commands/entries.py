"""`cacheproxy ls`, `show` and `rm`: what is stored, listed, shown and taken away. The operator's port does it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import typer

from cacheproxy.commands.admin_port import AdminPort, purge
from cacheproxy.commands.explain import plain
from cacheproxy.commands.stats import columns, duration, size
from cacheproxy.errors import ConfigError

QUESTION_CHARS = 60
"""Of a question in a table; `show` and the JSON have it whole."""
_HEX = re.compile(r"[0-9a-f]{32}")
"""An entry's id, and a partition."""


def list_entries(port: AdminPort, *, limit: int, model: str, question: str, as_json: bool) -> None:
    """Print the newest entries. Raises AdminPortError."""
    query = {"limit": str(limit), "model": model, "question": question}
    found = port.ask(f"/entries?{urlencode({name: text for name, text in query.items() if text})}")
    typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(table(found, time.time())))


def show_entry(port: AdminPort, entry_id: str, *, as_json: bool) -> None:
    """Print one entry. Raises AdminPortError."""
    found = port.ask(f"/entries/{quote(entry_id, safe='')}")
    typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(sheet(found, time.time())))


def remove(port: AdminPort, selector: dict[str, str]) -> int:
    """Delete what the one pair of `selector` names; how many went. Raises AdminPortError, also for an unknown model."""
    count = purge(port, selector)
    if not count and "model" in selector:
        port.ask(f"/entries?{urlencode({'limit': 1, 'model': selector['model']})}")  # refuses one that is not installed
    return count


def check_id(name: str, text: str) -> None:
    """Raises ConfigError for what is no id of an entry. `name`: what it was given as."""
    if not _HEX.fullmatch(text):
        raise ConfigError(f"{name} {text}: an entry's id is the X-Cache-Entry of a reply, or from ls: 32 hex digits")


def check_partition(text: str) -> None:
    """The same for a partition."""
    if not _HEX.fullmatch(text):
        raise ConfigError(f'--partition {text}: a partition is 32 hex digits, as "show ID" tells it of an entry')


def table(found: Mapping[str, Any], now: float) -> Iterator[str]:
    """The list for a person. `now`: Unix time, s. Pure."""
    if not found["entries"]:
        yield "no entries"
        return
    prompts = found["prompts"]
    head = ["ID", "MODEL", "AGE", "LEFT", "KIND", "TOKENS", "SIZE"]
    rows = columns([head, *(_row(one, now) for one in found["entries"])])
    yield rows[0] + ("  QUESTION" if prompts else "")
    for line, one in zip(rows[1:], found["entries"], strict=True):
        question = plain(one["question"])
        cut = question if len(question) <= QUESTION_CHARS else question[: QUESTION_CHARS - 1] + "…"
        yield f"{line}  {cut}".rstrip()
    if len(found["entries"]) < found["looked_at"]:
        yield f"the newest {len(found['entries']):,} of {found['looked_at']:,} entries"
    if not found["complete"]:
        yield "there are more entries than were looked at; newer ones may be among the rest"


def _row(one: Mapping[str, Any], now: float) -> list[str]:
    left = one["expires"] - now
    model = one["model"] or f"{one['digest'][:12]} (gone)"
    tokens = "-" if one["tokens"] is None else f"{one['tokens']:,}"
    ages = [duration(max(0.0, now - one["made"])), duration(left) if left > 0 else "expired"]
    return [one["id"], model, *ages, one["kind"], tokens, size(one["bytes"])]


def sheet(found: Mapping[str, Any], now: float) -> Iterator[str]:
    """One entry for a person, its answer last. Pure."""
    left = found["expires"] - now
    facts = {
        "id": found["id"],
        "key": found["key"],
        "model": f"{found['model'] or 'no longer installed'} ({found['digest'][:12]})",
        "made": f"{_moment(found['made'])}, {duration(max(0.0, now - found['made']))} ago",
        "expires": f"{_moment(found['expires'])}, " + (f"in {duration(left)}" if left > 0 else "expired"),
        "kind": found["kind"],
        "tokens": "-" if found["tokens"] is None else f"{found['tokens']:,}",
        "size": size(found["bytes"]),
        "near": f"found by meaning, scope {found['scope']}" if found["near"] else "found by its key only",
        "partition": found["partition"] or "everybody's",
        "ended": found["done_reason"],
    }
    yield from (f"{name:<10}{plain(text)}" for name, text in facts.items())
    answer = found["answer"]
    if answer is None:
        yield "question and answer are not shown: log.prompts is off"
        return
    yield f"{'question':<10}{plain(found['question']) or 'not kept: it was never to be compared by meaning'}"
    yield ""
    yield "\n".join(plain(line) for line in (answer["text"] or "(no text)").splitlines())


def _moment(seconds: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return "?"  # a clock far off
