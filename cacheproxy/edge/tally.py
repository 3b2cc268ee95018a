"""What will be told of a call when it ends, gathered while it is answered; and how many are.

Refuses to decide anything: handlers write down what they found, and `decision` words it once.
"""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from cacheproxy.clock import Clock
from cacheproxy.edge.fixed import Sent
from cacheproxy.edge.plain import Plain
from cacheproxy.flow.found import Hit
from cacheproxy.model import Answer, Decision, Outcome
from cacheproxy.trail import Trail

SAVED_S_MAX, SAVED_TOKENS_MAX = 86_400, 10_000_000
"""No answer takes longer or is longer; a figure beyond saves nothing."""


class InFlight:
    """How many calls are being answered."""

    def __init__(self) -> None:
        self.count = 0


@dataclass(slots=True)
class Tally:
    """One call's; the defaults hold for one that failed before anything was found."""

    outcome: Outcome = Outcome.MISS
    tier: str = "none"
    model: str = ""
    partition: str = ""
    reason: str = ""
    entry: str = ""
    age_s: float | None = None
    saved_s: float = 0.0
    saved_tokens: int = 0
    at_once: bool = False
    """The reply goes out in one go: its first byte is out when its last is."""

    def bypass(self, reason: str) -> None:
        """It goes around the cache; `reason` is one word."""
        self.outcome, self.reason = Outcome.BYPASS, reason

    def hit(self, found: Hit, clock: Clock) -> None:
        """It gets what is stored."""
        self.outcome, self.tier, self.entry = found.outcome, found.tier, found.entry.id
        self.age_s = clock.now() - found.entry.made
        self.save(found.entry.answer)

    def save(self, answer: Answer) -> None:
        """The answer now given from the cache; what Ollama once said that it took is saved."""
        self.save_s(_number(answer.final.get("total_duration")) / 1e9)
        tokens = _number(answer.final.get("eval_count"))
        self.saved_tokens = int(tokens) if 0 < tokens <= SAVED_TOKENS_MAX else 0

    def save_s(self, seconds: float) -> None:
        """So much of Ollama's time is saved.

        What no answer can have taken is none: whoever counts trusts this, and no count may fall or become infinite.
        """
        self.saved_s = seconds if 0 < seconds <= SAVED_S_MAX else 0.0

    def replied(self, reply: web.StreamResponse) -> None:
        """It gets this reply. When the first byte of one that is streamed went out, its trail was told."""
        self.at_once = type(reply) in (Sent, Plain)

    def decision(self, dialect: str, trail: Trail, clock: Clock) -> Decision:
        """The call has ended now."""
        seconds = trail.elapsed_s()
        return Decision(
            self.outcome,
            dialect,
            clock.now(),
            seconds,
            seconds if self.at_once and trail.first_byte_s is None else trail.first_byte_s,
            tier=self.tier,
            model=self.model,
            partition=self.partition,
            reason=self.reason,
            entry=self.entry,
            age_s=self.age_s,
            neighbour=trail.neighbour,
            saved_s=self.saved_s,
            saved_tokens=self.saved_tokens,
            trail=str(trail),
            timings_s=trail.timings_s,
        )


def _number(value: object) -> float:
    """A figure of Ollama's, which counts in 64 bits; 0 for what is none."""
    return float(value) if isinstance(value, (int, float)) and abs(value) < 2.0**63 else 0.0
