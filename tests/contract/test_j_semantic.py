"""Conformance cases J, 117 to 125: the semantic tier end to end, with the real embedder and a real search index."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from cacheproxy.model import Verdict
from cacheproxy.rules.accept import accept
from cacheproxy.store.entry import vector_field
from tests.fakes.house import MODEL, House, open_house, until
from tests.fakes.ollama import FakeOllama
from tests.fakes.redis_server import RedisServer
from tests.fakes.replies import said
from tests.fakes.wire import Response

QUESTION = "How do I reset my password?"
SERVE = {"mode": "serve"}
REWORDED = "How can I reset my password?"


@pytest_asyncio.fixture
async def near(fake_ollama: FakeOllama, clean_redis: RedisServer) -> AsyncIterator[House]:
    """An open proxy whose semantic tier is ready."""
    async with open_house(fake_ollama, clean_redis, semantic=SERVE) as house:
        await ready(house)
        yield house


async def ready(house: House) -> None:
    """Wait for the embedder and the index."""
    assert await house.app.vectors.wait_ready(20)
    await until(lambda: house.app.semantic.state == "ready" and house.app.apart.known)


async def stored(house: House, question: str = QUESTION, **members: Any) -> Response:
    """Ask for the first time, and wait until it is kept and indexed."""
    reply = await house.chat(question, stream=False, **members)
    assert reply.header("X-Cache") == "MISS", reply.headers
    await house.settled()
    return reply


@pytest.mark.case(117)
async def test_a_reworded_question_gets_the_stored_answer(near: House) -> None:
    """Marked as such, with its similarity and the entry's name."""
    donor = await stored(near)

    hit = await near.chat(REWORDED, stream=False)

    assert hit.header("X-Cache") == "SEMANTIC"
    assert hit.json()["message"] == donor.json()["message"]
    assert 0.92 <= float(hit.header("X-Cache-Similarity") or 0) < 1
    assert len(hit.header("X-Cache-Entry") or "") == 32
    assert "semantic; sim=0.9" in (hit.header("Cache-Status") or "")
    assert near.calls() == 1


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": REWORDED}]},
                     marks=pytest.mark.case(118)),
        pytest.param({"model": "llama3"}, marks=pytest.mark.case(119)),
        pytest.param({"options": {"temperature": 0.1}}, marks=pytest.mark.case(119)),
        pytest.param({"format": "json"}, marks=pytest.mark.case(119)),
        pytest.param({"model": "qwen3", "think": True}, marks=pytest.mark.case(119)),
        pytest.param({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"},
                                   {"role": "user", "content": REWORDED}]}, marks=pytest.mark.case(121)),
        pytest.param({"headers": [("Authorization", "Bearer other")]}, marks=pytest.mark.case(125)),
        pytest.param({"options": {"seed": 1}}, marks=pytest.mark.case(122)),
        pytest.param({"logprobs": True}, marks=pytest.mark.case(122)),
        pytest.param({"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
                     marks=pytest.mark.case(122)),
    ],
)  # fmt: skip
async def test_a_reworded_question_in_another_setting_is_a_miss(near: House, other: dict[str, Any]) -> None:
    """System prompt, model, options, format, thinking, history, tools, and who is asking."""
    await stored(near)

    reply = await near.chat(REWORDED, stream=False, **other)

    assert reply.header("X-Cache") == "MISS"


@pytest.mark.case(120)
@pytest.mark.parametrize(
    ("question", "other"),
    [
        ("How do I enable dark mode?", "How do I disable dark mode?"),
        ("Is aspirin safe for dogs?", "Is aspirin unsafe for dogs?"),
        ("Convert 150.00 dollars to euros", "Convert 150.01 dollars to euros"),
        ("What is the train time from Paris to Lyon?", "What is the train time from Lyon to Paris?"),
        ("Summarise the report in 3 sentences", "Summarise the report in 5 sentences"),
    ],
)
async def test_questions_that_lie_near_and_mean_another_thing_are_misses(
    near: House, question: str, other: str
) -> None:
    """Numbers, negation, direction: each is guarded, and the guard is counted."""
    await stored(near, question)

    reply = await near.chat(other, stream=False)

    assert reply.header("X-Cache") == "MISS"
    assert near.calls() == 2


@pytest.mark.case(122)
@pytest.mark.parametrize("other", [{"context": [1, 2]}, {"raw": True}, {"suffix": "x", "model": "codellama"}])
async def test_prompts_with_context_raw_or_suffix_are_never_near(near: House, other: dict[str, Any]) -> None:
    """They are compared word for word only."""
    await near.generate(QUESTION, stream=False, **other)
    await near.settled()

    assert (await near.generate(REWORDED, stream=False, **other)).header("X-Cache") == "MISS"


