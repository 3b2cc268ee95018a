"""The simulated Ollama's /v1/responses: text, thinking and tools, whole and streamed.

Messages, function calls, their outputs and reasoning are read of the history; images, files, web searches and zstd
bodies are not.
"""

from __future__ import annotations

import random
from typing import Any

from cacheproxy.demo import asks, gojson
from cacheproxy.demo.asks import Ask
from cacheproxy.demo.compat import event, joined, members_of, native_tool, objects, plain, send, tokens
from cacheproxy.demo.engine import Engine, Piece
from cacheproxy.demo.gohttp import Exchange
from cacheproxy.demo.gojson import Members, Struct, Where
from cacheproxy.demo.goscan import GoJsonError
from cacheproxy.demo.native import BARE_JSON_TYPE, fold
from cacheproxy.demo.openai import InvalidRequestError

_LAYOUT = ("type", "name", "schema", "strict")
_EFFORTS = {"none": False, "low": "low", "medium": "medium", "high": "high", "max": "max"}

# --- Reading ---

_string = (gojson.string, "")
_any = (gojson.anything, None)
_summary = gojson.structure("openai.ResponsesReasoningSummary", {"type": _string, "text": _string})
_summaries = gojson.sequence(_summary, "[]openai.ResponsesReasoningSummary")
_head = gojson.structure("", {"type": _string, "role": _string})
_ITEMS = {
    "message": gojson.structure("openai.ResponsesInputMessage", {"type": _string, "role": _string, "content": _any}),
    "function_call": gojson.structure(
        "openai.ResponsesFunctionCall", dict.fromkeys(("id", "type", "call_id", "name", "arguments"), _string)
    ),
    "function_call_output": gojson.structure(
        "openai.ResponsesFunctionCallOutput", {"type": _string, "call_id": _string, "output": _any}
    ),
    "reasoning": gojson.structure(
        "openai.ResponsesReasoningInput",
        {"id": _string, "type": _string, "summary": (_summaries, None), "encrypted_content": _string},
    ),
}
"""What Ollama reads of each kind of item, by its `type`; all else in one is dropped."""


def read_responses(body: bytes) -> Ask:
    """Read a body of /v1/responses."""
    return _read(members_of(gojson.read(body)))


def _read(fields: dict[str, Any]) -> Ask:
    effort = members_of(fields.get("reasoning")).get("effort")
    if effort and effort not in _EFFORTS:
        raise InvalidRequestError(f"invalid reasoning value: '{effort}'")
    options: dict[str, Any] = {"temperature": 1.0 if fields.get("temperature") is None else fields["temperature"]}
    for name, option in (("max_output_tokens", "num_predict"), ("top_p", "top_p")):
        options |= {option: fields[name]} if fields.get(name) is not None else {}
    instructions = fields.get("instructions")
    messages = [asks.message_fields(role="system", content=instructions)] if instructions else []
    messages += _native_messages(fields.get("input"))
    layout = members_of(members_of(fields.get("text")).get("format"))
    native = asks.chat_fields(
        model=str(fields.get("model") or ""),
        messages=messages,
        options=options,
        format=layout.get("schema") if layout.get("type") == "json_schema" else None,
        think=_EFFORTS.get(str(effort)),
        tools=[
            native_tool(tool.get("name"), tool.get("description"), tool.get("parameters"))
            for tool in objects(fields.get("tools"))
        ],
    )
    return asks.chat_ask(native, stream=fields.get("stream") is True)


def _native_messages(given: Any) -> list[Struct]:
    """Return the messages in an `input`: calls join the turn they stand in, and thinking the next one."""
    if given is None or isinstance(given, str):
        return [asks.message_fields(role="user", content=given)] if given else []
    if not isinstance(given, list):
        raise InvalidRequestError("input must be a string or array")
    said: list[Struct] = []
    thinking = ""
    for number, item in enumerate(given):
        kind, fields = _item(item, number)
        if kind == "reasoning":
            thinking = fields["encrypted_content"]
            continue
        if kind == "function_call_output":
            output = joined(fields["output"])
            said.append(asks.message_fields(role="tool", content=output, tool_call_id=fields["call_id"]))
            continue
        if kind == "message":
            said.append(asks.message_fields(role=fields["role"], content=joined(fields["content"])))
        else:
            if not said or said[-1]["role"] != "assistant":
                said.append(asks.message_fields(role="assistant"))
            said[-1]["tool_calls"] = [*(said[-1]["tool_calls"] or ()), _native_call(fields)]
        if said[-1]["role"] == "assistant" and thinking:
            said[-1]["thinking"], thinking = thinking, ""
    said += [asks.message_fields(role="assistant", thinking=thinking)] if thinking else []
    return [{**message, "role": message["role"].lower()} for message in said]


