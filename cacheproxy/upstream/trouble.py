"""What goes wrong on a connection to Ollama, in our words.

Refuses to tell upstream's address, which the system's own words hold: a client may read these.
"""

from __future__ import annotations

import os
import re
import socket
import ssl

from aiohttp import ClientError, ClientPayloadError, EofStream, SocketTimeoutError
from aiohttp.http import HttpProcessingError

from cacheproxy.errors import UpstreamBrokenError, UpstreamDroppedError, UpstreamError, UpstreamUnreachableError


def translated(error: BaseException, *, answered: bool) -> BaseException:
    """The error of ours that stands for `error`; cancellation and the caller's own errors stay what they are."""
    if isinstance(error, UpstreamError):
        return error
    if isinstance(error, HttpProcessingError):
        return UpstreamBrokenError("Ollama's reply is not HTTP")
    if not isinstance(error, (ClientError, EofStream, OSError)):
        return error
    if answered:
        return UpstreamBrokenError(f"Ollama's reply broke off in its head ({told(error)})")
    if isinstance(error, SocketTimeoutError):
        return UpstreamUnreachableError("Ollama gave no answer within upstream.read_timeout")
    return UpstreamDroppedError(f"Ollama closed the connection without an answer ({told(error)}); its log may say why")


def unreachable(reason: str) -> str:
    """Why nothing can be sent, and what to do about it."""
    return f"cannot reach Ollama ({reason}); check that it runs and that upstream.url is its address"


def told(error: BaseException) -> str:
    """A reason that may be shown to a client: an OSError's kind in words, since its text holds upstream's address."""
    if isinstance(error, socket.gaierror):
        return "host name not found"
    if isinstance(error, ssl.SSLCertVerificationError):
        return "its certificate is not trusted"
    if isinstance(error, ssl.SSLError):
        return "TLS failed"
    if isinstance(error, ClientPayloadError):
        return "it ended before its end"
    if isinstance(error, OSError):
        # asyncio joins the failures of several addresses in one text, without a number of its own.
        numbered = re.search(r"\[Errno (\d+)\]", str(error))
        number = error.errno or (int(numbered[1]) if numbered else 0)
        if number > 0:
            return os.strerror(number).lower()
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__.removesuffix("Error")).lower()
