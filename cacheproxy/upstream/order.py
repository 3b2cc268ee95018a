"""Who goes to Ollama next: pure bookkeeping, the time comes as an argument.

A *group* is a model with the runner options it is loaded with; asks of one group run side by side, another group may
cost Ollama a load (seconds). Two of Ollama's own limits are mirrored: `parallel` places a group, and `models_at_once`
models in flight, each in one form only (Ollama keeps one copy of a model). So an ask that waits here is one that Ollama
would have kept waiting. In this order:

1. An ask whose group has asks in flight and a free place goes at once.
2. An ask goes at once if nothing is in flight, or if its group is among the last `models_at_once` (Ollama still has it
   loaded) and may start.
3. Any other would make Ollama load: it waits for others like it until the window is over or enough are together, so
   that the load happens once for all of them.
4. Among groups that may start, those overdue come first, then those still loaded, then by how long they have waited.
5. A group is overdue when it got nothing for a whole turn. While the one longest overdue cannot start, those that stand
   in its way get no place, whether they are in flight or would start anew: those of its model and of models it does
   not fit with, else the one longest in flight. So they end, and it is the next: nobody starves.
6. Models that turned out not to fit together (`learn`: so many at once, and these two not) are not in flight together.
   Where they are already, nothing starts until enough have ended: whatever else went to Ollama would make it change
   models once more.
7. As long as nothing is known of what fits (`learn`: unsure), a second model in flight is a trial: only asks of its own
   follow until that is known, and none once another is overdue. If the two do not fit, that spares Ollama a change of
   models. A trial that ends and has told nothing is the last.

Within a group asks keep the order of their coming. Refuses to know Ollama, tasks and clocks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeAlias


class Group(NamedTuple):
    """Asks that one loaded runner serves."""

    model: str
    """Digest: two names of one model are one runner."""
    options: tuple[tuple[str, str], ...] = ()
    """Runner options as name and value, sorted; Ollama loads anew for others."""


Pairs: TypeAlias = AbstractSet[frozenset[str]]
"""Models (digests), two and two."""


def _pair(one: str, other: str) -> frozenset[str]:
    return frozenset((one, other))


@dataclass(frozen=True, slots=True)
class Limits:
    """`parallel` and `models_at_once` are Ollama's; the rest is ours. All counts are 1 or more."""

    parallel: int
    models_at_once: int
    waiting_max: int
    window_s: float
    together: int
    """So many asks waiting in a group end its window."""
    turn_s: float


@dataclass(slots=True, eq=False)
class Ticket:
    """One ask, waiting or in flight."""

    group: Group
    came_s: float
    in_flight: bool = False
    left: bool = False


@dataclass(slots=True, eq=False)
class _Line:
    """The asks of one group."""

    group: Group
    waiting: OrderedDict[Ticket, None] = field(default_factory=OrderedDict)
    in_flight: int = 0
    began_s: float = 0.0
    """When the first of those in flight started."""
    ended_s: float = float("-inf")
    """When the group last had none in flight any more."""

    @property
    def oldest_s(self) -> float:
        """When the first of those that wait came."""
        return next(iter(self.waiting)).came_s

    @property
    def waits_since_s(self) -> float:
        """Since when the group gets nothing: a long queue of its own is no reason to have two turns in a row."""
        return max(self.oldest_s, self.ended_s)


