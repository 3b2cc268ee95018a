"""What another process must know of the models to key asks as this one does, and what it knows by it.

The main process makes a `View` of its models, and a front holds the last one in a `Replica`. A view counts for a time:
while a change of models passes through there is none that says anything, and whoever loses the main process knows
nothing from then on. Refuses to read anything from Ollama.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cacheproxy.clock import Clock
from cacheproxy.model import Identity
from cacheproxy.upstream.loaded import Loaded, LoadedModel, Wish
from cacheproxy.upstream.models import Models, canonical_name


@dataclass(frozen=True, slots=True)
class View:
    """What is known at one moment. The default knows nothing."""

    trusted_s: float = 0.0
    """How long names have these identities, s."""
    identities: tuple[Identity, ...] = ()
    loaded: tuple[LoadedModel, ...] = ()
    wishes: Mapping[str, Wish] = field(default_factory=dict)
    """What callers asked of a model, by digest."""


def view_of(models: Models, loaded: Loaded) -> View:
    """What these know now. What Ollama names in text that UTF-8 cannot carry is left out: nobody needs it."""
    trusted_s = models.trusted_s
    identities = tuple(models.identities) if trusted_s else ()
    identities = tuple(one for one in identities if _is_plain(one.digest + one.server_version))
    digests = {identity.digest for identity in identities}
    return View(
        trusted_s,
        identities,
        tuple(replace(model, name="") for model in loaded.models if model.digest in digests),
        {digest: wish for digest, wish in loaded.wishes.items() if digest in digests},
    )


def _is_plain(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Replica:
    """Names to identities by the last view taken; `loaded` is what that view says of the loaded models."""

    def __init__(self, loaded: Loaded, clock: Clock) -> None:
        self.loaded = loaded
        self._clock = clock
        self._known: Mapping[str, Identity] = {}
        self._until_s = 0.0
        self._mark = 0

    def take(self, view: View) -> None:
        """Know this and nothing else."""
        known = {identity.canonical: identity for identity in view.identities}
        if known != self._known:
            self._known = known
            self._mark += 1
        self._until_s = self._clock.monotonic() + view.trusted_s
        self.loaded.take(view.loaded, view.wishes)

    @property
    def mark(self) -> int | None:
        """Stays equal as long as every name stands for what it stood for; None while no name has an identity."""
        return None if self._clock.monotonic() >= self._until_s else self._mark

    def identify(self, name: str) -> Identity | None:
        """The identity of a name as a caller spelt it; None while it is unknown or a change is under way."""
        if self.mark is None:
            return None
        canonical = canonical_name(name)
        return None if canonical is None else self._known.get(canonical)
