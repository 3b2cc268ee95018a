"""What the dialects of OpenAI's form share: requests read as their native twins, replies read into native chunks.

Ollama makes a native request of each `/v1` request (openai/openai.go). Where that is known to the last member, the ask
is keyed as this *twin*, and the two share an answer. Where it is not (a member Ollama ignores today, a name it looks
up in the history), the request is keyed as it stands, in a family of its own: it shares with its equals alone.

Refuses to keep a reply with parts that have no native form: it could only be bent into one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cacheproxy.errors import UnkeyableError
from cacheproxy.model import ALL_THERE, Answer, Ask, JSONObject, Part, Parts
from cacheproxy.wire import canonical
from cacheproxy.wire.jsontext import check_names, read_answer, write
from cacheproxy.wire.jsontext import read as read_json
from cacheproxy.wire.native import Fold, Shape
from cacheproxy.wire.request import Parsed

WHOLE_TYPE = "application/json"
STREAM_TYPE = "text/event-stream"
STREAM_HEADERS: tuple[tuple[str, str], ...] = ()
DONE = b"data: [DONE]\n\n"

_NOT_IN_KEY = frozenset({"model", "stream", "stream_options"})
"""They choose the model's name (its digest is keyed) and the form of the reply."""
_ABOUT_THE_CALL = frozenset(
    {"user", "metadata", "store", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "service_tier"}
)
"""Members of OpenAI's API that never shape the text, and that Ollama does not know."""
_ABSENT = {"n": 1, "tool_choice": "auto", "parallel_tool_calls": True, "logit_bias": {}}
"""Values that mean the same as no value, to OpenAI as to Ollama."""
COMMON_MEMBERS = (
    _NOT_IN_KEY
    | _ABOUT_THE_CALL
    | _ABSENT.keys()
    | {"temperature", "top_p", "max_tokens", "seed", "stop", "frequency_penalty", "presence_penalty"}
    | {"_debug_render_only", "cache"}
)
_NEEDS = frozenset({Part.COUNTS, Part.ENDING, Part.ENDING_OF_CALLS})
_COUNTS = {"prompt_tokens": "prompt_eval_count", "completion_tokens": "eval_count"}
_CACHED = "prompt_eval_cached_count"
"""Newer than most: told as `prompt_tokens_details.cached_tokens`."""

Members = dict[str, Any]


class NoTwinError(Exception):
    """It is not certain which native request Ollama makes of this one."""


# --- Requests ---


def read(body: bytes, *, known: frozenset[str]) -> Parsed:
    """Parse a body and take `cache` out of it, which is ours. Raises UnkeyableError."""
    raw = read_json(body)
    check_names(raw, known)
    if raw.get("_debug_render_only"):
        raise UnkeyableError("debug")
    members = {name: value for name, value in raw.items() if value is not None and name != "cache"}
    if "cache" not in raw:
        return Parsed(members, {}, None)
    controls = raw.pop("cache")
    return Parsed(members, controls if isinstance(controls, dict) else {"mode": controls}, write(raw))


def ask(
    parsed: Parsed, twin: Callable[[Members], Members], *, dialect: str, family: str, lacks: Parts, name_matters: bool
) -> Ask:
    """Put the parts together. `twin` makes canonical native members of these, or raises NoTwinError.

    Raises UnkeyableError where Ollama would refuse the request for a member that is not in the key.
    """
    given = parsed.members
    model, streamed = given.get("model"), given.get("stream", False)
    if not isinstance(model, str) or not model.strip():
        raise UnkeyableError("model")
    if not isinstance(streamed, bool):
        raise UnkeyableError("stream")
    with_usage = _wants_usage(given) and streamed
    members = {name: value for name, value in given.items() if name not in _NOT_IN_KEY | _ABOUT_THE_CALL}
    for name, absent in _ABSENT.items():
        if name in members and type(members[name]) is type(absent) and members[name] == absent:
            del members[name]
    logprobs = bool(members.get("logprobs"))
    translated = True
    try:
        members = twin(dict(members))
    except NoTwinError:
        family, translated = dialect, False
    plain = {name: value for name, value in members.items() if name not in ("logprobs", "top_logprobs")}
    without_counts = frozenset({Part.COUNTS}) if streamed and not with_usage else ALL_THERE
    return Ask(
        dialect=dialect,
        family=family,
        model=model,
        stream=streamed,
        canonical=canonical.canonical_bytes(members),
        body=members,
        temperature=_temperature(given),
        logprobs=logprobs,
        canonical_plain=canonical.canonical_bytes(plain) if logprobs else b"",
        translated=translated,
        name_matters=name_matters,
        controls=parsed.controls,
        needs=_NEEDS - without_counts,
        lacks=lacks | without_counts,
        with_usage=with_usage,
        forward=parsed.forward,
    )


def _wants_usage(given: JSONObject) -> bool:
    options = given.get("stream_options", {})
    if not isinstance(options, dict):
        raise UnkeyableError("stream")
    check_names(options, frozenset({"include_usage"}))
    usage = options.get("include_usage")
    if not isinstance(usage, bool | None):
        raise UnkeyableError("stream")
    return bool(usage)


def _temperature(given: JSONObject) -> float | None:
    value = canonical.options({"temperature": given.get("temperature", 1.0)})["temperature"]
    return value if isinstance(value, float) else None


def take_options(members: Members, defaults: JSONObject) -> Members:
    """Take the members that Ollama makes options of out of `members`; the canonical options. Raises NoTwinError."""
    options = dict(defaults)
    for name in ("temperature", "top_p", "frequency_penalty", "presence_penalty"):
        if name in members:
            options[name] = number(members.pop(name))
    for name, option in (("max_tokens", "num_predict"), ("seed", "seed")):
        if name in members:
            options[option] = whole_number(members.pop(name))
    if "stop" in members:
        stop = members.pop("stop")
        options["stop"] = [stop] if isinstance(stop, str) else stop
        if not stop or not isinstance(stop, str | list) or not all(isinstance(item, str) for item in stop):
            raise NoTwinError
    return canonical.options(options)


