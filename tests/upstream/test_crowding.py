"""How many models fit is seen from what comes and goes; a number that is too high is noticed, and nothing else is."""

from __future__ import annotations

import logging

import pytest

from cacheproxy.upstream.crowding import AGAIN_S, APART_MAX, OLLAMAS_OWN, TIMES, WITHIN_S, Crowding, Fit
from cacheproxy.upstream.loaded import LoadedModel
from tests.fakes.clock import FakeClock
from tests.fakes.house import open_house, until
from tests.fakes.ollama import FakeOllama
from tests.fakes.redis_server import RedisServer

MINUTES = 60.0


def look(crowding: Crowding, names: str, every_s: float = 5.0, *, left_s: float | None = None) -> None:
    """One read: the models that are loaded, one letter each.

    A model in capitals has minutes left; another one's time is over by the next read.
    """
    clock = crowding._clock
    assert isinstance(clock, FakeClock)
    lefts_s = {name: left_s or (10 * MINUTES if name.isupper() else 1.0) for name in names}
    crowding.read(
        [
            LoadedModel(name.lower(), name.lower(), SIZES.get(name.lower(), 10), 0, 0, clock.now() + lefts_s[name])
            for name in names
        ]
    )
    clock.advance(every_s)


def after(models_at_once: int | str, *reads: str) -> Crowding:
    """What was seen in these reads."""
    crowding = Crowding(models_at_once, FakeClock())
    for names in reads:
        look(crowding, names)
    return crowding


def said(caplog: pytest.LogCaptureFixture, models_at_once: int, *reads: str, every_s: float = 5.0) -> int:
    """How often it was said after these reads."""
    crowding = Crowding(models_at_once, FakeClock())
    with caplog.at_level(logging.WARNING, "cacheproxy.upstream"):
        for names in reads:
            look(crowding, names, every_s)
    return len([record for record in caplog.records if "models_at_once" in record.getMessage()])


@pytest.mark.parametrize(
    ("models_at_once", "reads"),
    [
        (2, ["A", "B"] * 3),
        (3, ["A", "B"] * 3),
        (3, ["A", "", "B", ""] * 3),
        (3, ["AB", "BC", "CA", "AB", "BC"]),
    ],
)
def test_models_that_push_each_other_out_are_said_once(
    caplog: pytest.LogCaptureFixture, models_at_once: int, reads: list[str]
) -> None:
    """Also where a read falls between the unloading and the loading."""
    assert said(caplog, models_at_once, *reads) == 1
    fit = max(map(len, reads))
    assert f"models_at_once = {models_at_once} says so; {fit} would spare" in caplog.messages[0]


@pytest.mark.parametrize(
    ("models_at_once", "reads"),
    [
        pytest.param(1, ["A", "B"] * 5, id="as the setting says"),
        pytest.param(2, ["AB", "BC", "CA"] * 3, id="one more than fit"),
        pytest.param(3, ["a", "b"] * 5, id="their time was over"),
        pytest.param(3, ["A", "AB", "ABC", "A"] * 3, id="they fit"),
        pytest.param(3, ["A", "", "A", "B", "B"] * 1, id="unloaded once or twice"),
        pytest.param(3, ["A", "", "", "B", "", ""] * 4, id="unloaded, and later another one loaded"),
    ],
)
def test_what_else_makes_models_come_and_go_is_not_said(
    caplog: pytest.LogCaptureFixture, models_at_once: int, reads: list[str]
) -> None:
    """More models than the setting allows, `keep_alive`, an operator."""
    assert said(caplog, models_at_once, *reads) == 0


