"""Real clients of OpenAI's API over real sockets: a miss, then a hit, and the app cannot tell them apart."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import openai
import pytest
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI

from cacheproxy.model import Outcome
from tests.fakes.house import MODEL, House

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
]
"""The libraries do not close what they open, and warn of each other; that is theirs."""

QUESTION = "Why is the sky blue?"
MESSAGES: Any = [{"role": "user", "content": QUESTION}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}, "day": {"type": "string"}}},
    },
}
USAGE: Any = {"include_usage": True}


async def twice(house: House, ask: Callable[[], Any]) -> tuple[Any, Any]:
    """Ask in a thread, wait until it is kept, ask again; Ollama must have heard one of the two."""
    first = await asyncio.to_thread(ask)
    await house.settled()
    second = await asyncio.to_thread(ask)
    outcomes = (await house.stats())["outcomes"]
    assert (outcomes[Outcome.MISS], outcomes[Outcome.EXACT]) == (1, 1), outcomes
    return first, second


def sdk(house: House) -> openai.OpenAI:
    """OpenAI's own client."""
    return openai.OpenAI(base_url=f"{house.app.proxy_url}/v1", api_key="any", max_retries=0)


def timeless(reply: Any) -> dict[str, Any]:
    """A reply without its id and the moment it was made."""
    return {name: value for name, value in reply.model_dump().items() if name not in ("id", "created")}


def joined(chunks: Iterable[Any]) -> tuple[str, list[Any], list[Any]]:
    """Text, finish reasons and usages of a stream."""
    text, finishes, usages = "", [], []
    for chunk in chunks:
        usages += [chunk.usage] if chunk.usage else []
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finishes += [choice.finish_reason] if choice.finish_reason else []
    return text, finishes, usages


@pytest.mark.case(67)
async def test_the_sdk_gets_equal_chat_completions(house: House) -> None:
    """Every member but id and time, usage included."""
    client = sdk(house)

    miss, hit = await twice(house, lambda: client.chat.completions.create(model=MODEL, messages=MESSAGES))

    assert timeless(miss) == timeless(hit)
    assert hit.choices[0].message.content
    assert hit.usage.total_tokens


@pytest.mark.case(76)
async def test_the_sdk_gets_equal_tool_calls(house: House) -> None:
    """Ids, names and the text of the arguments."""
    house.ollama.calls_tools = True
    client = sdk(house)

    miss, hit = await twice(house, lambda: client.chat.completions.create(model=MODEL, messages=MESSAGES, tools=[TOOL]))

    assert timeless(miss) == timeless(hit)
    assert hit.choices[0].finish_reason == "tool_calls"
    assert hit.choices[0].message.tool_calls[0].function.arguments.startswith('{"place":')


@pytest.mark.case(76)
async def test_the_sdk_goes_on_after_a_tools_result(house: House) -> None:
    """The second turn, with the call and its result in the history, is cached too."""
    house.ollama.calls_tools = True
    client = sdk(house)
    first = await asyncio.to_thread(
        lambda: client.chat.completions.create(model=MODEL, messages=MESSAGES, tools=[TOOL])
    )
    await house.settled()
    call = first.choices[0].message
    history = [*MESSAGES, call, {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "rain"}]

    replies = []
    for _ in range(2):
        replies.append(
            await asyncio.to_thread(lambda: client.chat.completions.create(model=MODEL, messages=history, tools=[TOOL]))
        )
        await house.settled()

    assert timeless(replies[0]) == timeless(replies[1])
    assert house.calls("/v1/chat/completions") == 2


@pytest.mark.case(69)
@pytest.mark.parametrize("options", [{}, {"stream_options": USAGE}], ids=["plain", "usage"])
async def test_the_sdk_streams_chat_completions(house: House, options: dict[str, Any]) -> None:
    """The same text, one finish, and usage where it was asked for."""
    client = sdk(house)

    def ask() -> tuple[str, list[Any], list[Any]]:
        return joined(client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True, **options))

    miss, hit = await twice(house, ask)

    assert miss == hit
    text, finishes, usages = hit
    assert text
    assert (finishes, len(usages)) == (["stop"], len(options))


async def test_the_sdk_streams_tool_calls(house: House) -> None:
    """Accumulated by the client's own helper into the same message."""
    house.ollama.calls_tools = True
    client = sdk(house)

    def ask() -> Any:
        with client.chat.completions.stream(model=MODEL, messages=MESSAGES, tools=[TOOL]) as stream:
            return stream.get_final_completion()

    miss, hit = await twice(house, ask)

    assert timeless(miss) == timeless(hit)
    assert hit.choices[0].message.tool_calls


