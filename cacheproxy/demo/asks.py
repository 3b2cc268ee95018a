"""What a request means to Ollama, and the answer the simulated one gives to it: a pure function of that meaning.

`read_chat` … read bodies as Ollama's structs (api/types.go, openai/openai.go), `fingerprint` hashes what shapes the
answer, and `expected_text` tells tests what must come back. Two requests that Ollama would answer alike have one
fingerprint whatever their spelling; any other pair has two, so a wrong pairing shows in the text.
No I/O here.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

from cacheproxy.demo import gojson
from cacheproxy.demo.gojson import Members, Struct, Where
from cacheproxy.demo.goscan import GoJsonError, go_quoted
from cacheproxy.demo.library import FOREVER_S

INTEGER_OPTIONS = frozenset(
    {"num_keep", "seed", "num_predict", "top_k", "repeat_last_n", "num_ctx", "num_batch", "num_gpu", "main_gpu"}
    | {"num_thread", "draft_num_predict"}
)
FLOAT_OPTIONS = frozenset(
    ["top_p", "min_p", "typical_p", "temperature", "repeat_penalty", "presence_penalty", "frequency_penalty"]
)
SPEED_OPTIONS = frozenset(["num_gpu", "main_gpu", "num_thread", "use_mmap", "num_batch", "draft_num_predict"])
"""Options that change how fast an answer comes, not which: no part of the fingerprint."""

_SENTENCE = (
    "a cache keeps answers near so that the same question need not be asked twice and the slow machine may rest while "
    "quick readers get their words at once in the order in which they were first said"
)
WORDS = _SENTENCE.split()


class RefusedError(Exception):
    """The request is answered with `status` and Ollama's error text."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


# --- Members with readers of their own ---

_DURATION = re.compile(r"([0-9]*+)(\.?[0-9]*+)(ns|us|µs|μs|ms|s|m|h)")
_UNIT_NS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_DURATION_NS_MAX = 2**63 - 1


def duration_s(text: str) -> float:
    """Read a Go duration such as `1h30m` as seconds; raises GoJsonError in Go's words."""
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return 0.0
    total_ns, at = 0, 0
    while at < len(rest) and (part := _DURATION.match(rest, at)) and (part[1] or len(part[2]) > 1):
        total_ns += _part_ns(part[1], part[2], _UNIT_NS[part[3]])
        at = part.end()
    if total_ns > _DURATION_NS_MAX + text.startswith("-"):
        raise GoJsonError(f"time: invalid duration {go_quoted(text)}")
    if not rest or at < len(rest):
        unit = re.match(r"[0-9]++\.?[0-9]*+([^0-9.]*)", rest[at:])
        quoted = go_quoted(text)
        if unit is None:
            raise GoJsonError(f"time: invalid duration {quoted}")
        if not unit[1]:
            raise GoJsonError(f"time: missing unit in duration {quoted}")
        raise GoJsonError(f"time: unknown unit {go_quoted(unit[1])} in duration {quoted}")
    return (-total_ns if text.startswith("-") else total_ns) / 1e9


def _part_ns(whole: str, fraction: str, unit_ns: int) -> int:
    """Read a number with its unit; what is too large for Go is any number that is too large."""
    if len(whole.lstrip("0")) > len(str(_DURATION_NS_MAX)):
        return 2 * _DURATION_NS_MAX
    return int(whole.lstrip("0") or 0) * unit_ns + int(float(f"0{fraction}") * unit_ns)


