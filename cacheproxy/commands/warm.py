"""`cacheproxy warm`: the asks of a file through the proxy, so that their answers are there when apps ask.

Each ask is sent as an app would send it, and Ollama answers what is not stored. Refuses to hurry Ollama: `--parallel`
is how many asks are under way at once, and the proxy queues them like any others.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import typer

from cacheproxy.commands.client import Client, Reply
from cacheproxy.commands.stats import columns, duration, share
from cacheproxy.errors import AskFailedError

ERRORS_SHOWN = 5
STRANGER = "not a cacheproxy"

Request = tuple[str, Mapping[str, Any]]
"""Path and body."""


@dataclass(slots=True)
class Done:
    """What became of the asks. `outcomes` has `error` for those without an answer, `STRANGER` for no cacheproxy's."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """By outcome, summed."""
    errors: list[str] = field(default_factory=list)
    """The first few."""

    def count(self, reply: Reply | None, error: str) -> None:
        """One ask more."""
        outcome = "error" if reply is None or reply.status >= 400 else reply.outcome or STRANGER
        self.outcomes[outcome] += 1
        if reply is not None:
            self.seconds[outcome] += reply.seconds
        if outcome == "error" and len(self.errors) < ERRORS_SHOWN:
            self.errors.append(error)

    @property
    def fine(self) -> bool:
        """True when every ask got an answer, and not all of them around the cache."""
        return not self.outcomes["error"] and not self.outcomes[STRANGER] and set(self.outcomes) != {"bypass"}


def run(url: str, requests: Sequence[Request], *, parallel: int, as_json: bool) -> bool:
    """Send them all and print what became of them; False if one failed or nothing can have been kept.

    Raises AskFailedError if nobody is there, or no cacheproxy.
    """
    with Client(url) as first:
        done = Done()
        if requests:  # alone, so that a proxy that is not there is told once
            done.count(*_ask(first, requests[0], tolerant=False))
        if done.outcomes[STRANGER]:
            raise AskFailedError(
                f"{first.url} is no cacheproxy: its reply has no X-Cache, so nothing is kept there; "
                "name the proxy's port with --url"
            )
    _send(url, requests[1:], parallel, done, total=len(requests))
    if as_json:
        typer.echo(json.dumps(told(done), indent=2))
    else:
        typer.echo("\n".join(lines(done)))
    for error in done.errors:
        typer.echo(f"cacheproxy: {error}", err=True)
    if set(done.outcomes) == {"bypass"}:
        typer.echo("cacheproxy: nothing was warmed: all went around the cache; `cacheproxy stats` says why", err=True)
    return done.fine


def _send(url: str, requests: Sequence[Request], parallel: int, done: Done, *, total: int) -> None:
    """Ask with so many connections at once, a bar on standard error where a person is there."""
    from rich.console import Console
    from rich.progress import Progress

    waiting: queue.SimpleQueue[Request] = queue.SimpleQueue()
    for request in requests:
        waiting.put(request)
    landed: queue.SimpleQueue[tuple[Reply | None, str]] = queue.SimpleQueue()
    ended = threading.Event()

    def work() -> None:
        with Client(url) as client:
            while not ended.is_set():
                try:
                    request = waiting.get_nowait()
                except queue.Empty:
                    return
                landed.put(_ask(client, request))

    for _ in range(min(parallel, len(requests))):
        threading.Thread(target=work, daemon=True).start()
    bar = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    try:
        with bar:
            task = bar.add_task("asking", total=total, completed=total - len(requests))
            for _ in requests:
                done.count(*landed.get())
                bar.update(task, advance=1)
    finally:
        ended.set()


def _ask(client: Client, request: Request, *, tolerant: bool = True) -> tuple[Reply | None, str]:
    """The reply, and what is wrong with it. Raises AskFailedError unless `tolerant`."""
    path, body = request
    try:
        reply = client.ask(path, body)
    except AskFailedError as error:
        if not tolerant:
            raise
        return None, str(error)
    return reply, f"{path} gave status {reply.status}: {reply.error}"


def lines(done: Done) -> list[str]:
    """The counts for a person. Pure."""
    total = sum(done.outcomes.values())
    rows = [
        [outcome, f"{count:,}", share(count / total), duration(done.seconds[outcome] / count)]
        for outcome, count in done.outcomes.most_common()
    ]
    return columns([["OUTCOME", "ASKS", "SHARE", "MEAN TIME"], *rows]) if rows else ["no asks in the file"]


def told(done: Done) -> dict[str, Any]:
    """The same as JSON. Pure."""
    return {
        "asks": sum(done.outcomes.values()),
        "outcomes": dict(done.outcomes),
        "seconds": {name: round(seconds, 6) for name, seconds in done.seconds.items()},
        "errors": done.errors,
    }