@pytest.mark.case(82)
@pytest.mark.parametrize("stream", [False, True])
async def test_the_sdk_gets_equal_completions(house: House, stream: bool) -> None:
    """Whole and streamed."""
    client = sdk(house)

    def ask() -> Any:
        reply: Any = client.completions.create(model=MODEL, prompt=QUESTION, stream=stream)
        return "".join(chunk.choices[0].text for chunk in reply) if stream else timeless(reply)

    miss, hit = await twice(house, ask)

    assert miss == hit
    assert hit


async def test_the_async_sdk_streams_what_was_stored_whole(house: House) -> None:
    """The two forms share one entry."""
    async with openai.AsyncOpenAI(base_url=f"{house.app.proxy_url}/v1", api_key="any", max_retries=0) as client:
        miss = await client.chat.completions.create(model=MODEL, messages=MESSAGES)
        await house.settled()
        stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert text == miss.choices[0].message.content
    assert house.calls("/v1/chat/completions") == 1


async def test_the_sdk_controls_the_cache_in_the_body(house: House) -> None:
    """`extra_body`, and the headers it shows tell what happened."""
    client = sdk(house)

    def outcome(**body: Any) -> str:
        raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES, extra_body=body)
        return str(raw.headers["x-cache"])

    assert await asyncio.to_thread(outcome) == "MISS"
    await house.settled()
    assert await asyncio.to_thread(outcome) == "EXACT"
    assert await asyncio.to_thread(lambda: outcome(cache={"no-cache": True})) == "MISS"
    assert await asyncio.to_thread(lambda: outcome(cache=False)) == "BYPASS"


@pytest.mark.case(79)
async def test_an_unknown_model_is_the_error_the_sdk_knows(house: House) -> None:
    """404 with Ollama's text."""
    client = sdk(house)

    with pytest.raises(openai.NotFoundError, match="model 'nobody' not found"):
        await asyncio.to_thread(lambda: client.chat.completions.create(model="nobody", messages=MESSAGES))


async def test_an_api_key_keeps_callers_apart(house: House) -> None:
    """`Authorization` is a partition by default: two keys never share."""
    for key, expected in [("one", "MISS"), ("two", "MISS"), ("one", "EXACT")]:
        client = openai.OpenAI(base_url=f"{house.app.proxy_url}/v1", api_key=key, max_retries=0)
        raw = await asyncio.to_thread(
            lambda client=client: client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES)
        )
        assert raw.headers["x-cache"] == expected
        await house.settled()


@pytest.mark.parametrize("streaming", [False, True])
async def test_langchain_openai_gets_equal_messages(house: House, streaming: bool) -> None:
    """Whole, and streamed behind `invoke`."""
    chat = ChatOpenAI(model=MODEL, base_url=f"{house.app.proxy_url}/v1", api_key="any", streaming=streaming)  # type: ignore[arg-type]

    miss, hit = await twice(house, lambda: chat.invoke([HumanMessage(QUESTION)]))

    assert miss.content == hit.content != ""
    assert miss.usage_metadata == hit.usage_metadata
    assert hit.response_metadata["finish_reason"] == "stop"


LITELLM = """
import json, sys, litellm
asked = {"model": "openai/%s", "messages": json.loads(sys.argv[2]), "api_base": sys.argv[1], "api_key": "any"}
for _ in range(2):
    print(json.dumps(litellm.completion(**asked).choices[0].model_dump()))
print(json.dumps("".join(chunk.choices[0].delta.content or "" for chunk in litellm.completion(**asked, stream=True))))
"""


LITELLM_PYTHON = Path(sys.prefix, "litellm", "bin", "python")
"""It holds back libraries that the package needs, so `make test` gives it an environment of its own."""


@pytest.mark.skipif(not LITELLM_PYTHON.exists(), reason="litellm is installed by make test, apart from the rest")
async def test_litellm_gets_equal_replies(house: House) -> None:
    """As a client of OpenAI's form, whole and streamed. In a process of its own: it rewires logging for all others."""
    process = await asyncio.create_subprocess_exec(
        LITELLM_PYTHON, "-c", LITELLM % MODEL, f"{house.app.proxy_url}/v1", json.dumps(MESSAGES),
        stdout=subprocess.PIPE,
        env=os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"},  # else it asks the web for prices
    )  # fmt: skip
    output, _ = await process.communicate()
    miss, hit, streamed = [json.loads(line) for line in output.splitlines()]

    assert miss == hit
    assert hit["message"]["content"] == streamed != ""
    assert house.calls("/v1/chat/completions") == 1
