"""A chat that is too long loses its oldest turns, whole, and nothing else."""

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.rules.context import (
    BLOCK_TURNS,
    MESSAGE_TOKENS,
    estimate_tokens,
    kept,
    limit,
    tokens,
    tokens_max,
    trim,
)
from cacheproxy.wire import chat, messages, openai_chat, responses
from cacheproxy.wire.history import history_of
from tests.fakes.house import MODEL, House, open_house, until

ROLES = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}


def talk(roles):
    """Messages of 10 tokens each, by the first letters of their roles."""
    return [{"role": ROLES[role], "content": "x" * 24} for role in roles]


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("", 0, 0),
        ("The quick brown fox jumps over the lazy dog.", 9, 12),
        ("def add(a, b):\n    return a + b\n", 7, 14),
        ("素早い茶色の狐がのろまな犬を飛び越える", 14, 22),
        ("Быстрая коричневая лиса прыгает", 14, 22),
        ("\ud800", 0, 1),
    ],
)
def test_tokens_are_estimated_for_any_script(text, low, high):
    """A word is a token or little more, and so is a character of Chinese or Japanese."""
    assert low <= estimate_tokens(text) <= high


def test_all_that_a_message_holds_counts():
    """Thinking, tool calls and images as well."""
    plain = tokens({"content": "x" * 40})

    assert plain == MESSAGE_TOKENS + 10
    assert tokens({"content": "x" * 40, "thinking": "x" * 40}) == plain + 10
    assert tokens({"content": "x" * 40, "images": ["ab", "cd"]}) == plain + 2 * 768
    assert tokens({"content": "x" * 40, "tool_calls": [{"function": {"name": "f"}}]}) > plain + 5


@pytest.mark.parametrize(
    ("roles", "budget", "expected"),
    [
        ("uau", 30, "uau"),
        ("uau", 29, "u"),
        ("u", 5, "u"),
        ("suau", 29, "su"),
        ("suaua", 29, "sua"),
        ("uatau", 29, "u"),
        ("uauata", 29, "uata"),
        ("uauatatau", 10, "u"),
        ("uasau", 29, "su"),
        ("aauau", 40, "u"),
        ("uuauu", 29, "uu"),
        ("sss", 5, "sss"),
        ("uauauauauauau", 129, "uauau"),
        ("uauauauauauau", 90, "uauau"),
        ("uauauauauauau", 49, "u"),
    ],
)
def test_the_oldest_turns_go_by_fours(roles, budget, expected):
    """System messages and the last turn stay, whatever they take."""
    messages = talk(roles)
    found = kept(messages, 0.0, budget)

    assert "".join(messages[at]["role"][0] for at in found) == expected
    assert found == sorted(found)


@given(roles=st.text("suat", max_size=40), budget=st.integers(1, 400), other=st.integers(0, 100))
def test_a_tools_result_never_stays_without_its_call(roles, budget, other):
    """What stays is the system messages and one unbroken end of the rest, which begins where a user speaks."""
    messages = talk(roles)
    found = kept(messages, other, budget)
    spoken = [at for at in range(len(messages)) if messages[at]["role"] != "system"]
    stayed = [at for at in found if messages[at]["role"] != "system"]

    assert {at for at in range(len(messages)) if messages[at]["role"] == "system"} <= set(found)
    assert stayed == spoken[len(spoken) - len(stayed) :]
    assert len(stayed) == len(spoken) or messages[stayed[0]]["role"] == "user"
    assert bool(stayed) == bool(spoken)
    assert len(found) == len(messages) or 10 * len(messages) + other > budget


def test_a_growing_chat_begins_alike_for_some_turns():
    """So that Ollama reads only what is new."""
    starts = [len(talk("ua" * n + "u")) - len(kept(talk("ua" * n + "u"), 0.0, 100)) for n in range(5, 17)]

    assert starts == sorted(starts)
    assert all(starts.count(start) == BLOCK_TURNS for start in starts)


def ask(**members):
    """A chat with these members."""
    return chat.parse(json.dumps({"model": "m", "messages": talk("suau")} | members).encode())


