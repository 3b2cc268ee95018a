"""`cacheproxy check`: what is configured, reachable and missing, one line each.

A `FAIL` is something that keeps asks from being answered or kept; a `warn` works and may surprise. It changes nothing
on disk or in Redis, but that it starts the embedded server for a moment, since only that proves that it starts.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import typer

from cacheproxy import config
from cacheproxy.clock import SystemClock
from cacheproxy.commands.addresses import clashes
from cacheproxy.commands.admin_port import find as find_admin_port
from cacheproxy.commands.admin_port import plain, url_of
from cacheproxy.commands.stats import at_once, counted, size
from cacheproxy.commands.store import quiet
from cacheproxy.config import Config
from cacheproxy.edge.admin import check_exposure
from cacheproxy.edge.hosts import is_loopback
from cacheproxy.errors import CacheproxyError, ConfigError
from cacheproxy.store.address import parse
from cacheproxy.store.connection import Connection
from cacheproxy.store.embedded import Embedded
from cacheproxy.traces import check_installed
from cacheproxy.upstream import tuning
from cacheproxy.whole.embedder import load_embedder
from embeddings.errors import EmbeddingsError

TIMEOUT_S = 5.0
"""How long one thing may take to answer. All are local or near."""
OLLAMA_PORT = 11434
_NAMES_MAX = 5
_ANSWER_BYTES_MAX = 16 * 1024**2
_OTHER_DATABASE = "near answers will be off: Redis searches its database 0 only; leave the number out of redis.url"
_COLOURS = {"ok": "green", "warn": "yellow", "FAIL": "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. `thing`: what was looked at, one word."""

    state: Literal["ok", "warn", "FAIL"]
    thing: str
    text: str


@dataclass(frozen=True, slots=True)
class Page:
    """What a server answered. `proxied`: a cacheproxy stood on the way."""

    body: bytes
    proxied: bool
    seconds: float


def run(path: Path | None, *, as_json: bool) -> frozenset[str]:
    """Look at everything and print it; the things that fail. `path`: the config file, None for none."""
    found = []
    for finding in look(path):
        found.append(finding)
        if not as_json:
            state = typer.style(f"{finding.state:<4}", fg=_COLOURS[finding.state])
            typer.echo(f"{state} {finding.thing:<9}{finding.text}", color=False if os.environ.get("NO_COLOR") else None)
    failed = frozenset(finding.thing for finding in found if finding.state == "FAIL")
    if as_json:
        typer.echo(json.dumps({"ok": not failed, "findings": [asdict(finding) for finding in found]}, indent=2))
    return failed


def look(path: Path | None) -> Iterator[Finding]:
    """Every finding, each as soon as it is known."""
    try:
        settings = config.load(path)
        admin_url, proxy_url = url_of(settings.admin.listen), url_of(settings.server.listen)
        problems = list(clashes(settings))
    except ConfigError as error:
        yield from (Finding("FAIL", "config", line) for line in str(error).splitlines())
        return
    yield from (Finding("FAIL", "config", problem) for problem in problems)
    if not problems:
        yield Finding("ok", "config", str(path or "defaults and environment; no file was named"))
    yield from _ollama(settings)
    yield from _redis(settings.redis)
    yield near(settings)
    yield from _port("clients", settings.server.listen, proxy_url)
    yield from _port("admin", settings.admin.listen, admin_url)
    yield from _exposure(settings)
    yield from _tracing(settings)
    yield from _environment(settings, os.environ.get("OLLAMA_HOST", ""))


@dataclass(frozen=True, slots=True)
class Installed:
    """What one Ollama has: the digest of each name."""

    url: str
    version: str
    digests: Mapping[str, str]


def _ollama(settings: Config) -> Iterator[Finding]:
    """Each Ollama, what is added to requests, and where they differ. One of several away is no failure."""
    found: list[Installed] = []
    for setting, url in zip(
        ["url", *("others" for _ in settings.upstream.others)], settings.upstream.urls, strict=True
    ):
        last = url == settings.upstream.urls[-1]
        yield from _one_ollama(url.rstrip("/"), f"upstream.{setting}", found, alone=last and not found)
    if found:
        yield from _at_once(settings)
        yield from tunings(settings, list(dict.fromkeys(name for one in found for name in one.digests)))
    yield from differences(found)


def _one_ollama(url: str, setting: str, found: list[Installed], *, alone: bool) -> Iterator[Finding]:
    """One of them, added to `found` if it is there. `alone`: no other answers."""
    try:
        version = fetch(f"{url}/api/version")
        tags = fetch(f"{url}/api/tags")
        installed = _read_ollama(url, version, tags)
    except (OSError, ValueError) as error:
        remedy = f'start it with "ollama serve" or set {setting}'
        yield Finding("FAIL" if alone else "warn", "ollama", f"no Ollama at {url} ({plain(error)}): {remedy}")
        return
    if version.proxied:
        yield Finding("warn", "ollama", f"{url} is a cacheproxy itself; set {setting} to Ollama's own address")
    number, took = installed.version, f"answers in {version.seconds * 1000:.0f} ms"
    yield Finding("ok", "ollama", f"{number} at {url}, {counted(len(installed.digests), 'model')}, {took}")
    if not installed.digests:
        yield Finding("warn", "ollama", 'no model is installed; "ollama pull llama3.2" brings one')
    found.append(installed)


