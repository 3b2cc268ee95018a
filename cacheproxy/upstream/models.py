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
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from cacheproxy.clock import Clock
from cacheproxy.config import Upstream
from cacheproxy.errors import CacheError, UpstreamError
from cacheproxy.model import Identity

FetchJSON = Callable[[str, Any], Awaitable[Any]]
"""Target and body (None: GET) to parsed JSON. Raises UpstreamError."""

_Result = TypeVar("_Result")

_log = logging.getLogger("cacheproxy.upstream")

_PART = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,79}")
_HOST = re.compile(r"[a-z0-9_][a-z0-9_.:-]{0,349}")
_PRINTS_DATE = re.compile(r"currentDate|strftime_now|Current date", re.IGNORECASE)
_GO_SPACE = " \t\n\v\f\r\x85\xa0"
"""What Ollama trims off names (the part of it that ever comes)."""
UNKNOWN_REFRESH_S = 1.0
"""Least time between two reads that unknown names cause."""
SETTLE_WAIT_S = 1.0
"""The longest an ask waits for a change of models under way; copying and deleting take milliseconds."""
SPELLING_MAX = 200
"""Longest spelling remembered, characters, and"""
SPELLINGS_MAX = 1000
"""most of them; others are completed anew each time."""
FIRST_PAUSE_S = 0.2
"""Between two looks for the first list of all; twice as long after each that finds none, up to the regular time."""
REMEMBER_S = 60.0
"""How often an unchanged list is remembered again, so that its remembered age is right to this much."""


