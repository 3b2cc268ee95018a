"""The part of the simulated Ollama that thinks: admits an ask, runs it on a model's slot, yields the answer in pieces.

Routes turn pieces into bytes. Speed is set in seconds and tokens; the text is `asks.answer_words` or a canned answer.
A subclass may override `run` to misbehave in the middle of an answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from cacheproxy.clock import Clock, SystemClock
from cacheproxy.demo import asks
from cacheproxy.demo.asks import Ask, EmbedAsk, RefusedError
from cacheproxy.demo.gohttp import Exchange
from cacheproxy.demo.gojson import Members
from cacheproxy.demo.library import (
    InvalidNameError,
    Library,
    Model,
    QueueFullError,
    Scheduler,
    default_models,
    parse_reference,
)

BUSY_MESSAGE = "server busy, please try again.  maximum pending requests exceeded"


@dataclass(frozen=True, slots=True)
class Piece:
    """One token's worth of an answer, or its end."""

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()
    logprobs: tuple[dict[str, Any], ...] = ()
    done: bool = False
    done_reason: str = ""
    context: tuple[int, ...] = ()
    metrics: tuple[tuple[str, int], ...] = ()
    """Of the last piece: names and values in Ollama's order, durations in ns, zeros left out."""


class Engine:
    """What is installed and loaded, how fast it answers, and what it says.

    `tokens_per_second` 0 means as fast as the machine can; `answers` turns a question into canned text, without it the
    text carries the fingerprint of the request. `calls_tools` answers requests that bring tools with a call of the
    first one, unless the last message is a tool's result.
    """

    def __init__(
        self,
        *,
        models: Iterable[Model] | None = None,
        clock: Clock | None = None,
        version: str = "0.33.0",
        seconds_to_first_token: float = 0.0,
        tokens_per_second: float = 0.0,
        answer_tokens: int = 12,
        answers: Callable[[str], str] | None = None,
        calls_tools: bool = False,
        parallel: int = 1,
        queue_max: int = 512,
        loaded_max: int = 3,
        load_s: float = 0.0,
        swap_s: float = 0.0,
    ) -> None:
        self.clock: Clock = clock or SystemClock()
        self.library = Library(default_models() if models is None else models)
        self.scheduler = Scheduler(
            self.clock, parallel=parallel, queue_max=queue_max, loaded_max=loaded_max, load_s=load_s, swap_s=swap_s
        )
        self.version = version
        self.seconds_to_first_token = seconds_to_first_token
        self.tokens_per_second = tokens_per_second
        self.answer_tokens = answer_tokens
        self.answers = answers
        self.calls_tools = calls_tools
        self.blobs: set[str] = set()

    def created_at(self) -> str:
        """The time as Go's RFC3339Nano: UTC, zeros at the end of the fraction cut."""
        return rfc3339_nano(self.clock.now())

    # --- admission ---

    def find(self, spelling: str) -> Model | None:
        """Return the installed model a request means; raises InvalidNameError."""
        return self.library.find(parse_reference(spelling))

    def admit(self, ask: Ask, *, relax_thinking: bool = False) -> Model:
        """Return the model that will answer; raises RefusedError as Ollama's handlers would."""
        if not ask.model and ask.family == "chat":
            raise RefusedError(400, "model is required")
        try:
            model = self.find(ask.model) if ask.model else None
        except InvalidNameError:
            raise RefusedError(400, "invalid model name") from None
        if model is None:
            raise RefusedError(404, f"model '{ask.model}' not found")
        return model if self._unloads(ask) else self._check_capabilities(ask, model, relax_thinking=relax_thinking)

    def _unloads(self, ask: Ask) -> bool:
        return ask.is_empty and ask.keep_alive_s == 0

    def _check_capabilities(self, ask: Ask, model: Model, *, relax_thinking: bool) -> Model:
        if ask.raw and (ask.template or ask.system or ask.context):
            raise RefusedError(400, "raw mode does not support template, system, or context")
        if ask.think and "thinking" not in model.capabilities and not relax_thinking:
            raise RefusedError(400, f'"{ask.model}" does not support thinking')
        if "completion" not in model.capabilities:
            raise RefusedError(400, f'"{ask.model}" does not support {ask.family}')
        needed = [name for name, is_needed in (("tools", ask.tools), ("insert", ask.suffix)) if is_needed]
        if missing := [name for name in needed if name not in model.capabilities]:
            raise RefusedError(400, f"{model.name} does not support {missing[0]}")
        asks.effective_options(ask.options)
        if not (ask.format in (None, "json") or isinstance(ask.format, Members)):
            raise RefusedError(500, f'invalid format: {ask.format!r}; expected "json" or a valid JSON Schema object')
        return model

    async def load(self, ask: Ask, model: Model) -> str:
        """Load or unload the model of an empty ask; returns the done_reason."""
        if self._unloads(ask):
            self.scheduler.unload(model)
            return "unload"
        try:
            async with self.scheduler.slot(model, ask.options, ask.keep_alive_s):
                return "load"
        except QueueFullError:
            raise RefusedError(503, BUSY_MESSAGE) from None

    # --- answering ---

    async def run(self, ask: Ask, model: Model, exchange: Exchange) -> AsyncGenerator[Piece, None]:
        """Yield the answer piece by piece at the set speed; the last piece is `done`.

        Raises RefusedError when the runner cannot answer.
        """
        began = self.clock.monotonic()
        try:
            async with self.scheduler.slot(model, ask.options, ask.keep_alive_s):
                loaded = self.clock.monotonic()
                pieces = self.script(ask, model, exchange.request.header("authorization"))
                await pause(self.seconds_to_first_token)
                first = self.clock.monotonic()
                for number, piece in enumerate(pieces):
                    if number and self.tokens_per_second:
                        await pause(1 / self.tokens_per_second)
                    yield piece
                yield self._last(ask, pieces, (began, loaded, first, self.clock.monotonic()))
        except QueueFullError:
            raise RefusedError(503, BUSY_MESSAGE) from None

    def script(self, ask: Ask, model: Model, authorization: str) -> list[Piece]:
        """Return the pieces of the answer, without the last one: a pure function of its arguments."""
        mark = asks.fingerprint(ask, model.digest, authorization)
        pieces = []
        if "thinking" in model.capabilities and ask.think is not False:
            pieces += [Piece(thinking=word) for word in asks.answer_words(mark, 4)]
        if self.calls_tools and ask.tools and ask.messages[-1]["role"] != "tool":
            return [*pieces, Piece(tool_calls=(_tool_call(ask.tools[0], mark),))]
        words = self._words(ask, mark)
        limit = int(asks.effective_options(ask.options).get("num_predict", -1))
        words = words[:limit] if limit > 0 else words
        return pieces + [Piece(text=word, logprobs=_logprobs(ask, word)) for word in words]

    def _words(self, ask: Ask, mark: str) -> list[str]:
        if self.answers is not None:
            words = split_words(self.answers(ask.question()))
        else:
            words = asks.answer_words(mark, self.answer_tokens)
        return words if ask.format is None else ['{"answer":"', *words, '"}']

    def _last(self, ask: Ask, pieces: list[Piece], times: tuple[float, float, float, float]) -> Piece:
        began, loaded, first, ended = (int(moment * 1e9) for moment in times)
        limit = int(asks.effective_options(ask.options).get("num_predict", -1))
        texts = sum(bool(piece.text) for piece in pieces)
        prompt_tokens = prompt_token_count(ask)
        metrics = (
            ("total_duration", ended - began),
            ("load_duration", loaded - began),
            ("prompt_eval_count", prompt_tokens),
            ("prompt_eval_duration", first - loaded),
            ("eval_count", len(pieces)),
            ("eval_duration", ended - first),
        )
        return Piece(
            done=True,
            done_reason="length" if 0 < limit <= texts else "stop",
            context=self._context(ask, pieces, prompt_tokens),
            metrics=tuple(metric for metric in metrics if metric[1]),
        )

    def _context(self, ask: Ask, pieces: list[Piece], prompt_tokens: int) -> tuple[int, ...]:
        if ask.family != "generate" or ask.raw:
            return ()
        said = tuple(sum(piece.text.encode()) % 32000 for piece in pieces)
        return (*(ask.context or ()), *range(128, 128 + prompt_tokens), *said)

    async def vectors(self, ask: EmbedAsk, model: Model, authorization: str) -> list[list[float]]:
        """Return one raw vector a text, each with a run of its own, after loading the model if need be."""
        try:
            async with self.scheduler.slot(model, ask.options, ask.keep_alive_s):
                await pause(self.seconds_to_first_token * len(ask.texts))
                length = model.embedding_length
                return [asks.text_vector(text, ask, model.digest, authorization, length) for text in ask.texts]
        except QueueFullError:
            raise RefusedError(503, BUSY_MESSAGE) from None


