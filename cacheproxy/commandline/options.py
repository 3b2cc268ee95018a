"""What the commands share: options that mean the same everywhere, the exit codes, and how an error ends the program.

Exit codes: 0 fine; 1 it could not run, or a check failed; 2 the command line or the configuration is wrong.
Refuses to load what serving needs, so that `--help` and commands that only ask start in a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from cacheproxy import config
from cacheproxy.commands import admin_port
from cacheproxy.errors import CacheproxyError, ConfigError

FINE, FAILED, WRONG_USE = 0, 1, 2

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        envvar="CACHEPROXY_CONFIG",
        metavar="FILE",
        help="Read this file. Without it no file is read, not even ./config.toml.",
        show_default=False,
    ),
]
AdminURL = Annotated[
    str,
    typer.Option("--admin", metavar="URL", help="The operator's port of the proxy to ask. Default: admin.listen."),
]
Token = Annotated[
    str,
    typer.Option("--token", metavar="TEXT", help="Its token. Default: admin.token, which other users cannot see."),
]
AsJSON = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def load(path: Path | None, flags: dict[str, dict[str, str]] | None = None) -> config.Config:
    """The configuration with the flags that were given (not empty) over it, or the end of the program."""
    with failures():
        return read(path, flags or {})


def read(path: Path | None, flags: dict[str, dict[str, str]]) -> config.Config:
    """The same. Raises ConfigError."""
    given = {name: {key: text for key, text in keys.items() if text} for name, keys in flags.items()}
    return config.load(path, {name: keys for name, keys in given.items() if keys})


def port_of(path: Path | None, url: str, token: str) -> admin_port.AdminPort:
    """The operator's port to ask: as the flags say, else as the configuration does."""
    with failures():
        return admin_port.find(load(path).admin, url=url, token=token)


@contextmanager
def failures() -> Iterator[None]:
    """An error of ours inside ends the program: its text on standard error, and the exit code that goes with it."""
    try:
        yield
    except ConfigError as error:
        refuse(str(error))
    except CacheproxyError as error:
        complain(str(error))
        raise typer.Exit(FAILED) from error


def refuse(message: str) -> NoReturn:
    """End the program because it was used wrongly."""
    complain(message)
    raise typer.Exit(WRONG_USE)


def complain(message: str) -> None:
    """Print to standard error."""
    for line in message.splitlines():
        typer.echo(f"cacheproxy: {line}", err=True)