def canonical_name(name: str) -> str | None:
    """`host/namespace/model:tag` in lower case, as Ollama completes and compares names; None if it is not a name.

    `llama3`, `LLaMA3:latest` and `registry.ollama.ai/library/llama3` are one. A trailing `:local` only says where the
    model must be, and is cut; a `:cloud` source is left to Ollama (None), and so is a name that says both.
    """
    name = name.strip(_GO_SPACE)
    if not name.isascii():  # lower() would make a k of the Kelvin sign, which Ollama refuses
        return None
    name = name.lower()
    local = name.endswith(":local")
    name = name.removesuffix(":local").split("://", 1)[-1]
    path, _, tag = name.rpartition(":") if ":" in name.rsplit("/", 1)[-1] else (name, "", "latest")
    parts = path.split("/")
    if len(parts) > 3 or tag == "cloud" or (local and tag.endswith("-cloud")):
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
        self._mark = 0
        self._spelled: dict[str, Identity] = {}
        """What callers' spellings of known names stand for: asks use few, and completing a name takes 5 us."""
        self._read_at = float("-inf")
        self._unsettled = 0
        self._settled = asyncio.Event()
        self._settled.set()
        self._asked_at = float("-inf")
        self._lock = asyncio.Lock()
        self._remembered_at = float("-inf")
        self._queued: asyncio.Task[bool] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        """All that runs: the event loop itself keeps no strong reference to a task."""
        self._prints_date: dict[str, bool] = {}
        self._first_read = asyncio.Event()
        self.on_change: list[Callable[[], None]] = []
        """Called when what names stand for was read or a change has ended; must not raise."""
        self.before_change: list[Callable[[], Awaitable[None]]] = []
        """Awaited when a change begins, before it passes: whoever else identifies names must stop by then."""
        self.reachable = False
        self.reason = "not asked yet"
        """Why Ollama is not reachable; empty when it is."""
        self.server_version = ""

    async def open(self) -> None:
        """Start reading. Returns at once; until the first list is there nothing has an identity."""
        self._start(self._poll())

    async def close(self) -> None:
        """Stop reading."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, work: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @property
    def names(self) -> list[str]:
        """Installed models as `ollama list` shows them."""
        return sorted(identity.short for identity in self._known.values())

    @property
    def identities(self) -> list[Identity]:
        """What each installed name stood for in the last list."""
        return list(self._known.values())

    @property
    def mark(self) -> int | None:
        """Stays equal as long as every name stands for what it stood for; None while no name has an identity."""
        if self._unsettled or self._clock.monotonic() - self._read_at > self._settings.digest_grace:
            return None
        return self._mark

    def identify(self, name: str) -> Identity | None:
        """The identity of a name as a caller spelt it; None while it is unknown or a change is under way."""
        return None if self.mark is None else self.known(name)

    def known(self, name: str) -> Identity | None:
        """The identity a name had in the last list, whatever its age."""
        identity = self._spelled.get(name)
        if identity is not None:
            return identity
        canonical = canonical_name(name)
        identity = None if canonical is None else self._known.get(canonical)
        if identity is not None and len(name) <= SPELLING_MAX and len(self._spelled) < SPELLINGS_MAX:
            self._spelled[name] = identity
        return identity

    def name_of(self, digest: str) -> str:
        """The name of an installed model with this digest, as `ollama list` shows it; else the digest's beginning."""
        names = (identity.short for identity in self._known.values() if identity.digest == digest)
        return next(names, digest[:12])

    @property
    def trusted_s(self) -> float:
        """For how long the names of the last list have an identity; 0 while none has."""
        if self._unsettled:
            return 0.0
        return max(0.0, self._settings.digest_grace - (self._clock.monotonic() - self._read_at))

    def has(self, identity: Identity) -> bool:
        """Whether the last list, whatever its age, shows this very identity."""
        return self._known.get(identity.canonical) == identity

    @property
    def settled(self) -> bool:
        """False while a change passes through."""
        return not self._unsettled

    async def wait_settled(self) -> None:
        """While a change passes through, wait for its end, at most `SETTLE_WAIT_S`: what follows it then sees it."""
        if self._unsettled:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_WAIT_S):
                    await self._settled.wait()

    async def wait_first_read(self) -> None:
        """Wait until Ollama has answered or refused for the first time."""
        await self._first_read.wait()

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

        If none can be read then, every name stays unknown until one can. A change that broke off may have happened all
        the same, so the list is read then too, though nobody waits for it.
        """
        self._unsettled += 1
        self._settled.clear()
        try:
            for wait_told in self.before_change:
                await wait_told()
            yield
        except BaseException:
            self._start(self._settle())
            raise
        await asyncio.shield(self._start(self._settle()))

    async def _settle(self) -> None:
        try:
            if not await self.refresh():
                self._take({})
        finally:
            self._unsettled -= 1
            if not self._unsettled:
                self._settled.set()
            self._tell_change()

    def _tell_change(self) -> None:
        for tell in self.on_change:
            tell()

    async def refresh(self) -> bool:
        """Read the list; a read that had begun before this call does not count. False if Ollama gave none."""
        return await asyncio.shield(self._queue())

    def _queue(self) -> asyncio.Task[bool]:
        if self._queued is None:
            self._queued = self._start(self._read_in_turn())
        return self._queued

    async def _read_in_turn(self) -> bool:
        async with self._lock:
            self._queued = None  # from here on a caller needs a read after this one
            return await self._read()

    async def _read(self) -> bool:
        try:
            listed, version = await asyncio.gather(self._fetch("/api/tags", None), self._fetch("/api/version", None))
            told = str(version.get("version", "")) if isinstance(version, dict) else ""
            known = _identities(listed, told)
        except UpstreamError as error:
            return self._not_read(str(error))
        except Exception as error:  # noqa: BLE001 - a defect of ours or Ollama's: the reads go on
            return self._not_read(f"the list of models could not be read ({error!r})")
        if not self.reachable and self._first_read.is_set():
            _log.info("Ollama answers again")
        self.reachable, self.reason = True, ""
        self.server_version = told
        changed = self._take(known)
        self._read_at = self._clock.monotonic()
        self._first_read.set()
        self._on_read(True)
        self._tell_change()
        if changed or self._read_at - self._remembered_at >= REMEMBER_S:
            with contextlib.suppress(CacheError):
                await self._remember({"version": self.server_version, "tags": listed, "read": self._clock.now()})
                self._remembered_at = self._read_at
        return True

    def _not_read(self, reason: str) -> bool:
        if self.reachable:
            _log.warning("%s; names keep their last digests for %.0f s", reason, self._settings.digest_grace)
        self.reachable, self.reason = False, reason
        self._first_read.set()
        self._on_read(False)
        return False

    def _take(self, known: Mapping[str, Identity]) -> bool:
        """Names stand for this from now on; whether that is something else."""
        changed = known != self._known
        self._known = known
        if changed:
            self._mark += 1
            self._spelled.clear()
        return changed

    async def _poll(self) -> None:
        """Read for ever. A slow or failing read is simply followed by the next."""
        look: Callable[[], Awaitable[object]] = self._first_look
        while True:
            try:
                await look()
            except Exception:  # noqa: BLE001 - a defect must not end the reads
                _log.exception("the list of models was read, and then something failed; the reads go on")
            look = self.refresh
            await asyncio.sleep(self._settings.digest_ttl * 0.8)  # so that a change is seen within digest_ttl

    async def _first_look(self) -> None:
        if not await self.refresh():
            await self._take_remembered()

    async def _take_remembered(self) -> None:
        pause_s = FIRST_PAUSE_S
        while self._read_at == float("-inf"):
            try:
                kept = await self._recall()
            except CacheError:
                kept = None
            if isinstance(kept, dict) and isinstance(kept.get("read"), (int, float)) and not self.reachable:
                self.server_version = str(kept.get("version", ""))
                self._take(_identities(kept.get("tags"), self.server_version))
                self._read_at = self._clock.monotonic() - max(0.0, self._clock.now() - kept["read"])
                self._tell_change()
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, self._settings.digest_ttl * 0.8)
            await self.refresh()

    async def prints_date(self, name: str, identity: Identity) -> bool:
        """Whether the model's template prints today's date, so that its answers are old at midnight.

        Asks `/api/show` once a digest. True where Ollama does not say: an answer kept too short costs a hit, one kept
        too long is wrong.
        """
        if identity.digest not in self._prints_date:
            try:
                shown = await self._fetch("/api/show", {"model": name})
            except UpstreamError:
                return True
            template = shown.get("template", "") if isinstance(shown, dict) else ""
            self._prints_date[identity.digest] = bool(_PRINTS_DATE.search(str(template)))
        return self._prints_date[identity.digest]


def _identities(listed: Any, server_version: str) -> dict[str, Identity]:
    """The identities in a `/api/tags` reply; what is malformed in it is left out."""
    entries = listed.get("models") if isinstance(listed, dict) else None
    known = {}
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict):
            continue
        name = canonical_name(str(entry.get("model") or entry.get("name") or ""))
        digest = entry.get("digest")
        if name and isinstance(digest, str) and digest:
            remote = bool(entry.get("remote_host"))
            known[name] = Identity(name, digest, remote=remote, server_version=server_version)
    return known
