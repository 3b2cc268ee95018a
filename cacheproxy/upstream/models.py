"""Names to digests: what a model name stands for right now.

Entries are keyed by manifest digest, so a model that is pulled anew, copied or deleted needs no purge: its name simply
stands for another digest, or for none. The list of `/api/tags` is read every `upstream.digest_ttl`, after every
change that passes through the proxy, and after an answer before it is kept.
While Ollama is away the last list counts for `upstream.digest_grace`, so hits go on; it is remembered across restarts.
Refuses to guess: a name that is not in the list has no identity, and asks for it go around the cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from cacheproxy.clock import Clock
from cacheproxy.config import Upstream
from cacheproxy.errors import CacheError, UpstreamError
from cacheproxy.model import Identity

FetchJSON = Callable[[str, Any], Awaitable[Any]]
"""Target and body (None: GET) to parsed JSON. Raises UpstreamError."""

_log = logging.getLogger("cacheproxy.upstream")

_PART = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,79}")
_HOST = re.compile(r"[a-z0-9_][a-z0-9_.:-]{0,349}")
_PRINTS_DATE = re.compile(r"currentDate|strftime_now|Current date", re.IGNORECASE)
UNKNOWN_REFRESH_S = 1.0
"""Least time between two reads that unknown names cause."""


def canonical_name(name: str) -> str | None:
    """`host/namespace/model:tag` in lower case, as Ollama completes and compares names; None if it is not a name.

    `llama3`, `LLaMA3:latest` and `registry.ollama.ai/library/llama3` are one. A trailing `:local` only says where the
    model must be, and is cut; a `:cloud` source is left to Ollama (None).
    """
    name = name.strip().lower()
    name = name.removesuffix(":local")
    name = name.split("://", 1)[-1]
    path, _, tag = name.rpartition(":") if ":" in name.rsplit("/", 1)[-1] else (name, "", "latest")
    parts = path.split("/")
    if len(parts) > 3 or tag == "cloud":
        return None
    host, namespace, model = ["registry.ollama.ai", "library"][: 3 - len(parts)] + parts
    if not (_HOST.fullmatch(host) and all(_PART.fullmatch(part) for part in (namespace, model, tag))):
        return None
    return f"{host}/{namespace}/{model}:{tag}"


class Models:
    """The list of models, kept current.

    `remember` and `recall` keep the list where it outlives the process; both may raise CacheError, which costs
    nothing but the memory.
    """

    def __init__(
        self,
        fetch: FetchJSON,
        settings: Upstream,
        clock: Clock,
        *,
        remember: Callable[[Any], Awaitable[None]],
        recall: Callable[[], Awaitable[Any]],
        on_read: Callable[[bool], None] = lambda _ok: None,
    ) -> None:
        self._fetch = fetch
        self._settings = settings
        self._clock = clock
        self._remember = remember
        self._recall = recall
        self._on_read = on_read
        self._known: Mapping[str, Identity] = {}
        self._read_at = float("-inf")
        self._unsettled = 0
        self._asked_at = float("-inf")
        self._lock = asyncio.Lock()
        self._queued: asyncio.Task[bool] | None = None
        self._poller: asyncio.Task[None] | None = None
        self._prints_date: dict[str, bool] = {}
        self.reachable = False
        self.server_version = ""

    async def open(self) -> None:
        """Start reading. Returns at once; until the first list is there nothing has an identity."""
        self._poller = asyncio.create_task(self._poll())

    async def close(self) -> None:
        """Stop reading."""
        for task in (self._poller, self._queued):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    @property
    def names(self) -> list[str]:
        """Installed models as `ollama list` shows them."""
        return sorted(identity.short for identity in self._known.values())

    def identify(self, name: str) -> Identity | None:
        """The identity of a name as a caller spelt it; None while it is unknown or a change is under way."""
        if self._unsettled or self._clock.monotonic() - self._read_at > self._settings.digest_grace:
            return None
        canonical = canonical_name(name)
        return None if canonical is None else self._known.get(canonical)

    async def still(self, name: str, identity: Identity) -> bool:
        """Whether `name` stands for `identity` in a list read after this call; False if none can be read."""
        return await self.refresh() and self.identify(name) == identity

    def unknown_nowait(self) -> None:
        """Someone asked for a name without identity, or Ollama did not find one: read the list soon."""
        if self._clock.monotonic() - self._asked_at > UNKNOWN_REFRESH_S:
            self._asked_at = self._clock.monotonic()
            self._queue()

    @contextlib.asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        """A change passes through: inside, no name has an identity. Leaving awaits a fresh list.

        If none can be read then, every name stays unknown until one can.
        """
        self._unsettled += 1
        try:
            yield
            if not await self.refresh():
                self._known = {}
        finally:
            self._unsettled -= 1

    async def refresh(self) -> bool:
        """Read the list; a read that had begun before this call does not count. False if Ollama gave none."""
        return await asyncio.shield(self._queue())

    def _queue(self) -> asyncio.Task[bool]:
        if self._queued is None:
            self._queued = asyncio.create_task(self._read_in_turn())
        return self._queued

    async def _read_in_turn(self) -> bool:
        async with self._lock:
            self._queued = None  # from here on a caller needs a read after this one
            return await self._read()

    async def _read(self) -> bool:
        try:
            listed = await self._fetch("/api/tags", None)
            version = await self._fetch("/api/version", None)
        except UpstreamError as error:
            if self.reachable:
                _log.warning("%s; names keep their last digests for %.0f s", error, self._settings.digest_grace)
            self.reachable = False
            self._on_read(False)
            return False
        self.reachable = True
        self.server_version = str(version.get("version", "")) if isinstance(version, dict) else ""
        known = _identities(listed, self.server_version)
        changed = known != self._known
        self._known, self._read_at = known, self._clock.monotonic()
        self._on_read(True)
        if changed:
            with contextlib.suppress(CacheError):
                await self._remember({"version": self.server_version, "tags": listed, "read": self._clock.now()})
        return True

    async def _poll(self) -> None:
        """Read for ever. A slow or failing read is simply followed by the next."""
        if not await self.refresh():
            await self._take_remembered()
        while True:
            await asyncio.sleep(self._settings.digest_ttl * 0.8)  # so that a change is seen within digest_ttl
            await self.refresh()

    async def _take_remembered(self) -> None:
        while self._read_at == float("-inf"):
            try:
                kept = await self._recall()
            except CacheError:
                kept = None
            if isinstance(kept, dict) and not self.reachable:
                self.server_version = str(kept.get("version", ""))
                self._known = _identities(kept.get("tags"), self.server_version)
                age_s = max(0.0, self._clock.now() - float(kept.get("read", 0)))
                self._read_at = self._clock.monotonic() - age_s
                return
            await asyncio.sleep(0.2)
            await self.refresh()

    async def prints_date(self, name: str, identity: Identity) -> bool:
        """Whether the model's template prints today's date, so that its answers are old at midnight.

        Asks `/api/show` once a digest; False where Ollama does not say.
        """
        if identity.digest not in self._prints_date:
            try:
                shown = await self._fetch("/api/show", {"model": name})
            except UpstreamError:
                return False
            template = shown.get("template", "") if isinstance(shown, dict) else ""
            self._prints_date[identity.digest] = bool(_PRINTS_DATE.search(str(template)))
        return self._prints_date[identity.digest]


def _identities(listed: Any, server_version: str) -> dict[str, Identity]:
    """The identities in a `/api/tags` reply; what is malformed in it is left out."""
    entries = listed.get("models") if isinstance(listed, dict) else None
    known = {}
    for entry in entries or ():
        name = canonical_name(str(entry.get("model") or entry.get("name") or ""))
        digest = entry.get("digest")
        if name and isinstance(digest, str) and digest:
            remote = bool(entry.get("remote_host"))
            known[name] = Identity(name, digest, remote=remote, server_version=server_version)
    return known
