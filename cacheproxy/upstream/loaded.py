"""What Ollama has in memory right now, read from `/api/ps`, and what callers have asked of it.

Read as often as the list of models, for as long as the proxy runs, and when a model answers that was not known to be
loaded. While it cannot be read nothing is known, and whoever builds on it must then do nothing.
Refuses to load or unload: see `preload.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cacheproxy.behind import end
from cacheproxy.errors import UpstreamError
from cacheproxy.model import Ask

LOOK_S_MIN = 0.1
"""Looks between the regular reads are at least this far apart: each is a small request. Twice as far after each that
does not find the model it was for, up to the regular time.
"""
FORGET_READS = 2
"""Reads in a row without a model, after which what callers asked of it is over: it was unloaded."""

_log = logging.getLogger("cacheproxy.upstream")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """One line of `/api/ps`."""

    name: str
    """As `ollama ps` shows it."""
    digest: str
    size_bytes: int
    """All memory it takes."""
    vram_bytes: int
    """The part of it on graphics cards."""
    context_length: int
    """Tokens; 0 where Ollama does not say."""
    expires: float
    """Unix time, s, at which Ollama drops it; moved by Ollama when a request ends."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What callers have asked of a model themselves since it was loaded."""

    num_ctx: int = 0
    """The last context length a caller chose; 0: none did."""
    keep_alive: bool = False
    """A caller said how long it shall stay."""

    @classmethod
    def of(cls, ask: Ask) -> Wish:
        """What one ask's caller chose."""
        num_ctx = ask.body.get("options", {}).get("num_ctx")
        chosen = isinstance(num_ctx, int) and num_ctx > 0
        return cls(num_ctx if chosen else 0, ask.keep_alive is not None)


_NO_WISH = Wish()