def _at_once(settings: Config) -> Iterator[Finding]:
    """How many models a running proxy lets run at the same time; nothing while none runs here."""
    try:
        told = find_admin_port(settings.admin).ask("/stats")["upstreams"]
        lines = [at_once(one, named=len(told) > 1) for one in told]
    except (CacheproxyError, LookupError, TypeError, AttributeError):
        return
    yield from (Finding("ok", "ollama", f"at once: {line}") for line in lines if line)


def differences(found: list[Installed]) -> Iterator[Finding]:
    """Why Ollamas do not share asks: other versions, other digests, models that one of them lacks. Pure."""
    if not found:
        return
    first, *others = found
    for other in others:
        if other.version != first.version:
            text = f"{other.url} is {other.version}, {first.url} is {first.version}: they share no asks"
            yield Finding("warn", "ollama", text)
            continue
        unlike = sorted(name for name, digest in other.digests.items() if first.digests.get(name, digest) != digest)
        apart = sorted(first.digests.keys() ^ other.digests.keys())
        if unlike:
            yield Finding("warn", "ollama", f"not the same at {first.url} and {other.url}: {listed(unlike)}; pull anew")
        if apart:
            yield Finding("warn", "ollama", f"at only one of {first.url} and {other.url}: {listed(apart)}")


def listed(names: list[str]) -> str:
    """Some names, and that there are more."""
    return ", ".join(names[:_NAMES_MAX]) + (" …" if len(names) > _NAMES_MAX else "")


def tunings(settings: Config, names: list[str]) -> Iterator[Finding]:
    """What is added to requests: by the profile, and for each installed model with a rule of its own. Pure."""
    profile = settings.tuning.profile
    yield Finding("ok", "tuning", f"{profile}: {tuning.describe(tuning.PROFILES[profile])}")
    for name in names:
        fill = tuning.fill_for(settings, name)
        if fill != tuning.PROFILES[profile]:
            yield Finding("ok", "tuning", f"{name}: {tuning.describe(fill)}")
        elif profile == "off" and settings.model_rule(name).options:
            yield Finding("warn", "tuning", f'{name}: its options are not used; tuning.profile is "off"')


def _read_ollama(url: str, version: Page, tags: Page) -> Installed:
    """Version and models. Raises ValueError when it is not Ollama that answered."""
    try:
        digests = {model["name"]: str(model.get("digest", "")) for model in json.loads(tags.body)["models"]}
        return Installed(url, str(json.loads(version.body)["version"]), digests)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError("what answers there is not Ollama") from error


def _redis(settings: config.Redis) -> Iterator[Finding]:
    if settings.url == "embedded":
        yield from _data_dir(settings)
    try:
        with quiet():
            found = asyncio.run(_contact(settings))
    except CacheproxyError as error:
        found = [Finding("FAIL", "redis", str(error))]
    yield from found


async def _contact(settings: config.Redis) -> list[Finding]:
    """Open Redis as the proxy would. Raises ConfigError."""
    embedded = Embedded(settings) if settings.url == "embedded" else None
    connection = Connection(settings, SystemClock(), embedded=embedded)
    try:
        if embedded is not None:
            await embedded.open()
        await connection.open()
        if not await connection.wait_up(TIMEOUT_S):
            remedy = "start it, or set redis.url; until it answers nothing is cached"
            return [Finding("FAIL", "redis", f"{connection.reason or 'no answer in time'}: {remedy}")]
        found = connection.capabilities
        parts = [f"{found.server_version} {f'embedded in {embedded.folder}' if embedded else f'at {connection.where}'}"]
        parts += [f"search {found.search_version}"] if found.search_version else []
        parts += [f"maxmemory {found.maxmemory / 1024**2:.0f} MiB ({found.policy})"] if found.maxmemory else []
        findings = [Finding("ok", "redis", ", ".join(parts))]
        if embedded is None and parse(settings.url).database:
            findings.append(Finding("warn", "redis", _OTHER_DATABASE))
        return findings + ([Finding("warn", "redis", found.note)] if found.note else [])
    finally:
        await connection.close()
        if embedded is not None:
            await embedded.close()


def near(settings: Config) -> Finding:
    """Whether questions can become vectors. Without, exact answers go on, so nothing fails. Downloads nothing."""
    if settings.semantic.mode == "off":
        return Finding("ok", "near", "near answers are switched off: semantic.mode")
    began = time.monotonic()
    try:
        embedder = load_embedder(settings, offline=True)
        embedder.embed(["Is anybody there?"])
    except EmbeddingsError as error:
        return Finding("warn", "near", f"only exact answers for now: {error}")
    took = f"ready in {time.monotonic() - began:.1f} s"
    return Finding("ok", "near", f"{embedder.model} ({embedder.engine}), {embedder.dims} dimensions, {took}")