@pytest.mark.parametrize(
    ("reads", "fits", "why"),
    [
        pytest.param(["A", "B"], 1, "a had to go for b", id="one goes for another"),
        pytest.param(["A", "", "B"], 1, "a had to go for b", id="a read fell in between"),
        pytest.param(["AB", "BC"], 2, "a had to go for c", id="two fit"),
        pytest.param(["ABC", "BCD"], 3, "nothing else", id="three fit, as assumed"),
        pytest.param(["AB", "C"], 1, "a had to go for c", id="two go for one"),
        pytest.param(["A", "B", "AB"], 2, "2 were loaded at once", id="both at once after all"),
        pytest.param(["A", "B", "AB", "ABC", "ABCD"], 4, "4 were loaded", id="more than was assumed"),
        pytest.param(["ABCDE", "BCDEF", "A", "B"], 1, "a had to go for b", id="and down again"),
        pytest.param(["a", "B"], 3, "nothing else", id="its time was over"),
        pytest.param(["A", "", "", "B"], 3, "nothing else", id="unloaded, and later another one loaded"),
        pytest.param(["A", "", "A"], 3, "nothing else", id="loaded anew"),
        pytest.param(["", "A", "AB"], 3, "nothing else", id="they just came"),
    ],
)
def test_what_fits_is_learnt_from_what_comes_and_goes(reads: list[str], fits: int, why: str) -> None:
    """From Ollama's own default, at once, down and up; the reason is told."""
    crowding = after("auto", *reads)

    assert crowding.fit.models == fits
    assert why in crowding.fit.why


SIZES = {"e": 1, "a": 10, "b": 10, "c": 10, "g": 99}


@pytest.mark.parametrize(
    ("reads", "fits", "apart"),
    [
        pytest.param(["EA", "EB"], 2, ["ab"], id="a small one fits beside either of two large ones"),
        pytest.param(["EA", "B", "EB"], 2, ["ab"], id="it had to go as well, and came back"),
        pytest.param(["EA", "B"], 1, ["ab"], id="it had to go as well: together they take no more than was seen"),
        pytest.param(["AB", "BC"], 2, ["ac"], id="one for one, whatever they take"),
        pytest.param(["AB", "BC", "CA"], 2, ["ab"], id="two of three: what is seen together fits"),
        pytest.param(
            ["G", "A", "EB", "A", "EB"],
            2,
            ["ag", "ab"],
            id="more was seen once, and that is forgotten as models have to go",
        ),
        pytest.param(["EA", "EB", "EAB"], 3, [], id="seen together after all"),
        pytest.param(["A", "B", "A", "B"], 1, ["ab"], id="one at a time"),
    ],
)
def test_which_two_do_not_fit_together_is_learnt_too(reads: list[str], fits: int, apart: list[str]) -> None:
    """So that neither has to make way for what is small."""
    fit = after("auto", *reads).fit

    assert (fit.models, ["".join(sorted(pair)) for pair in fit.apart]) == (fits, apart)


def taken(models: int, apart: str, *, before: str = "", after: str = "") -> tuple[int, list[str]]:
    """What fits once a note of an earlier start was taken, with these reads before and after that."""
    crowding = Crowding("auto", FakeClock())
    for names in before.split():
        look(crowding, names)
    crowding.take(Fit(models, "as it was", tuple(map(frozenset, apart.split()))))
    for names in after.split():
        look(crowding, names)
    return crowding.fit.models, ["".join(sorted(pair)) for pair in crowding.fit.apart]


@pytest.mark.parametrize(
    ("note", "before", "after", "fits"),
    [
        pytest.param((1, "ab"), "", "", (1, ["ab"]), id="as it was"),
        pytest.param((1, "ab"), "A", "A B A", (1, ["ab"]), id="and still is"),
        pytest.param((1, "ab"), "", "A AB", (2, []), id="too few: both stay, though they took turns"),
        pytest.param((1, "ab ac bc"), "", "A AB ABC", (3, []), id="far too few"),
        pytest.param((2, "ab"), "", "EA EB EAB", (3, []), id="a pair that fits by now, beside a small one"),
        pytest.param((1, "ab"), "AB", "", (2, []), id="seen together before the note was read"),
        pytest.param((5, ""), "", "A B", (1, ["ab"]), id="too many: one goes for the other"),
        pytest.param((3, "ab"), "", "A B C", (1, ["ab", "bc"]), id="too many, though a pair explains the first"),
        pytest.param((3, "ab"), "A C", "", (1, ["ab", "ac"]), id="less was seen by then: pairs of both"),
        pytest.param((1, "ab"), "ABCD", "", (4, []), id="more was seen by then"),
        pytest.param((1, "ab"), "ABCD A", "", (4, ["ab"]), id="more was seen by then, and one is left"),
    ],
)
def test_what_an_earlier_start_learnt_is_taken_over_and_mends_itself(
    note: tuple[int, str], before: str, after: str, fits: tuple[int, list[str]]
) -> None:
    """As any other guess: more memory, less, another machine. What was seen since the start counts for more."""
    assert taken(*note, before=before, after=after) == fits


