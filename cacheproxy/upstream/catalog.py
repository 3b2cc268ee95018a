"""What a model name stands for, over all Ollamas: the same questions as `Models`, asked of each of them.

A name may stand for different digests at different Ollamas. Then the first one in the config that is up and has the
name decides, so that all asks agree; only Ollamas that show the very same identity may answer for it. With one Ollama
every answer here is that Ollama's. Refuses to merge lists: what clients see of `/api/tags` is one Ollama's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractAsyncContextManager

from cacheproxy.model import Identity
from cacheproxy.upstream.member import Member
from cacheproxy.upstream.models import Models


class Catalog:
    """The lists of all `members`, in the order of the config; there is at least one."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members

    @property
    def first(self) -> Member:
        """The one that gets what changes models."""
        return self._members[0]

    @property
    def names(self) -> list[str]:
        """Models installed anywhere, as `ollama list` shows them."""
        return sorted({name for member in self._members for name in member.models.names})

    @property
    def reachable(self) -> bool:
        """Whether any Ollama gave its list when it was last asked."""
        return any(member.models.reachable for member in self._members)

    @property
    def reason(self) -> str:
        """Why no Ollama is reachable, as the first one says it; empty when one is."""
        return "" if self.reachable else self.first.models.reason

    @property
    def server_version(self) -> str:
        """The version of the first Ollama that is up."""
        return self._in_charge().models.server_version

    @property
    def mark(self) -> Hashable | None:
        """Stays equal as long as every name stands for what it stood for; None while no name has an identity."""
        if len(self._members) == 1:
            return self.first.models.mark
        if not self._settled:
            return None
        marks = tuple((member.models.mark, member.health.up) for member in self._members)
        return marks if any(mark is not None for mark, _ in marks) else None

    def identify(self, name: str) -> Identity | None:
        """The identity that counts for a name as a caller spelt it; None while it is unknown or a change is under way.

        A change anywhere counts: the Ollama that it happens at may decide the name when it has ended. With all of them
        away it is what the lists said last, for `upstream.digest_grace`.
        """
        return self._decide(lambda models: models.identify(name)) if self._settled else None

    def known(self, name: str) -> Identity | None:
        """The same, whatever the age of the lists."""
        return self._decide(lambda models: models.known(name))

    def name_of(self, digest: str) -> str:
        """The name of an installed model with this digest, as `ollama list` shows it; empty if there is none."""
        installed = (identity for member in self._members for identity in member.models.identities)
        return next((identity.short for identity in installed if identity.digest == digest), "")

    def digests(self, name: str) -> list[str]:
        """All that a name stands for anywhere."""
        found = (member.models.known(name) for member in self._members)
        return list(dict.fromkeys(identity.digest for identity in found if identity is not None))

    def having(self, identity: Identity) -> list[Member]:
        """The Ollamas that may answer for an identity: the same name, digest and version of Ollama.

        One at which a change passes through still counts: an ask that was keyed before goes where it would have gone.
        """
        return [member for member in self._members if member.models.has(identity)]

    def differing(self) -> list[str]:
        """Names that stand for something else at some Ollamas that are up, as `ollama list` shows them."""
        seen: dict[str, set[Identity]] = {}
        for member in self._members:
            for identity in member.models.identities if member.health.up else ():
                seen.setdefault(identity.short, set()).add(identity)
        return sorted(name for name, identities in seen.items() if len(identities) > 1)

    async def still(self, name: str, identity: Identity, source: str) -> bool:
        """Whether `name` stands for `identity` at the Ollama called `source`, in a list read after this call."""
        return await self._called(source).models.still(name, identity)

    async def prints_date(self, name: str, identity: Identity, source: str) -> bool:
        """Whether the model's template prints today's date, as the Ollama called `source` says."""
        return await self._called(source).models.prints_date(name, identity)

    def unknown_nowait(self) -> None:
        """Someone asked for a name without identity, or an Ollama did not find one: read the lists soon."""
        for member in self._members:
            member.models.unknown_nowait()

    async def wait_settled(self) -> None:
        """While a change passes through, wait for its end, for a moment at most."""
        if not self._settled:
            await asyncio.gather(*(member.models.wait_settled() for member in self._members))

    def changing(self) -> AbstractAsyncContextManager[None]:
        """A change passes through, to the first Ollama."""
        return self.first.models.changing()

    async def wait_first_read(self) -> None:
        """Wait until each Ollama has answered or refused for the first time."""
        await asyncio.gather(*(member.models.wait_first_read() for member in self._members))

    async def refresh(self) -> None:
        """Read all lists now."""
        await asyncio.gather(*(member.models.refresh() for member in self._members))

    @property
    def _settled(self) -> bool:
        return all(member.models.settled for member in self._members)

    def _decide(self, look: Callable[[Models], Identity | None]) -> Identity | None:
        """What the first Ollama that is up and knows finds; if none is, the first that knows."""
        last_known = None
        for member in self._members:
            found = look(member.models)
            if found is not None and member.health.up:
                return found
            last_known = last_known or found
        return last_known

    def _in_charge(self) -> Member:
        return next((member for member in self._members if member.health.up), self.first)

    def _called(self, name: str) -> Member:
        return next((member for member in self._members if member.name == name), self.first)
