"""The commands on asks: `tail`, `explain`, `replay`, `warm`, `bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cacheproxy.commandline.options import (
    FAILED,
    FINE,
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

Model = Annotated[str, typer.Option("--model", "-m", metavar="NAME", help="The model, as `ollama list` shows it.")]
ProxyURL = Annotated[str, typer.Option("--url", metavar="URL", help="The proxy to ask. Default: server.listen.")]
Asks = Annotated[Path, typer.Argument(metavar="FILE", help="Asks, one a line.")]
OUTCOMES = ("exact", "semantic", "joined", "stale", "miss", "bypass")


def tail(
    *,
    outcome: Annotated[
        str, typer.Option(metavar="LIST", help="Only these, with commas: exact, semantic, joined, stale, miss, bypass.")
    ] = "",
    model: Annotated[str, typer.Option("--model", "-m", metavar="NAME", help="Only asks for this model.")] = "",
    config_file: ConfigFile = None,
    admin: AdminURL = "",
    token: Token = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Print how asks are answered, as it happens, until Ctrl-C.

    One line an ask: time, outcome, similarity of the nearest stored question, how long it took, model, form, entry, and
    why. At most 50 a second; more are counted. Questions are shown only where log.prompts allows it.
    """
    outcomes = {one.strip().lower() for one in outcome.split(",") if one.strip()}
    if unknown := outcomes - set(OUTCOMES):
        refuse(f"--outcome {', '.join(sorted(unknown))}: there are {', '.join(OUTCOMES)}")
    from cacheproxy.commands import tail as command

    port = port_of(config_file, admin, token)
    with failures():
        command.run(port, outcomes=outcomes, model=model, as_json=as_json)


def explain(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="The question, as an app would ask it.")],
    *,
    model: Model,
    system: Annotated[str, typer.Option(metavar="TEXT", help="The system prompt.")] = "",
    generate: Annotated[bool, typer.Option("--generate", help="As /api/generate, not as /api/chat.")] = False,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="NAME=VALUE", help="An option, such as temperature=0.7. Repeatable."),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option("--header", "-H", metavar="NAME: VALUE", help="A request header that matters. Repeatable."),
    ] = None,
    config_file: ConfigFile = None,
    admin: AdminURL = "",
    token: Token = "",
    as_json: AsJSON = False,
) -> None:
    """Tell what would happen to an ask, and why, without asking it.

    Its key and what lies there, the stored questions near it with their similarity, which guards object, and the
    verdict. Nothing is counted, stored, or asked of Ollama. Stored questions are shown only where log.prompts allows
    it, otherwise their ids.
    """
    from cacheproxy.commands import explain as command

    port = port_of(config_file, admin, token)
    with failures():
        asked = command.asked(
            prompt, model=model, system=system, generate=generate, options=option or [], headers=header or []
        )
        command.run(port, asked, as_json=as_json)


def replay(
    file: Asks,
    *,
    threshold: Annotated[
        str,
        typer.Option(metavar="LIST", help='With commas, such as ".88,.90,.92". Default: from .86 to .96 by .02.'),
    ] = "",
    config_file: ConfigFile = None,
    engine: Annotated[
        str, typer.Option(metavar="NAME", help="embedding.engine: auto, onnx, sentence-transformers or ollama.")
    ] = "",
    as_json: AsJSON = False,
) -> None:
    """Go through recorded asks at other thresholds: the true hit rate of each.

    A threshold also decides what gets stored, so rates at another one cannot be read off the similarities of today's
    hits. Each line of FILE is a request's body, or {"question": TEXT} with, if known, "scope" (all else that must be
    equal), "model", "time" (Unix, s: answers expire after cache.ttl) and "label" (asks of one label have one right
    answer: wrong hits are then counted); a line of plain text is a question too. `cacheproxy tail --json` records
    questions only where log.prompts is on, and only of asks that were compared by meaning.

    Nothing is asked of a proxy, Ollama or Redis.
    """
    settings = load(config_file, {"embedding": {"engine": engine}})
    from cacheproxy.commands import replay as command

    with failures():
        thresholds = command.read_thresholds(threshold, settings.semantic.threshold)
        command.run(settings, file, thresholds=thresholds, as_json=as_json)


def warm(
    file: Asks,
    *,
    model: Annotated[str, typer.Option("--model", "-m", metavar="NAME", help="For lines that name none.")] = "",
    parallel: Annotated[int, typer.Option(metavar="N", min=1, max=64, help="Asks under way at once.")] = 1,
    url: ProxyURL = "",
    config_file: ConfigFile = None,
    as_json: AsJSON = False,
) -> None:
    """Ask the questions of a file through the proxy, so that their answers are there when apps ask.

    Each line of FILE is a request's body with "messages" or "prompt", the same as {"path": PATH, "body": BODY}, or a
    question: plain text or {"question": TEXT}. PATH is one that asks a model, such as /v1/chat/completions. Prints how
    many were hits and misses; exits with 1 if an ask failed or nothing was kept.
    """
    from cacheproxy.commands import asks
    from cacheproxy.commands import warm as command

    settings = load(config_file)
    with failures():
        requests = [asks.as_request(one, model) for one in asks.read(file) if one.path or one.question]
        if any(not body.get("model") for _, body in requests):
            refuse(f"{file}: has asks that name no model; give one with --model")
        url = url or admin_port.url_of(settings.server.listen)
        fine = command.run(url, requests, parallel=parallel, as_json=as_json)
    raise typer.Exit(FINE if fine else FAILED)


def bench(
    *,
    model: Model,
    repeats: Annotated[int, typer.Option(metavar="N", min=1, max=10_000, help="Asks for an exact hit.")] = 200,
    rounds: Annotated[
        int, typer.Option(metavar="N", min=1, max=1_000, help="Misses, as many directly: each costs one token.")
    ] = 5,
    url: ProxyURL = "",
    upstream: Annotated[str, typer.Option(metavar="URL", help="Ollama itself. Default: upstream.url.")] = "",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the figures as JSON.")] = None,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw them. Needs matplotlib.")] = None,
    config_file: ConfigFile = None,
    admin: AdminURL = "",
    token: Token = "",
    as_json: AsJSON = False,
) -> None:
    """Measure a running installation: exact hits, semantic hits, and what a miss costs more than Ollama alone.

    Asks made-up questions, one of them answered in full and stored, the others cut off after one token. What it stores
    it deletes by its id at the end; the asks stay in the statistics.
    """
    from cacheproxy.commands import bench as command

    settings = load(config_file)
    port = port_of(config_file, admin, token)
    with failures():
        proxy_url = url or admin_port.url_of(settings.server.listen)
        plan = command.Plan(model, repeats=repeats, rounds=rounds)
        command.run(port, proxy_url, upstream or settings.upstream.url, plan, as_json=as_json, out=out, png=png)
