"""What is added to a request that leaves it out: by tables, and as Ollama receives it."""

import json

import pytest

from cacheproxy.config import OPTION_TYPES, Config
from cacheproxy.upstream.loaded import LoadedModel, Wish
from cacheproxy.upstream.tuning import PROFILES, Fill, added_keep_alive, added_options, describe, fill_for, tune
from cacheproxy.wire import chat
from cacheproxy.wire.canonical import FLOAT_OPTIONS, INTEGER_OPTIONS
from tests.fakes.house import MODEL, House, open_house, until

NOW = 1_000_000.0
BODY = b' {"model": "m", "messages": [{"role": "user", "content": "<caf\\u00e9>"}]}\n'


def config(profile="safe", **rules):
    """A configuration with this profile and these rules by pattern."""
    return Config.model_validate({"tuning": {"profile": profile}, "models": rules})


def ask(**members):
    """A chat with these members besides the model and one message."""
    return chat.parse(json.dumps({"model": "m", "messages": [{"role": "user", "content": "why?"}]} | members).encode())


def loaded(*, context=8192, left_s=300.0):
    """A model that Ollama would drop in `left_s`."""
    return LoadedModel("m:latest", "ab" * 32, 10, 10, context, NOW + left_s)


def test_the_default_profile_changes_nothing_that_shapes_an_answer():
    """It only lets a model stay longer."""
    fill = fill_for(Config(), "llama3.2:latest")

    assert fill == PROFILES["safe"]
    assert (dict(fill.options), fill.pins_num_ctx, fill.only_prolongs) == ({}, False, True)


@pytest.mark.parametrize(
    ("profile", "rule", "expected"),
    [
        ("off", {"options": {"num_ctx": 4096}, "keep_alive": "1h"}, Fill()),
        ("safe", {"options": {"num_ctx": 4096}}, Fill(1800.0, only_prolongs=True, options={"num_ctx": 4096})),
        ("safe", {"keep_alive": "1h"}, Fill(3600.0)),
        ("safe", {"keep_alive": -1}, Fill(-1.0)),
        ("safe", {"keep_alive": "-1m"}, Fill(-60.0)),
        ("safe", {"keep_alive": 0}, Fill(0.0)),
        ("balanced", {}, Fill(1800.0, pins_num_ctx=True)),
        ("balanced", {"options": {"num_ctx": 4096}}, Fill(1800.0, options={"num_ctx": 4096})),
        ("low-latency", {}, Fill(86400.0, pins_num_ctx=True, options={"num_predict": 1024})),
        ("low-latency", {"options": {"num_predict": -1}}, Fill(86400.0, False, True, {"num_predict": -1})),
    ],
)
def test_a_models_rule_is_stronger_than_the_profile_and_off_than_both(profile, rule, expected):
    """A rule's `keep_alive` is said always, a profile's only where it prolongs."""
    assert fill_for(config(profile, **{"llama3.2": rule}), "llama3.2:latest") == expected


@pytest.mark.parametrize(
    ("fill", "given", "found", "wish", "expected"),
    [
        (Fill(), {}, loaded(), Wish(num_ctx=8192), {}),
        (Fill(options={"num_ctx": 4096}), {}, None, Wish(), {"num_ctx": 4096}),
        (Fill(options={"num_ctx": 4096}), {"temperature": 0}, None, Wish(), {"num_ctx": 4096}),
        (Fill(options={"num_ctx": 4096}), {"num_ctx": 2048}, None, Wish(), {}),
        (Fill(options={"num_ctx": 4096}), {"num_ctx": None}, None, Wish(), {"num_ctx": 4096}),
        (Fill(pins_num_ctx=True), {}, loaded(), Wish(num_ctx=8192), {"num_ctx": 8192}),
        (Fill(pins_num_ctx=True), {"num_ctx": 2048}, loaded(), Wish(num_ctx=8192), {}),
        (Fill(pins_num_ctx=True), {}, loaded(), Wish(), {}),
        (Fill(pins_num_ctx=True), {}, loaded(), Wish(num_ctx=4096), {}),
        (Fill(pins_num_ctx=True), {}, None, Wish(num_ctx=8192), {}),
    ],
)
def test_only_what_the_caller_left_out_is_added(fill, given, found, wish, expected):
    """The context is pinned only where a caller's choice loaded the model: nobody else made Ollama's own default."""
    assert added_options(fill, ask(options=given), found, wish) == expected