def _item(item: Any, number: int) -> tuple[str, Struct]:
    """Return the kind of an item and its members."""
    try:
        head = _head(item, None, Where(""))
        kind = head["type"] or ("message" if head["role"] else "")
        if kind in _ITEMS:
            return kind, _ITEMS[kind](item, None, Where(""))
    except GoJsonError as error:
        raise InvalidRequestError(f"input[{number}]: {error}") from None
    trouble = f'unknown input item type: "{kind}"' if kind else "input item missing required 'type' field"
    raise InvalidRequestError(f"input[{number}]: {trouble}")


def _native_call(fields: Struct) -> Struct:
    try:
        arguments = gojson.read(fields["arguments"].encode("utf-8", "replace")) if fields["arguments"] else Members()
        if not isinstance(arguments, Members):
            Where("").refuse(arguments, "map[string]interface {}")
    except GoJsonError as error:
        raise InvalidRequestError(f"failed to parse function call arguments: {error}") from None
    return {"id": fields["call_id"], "function": {"index": 0, "name": fields["name"], "arguments": arguments}}


# --- Writing ---


async def responses(engine: Engine, exchange: Exchange) -> None:
    """POST /v1/responses."""
    fields = members_of(gojson.read(await exchange.body()))
    ask = _read(fields)
    model = engine.admit(ask)
    number, created = random.randrange(999999), int(engine.clock.now())  # noqa: S311  # Ollama's own are no secrets
    pieces = engine.run(ask, model, exchange)
    if ask.stream:
        await send(exchange, pieces, _ResponseEvents(fields, number, created))
        return
    last = await fold(pieces, keep_tools=bool(ask.tools))
    output = [_reasoning(f"rs_resp_{number}", last.thinking)] if last.thinking else []
    if last.tool_calls:
        output += [_call(call, f"fc_resp_{number}_{index}") for index, call in enumerate(last.tool_calls)]
    else:
        output.append(_message(f"msg_{number}", last.text))
    body = _response(fields, number, created, status="completed", output=output, usage=_usage(last))
    body["completed_at"] = created
    exchange.answer(200, BARE_JSON_TYPE, gojson.write(body) + b"\n")


def _usage(piece: Piece) -> dict[str, Any]:
    told = tokens(piece)
    details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    return {**told, "total_tokens": sum(told.values()), **details}


def _reasoning(identity: str, thinking: str) -> dict[str, Any]:
    summary = [{"type": "summary_text", "text": thinking}]
    return {"id": identity, "type": "reasoning", "summary": summary, "encrypted_content": thinking}


def _call(call: dict[str, Any], identity: str) -> dict[str, Any]:
    named = {"call_id": call["id"], "name": call["function"]["name"]}
    arguments = gojson.write(call["function"]["arguments"]).decode()
    return {"id": identity, "type": "function_call", "status": "completed", **named, "arguments": arguments}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _message(identity: str, text: str) -> dict[str, Any]:
    same = {"id": identity, "type": "message", "status": "completed", "role": "assistant"}
    return {**same, "content": [_part(text)]}


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _response(
    fields: dict[str, Any], number: int, created: int, *, status: str, output: Any, usage: Any
) -> dict[str, Any]:
    """Return the reply in the order of Ollama's struct."""
    tools = [
        {name: as_map(tool.get(name)) for name in ("type", "name", "description", "strict", "parameters")}
        for tool in objects(fields.get("tools"))
    ]
    layout = members_of(members_of(fields.get("text")).get("format")) or {"type": "text"}
    reasoning = members_of(fields.get("reasoning"))
    return {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": created,
        "completed_at": None,
        "status": status,
        "incomplete_details": None,
        "model": str(fields.get("model")),
        "previous_response_id": None,
        "instructions": fields.get("instructions") or None,
        "output": output,
        "error": None,
        "tools": tools,
        "tool_choice": "auto",
        "truncation": fields.get("truncation") or "disabled",
        "parallel_tool_calls": True,
        "text": {"format": {name: plain(layout[name]) for name in _LAYOUT if name in layout}},
        "top_p": _number(1 if fields.get("top_p") is None else fields["top_p"]),
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "top_logprobs": 0,
        "temperature": _number(1 if fields.get("temperature") is None else fields["temperature"]),
        "reasoning": {name: reasoning[name] for name in ("effort", "summary") if reasoning.get(name)} or None,
        "usage": usage,
        "max_output_tokens": fields.get("max_output_tokens"),
        "max_tool_calls": None,
        "store": False,
        "background": bool(fields.get("background")),
        "service_tier": "default",
        "metadata": {},
        "safety_identifier": None,
        "prompt_cache_key": None,
    }