def test_the_context_is_what_will_be_in_effect():
    """The caller's or the operator's choice, else what is loaded, else not known."""
    assert limit(ask(options={"num_ctx": 2048}), 8192) == 2048
    assert limit(ask(), 8192) == 8192
    assert limit(ask(), 0) == 0


@pytest.mark.parametrize(("members", "budget"), [({}, 40), ({}, 0), ({"truncate": False}, 10)])
def test_a_chat_that_fits_or_must_not_be_cut_goes_as_it_came(members, budget):
    """Also while its budget is not known."""
    before = ask(**members)

    assert trim(before, b"", chat.parse, budget) is before


def test_tools_take_their_part_of_the_budget():
    """They are in every prompt."""
    body = json.dumps({"model": "m", "messages": talk("suau"), "tools": [{"x": "y" * 40}]}).encode()

    assert trim(chat.parse(body), body, chat.parse, 45).dropped == 2


def big(text="x"):
    """A text of 1,000 tokens."""
    return text * 4000


CALL = {"id": "c1", "type": "function", "index": 0, "function": {"name": "f", "arguments": "{}"}}
V1 = {
    "/v1/chat/completions": (
        openai_chat,
        "messages",
        {},
        [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": big()},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": big("y")},
            {"role": "assistant", "content": [{"type": "text", "text": "There."}]},
            {"role": "user", "content": [{"type": "text", "text": "And now?"}]},
        ],
    ),
    "/v1/messages": (
        messages,
        "messages",
        {"system": "Be brief.", "max_tokens": 1000},
        [
            {"role": "user", "content": big()},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "f", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": big("y")}]},
            {"role": "assistant", "content": "There."},
            {"role": "user", "content": "And now?"},
        ],
    ),
    "/v1/responses": (
        responses,
        "input",
        {"instructions": "Be brief."},
        [
            {"role": "developer", "content": "In English."},
            {"role": "user", "content": [{"type": "input_text", "text": big()}]},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": big("y")},
            {"role": "assistant", "content": [{"type": "output_text", "text": "There."}]},
            {"role": "user", "content": "And now?"},
        ],
    ),
}


@pytest.mark.parametrize("path", V1)
@pytest.mark.parametrize("budget", [500, 1500, 2500])
def test_chats_of_other_dialects_lose_their_oldest_turns_too(path, budget):
    """A tool's result goes with its call; what instructs the model stays."""
    dialect, member, more, said = V1[path]
    body = json.dumps({"model": "m", member: said} | more).encode()
    trimmed = trim(dialect.parse(body), body, dialect.parse, budget)
    instructing = [one for one in said if one.get("role") == "developer"]
    expected = said if budget == 2500 else [*instructing, said[-1]]

    assert trimmed.dropped == len(said) - len(expected)
    assert json.loads(trimmed.forward or body)[member] == expected
    assert trimmed.canonical == dialect.parse(json.dumps({"model": "m", member: expected} | more).encode()).canonical


@pytest.mark.parametrize("path", V1)
def test_a_call_and_its_result_that_began_after_the_last_question_stay(path):
    """They are its turn, also where the result comes as a user's message."""
    dialect, member, more, said = V1[path]
    last_turn = said[:-2]
    body = json.dumps({"model": "m", member: last_turn} | more).encode()
    asked = dialect.parse(body)

    assert trim(asked, body, dialect.parse, 500) is asked


HURRY = {"role": "user", "content": "Hurry!"}


@pytest.mark.parametrize("path", V1)
@pytest.mark.parametrize("also", ["nothing", "a call that nobody answered"])
def test_a_result_that_comes_after_the_user_spoke_again_stays_with_its_call(path, also):
    """All between the two is one turn; a call without a result holds nothing together."""
    dialect, member, more, said = V1[path]
    late = [*said[:-3], HURRY, *said[-3:]]
    if also != "nothing":
        lost = json.loads(json.dumps(said[-4]).replace("c1", "c0"))
        late = [*said[:-5], {"role": "user", "content": big()}, lost, *late[len(said[:-5]) :]]
    body = json.dumps({"model": "m", member: late} | more).encode()
    staying = trim(dialect.parse(body), body, dialect.parse, 500)
    assert json.loads(staying.forward)[member] == [*said[:-5], said[-1]]
    body = json.dumps({"model": "m", member: late[:-2]} | more).encode()
    asked = dialect.parse(body)
    if also == "nothing":
        assert trim(asked, body, dialect.parse, 500) is asked
    else:
        assert trim(asked, body, dialect.parse, 500).dropped == 2


