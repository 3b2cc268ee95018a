"""The framework's own cost: `aiohttp.web.Application` with one route whose handler looks at nothing and answers alike.

python -m benchmarks.load.constant PORT BODY_BYTES
"""

from __future__ import annotations

import sys

import uvloop
from aiohttp import web


def application(body: bytes) -> web.Application:
    """The least that `web.Application` can be asked to do."""

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    application = web.Application()
    application.router.add_post("/api/chat", answer)
    return application


if __name__ == "__main__":
    web.run_app(
        application(b"x" * int(sys.argv[2])),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        access_log=None,
        print=None,
        loop=uvloop.new_event_loop(),
    )
