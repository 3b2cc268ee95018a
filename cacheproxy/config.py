"""What an operator can set, with types and ranges; `config.toml` at the top of the repository is the manual.

Order of strength: flags, then `CACHEPROXY_SECTION__KEY` in the environment, then the file, then the defaults here.
A key nobody knows is an error that names the nearest valid one. Everything is frozen after loading; `reload.py` alone
gives a copy of its own new values.
This module reads one file and the environment at `load` and does nothing else; it never reads `OLLAMA_HOST`, which
would point the proxy at itself on machines where it is exported for clients.
"""

from __future__ import annotations

import difflib
import fnmatch
import itertools
import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    model_validator,
)

from cacheproxy.errors import ConfigError

PORT_MAX = 65535
ENV_PREFIX = "CACHEPROXY_"
_NO_SETTING = re.compile(
    r"(?:BROWSER|CONFIG|EXPORT_KEY|URL|WRITE_PAGES|(?:\w+_)?SERVICE_(?:HOST|PORT)(?:_\w+)?|(?:\w+_)?PORT(?:_\d+_\w+)?)"
)
"""Rests of names that are no settings: ours (`--config`, `--key`, the examples, the tests), and those that Kubernetes
and Docker put into the environment beside a service called `cacheproxy`."""
_SECRET_KEYS = frozenset({"token", "url"})
"""Keys whose values may hold a password: no message quotes them."""

GUARD_NAMES = (
    "numbers", "dates", "tokens", "negation", "comparison", "direction", "names", "language", "format", "scope",
    "tense", "aspect", "slots",
)  # fmt: skip
"""The guards of `rules/guards.py`, in their order."""
LIBRARY_NAMES = ("langchain", "llamaindex", "haystack", "open-webui")
"""The libraries whose prompts `rules/templates.py` knows."""