@pytest.mark.case(60)
async def test_a_semantic_hit_of_generate_has_no_context(near: House) -> None:
    """The tokens of another prompt must not go on in this conversation."""
    donor = await near.generate(QUESTION, stream=False)
    await near.settled()

    hit = await near.generate(REWORDED, stream=False)

    assert hit.header("X-Cache") == "SEMANTIC"
    assert "context" in donor.json()
    assert "context" not in hit.json()
    assert hit.json()["response"] == donor.json()["response"]


@pytest.mark.case(123)
async def test_a_semantic_hit_comes_in_the_form_that_was_asked_for(near: House) -> None:
    """Stored whole, served as a stream."""
    donor = await stored(near)

    hit = await near.chat(REWORDED)

    assert hit.header("X-Cache") == "SEMANTIC"
    assert hit.header("Content-Type") == "application/x-ndjson"
    assert "".join(line["message"]["content"] for line in hit.lines()) == donor.json()["message"]["content"]


@pytest.mark.case(123)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_semantic_hit_crosses_to_openais_form(near: House, stream: bool) -> None:
    """Stored by the native route in the setting that OpenAI's has."""
    donor = await stored(near, options={"temperature": 1, "top_p": 1})
    messages = [{"role": "user", "content": REWORDED}]

    hit = await near.ask("POST", "/v1/chat/completions", {"model": MODEL, "messages": messages, "stream": stream})

    assert hit.header("X-Cache") == "SEMANTIC"
    assert said(hit) == said(donor)
    assert near.calls("/v1/chat/completions") == 0


@pytest.mark.case(123)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "members"),
    [
        ("/v1/messages", {"messages": [{"role": "user", "content": REWORDED}], "temperature": 1, "max_tokens": 100}),
        ("/v1/responses", {"input": REWORDED, "max_output_tokens": 100}),
    ],
)
async def test_a_semantic_hit_crosses_to_messages_and_responses(
    near: House, path: str, members: dict[str, Any], stream: bool
) -> None:
    """Stored by the native route in the setting that these have."""
    donor = await stored(near, options={"temperature": 1, "num_predict": 100})

    hit = await near.ask("POST", path, {"model": MODEL, "stream": stream} | members)

    assert hit.header("X-Cache") == "SEMANTIC"
    assert said(hit) == said(donor)
    assert near.calls(path) == 0


@pytest.mark.case(123)
async def test_messages_of_parts_that_have_no_native_form_are_not_compared(near: House) -> None:
    """They may hold images or results of tools; what stands before the question counts whole."""
    failed = {"type": "tool_result", "tool_use_id": "t", "content": "no", "is_error": True}
    for question, expected in [(QUESTION, "MISS"), (QUESTION, "EXACT"), (REWORDED, "MISS")]:
        messages = [{"role": "user", "content": [failed]}, {"role": "user", "content": question}]
        reply = await near.ask("POST", "/v1/messages", {"model": MODEL, "max_tokens": 100, "messages": messages})
        await near.settled()
        assert reply.header("X-Cache") == expected


@pytest.mark.case(123)
async def test_a_reworded_completion_gets_the_stored_text(near: House) -> None:
    """A prompt of OpenAI's form; what it stored serves its own form, and not the native one, which tells more."""
    body = {"model": MODEL, "prompt": QUESTION}
    donor = await near.ask("POST", "/v1/completions", body)
    await near.settled()

    hit = await near.ask("POST", "/v1/completions", body | {"prompt": REWORDED})
    options = {"temperature": 1, "top_p": 1, "frequency_penalty": 0, "presence_penalty": 0}
    native = await near.generate(REWORDED, stream=False, options=options)

    assert (hit.header("X-Cache"), said(hit)) == ("SEMANTIC", said(donor))
    assert native.header("X-Cache") == "MISS"


@pytest.mark.case(122)
@pytest.mark.parametrize("path", ["/api/generate", "/v1/completions"])
@pytest.mark.parametrize("other", [{"seed": 1}, {"messages": 5}, {"messages": [5]}])
async def test_members_of_another_route_never_confuse_the_semantic_tier(
    near: House, path: str, other: dict[str, Any]
) -> None:
    """Ollama does not look at them there; they are part of the key, and nothing is compared by meaning."""
    replies = []
    for question in (QUESTION, QUESTION, REWORDED):
        replies.append(await near.ask("POST", path, {"model": MODEL, "prompt": question} | other))
        await near.settled()

    assert [reply.header("X-Cache") for reply in replies] == ["MISS", "EXACT", "MISS"]


