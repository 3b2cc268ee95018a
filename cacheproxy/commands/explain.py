"""`cacheproxy explain`: what would happen to an ask, and why, as lines for people. The proxy itself tells the story."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import typer

from cacheproxy.commands.admin_port import AdminPort
from cacheproxy.commands.stats import duration
from cacheproxy.errors import ConfigError

_ENDS = {
    "exact": "EXACT, answered from the entry under its key",
    "semantic": "SEMANTIC, answered from the entry above",
    "joined": "JOINED, an equal ask is being answered right now",
}
_WHYS = {
    "none": "nothing near is stored",
    "below_threshold": "the nearest is not near enough",
    "no-cache": "a fresh answer is wanted",
    "shadow": "shadow mode: it would have been answered from the entry above",
    "mode-off": "near answers are switched off (semantic.mode)",
    "model-off": "near answers are switched off for this model",
    "mode-exact": "the caller wants exact answers only",
    "no-vector": "the embedder is not ready",
    "down": "the search index is away",
    "away": "Redis is away",
    "too-long": "the question is longer than the embedder reads",
    "feedback": "somebody said that these two need different answers",
    "unsuited": "the nearest is too old for the caller, or lacks what the reply needs",
    "no-store": "the caller wants to stay out of the cache",
    "unknown-model": "Ollama does not list the model",
    "temperature": "its temperature is above cache.max_temperature",
}
_WHYS_NEAR = _WHYS | {"temperature": "its temperature is above semantic.max_temperature"}
"""The same words, where they say why nothing near was looked for."""


def run(port: AdminPort, asked: Mapping[str, Any], *, as_json: bool) -> None:
    """Print the story of an ask (as `POST /explain` takes it). Raises AdminPortError."""
    told = port.ask("/explain", method="POST", body=asked)
    if as_json:
        typer.echo(json.dumps(told, indent=2))
        return
    away = _why_away(port) if told["why"] == "unknown-model" else ""
    typer.echo("\n".join(lines(told, time.time(), away)))


def _why_away(port: AdminPort) -> str:
    """Why no model is known to the proxy; empty if it knows which there are. Raises AdminPortError."""
    ollama = port.ask("/stats").get("parts", {}).get("upstream", {})
    return str(ollama["reason"]) if ollama.get("state") == "down" else ""


def asked(
    prompt: str, *, model: str, system: str, generate: bool, options: Sequence[str], headers: Sequence[str]
) -> dict[str, Any]:
    """The ask that the command line describes. Raises ConfigError. Pure."""
    body: dict[str, Any] = {"model": model}
    if generate:
        body |= {"prompt": prompt} | ({"system": system} if system else {})
    else:
        turns = [("system", system), ("user", prompt)] if system else [("user", prompt)]
        body["messages"] = [{"role": role, "content": text} for role, text in turns]
    if options:
        body["options"] = dict(_pair(text, "=", "--option") for text in options)
        body["options"] = {name: _value(text) for name, text in body["options"].items()}
    sent = {name.strip(): text.strip() for name, text in (_pair(text, ":", "--header") for text in headers)}
    return {"path": "/api/generate" if generate else "/api/chat", "body": body, "headers": sent}


def _pair(text: str, sign: str, option: str) -> tuple[str, str]:
    name, found, value = text.partition(sign)
    if not name or not found:
        example = "temperature=0.7" if sign == "=" else "Authorization: Bearer abc"
        raise ConfigError(f'{option} {text}: expected NAME{sign}VALUE, such as "{example}"')
    return name, value


def _value(text: str) -> Any:
    """A number, list or true as JSON has it; anything else is a text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def lines(told: Mapping[str, Any], now: float, away: str = "") -> Iterator[str]:
    """The story for a person. `now`: Unix time, s. `away`: why Ollama could not be asked for the model. Pure."""
    if told["key"]:
        yield f"{'exact':<10}{_exact(told, now)}"
    for rank, one in enumerate(told["neighbours"]):
        yield from _neighbour(one, told["threshold"], "nearest" if rank == 0 else "next")
    if told["near_off"] and told["outcome"] != "bypass":
        yield f"{'nearest':<10}not looked for: {_WHYS_NEAR.get(told['near_off'], told['near_off'])}"
    if not told["prompts"] and told["neighbours"]:
        yield f"{'':<10}(their questions are not shown: log.prompts is off)"
    yield f"{'verdict':<10}{f'502, Ollama is away: {away}' if away else _verdict(told)}"


def _exact(told: Mapping[str, Any], now: float) -> str:
    key = f"(key {told['key']})"
    if told["exact"] == "no":
        return f"no entry  {key}"
    if told["made"] is None:
        return f"{told['exact']}  {key}"
    left = told["expires"] - now
    age = f"made {duration(max(0.0, now - told['made']))} ago"
    lasts = f"expires in {duration(left)}" if left > 0 else f"expired {duration(-left)} ago"
    return f"{told['exact']}, {age}, {lasts}  {key}"


def _neighbour(one: Mapping[str, Any], threshold: float, title: str) -> Iterator[str]:
    question = f'"{plain(one["stored"])}"' if one["stored"] else f"entry {one['entry']}"
    reached = one["similarity"] >= threshold
    yield f"{title:<10}{one['similarity']:.3f}  {question}  {'>=' if reached else '<'} {threshold:.3f}"
    if one["guards"] and reached:
        yield f"{'guard':<10}{', '.join(one['guards'])}  ->  rejected"
    elif reached and one["verdict"] not in ("serve", "below_threshold"):
        yield f"{'':<10}rejected: {_why(one['verdict'])}"


def _verdict(told: Mapping[str, Any]) -> str:
    outcome = told["outcome"]
    if told["why"] == "in-flight-near":
        return "JOINED, an ask that means the same is being answered right now"
    if outcome in _ENDS:
        return _ENDS[outcome]
    if outcome == "bypass":
        return f"BYPASS, goes around the cache: {_why(told['why'])}"
    if told["why"] == "only-if-cached":
        return "MISS, answered with 504: nothing that is stored may answer it, and the caller wants nothing else"
    kept = f"and stored for {duration(told['ttl_s'])}" if told["ttl_s"] else "and not stored"
    if told["exact"] == "away":
        kept = "and not stored while Redis is away"
    why = _WHYS_NEAR.get(told["why"], told["why"]) if told["why"] == told["near_off"] else _why(told["why"])
    return f"MISS, would be forwarded {kept}: {why}"


def _why(word: str) -> str:
    if word.startswith("guard:"):
        return f"the guard over {word.removeprefix('guard:')} objects"
    return _WHYS.get(word, word)


def plain(text: str) -> str:
    """A text of others without what a terminal would act on, on one line. Pure."""
    return "".join(sign if sign.isprintable() else " " for sign in text)
