"""Every error cacheproxy raises, divided by whose fault it is.

    CacheproxyError
    ├── ConfigError            the operator's: config, flags or environment cannot be used
    ├── AdminPortError         the operator's: the port that a command asks gave no usable answer
    ├── ParcelError            the operator's: a file of entries cannot be taken, or does not belong here
    ├── AskFailedError         the operator's: an ask that a command sends got no usable answer
    ├── CallerError            the client's: the proxy answers 4xx
    │   └── BodyTimeoutError   a request body came too slowly (408)
    ├── UpstreamError          Ollama's: the proxy answers 502
    │   ├── UpstreamUnreachableError   no connection, or none that gave a first byte
    │   │   ├── UpstreamAwayError          no connection: nothing was sent
    │   │   └── UpstreamDroppedError       the connection was lost before the first byte of a reply
    │   │       └── UpstreamStaleError     and it had stood idle, which says nothing of Ollama
    │   ├── UpstreamBrokenError        an answer began and did not end as HTTP says it must
    │   └── UpstreamBusyError          too many asks already wait for Ollama (503, as Ollama says it)
    └── CacheError             ours and Redis's: never seen by a caller, it becomes a miss and a count
        ├── StoreUnavailableError      no answer from Redis within the deadline, or the breaker is open
        │   └── StoreRefusedError      Redis answered, and refused this one command
        ├── EntryCorruptError          bytes under one of our keys that are not an entry we can read
        └── EmbedderError              no vector for a text

Foreign exceptions are translated in the file that owns the library and go no further.
This module refuses to know HTTP bodies: a dialect words the error in its own shape.
"""

from __future__ import annotations


class CacheproxyError(Exception):
    """Root of all errors raised on purpose by this package."""


class ConfigError(CacheproxyError):
    """Config, a flag or an environment variable is unusable; the text names it, its value and the remedy."""


class AdminPortError(CacheproxyError):
    """The operator's port of a running proxy gave a command no usable answer; the text says what to do."""


class ParcelError(CacheproxyError):
    """A file of entries has a wrong signature, is damaged, or belongs to another store; the text says what to do."""


class AskFailedError(CacheproxyError):
    """The proxy or Ollama gave an ask of a command's no usable answer; the text says what to do."""


class CallerError(CacheproxyError):
    """The client's request cannot be served.

    `status` is the HTTP status (400..499) the caller sees.
    """

    status = 400


class BodyTimeoutError(CallerError):
    """The request's body came more slowly than `server.body_timeout` and the least rate of `edge/body.py` allow."""

    status = 408


class UpstreamError(CacheproxyError):
    """Ollama could not be asked, or did not answer as HTTP says."""

    status = 502


class UpstreamUnreachableError(UpstreamError):
    """No response byte was received; asking again on a fresh connection is safe for inference."""


class UpstreamAwayError(UpstreamUnreachableError):
    """No connection could be made. Nothing was sent, so whatever it was may be sent elsewhere."""


class UpstreamDroppedError(UpstreamUnreachableError):
    """The connection was lost after the request was sent and before any byte of a reply: it may have been acted on."""


class UpstreamStaleError(UpstreamDroppedError):
    """The same, of a connection made ahead: whoever closed it for being idle may have done so just then."""


class UpstreamBrokenError(UpstreamError):
    """The response ended early or broke HTTP framing; what was received must not be kept."""


class UpstreamBusyError(UpstreamError):
    """More asks wait for a place at Ollama than `upstream.queue` allows."""

    status = 503


class CacheError(CacheproxyError):
    """The cache could not do its part. The ask goes on without it and a counter says so."""


class StoreUnavailableError(CacheError):
    """Redis gave no usable answer within the deadline, or the breaker is open."""


class StoreRefusedError(StoreUnavailableError):
    """Redis is there and refused this one command, so others may well succeed.

    `code` is the first word of Redis' reply (`WRONGTYPE`, `OOM`, `READONLY`), or `NOINDEX` for a search index that is
    not there. The reply itself is kept out: it can quote the command, and with it a prompt.
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class EntryCorruptError(CacheError):
    """Stored bytes are not an entry of a version this program reads."""


class EmbedderError(CacheError):
    """The embedder raised, was late, or gave a vector of wrong shape or value."""


class UnkeyableError(CacheError):
    """No key can stand for this request: it is forwarded as it came and never cached.

    `reason` is one word of a closed list (see where it is raised); it goes into the trail and a counter.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
