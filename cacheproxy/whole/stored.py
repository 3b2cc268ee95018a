"""The parts that keep something, in Redis and in memory, built and joined.

Refuses to start anything, and to decide what is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

from cacheproxy.clock import Clock
from cacheproxy.config import Config
from cacheproxy.metrics import Fault, Metrics
from cacheproxy.store.account import Account
from cacheproxy.store.apart import Apart
from cacheproxy.store.connection import Connection
from cacheproxy.store.embedded import Embedded
from cacheproxy.store.exact import Exact
from cacheproxy.store.ledger import Ledger
from cacheproxy.store.memory import Memory
from cacheproxy.store.notes import Notes
from cacheproxy.store.semantic import Semantic
from cacheproxy.store.served import Pairings
from cacheproxy.store.shadow import Shadow
from cacheproxy.store.shelf import Shelf
from cacheproxy.store.size import Sizes


@dataclass(frozen=True, slots=True)
class Stored:
    """All of them. `embedded`: our own Redis, where none was named."""

    embedded: Embedded | None
    connection: Connection
    sizes: Sizes
    memory: Memory
    exact: Exact
    shelf: Shelf
    notes: Notes
    served: Pairings
    shadow: Shadow
    ledger: Ledger
    account: Account
    apart: Apart
    semantic: Semantic

    @classmethod
    def of(cls, config: Config, clock: Clock, metrics: Metrics) -> Stored:
        """Built. Who uses another Redis than before forgets what came from the one before."""
        prefix, prompts = config.redis.prefix, config.log.prompts
        embedded = Embedded(config.redis) if config.redis.url == "embedded" else None
        connection = Connection(config.redis, clock, embedded=embedded)
        connection.on_break.append(lambda: metrics.fault(Fault.BREAKER_OPENED))
        memory = Memory(config.cache.memory, clock)
        account = Account(connection, prefix, clock, prompts=prompts)
        connection.on_change += [memory.clear, account.forget]
        return cls(
            embedded=embedded,
            connection=connection,
            sizes=Sizes(connection),
            memory=memory,
            exact=Exact(connection, prefix),
            shelf=Shelf(connection, prefix),
            notes=Notes(connection, prefix),
            served=Pairings(connection, prefix),
            shadow=Shadow(connection, prefix, prompts=prompts),
            ledger=Ledger(connection, prefix, clock, metrics),
            account=account,
            apart=Apart(connection, prefix, clock),
            semantic=Semantic(connection, prefix, clock, metrics, timeout_s=config.redis.timeout),
        )
