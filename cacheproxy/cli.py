"""The program's name and the commands that run, check and tune the proxy; the others are in `commandline/`.

`docs/reference/cli.md` is made from the texts here and there.

Exit codes: 0 fine; 1 it could not run, or a check failed; 2 the command line or the configuration is wrong.
This module refuses to do the work: a command's file is imported when the command runs, so that `--help`, `stats` and
`purge` start in a fraction of a second and never load what serving needs.
"""

from __future__ import annotations

import json
import platform
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cacheproxy import __version__
from cacheproxy.commandline import entries, traffic
from cacheproxy.commandline.options import (
    FAILED,
    FINE,
    WRONG_USE,
    AdminURL,
    AsJSON,
    ConfigFile,
    Token,
    failures,
    load,
    port_of,
    read,
    refuse,
)

commands = typer.Typer(
    name="cacheproxy",
    help="A transparent caching proxy in front of Ollama.",
    epilog="Clients use port 11435, operators port 11436. config.toml in the repository explains every setting.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class Level(StrEnum):
    """`log.level`."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@commands.callback()
def _root(
    version_wanted: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_tell_version),
    ] = False,
) -> None:
    """Hold the options that stand before a command."""


@commands.command()
def serve(
    *,
    config_file: ConfigFile = None,
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where clients reach it: server.listen.")] = "",
    admin_listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="The operator's port: admin.listen.")] = "",
    upstream: Annotated[str, typer.Option(metavar="URL", help="Where Ollama is: upstream.url.")] = "",
    redis: Annotated[str, typer.Option(metavar="URL", help='redis.url: "embedded", redis://…, unix://…')] = "",
    log_level: Annotated[Level | None, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")] = None,
) -> None:
    """Start the proxy.

    It serves until Ctrl-C or SIGTERM. Replies under way then have server.drain_timeout to finish; a second signal ends
    at once. SIGHUP reads the configuration again: thresholds, guards, lifetimes, limits of the cache, the context
    budget, latency budgets, rules of models and the log's level change at once, the rest at the next start; a
    configuration with a mistake changes nothing.
    """
    flags = {
        "server": {"listen": listen},
        "admin": {"listen": admin_listen},
        "upstream": {"url": upstream},
        "redis": {"url": redis},
        "log": {"level": str(log_level or "")},
    }
    settings = load(config_file, flags)
    from cacheproxy.commands import serve as command

    with failures():
        fine = command.run(settings, source=config_file, load=lambda: read(config_file, flags))
    raise typer.Exit(FINE if fine else FAILED)


@commands.command()
def check(
    *,
    config_file: ConfigFile = None,
    as_json: AsJSON = False,
) -> None:
    """Tell what is configured, reachable and missing.

    One line each: ok, warn or FAIL; exits with 2 if the configuration is wrong, with 1 if something else fails. It
    changes nothing, but for starting the embedded Redis for a moment.
    """
    from cacheproxy.commands import check as command

    failed = command.run(config_file, as_json=as_json)
    raise typer.Exit(WRONG_USE if "config" in failed else FAILED if failed else FINE)


@commands.command()
def stats(
    *,
    config_file: ConfigFile = None,
    admin: AdminURL = "",
    token: Token = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print what GET /stats answers.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Once a second, until Ctrl-C.")] = False,
) -> None:
    """Show a running proxy's hit rates and times."""
    from cacheproxy.commands import stats as command

    port = port_of(config_file, admin, token)
    with failures():
        command.run(port, as_json=as_json, watch=watch)


@commands.command()
def purge(
    *,
    config_file: ConfigFile = None,
    everything: Annotated[bool, typer.Option("--all", help="Every entry.")] = False,
    model: Annotated[str, typer.Option(metavar="NAME", help="Those a model answered.")] = "",
    entry_id: Annotated[str, typer.Option("--id", metavar="ID", help="The one a reply's X-Cache-Entry named.")] = "",
    partition: Annotated[str, typer.Option(metavar="HEX", help="Those of one group of callers.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before --all.")] = False,
    admin: AdminURL = "",
    token: Token = "",
    as_json: AsJSON = False,
) -> None:
    """Make a running proxy forget entries.

    Takes exactly one of --all, --model, --id, --partition, and prints how many went. On a terminal --all asks first.
    """
    chosen = {"all": "true" if everything else "", "model": model, "id": entry_id, "partition": partition}
    selector = {name: value for name, value in chosen.items() if value}
    if len(selector) != 1:
        refuse("give exactly one of --all, --model, --id, --partition")
    entries.check_selector(selector, "--id")
    entries.remove(selector, port_of(config_file, admin, token), yes=yes, as_json=as_json)


@commands.command()
def tune(
    pairs: Annotated[
        Path | None,
        typer.Argument(
            metavar="PAIRS.jsonl",
            help='Labelled pairs, one a line: {"a": "a question", "b": "another", "y": 1}, with y = 1 where one answer '
            'serves both, else 0. With "fam": "kind of pair" there is a table by kind as well.',
            show_default=False,
        ),
    ] = None,
    *,
    shadow: Annotated[bool, typer.Option("--shadow", help="Judge by the record of shadow mode instead.")] = False,
    max_wrong: Annotated[
        float, typer.Option(metavar="SHARE", help="The most wrong hits you accept, as a share of the hits.")
    ] = 0.005,
    alike: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="With --shadow: two answers that share so much of their words count as the same answer.",
        ),
    ] = 0.8,
    config_file: ConfigFile = None,
    engine: Annotated[
        str, typer.Option(metavar="NAME", help="embedding.engine: auto, onnx, sentence-transformers or ollama.")
    ] = "",
    redis: Annotated[str, typer.Option(metavar="URL", help="With --shadow: where the record is, redis.url.")] = "",
    png: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the curve into this file too. Needs matplotlib."),
    ] = None,
    as_json: AsJSON = False,
) -> None:
    """Choose semantic.threshold by evidence: hits and wrong hits of each, and the lines to paste.

    Shows for each threshold from 0.80 to 0.99, with the guards that are switched on and without any, how many pairs
    would be served and how many of those wrongly. Proposed is the lowest threshold at which wrong hits are proven
    (95 %) to be at most --max-wrong of the hits. Exits with 1 if there is none, or not enough evidence.

    Try it: set semantic.mode = "shadow" for some days, then "cacheproxy tune --shadow".
    """
    if (pairs is None) is not shadow:
        refuse("give either a file of labelled pairs or --shadow")
    settings = load(config_file, {"embedding": {"engine": engine}, "redis": {"url": redis}})
    from cacheproxy.commands import tune as command

    with failures():
        fine = command.run(settings, pairs, max_wrong=max_wrong, alike=alike, as_json=as_json, png=png)
    raise typer.Exit(FINE if fine else FAILED)