def test_pairs_of_an_earlier_start_are_within_the_bound_too() -> None:
    """The newest stay."""
    apart = [f"{chr(0x4E00 + number)}{chr(0x4E01 + number)}" for number in range(APART_MAX)]
    _, pairs = taken(1, " ".join(apart), before="A B")
    assert (len(pairs), pairs[-1]) == (APART_MAX, "ab")


def test_pairs_are_remembered_up_to_a_bound() -> None:
    """Names come and go for years."""
    crowding = Crowding("auto", FakeClock())
    for number in range(2 * APART_MAX):
        look(crowding, chr(ord("\u4e00") + number), left_s=600.0)

    assert len(crowding.fit.apart) == APART_MAX


def test_a_number_of_the_operators_stands() -> None:
    """Memory is his to know."""
    assert after(3, *["A", "B"] * 5).fit == Fit(3, "upstream.models_at_once")
    assert after(1, "ABCD").fit.models == 1


def test_what_we_or_a_caller_unloaded_was_not_pushed_out() -> None:
    """`keep_alive: 0`, making room ahead of an ask, a request that unloads."""
    for excuse in (lambda crowding: crowding.excuse("a"), Crowding.forget):
        crowding = after("auto", "A")
        excuse(crowding)
        look(crowding, "B")
        assert crowding.fit.models == OLLAMAS_OWN
        look(crowding, "A")
        assert crowding.fit.models == 1  # an excuse holds for one going


@pytest.mark.parametrize(
    ("stays_s", "fits"), [(0, OLLAMAS_OWN), (60, OLLAMAS_OWN), (10 * MINUTES, 1), (30 * MINUTES, 1), (float("inf"), 1)]
)
def test_how_long_a_caller_lets_it_stay_excuses_only_what_goes_sooner(stays_s: float, fits: int) -> None:
    """Clients that say it with each ask hide nothing. It had 10 minutes left at the last look, 5 s ago."""
    crowding = after("auto", "A")
    crowding.shall_stay("a", stays_s)
    look(crowding, "B")
    assert crowding.fit.models == fits


@pytest.mark.parametrize(
    "more",
    [{"input": [], "keep_alive": 0}, {"input": "y", "keep_alive": 0, "cache": "no-store"}],
    ids=["load", "bypass"],
)
async def test_what_an_ask_for_vectors_unloads_was_not_pushed_out(
    fake_ollama: FakeOllama, clean_redis: RedisServer, more: dict[str, object]
) -> None:
    """Whether it has texts or none, and also if it goes around the cache."""
    headers = [("Cache-Control", "no-store")] if more.pop("cache", None) else []
    ask = {"model": "nomic-embed-text", "input": "x"}
    async with open_house(fake_ollama, clean_redis, upstream={"digest_ttl": 0.2}) as house:
        await house.ask("POST", "/api/embed", ask)
        await until(lambda: len(house.first.loaded.models) == 1)
        reply = await house.ask("POST", "/api/embed", ask | more, headers=headers)
        assert (reply.status, reply.header("X-Cache")) == (200, "BYPASS")
        await until(lambda: not house.first.loaded.models)
        await house.chat("hello")
        await until(lambda: len(house.first.loaded.models) == 1)

        assert (house.first.crowding.fit.models, house.first.crowding.fit.apart) == (OLLAMAS_OWN, ())


async def test_a_running_proxy_learns(clean_redis: RedisServer) -> None:
    """In front of an Ollama that holds one model at a time, with the setting left as it comes; and unlearns."""
    ollama = FakeOllama(loaded_max=1)
    await ollama.open()
    try:
        async with open_house(ollama, clean_redis) as house:
            for model in ("llama3", "llama3.2"):
                await house.chat(model=model)
                await until(lambda model=model: [m.name for m in house.first.loaded.models] == [f"{model}:latest"])  # type: ignore[misc]
            (told,) = (await house.stats())["upstreams"]
            assert (told["models_at_once"], house.first.batcher.models_at_once) == (1, 1)
            assert told["models_at_once_why"] == "llama3:latest had to go for llama3.2:latest"
            metrics = (await house.admin("GET", "/metrics")).body.decode()
            assert f'cacheproxy_models_at_once{{upstream="127.0.0.1:{ollama.port}"}} 1.0' in metrics
            ollama.scheduler.loaded_max = 3
            await house.chat("now?", model="llama3")
            await until(lambda: house.first.batcher.models_at_once == 2)
    finally:
        await ollama.close()


