"""The /api routes that run a model: generate, chat, embed, embeddings, in the bytes of Ollama's server/routes.go."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from cacheproxy.demo import asks, gojson
from cacheproxy.demo.asks import Ask, EmbedAsk, RefusedError
from cacheproxy.demo.engine import Engine, Piece
from cacheproxy.demo.gohttp import Exchange
from cacheproxy.demo.goscan import go_quoted
from cacheproxy.demo.library import InvalidNameError, Model, parse_reference

JSON_TYPE = "application/json; charset=utf-8"
STREAM_TYPE = "application/x-ndjson"
BARE_JSON_TYPE = "application/json"


def refuse(exchange: Exchange, status: int, message: str) -> None:
    """Answer with Ollama's native error body."""
    exchange.answer(status, JSON_TYPE, gojson.write({"error": message}))


async def chat(engine: Engine, exchange: Exchange) -> None:
    """POST /api/chat."""
    await _generation(engine, exchange, asks.read_chat(await exchange.body()))


async def generate(engine: Engine, exchange: Exchange) -> None:
    """POST /api/generate."""
    await _generation(engine, exchange, asks.read_generate(await exchange.body()))


async def _generation(engine: Engine, exchange: Exchange, ask: Ask) -> None:
    model = engine.admit(ask)
    render = renderer(ask)
    if ask.is_empty:
        reason = await engine.load(ask, model)
        body = render(Piece(done=True, done_reason=reason), engine.created_at())
        exchange.answer(200, JSON_TYPE, gojson.write(body))
    elif ask.debug_render_only:
        body = render(Piece(), engine.created_at())
        debug = {"_debug_info": {"rendered_template": ask.question()}}
        exchange.answer(200, JSON_TYPE, gojson.write({**body, **debug}))
    elif ask.stream:
        await _stream(engine, exchange, engine.run(ask, model, exchange), render)
    else:
        last = await fold(engine.run(ask, model, exchange), keep_tools=bool(ask.tools))
        exchange.answer(200, JSON_TYPE, gojson.write(render(last, engine.created_at())))


Render = Callable[[Piece, str], dict[str, Any]]


async def _stream(engine: Engine, exchange: Exchange, pieces: AsyncGenerator[Piece, None], render: Render) -> None:
    """Send each piece as one line in one HTTP chunk; an error in front of all else becomes the status."""
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                if not exchange.started:
                    exchange.begin(200, STREAM_TYPE)
                exchange.chunk(gojson.write(render(piece, engine.created_at())) + b"\n")
                await exchange.drain()
    except RefusedError as error:
        if exchange.started:
            exchange.chunk(gojson.write({"error": error.message}) + b"\n")
        else:
            exchange.begin(error.status, BARE_JSON_TYPE)
            exchange.chunk(gojson.write({"error": error.message}))
    if not exchange.started:
        exchange.begin(200, STREAM_TYPE)
    exchange.end()


async def fold(pieces: AsyncGenerator[Piece, None], *, keep_tools: bool) -> Piece:
    """Return all pieces as one, as the server folds them for `stream: false`."""
    text: list[str] = []
    thinking: list[str] = []
    calls: list[dict[str, Any]] = []
    logprobs: list[dict[str, Any]] = []
    last = Piece()
    async with aclosing(pieces):
        async for piece in pieces:
            last = piece
            text.append(piece.text)
            thinking.append(piece.thinking)
            logprobs += piece.logprobs
            calls += piece.tool_calls if keep_tools else ()
    return Piece(
        text="".join(text),
        thinking="".join(thinking),
        tool_calls=tuple(calls) or last.tool_calls,
        logprobs=tuple(logprobs),
        done=last.done,
        done_reason=last.done_reason,
        context=last.context,
        metrics=last.metrics,
    )