class Loaded:
    """The loaded models by digest, kept current. `every_s`: seconds between two reads."""

    def __init__(self, fetch: Callable[[], Awaitable[Any]], *, every_s: float) -> None:
        self._fetch = fetch
        self._every_s = every_s
        self.on_read: list[Callable[[], None]] = []
        """Called after each read."""
        self.on_forget: list[Callable[[], None]] = []
        """Called when what was read may be wrong and is forgotten."""
        self.on_wish: list[Callable[[str, Wish], None]] = []
        """Called with a model's digest when what callers asked of it has changed."""
        self._models: Mapping[str, LoadedModel] = {}
        self._wishes: dict[str, Wish] = {}
        self._unseen: dict[str, int] = {}
        self._reading: asyncio.Task[None] | None = None
        self._readable = False
        """Whether the last read told anything."""
        self._due = asyncio.Event()
        """Somebody wants to know now."""
        self._defects: set[str] = set()
        """What was logged of them."""
        self._wanted: set[str] = set()
        """Models that gave a reply without being known to be loaded."""
        self._forgotten = 0
        """How often; a read that was under way then does not count."""
        self._apart_s = LOOK_S_MIN
        """How long no look follows another."""

    @classmethod
    def of_another(cls) -> Loaded:
        """For what another process reads: nothing is known until `take`."""

        async def nothing() -> None:
            return None

        return cls(nothing, every_s=1.0)

    async def open(self) -> None:
        """Start reading. Returns at once; until the first read nothing is known."""
        self._reading = asyncio.create_task(self._poll())

    async def close(self) -> None:
        """Stop reading."""
        await end(self._reading)

    @property
    def readable(self) -> bool:
        """Whether the last read told anything."""
        return self._readable

    @property
    def models(self) -> list[LoadedModel]:
        """Those in memory, by name."""
        return sorted(self._models.values(), key=lambda model: model.name)

    def of(self, digest: str) -> LoadedModel | None:
        """The model with this digest; None if it is not loaded or nothing is known."""
        return self._models.get(digest)

    def wish(self, digest: str) -> Wish:
        """What callers asked of the model."""
        return self._wishes.get(digest, _NO_WISH)

    @property
    def wishes(self) -> Mapping[str, Wish]:
        """What callers asked, by digest."""
        return self._wishes

    def note(self, digest: str, ask: Ask) -> None:
        """Remember what the caller of an ask for an installed model chose itself."""
        self.wished(digest, Wish.of(ask))

    def wished(self, digest: str, more: Wish) -> None:
        """Remember what a caller asked of an installed model."""
        known = self.wish(digest)
        wish = Wish(more.num_ctx or known.num_ctx, known.keep_alive or more.keep_alive)
        self._unseen.pop(digest, None)
        if wish != known:
            self._wishes[digest] = wish
            for tell in self.on_wish:
                tell(digest, wish)

    def take(self, models: Iterable[LoadedModel], wishes: Mapping[str, Wish]) -> None:
        """Know what another process has read and been asked, and nothing else."""
        self._models = {model.digest: model for model in models}
        self._wishes = dict(wishes)

    def forget(self) -> None:
        """What is known may be wrong (a request that loads or unloads passed by): know nothing until the next read."""
        self._models = {}
        self._forgotten += 1
        for tell in self.on_forget:
            tell()

    def answered(self, digest: str) -> None:
        """A model gives a reply, so it is loaded; if that is not known, what is known is old, and is read soon."""
        if self._readable and digest not in self._models:
            self._wanted.add(digest)
            self._due.set()

    async def refresh(self) -> None:
        """Read now. Never raises. What may be wrong by the end of the read is not taken, and is read again soon."""
        forgotten = self._forgotten
        wanted, self._wanted = self._wanted, set()  # one that answers from here on may need another read
        self._due.clear()
        try:
            told = await self._fetch()
        except UpstreamError:
            told = None
        except Exception:  # noqa: BLE001 - a defect must not end the reads
            told = None
            self._defect("what Ollama has loaded could not be read")
        if told is not None and self._forgotten != forgotten:
            self._due.set()
            return
        self._readable = told is not None
        self._models = {model.digest: model for model in read(told)}
        if wanted:
            self._apart_s = LOOK_S_MIN if wanted <= self._models.keys() else 2 * self._apart_s
        self._wanted.difference_update(self._models)
        if not self._wanted:
            self._due.clear()
        for digest in list(self._wishes):
            self._unseen[digest] = 0 if digest in self._models else self._unseen.get(digest, 0) + 1
            if self._unseen[digest] >= FORGET_READS:
                del self._wishes[digest], self._unseen[digest]
        for tell in self.on_read:
            try:
                tell()
            except Exception:  # noqa: BLE001 - a defect must not end the reads
                self._defect("what Ollama has loaded was read, and then something failed")

    def _defect(self, what: str) -> None:
        """Log the exception being handled, the first of a kind only: reads come every few seconds."""
        if what not in self._defects:
            self._defects.add(what)
            _log.exception("%s; the reads go on", what)

    async def _poll(self) -> None:
        while True:
            await self.refresh()
            apart_s = min(self._apart_s, self._every_s)
            await asyncio.sleep(apart_s)
            with contextlib.suppress(TimeoutError):  # not `wait_for`: up to Python 3.11 it may lose a cancellation
                async with asyncio.timeout(self._every_s - apart_s):
                    await self._due.wait()


def read(told: Any) -> list[LoadedModel]:
    """The models in a `/api/ps` reply; what is malformed in it is left out. Pure."""
    entries = told.get("models") if isinstance(told, dict) else None
    found = []
    for entry in entries if isinstance(entries, list) else ():
        with contextlib.suppress(ValueError, TypeError, KeyError, OverflowError):
            found.append(
                LoadedModel(
                    name=str(entry["name"]),
                    digest=str(entry["digest"]),
                    size_bytes=int(entry.get("size", 0)),
                    vram_bytes=int(entry.get("size_vram", 0)),
                    context_length=int(entry.get("context_length", 0)),
                    expires=datetime.fromisoformat(entry["expires_at"]).timestamp(),
                )
            )
    return found
