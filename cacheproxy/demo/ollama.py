"""A small simulated Ollama: the real one's bytes on the wire, without a model.

The tour, the tests' stand-in and the benchmarks run it. It follows Ollama 0.33's HTTP surface as a proxy meets it;
/v1/messages and /v1/responses read text and tools alone, audio and images are not there and answer 404. What it answers
is a function of the request (`expected_text`), so a reply that belongs to another request is seen at once.

    python -m cacheproxy.demo.ollama --port 11434 --tokens-per-second 50
"""

from __future__ import annotations

import argparse
import asyncio
import html
import posixpath
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from cacheproxy.demo import asks, compat, management, native, openai, origin, responses
from cacheproxy.demo.asks import Ask, RefusedError
from cacheproxy.demo.engine import Engine
from cacheproxy.demo.gohttp import Connection, Exchange, Request
from cacheproxy.demo.gojson import EmptyBodyError
from cacheproxy.demo.goscan import GoJsonError
from cacheproxy.demo.library import digest_of

Route = Callable[[Engine, Exchange], Awaitable[None]]

ROUTES: dict[str, dict[str, Route]] = {
    "/": {"GET": management.running, "HEAD": management.running},
    "/api/version": {"GET": management.version, "HEAD": management.version},
    "/api/status": {"GET": management.status},
    "/api/tags": {"GET": management.tags, "HEAD": management.tags},
    "/api/ps": {"GET": management.ps},
    "/api/show": {"POST": management.show},
    "/api/generate": {"POST": native.generate},
    "/api/chat": {"POST": native.chat},
    "/api/embed": {"POST": native.embed},
    "/api/embeddings": {"POST": native.embeddings},
    "/api/pull": {"POST": management.pull},
    "/api/push": {"POST": management.push},
    "/api/create": {"POST": management.create},
    "/api/copy": {"POST": management.copy},
    "/api/delete": {"DELETE": management.delete},
    "/api/me": {"POST": management.account},
    "/api/signout": {"POST": management.account},
    "/api/experimental/web_search": {"POST": management.web},
    "/api/experimental/web_fetch": {"POST": management.web},
    "/v1/chat/completions": {"POST": openai.chat_completions},
    "/v1/completions": {"POST": openai.completions},
    "/v1/embeddings": {"POST": openai.embeddings},
    "/v1/messages": {"POST": compat.messages},
    "/v1/responses": {"POST": responses.responses},
    "/v1/models": {"GET": openai.models},
}
"""Handlers by exact path and method."""

PREFIXES: dict[str, dict[str, Route]] = {
    "/api/blobs/": {"HEAD": management.blob_exists, "POST": management.blob_upload},
    "/api/user/keys/": {"DELETE": management.account},
    "/v1/models/": {"GET": openai.model_entry},
}
"""Handlers by the path in front of one last segment."""

GENERATING = frozenset(
    ["/api/generate", "/api/chat", "/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"]
)
EMBEDDING = frozenset(["/api/embed", "/api/embeddings", "/v1/embeddings"])
INFERENCE = GENERATING | EMBEDDING


_STEPS_TO_MAKE = 3
"""Steps of the event loop from accepting a connection to its being made: one just accepted is reset at the end too."""


def expected_text(
    path: str, body: bytes, *, digest: str = digest_of("llama3"), authorization: str = "", answer_tokens: int = 12
) -> str:
    """Return the text a SimulatedOllama answers to this request, thinking left out.

    `digest` is the manifest digest of the model at that moment; `answer_tokens` as given to the server. Holds for
    requests without `format`, tool calls and canned answers; raises what the server's reader raises for a bad body.
    """
    ask = read_ask(path, body)
    words = asks.answer_words(asks.fingerprint(ask, digest, authorization), answer_tokens)
    limit = int(asks.effective_options(ask.options).get("num_predict", -1))
    return "".join(words[:limit] if limit > 0 else words)


def read_ask(path: str, body: bytes) -> Ask:
    """Return what a body means to the generating route at `path`."""
    if path == "/api/chat":
        return asks.read_chat(body)
    if path == "/api/generate":
        return asks.read_generate(body)
    if path == "/v1/chat/completions":
        return openai.read_chat(body)[0]
    if path == "/v1/completions":
        return openai.read_completion(body)[0]
    if path == "/v1/messages":
        return compat.read_messages(body)
    if path == "/v1/responses":
        return responses.read_responses(body)
    raise ValueError(f"{path} generates no text")


@dataclass(frozen=True, slots=True)
class _Waiter:
    is_met: Callable[[], bool]
    done: asyncio.Future[None]


