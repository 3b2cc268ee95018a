"""What handlers may know of a request besides what aiohttp tells: its headers as sent, and the connection it came on.

Refuses to read the body.
"""

from __future__ import annotations

from aiohttp import web
from aiohttp.http import HttpVersion11

from cacheproxy.edge.arrival import Arrival
from cacheproxy.edge.connection import KnownConnection
from cacheproxy.flow.found import Looked
from cacheproxy.upstream.request import decoded

Headers = tuple[tuple[str, str], ...]


def header_pairs(request: web.BaseRequest) -> Headers:
    """The request's headers in order and in the client's spelling; bytes that are not UTF-8 as surrogate escapes."""
    return decoded(request.raw_headers)


def expects_continue(request: web.BaseRequest) -> bool:
    """True when the client waits for `100 Continue` before it sends the body."""
    return request.version >= HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue"


def is_leaving(request: web.BaseRequest) -> bool:
    """True while the server drains: the connection ends with the reply to this request, which must say so."""
    connection = request.protocol
    return isinstance(connection, KnownConnection) and connection.leaving


def is_plain(request: web.BaseRequest) -> bool:
    """Whether its caller speaks HTTP/1.1 and the connection goes on after the reply."""
    return request.version == HttpVersion11 and request.keep_alive and not is_leaving(request)


def arrival(request: web.BaseRequest) -> Arrival | None:
    """The request as it came, if it may be repeated."""
    connection = request.protocol
    arrived = connection.received if isinstance(connection, KnownConnection) else None
    return arrived if arrived is not None and arrived.payload is request.content else None


def looked_up(request: web.BaseRequest) -> Looked | None:
    """What was looked up for the request before it had a handler. Ask at once: it is not kept once more bytes come."""
    arrived = arrival(request)
    return None if arrived is None else arrived.looked
