"""Replies that carry the headers they were given and no others, and errors in the words of Ollama's APIs.

aiohttp's own replies name their software and invent a content type; a proxy must not. Refuses to know how a reply came
about.
"""

from __future__ import annotations

import json
from secrets import token_hex
from typing import Any

from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import HttpVersion11

from cacheproxy.edge.request import Headers, is_leaving, is_plain
from cacheproxy.trail import Trail

REPLY_HEADERS: web.RequestKey[Headers] = web.RequestKey("REPLY_HEADERS", tuple)
"""Headers that every `Plain` reply to a request carries, whoever makes it; set on the request."""
ASK_TRAIL: web.RequestKey[Trail] = web.RequestKey("ASK_TRAIL", Trail)
"""Of the ask that a request is: told when the first byte of the reply's body goes out; set on the request."""

_OVERLOADED = 503
_APPENDED = frozenset({"vary", "via"})


def note_first_byte(request: web.BaseRequest) -> None:
    """The body of the reply begins now, if there is still a caller."""
    trail, transport = request.get(ASK_TRAIL), request.transport
    if trail is not None and transport is not None and not transport.is_closing():
        trail.first_byte()


class PlainStream(web.StreamResponse):
    """A streamed reply with the headers it was given, `Date` and framing; no `Server`, no invented `Content-Type`."""

    _begun = False
    """Something of the body was written."""

    def add_headers(self, headers: Headers) -> None:
        """Put `headers` on the reply, in place of those it has of the same name (`Vary` and `Via` gather)."""
        own = self.headers
        for name, _ in headers:
            if name in own and name.lower() not in _APPENDED:
                del own[name]
        for name, value in headers:
            own.add(name, value)

    async def begin(self, request: web.BaseRequest, *, with_first: bool) -> None:
        """Send the head; `with_first`: in one packet with the first piece of the body, which must be at hand."""
        self._send_headers_immediately = not with_first
        await self.prepare(request)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Hand a piece of the body to the connection; waits while the caller takes it too slowly."""
        if not self._begun and data and self._req is not None:
            self._begun = True
            note_first_byte(self._req)
        await super().write(data)

    async def _prepare_headers(self) -> None:
        request = self._req
        if request is not None:
            self.add_headers(request.get(REPLY_HEADERS, ()))
            if self._streams_on(request):
                return
            unframed = request.version < HttpVersion11 and self.content_length is None
            if is_leaving(request) or unframed:
                self.force_close()
        given = {name.lower() for name in self.headers}
        await super()._prepare_headers()
        for name in {"content-type", "server"} - given:
            self.headers.popall(name, None)

    def _streams_on(self, request: web.BaseRequest) -> bool:
        """Frame the common reply, whose caller takes chunks and stays, as aiohttp would in more steps; else False."""
        own, writer = self.headers, self._payload_writer
        special = self._keep_alive is not None or self._must_be_empty_body or self._chunked or self._compression
        if writer is None or special or "Content-Length" in own or not is_plain(request):
            return False
        self._keep_alive = True
        writer.enable_chunking()
        own["Transfer-Encoding"] = "chunked"
        if "Date" not in own:
            own["Date"] = rfc822_formatted_time()
        return True


class Plain(PlainStream, web.Response):
    """A whole reply with the headers it was given, `Date` and `Content-Length`; no `Server`."""


def error_reply(path: str, status: int, message: str) -> Plain:
    """An error in the shape that clients of `path` know: Ollama's, OpenAI's below `/v1/`, Anthropic's for messages."""
    content_type, end = "application/json", "\n"
    body: dict[str, Any]
    if path.startswith("/v1/messages"):
        kind = "overloaded_error" if status == _OVERLOADED else _v1_error_type(status)
        body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": f"req_{token_hex(12)}"}
    elif path.startswith("/v1/"):
        body = {"error": {"message": message, "type": _v1_error_type(status), "param": None, "code": None}}
    else:
        body = {"error": message}
        content_type, end = "application/json; charset=utf-8", ""
    text = json.dumps(body, separators=(",", ":")) + end
    return Plain(status=status, body=text.encode(), headers={"Content-Type": content_type})


def _v1_error_type(status: int) -> str:
    if status == 404:
        return "not_found_error"
    return "invalid_request_error" if status < 500 else "api_error"
