"""Ask a proxy or Ollama as an app does, with nothing but the standard library, one ask after another on a connection.

Refuses to understand answers: it reads them to their end and tells how they came about and how long that took.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from cacheproxy.commands.admin_port import plain
from cacheproxy.errors import AskFailedError, ConfigError

TIMEOUT_S = 600.0
"""A slow model on a slow machine, which is being loaded first."""
PREFIX_BYTES = 4096
"""Kept of an answer, for the text of an error."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of an ask. `outcome`: `X-Cache` in lower case, empty where no cacheproxy stood on the way."""

    status: int
    outcome: str
    entry: str
    """`X-Cache-Entry`."""
    seconds: float
    """From the first byte sent to the last byte received."""
    error: str = ""
    """What an answer with a status of 400 or more says."""
    proxied: bool = False
    """True where a cacheproxy stood on the way, by `Via`; `X-Cache` is what other caches send too."""


class Client:
    """One connection to `url`, which is made anew when it broke. Not for several threads at once."""

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        try:
            port = parts.port
        except ValueError:
            port = 0
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
            raise ConfigError(f'{url}: expected a URL such as "http://127.0.0.1:11435"')
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self.url = f"{parts.scheme}://{parts.netloc}"
        self._connection = kind(parts.hostname, port, timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Reply:
        """POST a body as JSON and read the answer to its end. Raises AskFailedError when there is none."""
        content = json.dumps(body).encode()
        began_s = time.perf_counter()
        try:
            self._connection.request("POST", path, content, {"Content-Type": "application/json"} | dict(headers or {}))
            answer = self._connection.getresponse()
            start = answer.read(PREFIX_BYTES)
            while answer.read(65536):
                pass
        except (OSError, ValueError, http.client.HTTPException) as error:
            self._connection.close()
            raise AskFailedError(f"no answer from {self.url} ({plain(error)}): is it running there?") from error
        seconds = time.perf_counter() - began_s
        return Reply(
            answer.status,
            answer.headers.get("X-Cache", "").lower(),
            answer.headers.get("X-Cache-Entry", ""),
            seconds,
            _error(start) if answer.status >= 400 else "",
            "cacheproxy" in answer.headers.get("Via", ""),
        )


def _error(start: bytes) -> str:
    """What the start of an answer says went wrong: Ollama's `error`, or OpenAI's `error.message`."""
    try:
        told = json.loads(start)["error"]
        return str(told.get("message", told) if isinstance(told, dict) else told)
    except (ValueError, LookupError, TypeError):
        return start[:200].decode(errors="replace")
