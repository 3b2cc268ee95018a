"""A request to Ollama, and what of its head may cross a proxy.

Refuses to judge it: whoever makes one says what it is.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from cacheproxy.errors import CallerError

VIA = "1.1 cacheproxy"
"""Our entry in `Via` (RFC 9110 section 7.6.3). Requests carry it with the instance's id as comment, see `loops`."""

_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "http2-settings", "host", "origin"}
)
# A client may not make the proxy drop these by naming them in Connection: the request Ollama acts on would no longer be
# the request whose credentials and framing were judged.
_NEVER_NAMED_AWAY = frozenset(
    {
        "authorization",
        "cache-control",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "via",
        "x-api-key",
    }
)
_SET_BY_US = frozenset({"accept-encoding", "content-length", "expect"})
FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
"""What no line of a head may hold."""

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """What to send. Texts hold bytes that are not UTF-8 as surrogate escapes and go out as the bytes they came as."""

    method: str
    target: str
    """Raw path and query, exactly as the client sent them."""
    headers: Headers
    """The client's; what must not travel further is taken out when sending."""
    body: bytes | AsyncIterator[bytes] | None = None
    content_length: int | None = None
    """Bytes in a streamed body; None: it goes out chunked. Ignored for `bytes`."""
    expect_continue: bool = False
    """Do not touch the body before upstream asked for it (`Expect: 100-continue`)."""


def decoded(raw: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Header lines in order and as they were spelt; bytes that are not UTF-8 as surrogate escapes."""
    return tuple(
        [(name.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")) for name, value in raw]
    )


def end_to_end(headers: Iterable[tuple[str, str]], *, without: AbstractSet[str] = frozenset()) -> Headers:
    """The headers that may cross a proxy, order and case kept.

    Left out: the hop-by-hop ones, those named in `Connection` (except credentials and framing), all `Proxy-*`, and
    `Host` and `Origin`, which the proxy answers for itself; and those in `without` (lower case).
    """
    by_name = [(name.lower(), name, value) for name, value in headers]
    dropped = _HOP_BY_HOP | without
    for lower, _, value in by_name:
        if lower == "connection":
            dropped |= {token.strip().lower() for token in value.split(",")} - _NEVER_NAMED_AWAY
    return tuple([(name, value) for lower, name, value in by_name if lower not in dropped and lower[:6] != "proxy-"])


def loops(headers: Iterable[tuple[str, str]], instance_id: str) -> bool:
    """True when this very proxy forwarded the request before, that is, its upstream leads back to itself.

    Another cacheproxy in the chain has another id and is no loop.
    """
    mark = f"cacheproxy ({instance_id})"
    return any(name.lower() == "via" and mark in value for name, value in headers)


def framing(request: UpstreamRequest) -> list[str]:
    """The lines of a request's head that say where its body ends."""
    expect = ["Expect: 100-continue"] if request.expect_continue else []
    if request.body is None:
        return ["Content-Length: 0"] if request.method in {"POST", "PUT", "PATCH"} else []
    if isinstance(request.body, bytes):
        return [f"Content-Length: {len(request.body)}", *expect]
    if request.content_length is not None:
        return [f"Content-Length: {request.content_length}", *expect]
    return ["Transfer-Encoding: chunked", *expect]


def written_head(request: UpstreamRequest, *, prefix: str, authority: str, instance_id: str) -> bytes:
    """Request line and headers: the client's end-to-end ones, and no others than `Host`, `Via` and framing.

    `prefix` goes before the target. Raises CallerError for a character that would make two lines of one.
    """
    lines = [f"{request.method} {prefix}{request.target} HTTP/1.1", f"Host: {authority}"]
    lines += [f"{name}: {value}" for name, value in end_to_end(request.headers, without=_SET_BY_US)]
    lines += ["Accept-Encoding: identity", f"Via: {VIA} ({instance_id})", *framing(request)]
    if " " in request.target or FORBIDDEN.search("".join(lines)):
        raise CallerError("the request's head holds a character that HTTP forbids there")
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")
