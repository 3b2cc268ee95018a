"""How many models fit into Ollama's memory at once, as far as that can be seen.

Two reads of `/api/ps` tell it. A model that went before its time as another one came was pushed out: no more fit than
are there now. More of them there than were thought to fit: so many do. One wrong guess mends itself: with too low a
number Ollama still keeps what fits, shows it, and the number rises; with too high a one it pushes out, and it falls.

With `upstream.models_at_once = "auto"` the number is acted on. With a number of the operator's nothing is changed, for
memory is his to know; that models go on pushing each other out is then said in the log. Refuses to weigh models: where
a small one fits beside either of two large ones, two fit, and which two is Ollama's to find.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cacheproxy.clock import Clock
from cacheproxy.upstream.loaded import LoadedModel

OLLAMAS_OWN = 3
"""OLLAMA_MAX_LOADED_MODELS as Ollama chooses it on a CPU or one GPU: what is assumed until something is seen."""
GOING_S = 8.0
"""One that comes so long after another has gone may have pushed it out: Ollama waits up to 5 s for memory to be free
before it loads, and a read may come just then.
"""
TIMES = 3
"""So often within `WITHIN_S`, and it is said that a number is too high."""
WITHIN_S = 600.0
AGAIN_S = 6 * 3600.0
"""It is not said again sooner."""

_log = logging.getLogger("cacheproxy.upstream")

Models = Mapping[str, LoadedModel]
"""By digest."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How many models may run at once, and why."""

    models: int
    why: str


@dataclass(frozen=True, slots=True)
class Pushed:
    """A model that had to go, and the one that came."""

    gone: str
    came: str


def pushed(before: Models, missed: Models, here: Models) -> Pushed | None:
    """Who pushed whom out between two reads. `missed`: those that went before their time, and lately. Pure."""
    came = [model for digest, model in here.items() if digest not in before]
    return Pushed(next(iter(missed.values())).name, came[0].name) if missed and came else None


def judge(fit: Fit, out: Pushed | None, missed: int, here: Models) -> Fit:
    """What fits, now that `here` is loaded and `missed` models went before their time, one of them pushed `out`. Pure.

    More that went than could have stayed say nothing new.
    """
    if len(here) > fit.models:
        return Fit(len(here), f"{len(here)} were loaded at once")
    if out is not None and len(here) + missed <= fit.models:
        count = max(1, min(len(here), fit.models - 1))
        return Fit(count, f"{out.gone} had to go for {out.came}")
    return fit


class Crowding:
    """Looks on. `models_at_once`: how many fit, as the operator says, or `auto`."""

    def __init__(self, models_at_once: int | str, clock: Clock) -> None:
        self.learns = not isinstance(models_at_once, int)
        self._clock = clock
        said = Fit(models_at_once, "upstream.models_at_once") if isinstance(models_at_once, int) else None
        self.fit = said or Fit(OLLAMAS_OWN, "Ollama's own default; nothing else was seen yet")
        self.on_learnt: list[Callable[[int], None]] = []
        """Called with the number that holds from now on."""
        self._before: Models = {}
        self._going: dict[str, tuple[LoadedModel, float]] = {}
        """Those that went before their time, with when that was seen: a load takes a while to be seen itself."""
        self._excused: set[str] = set()
        self._seen_s: list[float] = []
        self._said_s = float("-inf")

    def excuse(self, digest: str) -> None:
        """We, or a caller, may have unloaded this model: when it goes it was not pushed out."""
        self._excused.add(digest)

    def forget(self) -> None:
        """Somebody loads or unloads a model on purpose: what goes until the next read was not pushed out."""
        self._excused.update(self._before)

    def read(self, models: Sequence[LoadedModel]) -> None:
        """What is loaded now. Never raises."""
        here = {model.digest: model for model in models}
        self._note_gone(here)
        missed = {digest: model for digest, (model, _) in self._going.items()}
        out = pushed(self._before, missed, here)
        judged = judge(self.fit, out, len(missed), here)
        if self.learns:
            self._learn(judged)
        elif out is not None and judged.models < self.fit.models:
            self._note(out, judged.models)
        if out is not None:
            self._going = {}
        self._before = here
        self._excused &= here.keys()

    def _note_gone(self, here: Models) -> None:
        now, now_s = self._clock.now(), self._clock.monotonic()
        for digest, model in self._before.items():
            if digest not in here and digest not in self._excused and model.expires > now:
                self._going[digest] = model, now_s
        late = {digest for digest, (_, at_s) in self._going.items() if now_s - at_s >= GOING_S}
        for digest in late | (self._going.keys() & here.keys()):
            del self._going[digest]

    def _learn(self, fit: Fit) -> None:
        if fit.models == self.fit.models:
            return
        _log.info("models at once: %d from now on, not %d: %s", fit.models, self.fit.models, fit.why)
        self.fit = fit
        for tell in self.on_learnt:
            tell(fit.models)

    def _note(self, out: Pushed, fit: int) -> None:
        now_s = self._clock.monotonic()
        self._seen_s = [*(at_s for at_s in self._seen_s if now_s - at_s < WITHIN_S), now_s][-TIMES:]
        if len(self._seen_s) < TIMES or now_s - self._said_s < AGAIN_S:
            return
        self._said_s = now_s
        _log.warning(
            "Ollama unloads models to load others (%s for %s): they do not fit together, though "
            'upstream.models_at_once = %d says so; %d would spare most of the loading, and so would "auto"',
            out.gone,
            out.came,
            self.fit.models,
            fit,
        )
