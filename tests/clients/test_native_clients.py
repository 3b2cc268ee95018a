"""Real clients of Ollama over real sockets: a miss, then a hit, and the app cannot tell them apart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import ollama
import pytest
from langchain_core.messages import HumanMessage
from langchain_ollama import ChatOllama, OllamaLLM
from llama_index.core.llms import ChatMessage
from llama_index.llms.ollama import Ollama as LlamaIndexOllama

from cacheproxy.model import Outcome
from tests.fakes.house import MODEL, House
from tests.fakes.ollama import unicode_lines

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
"""The libraries do not close what they open; that is theirs."""

QUESTION = "Why is the sky blue?"
MESSAGES = [{"role": "user", "content": QUESTION}]


async def twice(house: House, ask: Callable[[], Any]) -> tuple[Any, Any]:
    """Ask in a thread, wait until it is kept, ask again; Ollama must have heard one of the two."""
    first = await asyncio.to_thread(ask)
    await house.settled()
    second = await asyncio.to_thread(ask)
    outcomes = (await house.stats())["outcomes"]
    assert (outcomes[Outcome.MISS], outcomes[Outcome.EXACT]) == (1, 1), outcomes
    return first, second


def timeless(reply: Any) -> dict[str, Any]:
    """A reply of ollama-python without the moment it was made."""
    return {name: value for name, value in reply.model_dump().items() if name != "created_at"}


async def test_ollama_python_gets_equal_chat_replies(house: House) -> None:
    """Whole: every member but the time, metrics included."""
    client = ollama.Client(host=house.app.proxy_url)

    miss, hit = await twice(house, lambda: client.chat(model=MODEL, messages=MESSAGES))

    assert timeless(miss) == timeless(hit)
    assert hit.message.content


async def test_ollama_python_gets_equal_generate_replies(house: House) -> None:
    """Context included, so a conversation can go on from a hit."""
    client = ollama.Client(host=house.app.proxy_url)

    miss, hit = await twice(house, lambda: client.generate(model=MODEL, prompt=QUESTION))

    assert timeless(miss) == timeless(hit)
    assert hit.context


async def test_ollama_python_streams_both(house: House) -> None:
    """The text is the same and both end with the metrics."""
    client = ollama.Client(host=house.app.proxy_url)

    def ask() -> list[Any]:
        return list(client.chat(model=MODEL, messages=MESSAGES, stream=True))

    miss, hit = await twice(house, ask)

    assert "".join(part.message.content for part in miss) == "".join(part.message.content for part in hit)
    assert timeless(miss[-1]) == timeless(hit[-1])
    assert hit[-1].done


async def test_ollama_python_async_streams_what_was_stored_whole(house: House) -> None:
    """The two forms share one entry."""
    client = ollama.AsyncClient(host=house.app.proxy_url)

    miss = await client.chat(model=MODEL, messages=MESSAGES)
    await house.settled()
    parts = [part async for part in await client.chat(model=MODEL, messages=MESSAGES, stream=True)]

    assert "".join(part.message.content for part in parts) == miss.message.content
    assert house.calls() == 1


async def test_ollama_python_gets_thinking_from_a_hit(house: House) -> None:
    """Thinking and text stay apart."""
    client = ollama.Client(host=house.app.proxy_url)

    miss, hit = await twice(house, lambda: client.chat(model="qwen3", messages=MESSAGES, think=True))

    assert miss.message.thinking
    assert timeless(miss) == timeless(hit)


async def test_ollama_python_gets_tool_calls_from_a_hit(house: House) -> None:
    """Names, ids and arguments in their order."""
    house.ollama.calls_tools = True
    client = ollama.Client(host=house.app.proxy_url)
    tool = {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {"type": "object", "properties": {"place": {"type": "string"}, "day": {"type": "string"}}},
        },
    }

    miss, hit = await twice(house, lambda: client.chat(model=MODEL, messages=MESSAGES, tools=[tool]))

    assert miss.message.tool_calls
    assert timeless(miss) == timeless(hit)


@pytest.mark.case(135)
async def test_separators_inside_an_answer_do_not_break_a_streamed_hit(house: House) -> None:
    """ollama-python splits lines at U+2028 and U+0085 too."""
    house.ollama.next(unicode_lines())
    client = ollama.Client(host=house.app.proxy_url)
    whole = await asyncio.to_thread(lambda: client.chat(model=MODEL, messages=MESSAGES))
    await house.settled()

    parts = await asyncio.to_thread(lambda: list(client.chat(model=MODEL, messages=MESSAGES, stream=True)))

    assert "".join(part.message.content for part in parts) == whole.message.content
    assert "\u2028" in whole.message.content


async def test_an_unknown_model_is_the_error_the_client_knows(house: House) -> None:
    """404 with Ollama's text."""
    client = ollama.Client(host=house.app.proxy_url)

    with pytest.raises(ollama.ResponseError, match="model 'nobody' not found") as caught:
        await asyncio.to_thread(lambda: client.chat(model="nobody", messages=MESSAGES))

    assert caught.value.status_code == 404


async def test_langchain_chat_gets_equal_messages(house: House) -> None:
    """ChatOllama always streams, also for `invoke`."""
    chat = ChatOllama(model=MODEL, base_url=house.app.proxy_url)

    miss, hit = await twice(house, lambda: chat.invoke([HumanMessage(QUESTION)]))

    assert miss.content == hit.content != ""
    assert miss.usage_metadata == hit.usage_metadata
    assert hit.response_metadata["done_reason"] == "stop"


async def test_langchain_llm_gets_equal_texts(house: House) -> None:
    """`/api/generate` behind it."""
    llm = OllamaLLM(model=MODEL, base_url=house.app.proxy_url)

    miss, hit = await twice(house, lambda: llm.invoke(QUESTION))

    assert miss == hit != ""


async def test_llama_index_gets_equal_replies(house: House) -> None:
    """It asks for the model's context length first, whole and streamed."""
    llm = LlamaIndexOllama(model=MODEL, base_url=house.app.proxy_url, request_timeout=30)

    miss, hit = await twice(house, lambda: llm.chat([ChatMessage(role="user", content=QUESTION)]))
    streamed = await asyncio.to_thread(
        lambda: list(llm.stream_chat([ChatMessage(role="user", content=QUESTION)]))[-1].message.content
    )

    assert miss.message.content == hit.message.content == streamed != ""
    assert house.calls() == 1
