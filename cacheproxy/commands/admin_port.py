"""Ask a running proxy over its operator's port, with nothing but the standard library: it must start at once."""

from __future__ import annotations

import http.client
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from cacheproxy.config import Admin, split_listen
from cacheproxy.errors import AdminPortError, ConfigError

TIMEOUT_S = 30.0
"""A purge of a million entries takes seconds; everything else is over in milliseconds."""
_ANSWER_BYTES_MAX = 16 * 1024**2


@dataclass(frozen=True, slots=True)
class AdminPort:
    """Where the port is. `url` has no slash at its end."""

    url: str
    token: str = field(default="", repr=False)

    def ask(self, path: str, *, method: str = "GET", body: Any = None) -> dict[str, Any]:
        """The JSON object at `path`; `body` is sent as JSON where given. Raises AdminPortError."""
        with self._reply(path, method=method, body=body) as reply:
            try:
                answer = json.loads(reply.read(_ANSWER_BYTES_MAX))
            except ValueError as error:
                raise AdminPortError(f"{self._no_port(reply)}: its answer is not JSON") from error
            except (OSError, http.client.HTTPException) as error:
                raise AdminPortError(f"the answer of {self.url} broke off ({plain(error)})") from error
        if not isinstance(answer, dict):
            raise AdminPortError(f"{self._no_port(reply)}: its answer is no JSON object")
        return answer

    def _refusal(self, error: urllib.error.HTTPError, path: str) -> str:
        """What an answer with a status of 400 or more comes to, and what to do."""
        told = _told(error)
        if error.code == 401:
            given = "--token or admin.token is not its token" if self.token else "it has a token, and none was given"
            return f"{self.url} refused: {given}; give it with --token, or as admin.token (CACHEPROXY_ADMIN__TOKEN)"
        if "cacheproxy" in error.headers.get("Via", "") or (error.code == 404 and not told):
            return f"{self._no_port(error)}: it has no {path.partition('?')[0]} (status {error.code})"
        return f"{self.url} refused: {f'{told} (status {error.code})' if told else f'status {error.code}'}"

    def _no_port(self, reply: http.client.HTTPResponse | urllib.error.HTTPError) -> str:
        """That something else answered there; the port for clients tells itself by `Via`."""
        if "cacheproxy" in reply.headers.get("Via", ""):
            return f"{self.url} is a cacheproxy's port for clients; name its operator's port with --admin"
        return f"{self.url} is no operator's port of a cacheproxy"

    def events(self, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Name and content of each server-sent event at `path`, for ever. Raises AdminPortError when it ends."""
        with self._reply(path) as reply:
            if not reply.headers.get("Content-Type", "").startswith("text/event-stream"):
                raise AdminPortError(f"{self.url}{path} gives no events; is that cacheproxy as new as this command?")
            try:
                yield from read_events(reply)
            except (OSError, http.client.HTTPException) as error:
                raise AdminPortError(f"the events of {self.url} broke off ({plain(error)})") from error
        raise AdminPortError(f"{self.url} ended its events: it stops, or has too many listeners")

    @contextmanager
    def _reply(self, path: str, *, method: str = "GET", body: Any = None) -> Iterator[http.client.HTTPResponse]:
        # No proxy from the environment: it would be handed the token, and could not reach loopback anyway.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        data = None if body is None else json.dumps(body).encode()
        headers |= {"Content-Type": "application/json"} if data is not None else {}
        request = urllib.request.Request(self.url + path, data, headers, method=method)  # noqa: S310 - find() checked it
        try:
            reply = opener.open(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            raise AdminPortError(self._refusal(error, path)) from error
        except (OSError, http.client.HTTPException) as error:
            raise AdminPortError(
                f"no cacheproxy answers at {self.url} ({plain(error)}): "
                'start it with "cacheproxy serve", or name its operator\'s port with --admin URL'
            ) from error
        with reply:
            yield reply


def read_events(lines: Iterable[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and content of each server-sent event in the lines of a stream; what is no JSON object is left out."""
    name, content = "", []
    for line in lines:
        text = line.decode(errors="replace").rstrip("\r\n")
        field_name, _, value = text.partition(":")
        if field_name == "event":
            name = value.strip()
        elif field_name == "data":
            content.append(value.removeprefix(" "))
        elif not text:
            try:
                told = json.loads("\n".join(content)) if content else None
            except ValueError:
                told = None
            if isinstance(told, dict):
                yield name or "message", told
            name, content = "", []


def find(settings: Admin, *, url: str = "", token: str = "") -> AdminPort:
    """The port to ask: `url` and `token` where given, else what the configuration says. Raises ConfigError."""
    if not url:
        url = url_of(settings.listen)
    elif "://" not in url:
        url = f"http://{url}"
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f'--admin {url}: expected a URL such as "http://127.0.0.1:11436"')
    return AdminPort(url.rstrip("/"), token or settings.token)


def url_of(listen: str) -> str:
    """The URL by which this machine reaches what listens there. Raises ConfigError."""
    host, port = split_listen(listen)
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def plain(error: BaseException) -> str:
    """What went wrong with a connection, in a few words."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    return str(cause) or type(cause).__name__


def is_person() -> bool:
    """True when a terminal is at both ends, so that a question would be read and answered."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def purge(port: AdminPort, selector: dict[str, str]) -> int:
    """Delete what the one pair of `selector` names; how many entries went. Raises AdminPortError."""
    answer = port.ask(f"/entries?{urllib.parse.urlencode(selector)}", method="DELETE")
    return int(answer.get("deleted", 0))


def _told(error: urllib.error.HTTPError) -> str:
    """The `error` in a refusal; empty for one that is not of a cacheproxy or Ollama."""
    try:
        return str(json.loads(error.read(4096))["error"])
    except (ValueError, KeyError, TypeError, OSError):
        return ""
