"""What is asked of Redis's search module, and what its replies mean. Pure.

redisvl says what the index and the query are; Redis speaks distance, which becomes similarity here and nowhere else.
Replies are read as RESP2 and as RESP3 write them. Nothing a caller wrote is part of a query: scope and vector travel
as parameters. Refuses to talk to Redis.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from redisvl.query import VectorQuery
from redisvl.query.filter import FilterExpression
from redisvl.schema import IndexSchema

from cacheproxy.store import entry as entry_codec

Algorithm: TypeAlias = Literal["flat", "hnsw"]

_NAMES = tuple(name.encode() for name in entry_codec.FIELDS)

SCHEMA_VERSION = 2
"""In the index's name; grows when the indexed fields change, so that two versions of this program never share one."""

ROUNDING_MAX = 0.01
"""How far beyond 1 a similarity may lie: some processors add up float16 in float16, and reach 1.002."""


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a reply."""

    key: str
    values: tuple[bytes | None, ...]
    """Of the entry's fields, in the order of `entry.FIELDS`; empty for one that has expired and is not yet out of the
    index."""
    similarity: float


@dataclass(frozen=True, slots=True)
class About:
    """What FT.INFO says of an index."""

    shape: frozenset[tuple[str, ...]]
    """All that decides whether the index is ours: keys, filter, and each field's kind."""
    documents: int
    failures: int
    indexed: float
    """Share of the entries that a new index has taken in, 0..1."""


@dataclass(frozen=True, slots=True)
class Index:
    """What is asked of Redis for one embedder's vectors: a name, how to make it, how to recognise it, how to ask it."""

    name: str
    space: str
    create: tuple[Any, ...]
    """FT.CREATE with its arguments."""
    shape: frozenset[tuple[str, ...]]
    """What FT.INFO must say of it."""
    query: str
    """With `{alias}` for the name of the distance."""

    def search(self, scope: str, vector: bytes, *, alias: str, k: int, timeout_ms: int) -> tuple[Any, ...]:
        """FT.SEARCH for the `k` nearest of a scope, answers included, distances under the name `alias`.

        `vector`: float16, as `halved` makes it.
        """
        return (
            "FT.SEARCH", self.name, self.query.replace("{alias}", alias),
            "RETURN", len(entry_codec.FIELDS) + 1, *entry_codec.FIELDS, alias,
            "SORTBY", alias, "ASC", "LIMIT", 0, k, "TIMEOUT", timeout_ms,
            "PARAMS", 6, "scope", scope, "vector", vector, "k", k, "DIALECT", 2,
        )  # fmt: skip


def index_for(prefix: str, fingerprint: str, dims: int, algorithm: Algorithm = "flat") -> Index:
    """The index of an embedder's entries under `redis.prefix`. Pure.

    FLAT, by measurement (docs/explain/near-lookups.md): it is exact, compares only the entries of a scope, makes writes
    hardly slower, and has 10,000 entries indexed in 0.1 s, HNSW in 2.4 s.
    """
    space = entry_codec.space_of(fingerprint, dims)
    field, keys = entry_codec.vector_field(space), f"{prefix}:answer:"
    tag = {"type": "tag", "attrs": {"case_sensitive": True}}
    shape = {"dims": dims, "algorithm": algorithm, "distance_metric": "cosine", "datatype": "float16"}
    schema = IndexSchema.from_dict(
        {
            "index": {"name": f"{prefix}:near:{fingerprint}:{dims}:{SCHEMA_VERSION}", "prefix": keys},
            "fields": [
                *({"name": name, **tag} for name in ("scope", "model", "partition")),
                {"name": field, "type": "vector", "attrs": shape},
            ],
        }
    )
    attributes = [_plain(argument) for part in schema.redis_fields for argument in part.redis_args()]
    # The filter keeps out entries without such a vector, and so those of every later embedder: an index nobody uses
    # any more costs nothing once its entries have expired.
    only = f"exists(@{field})"
    create = ("FT.CREATE", schema.index.name, "ON", "HASH", "PREFIX", 1, keys, "FILTER", only, "SCHEMA", *attributes)
    query = VectorQuery(
        vector=bytes(2 * dims),
        dtype="float16",
        vector_field_name=field,
        filter_expression=FilterExpression("@scope:{$scope}"),
        num_results=0,
        dialect=2,
    )
    return Index(
        name=schema.index.name,
        space=space,
        create=create,
        shape=frozenset(
            {
                ("prefix", keys),
                ("filter", only),
                *((name, "TAG", "CASESENSITIVE") for name in ("scope", "model", "partition")),
                (field, "VECTOR", algorithm.upper(), "FLOAT16", str(dims), "COSINE"),
            }
        ),
        query=str(query.query_string()).replace("KNN 0", "KNN $k").replace(VectorQuery.DISTANCE_ID, "{alias}"),
    )


