"""One Ollama with all that the proxy keeps about it: connections, places, lists, what is loaded, how it is.

Each of several has its own of everything, since nothing of one Ollama says anything about another. Refuses to know
that there are others: see `fleet.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from cacheproxy.model import Identity
from cacheproxy.trail import Trail
from cacheproxy.upstream.affinity import Standing
from cacheproxy.upstream.batcher import Batcher, PlacedReply
from cacheproxy.upstream.client import UpstreamClient
from cacheproxy.upstream.crowding import Crowding
from cacheproxy.upstream.health import Health
from cacheproxy.upstream.learnt import Learnt
from cacheproxy.upstream.loaded import Loaded
from cacheproxy.upstream.models import Models
from cacheproxy.upstream.order import Group
from cacheproxy.upstream.preload import Preloader
from cacheproxy.upstream.reply import UpstreamReply
from cacheproxy.upstream.request import UpstreamRequest


@dataclass(frozen=True, slots=True)
class Errand:
    """What a request wants of an Ollama. The defaults are those of one that only reads (`/api/tags`)."""

    identity: Identity | None = None
    """The model that it runs, loads or unloads; None: none that is installed."""
    group: Group | None = None
    """Whose place it waits for; None: it needs none here."""
    changes: bool = False
    """It may change something at the Ollama that gets it."""


@dataclass(frozen=True, slots=True)
class Member:
    """`name`: host and port, as operators see it; of several Ollamas no two have the same."""

    name: str
    url: str
    client: UpstreamClient
    batcher: Batcher
    models: Models
    loaded: Loaded
    preload: Preloader
    health: Health
    crowding: Crowding
    learnt: Learnt

    async def open(self) -> None:
        """Start looking. Returns at once, whether Ollama is there or not; nothing is preloaded yet."""
        await self.client.open()
        self.learnt.look()
        await self.models.open()
        await self.loaded.open()

    async def close(self) -> None:
        """End all that is under way."""
        await self.loaded.close()
        await self.learnt.close()
        await self.models.close()
        await self.batcher.close()
        await self.client.close()

    def standing(self, errand: Errand) -> Standing:
        """How it stands towards an ask."""
        group, identity = errand.group, errand.identity
        digest = identity.digest if identity is not None else ""
        return Standing(
            self.name,
            up=self.health.up,
            loaded=self.loaded.of(digest) is not None or self.batcher.runs(digest),
            rounds=self.batcher.rounds(group) if group is not None else 0,
        )

    async def send(
        self, request: Callable[[], UpstreamRequest], errand: Errand, trail: Trail | None, *, safe_to_repeat: bool
    ) -> UpstreamReply | PlacedReply:
        """Send in turn; returns when the reply's head has come. Whoever gets the reply must close it.

        `request` is asked for when the turn has come. What is being loaded ahead gives way. Raises what the client and
        the batcher raise.
        """

        def send() -> Awaitable[UpstreamReply]:
            return self.client.send(request(), safe_to_repeat=safe_to_repeat)

        if errand.identity is not None:
            self.preload.asked(errand.identity)
        reply = await (send() if errand.group is None else self.batcher.send(errand.group, send, trail))
        reply.source = self.name
        if errand.group is not None:
            self.loaded.answered(errand.group.model)
        return reply
