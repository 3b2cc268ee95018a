"""What the program counts, as tables: each figure once, with its unit and a sentence that says when to worry.

Data only: who counts is `metrics.py`, how it is shown is `exposition.py` and `snapshot.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cacheproxy.counting.labels import Labels

PREFIX = "cacheproxy_"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. `name` lacks the prefix; `worry` is the sentence that says when an operator should act."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: Labels
    meaning: str
    worry: str
    read: bool = False
    """Of a counter: another part keeps it, and it is read when somebody looks. Gauges always are."""


FAMILIES = (
    Family(
        "asks_total",
        "counter",
        ("outcome", "dialect", "model", "tier"),
        "Asks for an answer, by how they were answered.",
        "Worry when the share of misses rises and your users' habits have not changed.",
    ),
    Family(
        "bypass_total",
        "counter",
        ("reason",),
        "Asks that went around the cache, by reason.",
        "Worry when one reason dominates: those callers get nothing from the cache.",
    ),
    Family(
        "ask_duration_seconds",
        "histogram",
        ("outcome", "tier"),
        "Time from a parsed ask to the end of its reply.",
        "Worry when exact answers take more than 50 ms: Redis or this process is short of something.",
    ),
    Family(
        "first_byte_seconds",
        "histogram",
        ("outcome", "tier"),
        "Time from a parsed ask to the first byte of its reply's body; an ask whose caller left before that has none.",
        "Worry when that of misses grows and `upstream_first_byte` does not: they wait for a place at Ollama.",
    ),
    Family(
        "step_duration_seconds",
        "histogram",
        ("step",),
        "Time spent in one step of an ask.",
        "Worry when `exact` nears `redis.timeout`, or `queue` outgrows `upstream_total`.",
    ),
    Family(
        "budget_breaches_total",
        "counter",
        ("step",),
        "Times a step of an ask took longer than its limit in `[budgets]`.",
        "Worry when it is more than 1 in 100 of `step_duration_seconds_count`: that step is short of something.",
    ),
    Family(
        "budget_seconds",
        "gauge",
        ("step",),
        "The limit of a step in `[budgets]`; absent for a step without.",
        "Worry never; it is there so that a picture can show the line.",
    ),
    Family(
        "similarity",
        "histogram",
        ("decision",),
        "Similarity (cosine) of the neighbour that was weighed, one an ask: `served` (in shadow mode it would have "
        "been), `below` the threshold, or `guarded` (a guard or feedback said no).",
        "Worry when `served` piles up just above the threshold, where a small change decides much: see the pairs.",
    ),
    Family(
        "wrong_hit_ratio",
        "gauge",
        (),
        "Estimate from below: answers reported as wrong by `/feedback`, in proportion to those given by meaning "
        "(semantic hits, and asks that joined one in other words) in the last day by this proxy. Absent without any.",
        "Worry above 0.01. 0 says only that nobody reported one; where nobody gives feedback it says nothing.",
    ),
    Family(
        "entry_age_seconds",
        "histogram",
        ("outcome",),
        "Age of the entry that answered.",
        "Worry when most answers are nearly as old as `cache.ttl` and your subject changes: shorten it.",
    ),
    Family(
        "near_total",
        "counter",
        ("verdict",),
        "Asks without an exact answer that had a neighbour, by what was decided on it: `serve` or why not.",
        "Worry when one guard takes most of what would be served; look at its pairs in shadow mode.",
    ),
    Family(
        "near_joined_total",
        "counter",
        (),
        "Asks that got the answer to a question in other words while it was being given (`semantic.join`).",
        "Worry when bad feedback comes with it: raise the threshold, or switch joining off.",
    ),
    Family(
        "questions_too_long_total",
        "counter",
        (),
        "Questions that the embedder does not read to their end; they are compared word for word only.",
        "Worry when it is a good part of the asks: their users get no hits by meaning.",
        read=True,
    ),
    Family(
        "vectors_computed_total",
        "counter",
        (),
        "Questions whose vector was computed.",
        "Worry never; what is asked again is remembered.",
        read=True,
    ),
    Family(
        "vector_batches_total",
        "counter",
        (),
        "Rounds in which they were computed; `vectors_computed_total` by it is the size of a batch.",
        "Worry never; batches of one mean that nobody had to wait.",
        read=True,
    ),
    Family(
        "embedder_info",
        "gauge",
        ("model", "engine", "space"),
        "Always 1; the labels say what makes vectors, and in which space. Absent while nothing does.",
        "Worry when proxies that share a Redis differ in `space`: they do not find each other's answers by meaning.",
    ),
    Family(
        "feedback_total",
        "counter",
        ("verdict",),
        "What callers said of hits, `good` or `bad`.",
        "Worry about every bad one: raise the threshold for that model.",
    ),
    Family(
        "faults_total",
        "counter",
        ("kind",),
        "Things that went wrong and were survived, by kind.",
        "Worry when one kind keeps rising; `check_mismatch` and `internal` deserve a look at the first.",
    ),
    Family(
        "kept_total", "counter", (), "Answers written to the cache.", "Worry when it stands still while misses rise."
    ),
    Family(
        "kept_bytes_total",
        "counter",
        (),
        "Bytes of the entries written.",
        "Worry when one TTL's worth of it exceeds `redis.memory`: entries leave before they expire.",
    ),
    Family(
        "not_kept_total",
        "counter",
        ("reason",),
        "Answers that were not kept, by reason.",
        "Worry when it is most of the misses; the reason says which setting or model is behind it.",
    ),
    Family(
        "saved_seconds_total",
        "counter",
        (),
        "Estimate: seconds Ollama took for the answers now given from the cache.",
        "Worry never; it is what the cache is for.",
    ),
    Family(
        "saved_tokens_total",
        "counter",
        (),
        "Tokens of the answers given from the cache.",
        "Worry never; it is what the cache is for.",
    ),
    Family(
        "passed_through_total",
        "counter",
        ("path_class", "status"),
        "Requests that are not asks, relayed as they are.",
        "Worry when 502 or 504 appear: Ollama was away.",
    ),
    Family(
        "upstream_asks_total",
        "counter",
        ("upstream",),
        "Requests for a model that were sent to an Ollama (host and port), by which one.",
        "Worry when one gets nothing for an hour: it is down, or its models are not the same as the others'.",
    ),
    Family(
        "upstream_failovers_total",
        "counter",
        ("upstream",),
        "Requests that an Ollama did not take, and that went on to another before the first byte of a reply.",
        "Worry when it keeps rising for one of them: it comes and goes.",
    ),
    Family(
        "model_changes_total",
        "counter",
        (),
        "Misses for a model that was not among the last ones in use, so that Ollama had to load it.",
        "Worry when it rises with every few misses: models push each other out; see `upstream.models_at_once`.",
    ),
    Family(
        "embeds_merged_total",
        "counter",
        (),
        "Asks for vectors that went to Ollama in one call with others (`batching.merge_embeds`).",
        "Worry never; when it stands still, nobody had to wait.",
    ),
    Family(
        "context_trimmed_total",
        "counter",
        (),
        "Chats that were too long for the model's context and lost their oldest turns.",
        "Worry when it is most of the chats: a larger `num_ctx`, or apps that summarise, would serve them better.",
    ),
    Family(
        "context_dropped_total",
        "counter",
        (),
        "Messages that those chats lost.",
        "Worry with the above.",
    ),
    Family(
        "loads_total",
        "counter",
        ("reason", "result"),
        "Models loaded before they were asked for, by reason (`configured`, `predicted`) and what came of it.",
        "Worry when most are `called-off`: somebody always asks for another model first.",
    ),
    Family(
        "loaded_bytes",
        "gauge",
        ("model",),
        "Memory that a loaded model takes, as Ollama says.",
        "Worry when the sum nears what the machine has: the next load pushes one out.",
    ),
    Family(
        "loaded_vram_bytes",
        "gauge",
        ("model",),
        "The part of it on graphics cards.",
        "Worry when it is less than `loaded_bytes`: the rest runs on the processor, many times slower.",
    ),
    Family(
        "asks_in_flight",
        "gauge",
        (),
        "Asks being answered now.",
        "Worry when it grows and never falls: Ollama is too slow for the load.",
    ),
    Family(
        "upstream_up",
        "gauge",
        ("upstream",),
        "1 while asks are sent to an Ollama, 0 while it is taken for away.",
        "Worry when 0 for a minute; with `upstream.others` the rest carry its load.",
    ),
    Family(
        "models_at_once",
        "gauge",
        ("upstream",),
        "Models that may run at an Ollama at the same time: `upstream.models_at_once`, or what is seen to fit.",
        "Worry when 1 although all your models fit into memory together: then they take turns that need not.",
    ),
    Family(
        "upstream_in_flight",
        "gauge",
        (),
        "Requests that hold a place at Ollama now.",
        "Worry when it stays at `upstream.parallel`: callers are queueing.",
    ),
    Family(
        "queue_length",
        "gauge",
        (),
        "Misses that wait for a place at Ollama now.",
        "Worry when it nears `upstream.queue`: beyond it callers see 503.",
    ),
    Family(
        "memory_bytes",
        "gauge",
        (),
        "Bytes held by the process's own tier.",
        "Worry when it is above `cache.memory`.",
    ),
    Family(
        "memory_entries",
        "gauge",
        (),
        "Entries in the process's own tier.",
        "Worry when it is few while `memory_bytes` is full: single answers are very large.",
    ),
    Family(
        "workers",
        "gauge",
        (),
        "Processes that answer on the port, this one included.",
        "Worry when it is less than `workers_configured` for more than a few seconds.",
    ),
    Family("workers_configured", "gauge", (), "How many there should be: `server.workers`.", "Worry never."),
    Family(
        "ledger_waiting",
        "gauge",
        (),
        "Counts that wait to be written to the ledger in Redis.",
        "Worry when it keeps growing while `redis_up` is 1: Redis refuses the ledger's script; the log says why.",
    ),
    Family(
        "dependency_up",
        "gauge",
        ("name",),
        "1 while a part works as it should: `redis`, `upstream`, `embedder` (absent where it is not wanted).",
        "Worry when 0 for a minute; `/readyz` says why.",
    ),
    Family(
        "redis_memory_bytes",
        "gauge",
        (),
        "Memory that Redis uses, for all that lies in it. Absent while it is away, and for a cluster; so are the next.",
        "Worry when it nears what the machine has.",
    ),
    Family(
        "redis_memory_max_bytes",
        "gauge",
        (),
        "What it may use (`maxmemory`); 0: there is no limit.",
        "Worry when 0 and Redis is not yours alone: the cache grows until the machine is full.",
    ),
    Family(
        "redis_keys",
        "gauge",
        (),
        "Keys in its database: entries, what this program notes beside them, and what others keep there.",
        "Worry when it falls while nobody purges: see the next.",
    ),
    Family(
        "redis_evicted_keys_total",
        "counter",
        (),
        "Keys that Redis threw out to make room, since its own start; those that expired are not counted.",
        "Worry when it keeps rising: answers leave before `cache.ttl`; give Redis more memory (`redis.memory`).",
        read=True,
    ),
    Family(
        "near_index_entries",
        "gauge",
        (),
        "Entries in the index that near look-ups search, as last looked at (every 10 s); absent without an index.",
        "Worry when it stays far below `redis_keys`, but for the hours after a new `embedding.model`.",
    ),
    Family(
        "near_index_refused",
        "gauge",
        (),
        "Entries that this index could not take, for their vectors have another length.",
        "Worry at any: something else writes under this `redis.prefix`, and those entries are found by key only.",
    ),
    Family("redis_up", "gauge", (), "1 while Redis answers.", "Worry when 0 for a minute: every miss goes to Ollama."),
    Family(
        "breaker_open",
        "gauge",
        (),
        "1 while Redis is left alone after failures.",
        "Worry when it flaps: Redis is overloaded rather than gone.",
    ),
    Family("start_time_seconds", "gauge", (), "Unix time of this start.", "Worry when it changes by itself."),
    Family(
        "config_last_reload_successful",
        "gauge",
        (),
        "1 if the configuration was fine when it was last read, at the start or by SIGHUP; 0 if it was refused.",
        "Worry when 0: the settings from before are in use; the log says what is wrong with the new ones.",
    ),
    Family(
        "config_last_reload_success_timestamp_seconds",
        "gauge",
        (),
        "Unix time at which a configuration was last taken over, at the start or by SIGHUP.",
        "Worry when it is older than your last change of the file.",
    ),
    Family(
        "build_info",
        "gauge",
        ("version", "python"),
        "Always 1; the labels say what is running.",
        "Worry when proxies that share a Redis differ for longer than a roll-out takes.",
    ),
)