def neighbours(reply: Any, alias: str) -> list[Document]:
    """The documents of an FT.SEARCH, in its order. Raises ValueError for anything that is not the reply asked for."""
    try:
        name = alias.encode()
        return [_neighbour(key, fields, name) for key, fields in _documents(reply)]
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ValueError("not a reply to FT.SEARCH") from None


def timed_out(reply: Any) -> bool:
    """Whether Redis gave up and says so beside what it had; only RESP3 has a place for that."""
    warnings = reply.get(b"warning", ()) if isinstance(reply, Mapping) else ()
    return any(b"timeout" in bytes(warning).lower() for warning in warnings)


def about(reply: Any) -> About:
    """What an FT.INFO says. Raises ValueError for anything else."""
    try:
        facts = _mapping(reply)
        return About(
            shape=_shape(facts),
            documents=int(facts["num_docs"]),
            failures=int(facts["hash_indexing_failures"]),
            indexed=float(facts["percent_indexed"]),
        )
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ValueError("not a reply to FT.INFO") from None


def _similarity(distance: bytes | None) -> float:
    """Cosine similarity, -1..1, of Redis's cosine distance, 0..2. Raises ValueError."""
    if distance is None:
        raise ValueError("a neighbour without distance")
    similarity = 1.0 - float(distance)
    if not abs(similarity) <= 1 + ROUNDING_MAX:  # so written that NaN fails
        raise ValueError("no cosine distance")
    return max(-1.0, min(1.0, similarity))


def _neighbour(key: bytes, fields: Mapping[bytes, bytes], alias: bytes) -> Document:
    if not fields:
        return Document(key.decode(), (), 0.0)
    return Document(key.decode(), tuple(map(fields.get, _NAMES)), _similarity(fields.get(alias)))


def _documents(reply: Any) -> list[tuple[bytes, Mapping[bytes, bytes]]]:
    """Key and fields of each document of an FT.SEARCH, as RESP3 (a map) or RESP2 (a flat list) gives it.

    An expired document has no fields.
    """
    if isinstance(reply, Mapping):
        return [(each[b"id"], each.get(b"extra_attributes") or {}) for each in reply[b"results"]]
    return [(reply[at], _paired(reply[at + 1] or [])) for at in range(1, len(reply), 2)]


def _paired(row: Sequence[Any]) -> dict[Any, Any]:
    return dict(zip(row[::2], row[1::2], strict=True))


def _shape(facts: Mapping[str, Any]) -> frozenset[tuple[str, ...]]:
    definition = _mapping(facts["index_definition"])
    shape: set[tuple[str, ...]] = {("prefix", _text(prefix)) for prefix in definition["prefixes"]}
    shape.add(("filter", _text(definition.get("filter", b""))))
    for attribute in facts["attributes"]:
        words = [_text(word) for word in _flat(attribute)]
        after = dict(itertools.pairwise(words))
        name, kind = after["identifier"], after["type"]
        if kind == "VECTOR":
            shape.add((name, kind, after["algorithm"], after["data_type"], after["dim"], after["distance_metric"]))
        else:
            shape.add((name, kind, *(["CASESENSITIVE"] if "CASESENSITIVE" in words else [])))
    return frozenset(shape)


def _flat(attribute: Any) -> list[Any]:
    """Names, values and flags of a field in a row, as RESP2 has them; RESP3 gives a map with a list of flags."""
    if not isinstance(attribute, Mapping):
        return list(attribute)
    return [word for name, value in attribute.items() for word in (value if isinstance(value, list) else (name, value))]


def _mapping(reply: Mapping[bytes, Any] | Sequence[Any]) -> dict[str, Any]:
    """A map, which RESP2 writes as names and values in turn."""
    if isinstance(reply, Mapping):
        return {_text(name): value for name, value in reply.items()}
    return {_text(name): value for name, value in _paired(reply).items()}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _plain(argument: Any) -> Any:
    """What redis-py can send of redisvl's arguments: enumeration members by their value."""
    return getattr(argument, "value", argument)