@pytest.mark.parametrize(
    ("fill", "given", "found", "wish", "expected"),
    [
        (PROFILES["off"], None, loaded(), Wish(), None),
        (PROFILES["safe"], None, None, Wish(), None),
        (PROFILES["safe"], None, loaded(left_s=300), Wish(), 1800),
        (PROFILES["safe"], None, loaded(left_s=1799), Wish(), 1800),
        (PROFILES["safe"], None, loaded(left_s=86400), Wish(), None),
        (PROFILES["safe"], None, loaded(left_s=0), Wish(), None),
        (PROFILES["safe"], None, loaded(left_s=-5), Wish(), None),
        (PROFILES["safe"], None, loaded(left_s=300), Wish(keep_alive=True), None),
        (PROFILES["safe"], "10m", loaded(left_s=300), Wish(), None),
        (PROFILES["safe"], 0, loaded(left_s=300), Wish(), None),
        (PROFILES["balanced"], None, None, Wish(keep_alive=True), 1800),
        (PROFILES["balanced"], "10m", None, Wish(), None),
        (Fill(-60.0), None, None, Wish(), -1),
        (Fill(0.0), None, None, Wish(), 0),
        (Fill(0.5), None, None, Wish(), 1),
    ],
)
def test_safe_only_prolongs_a_stay_that_nobody_chose(fill, given, found, wish, expected):
    """It never shortens what OLLAMA_KEEP_ALIVE or a caller gave, and never keeps what leaves at once."""
    assert added_keep_alive(fill, ask(keep_alive=given), found, wish, NOW) == expected


def test_a_longer_stay_leaves_every_other_byte_and_the_key_as_they_were():
    """White space, escapes and order included."""
    before = chat.parse(BODY)
    after = tune(before, BODY, chat.parse, {}, 1800)

    assert after.forward == BODY.replace(b"{", b'{"keep_alive":1800,', 1)
    assert (after.canonical, after.keep_alive) == (before.canonical, None)


def test_nothing_to_add_sends_the_callers_own_bytes():
    """Also where the caller's text mentions `keep_alive`, or gives it as null."""
    for body in (BODY, BODY.replace(b"caf", b'\\"keep_alive\\"'), BODY.replace(b'"m",', b'"m", "keep_alive": null,')):
        assert tune(chat.parse(body), body, chat.parse, {}, None).forward is None
    nulled = BODY.replace(b'"m",', b'"m", "keep_alive": null,')
    assert tune(chat.parse(nulled), nulled, chat.parse, {}, 60).forward is None


def test_the_key_is_made_from_what_is_sent():
    """The tuned ask equals one whose caller said it all."""
    tuned = tune(chat.parse(BODY), BODY, chat.parse, {"num_ctx": 4096, "temperature": 0.2}, 60)

    assert tuned.canonical == chat.parse(tuned.forward).canonical
    assert json.loads(tuned.forward)["options"] == {"num_ctx": 4096, "temperature": 0.2}
    assert json.loads(tuned.forward)["keep_alive"] == 60
    assert (tuned.temperature, tuned.keep_alive) == (pytest.approx(0.2), None)


def test_what_cannot_be_written_again_goes_as_it_came():
    """A whole number of 30 digits outside the key, for one."""
    body = BODY.replace(b'"m",', b'"m", "keep_alive": %d,' % 10**30)
    before = chat.parse(body)

    assert tune(before, body, chat.parse, {"num_ctx": 4096}, None) is before


