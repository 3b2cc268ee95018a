"""`/v1/responses`, written: an `Answer`, or the chunks of one under way, to bytes.

A reply tells the request's own parameters again, as Go writes them: whole in the order of Ollama's struct, in events in
alphabetical order. Called through `wire/responses.py`, the dialect. Refuses to know how a request is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cacheproxy.model import Answer, Ask, JSONObject
from cacheproxy.wire import events, native
from cacheproxy.wire.jsontext import Number, write, write_go
from cacheproxy.wire.openai import Members

TOOL_MEMBERS = ("type", "name", "description", "strict", "parameters")
"""What a tool may hold, and what is told of it, in this order."""


def whole(ask: Ask, answer: Answer, now: float) -> bytes:
    """The reply without `stream`: one object and a line end. `now`: Unix time, s."""
    reply_id, item_id = _ids(now)
    output: list[Members] = []
    if answer.thinking:
        output.append(_reasoning(f"rs_{reply_id}", answer.thinking))
    if answer.tool_calls:  # Ollama drops the text beside them
        for index, call in enumerate(answer.tool_calls):
            output.append(_call(call, f"fc_{reply_id}_{index}"))
    else:
        output.append(_message_item(item_id, answer.text))
    usage = _usage(answer.final)
    members = _response(ask, reply_id, now, status="completed", output=output, usage=usage)
    return write(members | {"completed_at": int(now)}) + b"\n"


def stream(ask: Ask, answer: Answer, now: float) -> Iterator[bytes]:
    """The reply to `stream: true`; the last events leave together."""
    return filter(None, map(relay(ask, now), native.chunks(native.CHAT, answer)))


def relay(ask: Ask, now: float) -> Callable[[Mapping[str, Any]], bytes]:
    """Writer of this caller's events from the chunks of an equal ask, in order. `now`: Unix time, s."""
    return _Events(ask, now)


class _Events:
    """Events of one stream. Ollama makes them of Go's maps, so their members come in alphabetical order."""

    def __init__(self, ask: Ask, now: float) -> None:
        self._ask = ask
        self._now = now
        self._reply_id, self._item_id = _ids(now)
        self._reasoning_id = f"rs_{self._reply_id.removeprefix('resp_')}"
        self._number = 0
        self._index = 0
        self._thinking: list[str] = []
        self._thought = False
        self._text: list[str] = []
        self._calls: list[Members] = []

    def __call__(self, chunk: Mapping[str, Any]) -> bytes:
        """The events of one native chunk. None for an error: Ollama's own stream just stops there."""
        if "error" in chunk:
            return b""
        text, thinking, calls = native.CHAT.parts(chunk)
        told = b"" if self._number else self._start()
        if thinking:
            told += self._think(thinking)
        if calls:
            told += self._call(calls)
        elif text and not self._calls:
            told += self._say(text)
        return told + (self._end(chunk) if chunk.get("done") is True else b"")

    def _event(self, kind: str, **members: Any) -> bytes:
        numbered = members | {"sequence_number": self._number, "type": f"response.{kind}"}
        self._number += 1
        return events.event(f"response.{kind}", dict(sorted(numbered.items())))

    def _response(self, status: str, output: list[Members] | None, usage: Members | None) -> Members:
        members = _response(self._ask, self._reply_id, self._now, status=status, output=output, usage=usage)
        return _sorted_response(members)

    def _start(self) -> bytes:
        begun = self._response("in_progress", [], None)
        return self._event("created", response=begun) + self._event("in_progress", response=begun)

    def _think(self, thinking: str) -> bytes:
        place = {"item_id": self._reasoning_id, "output_index": self._index, "summary_index": 0}
        begun = b""
        if not self._thinking:
            item = {"id": self._reasoning_id, "summary": [], "type": "reasoning"}
            begun = self._event("output_item.added", output_index=self._index, item=item)
        self._thinking.append(thinking)
        return begun + self._event("reasoning_summary_text.delta", **place, delta=thinking)

    def _end_thinking(self) -> bytes:
        if not self._thinking or self._thought:
            return b""
        self._thought = True
        place = {"item_id": self._reasoning_id, "output_index": self._index, "summary_index": 0}
        told = self._event("reasoning_summary_text.done", **place, text="".join(self._thinking))
        told += self._event("output_item.done", output_index=self._index, item=self._reasoning_item())
        self._index += 1
        return told

    def _call(self, calls: Sequence[JSONObject]) -> bytes:
        told = self._end_thinking()
        for offset, call in enumerate(calls):
            item_id, index = f"fc_{self._reply_id.removeprefix('resp_')}_{len(self._calls)}", self._index + offset
            item = dict(sorted(_call(call, item_id).items()))
            self._calls.append(item)
            begun = item | {"arguments": "", "status": "in_progress"}
            place = {"item_id": item_id, "output_index": index}
            told += self._event("output_item.added", output_index=index, item=begun)
            told += self._event("function_call_arguments.delta", **place, delta=item["arguments"])
            told += self._event("function_call_arguments.done", **place, arguments=item["arguments"])
            told += self._event("output_item.done", output_index=index, item=item)
        return told

    def _say(self, text: str) -> bytes:
        told = self._end_thinking()
        place = {"item_id": self._item_id, "output_index": self._index, "content_index": 0}
        if not self._text:
            item = {"content": [], "id": self._item_id, "role": "assistant", "status": "in_progress", "type": "message"}
            told += self._event("output_item.added", output_index=self._index, item=item)
            told += self._event("content_part.added", **place, part=_sorted_part(""))
        self._text.append(text)
        return told + self._event("output_text.delta", **place, delta=text, logprobs=[])

    def _end(self, chunk: Mapping[str, Any]) -> bytes:
        told = self._end_thinking()
        if self._text and not self._calls:
            text = "".join(self._text)
            place = {"item_id": self._item_id, "output_index": self._index, "content_index": 0}
            told += self._event("output_text.done", **place, text=text, logprobs=[])
            told += self._event("content_part.done", **place, part=_sorted_part(text))
            told += self._event("output_item.done", output_index=self._index, item=self._message_item())
        response = self._response("completed", self._output() or None, _sorted(_usage(chunk)))
        return told + self._event("completed", response=response | {"completed_at": int(self._now)})

    def _output(self) -> list[Members]:
        thought = [self._reasoning_item()] if self._thinking else []
        if self._calls:
            return thought + self._calls
        return thought + ([self._message_item()] if self._text else [])

    def _reasoning_item(self) -> Members:
        item: Members = _sorted(_reasoning(self._reasoning_id, "".join(self._thinking)))
        return item

    def _message_item(self) -> Members:
        item: Members = _sorted(_message_item(self._item_id, "".join(self._text)))
        return item


