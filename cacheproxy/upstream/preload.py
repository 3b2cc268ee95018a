"""Models loaded before they are asked for: those the operator names, and (opt-in) the one that will be next.

A load happens only while no caller's request is under way, one at a time, and is called off as soon as an ask for
another model that is not in memory comes: Ollama loads one model at a time, and gives up a load whose caller leaves.
Refuses to unload what is in use, what is configured to stay, and what a caller gave a time of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from cacheproxy.behind import Behind, end
from cacheproxy.config import Config
from cacheproxy.errors import UpstreamBrokenError, UpstreamError
from cacheproxy.metrics import Metrics
from cacheproxy.model import Identity
from cacheproxy.rules import foresight
from cacheproxy.rules.foresight import Resident
from cacheproxy.upstream import tuning
from cacheproxy.upstream.loaded import Loaded
from cacheproxy.upstream.models import Models

LOAD_TIMEOUT_S = 600.0
"""A load longer than this is given up; Ollama itself gives up one that makes no progress for 5 minutes."""
ORDER_MAX = 512
"""Asks of Ollama that are remembered for the guess."""

_log = logging.getLogger("cacheproxy.upstream")

Send = Callable[[str, Any, float], Awaitable[Any]]
"""Target, body and deadline in s to parsed JSON. Raises UpstreamError."""


@dataclass(frozen=True, slots=True)
class Load:
    """One model to load, and why."""

    identity: Identity
    reason: Literal["configured", "predicted"]
    unload: tuple[Identity, ...] = ()
    """What goes first, to make room."""


class Preloader:
    """Loads models while nothing else is to be done. `wait_idle` returns when no caller's request is under way.

    `is_ours`: whether a configured model is this Ollama's to load, of several. `unloads` is told the digest of a model
    before it is unloaded.
    """

    def __init__(
        self,
        send: Send,
        models: Models,
        loaded: Loaded,
        config: Config,
        metrics: Metrics,
        *,
        wait_idle: Callable[[], Awaitable[None]],
        is_ours: Callable[[str], bool] = lambda _name: True,
        unloads: Callable[[str], None] = lambda _digest: None,
    ) -> None:
        self._send = send
        self._models = models
        self._loaded = loaded
        self._config = config
        self._metrics = metrics
        self._wait_idle = wait_idle
        self._is_ours = is_ours
        self._unloads = unloads
        self._order: deque[str] = deque(maxlen=ORDER_MAX)
        self._sizes: dict[str, int] = {}
        """What each model took in memory when it was last seen there, bytes."""
        self._wanted: deque[str] = deque()
        """Names of configured models that are still to be loaded."""
        self._reachable = False
        self._guess_due = False
        """An ask was sent since the last guess."""
        self._loading: Load | None = None
        self._load: asyncio.Task[bool] | None = None
        self._work = Behind(self._load_next, 0, "preload")
        self._wake = asyncio.Event()

    @property
    def loading(self) -> str:
        """The model being loaded, as `ollama list` shows it; empty when none is."""
        return self._loading.identity.short if self._loading is not None else ""

    async def open(self) -> None:
        """Start working. Returns at once."""
        self._work.start()

    async def close(self) -> None:
        """Call off what is being loaded and stop."""
        await self._work.stop()
        await end(self._load)

    def models_read(self, ok: bool) -> None:
        """The list of models was read, or could not be: after Ollama was away, all configured models are loaded."""
        if ok and not self._reachable:
            self._wanted = deque(self._configured())
            self._wake.set()
        self._reachable = ok

    def loaded_read(self) -> None:
        """What is in memory was read."""
        self._sizes.update({model.digest: model.size_bytes for model in self._loaded.models})
        for digest in self._sizes.keys() - {identity.digest for identity in self._models.identities}:
            del self._sizes[digest]

    def asked(self, identity: Identity) -> None:
        """An ask for this model goes to Ollama now."""
        if identity.remote:
            return
        self._order.append(identity.digest)
        self._guess_due = self._config.tuning.predict
        stands_in_the_way = self._loading is not None and self._loading.identity.digest != identity.digest
        if stands_in_the_way and self._load is not None and self._loaded.of(identity.digest) is None:
            self._load.cancel()
        if self._guess_due:
            self._wake.set()

    def _configured(self) -> list[str]:
        by_rule = [name for name in self._models.names if self._config.model_rule(name).preload]
        return list(dict.fromkeys([*self._config.tuning.preload, *by_rule]))

    async def _load_next(self) -> None:
        """Once there may be something to load, load it; while there is, the next time begins at once."""
        await self._wake.wait()
        await self._wait_idle()
        if self._guess_due:  # the ask that was just answered may have pushed another model out
            await self._loaded.refresh()
            await self._wait_idle()
        job = self._next() or self._guessed()
        if job is None:
            self._wake.clear()
        else:
            await self._do(job)

    async def _do(self, job: Load) -> None:
        """Load, unless it is called off; then a configured model waits for the next quiet moment."""
        self._loading = job
        self._load = load = asyncio.create_task(self._bring(job))
        await asyncio.wait([load])
        self._loading = self._load = None
        result = "called-off"
        if not load.cancelled():
            result = "done" if load.result() else "failed"
        elif job.reason == "configured":
            self._wanted.append(job.identity.short)
        self._metrics.load(job.reason, result)
        _log.info("%s: loading ahead is %s", job.identity.short, result, extra={"reason": job.reason})
        await self._loaded.refresh()

    def _next(self) -> Load | None:
        while self._wanted:
            name = self._wanted.popleft()
            if not self._is_ours(name):
                continue
            identity = self._models.identify(name)
            if identity is None:
                self._metrics.load("configured", "failed")
                _log.warning("%s is to be preloaded and is not installed", name)
            elif self._loaded.of(identity.digest) is None:
                return Load(identity, "configured")
        return None

    def _guessed(self) -> Load | None:
        """The load that the recent order of asks speaks for, if the memory budget has room for it."""
        if not self._guess_due:
            return None
        self._guess_due = False
        installed = {identity.digest: identity for identity in self._models.identities}
        digest = foresight.guess(self._order)
        identity = installed.get(digest)
        if identity is None or self._loaded.of(digest) is not None or digest not in self._sizes:
            return None
        residents = [
            Resident(model.digest, model.size_bytes, held=self._is_held(installed.get(model.digest)))
            for model in self._loaded.models
        ]
        budget_bytes = self._config.tuning.memory
        going = foresight.make_room(digest, self._sizes[digest], budget_bytes, residents, self._order)
        return None if going is None else Load(identity, "predicted", tuple(installed[one] for one in going))

    def _is_held(self, identity: Identity | None) -> bool:
        """Whether a model in memory must stay there; one that is not in the list is not ours to judge."""
        if identity is None or self._loaded.wish(identity.digest).keep_alive:
            return True
        named = {known.digest for name in self._config.tuning.preload if (known := self._models.known(name))}
        return identity.digest in named or self._config.model_rule(identity.short).preload

    async def _bring(self, job: Load) -> bool:
        """Make room and load; whether it could be done."""
        name = job.identity.short
        try:
            for identity in job.unload:
                self._unloads(identity.digest)
                await self._send("/api/generate", {"model": identity.short, "keep_alive": 0}, LOAD_TIMEOUT_S)
            await self._load_model(name)
        except UpstreamError as error:
            _log.warning("%s could not be loaded ahead: %s", name, error)
            return False
        return True

    async def _load_model(self, name: str) -> None:
        """Load with the options that the model's asks will bring. Raises UpstreamError."""
        fill = tuning.fill_for(self._config, name)
        body: dict[str, Any] = {"model": name}
        if (keep_alive := tuning.seconds_to_stay(fill)) is not None:
            body["keep_alive"] = keep_alive
        options = {option: value for option, value in fill.options.items() if option in tuning.RUNNER_OPTIONS}
        generate = {**body, "stream": False} | ({"options": options} if options else {})
        try:
            await self._send("/api/generate", generate, LOAD_TIMEOUT_S)
        except UpstreamBrokenError:  # a model that only embeds refuses to generate, and its asks get no options
            await self._send("/api/embed", {**body, "input": []}, LOAD_TIMEOUT_S)
            return
        if self._config.tuning.warm_up:
            warm = {"prompt": ".", "options": {**options, "num_predict": 1}}
            await self._send("/api/generate", {**generate, **warm}, LOAD_TIMEOUT_S)
