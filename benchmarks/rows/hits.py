"""Exact hits by requests a second: the repeat lane, the memory tier, Redis, and streams, each beside its rival.

Hits are proven: the origin counts what gets through to it, and a run with more than 0.5 % of that is thrown away.
The near tier is off in all of these: an exact hit ends before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack

from benchmarks.bench import Bench, Row
from benchmarks.load import peers, servers
from benchmarks.load.asks import NUMBER, chat, request, respelt
from benchmarks.load.servers import Origin, Target, learn
from benchmarks.load.wrk import Lane, compare
from benchmarks.report.figures import Aim, Figure, Side, Skipped, UnavailableError, side

MANY, FEW, ONE = 64, 8, 1
"""Connections. Few for a server of 50 requests/s: with 64 a round would end before their replies."""
IDENTIFIED = {"X-Request-Id": NUMBER}
"""Makes requests differ in their head while their bodies are equal."""
FROM_REDIS = {"cache__memory": "0B", "redis__timeout": "2s"}
"""Nothing kept in the process; and at saturation an ask may wait for its turn longer than the 50 ms that are shipped,
after which it would be a miss."""


def _sides(bench: Bench, lanes: Sequence[Lane], connections: int, origin: Origin | None) -> list[Side]:
    found = compare(
        lanes, connections, rounds=bench.rounds, seconds=bench.seconds, folder=bench.folder, cores=bench.cores,
        origin=origin
    )  # fmt: skip
    return [side(lane.target.name, "requests_per_s", rounds) for lane, rounds in zip(lanes, found, strict=True)]


def _against(row: str, name: str, ours: Side, other: Side, aim: Aim | None = None) -> Figure:
    return Figure(row, f"{name}, against {other.name}", "req/s", ours, other, "ratio", aim)


def repeat(bench: Bench) -> Iterator[Figure | Skipped]:
    """The same bytes again and again."""
    body = chat()
    with ExitStack() as stack:
        origin = stack.enter_context(servers.origin(bench.folder, bench.cores))
        redis_port = stack.enter_context(servers.redis(bench.folder, bench.cores))
        proxy = stack.enter_context(servers.proxy(bench.folder, bench.cores.server, origin, redis_port=redis_port))
        targets = [proxy.target]
        makers: Sequence[Callable[..., AbstractContextManager[Target]]] = (
            peers.nginx_proxy_cache, peers.varnish, peers.nginx_lua
        )  # fmt: skip
        for make in makers:
            try:
                targets.append(stack.enter_context(make(bench.folder, bench.cores, origin)))
            except UnavailableError as error:
                yield Skipped("repeat", str(error))
        for target in targets:
            learn(target, body)
        lanes = [Lane(target, request(body, target.path)) for target in targets]
        for connections in (MANY, ONE):
            ours, *others = _sides(bench, lanes, connections, origin)
            for other in others:
                aimed = connections == MANY and other.name == "nginx proxy_cache"
                aim = Aim(1.0) if aimed else None
                yield _against("repeat", f"byte-equal, {connections} connections", ours, other, aim)


def memory(bench: Bench) -> Iterator[Figure | Skipped]:
    """From the memory tier, where no two requests have the same bytes."""
    with ExitStack() as stack:
        origin = stack.enter_context(servers.origin(bench.folder, bench.cores))
        redis_port = stack.enter_context(servers.redis(bench.folder, bench.cores))
        proxy = stack.enter_context(servers.proxy(bench.folder, bench.cores.server, origin, redis_port=redis_port))
        answer = learn(proxy.target, chat())
        constant = stack.enter_context(peers.aiohttp_constant(bench.folder, bench.cores, len(answer)))
        for name, raw, aim in (
            ("bodies differ", request(respelt()), Aim(0.8)),
            ("heads differ, bodies equal", request(chat(), headers=IDENTIFIED), None),
        ):
            lanes = [Lane(proxy.target, raw), Lane(constant, raw)]
            for connections in (MANY, ONE):
                ours, other = _sides(bench, lanes, connections, origin)
                aimed = aim if connections == MANY else None
                yield _against("memory", f"{name}, {connections} connections", ours, other, aimed)


def redis(bench: Bench) -> Iterator[Figure | Skipped]:
    """From Redis, nothing kept in the process."""
    with ExitStack() as stack:
        origin = stack.enter_context(servers.origin(bench.folder, bench.cores))
        redis_port = stack.enter_context(servers.redis(bench.folder, bench.cores))
        proxy = stack.enter_context(
            servers.proxy(bench.folder, bench.cores.server, origin, redis_port=redis_port, **FROM_REDIS)
        )
        peer = stack.enter_context(peers.nginx_lua_redis(bench.folder, bench.cores, origin, redis_port))
        body = chat()
        for target in (proxy.target, peer):
            learn(target, body)
        raw = request(body, headers=IDENTIFIED)
        for connections in (MANY, ONE):
            ours, other = _sides(bench, [Lane(proxy.target, raw), Lane(peer, raw)], connections, origin)
            aim = Aim(0.25) if connections == MANY else None
            yield _against("redis", f"{connections} connections", ours, other, aim)


def litellm(bench: Bench) -> Iterator[Figure | Skipped]:
    """From Redis, in OpenAI's form, against another proxy in Python."""
    with ExitStack() as stack:
        origin = stack.enter_context(servers.origin(bench.folder, bench.cores))
        redis_port = stack.enter_context(servers.redis(bench.folder, bench.cores))
        peer = stack.enter_context(
            peers.litellm(bench.folder, bench.cores, origin, redis_port, bench.cache_folder)
        )  # fmt: skip
        proxy = stack.enter_context(
            servers.proxy(bench.folder, bench.cores.server, origin, redis_port=redis_port, **FROM_REDIS)
        )
        ours_target = Target(proxy.target.name, proxy.target.port, proxy.target.pid, peer.path)
        body, key = chat(), {"Authorization": f"Bearer {peers.LITELLM_KEY}"}
        for target in (ours_target, peer):
            learn(target, body, key)
        raw = request(body, peer.path, IDENTIFIED | key)
        for connections in (FEW, ONE):
            ours, other = _sides(bench, [Lane(ours_target, raw), Lane(peer, raw)], connections, origin)
            aim = Aim(50.0) if connections == FEW else None
            yield _against("litellm", f"{connections} connections", ours, other, aim)


