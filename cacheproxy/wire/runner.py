"""What a request asks of Ollama's runner: the model, and the options it must be loaded with.

Ollama loads a model anew for other runner options (its `needsReload`), so asks that differ in them do not run side by
side. Refuses to judge a request: one that cannot be read, or that runs nothing (an empty prompt only loads the model),
has no needs, and Ollama says the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from cacheproxy.errors import UnkeyableError
from cacheproxy.wire.jsontext import read

RUNNER_OPTIONS = ("draft_num_predict", "main_gpu", "num_batch", "num_ctx", "num_gpu", "num_thread", "use_mmap")
"""Options that are fixed when a model is loaded."""

_CONTENT = {
    "/api/chat": "messages",
    "/api/embed": "input",
    "/api/embeddings": "prompt",
    "/api/generate": "prompt",
    "/v1/chat/completions": "messages",
    "/v1/completions": "prompt",
    "/v1/embeddings": "input",
    "/v1/messages": "messages",
    "/v1/responses": "input",
}
"""The paths that run a model, each with the member that gives it something to do."""

PATHS = frozenset(_CONTENT)

Options = tuple[tuple[str, str], ...]


class Needs(NamedTuple):
    """A model as the caller spelt it, and its runner options."""

    model: str
    options: Options


def needs(path: str, body: bytes) -> Needs | None:
    """What a POST of `body` to `path` needs; None if nothing, or nobody can tell."""
    model, members = _read(path, body)
    if not model or not members.get(_CONTENT[path]):
        return None
    return Needs(model, () if path.startswith("/v1/") else options(members))


def named(path: str, body: bytes) -> str:
    """The model that a POST of `body` to `path` runs, loads or unloads, as spelt there; empty if nobody can tell."""
    return _read(path, body)[0]


def _read(path: str, body: bytes) -> tuple[str, Mapping[str, Any]]:
    """The model and all members; both empty for what runs no model or cannot be read."""
    if path not in _CONTENT:
        return "", {}
    try:
        members = read(body)
    except UnkeyableError:
        return "", {}
    model = members.get("model")
    return (model, members) if isinstance(model, str) else ("", {})


def options(members: Mapping[str, Any]) -> Options:
    """The runner options among a native request's members, sorted; numbers as Ollama reads them."""
    given = members.get("options")
    wanted = []
    if given and isinstance(given, Mapping):
        wanted = [(name, _spelling(given[name])) for name in RUNNER_OPTIONS if given.get(name) is not None]
    if isinstance(members.get("shift"), bool):
        wanted.append(("shift", _spelling(members["shift"])))
    return tuple(wanted)


def _spelling(value: object) -> str:
    """4096 and 4096.0 are one to Ollama, which cuts fractions off."""
    return str(int(value)) if isinstance(value, (int, float)) else str(value)