class Order:
    """All asks that wait or are in flight. Every ticket given out comes back through `leave`, exactly once."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._apart: Pairs = frozenset()
        self._unsure = False
        self._trial: str | None = None
        """The model that began beside another while nothing was known."""
        self._lines: dict[Group, _Line] = {}
        self._loaded: OrderedDict[str, Group] = OrderedDict()
        """The last models asked for, each as it was asked for: what Ollama has loaded, as far as we know."""
        self.waiting = 0
        self.in_flight = 0
        self.changes = 0
        """How often a group started that was not among the last ones: as many loads Ollama had to do."""

    def __repr__(self) -> str:
        return f"<Order {self.waiting} waiting, {self.in_flight} in flight, {len(self._lines)} groups>"

    @property
    def overfull(self) -> bool:
        """More wait than may; who came last and cannot start must leave."""
        return self.waiting > self._limits.waiting_max

    @property
    def models_at_once(self) -> int:
        """How many models may be in flight."""
        return self._limits.models_at_once

    def learn(self, models_at_once: int, apart: Pairs = frozenset(), *, unsure: bool = False) -> None:
        """So many models may be in flight from now on, and these two never together. Call `start` next.

        `unsure`: that is only assumed, and will be known once two models were asked for.
        """
        self._limits = replace(self._limits, models_at_once=models_at_once)
        self._unsure = unsure
        self._trial = self._trial if unsure else None
        self._apart = apart
        self._trim_loaded()

    def rounds(self, group: Group) -> int:
        """How many rounds of asks would go before one of `group` that came now; 0: it has a place.

        A round is as many asks as one model runs side by side; all that wait count, for any may be first.
        """
        line, running = self._lines.get(group), self._running()
        if line is not None:
            at_once = not line.waiting and line.in_flight < self._limits.parallel
        else:
            at_once = group.model not in running and self._fits(group.model, running)
        return 0 if at_once else 1 + self.waiting // self._limits.parallel

    def runs(self, model: str) -> bool:
        """Whether an ask for the model (digest) is in flight."""
        return model in self._running()

    def come(self, group: Group, now_s: float) -> Ticket:
        """A new ask. Call `start` next, and then see whether it made the queue `overfull`."""
        line = self._lines.setdefault(group, _Line(group))
        ticket = Ticket(group, now_s)
        line.waiting[ticket] = None
        self.waiting += 1
        return ticket

    def leave(self, ticket: Ticket, now_s: float) -> None:
        """An ask has its whole reply, or its caller is gone. Call `start` next."""
        line = self._lines[ticket.group]
        ticket.left = True
        if ticket.in_flight:
            line.in_flight -= 1
            self.in_flight -= 1
            line.ended_s = now_s
            if self._trial is not None and self._trial not in self._running():
                self._trial, self._unsure = None, False
        else:
            del line.waiting[ticket]
            self.waiting -= 1
        if not line.in_flight and not line.waiting:
            del self._lines[ticket.group]

    def start(self, now_s: float) -> list[Ticket]:
        """All asks that go now, in the order in which Ollama should get them; they are in flight from here on."""
        if self.waiting and not self.in_flight and len(self._lines) == 1:  # nobody to weigh it against
            return self._fill(next(iter(self._lines.values())), now_s)
        started: list[Ticket] = []
        while self.waiting and (line := self._next(now_s)) is not None:
            started += self._fill(line, now_s)
        return started

    def wake_s(self, now_s: float) -> float | None:
        """When `start` may have something new although nobody came or left; None if never."""
        if not self.waiting:
            return None
        ends = [line.oldest_s + self._limits.window_s for line in self._startable() if not self._ripe(line, now_s)]
        return min(ends, default=None)

    def _fill(self, line: _Line, now_s: float) -> list[Ticket]:
        """Start asks of a group until its places are full."""
        started = []
        if not line.in_flight:
            if self._unsure and self._running() - {line.group.model}:
                self._trial = line.group.model
            line.began_s = now_s
            self._note_loaded(line.group)
        while line.waiting and line.in_flight < self._limits.parallel:
            ticket, _ = line.waiting.popitem(last=False)
            ticket.in_flight = True
            line.in_flight += 1
            started.append(ticket)
        self.waiting -= len(started)
        self.in_flight += len(started)
        return started

    def _next(self, now_s: float) -> _Line | None:
        """The group that gets places next, if any does."""
        if self._crowded():
            return None
        first = self._longest_overdue(now_s)
        yield_to_it = self._in_the_way(first) if self._trial is None else self._beside_the_trial(first)
        for line in self._lines.values():
            if line.waiting and 0 < line.in_flight < self._limits.parallel and line not in yield_to_it:
                return line
        ripe = [line for line in self._startable() if line not in yield_to_it and self._ripe(line, now_s)]
        return min(ripe, key=lambda line: (line is not first, *self._rank(line, now_s)), default=None)

    def _rank(self, line: _Line, now_s: float) -> tuple[bool, bool, float]:
        return (not self._overdue(line, now_s), not self._is_loaded(line.group), line.waits_since_s)

    def _startable(self) -> list[_Line]:
        """Groups with none in flight that would not be in another's way."""
        running = self._running()
        if len(running) >= self._limits.models_at_once:
            return []
        return [
            line
            for line in self._lines.values()
            if not line.in_flight and line.group.model not in running and self._fits(line.group.model, running)
        ]

    def _fits(self, model: str, running: AbstractSet[str]) -> bool:
        """Whether one more model may run beside these."""
        together = len(running) < self._limits.models_at_once
        return together and (not self._apart or not any(_pair(model, other) in self._apart for other in running))

    def _crowded(self) -> bool:
        """Whether models are in flight that do not fit together."""
        running = self._running()
        return len(running) > self._limits.models_at_once or any(pair <= running for pair in self._apart)

    def _running(self) -> set[str]:
        """The models (digests) in flight."""
        return {line.group.model for line in self._lines.values() if line.in_flight}

    def _ripe(self, line: _Line, now_s: float) -> bool:
        """Whether waiting for more asks of the group would gain nothing."""
        return (
            not self.in_flight
            or self._is_loaded(line.group)
            or len(line.waiting) >= self._limits.together
            or now_s >= line.oldest_s + self._limits.window_s
        )

    def _overdue(self, line: _Line, now_s: float) -> bool:
        return now_s - line.waits_since_s >= self._limits.turn_s

    def _longest_overdue(self, now_s: float) -> _Line | None:
        """Of the groups with none in flight, the one that everybody makes way for; None if none is overdue."""
        overdue = [line for line in self._lines.values() if not line.in_flight and self._overdue(line, now_s)]
        return min(overdue, key=lambda line: line.waits_since_s, default=None)

    def _in_the_way(self, first: _Line | None) -> list[_Line]:
        """The groups that get no place until `first` has started."""
        if first is None:
            return []
        model, others = first.group.model, [line for line in self._lines.values() if line is not first]
        apart = [line for line in others if line.group.model == model or _pair(line.group.model, model) in self._apart]
        running = [line for line in others if line.in_flight]
        if len(running) < self._limits.models_at_once or any(line.in_flight for line in apart):
            return apart
        return [*apart, min(running, key=lambda line: line.began_s)]

    def _beside_the_trial(self, first: _Line | None) -> list[_Line]:
        """The groups that get no place until the trial is over: once another is overdue all, so that it ends.

        That other one may be of the same model, with options for which Ollama loads it anew.
        """
        return [line for line in self._lines.values() if first is not None or line.group.model != self._trial]

    def _is_loaded(self, group: Group) -> bool:
        return self._loaded.get(group.model) == group

    def _note_loaded(self, group: Group) -> None:
        """A group starts: Ollama loads it if it was not loaded, in place of the model longest unused."""
        self.changes += not self._is_loaded(group)
        for other in [other for other in self._loaded if _pair(other, group.model) in self._apart]:
            del self._loaded[other]
        self._loaded[group.model] = group
        self._loaded.move_to_end(group.model)
        self._trim_loaded()

    def _trim_loaded(self) -> None:
        while len(self._loaded) > self._limits.models_at_once:
            running = self._running()
            idle = next((model for model in self._loaded if model not in running), None)
            if idle is None:
                return
            del self._loaded[idle]