def streams(bench: Bench) -> Iterator[Figure | Skipped]:
    """300 tokens as a stream against the same entry as one reply."""
    with ExitStack() as stack:
        origin = stack.enter_context(servers.origin(bench.folder, bench.cores))
        redis_port = stack.enter_context(servers.redis(bench.folder, bench.cores))
        proxy = stack.enter_context(servers.proxy(bench.folder, bench.cores.server, origin, redis_port=redis_port))
        target = proxy.target
        whole = Target("whole reply", target.port, target.pid)
        for stream in (False, True):
            learn(target, chat(stream=stream))
        for name, headers, aim in (("heads differ", IDENTIFIED, Aim(0.8)), ("byte-equal", {}, None)):
            lanes = [
                Lane(target, request(chat(stream=True), headers=headers)),
                Lane(whole, request(chat(stream=False), headers=headers)),
            ]
            for connections in (MANY, ONE):
                ours, other = _sides(bench, lanes, connections, origin)
                aimed = aim if connections == MANY else None
                yield _against("streams", f"{name}, {connections} connections", ours, other, aimed)


ROWS = (
    Row("repeat", "byte-equal requests against nginx proxy_cache; Varnish and nginx + Lua as limits", repeat),
    Row("memory", "exact hits from memory against a constant reply of web.Application", memory),
    Row("redis", "exact hits through Redis against nginx + Lua + Redis", redis),
    Row("litellm", "exact hits through Redis against LiteLLM's proxy with Redis", litellm),
    Row("streams", "a stream of 300 tokens replayed against the whole reply", streams),
)