@pytest.mark.parametrize("keep_alive", ["30m", -1, "-1m", 10**30])
async def test_clients_that_always_say_how_long_hide_nothing(clean_redis: RedisServer, keep_alive: object) -> None:
    """As long as that is no shorter than what was seen, and whether they are answered from the cache or not."""
    ollama = FakeOllama(loaded_max=1)
    await ollama.open()
    try:
        async with open_house(ollama, clean_redis) as house:
            for model in ("llama3", "llama3.2"):
                for _ in range(2):
                    await house.chat(model=model, keep_alive=keep_alive)
                    await house.settled()
                await until(lambda model=model: [m.name for m in house.first.loaded.models] == [f"{model}:latest"])  # type: ignore[misc]
            assert house.first.batcher.models_at_once == 1
    finally:
        await ollama.close()


async def test_a_running_proxy_looks_on(clean_redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """In front of an Ollama that holds one model at a time, with the setting left as it comes."""
    ollama = FakeOllama(loaded_max=1)
    await ollama.open()
    try:
        async with open_house(ollama, clean_redis, upstream={"digest_ttl": 0.2, "models_at_once": 3}) as house:
            for number in range(TIMES + 1):
                model = ("llama3:latest", "llama3.2:latest")[number % 2]
                await house.chat(f"{number}?", model=model)
                await until(lambda model=model: [m.name for m in house.first.loaded.models] == [model])  # type: ignore[misc]
            await until(lambda: "models_at_once = 3 says so; 1 would spare" in caplog.text)
    finally:
        await ollama.close()


def test_it_is_said_only_if_it_goes_on_and_not_again_for_hours(caplog: pytest.LogCaptureFixture) -> None:
    """Now and then is chance; and a log that repeats itself is not read."""
    assert said(caplog, 3, *["A", "B"] * 10, every_s=WITHIN_S / (TIMES - 1) + 1) == 0
    pairs = int(AGAIN_S / (2 * 5.0))
    assert said(caplog, 3, *["A", "B"] * (pairs - 10)) == 1
    caplog.clear()
    assert said(caplog, 3, *["A", "B"] * (pairs + 10)) == 2


@pytest.mark.parametrize(
    ("said", "reads", "unsure"),
    [
        ("auto", [], False),  # nobody has looked yet
        ("auto", [["a"]], True),
        ("auto", [None], False),  # nobody can tell, so nothing would end it
        ("auto", [["a"], None], False),
        ("auto", [["a"], ["a", "b"]], False),
        ("auto", [["a", "b"], []], False),
        ("auto", [["a"], ["b"]], False),  # one pushed the other out
        (2, [["a"]], False),  # the operator knows
    ],
)
def test_what_fits_is_only_assumed_until_two_models_were_asked_for(
    said: int | str, reads: list[list[str] | None], unsure: bool
) -> None:
    """Who acts on it is told each time that changes."""
    crowding = Crowding(said, FakeClock())
    told: list[bool] = []
    crowding.on_learnt.append(lambda _models, _apart, now: told.append(now))
    for names in reads:
        models = [LoadedModel(name, name, 10, 0, 4096, expires=1e12) for name in names or ()]
        crowding.read(models, readable=names is not None)

    assert crowding.unsure is unsure
    assert [False, *told][-1] is unsure


def test_what_an_ollama_that_was_away_had_loaded_was_not_pushed_out() -> None:
    """It comes back with nothing, and loads what is asked for first."""
    crowding = after("auto", "AB")
    crowding.read([], readable=False)
    for names in ("", "A", "AC"):
        look(crowding, names, every_s=1.0)

    assert (crowding.fit.models, crowding.fit.apart) == (OLLAMAS_OWN, ())


def test_that_as_many_fit_as_was_assumed_is_no_guess_any_more() -> None:
    """The number stays, and the reason says that it was seen."""
    crowding = after("auto", "A", "AB")

    assert crowding.fit.models == OLLAMAS_OWN
    assert "nothing else" not in crowding.why
    assert "several were loaded at once" in crowding.why