def _ids(now: float) -> tuple[str, str]:
    """Ids of the reply and of its message; Ollama's own are random numbers of this size."""
    digits = int(now * 1e6) % 999_999
    return f"resp_{digits}", f"msg_{digits}"


def _reasoning(item_id: str, thinking: str) -> Members:
    summary = [{"type": "summary_text", "text": thinking}]
    return {"id": item_id, "type": "reasoning", "summary": summary, "encrypted_content": thinking}


def _call(call: JSONObject, item_id: str) -> Members:
    return {
        "id": item_id,
        "type": "function_call",
        "status": "completed",
        "call_id": call.get("id", ""),
        "name": (call.get("function") or {}).get("name", ""),
        "arguments": write_go(events.arguments(call)).decode(),
    }


def _message_item(item_id: str, text: str) -> Members:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"id": item_id, "type": "message", "status": "completed", "role": "assistant", "content": [part]}


def _sorted_part(text: str) -> Members:
    return {"annotations": [], "logprobs": [], "text": text, "type": "output_text"}


def _usage(counts: JSONObject) -> Members:
    told = events.usage(counts)
    details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    return {**told, "total_tokens": sum(told.values()), **details}


def _response(
    ask: Ask, reply_id: str, now: float, *, status: str, output: list[Members] | None, usage: Members | None
) -> Members:
    """The reply in Ollama's order, which tells the request's own parameters again."""
    echo = ask.echo
    return {
        "id": reply_id,
        "object": "response",
        "created_at": int(now),
        "completed_at": None,
        "status": status,
        "incomplete_details": None,
        "model": ask.model,
        "previous_response_id": None,
        "instructions": echo.get("instructions") or None,
        "output": output,
        "error": None,
        "tools": [_told_tool(tool) for tool in echo.get("tools", ())],
        "tool_choice": "auto",
        "truncation": echo.get("truncation", "disabled"),
        "parallel_tool_calls": True,
        "text": {"format": _told_format(echo.get("text", {}).get("format") or {})},
        "top_p": _go_number(echo.get("top_p", 1)),
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "top_logprobs": 0,
        "temperature": _go_number(echo.get("temperature", 1)),
        "reasoning": _told_reasoning(echo.get("reasoning", {})),
        "usage": usage,
        "max_output_tokens": echo.get("max_output_tokens"),
        "max_tool_calls": None,
        "store": False,
        "background": echo.get("background", False),
        "service_tier": "default",
        "metadata": {},
        "safety_identifier": None,
        "prompt_cache_key": None,
    }


def _sorted_response(members: Members) -> Members:
    """The same in alphabetical order; a schema in `text` keeps its own, and `reasoning` has all its members."""
    if reasoning := members["reasoning"]:
        members["reasoning"] = {name: reasoning.get(name) for name in ("effort", "summary")}
    members["tools"] = _sorted(members["tools"])
    members["text"] = {"format": dict(sorted(members["text"]["format"].items()))}
    return dict(sorted(members.items()))


def _told_tool(tool: JSONObject) -> Members:
    return {name: _go_value(tool.get(name)) for name in TOOL_MEMBERS}


def _told_format(given: JSONObject) -> Members:
    told = {name: given[name] for name in ("type", "name", "schema", "strict") if given.get(name) not in (None, "")}
    return {"type": given.get("type") or "text"} | told if given else {"type": "text"}


def _told_reasoning(given: JSONObject) -> Members | None:
    return {name: given[name] for name in ("effort", "summary") if given.get(name)} or None


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sorted(member) for name, member in sorted(value.items())}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def _go_value(value: Any) -> Any:
    """A value as Go tells it that read it into a map: members sorted, numbers as it prints a float64."""
    if isinstance(value, dict):
        return {name: _go_value(member) for name, member in sorted(value.items())}
    if isinstance(value, list):
        return [_go_value(item) for item in value]
    return _go_number(value) if isinstance(value, float) else value


def _go_number(value: float) -> float:
    """As Go prints a float64: no fraction where there is none, and exponents only beyond 1e-6 and 1e21."""
    number = float(value)
    if number.is_integer() and abs(number) < 1e21:
        return int(number)
    if 1e-6 <= abs(number) < 1e-4:  # which Python writes with an exponent
        return Number(f"{number:.20f}".rstrip("0"))
    return Number(repr(number).replace("e-0", "e-").replace("e+0", "e+"))
