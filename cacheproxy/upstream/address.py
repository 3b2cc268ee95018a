"""`upstream.url`, understood.

Refuses to look anything up.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from cacheproxy.errors import ConfigError
from cacheproxy.upstream.request import FORBIDDEN

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """Where an Ollama is."""

    scheme: str
    host: str
    port: int
    prefix: str
    """A path that goes before every target; empty as a rule."""

    @property
    def authority(self) -> str:
        """Host and port, as a `Host` header has them."""
        return self._bracketed if self.port == _DEFAULT_PORTS[self.scheme] else f"{self._bracketed}:{self.port}"

    @property
    def name(self) -> str:
        """It in logs, metrics and `/stats`."""
        return f"{self._bracketed}:{self.port}{self.prefix}"

    @property
    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    @classmethod
    def of(cls, url: str, setting: str) -> Address:
        """It, from a URL in the config under the key `setting`. Raises ConfigError."""
        hint = 'expected for example "http://127.0.0.1:11434"'
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigError(f'{setting} = "{url}": {error}; {hint}') from error
        if parts.username is not None or parts.password is not None:
            raise ConfigError(
                f"{setting} holds a user or password; clients send their own Authorization header instead"
            )
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or parts.query or parts.fragment:
            raise ConfigError(f'{setting} = "{url}": {hint}')
        if FORBIDDEN.search(url) or " " in url:
            raise ConfigError(f"{setting} = {url!r}: holds a space or control character; {hint}")
        return cls(parts.scheme, parts.hostname, port or _DEFAULT_PORTS[parts.scheme], parts.path.rstrip("/"))