class SimulatedOllama(Engine):
    """The server. Takes the arguments of `Engine`, and where to listen.

    Port 0 lets the system choose; `url` tells after `open`. Counters are plain attributes: read them, or await
    `wait_until`.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        origins: tuple[str, ...] = (),
        requests_kept: int = 1000,
        **engine: Any,
    ) -> None:
        super().__init__(**engine)
        self.host = host
        self.port = port
        self.origins = origins
        self.calls: Counter[str] = Counter()
        """Requests by path."""
        self.requests: deque[Request] = deque(maxlen=requests_kept)
        """The last requests as they came, oldest first; bodies as far as a handler read them (blobs: none)."""
        self.concurrency = 0
        """Inference requests being answered now."""
        self.peak_concurrency = 0
        self.aborted = 0
        """Requests whose client left before the answer was complete."""
        self.connections_opened = 0
        self._live: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._waiters: list[_Waiter] = []

    # --- life ---

    async def open(self) -> None:
        """Bind and serve; returns when connections are accepted."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, self.host, self.port, backlog=4096)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening, reset open connections and wait for their handlers."""
        if self._server is not None:
            self._server.close()
            self._server = None
            for _ in range(_STEPS_TO_MAKE):
                await asyncio.sleep(0)
        tasks = [connection.task for connection in self._live if connection.task is not None]
        for connection in list(self._live):
            connection.transport.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        """The base URL, without a slash at the end."""
        return f"http://{self.host}:{self.port}"

    @property
    def connections(self) -> int:
        """TCP connections open now."""
        return len(self._live)

    async def wait_until(self, is_met: Callable[[], bool], timeout_s: float = 5.0) -> None:
        """Wait until `is_met` holds; it is asked again whenever a counter changes. Raises TimeoutError."""
        if is_met():
            return
        waiter = _Waiter(is_met, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            await asyncio.wait_for(waiter.done, timeout_s)
        finally:
            self._waiters.remove(waiter)

    def _changed(self) -> None:
        for waiter in self._waiters:
            if not waiter.done.done() and waiter.is_met():
                waiter.done.set_result(None)

    # --- one request ---

    def _connection(self) -> Connection:
        self.connections_opened += 1
        return Connection(self._handle, self._live, self._abandoned)

    def _abandoned(self, exchange: Exchange) -> None:
        self.aborted += 1
        if not exchange.started:
            native.refuse(exchange, 499, "request canceled")
        self._changed()

    async def _handle(self, exchange: Exchange) -> None:
        request = exchange.request
        self.calls[request.path] += 1
        self.requests.append(request)
        counted = request.path in INFERENCE and request.method == "POST"
        self.concurrency += counted
        self.peak_concurrency = max(self.peak_concurrency, self.concurrency)
        self._changed()
        try:
            await self.dispatch(exchange)
        finally:
            self.concurrency -= counted
            self._changed()

    async def dispatch(self, exchange: Exchange) -> None:
        """Answer one request; a subclass may misbehave here before the routes are asked."""
        request = exchange.request
        clean = _clean_path(request.path)
        if clean != request.path:
            _redirect(exchange, clean, 301)
        elif (methods := find_methods(request.path)) is not None and request.method in methods:
            if not origin.turned_away(exchange, self.origins):
                await self._call(methods[request.method], exchange)
        elif methods is None and request.method in (find_methods(unslashed := _unslashed(request.path)) or ()):
            _redirect(exchange, unslashed, 301 if request.method == "GET" else 307)
        elif not origin.turned_away(exchange, self.origins):
            if methods is None:
                exchange.answer(404, "text/plain", b"404 page not found")
            else:
                allow = [("Allow", ", ".join(methods))]
                exchange.answer(405, "text/plain", b"405 method not allowed", extra=allow)

    async def _call(self, route: Route, exchange: Exchange) -> None:
        path = exchange.request.path
        refuse, refuse_body = native.refuse, native.refuse
        if path == "/v1/messages":
            refuse, refuse_body = compat.refuse_messages, compat.refuse_messages
        elif path.startswith("/v1/"):
            refuse, refuse_body = openai.refuse, openai.refuse_request
        try:
            await route(self, exchange)
        except RefusedError as error:
            refuse(exchange, error.status, error.message)
        except openai.InvalidRequestError as error:
            refuse_body(exchange, 400, str(error))
        except EmptyBodyError as error:
            refuse_body(exchange, 400, str(error) if path.startswith("/v1/") else "missing request body")
        except GoJsonError as error:
            refuse_body(exchange, 400, str(error))


def find_methods(path: str) -> dict[str, Route] | None:
    """Return the handlers of a path by method, None for a path that is not routed."""
    if (methods := ROUTES.get(path)) is not None:
        return methods
    parent, slash, last = path.rpartition("/")
    return PREFIXES.get(parent + slash) if last else None


def _unslashed(path: str) -> str:
    return path[:-1] if path.endswith("/") and path != "/" else path


def _clean_path(path: str) -> str:
    """Return the path as Go's ServeMux cleans it: no doubled slashes, no dots; a slash at the end stays."""
    if "//" not in path and "/." not in path:
        return path
    clean = posixpath.normpath(path).replace("//", "/")
    return f"{clean}/" if path.endswith("/") and clean != "/" else clean


def _redirect(exchange: Exchange, path: str, status: int) -> None:
    location = f"{path}?{exchange.request.query}" if exchange.request.query else path
    text = {301: "Moved Permanently", 307: "Temporary Redirect"}[status]
    is_page = exchange.request.method in ("GET", "HEAD")
    body = f'<a href="{html.escape(location)}">{text}</a>.\n\n' if exchange.request.method == "GET" else ""
    kind = "text/html; charset=utf-8" if is_page else ""
    exchange.answer(status, kind, body.encode(), extra=[("Location", location)])


def main(arguments: list[str] | None = None) -> None:
    """Serve in the foreground until interrupted."""
    parser = argparse.ArgumentParser(description="A simulated Ollama: its HTTP surface without a model.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=11434, help="0 lets the system choose")
    parser.add_argument("--tokens-per-second", type=float, default=0.0, help="0: as fast as the machine can")
    parser.add_argument("--seconds-to-first-token", type=float, default=0.0)
    parser.add_argument("--answer-tokens", type=int, default=12)
    parser.add_argument("--parallel", type=int, default=1, help="slots a model")
    parser.add_argument("--load-s", type=float, default=0.0, help="seconds to load a model")
    given = vars(parser.parse_args(arguments))
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve_forever(SimulatedOllama(**given)))


async def _serve_forever(server: SimulatedOllama) -> None:
    await server.open()
    print(f"simulated Ollama on {server.url}", flush=True)  # noqa: T201  # a program of its own when run like this
    try:
        await asyncio.Event().wait()
    finally:
        await server.close()


if __name__ == "__main__":
    main()
