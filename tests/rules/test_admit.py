"""Which asks may be cached, under which key, for how long, and who may share them."""

import json
from dataclasses import replace

import pytest
from multidict import CIMultiDict

from cacheproxy.config import Cache, Config, ModelRule
from cacheproxy.model import Identity, Part, Plan
from cacheproxy.rules.admit import admit
from cacheproxy.rules.controls import Controls
from cacheproxy.wire import chat, generate, openai_chat

SECRET = b"a secret"
LLAMA = Identity("registry.ollama.ai/library/llama3:latest", "ab" * 32, server_version="0.33.0")
CLOUD = Identity("registry.ollama.ai/library/big:cloud", "cd" * 32, remote=True, server_version="0.33.0")


def ask(dialect=chat, **members):
    """An ask with these members."""
    return dialect.parse(json.dumps({"model": "m", "prompt": "p", "messages": [{"content": "p"}]} | members).encode())


def plan(asked=None, identity=LLAMA, controls=None, *, config=None, headers=None, secret=SECRET):
    """What is decided for an ask."""
    return admit(
        asked or ask(),
        identity,
        controls or Controls(),
        config=config or Config(),
        headers=CIMultiDict(headers or {}),
        secret=secret,
    )


def with_cache(**settings):
    """A config whose [cache] has these settings."""
    return Config(cache=Cache(**settings))


@pytest.mark.case(71)
@pytest.mark.parametrize(
    ("version", "shared"),
    [("0.33.0", True), ("0.33.0-rc2", True), ("0.40.1", True), ("1.0", True), ("0.32.15", False), ("", False)],
)
def test_a_form_is_shared_under_an_ollama_whose_translation_is_known(version, shared):
    """Under an earlier one, or one that does not say, OpenAI's form shares with itself alone."""
    identity = replace(LLAMA, server_version=version)
    openais = ask(openai_chat, messages=[{"role": "user", "content": "p"}], prompt=None)
    native = ask(chat, messages=[{"role": "user", "content": "p"}], options={"temperature": 1, "top_p": 1}, prompt=None)

    assert (plan(openais, identity).key == plan(native, identity).key) == shared
    assert plan(openais, identity).key == plan(replace(openais, stream=True), identity).key


def test_durations_are_needed_unless_the_operator_says_otherwise():
    """Nothing else is ever done without."""
    strict, lenient = plan(ask(generate)), plan(ask(generate), config=with_cache(without_durations=True))

    assert strict.needs == frozenset(Part)
    assert lenient.needs == frozenset(Part) - {Part.DURATIONS}
    assert lenient.key == strict.key


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"controls": Controls(no_store=True)}, "no-store"),
        ({"controls": Controls(mode="off")}, "mode-off"),
        ({"identity": None}, "unknown-model"),
        ({"identity": None, "controls": Controls(no_store=True)}, "no-store"),
        ({"asked": ask(options={"temperature": 2.5})}, "temperature"),
        ({"asked": ask(options={"temperature": 0.1}), "config": with_cache(max_temperature=0)}, "temperature"),
        ({"config": Config(models={"llama3*": ModelRule(cache=False)})}, "model-off"),
        ({"asked": ask(options={"temperature": 2}), "controls": Controls(mode="exact")}, ""),
        ({"asked": ask(options={"temperature": 0}), "config": with_cache(max_temperature=0)}, ""),
        ({"asked": ask(), "config": with_cache(max_temperature=0)}, ""),
        ({"config": Config(models={"mistral*": ModelRule(cache=False)})}, ""),
    ],
)
def test_an_ask_goes_around_the_cache_for_one_reason(changes, reason):
    """Then it has no key at all."""
    found = plan(**changes)

    assert found.reason == reason
    assert found.cacheable == (reason == "")
    assert bool(found.key) == (reason == "")
    if reason:
        assert found == Plan(reason=reason)


@pytest.mark.parametrize(
    "changes",
    [
        {"identity": replace(LLAMA, digest="ef" * 32)},
        {"identity": replace(LLAMA, server_version="0.34.0")},
        {"asked": ask(think=True)},
        {"asked": ask(generate)},
        {"headers": {"Authorization": "Bearer a"}},
    ],
)
def test_what_shapes_the_answer_or_keeps_callers_apart_changes_key_and_check(changes):
    """Both, since the check is what is believed."""
    assert plan(**changes).key.split(":")[2] != plan().key.split(":")[2]
    assert plan(**changes).check != plan().check


@pytest.mark.case(33)
@pytest.mark.case(34)
def test_names_of_one_digest_share():
    """A copy of a model is the same model, however it is spelt."""
    copy = replace(LLAMA, canonical="registry.ollama.ai/library/copy:latest")

    assert plan(identity=copy) == plan()
    assert plan(ask(model="LLaMA3")) == plan(ask(model="llama3:latest"))


def test_names_do_not_share_once_the_model_has_spoken():
    """Ollama strips thinking from a history by the model's name."""
    spoken = ask(messages=[{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}])
    copy = replace(LLAMA, canonical="registry.ollama.ai/library/copy:latest")

    assert plan(spoken, identity=copy).check != plan(spoken).check


@pytest.mark.case(115)
def test_cloud_models_are_keyed_by_name_and_account():
    """Their weights are not what the digest names, and an account decides what is answered."""
    config = with_cache(partition_headers=())
    copy = replace(CLOUD, canonical="registry.ollama.ai/library/other:cloud")
    one = plan(identity=CLOUD, config=config, headers={"Authorization": "Bearer a"})
    other = plan(identity=CLOUD, config=config, headers={"Authorization": "Bearer b"})
    local = plan(config=config, headers={"Authorization": "Bearer a"})

    assert plan(identity=copy, config=config).check != plan(identity=CLOUD, config=config).check
    assert len({one.check, other.check, plan(identity=CLOUD, config=config).check}) == 3
    assert local == plan(config=config)