def renderer(ask: Ask) -> Render:
    """Return the function that shapes a piece as the ask's own route does."""
    render = _chat_body if ask.family == "chat" else _generate_body

    def shaped(piece: Piece, created_at: str) -> dict[str, Any]:
        return {"model": ask.model, "created_at": created_at, **render(piece)}

    return shaped


def _present(**members: Any) -> dict[str, Any]:
    """Go's omitempty."""
    return {name: value for name, value in members.items() if value}


def _chat_body(piece: Piece) -> dict[str, Any]:
    extras = _present(thinking=piece.thinking, tool_calls=piece.tool_calls)
    return {
        "message": {"role": "assistant", "content": piece.text, **extras},
        "done": piece.done,
        **_present(done_reason=piece.done_reason, logprobs=piece.logprobs),
        **dict(piece.metrics),
    }


def _generate_body(piece: Piece) -> dict[str, Any]:
    return {
        "response": piece.text,
        **_present(thinking=piece.thinking),
        "done": piece.done,
        **_present(done_reason=piece.done_reason, context=piece.context),
        **dict(piece.metrics),
        **_present(tool_calls=piece.tool_calls, logprobs=piece.logprobs),
    }


def embedding_model(engine: Engine, spelling: str, *, exact_case: bool, when_empty: tuple[int, str]) -> Model:
    """Return the model to embed with; raises RefusedError."""
    if not spelling:
        raise RefusedError(*when_empty)
    try:
        model = engine.library.find(parse_reference(spelling), exact_case=exact_case)
    except InvalidNameError:
        raise RefusedError(400, "invalid model name") from None
    if model is None:
        raise RefusedError(404, f"model {go_quoted(spelling)} not found, try pulling it first")
    return model


async def unit_vectors(engine: Engine, exchange: Exchange, ask: EmbedAsk) -> list[list[float]]:
    """Return what /api/embed would list for `ask`: unit vectors; raises RefusedError."""
    model = embedding_model(engine, ask.model, exact_case=False, when_empty=(404, "model '' not found"))
    asks.effective_options(ask.options)
    if not ask.truncate and any(len(text) // 4 > model.context_length for text in ask.texts):
        raise RefusedError(400, "the input length exceeds the context length")
    vectors = await engine.vectors(ask, model, exchange.request.header("authorization"))
    return [asks.unit_vector(vector, ask.dimensions) for vector in vectors]


async def embed(engine: Engine, exchange: Exchange) -> None:
    """POST /api/embed."""
    began = engine.clock.monotonic()
    ask = asks.read_embed(await exchange.body())
    vectors = await unit_vectors(engine, exchange, ask)
    rows = (",".join(map(gojson.float32_text, vector)) for vector in vectors)
    body = b'{"model":%b,"embeddings":[%b]' % (
        gojson.write(ask.model),
        ",".join(f"[{row}]" for row in rows).encode(),
    )
    if ask.texts:
        duration_ns = max(1, int((engine.clock.monotonic() - began) * 1e9))
        tokens = embed_token_count(ask)
        body += b',"total_duration":%d,"load_duration":1,"prompt_eval_count":%d' % (duration_ns, tokens)
    exchange.answer(200, JSON_TYPE, body + b"}")


def embed_token_count(ask: EmbedAsk) -> int:
    """Return the sum over all texts: Ollama tells no more."""
    return sum(len(text) // 4 + 1 for text in ask.texts)


async def embeddings(engine: Engine, exchange: Exchange) -> None:
    """POST /api/embeddings: the raw vector; names are matched with their case."""
    ask = asks.read_embeddings(await exchange.body())
    model = embedding_model(engine, ask.model, exact_case=True, when_empty=(400, "model is required"))
    asks.effective_options(ask.options)
    vectors = await engine.vectors(ask, model, exchange.request.header("authorization"))
    row = ",".join(map(gojson.float64_text, vectors[0])) if vectors else ""
    exchange.answer(200, JSON_TYPE, f'{{"embedding":[{row}]}}'.encode())
