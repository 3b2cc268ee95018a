"""`cacheproxy tail`: how asks are answered, as it happens. The operator's port tells it, one event an ask."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Collection, Mapping
from typing import Any

import typer

from cacheproxy.commands.admin_port import AdminPort
from cacheproxy.commands.explain import plain
from cacheproxy.commands.stats import duration

COLOURS = {
    "exact": "green",
    "semantic": "cyan",
    "joined": "blue",
    "stale": "magenta",
    "miss": "yellow",
    "bypass": "bright_black",
}
"""By outcome; its names are all there are."""


def run(port: AdminPort, *, outcomes: Collection[str], model: str, as_json: bool) -> None:
    """Print each decision until Ctrl-C; those of other outcomes or models left out. Raises AdminPortError.

    A proxy that is away is an error: whoever pipes this somewhere should hear of it.
    """
    coloured = not as_json and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    try:
        for name, told in port.events("/events"):
            if name == "ask" and (text := worded(told, outcomes, model, as_json=as_json)):
                colour = COLOURS.get(told.get("outcome", "")) if coloured else None
                typer.echo(typer.style(text, fg=colour) if colour else text)
                sys.stdout.flush()
    except KeyboardInterrupt:
        return
    except BrokenPipeError:  # whoever read it has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def worded(told: Mapping[str, Any], outcomes: Collection[str], model: str, *, as_json: bool) -> str:
    """The line for an event; empty for one that is not wanted. Pure."""
    if "outcome" not in told:
        left_out = told.get("left_out")
        return "" if as_json or not left_out else f"... and {left_out:,} more in this second"
    if (outcomes and told["outcome"] not in outcomes) or not _is_model(told.get("model", ""), model):
        return ""
    return json.dumps(told) if as_json else line(told)


def _is_model(name: str, wanted: str) -> bool:
    """`llama3.2` also stands for `llama3.2:latest`, as it does for Ollama."""
    return not wanted or name in (wanted, f"{wanted}:latest")


def line(told: Mapping[str, Any]) -> str:
    """`12:01:07  SEMANTIC  0.947  8.9 ms  llama3.2:3b  chat  entry 9f2c…`, the id whole, as `show` takes it. Pure."""
    similarity = told.get("similarity")
    parts = [
        time.strftime("%H:%M:%S", time.localtime(told["at"])),
        f"{told['outcome'].upper():<8}",
        "     " if similarity is None else f"{similarity:.3f}",
        f"{duration(told['seconds']):>8}",
        told.get("model") or "-",
        told.get("dialect", ""),
    ]
    if told.get("entry"):
        answered = told["outcome"] in ("exact", "semantic", "stale")
        parts.append(f"{'entry' if answered else 'near'} {told['entry']}")
    if why := told.get("reason") or _verdict(told):
        parts.append(why)
    if told.get("count", 1) > 1:
        parts.append(f"x{told['count']:,}")
    if told.get("asked"):
        near = f' ~ "{told["stored"]}"' if told.get("stored") else ""
        parts.append(f'"{told["asked"]}"{near}')
    return plain("  ".join(part for part in parts if part))


def _verdict(told: Mapping[str, Any]) -> str:
    """Why a neighbour was not served; nothing where it was, or there was none."""
    verdict = str(told.get("verdict") or "")
    return "" if verdict == "serve" and told["outcome"] == "semantic" else verdict