@pytest.mark.case(124)
async def test_without_an_embedder_only_exact_answers_are_served(near: House) -> None:
    """A miss, at once."""
    await stored(near)
    await near.app.vectors.close()

    assert (await near.chat(REWORDED, stream=False)).header("X-Cache") == "MISS"
    assert (await near.chat(QUESTION, stream=False)).header("X-Cache") == "EXACT"


async def test_exact_hits_are_served_while_the_model_is_loading(
    fake_ollama: FakeOllama, clean_redis: RedisServer
) -> None:
    """And `/readyz` says what is missing."""
    async with open_house(fake_ollama, clean_redis, semantic=SERVE) as house:
        assert house.app.vectors.state == "loading"
        await house.chat(QUESTION, stream=False)
        await house.settled()
        state = (await house.admin("GET", "/readyz")).json()["parts"]["embedder"]
        hit = await house.chat(QUESTION, stream=False)

    assert (state["state"], hit.header("X-Cache")) == ("degraded", "EXACT")


@pytest.mark.parametrize(
    ("headers", "outcome"),
    [
        ([("X-Cache-Threshold", "0.9999")], "MISS"),
        ([("X-Cache-Threshold", "0.1")], "SEMANTIC"),
        ([("X-Cache-Mode", "exact")], "MISS"),
        ([("Cache-Control", "no-cache")], "MISS"),
        ([("Cache-Control", "only-if-cached")], "SEMANTIC"),
    ],
)
async def test_a_caller_may_only_tighten(near: House, headers: list[tuple[str, str]], outcome: str) -> None:
    """A higher threshold, exact answers only, a fresh answer; a lower threshold does nothing."""
    await stored(near)

    assert (await near.chat(REWORDED, stream=False, headers=headers)).header("X-Cache") == outcome


async def test_a_lower_threshold_than_configured_does_not_widen(near: House) -> None:
    """Two questions below 0.92 stay apart whatever the caller says."""
    await stored(near, "How do I reset my password?")

    reply = await near.chat("How do I change my password?", stream=False, headers=[("X-Cache-Threshold", "0.5")])

    assert reply.header("X-Cache") == "MISS"


async def test_shadow_mode_answers_from_ollama_and_writes_down_what_it_would_have_served(
    fake_ollama: FakeOllama, clean_redis: RedisServer
) -> None:
    """Similarity, verdict and how alike the answers were."""
    async with open_house(fake_ollama, clean_redis, semantic={"mode": "shadow"}) as house:
        await ready(house)
        await stored(house)
        reply = await house.chat(REWORDED, stream=False)
        await house.settled()
        records = await house.app._stored.shadow.read(10)

    assert reply.header("X-Cache") == "MISS"
    (record,) = records
    assert record.reason == ""
    assert record.similarity >= 0.92
    assert 0 <= record.likeness <= 1
    assert QUESTION not in (record.question, record.stored)


async def test_a_model_may_be_left_out_or_have_a_threshold_of_its_own(
    fake_ollama: FakeOllama, clean_redis: RedisServer
) -> None:
    """By pattern in the config."""
    models = {"llama3.2*": {"semantic": False}, "llama3:*": {"threshold": 0.9999}}
    async with open_house(fake_ollama, clean_redis, semantic=SERVE, models=models) as house:
        await ready(house)
        for model in ("llama3.2", "llama3"):
            await house.chat(QUESTION, stream=False, model=model)
            await house.settled()
            assert (await house.chat(REWORDED, stream=False, model=model)).header("X-Cache") == "MISS"


async def test_a_bad_hit_is_taken_out_and_its_pair_never_matches_again(near: House) -> None:
    """Feedback with the entry's name from the reply's header; the stored question may be asked anew."""
    await stored(near)
    wrong = await near.chat(REWORDED, stream=False)
    entry = wrong.header("X-Cache-Entry")
    await until(lambda: not near.app.cached._errands)

    told = await near.admin("POST", "/feedback", body={"entry": entry, "good": False})
    after = await near.chat(QUESTION, stream=False)
    await near.settled()
    again = await near.chat(REWORDED, stream=False)

    assert told.json() == {"entry": entry, "good": False, "deleted": 1, "kept_apart": 1}
    assert (after.header("X-Cache"), again.header("X-Cache")) == ("MISS", "MISS")