async def pause(seconds: float) -> None:
    """Sleep, or do not even yield if there is nothing to sleep."""
    if seconds > 0:
        await asyncio.sleep(seconds)


def split_words(text: str) -> list[str]:
    """Cut text into token-like pieces that join to the same text."""
    words = text.split(" ")
    return [words[0], *(f" {word}" for word in words[1:])] if text else []


def prompt_token_count(ask: Ask) -> int:
    """Return a plausible count of prompt tokens, at least 1."""
    texts = [ask.prompt, ask.system, ask.suffix, *(message["content"] for message in ask.messages)]
    return max(1, sum(map(len, texts)) // 4) + len(ask.context or ())


def _logprobs(ask: Ask, word: str) -> tuple[dict[str, Any], ...]:
    if not ask.logprobs:
        return ()
    token = {"token": word, "logprob": -0.25, "bytes": list(word.encode())}
    others = [{"token": f"{word}{rank}", "logprob": -1.5 - rank} for rank in range(1, ask.top_logprobs)]
    return ({**token, "top_logprobs": [token, *others]} if ask.top_logprobs else token,)


def _tool_call(tool: Any, mark: str) -> dict[str, Any]:
    function = dict(dict(tool).get("function") or ()) if isinstance(tool, Members) else {}
    properties = dict(dict(function.get("parameters") or ()).get("properties") or ())
    arguments = {name: f"{name} {mark}" for name in properties}
    name = function.get("name") or ""
    return {"id": f"call_{mark[:8]}", "function": {"index": 0, "name": name, "arguments": arguments}}


_second_cache = (-1, "")


def rfc3339_nano(moment: float) -> str:
    """Return Unix time as Go writes time.Time in UTC."""
    global _second_cache  # noqa: PLW0603  # gmtime once a second, not once a token
    second = int(moment)
    if _second_cache[0] != second:
        _second_cache = (second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)))
    fraction = f"{int((moment - second) * 1e9):09d}".rstrip("0")
    return f"{_second_cache[1]}.{fraction}Z" if fraction else f"{_second_cache[1]}Z"
