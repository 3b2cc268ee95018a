"""`cacheproxy serve`: run the proxy in this process until a signal, and say at start what it found.

The banner goes to standard output; what is missing and what failed goes to standard error, in one line each.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import typer

from cacheproxy import __version__, heap, log
from cacheproxy.app import App
from cacheproxy.commands.addresses import clashes
from cacheproxy.commands.stats import counted
from cacheproxy.config import Config
from cacheproxy.errors import ConfigError
from cacheproxy.loop import loop_factory
from cacheproxy.whole.report import Report, Seen

_log = logging.getLogger("cacheproxy")

_WITHOUT_ANY = "hits from Redis go on, everything else gets an error"
LOOK_S_MAX = 3.0
"""How long the banner waits for a first word from Redis and Ollama. Both ports serve meanwhile."""


def run(settings: Config, *, source: Path | None, load: Callable[[], Config]) -> bool:
    """Serve until SIGINT or SIGTERM; False when it could not start, which standard error then explains.

    `source`: the file the settings came from; `load` reads them again, for SIGHUP. Raises ConfigError for settings
    that can never work.
    """
    if problems := list(clashes(settings)):
        raise ConfigError("\n".join(problems))
    log.configure(settings.log)
    app = App(settings)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_serve(app, source, load))


async def _serve(app: App, source: Path | None, load: Callable[[], Config]) -> bool:
    ended = asyncio.Event()
    _on_hangup(ended, lambda: _reload(app, load))
    stopping = f"stopping; replies under way have {app.config.server.drain_timeout:g} s, Ctrl-C again cuts them"
    _on_signals(ended, lambda: _tell_event(app, logging.INFO, stopping))
    try:
        await app.open()
    except ConfigError as error:
        typer.echo(f"cacheproxy: {error}", err=True)
        return False
    try:
        await app.wait_ready(LOOK_S_MAX)
        report = app.report()
        _tell("\n".join(banner(report, source)))
        for line in missing(report):
            _tell_event(app, logging.WARNING, line)
        heap.settle()
        app.vectors.on_ready.append(lambda _embedder: heap.settle())
        await ended.wait()
    finally:
        await app.close()
    return True


def _on_signals(ended: asyncio.Event, tell: Callable[[], None]) -> None:
    """The first SIGINT or SIGTERM sets `ended` and tells so; the next ends the process, as if nobody listened."""
    loop = asyncio.get_running_loop()

    def end() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        ended.set()
        tell()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)


def _on_hangup(ended: asyncio.Event, reload: Callable[[], None]) -> None:
    """SIGHUP calls `reload`, unless it says that the terminal this runs in was closed: that sets `ended`."""
    had_terminal = os.isatty(0)

    def hang_up() -> None:
        if had_terminal and not os.isatty(0):
            ended.set()
        else:
            reload()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hang_up)


def _reload(app: App, load: Callable[[], Config]) -> None:
    """Read the configuration again and use what can be used at once. The log says what came of it."""
    try:
        fresh = load()
    except ConfigError as error:
        app.metrics.config_read(ok=False)
        _log.error("the configuration was not reloaded and nothing changed: %s", error)
        return
    changes = app.reload(fresh)
    log.configure(app.config.log)
    _log.info("configuration reloaded: %s", ", ".join(changes.taken) or "nothing that changes at once is different")
    if changes.waiting:
        _log.warning("these settings change at the next start: %s", ", ".join(changes.waiting))


def banner(report: Report, source: Path | None) -> list[str]:
    """What to show at start: who talks to whom, what is there, and the line to paste. Pure."""
    lines = [
        f"cacheproxy {__version__}",
        f"  clients  {report.proxy_url}  ->  {_shown(report.upstream)}",
        *(f"  also     {_shown(other)}" for other in report.others),
        f"  admin    {report.admin_url}  (dashboard, /stats, /metrics, /readyz)",
        *([f"  workers  {report.workers} processes share the port"] if report.workers > 1 else []),
        f"  redis    {report.redis.removeprefix('redis ')}",
        f"  near     {report.near}",
        f"  config   {source or 'defaults and environment; no file was named'}",
    ]
    return [*lines, f"Point your app here:  export OLLAMA_HOST={urlsplit(report.proxy_url).netloc}"]


def _shown(seen: Seen) -> str:
    """One Ollama in the banner."""
    return f"Ollama {seen.version} at {seen.url} ({counted(len(seen.models), 'model')})" if seen.version else seen.url


def missing(report: Report) -> list[str]:
    """One line, with its remedy, for each thing that should be there and is not. Pure."""
    lines = []
    others_answer = any(other.version for other in report.others)
    for seen in (report.upstream, *report.others):
        if not seen.version:
            setting = "upstream.url" if seen is report.upstream else "upstream.others"
            meanwhile = "the others answer" if others_answer or report.upstream.version else _WITHOUT_ANY
            lines.append(
                f"no Ollama at {seen.url} ({_cause(seen.reason)}): "
                f'start it with "ollama serve" or set {setting}; {meanwhile}'
            )
    if report.redis_note:
        lines.append(f"redis: {report.redis_note}")
    return lines


def _cause(reason: str) -> str:
    """The cause within a reason meant for callers: `connection refused` of `cannot … (connection refused); …`."""
    named = re.search(r"\(([^()]+)\)", reason)
    return named[1] if named else reason


def _tell_event(app: App, level: int, line: str) -> None:
    """A line for whoever reads standard error: as an event of the log where that is a machine."""
    if app.config.log.format == "json":
        _log.log(level, "%s", line)
    else:
        _tell(line, err=True)


def _tell(text: str, *, err: bool = False) -> None:
    """Print, unless whoever read this output has gone: that must not end the proxy."""
    with contextlib.suppress(OSError):
        typer.echo(text, err=err)