@pytest.mark.parametrize("ids", [("c1", "c1"), (None, None), ("c1", None), (None, "c1")])
def test_natively_ids_need_not_be_given(ids):
    """Then a result is the last call's."""
    call = {"function": {"name": "f", "arguments": {}}} | ({"id": ids[0]} if ids[0] else {})
    result = {"role": "tool", "content": "r", "tool_name": "f"} | ({"tool_call_id": ids[1]} if ids[1] else {})
    said = [
        {"role": "user", "content": big()},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        HURRY,
        result,
    ]
    body = json.dumps({"model": "m", "messages": said}).encode()
    history = history_of(chat.NAME, json.loads(body))

    assert kept(history.messages, 0.0, 500) == [0, 1, 2, 3]
    assert kept([*history.messages, *talk("auau")], 0.0, 500) == [7]


@given(
    st.lists(
        st.sampled_from(
            [("user", None), ("assistant", None), *((role, n) for role in ("call", "tool") for n in "123")]
        ),
        max_size=30,
    ),
    st.integers(1, 300),
)
def test_no_result_is_ever_left_without_its_call(steps, budget):
    """In whatever order they come, as long as each has an id; and what stays is an unbroken end."""
    said, open_calls, call_of = [], {}, {}
    for at, (role, call) in enumerate(steps):
        message = {"role": "assistant" if role == "call" else role, "content": "x" * 24, "calls": [], "answers": []}
        if role == "call":
            message["calls"] = [call]
            open_calls.setdefault(call, []).append(at)
        elif role == "tool":
            message["answers"] = [call]
            if open_calls.get(call):
                call_of[at] = open_calls[call].pop()
        said.append(message)
    staying = kept(said, 0.0, budget)

    assert staying == list(range(len(said) - len(staying), len(said)))
    assert all(call_of[at] in staying for at in staying if at in call_of)


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions"])
def test_what_go_would_escape_weighs_what_it_is(path):
    """A tool's HTML above all."""
    dialect, member, _, said = V1[path]
    weights = []
    for text in ("<b>&amp;</b>" * 400, "(b)+amp;(/b)" * 400):
        told = json.loads(json.dumps(said).replace("{}", text).replace("y" * 4000, text))
        raw = json.dumps({"model": "m", member: told, "tools": [{"x": text}]}).encode()
        history = history_of(dialect.NAME, json.loads(raw))
        weights.append(sum(map(tokens, history.messages)))
        assert weights[-1] <= tokens_max(raw)
    assert weights[0] == weights[1]


def test_what_instructs_the_model_and_images_count_with_the_others():
    """Wherever they stand."""
    for path, more in (("/v1/messages", {"system": big()}), ("/v1/responses", {"instructions": big()})):
        dialect, member, others, said = V1[path]
        body = json.dumps({"model": "m", member: said} | others | more).encode()
        assert trim(dialect.parse(body), body, dialect.parse, 2500).dropped
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    turns = [{"role": "user", "content": [picture] * 3}, {"role": "assistant", "content": "a"}, *talk("u")]
    body = json.dumps({"model": "m", "messages": turns}).encode()
    assert trim(openai_chat.parse(body), body, openai_chat.parse, 3 * 768).dropped == 2


def test_a_caller_of_responses_may_forbid_it():
    """`truncation: disabled` said, not left out."""
    dialect, member, more, said = V1["/v1/responses"]
    body = json.dumps({"model": "m", member: said, "truncation": "disabled"} | more).encode()
    asked = dialect.parse(body)

    assert trim(asked, body, dialect.parse, 500) is asked


