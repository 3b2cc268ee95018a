"""What another process must know of the models to key asks as this one does, and what it knows by it.

The main process makes a `View` of its models, and a front holds the last one in a `Replica`. A view counts for a time:
while a change of models passes through there is none that says anything, and whoever loses the main process knows
nothing from then on. Refuses to read anything from Ollama.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cacheproxy.clock import Clock
from cacheproxy.model import Ask, Identity
from cacheproxy.upstream.fleet import Fleet
from cacheproxy.upstream.loaded import Loaded, LoadedModel, Wish
from cacheproxy.upstream.models import canonical_name


@dataclass(frozen=True, slots=True)
class View:
    """What is known at one moment. The default knows nothing."""

    trusted_s: float = 0.0
    """How long names have these identities, s."""
    identities: tuple[Identity, ...] = ()
    loaded: tuple[LoadedModel, ...] = ()
    wishes: Mapping[str, Wish] = field(default_factory=dict)
    """What callers asked of a model, by digest."""
    tells_loaded: bool = True
    """Whether `loaded` is what is loaded where an ask would go; with several Ollamas only the main process can say."""


def view_of(fleet: Fleet) -> View:
    """What is known now. What Ollama names in text that UTF-8 cannot carry is left out: nobody needs it.

    With several Ollamas nobody else can say where an ask would go, so what these have loaded is left out too.
    """
    listed = [models for member in fleet.members if (models := member.models).trusted_s]
    names = {identity.canonical for models in listed for identity in models.identities}
    found = (fleet.models.identify(name) for name in sorted(names))
    identities = tuple(one for one in found if one is not None and _is_plain(one.digest + one.server_version))
    digests = {identity.digest for identity in identities}
    loaded = fleet.members[0].loaded
    alone = len(fleet.members) == 1
    return View(
        min((models.trusted_s for models in listed), default=0.0),
        identities,
        tuple(replace(model, name="") for model in loaded.models if alone and model.digest in digests),
        {digest: wish for digest, wish in loaded.wishes.items() if digest in digests},
        alone,
    )


def _is_plain(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Replica:
    """Names to identities by the last view taken; `ollama` is what that view says of the loaded models."""

    def __init__(self, ollama: Loaded, clock: Clock) -> None:
        self.ollama = ollama
        self._clock = clock
        self._known: Mapping[str, Identity] = {}
        self._until_s = 0.0
        self._mark = 0
        self.tells_loaded = False
        """As the view's."""

    def take(self, view: View) -> None:
        """Know this and nothing else."""
        known = {identity.canonical: identity for identity in view.identities}
        if known != self._known:
            self._known = known
            self._mark += 1
        self._until_s = self._clock.monotonic() + view.trusted_s
        self.tells_loaded = view.tells_loaded
        self.ollama.take(view.loaded, view.wishes)

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

    def note(self, identity: Identity, ask: Ask) -> None:
        """Remember what the caller of an ask chose itself."""
        self.ollama.note(identity.digest, ask)

    def loaded(self, identity: Identity) -> Loaded:  # noqa: ARG002 - as a fleet, which may have several
        """What is loaded where an ask for this model would go now."""
        return self.ollama