def _data_dir(settings: config.Redis) -> Iterator[Finding]:
    folder = Embedded(settings).folder.parent
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not os.access(there, os.W_OK):
        yield Finding("FAIL", "data", f"{there} cannot be written; set redis.data_dir, or redis.url to another Redis")
        return
    free = shutil.disk_usage(there).free
    # Twice: while Redis rewrites its append-only file, the old and the new one lie side by side.
    scarce = free < 2 * settings.memory
    advice = f"; redis.memory may need {size(2 * settings.memory)} on disk" if scarce else ""
    yield Finding("warn" if scarce else "ok", "data", f"{folder}, {size(free)} free{advice}")


def _port(thing: str, listen: str, url: str) -> Iterator[Finding]:
    """Whether the port can be had, or is already a cacheproxy's."""
    try:
        page = fetch(f"{url}/")
    except ConnectionRefusedError:
        yield _bindable(thing, listen)
    except (OSError, ValueError) as error:
        yield Finding("FAIL", thing, f"{listen} is taken by something that is no cacheproxy ({plain(error)})")
    else:
        if page.proxied or b"/entries" in page.body or b"admin.token" in page.body:  # the last refuses a stranger
            yield Finding("ok", thing, f"{listen}: a cacheproxy is serving there")
        elif page.body.startswith(b"Ollama is running"):
            advice = "was OLLAMA_HOST set where it was started? Unset it there"
            yield Finding("FAIL", thing, f"{listen} is taken by Ollama itself: {advice}")
        else:
            yield Finding("FAIL", thing, f"{listen} is taken by another program; choose another port")


def _bindable(thing: str, listen: str) -> Finding:
    host, port = config.split_listen(listen)
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return Finding("ok", thing, f"{listen} is free")
    except OSError as error:
        return Finding("FAIL", thing, f"cannot listen on {listen} ({(error.strerror or str(error)).lower()})")


def _exposure(settings: Config) -> Iterator[Finding]:
    try:
        check_exposure(settings.admin.listen, settings.admin.token)
    except ConfigError as error:
        yield Finding("FAIL", "admin", str(error))
    else:
        near = is_loopback(config.split_listen(settings.admin.listen)[0])
        yield Finding("ok", "admin", "only this machine reaches it" if near else "open to the network, with a token")
    if not is_loopback(config.split_listen(settings.server.listen)[0]):
        yield Finding("warn", "clients", f"{settings.server.listen}: whoever reaches this port can use your Ollama")


def _tracing(settings: Config) -> Iterator[Finding]:
    if not settings.tracing.endpoint:
        return
    try:
        check_installed()
    except ConfigError as error:
        yield Finding("FAIL", "tracing", str(error))
    else:
        yield Finding("ok", "tracing", f"asks are told to {settings.tracing.endpoint}")


def _environment(settings: Config, ollama_host: str) -> Iterator[Finding]:
    """`OLLAMA_HOST` is right for clients and wrong for the shell that starts Ollama."""
    if not ollama_host:
        return
    host, port = ollama_address(ollama_host)
    own_host, own_port = config.split_listen(settings.server.listen)
    same_host = host == own_host or (is_loopback(host) and is_loopback(own_host)) or own_host in ("0.0.0.0", "::")  # noqa: S104
    if port == own_port and same_host:
        trap = 'right for clients, but "ollama serve" started from this shell would take the proxy\'s port'
        yield Finding("warn", "env", f"OLLAMA_HOST={ollama_host} names this proxy: {trap}")
    else:
        yield Finding("ok", "env", f"OLLAMA_HOST={ollama_host}: clients started from this shell do not use this proxy")


def ollama_address(text: str) -> tuple[str, int]:
    """Host and port of an `OLLAMA_HOST` as Ollama reads it: a bare host means 11434, `http://host` means 80. Pure."""
    scheme, separator, rest = text.strip().strip("\"'").rpartition("://")
    default = {"http": 80, "https": 443}.get(scheme, OLLAMA_PORT) if separator else OLLAMA_PORT
    try:
        parts = urlsplit(f"//{rest}")
        port = parts.port
    except ValueError:
        return "127.0.0.1", default
    return parts.hostname or "127.0.0.1", default if port is None else port


def fetch(url: str) -> Page:
    """GET, with no proxy of the environment's. Raises OSError (refused: nobody listens) and ValueError."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    began = time.monotonic()
    try:
        with opener.open(url, timeout=TIMEOUT_S) as reply:
            return _page(reply, began)
    except urllib.error.HTTPError as error:
        with error:
            return _page(error, began)
    except urllib.error.URLError as error:
        raise error.reason if isinstance(error.reason, OSError) else OSError(str(error.reason)) from error
    except http.client.HTTPException as error:
        raise ValueError("what answers there is not HTTP") from error


def _page(reply: Any, began: float) -> Page:
    body = reply.read(_ANSWER_BYTES_MAX)
    return Page(body, "cacheproxy" in reply.headers.get("Via", ""), time.monotonic() - began)