@given(body=st.binary(max_size=200), parts=st.lists(st.text(max_size=30), max_size=8))
def test_the_quick_look_at_a_body_never_says_less_than_the_estimate(body, parts):
    """Else a chat that is too long would be sent as it came."""
    said = [{"role": "user", "content": [{"type": "text", "text": text}]} for text in parts]
    raw = json.dumps({"model": "m", "messages": said}, ensure_ascii=len(body) % 2 == 0).encode()
    history = history_of("openai_chat", json.loads(raw))

    assert sum(map(tokens, history.messages)) <= tokens_max(raw)


@pytest.mark.parametrize("path", V1)
async def test_over_v1_a_chat_too_long_is_sent_keyed_and_answered_without_its_oldest_turns(
    path, fake_ollama, clean_redis
):
    """The limit is what the model is loaded with; the reply says so, and it is counted."""
    _, member, more, said = V1[path]
    said = [one for one in copy.deepcopy(said) if "tool" not in json.dumps(one) and "function" not in json.dumps(one)]
    said[-3]["content"] = big("long ")
    async with open_house(fake_ollama, clean_redis, context={"budget": 0.8}) as house:
        await house.chat("load it", options={"num_ctx": 4096})
        await until(lambda: bool(house.first.loaded.models))
        body = {"model": MODEL, member: said} | more
        miss = await house.ask("POST", path, body)
        await house.settled()
        hit = await house.ask("POST", path, body)
        sent = json.loads([one.body for one in house.ollama.requests if one.path == path][-1])[member]
        text = (await house.admin("GET", "/metrics")).body.decode()

    assert sent == [one for one in said if one.get("role") == "developer"] + said[-1:]
    assert [one.header("X-Cache") for one in (miss, hit)] == ["MISS", "EXACT"]
    assert [one.header("X-Cache-Context") for one in (miss, hit)] == ["dropped=2", "dropped=2"]
    assert "cacheproxy_context_dropped_total 4.0" in text


def received(house: House):
    """The messages of the last chat that reached Ollama."""
    bodies = [request.body for request in house.ollama.requests if request.path == "/api/chat"]
    return json.loads(bodies[-1])["messages"]


async def test_a_chat_too_long_is_sent_keyed_and_answered_without_its_oldest_turns(fake_ollama, clean_redis):
    """The header says so on a miss and on a hit, also to one who sent the short chat's equal; it is counted."""
    async with open_house(fake_ollama, clean_redis, context={"budget": 0.8}) as house:
        short = {"messages": talk("su"), "stream": False, "options": {"num_ctx": 40}}
        long = short | {"messages": talk("suau")}
        miss = await house.chat(**long)
        assert received(house) == talk("su")
        await house.settled()
        hit = await house.chat(**long)
        equal = await house.chat(**short)
        text = (await house.admin("GET", "/metrics")).body.decode()

    assert [one.header("X-Cache") for one in (miss, hit, equal)] == ["MISS", "EXACT", "EXACT"]
    assert [one.header("X-Cache-Context") for one in (miss, hit, equal)] == ["dropped=2", "dropped=2", None]
    assert miss.json()["message"] == equal.json()["message"]
    assert "cacheproxy_context_trimmed_total 2.0" in text
    assert "cacheproxy_context_dropped_total 4.0" in text


async def test_without_num_ctx_the_loaded_context_counts(fake_ollama, clean_redis):
    """Before the model is loaded nothing is cut; what goes around the cache never is."""
    long = [{"role": "user", "content": "x" * 20_000}, {"role": "assistant", "content": "y"}, *talk("u")]
    async with open_house(fake_ollama, clean_redis, context={"budget": 0.8}) as house:
        await house.chat(messages=long)
        assert len(received(house)) == 3
        await until(lambda: bool(house.first.loaded.models))
        await house.chat(messages=[*long, *talk("au")])
        assert received(house) == talk("u")
        around = await house.chat(messages=long, headers=[("Cache-Control", "no-store")])
        assert len(received(house)) == 3
        assert around.header("X-Cache-Context") is None


async def test_without_a_budget_chats_go_as_they_come(house: House):
    """It is off by default."""
    reply = await house.chat(messages=talk("suau"), options={"num_ctx": 5})

    assert received(house) == talk("suau")
    assert reply.header("X-Cache-Context") is None
