"""The models a simulated Ollama has: their names, digests and what they can do, and who may run when.

`parse_name` follows Ollama's types/model/name.go; `Library` is the set of installed manifests; `Scheduler` hands out
the parallel slots of loaded models and charges for loading. No HTTP and no JSON here.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from cacheproxy.clock import Clock

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}\Z")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}\Z")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}\Z")

RUNNER_OPTIONS = ("num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "draft_num_predict")
"""Options that are fixed when a model is loaded: another value means another load."""

KEEP_ALIVE_DEFAULT_S = 300.0
FOREVER_S = float(2**63) / 1e9
"""Go's longest time.Duration, which negative keep_alive values become."""


class InvalidNameError(ValueError):
    """The text is no model name."""


class ModelName(NamedTuple):
    """A fully qualified model name."""

    host: str
    namespace: str
    model: str
    tag: str

    def __str__(self) -> str:
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    def shortest(self) -> str:
        """The form /api/tags shows: default host and namespace left out, tag always there."""
        if self.host != "registry.ollama.ai":
            return str(self)
        prefix = "" if self.namespace == "library" else f"{self.namespace}/"
        return f"{prefix}{self.model}:{self.tag}"

    def folded(self) -> ModelName:
        """The name as it compares with others."""
        return ModelName(*(part.lower() for part in self))


def parse_name(text: str) -> ModelName:
    """Read `[scheme://][host/][namespace/]model[:tag]`; raises InvalidNameError."""
    rest = text.strip(" ")
    head, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        head, tag = rest, "latest"
    head = head.rpartition("://")[2] if "://" in head else head
    parts = head.split("/")
    if len(parts) > 3:
        raise InvalidNameError(text)
    host, namespace, model = ["registry.ollama.ai", "library", ""][: 3 - len(parts)] + parts
    valid = _HOST.match(host) and _NAMESPACE.match(namespace) and _PART.match(model) and _PART.match(tag)
    if not valid:
        raise InvalidNameError(text)
    return ModelName(host, namespace, model, tag)


def parse_reference(text: str) -> ModelName:
    """Read a model as a request names it: `:local` is dropped, a cloud form stays as it is."""
    name = text.strip()
    if name.lower().endswith(":local"):
        name = name[: -len(":local")]
    return parse_name(name)


@dataclass(frozen=True, slots=True)
class Model:
    """One installed manifest."""

    name: ModelName
    digest: str
    """64 hex digits, without `sha256:`."""
    modified_at: float = 0.0
    """Unix time in seconds."""
    capabilities: tuple[str, ...] = ("completion", "tools")
    family: str = "llama"
    system: str = ""
    template: str = "{{ .System }} {{ .Prompt }}"
    size: int = 4_661_224_676
    context_length: int = 8192
    embedding_length: int = 64


def digest_of(*content: object) -> str:
    """Return the manifest digest that stands for this content."""
    return hashlib.sha256(repr(content).encode()).hexdigest()


def default_models() -> list[Model]:
    """Two chat models, one of which thinks, a code model that can insert, and an embedding model."""
    kinds: list[tuple[str, tuple[str, ...], str]] = [
        ("llama3", ("completion", "tools", "vision"), "llama"),
        ("llama3.2", ("completion", "tools"), "llama"),
        ("qwen3", ("completion", "tools", "thinking"), "qwen3"),
        ("codellama", ("completion", "insert"), "llama"),
        ("nomic-embed-text", ("embedding",), "nomic-bert"),
    ]
    return [
        Model(parse_name(name), digest_of(name), capabilities=capabilities, family=family)
        for name, capabilities, family in kinds
    ]


class Library:
    """Installed models by name, and what a registry would deliver for a pull."""

    def __init__(self, models: Iterable[Model]) -> None:
        self._installed: dict[ModelName, Model] = {model.name: model for model in models}
        self._by_folded: dict[ModelName, Model] = {name.folded(): model for name, model in self._installed.items()}
        self.registry: dict[ModelName, Model] = dict(self._installed)

    def newest_first(self) -> list[Model]:
        """All installed models, most recently modified first (by whole seconds, as Ollama sorts)."""
        return sorted(self._installed.values(), key=lambda model: -int(model.modified_at))

    def find(self, name: ModelName, *, exact_case: bool = False) -> Model | None:
        """Return the installed model of that name, whatever the case of its letters unless told otherwise."""
        return self._installed.get(name) if exact_case else self._by_folded.get(name.folded())

    def install(self, model: Model) -> None:
        """Add a model or replace the one of that name."""
        self.remove(model.name)
        self._installed[model.name] = model
        self._by_folded[model.name.folded()] = model

    def remove(self, name: ModelName) -> bool:
        """Remove a model; false if there is none of that name."""
        model = self._by_folded.pop(name.folded(), None)
        if model is not None:
            del self._installed[model.name]
        return model is not None

    def copy(self, source: Model, target: ModelName, now: float) -> None:
        """Give `source` a second name: same manifest, same digest."""
        self.install(replace(source, name=target, modified_at=now))