async def test_a_bad_hit_named_by_its_question_leaves_other_rewordings_alone(near: House) -> None:
    """Only the pair that was wrong is kept apart, though another question was served since."""
    await stored(near)
    right = QUESTION.rstrip("?") + " please?"
    wrong = await near.chat(REWORDED, stream=False)
    served = await near.chat(right, stream=False)
    await until(lambda: not near.app.cached._errands)

    said = {"entry": wrong.header("X-Cache-Entry"), "good": False, "question": REWORDED}
    told = await near.admin("POST", "/feedback", body=said)
    await stored(near)

    assert served.header("X-Cache") == "SEMANTIC"
    assert told.json()["kept_apart"] == 1
    assert (await near.chat(right, stream=False)).header("X-Cache") == "SEMANTIC"
    assert (await near.chat(REWORDED, stream=False)).header("X-Cache") == "MISS"


RAG = (
    "Use the following pieces of context to answer the question at the end. If you don't know the answer, just say "
    "that you don't know, don't try to make up an answer.\n\n{context}\n\nQuestion: {question}\nHelpful Answer:"
)
"""LangChain's `stuff` prompt."""


@pytest.mark.parametrize("words", [50, 2000])
async def test_two_questions_over_one_context_never_share_and_a_rewording_does(near: House, words: int) -> None:
    """Whatever the length of the context, only the question is compared."""
    context = "The Panthers defense gave up 308 points and led the league in interceptions. " * (words // 13)

    def prompt(question: str) -> str:
        return RAG.format(context=context, question=question)

    await near.generate(prompt("How many points did the defense give up?"), stream=False)
    await near.settled()
    other = await near.generate(prompt("How many interceptions did the defense have?"), stream=False)
    await near.settled()
    reworded = await near.generate(prompt("How many points did the defense give up in total?"), stream=False)
    elsewhere = await near.generate(
        RAG.format(context=context + "x", question="How many points did the defense give up in total?"), stream=False
    )

    assert other.header("X-Cache") == "MISS"
    assert reworded.header("X-Cache") == "SEMANTIC"
    assert elsewhere.header("X-Cache") == "MISS"


async def test_after_the_first_neighbour_that_serves_none_is_judged(
    near: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A farther one could not win, and guards cost more than the look-up."""
    await stored(near)
    await near.chat(REWORDED, stream=False, headers=[("Cache-Control", "no-cache")])
    await near.settled()
    judged: list[str] = []

    def noted(question: str, answered: str, similarity: float, **more: Any) -> Verdict:
        judged.append(answered)
        return accept(question, answered, similarity, **more)

    monkeypatch.setattr("cacheproxy.flow.near.accept", noted)
    hit = await near.chat("How can I reset my password please?", stream=False)

    await near.app.semantic.ensure_index()
    assert near.app.semantic.statistics().documents == 2
    assert hit.header("X-Cache") == "SEMANTIC"
    assert len(judged) == 1


async def test_concurrent_rewordings_agree_with_those_asked_one_by_one(near: House) -> None:
    """Micro-batches change nothing."""
    await stored(near)
    questions = [REWORDED, "How could I reset my password?", "How do I reset my password please?"]

    together = await asyncio.gather(*(near.chat(question, stream=False) for question in questions * 5))
    alone = [await near.chat(question, stream=False) for question in questions]

    for position, reply in enumerate(together):
        assert reply.header("X-Cache") == alone[position % 3].header("X-Cache") == "SEMANTIC"
        assert reply.header("X-Cache-Similarity") == alone[position % 3].header("X-Cache-Similarity")


async def test_operators_see_what_the_index_holds(near: House) -> None:
    """Its entries, and those it could not take, which somebody else must have written."""
    await stored(near)
    space = near.app.semantic.space
    assert near.redis is not None
    near.redis.call("HSET", "cacheproxy:answer:x:y:z", "scope", "s", vector_field(space), b"too short")
    await near.app.semantic.ensure_index()

    shown = (await near.admin("GET", "/metrics")).text

    assert "cacheproxy_near_index_entries 1.0\n" in shown
    assert "cacheproxy_near_index_refused 1.0\n" in shown


async def test_without_an_index_nothing_is_said_of_it(fake_ollama: FakeOllama, clean_redis: RedisServer) -> None:
    """A figure of 0 would look like an empty one."""
    async with open_house(fake_ollama, clean_redis, semantic={"mode": "off"}) as house:
        assert "\ncacheproxy_near_index_entries " not in (await house.admin("GET", "/metrics")).text