for _command in (
    traffic.tail,
    traffic.explain,
    traffic.replay,
    traffic.warm,
    traffic.bench,
    entries.ls,
    entries.show,
    entries.rm,
    entries.export,
):
    commands.command()(_command)
commands.command("import")(entries.import_)


@commands.command()
def demo(
    *,
    fast: Annotated[
        bool, typer.Option("--fast", help="Let the simulated Ollama answer without thinking time.")
    ] = False,
    stay: Annotated[bool, typer.Option("--stay", help="Go on serving afterwards, until Ctrl-C.")] = False,
    redis: Annotated[
        str, typer.Option(metavar="URL", help="Use this Redis; the entries of the tour are removed again.")
    ] = "embedded",
) -> None:
    """Show what it does, with a simulated Ollama.

    Uses ports and a directory of its own, and takes about ten seconds.
    """
    from cacheproxy.demo import show

    with failures():
        fine = show.run(fast=fast, stay=stay, redis_url=redis)
    raise typer.Exit(FINE if fine else FAILED)


@commands.command()
def version(*, as_json: AsJSON = False) -> None:
    """Print the version."""
    if as_json:
        typer.echo(json.dumps({"version": __version__, "python": platform.python_version()}))
    else:
        _tell_version(True)


def describe() -> str:
    """`docs/reference/cli.md`: the help of every command."""
    group: Any = typer.main.get_command(commands)
    root = typer.Context(group, info_name="cacheproxy", terminal_width=100)
    parts = [_DESCRIPTION_HEAD, _section(root)]
    parts += [_section(typer.Context(one, info_name=name, parent=root)) for name, one in group.commands.items()]
    return "\n".join(parts)


def _section(context: typer.Context) -> str:
    return f"## {context.command_path}\n\n```text\n{context.get_help()}\n```\n"


_DESCRIPTION_HEAD = """\
# The command line

This page is made from `cacheproxy --help`; a test holds the two together. After `make run` the command is
`.venv/bin/cacheproxy`.

* **Configuration**: flags are stronger than `CACHEPROXY_SECTION__KEY` in the environment, that is stronger than the
  file, and the file is stronger than the defaults. The file is the one that `--config` or `CACHEPROXY_CONFIG` names;
  a `config.toml` that merely lies in the current directory is never read, so that the place a command is started from
  cannot change what it does.
* **Exit codes**: 0 fine; 1 it could not run, or a check failed; 2 the command line or the configuration is wrong (so
  a service manager need not try again: `RestartPreventExitStatus=2`).
* **Output**: results on standard output, complaints and the log on standard error. Colours only on a terminal, and
  never when `NO_COLOR` is set.
* `stats`, `tail`, `explain`, `ls`, `show`, `rm` and `purge` ask a running proxy over its operator's port, see
  [admin](admin.md); `warm` and `bench` ask it as an app does. A token on the command line can be seen by other users of
  the machine; `CACHEPROXY_ADMIN__TOKEN` or the file cannot. The same holds for `--key` and `CACHEPROXY_EXPORT_KEY`.
* `export`, `import` and `tune --shadow` go to Redis itself; `replay` and `tune FILE` need neither.
"""


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cacheproxy {__version__}")
        raise typer.Exit(FINE)
