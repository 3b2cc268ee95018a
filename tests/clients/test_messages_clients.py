"""Real clients of `/v1/messages` and `/v1/responses` over real sockets: a miss, then a hit, equal to the app."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI

from cacheproxy.model import Outcome
from tests.fakes.house import MODEL, House

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::DeprecationWarning"
)
"""The libraries do not close what they open, and warn of each other; that is theirs."""

QUESTION = "Why is the sky blue?"
MESSAGES: Any = [{"role": "user", "content": QUESTION}]
SCHEMA: Any = {"type": "object", "properties": {"place": {"type": "string"}, "day": {"type": "string"}}}
ANTHROPIC_TOOL: Any = {"name": "weather", "description": "Tells it.", "input_schema": SCHEMA}
SORTED_TOOL: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"day": {"type": "string"}, "place": {"type": "string"}}},
    "strict": False,
}
OPENAI_TOOL: Any = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False}
MODELS = pytest.mark.parametrize("model", [MODEL, "qwen3"])


async def twice(house: House, ask: Callable[[], Any]) -> tuple[Any, Any]:
    """Ask in a thread, wait until it is kept, ask again; Ollama must have heard one of the two."""
    first = await asyncio.to_thread(ask)
    await house.settled()
    second = await asyncio.to_thread(ask)
    outcomes = (await house.stats())["outcomes"]
    assert (outcomes[Outcome.MISS], outcomes[Outcome.EXACT]) == (1, 1), outcomes
    return first, second


def timeless(value: Any) -> Any:
    """What a library made of a reply, without ids and times, at any depth."""
    if isinstance(value, dict):
        left_out = {"id", "created_at", "completed_at", "item_id"}
        return {name: timeless(member) for name, member in value.items() if name not in left_out}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def claude(house: House) -> anthropic.Anthropic:
    """Anthropic's own client, pointed at the proxy as `ANTHROPIC_BASE_URL` does."""
    return anthropic.Anthropic(base_url=house.app.proxy_url, api_key="any", max_retries=0)


def sdk(house: House) -> openai.OpenAI:
    """OpenAI's own client."""
    return openai.OpenAI(base_url=f"{house.app.proxy_url}/v1", api_key="any", max_retries=0)


@MODELS
@pytest.mark.case(84)
async def test_anthropics_sdk_gets_equal_messages(house: House, model: str) -> None:
    """Every member but the id, usage and thinking included."""
    client = claude(house)

    miss, hit = await twice(house, lambda: client.messages.create(model=model, max_tokens=100, messages=MESSAGES))

    assert timeless(miss.model_dump()) == timeless(hit.model_dump())
    assert hit.content[-1].text
    assert hit.usage.output_tokens


@MODELS
@pytest.mark.case(84)
async def test_anthropics_sdk_streams_both(house: House, model: str) -> None:
    """The message that the library gathers from the events is the same."""
    client = claude(house)

    def ask() -> tuple[str, Any]:
        with client.messages.stream(model=model, max_tokens=100, messages=MESSAGES) as stream:
            return "".join(stream.text_stream), stream.get_final_message()

    (miss_text, miss), (hit_text, hit) = await twice(house, ask)

    assert timeless(miss.model_dump()) == timeless(hit.model_dump())
    assert miss_text == hit_text == hit.content[-1].text


@pytest.mark.case(84)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
async def test_anthropics_sdk_goes_on_from_a_tool_call_of_a_hit(house: House, streamed: bool) -> None:
    """The call is the same, so the turn after it is a hit as well."""
    house.ollama.calls_tools = True
    client = claude(house)
    same: Any = {"model": MODEL, "max_tokens": 100, "tools": [ANTHROPIC_TOOL]}

    def ask(messages: Any) -> Any:
        if not streamed:
            return client.messages.create(messages=messages, **same)
        with client.messages.stream(messages=messages, **same) as stream:
            return stream.get_final_message()

    def agent() -> tuple[Any, Any]:
        call = ask(MESSAGES)
        block = call.content[-1]
        result = {"type": "tool_result", "tool_use_id": block.id, "content": "rain"}
        turn = {"type": "tool_use", "id": block.id, "name": block.name, "input": block.input}
        history = [{"role": "assistant", "content": [turn]}, {"role": "user", "content": [result]}]
        return call, ask([*MESSAGES, *history])

    first = await asyncio.to_thread(agent)
    await house.settled()
    second = await asyncio.to_thread(agent)

    assert [timeless(reply.model_dump()) for reply in first] == [timeless(reply.model_dump()) for reply in second]
    assert first[0].stop_reason == "tool_use"
    assert first[0].content[-1].id == second[0].content[-1].id
    assert house.calls("/v1/messages") == 2


@MODELS
@pytest.mark.case(87)
async def test_openais_sdk_gets_equal_responses(house: House, model: str) -> None:
    """Every member but ids and times, reasoning and the echoed parameters included."""
    client = sdk(house)

    def ask() -> Any:
        return client.responses.create(model=model, input=QUESTION, instructions="be brief", max_output_tokens=100)

    miss, hit = await twice(house, ask)

    assert timeless(miss.model_dump()) == timeless(hit.model_dump())
    assert hit.output_text
    assert (hit.instructions, hit.max_output_tokens) == ("be brief", 100)


