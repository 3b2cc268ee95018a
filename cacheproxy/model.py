"""The vocabulary: what an ask, an answer, an entry and an outcome are. Data only, and what it tells of itself.

Everything here is frozen, so it can be shared between tasks and compared in tests.
This module refuses to know bytes on the wire, Redis or time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

JSONObject: TypeAlias = Mapping[str, Any]


class Part(StrEnum):
    """A part of an answer that not every form of reply carries, so that an answer may lack it."""

    DURATIONS = "durations"
    COUNTS = "counts"
    """Numbers of tokens."""
    THINKING = "thinking"
    LOGPROBS = "logprobs"
    CONTEXT = "context"
    ENDING = "ending"
    """Whether it came to its own end or was cut off."""
    ENDING_OF_CALLS = "ending-of-calls"
    """The same, of an answer that calls tools."""
    TEXT_BESIDE_CALLS = "text-beside-calls"


Parts: TypeAlias = frozenset[Part]
ALL_THERE: Parts = frozenset()


class Outcome(StrEnum):
    """How an ask was answered. Closed: the number of asks is always the sum over these."""

    EXACT = "exact"
    SEMANTIC = "semantic"
    JOINED = "joined"
    MISS = "miss"
    BYPASS = "bypass"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class Identity:
    """What a model name stands for right now.

    `digest` is the manifest digest of `/api/tags` (64 hex); `canonical` the full name it was found under.
    `remote` is true for models that run elsewhere (Ollama's cloud), whose weights can change under one digest.
    `server_version` is Ollama's own, since defaults change between versions.
    """

    canonical: str
    digest: str
    remote: bool = False
    server_version: str = ""

    @property
    def short(self) -> str:
        """The name as `ollama list` shows it: without the default registry and namespace, with the tag."""
        return self.canonical.removeprefix("registry.ollama.ai/").removeprefix("library/")


@dataclass(frozen=True, slots=True)
class Ask:
    """One parsed request for an answer, free of everything that does not shape the answer.

    `canonical` holds, as sorted compact JSON, all that shapes the answer except the model's identity and the partition.
    Two asks of one `family` with equal `canonical` bytes, identity and partition may share an answer.
    """

    dialect: str
    """Name of the dialect that parsed it (`chat`, `generate`); it also renders the reply."""
    family: str
    """Asks of different families never share answers (a chat turn and a prompt are rendered differently)."""
    model: str
    """The caller's own spelling; echoed in the reply, never part of a key."""
    stream: bool
    canonical: bytes
    body: JSONObject
    """The normalised request that `canonical` was made from. Treated as immutable."""
    temperature: float | None = None
    """As asked for; None where the caller left it to the model."""
    logprobs: bool = False
    canonical_plain: bytes = b""
    """With `logprobs`: the canonical form of the same ask without them."""
    translated: bool = False
    """Keyed as the request of another route that Ollama makes of it, going by how today's Ollama does that."""
    name_matters: bool = False
    """True where Ollama acts on the model's name besides its weights (it strips thinking from history by name)."""
    keep_alive: object = None
    """As the caller wrote it; None when absent. Only matters to a hit's side effects."""
    controls: JSONObject = field(default_factory=dict)
    """Cache controls found in the body (`options.cache`), already taken out of `forward`."""
    needs: Parts = ALL_THERE
    """What a reply in the caller's form cannot be made without; an answer that lacks it is none for this ask."""
    lacks: Parts = ALL_THERE
    """What Ollama's own reply to this ask does not tell; it is known before the reply, so nobody waits for it."""
    with_usage: bool = False
    """A stream of OpenAI's form that ends with the number of tokens (`stream_options.include_usage`)."""
    echo: JSONObject = field(default_factory=dict)
    """What a reply in the caller's form repeats of the request, or estimates from it; asks of one key may differ."""
    forward: bytes | None = None
    """The body to send upstream where it differs from what the client sent; None: send the client's own bytes."""
    dropped: int = 0
    """Messages of the chat that were left out to fit the context."""

    def sent(self, body: bytes) -> bytes:
        """The body to send upstream for a client's `body`."""
        return body if self.forward is None else self.forward


@dataclass(frozen=True, slots=True)
class Answer:
    """One complete reply of a model, free of dialect and of the name the caller used.

    `final` holds the members of Ollama's last chunk that are neither text nor identity (durations in ns, token
    counts, and members newer than this program) in the order they came; what was absent stays absent.
    """

    text: str
    thinking: str = ""
    tool_calls: tuple[JSONObject, ...] = ()
    """In order; `arguments` keeps the order of its members."""
    logprobs: tuple[JSONObject, ...] = ()
    context: tuple[int, ...] | None = None
    """`/api/generate` only: the conversation encoded as tokens."""
    done_reason: str = "stop"
    final: JSONObject = field(default_factory=dict)
    missing: Parts = ALL_THERE
    """What the reply it was taken from did not tell: empty here means unknown, not absent."""


def entry_id(key: str) -> str:
    """The public name of the entry under a key: the key's hash."""
    return key.split(":answer:", 1)[-1].split(":", 1)[0]


@dataclass(frozen=True, slots=True)
class Entry:
    """An answer with what the cache knows of it.

    `check` is a keyed BLAKE2b-256 over partition, digest, family and canonical ask: the proof that this entry answers
    that ask, since the key's xxh3 is not collision-proof against an adversary (Cyan4973/xxHash #1127).
    """

    key: str
    check: bytes
    partition: str
    """Hex, fixed length; empty for asks without partition headers."""
    scope: str
    """Hex of the setting's hash; only entries of one scope are ever compared by meaning."""
    digest: str
    """Digest of the model that answered."""
    answer: Answer
    made: float
    """Unix time, s."""
    expires: float
    """Unix time, s; after it the entry may only be served as stale."""
    question: str = ""
    """The text compared by meaning; empty where near answers are off."""
    vector: bytes = b""
    """float32 little endian, unit length; empty where there is none, and in entries found by key, which need none."""
    space: str = ""
    """Whose vectors it may be compared with, as `store/entry.py` names an embedder's space; empty without vector."""

    @property
    def id(self) -> str:
        """The public name of the entry: the hash part of its key, as `X-Cache-Entry` shows it and purge takes it."""
        return entry_id(self.key)


@dataclass(frozen=True, slots=True)
class Plan:
    """What `rules/admit` decided for an ask.

    `reason` is empty when the ask may be cached; else why it goes around the cache (one word, closed list in
    `rules/admit.py`), and the keys are empty.
    """

    reason: str = ""
    key: str = ""
    check: bytes = b""
    partition: str = ""
    ttl_s: float = 0.0
    """How long an answer may be kept, before jitter; 0 means: look, but do not keep."""
    ttl_max_s: float = float("inf")
    """What jitter may not carry a lifetime past."""
    max_age_s: float | None = None
    """An entry older than this is a miss; None: no limit."""
    plain_key: str = ""
    """For an ask with logprobs: the key of the same ask without, which the same answer serves once they are cut."""
    plain_check: bytes = b""
    needs: Parts = ALL_THERE
    """An answer that lacks one of these is a miss; the fuller one then takes its place."""
    read: bool = True
    """False: the caller wants a fresh answer, which is kept (`Cache-Control: no-cache`)."""
    only_if_cached: bool = False
    stale_if_error_s: float = 0.0
    """An expired entry may serve for this long when Ollama cannot."""

    @property
    def entry_id(self) -> str:
        """The public name of the entry that its answer will be."""
        return entry_id(self.key)

    @property
    def cacheable(self) -> bool:
        """True when the ask takes part in the cache at all."""
        return not self.reason


@dataclass(frozen=True, slots=True)
class NearPlan:
    """What `rules/admit` decided about near answers to an ask, once there is no exact one.

    `off` is empty when they are allowed; else why not (one word), and the rest is empty.
    """

    off: str = ""
    question: str = ""
    """The only text compared by meaning."""
    scope: str = ""
    """Hex of the setting's hash; only entries of an equal scope are compared."""
    threshold: float = 1.0
    """Least similarity (0..1) at which a near entry may be served."""


@dataclass(frozen=True, slots=True)
class Match:
    """A stored entry near a question. `similarity` is the cosine, 1 = same."""

    entry: Entry
    similarity: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a match may be served; `reason` names the guard or limit that said no (`guard:numbers`)."""

    serve: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """The question, stored or in flight, that the near tier weighed for one ask, and what was decided on it."""

    entry: str
    """Id of its entry."""
    similarity: float
    """Cosine, 1 = same."""
    threshold: float
    """Least similarity at which it would have been served."""
    verdict: str
    """`serve`, or why not (`below_threshold`, `guard:numbers`, `feedback`)."""
    asked: str = ""
    """The question of the ask; empty unless prompts may be shown (`log.prompts`)."""
    stored: str = ""
    """The question of the entry; the same holds."""

    @property
    def served(self) -> bool:
        """True when the verdict was to serve it (in shadow mode: it would have been)."""
        return self.verdict == "serve"


@dataclass(frozen=True, slots=True)
class Decision:
    """How one ask was answered, told once when it has ended: counts, ledger, live views and traces are made of it."""

    outcome: Outcome
    dialect: str
    at: float
    """Unix time of its end, s."""
    seconds: float
    """From the parsed head of the request to the end of the reply."""
    first_byte_s: float | None = None
    """From there to the first byte of the reply's body, as it is handed to the connection; None: none was sent."""
    tier: str = "none"
    """Where the answer lay: `memory`, `redis`, or `none`."""
    model: str = ""
    """As `ollama list` shows it; empty for one that Ollama does not list."""
    partition: str = ""
    """Hex, fixed length; empty for asks without partition headers, and for those that went around the cache."""
    reason: str = ""
    """Why it went around the cache (one word of a closed list); empty unless the outcome is a bypass."""
    entry: str = ""
    """Id of the entry that answered."""
    age_s: float | None = None
    """Of that entry, when it answered; None where none did."""
    neighbour: Neighbour | None = None
    """None where nothing was compared by meaning, or nothing was near."""
    saved_s: float = 0.0
    """What Ollama took for the answer now given from the cache, as it said; 0 where that cannot be (`Tally`)."""
    saved_tokens: int = 0
    """Tokens of that answer."""
    trail: str = ""
    """The steps, `memory:no exact:no near:0.871`; no prompt text."""
    timings_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds by step (`labels.STEPS`)."""

    @property
    def by_meaning(self) -> bool:
        """True when the answer was that to a question in other words: a semantic hit, or joined while in flight."""
        return self.neighbour is not None and self.neighbour.served and self.entry == self.neighbour.entry
