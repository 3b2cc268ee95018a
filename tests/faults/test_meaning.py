"""Faults E, 84 to 88: a body that could be read in two ways is answered as Ollama answers it, and never cached."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes import wire
from tests.fakes.house import MODEL, House
from tests.fakes.wire import Response

USER = '"messages":[{"role":"user","content":"q"}]'

ODD = [
    pytest.param(f'{{"model":"{MODEL}","Model":"llama3",{USER}}}'.encode(), marks=pytest.mark.fault(84)),
    pytest.param(f'{{"model":"{MODEL}","model":"llama3",{USER}}}'.encode(), marks=pytest.mark.fault(84)),
    pytest.param(f'{{"model":"{MODEL}","ſtream":false,"stream":true,{USER}}}'.encode(), marks=pytest.mark.fault(84)),  # noqa: RUF001
    pytest.param(f'{{"model":"{MODEL}","\u212aeep_alive":0,{USER}}}'.encode(), marks=pytest.mark.fault(84)),
    pytest.param(f'{{"model":"{MODEL}","messages":[{{"role":"user","content":"q","Content":"other"}}]}}'.encode(),
                 marks=pytest.mark.fault(84)),
    pytest.param(f'{{"model":"{MODEL}","options":{{"seed":1}},"options":{{"top_k":3}},{USER}}}'.encode(),
                 marks=pytest.mark.fault(84)),
    pytest.param(f'{{"model":"{MODEL}","options":{{"seed":NaN}},{USER}}}'.encode(), marks=pytest.mark.fault(85)),
    pytest.param(f'{{"model":"{MODEL}","options":{{"temperature":1e400}},{USER}}}'.encode(),
                 marks=pytest.mark.fault(85)),
    pytest.param(f'{{"model":"{MODEL}","options":{{"num_ctx":{"9" * 5000}}},{USER}}}'.encode(),
                 marks=pytest.mark.fault(85)),
    pytest.param(b'{"a":' + b"[" * 5000 + b"]" * 5000 + f',"model":"{MODEL}",{USER}}}'.encode(),
                 marks=pytest.mark.fault(86)),
    pytest.param(f'{{"model":"{MODEL}",{USER},"a":[{"[]," * 200_000}[]]}}'.encode(), marks=pytest.mark.fault(86)),
    pytest.param(f'{{"model":"{MODEL}","messages":[{{"role":"user","content":"\\ud800"}}]}}'.encode(),
                 marks=pytest.mark.fault(87)),
    pytest.param(f'{{"model":"{MODEL}","messages":[{{"role":"user","content":"'.encode() + b"\xff\xfe" + b'"}]}',
                 marks=pytest.mark.fault(87)),
    pytest.param(b"\xef\xbb\xbf" + f'{{"model":"{MODEL}",{USER}}}'.encode(), marks=pytest.mark.fault(87)),
    pytest.param(f'{{"model":"{MODEL}",{USER}}}'.encode("utf-16"), marks=pytest.mark.fault(87)),
    pytest.param(f'{{"model":"{MODEL}",{USER}}}{{"model":"llama3",{USER}}}'.encode(), marks=pytest.mark.fault(88)),
    pytest.param(b"", marks=pytest.mark.fault(88)),
    pytest.param(b"[]", marks=pytest.mark.fault(88)),
    pytest.param(f'{{"model":"{MODEL}","messages":[{{"role":"user","content":["q"]}}]}}'.encode(),
                 marks=pytest.mark.fault(88)),
]  # fmt: skip


def said(reply: Response) -> Any:
    """Status and meaning of a reply, without times and durations."""
    try:
        lines = reply.lines()
    except ValueError:
        return reply.status, reply.body
    return reply.status, ["".join(str(line.get("message", line).get("content", line)) for line in lines)]


@pytest.mark.parametrize("body", ODD)
async def test_an_odd_body_is_answered_as_ollama_answers_it_and_never_cached(house: House, body: bytes) -> None:
    """Through the proxy twice and directly: the same status and text, and Ollama is asked each time."""
    direct = await wire.ask(house.ollama.port, "POST", "/api/chat", body)
    before = house.calls()

    replies = [await house.ask("POST", "/api/chat", body) for _ in range(2)]

    assert [said(reply) for reply in replies] == [said(direct)] * 2
    assert [reply.header("X-Cache") for reply in replies] == ["BYPASS"] * 2
    assert house.calls() == before + 2


names = st.sampled_from(["model", "Model", "MODEL", "messages", "stream", "Stream", "ſtream", "options", "x"])  # noqa: RUF001
values = st.sampled_from(
    ['"llama3"', '"llama3.2"', "false", "true", "null", '{"seed":1}', '[{"role":"user","content":"q"}]', '"q"']
)


@pytest.mark.fault(84)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(members=st.lists(st.tuples(names, values), max_size=5))
async def test_any_mixture_of_member_names_is_answered_as_ollama_answers_it(
    house: House, members: list[tuple[str, str]]
) -> None:
    """Whatever wins in Go's reading, the caller gets it, the second time too."""
    body = ("{" + ",".join(f"{json.dumps(name, ensure_ascii=False)}:{value}" for name, value in members) + "}").encode()
    direct = await wire.ask(house.ollama.port, "POST", "/api/chat", body)

    for _ in range(2):
        assert said(await house.ask("POST", "/api/chat", body)) == said(direct)
        await house.settled()