@MODELS
@pytest.mark.case(87)
async def test_openais_sdk_streams_both(house: House, model: str) -> None:
    """The response that the library gathers from the events is the same, and the events come in one order."""
    client = sdk(house)

    def ask() -> tuple[list[str], Any]:
        with client.responses.stream(model=model, input=QUESTION) as stream:
            return [event.type for event in stream], stream.get_final_response()

    (miss_events, miss), (hit_events, hit) = await twice(house, ask)

    assert timeless(miss.model_dump()) == timeless(hit.model_dump())
    assert list(dict.fromkeys(hit_events)) == list(dict.fromkeys(miss_events))
    assert hit.output_text == miss.output_text != ""


@pytest.mark.case(87)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
async def test_openais_sdk_gets_equal_function_calls(house: House, streamed: bool) -> None:
    """Their ids, names and arguments, and the tools of the request."""
    house.ollama.calls_tools = True
    client = sdk(house)

    def ask() -> Any:
        if not streamed:
            return client.responses.create(model=MODEL, input=QUESTION, tools=[OPENAI_TOOL])
        with client.responses.stream(model=MODEL, input=QUESTION, tools=[OPENAI_TOOL]) as stream:
            return stream.get_final_response()

    miss, hit = await twice(house, ask)

    assert timeless(miss.model_dump()) == timeless(hit.model_dump())
    assert hit.output[0].arguments.startswith('{"')
    assert hit.output[0].call_id == miss.output[0].call_id


def loop(ask: Callable[[Any], Any], output: str) -> list[Any]:
    """The replies of a loop as apps write it: what came is put into the history as it came, with what the tool gave."""
    items: list[Any] = [{"role": "user", "content": QUESTION}]
    replies = []
    while not replies or any(item.type == "function_call" for item in replies[-1].output):
        assert len(replies) < 4, "the model does not see what its tool gave"
        replies.append(ask(items))
        calls = [item for item in replies[-1].output if item.type == "function_call"]
        items += replies[-1].output
        items += [{"type": "function_call_output", "call_id": call.call_id, "output": output} for call in calls]
    return [*replies, ask([*items, {"role": "user", "content": "Are you sure?"}])]


@MODELS
@pytest.mark.case(87)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
async def test_openais_sdk_hits_on_every_step_of_a_tool_loop(house: House, model: str, streamed: bool) -> None:
    """Though the ids that it sends back are new in each reply. Another result of the tool has other answers."""
    house.ollama.calls_tools = True
    client = sdk(house)
    same: Any = {"model": model, "tools": [SORTED_TOOL], "include": []}

    def ask(items: Any) -> Any:
        if not streamed:
            return client.responses.create(input=items, **same)
        with client.responses.stream(input=items, **same) as stream:
            return stream.get_final_response()

    runs, seen = [], []
    for output in ("rain", "rain", "sun"):
        runs.append(await asyncio.to_thread(loop, ask, output))
        await house.settled()
        seen.append(house.calls("/v1/responses"))
    first, second, other = [[timeless(reply.model_dump()) for reply in run] for run in runs]

    assert first == second
    assert first[0] == other[0]
    assert all(reply["output"] != sunny["output"] for reply, sunny in zip(first[1:], other[1:], strict=True))
    assert len(first) == 3
    assert seen == [3, 3, 5]


@pytest.mark.case(87)
@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
async def test_langchain_hits_on_every_step_of_a_tool_loop_of_responses(house: House, streaming: bool) -> None:
    """It writes the items of its history itself."""
    house.ollama.calls_tools = True
    url = f"{house.app.proxy_url}/v1"
    chat = ChatOpenAI(model="qwen3", base_url=url, api_key="any", use_responses_api=True, streaming=streaming)  # type: ignore[arg-type]
    model = chat.bind_tools([OPENAI_TOOL])

    def run() -> list[Any]:
        history: list[Any] = [HumanMessage(QUESTION)]
        called = model.invoke(history)
        history += [called, ToolMessage("rain", tool_call_id=called.tool_calls[0]["id"])]
        answered = model.invoke(history)
        return [called, answered, model.invoke([*history, answered, HumanMessage("Are you sure?")])]

    first = await asyncio.to_thread(run)
    await house.settled()
    second = await asyncio.to_thread(run)

    assert [reply.text for reply in first] == [reply.text for reply in second]
    assert [reply.tool_calls for reply in first] == [reply.tool_calls for reply in second]
    assert first[1].text
    assert house.calls("/v1/responses") == 3


@anthropic.beta_tool
def weather(place: str) -> str:
    """Tells it."""
    return f"rain in {place}"


@pytest.mark.case(84)
async def test_anthropics_tool_runner_hits_on_every_step(house: House) -> None:
    """Without a thread, where it sends what was said before; a thread of Anthropic's is nothing that Ollama keeps."""
    house.ollama.calls_tools = True
    client = claude(house)

    def run(**how: Any) -> list[Any]:
        same: Any = how | {"model": MODEL, "max_tokens": 100, "tools": [weather], "messages": MESSAGES}
        return [timeless(reply.model_dump()) for reply in client.beta.messages.tool_runner(**same)]

    first = await asyncio.to_thread(run, thread=False)
    await house.settled()

    assert await asyncio.to_thread(run, thread=False) == first
    assert len(first) == 2
    assert house.calls("/v1/messages") == 2
    assert (await asyncio.to_thread(run))[0] == first[0]
    assert house.calls("/v1/messages") == 3
