"""How many models fit into Ollama's memory at once, as far as that can be seen.

Two reads of `/api/ps` tell it. A model that went before its time as another one came was pushed out: no more fit than
are there now, and these two do not fit together, whatever else does (a small one beside either of two large ones, say).
More of them there than were thought to fit: so many do; and what is seen together fits together. One wrong guess mends
itself: where less is allowed than fits, Ollama still keeps what fits and shows it; where more is, it pushes out.
Where several had to go, sizes tell which of them did not fit: those that take no more than was lately seen did.
So what was learnt before a restart may be taken over (`learnt.py`), whatever became of Ollama's memory since. One thing
mends nothing: where each model is unloaded as soon as its ask ends, no two are ever seen together.

With `upstream.models_at_once = "auto"` the number is acted on. With a number of the operator's nothing is changed, for
memory is his to know; that models go on pushing each other out is then said in the log. Refuses to reckon what fits
from sizes alone: they are estimates of Ollama's, and others use that memory too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from cacheproxy.clock import Clock
from cacheproxy.upstream.loaded import LoadedModel
from cacheproxy.upstream.order import Pairs

OLLAMAS_OWN = 3
"""OLLAMA_MAX_LOADED_MODELS as Ollama chooses it on a CPU or one GPU: what is assumed until something is seen."""
GOING_S = 8.0
"""One that comes so long after another has gone may have pushed it out: Ollama waits up to 5 s for memory to be free
before it loads, and a read may come just then.
"""
NOTHING_SEEN = "Ollama's own default; nothing else was seen yet"
TOGETHER = "Ollama's own default; several were loaded at once, as it says"
BEFORE = ", before the last start"
"""Ends the reason of a number that was not learnt since."""
APART_MAX = 256
"""Pairs of models that are remembered not to fit together; the oldest is forgotten first."""
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
    apart: tuple[frozenset[str], ...] = ()
    """Two and two that do not fit together (digests), the oldest first."""
    seen_bytes: int = 0
    """The most that was seen in memory at once since a model was last pushed out."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """A model that had to go, and the one that came."""

    gone: str
    came: str


def pushed(before: Models, missed: Models, here: Models) -> Pushed | None:
    """Who pushed whom out between two reads. `missed`: those that went before their time, and lately. Pure."""
    came = [model for digest, model in here.items() if digest not in before]
    return Pushed(next(iter(missed.values())).name, came[0].name) if missed and came else None


def judge(fit: Fit, before: Models, missed: Models, here: Models) -> Fit:
    """What fits, now that `here` is loaded and `missed` models went before their time. Pure.

    More that went than could have stayed say nothing new of the number, nor do two that are known not to fit together.
    """
    out = pushed(before, missed, here)
    came = [model for digest, model in here.items() if digest not in before] if out is not None else []
    couples = {frozenset((gone.digest, one.digest)): gone.size_bytes + one.size_bytes
               for gone in missed.values() for one in came}  # fmt: skip
    explained = any(pair in fit.apart for pair in couples)
    apart = [pair for pair in fit.apart if not pair <= here.keys()]
    apart += [
        pair
        for pair, size_bytes in couples.items()
        if (len(couples) == 1 or size_bytes > fit.seen_bytes) and pair not in apart
    ]
    lately_bytes = max(sum(model.size_bytes for model in models.values()) for models in (before, here))
    seen_bytes = lately_bytes if out is not None else max(fit.seen_bytes, lately_bytes)
    fit = replace(fit, apart=tuple(apart[-APART_MAX:]), seen_bytes=seen_bytes)
    if len(here) > fit.models:
        return replace(fit, models=len(here), why=f"{len(here)} were loaded at once")
    if out is not None and not explained and len(here) + len(missed) <= fit.models:
        count = max(1, min(len(here), fit.models - 1))
        return replace(fit, models=count, why=f"{out.gone} had to go for {out.came}")
    return fit


def recalled(fit: Fit, noted: Fit, here: Models) -> Fit:
    """What fits, now that it is known what was learnt before this start: what was seen since counts for more. Pure."""
    apart = [*(pair for pair in noted.apart if pair not in fit.apart), *fit.apart]
    fit = replace(fit, apart=tuple(apart[-APART_MAX:]))
    if fit.why == NOTHING_SEEN and noted.why != NOTHING_SEEN:
        fit = replace(fit, models=noted.models, why=noted.why + BEFORE)
    return judge(fit, here, {}, here)


class Crowding:
    """Looks on. `models_at_once`: how many fit, as the operator says, or `auto`."""

    def __init__(self, models_at_once: int | str, clock: Clock) -> None:
        self.learns = not isinstance(models_at_once, int)
        self._clock = clock
        said = Fit(models_at_once, "upstream.models_at_once") if isinstance(models_at_once, int) else None
        self.fit = said or Fit(OLLAMAS_OWN, NOTHING_SEEN)
        self.on_learnt: list[Callable[[int, Pairs, bool], None]] = []
        """Called with the number, and the pairs that do not fit together, that hold from now on; and with `unsure`."""
        self._reads = False
        """Whether what is loaded can be read, so that something will be seen."""
        self._together = False
        """Whether two models were seen in memory at once."""
        self._before: Models = {}
        self._going: dict[str, tuple[LoadedModel, float]] = {}
        """Those that went before their time, with when that was seen: a load takes a while to be seen itself."""
        self._excused: set[str] = set()
        self._seen_s: list[float] = []
        self._said_s = float("-inf")

    def excuse(self, digest: str) -> None:
        """We, or a caller, may have unloaded this model: when it goes it was not pushed out."""
        self._excused.add(digest)

    def shall_stay(self, digest: str, seconds: float) -> None:
        """A request says how long this model stays when it ends: an excuse if that is sooner than was last seen."""
        seen = self._before.get(digest)
        if seconds <= 0 or (seen is not None and self._clock.now() + seconds < seen.expires):
            self.excuse(digest)

    def forget(self) -> None:
        """Somebody loads or unloads a model on purpose: what goes until the next read was not pushed out."""
        self._excused.update(self._before)

    def take(self, noted: Fit) -> None:
        """What was learnt before this start."""
        if self.learns:
            self._learn(recalled(self.fit, noted, self._before))

    @property
    def why(self) -> str:
        """Why so many, for people."""
        return TOGETHER if self._together and self.fit.why == NOTHING_SEEN else self.fit.why

    @property
    def unsure(self) -> bool:
        """Whether nothing is known yet, and will be once two models were asked for."""
        return self.learns and self._reads and not self._together and self.fit.why == NOTHING_SEEN

    def read(self, models: Sequence[LoadedModel], *, readable: bool = True) -> None:
        """What is loaded now; not `readable`: nobody can tell. Never raises."""
        unsure = self.unsure
        if not readable:  # away, or starting anew: what it had was not pushed out
            self._before, self._going, self._excused = {}, {}, set()
        self._reads = readable
        self._together = self._together or len(models) > 1
        if self.unsure != unsure:
            self._tell()
        here = {model.digest: model for model in models}
        self._note_gone(here)
        missed = {digest: model for digest, (model, _) in self._going.items()}
        out = pushed(self._before, missed, here)
        judged = judge(self.fit, self._before, missed, here)
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
        if fit == self.fit:
            return
        if fit.models != self.fit.models:
            _log.info("models at once: %d from now on, not %d: %s", fit.models, self.fit.models, fit.why)
        self.fit = fit
        self._tell()

    def _tell(self) -> None:
        for tell in self.on_learnt:
            tell(self.fit.models, frozenset(self.fit.apart), self.unsure)

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