_WHOLE, _REAL = (int,), (float, int)
OPTION_TYPES: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("num_keep", "seed", "num_predict", "top_k", "repeat_last_n"), _WHOLE),
    **dict.fromkeys(("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "draft_num_predict"), _WHOLE),
    **dict.fromkeys(("temperature", "top_p", "min_p", "typical_p"), _REAL),
    **dict.fromkeys(("repeat_penalty", "presence_penalty", "frequency_penalty"), _REAL),
    "use_mmap": (bool,),
    "stop": (list,),
}
"""Ollama's options, and what each may be. One of another type makes Ollama answer 500 to each ask that gets it."""
_KIND_NAMES = {int: "a whole number", float: "a number", bool: "true or false", list: "a list of texts"}

_DURATION_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d)")
_SIZE_UNITS = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "kB": 1000, "MB": 1000**2, "GB": 1000**3}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB|kB|MB|GB)")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ORIGIN = re.compile(r"""[^\s,"'/?#@\[\]]+(?:://[^\s,"'/?#@]*)?""")


def parse_duration(value: object) -> float:
    """Seconds in a duration as Ollama's users write it (`"50ms"`, `"1h30m"`, or a plain number of seconds).

    Raises ValueError, which pydantic turns into an error that names the key.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f'{value!r} is not a duration; write "50ms", "30s", "1h30m" or a number of seconds')
    if isinstance(value, (int, float)):
        try:
            return float(value)
        except OverflowError:
            raise ValueError("no duration is that long") from None
    text = value.strip()
    if re.fullmatch(r"\d+(?:\.\d+)?", text):
        return float(text)
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f'{value!r} is not a duration; write "50ms", "30s", "1h30m" or a number of seconds')
    return sum(float(number) * _DURATION_UNITS_S[unit] for number, unit in parts)


def parse_size(value: object) -> int:
    """Bytes in a size (`"64MiB"`, `"10MB"`, or a plain number of bytes). Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        if value.strip().isdecimal():
            return int(value)
        if match := _SIZE.fullmatch(value.strip()):
            size = float(match[1]) * _SIZE_UNITS[match[2]]
            if math.isfinite(size):
                return int(size)
    raise ValueError(f'{value!r} is not a size; write "64MiB", "10MB" or a number of bytes')


def parse_at_once(value: object) -> int | Literal["auto"]:
    """A number of models, 1 to 1024, or `auto`. Raises ValueError."""
    if value == "auto":
        return "auto"
    if isinstance(value, int | str) and not isinstance(value, bool) and re.fullmatch(r"[0-9]{1,4}", str(value).strip()):
        number = int(value)
        if 1 <= number <= 1024:
            return number
    raise ValueError('write "auto" or a number of models, 1 to 1024')


def _parse_similarity(value: object) -> object:
    try:
        percent = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else 0.0
    except (ValueError, OverflowError):
        return value  # no number, or one far out of range: the type's own error says so
    if percent > 1:
        hint = f", did you mean {percent / 100:g}?" if 50 <= percent <= 100 else ""
        raise ValueError(f"similarity is between 0 and 1{hint}")
    return value


def parse_pattern(pattern: str) -> tuple[str, ...]:
    """A prompt's layout (`"Given {context} answer {question}"`) as texts and slots in turn, texts outermost.

    Other braces are plain text. Raises ValueError for a layout in which nobody could tell where the question is.
    """
    parts = tuple(re.split(r"({question}|{context})", pattern))
    slots = parts[1::2]
    if not slots:
        raise ValueError("a prompt's layout has a {question}, or a {context} alone if it must never be compared")
    if slots.count("{question}") > 1:
        raise ValueError("a prompt's layout has {question} only once")
    if "{question}" in slots and any(one == other for one, other in itertools.pairwise(slots)):
        raise ValueError("a prompt's layout has {context} at most once before and once after {question}")
    if "" in parts[2:-1:2]:
        raise ValueError("a prompt's layout has some text between its {context} and {question}")
    return parts


def parse_keep_alive(value: object) -> float:
    """Seconds a model stays loaded, as Ollama's users write them: a duration, or below 0 (`-1`, `"-1m"`) for ever.

    Raises ValueError.
    """
    if isinstance(value, str) and value.strip().startswith("-"):
        return -parse_duration(value.strip()[1:])
    return parse_duration(value)


def _check_options(given: dict[str, Any]) -> dict[str, Any]:
    for name, value in given.items():
        kinds = OPTION_TYPES.get(name)
        if kinds is None:
            near = difflib.get_close_matches(name, OPTION_TYPES, n=1)
            raise ValueError(f'Ollama has no option "{name}"' + (f' (did you mean "{near[0]}"?)' if near else ""))
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ValueError(f"{name} = {value!r} is not {_KIND_NAMES[kinds[0]]}")
    return given


def _one_of(names: tuple[str, ...]) -> Any:
    def known(given: tuple[str, ...]) -> tuple[str, ...]:
        for name in given:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                raise ValueError(
                    f'"{name}" is not one of them (did you mean "{near[0]}"?)'
                    if near
                    else f'"{name}" is not one of them; there are {", ".join(names)}'
                )
        return given

    return AfterValidator(known)


def _check_pattern(pattern: str) -> str:
    parse_pattern(pattern)
    return pattern


def _check_header_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """A name that no request can carry would part nobody's answers, and say nothing about it."""
    for name in names:
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(
                f'"{name}" is no header\'s name; write a list of names such as ["Authorization", "X-User"]'
            )
    return names


def _check_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    for origin in origins:
        whole_or_pattern = "://" in origin or "*" in origin
        if not whole_or_pattern or origin.count("*") > 1 or not _ORIGIN.fullmatch(origin):
            expected = 'write "https://chat.example.org" without a path, the same with a "*" in it, or "*"'
            raise ValueError(f'"{origin}" is no origin; {expected}')
    return origins


def _listen_such_as(example: str) -> Any:
    def check(listen: str) -> str:
        if problem := _listen_problem(listen, example):
            raise ValueError(problem)
        return listen

    return AfterValidator(check)


def _listen_problem(listen: str, example: str) -> str:
    """Why it is no HOST:PORT; empty for one."""
    _, colon, port = listen.rpartition(":")
    if colon and port.isdecimal() and int(port) <= PORT_MAX:
        return ""
    far = f"port {port} is above {PORT_MAX}; " if colon and port.isdecimal() else ""
    return f'{far}expected HOST:PORT, for example "{example}"'


Duration = Annotated[float, BeforeValidator(parse_duration), Field(ge=0, allow_inf_nan=False)]
Period = Annotated[float, BeforeValidator(parse_duration), Field(gt=0, allow_inf_nan=False)]
"""A duration that cannot be none at all."""
KeepAlive = Annotated[float, BeforeValidator(parse_keep_alive), Field(allow_inf_nan=False)]
Options = Annotated[dict[str, Any], AfterValidator(_check_options)]
Size = Annotated[int, BeforeValidator(parse_size), Field(ge=0)]
ModelsAtOnce = Annotated[int | Literal["auto"], PlainValidator(parse_at_once)]
Similarity = Annotated[float, BeforeValidator(_parse_similarity), Field(ge=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Server(_Section):
    """[server]: the port that clients of Ollama use."""

    listen: Annotated[str, _listen_such_as("127.0.0.1:11435")] = "127.0.0.1:11435"
    workers: int = Field(1, ge=1, le=64)
    origins: Annotated[tuple[str, ...], AfterValidator(_check_origins)] = ()
    repeat_lane: bool = True
    header_timeout: Duration = 10.0
    body_timeout: Duration = 15.0
    idle_timeout: Duration = 75.0
    drain_timeout: Duration = 30.0


class Admin(_Section):
    """[admin]: the operator's port."""

    listen: Annotated[str, _listen_such_as("127.0.0.1:11436")] = "127.0.0.1:11436"
    token: str = Field("", repr=False)
    hosts: tuple[str, ...] = ()


class Upstream(_Section):
    """[upstream]: where Ollama is."""

    url: str = "http://127.0.0.1:11434"
    others: tuple[str, ...] = ()
    parallel: int = Field(1, ge=1, le=1024)
    models_at_once: ModelsAtOnce = "auto"
    queue: int = Field(512, ge=1)
    connect_timeout: Duration = 5.0
    read_timeout: Duration = 0.0
    digest_ttl: Period = 5.0
    digest_grace: Duration = 86400.0

    @property
    def urls(self) -> tuple[str, ...]:
        """All of them, the one that changes go to first."""
        return (self.url, *self.others)


class Redis(_Section):
    """[redis]: where entries are kept."""

    url: str = Field("embedded", repr=False)  # may hold a password
    data_dir: str = ""
    prefix: str = Field("cacheproxy", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    timeout: Period = 0.05
    memory: Size = 512 * 1024**2
    connections: int = Field(64, ge=2, le=4096)


class Cache(_Section):
    """[cache]: what is kept, and how long."""

    ttl: Duration = 3600.0
    ttl_jitter: float = Field(0.1, ge=0, le=0.5)
    ttl_max: Duration = 30 * 86400.0
    memory: Size = 64 * 1024**2
    body_max: Size = 16 * 1024**2
    answer_max: Size = 8 * 1024**2
    store_truncated: bool = False
    stale_if_error: Duration = 0.0
    max_temperature: float = Field(2.0, ge=0)
    partition_headers: Annotated[tuple[str, ...], AfterValidator(_check_header_names)] = ("Authorization", "X-Api-Key")
    cache_control: Literal["honor", "ignore"] = "honor"
    headers: Literal["full", "trail"] = "full"
    remote_ttl: Duration = 300.0
    without_durations: bool = False


class Prompt(_Section):
    """[semantic.prompts.NAME]: a prompt of the operator's own around a question."""

    pattern: Annotated[str, AfterValidator(_check_pattern)]


class Semantic(_Section):
    """[semantic]: when an answer to a question in other words may be served."""

    mode: Literal["serve", "shadow", "off"] = "serve"
    threshold: Similarity = 0.92
    max_temperature: float = Field(1.0, ge=0)
    join: bool = False
    guards: Annotated[tuple[str, ...], _one_of(GUARD_NAMES)] = GUARD_NAMES
    templates: Annotated[tuple[str, ...], _one_of(LIBRARY_NAMES)] = LIBRARY_NAMES
    prompts: dict[str, Prompt] = {}


class Embedding(_Section):
    """[embedding]: what turns a question into the vector it is found by."""

    engine: Literal["auto", "onnx", "sentence-transformers", "ollama"] = "auto"
    model: str = "all-MiniLM-L6-v2"
    path: str = ""
    threads: int = Field(1, ge=1, le=64)
    window: Duration = 0.003
    batch: int = Field(32, ge=1, le=1024)
    timeout: Period = 0.5
    memo: int = Field(4096, ge=0, le=1_000_000)


class Batching(_Section):
    """[batching]: in which order misses go to Ollama."""

    window: Duration = 0.05
    max_size: int = Field(8, ge=1, le=1024)
    turn: Duration = 30.0
    merge_embeds: bool = False


class Tuning(_Section):
    """[tuning]: what is added to requests that leave it out, and what is loaded before it is asked for."""

    profile: Literal["off", "safe", "balanced", "low-latency"] = "safe"
    preload: tuple[str, ...] = ()
    warm_up: bool = False
    predict: bool = False
    memory: Size = 0

    @model_validator(mode="after")
    def _check_predict(self) -> Self:
        if self.predict and not self.memory:
            raise ValueError('predict = true needs memory, for example memory = "8GiB": what Ollama\'s models may take')
        return self


class Context(_Section):
    """[context]: what happens to chats that are too long for the model."""

    budget: float = Field(0.0, ge=0, le=1)


class ModelRule(_Section):
    """[models."pattern"]: what differs for the models whose name matches the pattern (`*` and `?`)."""

    ttl: Duration | None = None
    cache: bool = True
    semantic: bool = True
    threshold: Similarity | None = None
    options: Options = {}
    keep_alive: KeepAlive | None = None
    preload: bool = False


class Budgets(_Section):
    """[budgets]: how long each step of an ask may take before that is told. The names are those of `labels.STEPS`."""

    parse: Duration = 0.02
    memory: Duration = 0.005
    exact: Duration = 0.005
    embed: Duration = 0.05
    semantic: Duration = 0.05
    queue: Duration = 1.0
    upstream_first_byte: Duration = 0.0
    upstream_total: Duration = 0.0
    reply: Duration = 0.0
    store: Duration = 0.05


def _check_endpoint(url: str) -> str:
    if url and not re.match(r"https?://[^/\s]+", url):
        raise ValueError('expected a URL such as "http://127.0.0.1:4318", or "" for no traces')
    return url


class Tracing(_Section):
    """[tracing]: where OpenTelemetry traces of asks go."""

    endpoint: Annotated[str, AfterValidator(_check_endpoint)] = ""
    share: float = Field(1.0, ge=0, le=1)


class Log(_Section):
    """[log]: what the program says on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"
    prompts: bool = False


class Config(_Section):
    """The whole of `config.toml`."""

    server: Server = Server()
    admin: Admin = Admin()
    upstream: Upstream = Upstream()
    redis: Redis = Redis()
    cache: Cache = Cache()
    semantic: Semantic = Semantic()
    embedding: Embedding = Embedding()
    batching: Batching = Batching()
    tuning: Tuning = Tuning()
    context: Context = Context()
    models: dict[str, ModelRule] = {}
    budgets: Budgets = Budgets()
    tracing: Tracing = Tracing()
    log: Log = Log()

    def model_rule(self, name: str) -> ModelRule:
        """The rule of the first pattern in the file that matches `name`, else the empty rule.

        `name` as `ollama list` shows it; a pattern may leave out `:latest`, as everybody does.
        """
        for pattern, rule in self.models.items():
            if fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name.removesuffix(":latest"), pattern):
                return rule
        return _NO_RULE


_NO_RULE = ModelRule()


def split_listen(listen: str) -> tuple[str, int]:
    """Host and port of `"127.0.0.1:11435"`, `":11435"` (all interfaces) or `"[::1]:11435"`. Raises ConfigError."""
    if problem := _listen_problem(listen, "127.0.0.1:11435"):
        raise ConfigError(f'listen = "{listen}": {problem}')
    host, _, port = listen.rpartition(":")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - the operator wrote ":PORT", which means all interfaces


def load(
    path: Path | None = None, overrides: dict[str, Any] | None = None, env: dict[str, str] | None = None
) -> Config:
    """Read, merge and check the configuration.

    `path`: the file, or None for defaults only. `overrides`: flags, nested as in the file.
    `env`: stands for `os.environ`. Raises ConfigError, whose text lists every problem with its remedy.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        try:
            tree = tomllib.loads(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: is no text in UTF-8; a config file is TOML, as config.toml shows") from error
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    env = dict(os.environ) if env is None else env
    flags = overrides or {}
    variables = {setting: name for name in sorted(env) if (setting := _setting_of(name))}
    _merge(tree, _from_env(env, variables))
    _merge(tree, flags)
    problems = [f"environment: {problem}" for problem in _strays(env)]
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        where = path.name if path else "config"
        problems += [_explain(problem, where, variables, flags) for problem in error.errors()]
        raise ConfigError("\n".join(problems)) from error
    if problems:
        raise ConfigError("\n".join(problems))
    return config


_Variables = Mapping[tuple[str, str], str]
"""The names of variables that set something, by section and key."""


def _setting_of(name: str) -> tuple[str, str] | None:
    """Section and key that a variable sets; None for one that sets nothing."""
    section, separator, key = name.removeprefix(ENV_PREFIX).lower().partition("__")
    if not name.startswith(ENV_PREFIX) or not separator or section not in Config.model_fields:
        return None
    keys = _valid_names([section])
    return (section, key) if key in keys or not keys else None  # [models] has none of its own: any pattern is one


def _strays(env: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with the variables that look like ours and set nothing; their values are not quoted."""
    for name in sorted(env):
        rest = name.removeprefix(ENV_PREFIX)
        if rest == name or _setting_of(name) or ("__" not in rest and _NO_SETTING.fullmatch(rest)):
            continue
        near = _nearest_variable(rest)
        hint = f"did you mean {near}?" if near else f"settings are called {ENV_PREFIX}SECTION__KEY"
        yield f"unknown variable {name} ({hint})"


def _nearest_variable(rest: str) -> str:
    """What somebody may have meant who wrote `rest` after the prefix; empty if nothing is near."""
    section, _, key = rest.lower().partition("__")
    if section in Config.model_fields:
        keys = difflib.get_close_matches(key, _valid_names([section]), n=1)
        return f"{ENV_PREFIX}{section}__{keys[0]}".upper() if keys else ""
    settings = [f"{section}__{key}".upper() for section in Config.model_fields for key in _valid_names([section])]
    near = difflib.get_close_matches(rest.upper(), settings, n=1, cutoff=0.7)
    return ENV_PREFIX + near[0] if near else ""


def _from_env(env: Mapping[str, str], variables: _Variables) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for (section, key), name in variables.items():
        tree.setdefault(section, {})[key] = _env_value(section, key, env[name])
    return tree


def _env_value(section: str, key: str, text: str) -> Any:
    """Lists are written with commas or as in TOML and JSON; everything else is left to the type of the key."""
    kind = getattr(Config.model_fields[section].annotation, "model_fields", {}).get(key)
    return _env_list(text) if kind is not None and kind.annotation == tuple[str, ...] else text


def _env_list(text: str) -> list[Any]:
    if text.lstrip().startswith("["):
        try:
            return list(tomllib.loads(f"list = {text.strip()}")["list"])
        except tomllib.TOMLDecodeError:
            pass  # "[::1], host" is a list with commas; what is neither, the type of the key refuses
    return [part.strip() for part in text.split(",") if part.strip()]


def _merge(base: dict[str, Any], over: dict[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


def _explain(problem: Any, where: str, variables: _Variables, flags: Mapping[str, Any]) -> str:
    """One of pydantic's problems, with the place it was written in: a flag, a variable, or else `where`."""
    location = [str(part) for part in problem["loc"]]
    dotted = ".".join(location)
    section, key = (*location, "", "")[:2]
    given = flags.get(section)
    if isinstance(given, dict) and key in given:
        where = "command line"
    elif (section, key) in variables:
        where, dotted = "environment", variables[section, key]
    elif not key and any(section == one for one, _key in variables):  # of the section as a whole
        where = f"{where} and environment"
    if problem["type"] == "extra_forbidden":
        hint = _hint(location)
        table = f"[{'.'.join(location[:-1])}] " if len(location) > 1 else ""
        return f'{where}: {table}unknown key "{location[-1]}"{hint}'
    message = str(problem["msg"]).removeprefix("Value error, ")
    shown = "..." if location[-1] in _SECRET_KEYS else repr(problem["input"])
    return f"{where}: {dotted} = {shown}: {message}"


def _hint(location: list[str]) -> str:
    """What an unknown key may have been meant to be, in brackets; empty if nothing is near."""
    near = difflib.get_close_matches(location[-1], _valid_names(location[:-1]), n=1)
    if near:
        return f' (did you mean "{near[0]}"?)'
    if len(location) > 1:
        return ""
    homes = [section for section in Config.model_fields if location[0] in _valid_names([section])]
    return (
        f" (it belongs under [{'] or ['.join(homes)}])"
        if homes
        else f"; the tables are {', '.join(Config.model_fields)}"
    )


def _valid_names(location: list[str]) -> list[str]:
    kind: Any = Config
    for part in location:
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
        else:
            field = getattr(kind, "model_fields", {}).get(part)
            kind = field.annotation if field else None
    return list(getattr(kind, "model_fields", {}))