def as_map(value: Any) -> Any:
    """Return a value as Go writes one that went through a map: members in alphabetical order."""
    if isinstance(value, Members | dict):
        return {name: as_map(member) for name, member in sorted(dict(value).items())}
    return [as_map(item) for item in value] if isinstance(value, list) else value


class _ResponseEvents:
    """From piece to events, whose members are all in alphabetical order."""

    def __init__(self, fields: dict[str, Any], number: int, created: int) -> None:
        self.fields = fields
        self.number = number
        self.created = created
        self.sent = 0
        self.index = 0
        self.thinking = ""
        self.thought = False
        self.text = ""
        self.calls: list[dict[str, Any]] = []

    def __call__(self, piece: Piece) -> list[bytes]:
        out: list[bytes] = []
        if not self.sent:
            for kind in ("created", "in_progress"):
                begun = self._response(status="in_progress", output=[], usage=None)
                out.append(self._event(kind, response=begun))
        if piece.thinking:
            out += self._think(piece.thinking)
        if piece.tool_calls:
            out += self._call(piece)
        elif piece.text and not self.calls:
            out += self._say(piece.text)
        if piece.done:
            out += self._end(piece)
        return out

    def _response(self, **given: Any) -> dict[str, Any]:
        body = _response(self.fields, self.number, self.created, **given)
        if body["reasoning"]:
            body["reasoning"] = {"effort": None, "summary": None} | body["reasoning"]
        return body

    def _event(self, kind: str, **members: Any) -> bytes:
        kind = f"response.{kind}"
        schema = members.get("response", {}).get("text", {}).get("format", {}).get("schema")
        written = as_map({**members, "type": kind, "sequence_number": self.sent})
        if schema is not None:
            written["response"]["text"]["format"]["schema"] = schema  # raw text to Ollama, which keeps its order
        self.sent += 1
        return event(kind, written)

    def _item(self, kind: str, item: dict[str, Any], index: int) -> bytes:
        return self._event(f"output_item.{kind}", output_index=index, item=item)

    def _think(self, thinking: str) -> list[bytes]:
        identity = f"rs_{self.number}"
        out = [] if self.thinking else [self._item("added", {"id": identity, "type": "reasoning", "summary": []}, 0)]
        self.thinking += thinking
        place = {"item_id": identity, "output_index": self.index, "summary_index": 0}
        return [*out, self._event("reasoning_summary_text.delta", **place, delta=thinking)]

    def _end_thinking(self) -> list[bytes]:
        if not self.thinking or self.thought:
            return []
        self.thought = True
        place = {"item_id": f"rs_{self.number}", "output_index": 0, "summary_index": 0}
        done = self._event("reasoning_summary_text.done", **place, text=self.thinking)
        self.index = 1
        return [done, self._item("done", _reasoning(f"rs_{self.number}", self.thinking), 0)]

    def _call(self, piece: Piece) -> list[bytes]:
        out = self._end_thinking()
        for offset, native in enumerate(piece.tool_calls):
            call = _call(native, f"fc_{self.number}_{len(self.calls)}")
            self.calls.append(call)
            place = {"item_id": call["id"], "output_index": self.index + offset}
            out.append(self._item("added", {**call, "status": "in_progress", "arguments": ""}, self.index + offset))
            out.append(self._event("function_call_arguments.delta", **place, delta=call["arguments"]))
            out.append(self._event("function_call_arguments.done", **place, arguments=call["arguments"]))
            out.append(self._item("done", call, self.index + offset))
        return out

    def _say(self, text: str) -> list[bytes]:
        out = self._end_thinking()
        place = {"item_id": f"msg_{self.number}", "output_index": self.index, "content_index": 0}
        if not self.text:
            begun = {**_message(f"msg_{self.number}", ""), "status": "in_progress", "content": []}
            out.append(self._item("added", begun, self.index))
            out.append(self._event("content_part.added", **place, part=_part("")))
        self.text += text
        return [*out, self._event("output_text.delta", **place, delta=text, logprobs=[])]

    def _end(self, piece: Piece) -> list[bytes]:
        out = self._end_thinking()
        output = [_reasoning(f"rs_{self.number}", self.thinking)] if self.thinking else []
        message = _message(f"msg_{self.number}", self.text)
        if self.text and not self.calls:
            place = {"item_id": f"msg_{self.number}", "output_index": self.index, "content_index": 0}
            out.append(self._event("output_text.done", **place, text=self.text, logprobs=[]))
            out.append(self._event("content_part.done", **place, part=_part(self.text)))
            out.append(self._item("done", message, self.index))
        output += self.calls or ([message] if self.text else [])
        ended = self._response(status="completed", output=output or None, usage=_usage(piece))
        return [*out, self._event("completed", response={**ended, "completed_at": self.created})]