def number(value: object) -> float:
    """A number. Raises NoTwinError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise NoTwinError
    return value


def whole_number(value: object) -> int:
    """A whole number of 63 bits, written as one. Raises NoTwinError."""
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**63:
        raise NoTwinError
    return value


# --- Replies, written ---


def head(ask: Ask, now: float, *, prefix: str, kind: str) -> Members:
    """The first members of a reply, the same in all chunks of a stream. `now`: Unix time, s."""
    reply_id = f"{prefix}-{int(now * 1e6) % 999}"  # Ollama's own is a random number below 999
    return {"id": reply_id, "object": kind, "created": int(now), "model": ask.model, "system_fingerprint": "fp_ollama"}


def event(members: JSONObject) -> bytes:
    """One chunk of a stream."""
    return b"data: " + write(members) + b"\n\n"


def broken_off(head: JSONObject) -> bytes:
    """What Ollama sends in place of an error in the middle of a stream: a chunk of no model's; then nothing more."""
    choice = {"index": 0, "delta": {"content": ""}, "finish_reason": None}
    return event({**head, "model": "", "choices": [choice]})


def usage(counts: JSONObject) -> Members:
    """OpenAI's numbers of tokens, of Ollama's."""
    told = {name: counts.get(count, 0) for name, count in _COUNTS.items()}
    details = {"prompt_tokens_details": {"cached_tokens": counts[_CACHED]}} if _CACHED in counts else {}
    return told | {"total_tokens": sum(told.values())} | details


def ending(ask: Ask, head: JSONObject, finish: JSONObject, counts: JSONObject) -> bytes:
    """The last chunks of a stream, which leave together: how it finished, the usage if it was asked for, `[DONE]`."""
    told = event({**head, "choices": [], "usage": usage(counts)}) if ask.with_usage else b""
    return event(finish) + told + DONE


# --- Replies, read ---


class OpenAIFold(Fold, ABC):
    """Reads one reply, streamed or whole, as native chunks. `lacks`: what no reply of this dialect tells.

    `[DONE]` after a chunk that said how the answer finished is the only good end of a stream.
    """

    def __init__(self, shape: Shape, lacks: Parts) -> None:
        super().__init__(shape)
        self._lacks = lacks
        self._finish = ""
        self._counts: Members = {}
        self._counted = False

    @abstractmethod
    def parts(self, choice: JSONObject) -> Members:
        """The native chunk in a choice, with more to come. Raises ValueError for parts that have no native form."""

    @property
    def missing(self) -> Parts:
        """What the reply did not tell."""
        return self._lacks if self._counted else self._lacks | {Part.COUNTS}

    def read(self, line: bytes) -> Sequence[Mapping[str, Any]]:
        """The chunks that a line of the stream, or a whole reply, completes. Raises ValueError."""
        if not line.strip():
            return ()
        if self.done:
            raise ValueError("something after the end")
        if line == DONE.strip():
            if not self._finish:
                raise ValueError("an end without a finish")
            return (self.parts({}) | self._ending(),)
        if line.startswith(b"data: "):
            return self._event(read_answer(line.removeprefix(b"data: ")))
        return (self._whole(read_answer(line)),)

    def _event(self, chunk: JSONObject) -> Sequence[Mapping[str, Any]]:
        if "error" in chunk or not chunk.get("model"):
            return ({"error": "the model's answer broke off"},)
        choice = _choice(chunk)
        if choice is None:
            self._count(chunk)
            return ()
        if self._finish:
            raise ValueError("more after the finish")
        self._finished(choice)
        return (self.parts(choice),)

    def _whole(self, reply: JSONObject) -> Members:
        choice = _choice(reply)
        if choice is None:
            raise ValueError("no choice")
        self._count(reply)
        self._finished(choice)
        return self.parts(choice) | (self._ending() if self._finish else {})

    def _finished(self, choice: JSONObject) -> None:
        finish = choice.get("finish_reason") or ""
        if not isinstance(finish, str):
            raise ValueError("finish_reason is no text")
        self._finish = "stop" if finish == "tool_calls" else finish

    def _ending(self) -> Members:
        return {"done": True, "done_reason": self._finish, **self._counts}

    def _count(self, chunk: JSONObject) -> None:
        told = chunk.get("usage")
        if not isinstance(told, dict):
            return
        self._counted = True
        self._counts = {count: told[name] for name, count in _COUNTS.items() if told.get(name)}
        details = told.get("prompt_tokens_details")
        if isinstance(details, dict) and "cached_tokens" in details:
            self._counts[_CACHED] = details["cached_tokens"]
        if not all(type(count) is int for count in self._counts.values()):
            raise ValueError("usage is no number")


def _choice(chunk: JSONObject) -> JSONObject | None:
    """The one choice of a chunk; None if it has none. Raises ValueError for several, as Ollama never gives."""
    choices = chunk.get("choices")
    if not isinstance(choices, list) or len(choices) > 1 or not all(isinstance(choice, dict) for choice in choices):
        raise ValueError("not one choice")
    return choices[0] if choices else None


def finish_reason(answer_reason: str, *, called: bool) -> str | None:
    """OpenAI's word for how an answer ended."""
    if called and answer_reason == "stop":
        return "tool_calls"
    return answer_reason or None


def whole(head: JSONObject, choice: JSONObject, answer: Answer) -> bytes:
    """A reply that is not streamed."""
    return write({**head, "choices": [choice], "usage": usage(answer.final)}) + b"\n"
