"""Which path goes to which handler; all else passes through.

A page that may not call is refused first. Paths are compared as they were sent: one that only means the same after
decoding is Ollama's to judge, and passes through uncached.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from cacheproxy.edge.cached import Cached
from cacheproxy.edge.embed import Embed
from cacheproxy.edge.origin import Origins
from cacheproxy.edge.passthrough import Passthrough
from cacheproxy.edge.plain import error_reply
from cacheproxy.errors import CallerError
from cacheproxy.upstream.catalog import Catalog
from cacheproxy.upstream.request import VIA
from cacheproxy.wire.dialects import Dialect, EmbedDialect

AT_ONCE = frozenset({("DELETE", "/api/delete"), ("POST", "/api/copy")})
"""They change what a name stands for, and their reply is over with its head: no name has an identity meanwhile."""
AT_THE_END = frozenset({("POST", "/api/pull"), ("POST", "/api/create")})
"""They take up to hours and change the name in their last second: the list is read before a client can know of it."""


@dataclass(frozen=True, slots=True)
class Routes:
    """The proxy port's one handler."""

    dialects: Mapping[str, Dialect]
    cached: Cached
    embed_dialects: Mapping[str, EmbedDialect]
    embed: Embed
    passthrough: Passthrough
    models: Catalog
    origins: Origins

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer any request. Every reply has our `Via`, errors of our own too: it is how others know the proxy."""
        ruling = self.origins.judge(request)
        path = request.raw_path.split("?", 1)[0]
        try:
            reply = ruling.refusal or await self._dispatch(request, path)
        except CallerError as error:
            reply = error_reply(path, error.status, str(error))
        if not reply.prepared and VIA not in reply.headers.getall("Via", ()):
            reply.headers.add("Via", VIA)
        return reply

    async def _dispatch(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        call = (request.method, path)
        dialect = self.dialects.get(path) if request.method == "POST" else None
        if dialect is not None:
            return await self.cached.handle(request, dialect)
        embed_dialect = self.embed_dialects.get(path) if request.method == "POST" else None
        if embed_dialect is not None:
            return await self.embed.handle(request, embed_dialect)
        if call in AT_ONCE:
            async with self.models.changing():
                return await self.passthrough.handle(request)
        return await self.passthrough.handle(request, before_end=self._changed if call in AT_THE_END else None)

    async def _changed(self) -> None:
        async with self.models.changing():
            pass
