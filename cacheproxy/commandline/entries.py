"""The commands on what is stored: `ls`, `show`, `rm`, `export`, `import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cacheproxy.commandline.options import (
    AdminURL,
    AsJSON,
    ConfigFile,
    Token,
    failures,
    load,
    port_of,
    refuse,
)
from cacheproxy.commands import admin_port
from cacheproxy.config import parse_duration

EntryID = Annotated[str, typer.Argument(metavar="ID", help="An entry's id: the X-Cache-Entry of a reply, or from ls.")]
Redis = Annotated[str, typer.Option("--redis", metavar="URL", help="Where the entries are: redis.url.")]
Key = Annotated[
    str,
    typer.Option(
        "--key",
        envvar="CACHEPROXY_EXPORT_KEY",
        metavar="TEXT",
        help="Sign with this text of 8 characters or more; the environment hides it from other users. "
        "Without it the secret of this Redis signs, and no other Redis can take the file.",
        show_default=False,
    ),
]


def ls(
    *,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, max=500, help="How many at most.")] = 20,
    model: Annotated[str, typer.Option("--model", "-m", metavar="NAME", help="Those a model answered.")] = "",
    question: Annotated[
        str, typer.Option(metavar="TEXT", help="Those with this in their question; needs log.prompts.")
    ] = "",
    config_file: ConfigFile = None,
    admin: AdminURL = "",
    token: Token = "",
    as_json: AsJSON = False,
) -> None:
    """List the newest entries of a running proxy's cache.

    Questions are shown only where log.prompts allows it. Redis keeps no order by age: 100,000 entries are looked at,
    and with more the list says that it did not see all.
    """
    from cacheproxy.commands import entries as command

    port = port_of(config_file, admin, token)
    with failures():
        command.list_entries(port, limit=limit, model=model, question=question, as_json=as_json)


def show(
    entry_id: EntryID,
    *,
    config_file: ConfigFile = None,
    admin: AdminURL = "",
    token: Token = "",
    as_json: AsJSON = False,
) -> None:
    """Show one entry; question and answer only where log.prompts allows it."""
    from cacheproxy.commands import entries as command

    with failures():
        command.check_id("ID", entry_id)
    port = port_of(config_file, admin, token)
    with failures():
        command.show_entry(port, entry_id, as_json=as_json)


def rm(
    entry_id: Annotated[str, typer.Argument(metavar="ID", help="The entry with this id.", show_default=False)] = "",
    *,
    everything: Annotated[bool, typer.Option("--all", help="Every entry.")] = False,
    model: Annotated[str, typer.Option("--model", "-m", metavar="NAME", help="Those a model answered.")] = "",
    partition: Annotated[str, typer.Option(metavar="HEX", help="Those of one group of callers.")] = "",
    older: Annotated[str, typer.Option(metavar="AGE", help='Those made longer ago than this, such as "2h".')] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before --all.")] = False,
    config_file: ConfigFile = None,
    admin: AdminURL = "",
    token: Token = "",
    as_json: AsJSON = False,
) -> None:
    """Make a running proxy forget entries: one by its ID, or those an option names.

    Takes exactly one of them, and prints how many went. On a terminal --all asks first.
    """
    chosen = {"all": "true" if everything else "", "model": model, "id": entry_id, "partition": partition}
    selector = {name: value for name, value in chosen.items() if value}
    if older:
        selector["older"] = str(_age_s(older))
    if len(selector) != 1:
        refuse("give exactly one of ID, --all, --model, --partition, --older")
    check_selector(selector, "ID")
    remove(selector, port_of(config_file, admin, token), yes=yes, as_json=as_json)


def _age_s(text: str) -> int:
    try:
        age_s = parse_duration(text)
    except ValueError as error:
        refuse(f"--older {text}: {error}")
    if not 0 <= age_s < 10**10:
        refuse(f'--older {text}: expected an age such as "2h"')
    return int(age_s)


def check_selector(selector: dict[str, str], id_name: str) -> None:
    """End the program for a value that can name nothing. `id_name`: what an id is given as."""
    from cacheproxy.commands import entries as command

    with failures():
        if "id" in selector:
            command.check_id(id_name, selector["id"])
        if "partition" in selector:
            command.check_partition(selector["partition"])


def remove(selector: dict[str, str], port: admin_port.AdminPort, *, yes: bool, as_json: bool = False) -> None:
    """Delete what the one pair of `selector` names, after a question where a person is there, and say how many went."""
    from cacheproxy.commands import entries as command

    if "all" in selector and not yes and admin_port.is_person():
        typer.confirm(f"Forget every entry of {port.url}?", abort=True, err=True)
    with failures():
        count = command.remove(port, selector)
    typer.echo(f'{{"deleted": {count}}}' if as_json else f"forgot {count:,} entr{'y' if count == 1 else 'ies'}")


def export(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where to write them; only you will be able to read it.")
    ],
    *,
    key: Key = "",
    redis: Redis = "",
    config_file: ConfigFile = None,
    as_json: AsJSON = False,
) -> None:
    """Write all entries into a signed file, one JSON line each, questions and answers included.

    Goes to Redis itself, whether a proxy runs or not. Entries are proven by the secret of their Redis: with --key the
    file carries it, encrypted, and another Redis that is still empty can take it over; without, only this one takes the
    file back. What it says is in plain text either way.
    """
    from cacheproxy.commands import transfer as command

    settings = load(config_file, {"redis": {"url": redis}})
    with failures():
        command.export_file(settings, file, key=key, as_json=as_json)


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What export wrote.")],
    *,
    key: Key = "",
    redis: Redis = "",
    config_file: ConfigFile = None,
    as_json: AsJSON = False,
) -> None:
    """Put the entries of a file into Redis, each for what is left of its time.

    A file whose signature is wrong is refused whole. Entries that are there already stay as they are, so it may be done
    twice. Vectors of another embedding model are dropped: those entries are found by their exact question only.
    """
    from cacheproxy.commands import transfer as command

    settings = load(config_file, {"redis": {"url": redis}})
    with failures():
        command.import_file(settings, file, key=key, as_json=as_json)