@pytest.mark.parametrize(
    ("fill", "expected"),
    [
        (Fill(), "nothing is added"),
        (PROFILES["safe"], "keep_alive 30m at least"),
        (PROFILES["low-latency"], "num_predict 1024, num_ctx as loaded, keep_alive 24h"),
        (Fill(-1.0, options={"num_ctx": 4096}), "num_ctx 4096, keep_alive for ever"),
        (Fill(90.0), "keep_alive 90s"),
    ],
)
def test_it_can_be_told(fill, expected):
    """In the words of the settings."""
    assert describe(fill) == expected


def test_every_option_with_a_type_is_known_to_the_config():
    """So that no list is behind the other."""
    assert {name for name, kinds in OPTION_TYPES.items() if float in kinds} == FLOAT_OPTIONS
    assert {name for name, kinds in OPTION_TYPES.items() if kinds == (int,)} == INTEGER_OPTIONS


def received(house: House):
    """The body of the last chat that reached Ollama."""
    return next(request.body for request in reversed(house.ollama.requests) if request.path == "/api/chat")


async def seen_loaded(house: House):
    """Wait until the proxy knows that the model is loaded."""
    await until(lambda: any(model.name.startswith(MODEL) for model in house.first.loaded.models))


async def test_by_default_a_model_in_use_stays_longer_and_nothing_else_changes(house: House):
    """The ask that loads a model goes as it came; the next one lets it stay for half an hour."""
    await house.chat("one")
    first = received(house)
    await seen_loaded(house)
    second = await house.chat("two")
    sent = received(house)

    assert b"keep_alive" not in first
    assert sent == first.replace(b"one", b"two").replace(b"{", b'{"keep_alive":1800,', 1)
    assert second.header("X-Cache") == "MISS"
    await house.settled()
    assert (await house.chat("two")).header("X-Cache") == "EXACT"


async def test_off_forwards_the_clients_own_bytes(fake_ollama, clean_redis):
    """Whatever the rules say."""
    rules = {"*": {"options": {"num_ctx": 4096}, "keep_alive": "1h"}}
    async with open_house(fake_ollama, clean_redis, tuning={"profile": "off"}, models=rules) as house:
        await house.chat("one")
        await seen_loaded(house)
        body = b'{"messages" : [{"role":"user","content":"two"}],\n "model":"llama3.2"}'
        await house.ask("POST", "/api/chat", body)

        assert received(house) == body


async def test_a_callers_own_keep_alive_is_not_prolonged(house: House):
    """Neither in its ask nor in those that follow while the model stays."""
    await house.chat("one", keep_alive="2m")
    await seen_loaded(house)
    await house.chat("two")

    assert b"keep_alive" not in received(house)


async def test_a_models_options_reach_ollama_and_the_key(fake_ollama, clean_redis):
    """Asks with and without them share an answer; what goes around the cache goes as it came."""
    rules = {"llama3.2": {"options": {"num_ctx": 2048}}}
    async with open_house(fake_ollama, clean_redis, models=rules) as house:
        left_out = await house.chat("one", stream=False)
        assert json.loads(received(house))["options"] == {"num_ctx": 2048}
        await house.settled()
        said = await house.chat("one", stream=False, options={"num_ctx": 2048})
        other = await house.chat("one", stream=False, options={"num_ctx": 4096})
        assert json.loads(received(house))["options"] == {"num_ctx": 4096}
        around = await house.chat("one", stream=False, headers=[("Cache-Control", "no-store")])
        assert b"num_ctx" not in received(house)

    assert [one.header("X-Cache") for one in (left_out, said, other, around)] == ["MISS", "EXACT", "MISS", "BYPASS"]
    assert left_out.json()["message"] == said.json()["message"]


async def test_callers_who_choose_no_context_do_not_make_ollama_load_again(fake_ollama, clean_redis):
    """The case of two apps on one model, of which only one sends `num_ctx`."""
    async with open_house(fake_ollama, clean_redis, tuning={"profile": "balanced"}) as house:
        await house.chat("one", options={"num_ctx": 8192})
        await seen_loaded(house)
        await house.chat("two")

        assert json.loads(received(house))["options"] == {"num_ctx": 8192}
        assert fake_ollama.scheduler.loads == 1
