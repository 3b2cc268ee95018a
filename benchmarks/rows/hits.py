"""Exact hits by requests a second: the repeat lane, the memory tier, Redis, and streams, each beside its rival.

Hits are proven: the origin counts what gets through to it, and a run with more than 0.5 % of that is thrown away.
The near tier is off in all of these: an exact hit ends before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Any

from benchmarks.bench import Bench, Row
from benchmarks.load import peers, servers
from benchmarks.load.asks import NUMBER, chat, request, respelt
from benchmarks.load.servers import Origin, Target, learn
from benchmarks.load.wrk import Lane, compare
from benchmarks.report.figures import Aim, Figure, Skipped, UnavailableError, side

MANY, FEW, ONE = 64, 8, 1
"""Connections. Few for a server of 50 requests/s: with 64 a round would end before their replies."""
IDENTIFIED = {"X-Request-Id": NUMBER}
"""Makes requests differ in their head while their bodies are equal."""
FROM_REDIS = {"cache__memory": "0B", "redis__timeout": "2s"}
"""Nothing kept in the process; and at saturation an ask may wait for its turn longer than the 50 ms that are shipped,
after which it would be a miss."""


def repeat(bench: Bench) -> Iterator[Figure | Skipped]:
    """The same bytes again and again."""
    body = chat()
    makers: Sequence[Callable[..., AbstractContextManager[Target]]] = (
        peers.nginx_proxy_cache, peers.varnish, peers.nginx_lua
    )  # fmt: skip
    with ExitStack() as stack:
        origin, _, proxy = _grounds(bench, stack)
        targets = [proxy]
        for make in makers:
            try:
                targets.append(stack.enter_context(make(bench.folder, bench.cores, origin)))
                learn(targets[-1], body)
            except UnavailableError as error:
                yield Skipped("repeat", str(error))
        learn(proxy, body)
        lanes = [Lane(target, request(body, target.path)) for target in targets]
        yield from _figures(bench, "repeat", "byte-equal", lanes, origin, aims={"nginx proxy_cache": Aim(1.0)})


def memory(bench: Bench) -> Iterator[Figure | Skipped]:
    """From the memory tier, where no two requests have the same bytes."""
    with ExitStack() as stack:
        origin, _, proxy = _grounds(bench, stack)
        answer = learn(proxy, chat())
        constant = stack.enter_context(peers.aiohttp_constant(bench.folder, bench.cores, len(answer)))
        for name, raw, aims in (
            ("bodies differ", request(respelt()), {constant.name: Aim(0.8)}),
            ("heads differ, bodies equal", request(chat(), headers=IDENTIFIED), {constant.name: Aim(0.8)}),
        ):
            yield from _figures(bench, "memory", name, [Lane(proxy, raw), Lane(constant, raw)], origin, aims=aims)


def redis(bench: Bench) -> Iterator[Figure | Skipped]:
    """From Redis, nothing kept in the process."""
    body = chat()
    with ExitStack() as stack:
        origin, redis_port, proxy = _grounds(bench, stack, **FROM_REDIS)
        peer = stack.enter_context(peers.nginx_lua_redis(bench.folder, bench.cores, origin, redis_port))
        for target in (proxy, peer):
            learn(target, body)
        raw = request(body, headers=IDENTIFIED)
        lanes = [Lane(proxy, raw), Lane(peer, raw)]
        yield from _figures(bench, "redis", "heads differ", lanes, origin, aims={peer.name: Aim(0.25)})


def litellm(bench: Bench) -> Iterator[Figure | Skipped]:
    """From Redis, in OpenAI's form, against another proxy in Python."""
    body, key = chat(), {"Authorization": f"Bearer {peers.LITELLM_KEY}"}
    with ExitStack() as stack:
        origin, redis_port, proxy = _grounds(bench, stack, **FROM_REDIS)
        peer = stack.enter_context(peers.litellm(bench.folder, bench.cores, origin, redis_port, bench.cache_folder))
        ours = replace(proxy, path=peer.path)
        for target in (ours, peer):
            learn(target, body, key)
        raw = request(body, peer.path, IDENTIFIED | key)
        lanes = [Lane(ours, raw), Lane(peer, raw)]
        yield from _figures(bench, "litellm", "heads differ", lanes, origin, aims={peer.name: Aim(50.0)}, many=FEW)


def streams(bench: Bench) -> Iterator[Figure | Skipped]:
    """300 tokens as a stream against the same entry as one reply."""
    with ExitStack() as stack:
        origin, _, proxy = _grounds(bench, stack)
        whole = replace(proxy, name="whole reply")
        for stream in (False, True):
            learn(proxy, chat(stream=stream))
        for name, headers, aims in (("heads differ", IDENTIFIED, {whole.name: Aim(0.8)}), ("byte-equal", {}, {})):
            lanes = [
                Lane(proxy, request(chat(stream=True), headers=headers)),
                Lane(whole, request(chat(stream=False), headers=headers)),
            ]
            yield from _figures(bench, "streams", name, lanes, origin, aims=aims)


def _grounds(bench: Bench, stack: ExitStack, **settings: Any) -> tuple[Origin, int, Target]:
    """What all rows need, on their cores until `stack` ends: the origin, Redis's port, the proxy."""
    origin = stack.enter_context(servers.origin(bench.folder, bench.cores))
    redis_port = stack.enter_context(servers.redis(bench.folder, bench.cores))
    proxy = stack.enter_context(
        servers.proxy(bench.folder, bench.cores.server, origin, redis_port=redis_port, **settings)
    )
    return origin, redis_port, proxy.target


def _figures(
    bench: Bench,
    row: str,
    name: str,
    lanes: Sequence[Lane],
    origin: Origin,
    *,
    aims: Mapping[str, Aim],
    many: int = MANY,
) -> Iterator[Figure]:
    """The first lane against each other one, on `many` connections, where the aims hold, and on one.

    `aims`: by the rival's name.
    """
    for connections in (many, ONE):
        found = compare(
            lanes, connections, rounds=bench.rounds, seconds=bench.seconds, folder=bench.folder, cores=bench.cores,
            origin=origin
        )  # fmt: skip
        ours, *others = (
            side(lane.target.name, "requests_per_s", each) for lane, each in zip(lanes, found, strict=True)
        )
        on = f"{connections} connections" if connections > 1 else "1 connection"
        for other in others:
            aim = aims.get(other.name) if connections == many else None
            yield Figure(row, f"{name}, {on}, against {other.name}", "req/s", ours, other, "ratio", aim)


ROWS = (
    Row("repeat", "byte-equal requests against nginx proxy_cache; Varnish and nginx + Lua as limits", repeat),
    Row("memory", "exact hits from memory against a constant reply of web.Application", memory),
    Row("redis", "exact hits through Redis against nginx + Lua + Redis", redis),
    Row("litellm", "exact hits through Redis against LiteLLM's proxy with Redis", litellm),
    Row("streams", "a stream of 300 tokens replayed against the whole reply", streams),
)
