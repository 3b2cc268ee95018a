"""Which options we add to a request that leaves them out. Pure.

Three rules. What a caller said stands. What is added is the same for every ask for a model while it stays loaded, or
Ollama would load it again for us. And an ask is read again after anything that shapes its answer was added, so that
its key is made from what Ollama will act on.

The default profile, `safe`, never changes what shapes an answer. It says only how long a loaded model shall stay, and
only where that is longer than Ollama would let it: the bytes a caller gets are those it would have got anyway.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cacheproxy.config import Config
from cacheproxy.errors import UnkeyableError
from cacheproxy.model import Ask
from cacheproxy.upstream.loaded import LoadedModel, Wish
from cacheproxy.wire import request

DIALECTS = frozenset({"chat", "generate"})
"""Those whose requests can carry options; the others take them from the Modelfile alone."""

RUNNER_OPTIONS = frozenset(
    {"num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "draft_num_predict"}
)
"""Options that are fixed when a model is loaded: a request with others makes Ollama load it again."""


@dataclass(frozen=True, slots=True)
class Fill:
    """What is added to the requests for one model."""

    keep_alive_s: float | None = None
    """How long it stays loaded after a request; below 0: for ever; None: as Ollama decides."""
    only_prolongs: bool = False
    """Say so only to a loaded model that Ollama would drop sooner, and that no caller gave a time of its own."""
    pins_num_ctx: bool = False
    """Callers who choose no context length get the one that another caller's choice loaded the model with."""
    options: Mapping[str, Any] = field(default_factory=dict)


PROFILES: Mapping[str, Fill] = {
    "off": Fill(),
    "safe": Fill(keep_alive_s=1800.0, only_prolongs=True),
    "balanced": Fill(keep_alive_s=1800.0, pins_num_ctx=True),
    "low-latency": Fill(keep_alive_s=86400.0, pins_num_ctx=True, options={"num_predict": 1024}),
}


def fill_for(config: Config, model: str) -> Fill:
    """What is added for a model, named as `ollama list` shows it: the profile, and over it the model's own rule."""
    profile = config.tuning.profile
    base, rule = PROFILES[profile], config.model_rule(model)
    if profile == "off":
        return base
    if rule.keep_alive is not None:
        base = replace(base, keep_alive_s=rule.keep_alive, only_prolongs=False)
    options = {**base.options, **rule.options}
    return replace(base, options=options, pins_num_ctx=base.pins_num_ctx and "num_ctx" not in options)


class Fills:
    """What `fill_for` says, remembered by model: it is asked for at each ask, and matches patterns."""

    REMEMBERED_MAX = 1000

    def __init__(self, config: Config) -> None:
        self._config = config
        self._by_model: dict[str, Fill] = {}

    def forget(self) -> None:
        """The configuration has changed."""
        self._by_model.clear()

    def of(self, model: str) -> Fill:
        """What is added for a model."""
        fill = self._by_model.get(model)
        if fill is None:
            if len(self._by_model) >= self.REMEMBERED_MAX:
                self._by_model.clear()
            fill = self._by_model[model] = fill_for(self._config, model)
        return fill


def added_options(fill: Fill, ask: Ask, loaded: LoadedModel | None, wish: Wish) -> dict[str, Any]:
    """The options an ask left out and gets."""
    given = ask.body.get("options", {})
    added = {name: value for name, value in fill.options.items() if name not in given}
    if fill.pins_num_ctx and "num_ctx" not in given and loaded is not None and wish.num_ctx == loaded.context_length:
        added["num_ctx"] = loaded.context_length
    return added


def added_keep_alive(fill: Fill, ask: Ask, loaded: LoadedModel | None, wish: Wish, now: float) -> int | None:
    """Seconds an ask's model shall stay loaded, or None for nothing to say. `now`: Unix time, s."""
    seconds = seconds_to_stay(fill)
    if ask.keep_alive is not None or seconds is None:
        return None
    if not fill.only_prolongs:
        return seconds
    # One past its time is still at work and leaves as soon as it is done (OLLAMA_KEEP_ALIVE=0): that was meant.
    leaves_sooner = loaded is not None and now < loaded.expires < now + seconds
    return seconds if leaves_sooner and not wish.keep_alive else None


def seconds_to_stay(fill: Fill) -> int | None:
    """`keep_alive` as Ollama takes it; None where nothing is to be said."""
    if fill.keep_alive_s is None:
        return None
    return -1 if fill.keep_alive_s < 0 else math.ceil(fill.keep_alive_s)


def tune(
    ask: Ask, body: bytes, parse: Callable[[bytes], Ask], options: Mapping[str, Any], keep_alive: int | None
) -> Ask:
    """The ask with these additions, read anew if they shape the answer.

    `body`: what would be sent without them; `parse`: of the ask's dialect. Its `keep_alive` stays the caller's.
    """
    if options:
        more = {} if keep_alive is None else {"keep_alive": keep_alive}
        try:
            return request.rewritten(
                ask, body, parse, lambda members: {"options": {**(members.get("options") or {}), **options}, **more}
            )
        except UnkeyableError:
            return ask
    if keep_alive is None or b'"keep_alive"' in body:  # null, or text: the rest of the body stays byte for byte
        return ask
    head, brace, rest = body.partition(b"{")
    return replace(ask, forward=b'%s%s"keep_alive":%d,%s' % (head, brace, keep_alive, rest))


def describe(fill: Fill) -> str:
    """What is added, for people: `num_ctx 4096, keep_alive 30m`."""
    parts = [f"{name} {value}" for name, value in sorted(fill.options.items())]
    if fill.pins_num_ctx:
        parts.append("num_ctx as loaded")
    if fill.keep_alive_s is not None:
        parts.append(f"keep_alive {_spelled(fill.keep_alive_s)}{' at least' if fill.only_prolongs else ''}")
    return ", ".join(parts) or "nothing is added"


def _spelled(seconds: float) -> str:
    if seconds < 0:
        return "for ever"
    for unit, name in ((3600, "h"), (60, "m")):
        if seconds >= unit and seconds % unit == 0:
            return f"{seconds / unit:g}{name}"
    return f"{seconds:g}s"
