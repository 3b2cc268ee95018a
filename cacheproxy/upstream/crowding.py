"""Notices that Ollama holds fewer models than `upstream.models_at_once` says, and says so in the log.

What one read of `/api/ps` to the next tells: a model went before its time was over and another one came, though by our
setting both fit. Once is chance (somebody unloads one model and loads another); that it goes on is a setting that costs
a load at every turn. Refuses to change the setting: memory is the operator's to know.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from cacheproxy.clock import Clock
from cacheproxy.upstream.loaded import LoadedModel

TIMES = 3
"""So often within `WITHIN_S`, and it is said."""
WITHIN_S = 600.0
AGAIN_S = 6 * 3600.0
"""It is not said again sooner."""

_log = logging.getLogger("cacheproxy.upstream")


class Crowding:
    """Looks on. `models_at_once`: how many fit, as the operator says."""

    def __init__(self, models_at_once: int, clock: Clock) -> None:
        self._models_at_once = models_at_once
        self._clock = clock
        self._before: dict[str, LoadedModel] = {}
        self._going: dict[str, LoadedModel] = {}
        """Those that went before their time at the last read but one: a load takes a while to be seen."""
        self._seen_s: list[float] = []
        self._said_s = float("-inf")

    def read(self, models: Sequence[LoadedModel]) -> None:
        """What is loaded now. Never raises."""
        here = {model.digest: model for model in models}
        now = self._clock.now()
        gone = {digest: model for digest, model in self._before.items() if digest not in here and model.expires > now}
        missed = {digest: model for digest, model in (self._going | gone).items() if digest not in here}
        came = [model for digest, model in here.items() if digest not in self._before]
        if came and missed and len(here) + len(missed) <= self._models_at_once:
            self._note(next(iter(missed.values())), came[0], len(here))
            gone = {}
        self._before, self._going = here, gone

    def _note(self, gone: LoadedModel, came: LoadedModel, fit: int) -> None:
        now_s = self._clock.monotonic()
        self._seen_s = [*(at_s for at_s in self._seen_s if now_s - at_s < WITHIN_S), now_s][-TIMES:]
        if len(self._seen_s) < TIMES or now_s - self._said_s < AGAIN_S:
            return
        self._said_s = now_s
        _log.warning(
            "Ollama unloads models to load others (%s for %s): they do not fit together, though "
            "upstream.models_at_once = %d says so; %d would spare most of the loading",
            gone.name,
            came.name,
            self._models_at_once,
            fit,
        )
