"""`/v1/completions`: bytes to `Ask`, `Answer` to bytes.

The native twin is a request to `/api/generate`, whose answers serve here. The reverse never: a reply of this form tells
nothing of thinking, logprobs and context.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from cacheproxy.errors import UnkeyableError
from cacheproxy.model import Answer, Ask, JSONObject, Part
from cacheproxy.wire import native, openai
from cacheproxy.wire.openai import Members, NoTwinError, OpenAIFold

NAME = "openai_completions"
PATH = "/v1/completions"
FAMILY = "generate"
WHOLE_TYPE = openai.WHOLE_TYPE
STREAM_TYPE = openai.STREAM_TYPE
STREAM_HEADERS = openai.STREAM_HEADERS

_MEMBERS = openai.COMMON_MEMBERS | {"prompt", "suffix", "echo", "best_of"}
_LACKS = frozenset({Part.DURATIONS, Part.THINKING, Part.LOGPROBS, Part.CONTEXT})
_DEFAULTS = {"temperature": 1.0, "top_p": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0}
"""Unlike the native routes, this one does not leave them to the model."""


def parse(body: bytes) -> Ask:
    """The ask in a request body. Raises UnkeyableError with the reason why it has no key."""
    parsed = openai.read(body, known=_MEMBERS)
    prompt = parsed.members.get("prompt", "")
    if not isinstance(prompt, str):
        raise UnkeyableError("not-text")
    if not prompt:
        raise UnkeyableError("load")
    return openai.ask(parsed, _twin, dialect=NAME, family=FAMILY, lacks=_LACKS, name_matters=False)


def _twin(given: Members) -> Members:
    """The members of the native request. Raises NoTwinError."""
    options = openai.take_options(given, _DEFAULTS)
    options["top_p"] = options["top_p"] or 1.0
    members: Members = {"options": options, "prompt": given.pop("prompt")}
    suffix, logprobs = given.pop("suffix", ""), openai.whole_number(given.pop("logprobs", 0))
    if given or not isinstance(suffix, str):
        raise NoTwinError
    if suffix:
        members["suffix"] = suffix
    if logprobs > 0:
        members |= {"logprobs": True, "top_logprobs": logprobs}
    return members


class _Fold(OpenAIFold):
    def parts(self, choice: JSONObject) -> Members:
        """`text`, as a native chunk."""
        if not choice.keys() <= {"text", "index", "finish_reason", "logprobs"} or choice.get("logprobs") is not None:
            raise ValueError("a choice with unknown parts")
        return native.GENERATE.chunk(choice.get("text", ""), "", ())


def fold() -> _Fold:
    """An empty fold for the chunks of one reply."""
    return _Fold(native.GENERATE, _LACKS)


def whole(ask: Ask, answer: Answer, now: float) -> bytes:
    """The reply without `stream`: one object and a line end. `now`: Unix time, s."""
    choice = {"text": answer.text, "index": 0, "finish_reason": answer.done_reason or None}
    return openai.whole(openai.head(ask, now, prefix="cmpl", kind="text_completion"), choice, answer)


def stream(ask: Ask, answer: Answer, now: float) -> Iterator[bytes]:
    """The reply to `stream: true`, event by event; the last ones leave together, as from Ollama."""
    told = replace(answer, thinking="", tool_calls=(), logprobs=())
    return map(relay(ask, now), native.chunks(native.GENERATE, told))


def relay(ask: Ask, now: float) -> Callable[[Mapping[str, Any]], bytes]:
    """Writer of this caller's events from the chunks of an equal ask, in order. `now`: Unix time, s."""
    head = openai.head(ask, now, prefix="cmpl", kind="text_completion")
    not_yet = {"usage": openai.usage({})} if ask.with_usage else {}

    def event(chunk: Mapping[str, Any]) -> bytes:
        if "error" in chunk:
            return openai.broken_off(head)
        text, _thinking, _calls = native.GENERATE.parts(chunk)
        choice = {"text": text, "index": 0, "finish_reason": chunk.get("done_reason") or None}
        members = {**head, "choices": [choice], **not_yet}
        return openai.ending(ask, head, members, chunk) if chunk.get("done") is True else openai.event(members)

    return event