class QueueFullError(Exception):
    """More loads are waiting than the queue holds."""


@dataclass(slots=True, eq=False)
class Runner:
    """A loaded model: its slots, the options it was loaded with, and when it will be dropped."""

    model: Model
    options: tuple[Any, ...]
    slots: asyncio.Semaphore
    expires_at: float
    users: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)


class Scheduler:
    """Loads models one at a time in order of asking and shares each one's slots among its requests.

    A model swap costs `load_s`, plus `swap_s` if another runner must go first. Requests to a loaded model wait without
    limit; requests waiting for a load are refused with QueueFullError beyond `queue_max`.
    """

    def __init__(
        self, clock: Clock, *, parallel: int, queue_max: int, loaded_max: int, load_s: float, swap_s: float
    ) -> None:
        self._clock = clock
        self.parallel = parallel
        self.queue_max = queue_max
        self.loaded_max = loaded_max
        self.load_s = load_s
        self.swap_s = swap_s
        self.memory_bytes = 0
        """What all loaded models together may take; 0: as much as they want."""
        self.loads = 0
        """How often a model was loaded, reloads for other runner options included."""
        self._loading = asyncio.Lock()
        self._pending = 0
        self._runners: dict[str, Runner] = {}

    def runners(self) -> list[Runner]:
        """Loaded models, the one that stays longest first."""
        now = self._clock.now()
        for digest, runner in list(self._runners.items()):
            if runner.users == 0 and runner.expires_at <= now:
                del self._runners[digest]
        return sorted(self._runners.values(), key=lambda runner: -runner.expires_at)

    def unload(self, model: Model) -> None:
        """Drop a model, at once if nobody uses it, else when its last request ends."""
        if (runner := self._runners.get(model.digest)) is not None:
            runner.expires_at = 0.0
            if runner.users == 0:
                del self._runners[model.digest]

    @asynccontextmanager
    async def slot(self, model: Model, options: dict[str, Any], keep_alive_s: float | None) -> AsyncIterator[Runner]:
        """Hold one slot of the loaded model; loads it first if need be."""
        wanted = tuple(options.get(name) for name in RUNNER_OPTIONS)
        runner = await self._runner(model, wanted)
        runner.users += 1
        runner.idle.clear()
        try:
            async with runner.slots:
                yield runner
        finally:
            runner.users -= 1
            self._after_use(runner, keep_alive_s)

    def _after_use(self, runner: Runner, keep_alive_s: float | None) -> None:
        if keep_alive_s is not None:
            runner.expires_at = self._clock.now() + keep_alive_s
        elif runner.expires_at > 0:
            runner.expires_at = max(runner.expires_at, self._clock.now() + KEEP_ALIVE_DEFAULT_S)
        if runner.users == 0:
            runner.idle.set()
            if runner.expires_at <= self._clock.now() and self._runners.get(runner.model.digest) is runner:
                del self._runners[runner.model.digest]

    def _ready(self, model: Model, wanted: tuple[Any, ...]) -> Runner | None:
        runner = self._runners.get(model.digest)
        if runner is None or runner.options != wanted or (runner.users == 0 and runner.expires_at <= self._clock.now()):
            return None
        return runner

    async def _runner(self, model: Model, wanted: tuple[Any, ...]) -> Runner:
        if (runner := self._ready(model, wanted)) is not None:
            return runner
        if self._pending >= self.queue_max:
            raise QueueFullError
        self._pending += 1
        try:
            async with self._loading:
                return self._ready(model, wanted) or await self._load(model, wanted)
        finally:
            self._pending -= 1

    async def _load(self, model: Model, wanted: tuple[Any, ...]) -> Runner:
        swapped = False
        if (stale := self._runners.get(model.digest)) is not None:
            await self._evict(stale)
            swapped = True
        while self._runners and not self._has_room(model):
            await self._evict(min(self._runners.values(), key=lambda runner: (runner.users > 0, runner.expires_at)))
            swapped = True
        self.loads += 1
        seconds = self.load_s + (self.swap_s if swapped else 0.0)
        if seconds:
            await asyncio.sleep(seconds)
        slots = 1 if "embedding" in model.capabilities else self.parallel
        expires_at = self._clock.now() + KEEP_ALIVE_DEFAULT_S
        runner = Runner(model, wanted, asyncio.Semaphore(slots), expires_at)
        self._runners[model.digest] = runner
        return runner

    def _has_room(self, model: Model) -> bool:
        size = model.size + sum(runner.model.size for runner in self._runners.values())
        return len(self._runners) < self.loaded_max and (not self.memory_bytes or size <= self.memory_bytes)

    async def _evict(self, runner: Runner) -> None:
        if runner.users:
            await runner.idle.wait()
        self._runners.pop(runner.model.digest, None)
