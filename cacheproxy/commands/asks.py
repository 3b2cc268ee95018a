"""Files of asks, as `warm` sends them and `replay` judges them: one ask a line, in whatever form it was recorded.

A line is a question as plain text; or a JSON object: a request's body (`{"model": …, "messages": […]}` or with
`prompt`), the same under `body` with its `path`; or `{"question": …}` with, if known, `scope` (all else that must be
equal), `model`, `time` (Unix, s) and `label` (asks of one label have one right answer). `cacheproxy tail --json` writes
`asked` for the question and `at` for the time. Refuses to guess: a line that is none of these is an error.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cacheproxy.errors import ConfigError
from cacheproxy.wire import runner

LINES_MAX = 1_000_000
"""Asks read of a file."""
PATHS = {"messages": "/api/chat", "prompt": "/api/generate"}
"""Where a body without a path belongs, by the member that says so."""
_PATH = re.compile(r"/[!-~]*")
"""What may stand in a request line."""
_ABOUT = ("time", "at", "label", "key")
"""Members of a recorded body that are not the body's."""
_EXAMPLE = '{"model": "llama3.2", "messages": [{"role": "user", "content": "why?"}]}'


@dataclass(frozen=True, slots=True)
class Recorded:
    """One line: a request's `body`, or else a `question`; both empty for a record that tells neither."""

    question: str = ""
    scope: str = ""
    """What must be equal for two questions to be compared; empty where the record does not tell."""
    model: str = ""
    time: float | None = None
    """Unix time, s."""
    label: str = ""
    path: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""
    """File and line, for errors."""


def read(path: Path, *, lines_max: int = LINES_MAX) -> Iterator[Recorded]:
    """The asks of a file, empty lines left out. Raises ConfigError that names the line."""
    count = 0
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if not (text := line.strip()):
                    continue
                count += 1
                if count > lines_max:
                    raise ConfigError(f"{path}: more than {lines_max:,} asks; take a part of it")
                yield parse(text, f"{path}:{number}")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {why_unreadable(error)}") from error


def why_unreadable(error: OSError | UnicodeDecodeError) -> str:
    """What is wrong with a file of lines, in a few words. Pure."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return "is no text in UTF-8; expected a file of lines"


def parse(text: str, where: str) -> Recorded:
    """The ask of a line. `where` names it in errors. Raises ConfigError. Pure."""
    if not text.startswith("{"):
        return Recorded(question=text, where=where)
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not JSON ({error}); expected plain text or a body such as {_EXAMPLE}") from error
    if not isinstance(row, dict):  # nothing else begins with a brace, but json might change its mind
        raise ConfigError(f"{where}: no JSON object; expected {_EXAMPLE}")
    time, label = _time(row, where), _text(row, ("label", "key"), where)
    body = row.get("body", row)
    if isinstance(body, dict) and (path := _path(row, body, where)):
        own = {name: value for name, value in body.items() if body is not row or name not in _ABOUT}
        return Recorded(path=path, body=own, model=_text(own, ("model",), where), time=time, label=label, where=where)
    names = ("question", "asked")
    if not any(name in row for name in names):
        raise ConfigError(f'{where}: has no "messages", "prompt" or "question"; expected a body such as {_EXAMPLE}')
    return Recorded(
        question=_text(row, names, where),
        scope=_text(row, ("scope", "setting"), where),
        model=_text(row, ("model",), where),
        time=time,
        label=label,
        where=where,
    )


def as_request(ask: Recorded, model: str) -> tuple[str, dict[str, Any]]:
    """Path and body to send. `model` stands in where the ask names none. Pure.

    Raises ConfigError for a path that asks nothing of a model: what is sent there may create or delete one.
    """
    if ask.path:
        if ask.path not in runner.PATHS:
            paths = ", ".join(sorted(runner.PATHS))
            raise ConfigError(f'{ask.where}: "path" is "{ask.path}", where no asks go; there are {paths}')
        return ask.path, {"model": model, **ask.body} if model else dict(ask.body)
    body = {"model": ask.model or model, "messages": [{"role": "user", "content": ask.question}], "stream": False}
    return "/api/chat", body


def _path(row: Mapping[str, Any], body: Mapping[str, Any], where: str) -> str:
    """Where a body belongs; empty for what is no request's body."""
    path = row.get("path") if body is not row else None
    if path is not None and not (isinstance(path, str) and _PATH.fullmatch(path)):
        raise ConfigError(f'{where}: "path" is {json.dumps(path)}; expected one such as "/api/chat"')
    return path or next((place for member, place in PATHS.items() if member in body), "")


def _text(row: Mapping[str, Any], names: tuple[str, ...], where: str) -> str:
    name = next((name for name in names if name in row), "")
    if not name:
        return ""
    value = row[name]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ConfigError(f'{where}: "{name}" is no text')
    return value


def _time(row: Mapping[str, Any], where: str) -> float | None:
    value = row.get("time", row.get("at"))
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(f'{where}: "time" is {json.dumps(value)}; expected seconds since 1970')
    return float(value)