@pytest.mark.fault(124)
@pytest.mark.case(125)
def test_callers_of_different_partitions_never_share():
    """By the header's value, not by how its name is written."""
    config = with_cache(partition_headers=("Authorization", "X-Team"))
    headers = [
        {},
        {"Authorization": "a"},
        {"Authorization": "b"},
        {"X-Team": "a"},
        {"Authorization": "a", "X-Team": "b"},
        {"Authorization": "b", "X-Team": "a"},
        {"Authorization": ""},
        {"Authorization": "a\udce9"},
    ]
    plans = [plan(config=config, headers=each) for each in headers]

    assert len({found.partition for found in plans}) == len(headers)
    assert len({found.check for found in plans}) == len(headers)
    assert len({found.key for found in plans}) == len(headers)
    assert plan(config=config, headers={"authorization": "a"}) == plans[1]
    assert (
        plan(config=with_cache(partition_headers=("x-team", "AUTHORIZATION")), headers={"Authorization": "a"})
        == plans[1]
    )


def test_a_partition_is_apart_under_each_secret():
    """Two installations on one Redis do not know each other's callers."""
    headers = {"Authorization": "a"}

    assert plan(headers=headers).partition != plan(headers=headers, secret=b"other").partition
    assert plan(headers=headers).check != plan(headers=headers, secret=b"other").check


HOUR_S = 3600.0


@pytest.mark.fault(97)
@pytest.mark.parametrize(
    ("config", "identity", "wish_s", "expected_s"),
    [
        (Config(), LLAMA, None, HOUR_S),
        (Config(), LLAMA, 60.0, 60.0),
        (Config(), LLAMA, 0.0, 0.0),
        (Config(), LLAMA, 2 * HOUR_S, 2 * HOUR_S),
        (Config(), LLAMA, float("inf"), 30 * 24 * HOUR_S),
        (with_cache(ttl="2h", ttl_max="1h"), LLAMA, None, HOUR_S),
        (with_cache(ttl="0s"), LLAMA, None, 0.0),
        (Config(models={"llama3*": ModelRule(ttl="6h")}), LLAMA, None, 6 * HOUR_S),
        (Config(models={"llama3*": ModelRule(ttl="0s")}), LLAMA, None, 0.0),
        (Config(models={"llama3*": ModelRule(ttl="6h")}), LLAMA, 5.0, 5.0),
        (Config(models={"x": ModelRule(ttl="6h"), "llama3:latest": ModelRule(ttl="7h")}), LLAMA, None, 7 * HOUR_S),
        (Config(models={"llama*": ModelRule(ttl="6h"), "llama3*": ModelRule(ttl="7h")}), LLAMA, None, 6 * HOUR_S),
        (Config(), CLOUD, None, 300.0),
        (Config(), CLOUD, HOUR_S, 300.0),
        (Config(), CLOUD, 5.0, 5.0),
        (Config(models={"big*": ModelRule(ttl="6h")}), CLOUD, None, 300.0),
    ],
)
def test_lifetimes_stay_within_what_the_operator_allows(config, identity, wish_s, expected_s):
    """The caller's wish, the model's rule, the default; never above the two limits."""
    assert plan(identity=identity, config=config, controls=Controls(ttl_s=wish_s)).ttl_s == expected_s


@pytest.mark.parametrize(("wish_s", "longest_s"), [(None, 30 * 24 * HOUR_S), (5.0, 5.0), (1e12, 30 * 24 * HOUR_S)])
def test_jitter_carries_no_lifetime_past_the_callers_wish(wish_s, longest_s):
    """Who says ten minutes gets no answer of eleven."""
    assert plan(controls=Controls(ttl_s=wish_s)).ttl_max_s == longest_s


@pytest.mark.fault(126)
@pytest.mark.parametrize(
    ("offered", "wish_s", "expected_s"),
    [("0s", None, 0.0), ("0s", 600.0, 0.0), ("1h", None, HOUR_S), ("1h", 60.0, 60.0), ("1h", 2 * HOUR_S, HOUR_S)],
)
def test_a_caller_may_only_accept_less_staleness(offered, wish_s, expected_s):
    """What the operator does not offer cannot be asked for."""
    found = plan(config=with_cache(stale_if_error=offered), controls=Controls(stale_if_error_s=wish_s))

    assert found.stale_if_error_s == expected_s


@pytest.mark.parametrize(
    ("controls", "read", "only_if_cached", "max_age_s"),
    [
        (Controls(), True, False, None),
        (Controls(no_cache=True), False, False, None),
        (Controls(max_age_s=0.0), False, False, 0.0),
        (Controls(max_age_s=60.0), True, False, 60.0),
        (Controls(only_if_cached=True), True, True, None),
    ],
)
def test_wishes_about_reading_end_in_the_plan(controls, read, only_if_cached, max_age_s):
    """The store acts on the plan alone."""
    found = plan(controls=controls)

    assert (found.read, found.only_if_cached, found.max_age_s) == (read, only_if_cached, max_age_s)


@pytest.mark.case(57)
def test_an_ask_with_logprobs_also_has_the_key_of_one_without():
    """So its answer can be kept for both."""
    found = plan(ask(logprobs=True, top_logprobs=2))

    assert (found.plain_key, found.plain_check) == (plan().key, plan().check)
    assert found.key != found.plain_key
    assert (plan().plain_key, plan().plain_check) == ("", b"")
