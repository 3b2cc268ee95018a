"""Ask to plan: may it be cached, under which key, for how long, and what the caller's controls leave of that.

The closed list of reasons to go around the cache that are decided here: `unknown-model` (no digest is known for the
name, so nothing could end the hits when it changes), `no-store`, `mode-off`, `model-off` (switched off in config),
`temperature` (above `cache.max_temperature`: the app asked for variety). Requests that cannot be keyed never get here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from cacheproxy.config import Config
from cacheproxy.model import ALL_THERE, Ask, Identity, NearPlan, Part, Plan
from cacheproxy.rules.controls import Controls
from cacheproxy.rules.question import Template, split
from cacheproxy.wire import canonical

TRANSLATES_SINCE = (0, 33)
"""The Ollama whose translation of `/v1` is known member by member (early ones ignored `reasoning_effort`)."""
_WITHOUT_DURATIONS = frozenset({Part.DURATIONS})


def admit(
    ask: Ask,
    identity: Identity | None,
    controls: Controls,
    *,
    config: Config,
    headers: Mapping[str, str],
    secret: bytes,
) -> Plan:
    """Decide. `identity` is None where the model's digest is not known; `headers` are the request's."""
    reason = _refusal(ask, identity, controls, config)
    if reason or identity is None:
        return Plan(reason=reason or "unknown-model")
    partition = partition_of(headers, config, secret, remote=identity.remote)

    def keyed(canonical_ask: bytes) -> tuple[str, bytes]:
        material = _material(canonical_ask, ask, identity, partition)
        key = canonical.exact_key(config.redis.prefix, material, digest=identity.digest, temperature=ask.temperature)
        return key, canonical.check_digest(material, secret)

    longest_s = min(config.cache.ttl_max, config.cache.remote_ttl if identity.remote else config.cache.ttl_max)
    key, check = keyed(ask.canonical)
    plain_key, plain_check = keyed(ask.canonical_plain) if ask.logprobs else ("", b"")
    return Plan(
        key=key,
        check=check,
        plain_key=plain_key,
        plain_check=plain_check,
        partition=partition,
        ttl_s=min(_ttl_s(identity, controls, config), longest_s),
        ttl_max_s=longest_s if controls.ttl_s is None else min(controls.ttl_s, longest_s),
        max_age_s=controls.max_age_s,
        needs=ask.needs - (_WITHOUT_DURATIONS if config.cache.without_durations else ALL_THERE),
        read=not controls.no_cache and controls.max_age_s != 0,
        only_if_cached=controls.only_if_cached,
        stale_if_error_s=_stale_s(controls, config),
    )


def admit_each(
    ask: Ask, plan: Plan, identity: Identity, parts: Sequence[bytes], *, config: Config, secret: bytes
) -> list[Plan]:
    """One plan for each of an ask's `parts`, which are canonical; all else as in the plan of the whole ask."""
    plans = []
    for part in parts:
        material = _material(part, ask, identity, plan.partition)
        key = canonical.exact_key(config.redis.prefix, material, digest=identity.digest, temperature=ask.temperature)
        plans.append(replace(plan, key=key, check=canonical.check_digest(material, secret)))
    return plans


def admit_near(
    ask: Ask,
    plan: Plan,
    identity: Identity,
    controls: Controls,
    *,
    config: Config,
    templates: Sequence[Template],
    secret: bytes,
) -> NearPlan:
    """Decide about near answers, for an ask that was admitted and has no exact one.

    Besides the reasons of `rules/question.py`: `mode-off` (config), `model-off` (config), `mode-exact` (the caller).
    """
    semantic, rule = config.semantic, config.model_rule(identity.short)
    if semantic.mode == "off":
        return NearPlan(off="mode-off")
    if not rule.semantic:
        return NearPlan(off="model-off")
    if controls.mode == "exact":
        return NearPlan(off="mode-exact")
    parts = split(ask, templates, max_temperature=semantic.max_temperature)
    if parts.near_off:
        return NearPlan(off=parts.near_off)
    threshold = semantic.threshold if rule.threshold is None else rule.threshold
    return NearPlan(
        question=parts.question,
        scope=canonical.scope_hash(_material(parts.setting, ask, identity, plan.partition), secret),
        threshold=max(threshold, controls.threshold or 0.0),
    )


def _material(canonical_part: bytes, ask: Ask, identity: Identity, partition: str) -> bytes:
    """What the keys of an ask and of its setting are made from."""
    return canonical.key_material(
        canonical_part,
        family=_family(ask, identity),
        digest=identity.digest,
        model_name=identity.canonical if ask.name_matters or identity.remote else "",
        server_version=identity.server_version,
        partition=partition,
    )


def _family(ask: Ask, identity: Identity) -> str:
    """Whose answers an ask may share: under an Ollama that may translate it otherwise, its own dialect's alone."""
    if not ask.translated:
        return ask.family
    version = tuple(int(number) for number in re.findall(r"[0-9]{1,9}", identity.server_version)[:2])
    return ask.family if version >= TRANSLATES_SINCE else f"{ask.dialect}-translated"


def partition_of(headers: Mapping[str, str], config: Config, secret: bytes, *, remote: bool) -> str:
    """The partition of a request: callers with different values of the configured headers never share.

    For remote models `Authorization` always counts: it decides whose account answers.
    """
    names = _partition_names(config.cache.partition_headers, remote)
    return canonical.partition_hash([(name, headers[name]) for name in names if name in headers], secret)


@lru_cache(maxsize=8)
def _partition_names(configured: tuple[str, ...], remote: bool) -> tuple[str, ...]:
    return tuple(sorted({name.lower() for name in configured} | ({"authorization"} if remote else set())))


def _refusal(ask: Ask, identity: Identity | None, controls: Controls, config: Config) -> str:
    if controls.no_store:
        return "no-store"
    if controls.mode == "off":
        return "mode-off"
    if ask.temperature is not None and ask.temperature > config.cache.max_temperature:
        return "temperature"
    if identity is None:
        return "unknown-model"
    if not config.model_rule(identity.short).cache:
        return "model-off"
    return ""


def _ttl_s(identity: Identity, controls: Controls, config: Config) -> float:
    rule = config.model_rule(identity.short)
    ttl_s = config.cache.ttl if rule.ttl is None else rule.ttl
    return ttl_s if controls.ttl_s is None else controls.ttl_s


def _stale_s(controls: Controls, config: Config) -> float:
    """A caller may accept less staleness than the operator offers, never more."""
    offered = config.cache.stale_if_error
    return offered if controls.stale_if_error_s is None else min(offered, controls.stale_if_error_s)
