"""A forwarder made of aiohttp: `aiohttp.web.Application` and a `ClientSession`, with nothing between them.

python -m benchmarks.load.forward PORT ORIGIN_URL

What a miss costs where nothing is looked up, queued, kept or counted.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import uvloop
from aiohttp import ClientSession, TCPConnector, web


def application(origin: str) -> web.Application:
    """Passes `/api/chat` on to the origin, and its reply back as it comes."""
    session = web.AppKey("session", ClientSession)

    async def open_session(application: web.Application) -> AsyncIterator[None]:
        async with ClientSession(connector=TCPConnector(limit=0), auto_decompress=False) as opened:
            application[session] = opened
            yield

    async def forward(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {"Content-Type": request.headers["Content-Type"]}
        async with request.app[session].post(origin + request.path, data=body, headers=headers) as answer:
            reply = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.headers["Content-Type"]})
            reply.content_length = answer.content_length
            await reply.prepare(request)
            async for piece in answer.content.iter_any():
                await reply.write(piece)
            await reply.write_eof()
            return reply

    application = web.Application()
    application.cleanup_ctx.append(open_session)
    application.router.add_post("/api/chat", forward)
    return application


if __name__ == "__main__":
    web.run_app(
        application(sys.argv[2]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        access_log=None,
        print=None,
        loop=uvloop.new_event_loop(),
    )