def _keep_alive(value: Any, _old: Any, where: Where) -> Any:
    if isinstance(value, str):
        seconds = duration_s(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = gojson.decimal(value, None, where)
    else:
        kind = {"bool": "bool", "object": "map[string]interface {}", "array": "[]interface {}"}[gojson.kind_of(value)]
        raise GoJsonError(f"Unsupported type: '{kind}'")
    return FOREVER_S if seconds < 0 else min(seconds, FOREVER_S)


_THINK_LEVELS = ("high", "medium", "low", "max")
_THINK_CHOICES = '"high", "medium", "low", "max", true, or false'


def _think(value: Any, _old: Any, _where: Where) -> Any:
    if isinstance(value, bool) or value in _THINK_LEVELS:
        return value
    if isinstance(value, str):
        raise GoJsonError(f"invalid think value: {go_quoted(value)} (must be {_THINK_CHOICES})")
    raise GoJsonError(f"think must be a boolean or string ({_THINK_CHOICES})")


def _lowered_role(value: Any, _old: Any, where: Where) -> Any:
    # api.Message has an UnmarshalJSON of its own: it starts afresh, and roles are lower-cased.
    message: Struct = _alias(value, None, where.pin())
    message["role"] = message["role"].lower()
    return message


_string = (gojson.string, "")
_bool = (gojson.boolean, False)
_bool_pointer = (gojson.pointer(gojson.boolean), None)
_any = (gojson.anything, None)
_map = (gojson.mapping, None)
_images = (gojson.sequence(gojson.base64_bytes, "[]api.ImageData", b""), None)

_tool_call_function = gojson.structure(
    "api.ToolCallFunction", {"index": (gojson.integer, 0), "name": _string, "arguments": _any}
)
_tool_call = gojson.structure("api.ToolCall", {"id": _string, "function": (_tool_call_function, None)})
_alias = gojson.structure(
    "api.Alias",
    {
        "role": _string,
        "content": _string,
        "thinking": _string,
        "images": _images,
        "tool_calls": (gojson.sequence(_tool_call, "[]api.ToolCall"), None),
        "tool_name": _string,
        "tool_call_id": _string,
    },
)
_messages = (gojson.sequence(_lowered_role, "[]api.Message"), None)
_tools = (gojson.sequence(gojson.anything, "api.Tools"), None)

_shared = {
    "model": _string,
    "stream": _bool_pointer,
    "format": _any,
    "keep_alive": (gojson.pointer(_keep_alive), None),
    "options": _map,
    "think": (gojson.pointer(_think), None),
    "truncate": _bool_pointer,
    "shift": _bool_pointer,
    "_debug_render_only": _bool,
    "logprobs": _bool,
    "top_logprobs": (gojson.integer, 0),
}
_read_chat = gojson.structure("api.ChatRequest", {**_shared, "messages": _messages, "tools": _tools})
_read_generate = gojson.structure(
    "api.GenerateRequest",
    {
        **_shared,
        "prompt": _string,
        "suffix": _string,
        "system": _string,
        "template": _string,
        "context": (gojson.sequence(gojson.integer, "[]int", 0), None),
        "raw": _bool,
        "images": _images,
    },
)
_read_embed = gojson.structure(
    "api.EmbedRequest",
    {
        "model": _string,
        "input": _any,
        "keep_alive": _shared["keep_alive"],
        "truncate": _bool_pointer,
        "dimensions": (gojson.integer, 0),
        "options": _map,
    },
)
_read_embedding = gojson.structure(
    "api.EmbeddingRequest",
    {"model": _string, "prompt": _string, "keep_alive": _shared["keep_alive"], "options": _map},
)
_MANAGEMENT = {
    "model": _string,
    "name": _string,
    "stream": _bool_pointer,
    "source": _string,
    "destination": _string,
    "system": _string,
    "template": _string,
    "from": _string,
    "files": _any,
    "options": _map,
    "parameters": _any,
    "messages": _messages,
    "verbose": _bool,
    "insecure": _bool,
}


def _read(reader: gojson.Reader, name: str, body: bytes) -> Struct:
    try:
        result: Struct = reader(gojson.read(body), None, Where(name))
    except RecursionError:
        raise gojson.TooDeepError from None
    return result


def read_management(name: str, body: bytes) -> Struct:
    """Read the body of a pull, create, copy, delete or show; `name` is Go's struct."""
    return _read(gojson.structure(f"api.{name}", _MANAGEMENT), name, body)


# --- One meaning for all dialects ---


@dataclass(frozen=True, slots=True)
class Ask:
    """A generation as the runner sees it, whichever route it came by."""

    family: str
    """`chat` or `generate`: the two render prompts differently and never share."""
    model: str
    """The caller's spelling."""
    messages: tuple[Struct, ...] = ()
    prompt: str = ""
    suffix: str = ""
    system: str = ""
    template: str = ""
    context: tuple[int, ...] | None = None
    raw: bool = False
    images: tuple[bytes, ...] = ()
    tools: tuple[Any, ...] = ()
    format: Any = None
    think: bool | str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    truncate: bool = True
    shift: bool = True
    logprobs: bool = False
    top_logprobs: int = 0
    stream: bool = True
    keep_alive_s: float | None = None
    debug_render_only: bool = False
    is_empty: bool = False
    """Nothing to answer: load or unload the model."""

    def question(self) -> str:
        """The text a reader would call the question."""
        users = [message["content"] for message in self.messages if message["role"] == "user"]
        return self.prompt or (users[-1] if users else "")


def read_chat_fields(body: bytes) -> Struct:
    """Read a body as a ChatRequest, member by member."""
    return _read(_read_chat, "ChatRequest", body)


def read_generate_fields(body: bytes) -> Struct:
    """Read a body as a GenerateRequest, member by member."""
    return _read(_read_generate, "GenerateRequest", body)


def read_chat(body: bytes) -> Ask:
    """Read a body of /api/chat."""
    fields = read_chat_fields(body)
    return chat_ask(fields, stream=fields["stream"] is not False)


def chat_ask(fields: Struct, *, stream: bool) -> Ask:
    """Make the Ask of a read ChatRequest."""
    messages = tuple(fields["messages"] or ())
    return Ask(
        "chat",
        messages=messages,
        tools=tuple(fields["tools"] or ()),
        is_empty=not messages,
        **_common(fields, stream=stream),
    )


def read_generate(body: bytes) -> Ask:
    """Read a body of /api/generate."""
    fields = read_generate_fields(body)
    return generate_ask(fields, stream=fields["stream"] is not False)


def generate_ask(fields: Struct, *, stream: bool) -> Ask:
    """Make the Ask of a read GenerateRequest."""
    same = ("prompt", "suffix", "system", "template", "raw")
    return Ask(
        "generate",
        context=None if fields["context"] is None else tuple(fields["context"]),
        images=tuple(fields["images"] or ()),
        is_empty=not fields["prompt"],
        **{name: fields[name] for name in same},
        **_common(fields, stream=stream),
    )


def _common(fields: Struct, *, stream: bool) -> Struct:
    if not 0 <= fields["top_logprobs"] <= 20:
        raise RefusedError(400, "top_logprobs must be between 0 and 20")
    return {
        "model": fields["model"],
        "stream": stream,
        "format": None if fields["format"] == "" else fields["format"],
        "keep_alive_s": fields["keep_alive"],
        "options": dict(fields["options"] or {}),
        "think": fields["think"],
        "truncate": fields["truncate"] is not False,
        "shift": fields["shift"] is not False,
        "debug_render_only": fields["_debug_render_only"],
        "logprobs": fields["logprobs"],
        "top_logprobs": fields["top_logprobs"],
    }


def chat_fields(**given: Any) -> Struct:
    """Return a ChatRequest with Go's zero values where nothing is given."""
    return {**{name: zero for name, (_, zero) in {**_shared, "messages": _messages, "tools": _tools}.items()}, **given}


def generate_fields(**given: Any) -> Struct:
    """Return a GenerateRequest with Go's zero values where nothing is given."""
    return {**_read_generate(Members(), None, Where("GenerateRequest")), **given}


def message_fields(**given: Any) -> Struct:
    """Return a Message with Go's zero values where nothing is given."""
    message: Struct = _alias(Members(), None, Where("Alias"))
    return {**message, **given}


@dataclass(frozen=True, slots=True)
class EmbedAsk:
    """Texts to embed."""

    model: str
    texts: tuple[str, ...]
    truncate: bool = True
    dimensions: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    keep_alive_s: float | None = None


def read_embed(body: bytes) -> EmbedAsk:
    """Read a body of /api/embed."""
    fields = _read(_read_embed, "EmbedRequest", body)
    given = fields["input"]
    if given is None or given == "":
        texts: tuple[str, ...] = ()
    elif isinstance(given, str):
        texts = (given,)
    elif isinstance(given, list) and all(isinstance(text, str) for text in given):
        texts = tuple(given)
    else:
        raise RefusedError(400, "invalid input type")
    return EmbedAsk(
        fields["model"],
        texts,
        fields["truncate"] is not False,
        fields["dimensions"],
        dict(fields["options"] or {}),
        fields["keep_alive"],
    )


def read_embeddings(body: bytes) -> EmbedAsk:
    """Read a body of the older /api/embeddings."""
    fields = _read(_read_embedding, "EmbeddingRequest", body)
    texts = (fields["prompt"],) if fields["prompt"] else ()
    options = dict(fields["options"] or {})
    return EmbedAsk(fields["model"], texts, options=options, keep_alive_s=fields["keep_alive"])


# --- The answer as a function of the meaning ---


def effective_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return options with the values Go stores (api.Options.FromMap); raises RefusedError(500) for wrong types."""
    effective: dict[str, Any] = {}
    for name, value in options.items():
        if value is None:
            continue
        if name in INTEGER_OPTIONS:
            effective[name] = int(_option_number(name, value, "integer"))
        elif name in FLOAT_OPTIONS:
            effective[name] = gojson.to_float32(_option_number(name, value, "float32")) + 0.0
        elif name == "use_mmap":
            if not isinstance(value, bool):
                raise RefusedError(500, 'option "use_mmap" must be of type boolean')
            effective[name] = value
        elif name == "stop":
            effective[name] = _option_stop(value)
    return effective


def _option_number(name: str, value: Any, kind: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RefusedError(500, f'option "{name}" must be of type {kind}')
    return value if abs(value) < 2**63 else 0.0


def _option_stop(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise RefusedError(500, 'option "stop" must be of type array')
    if not all(isinstance(item, str) for item in value):
        raise RefusedError(500, 'option "stop" must be of an array of strings')
    return value


def _plain(value: Any) -> str:
    """Write any read value as text in which order and kind show."""
    if isinstance(value, Members):
        return "{" + ",".join(f"{key!r}:{_plain(item)}" for key, item in value) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_plain, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_plain(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    return repr(float(value)) if isinstance(value, int) and not isinstance(value, bool) else repr(value)


def _meaning(message: Struct) -> Struct:
    return {name: value for name, value in message.items() if value not in ("", None, [])}


def fingerprint(ask: Ask, digest: str, authorization: str = "") -> str:
    """Return 12 hex digits that stand for everything that shapes the answer to `ask`."""
    options = {name: value for name, value in effective_options(ask.options).items() if name not in SPEED_OPTIONS}
    meaning = {
        "digest": digest,
        "family": ask.family,
        "messages": [_meaning(message) for message in ask.messages],
        "prompt": [ask.prompt, ask.suffix, ask.system, ask.template, ask.context, ask.raw, ask.images],
        "tools": ask.tools,
        "format": ask.format,
        "think": [ask.think],
        "options": options,
        "limits": [ask.truncate, ask.shift],
        "authorization": authorization,
    }
    try:
        text = _plain(meaning)
    except RecursionError:
        raise gojson.TooDeepError from None
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def answer_words(mark: str, count: int) -> list[str]:
    """Return `count` pieces of text: the mark in brackets, then words that it chooses, spaces in front."""
    start = int(mark, 16)
    words = [f" {WORDS[(start >> (index % 24)) % len(WORDS)]}" for index in range(count - 1)]
    return [f"[{mark}]", *words]


def text_vector(text: str, ask: EmbedAsk, digest: str, authorization: str, length: int) -> list[float]:
    """Return the raw embedding (float32 values) of one text: a function of the text, the model and the options."""
    options = {name: value for name, value in effective_options(ask.options).items() if name not in SPEED_OPTIONS}
    seed = _plain([digest, text, options, authorization]).encode("utf-8", "surrogatepass")
    noise = hashlib.shake_256(seed).digest(2 * length)
    halves = (int.from_bytes(noise[at : at + 2], "little") for at in range(0, 2 * length, 2))
    return [gojson.to_float32((half - 32767.5) / 4096) for half in halves]


def unit_vector(vector: list[float], dimensions: int) -> list[float]:
    """Return the vector cut to `dimensions` (0: not cut), of length 1, in float32."""
    cut = vector[:dimensions] if 0 < dimensions < len(vector) else vector
    norm = sum(value * value for value in cut) ** 0.5 or 1.0
    return [gojson.to_float32(value / norm) for value in cut]
