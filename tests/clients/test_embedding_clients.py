"""Real clients that ask for vectors, over real sockets: a miss, then a hit, and equal objects."""

from __future__ import annotations

import asyncio
from array import array

import ollama
import openai
import pytest
from langchain_ollama import OllamaEmbeddings
from llama_index.embeddings.ollama import OllamaEmbedding

from cacheproxy.model import Outcome
from tests.clients.test_native_clients import twice
from tests.fakes.house import House

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
"""The libraries do not close what they open; that is theirs."""

MODEL = "nomic-embed-text"
TEXTS = ["The sky is blue.", "Grass is green, and \u2028 that is that."]


async def test_ollama_python_gets_equal_vectors(house: House) -> None:
    """With the durations and tokens of the call that made them."""
    client = ollama.Client(host=house.app.proxy_url)

    miss, hit = await twice(house, lambda: client.embed(model=MODEL, input=TEXTS))

    assert miss == hit
    assert len(hit.embeddings) == 2
    assert hit.prompt_eval_count


async def test_ollama_python_gets_equal_vectors_of_the_older_route(house: House) -> None:
    """One text, one vector."""
    client = ollama.Client(host=house.app.proxy_url)

    miss, hit = await twice(house, lambda: client.embeddings(model=MODEL, prompt=TEXTS[0]))

    assert miss == hit
    assert hit.embedding


async def test_ollama_python_takes_a_reply_that_does_not_tell_tokens(house: House) -> None:
    """One text of a list of two."""
    client = ollama.AsyncClient(host=house.app.proxy_url)
    both = await client.embed(model=MODEL, input=TEXTS)
    await house.settled()
    one = await client.embed(model=MODEL, input=TEXTS[1])

    assert one.embeddings == both.embeddings[1:]
    assert one.prompt_eval_count is None
    assert house.calls("/api/embed") == 1


@pytest.mark.case(81)
@pytest.mark.parametrize("encoding", ["float", "base64", None])
async def test_openai_gets_equal_vectors(house: House, encoding: str | None) -> None:
    """Asked for as numbers, as base64, and as the library asks when the app says nothing (base64, decoded by it)."""
    client = openai.OpenAI(base_url=f"{house.app.proxy_url}/v1", api_key="unused", max_retries=0)
    members = {"encoding_format": encoding} if encoding else {}

    miss, hit = await twice(house, lambda: client.embeddings.create(model=MODEL, input=TEXTS, **members))

    assert miss == hit
    assert len(hit.data) == 2
    assert hit.usage.prompt_tokens == hit.usage.total_tokens > 0


@pytest.mark.case(81)
async def test_openai_gets_the_same_numbers_from_what_ollama_python_stored(house: House) -> None:
    """Through base64, which the library decodes."""
    native = ollama.AsyncClient(host=house.app.proxy_url, headers={"Authorization": "Bearer same"})
    stored = await native.embed(model=MODEL, input=TEXTS)
    await house.settled()
    client = openai.AsyncOpenAI(base_url=f"{house.app.proxy_url}/v1", api_key="same", max_retries=0)
    read = await client.embeddings.create(model=MODEL, input=TEXTS)

    assert [item.embedding for item in read.data] == [array("f", row).tolist() for row in stored.embeddings]
    assert read.usage.prompt_tokens == stored.prompt_eval_count
    assert house.calls("/v1/embeddings") == 0


async def test_langchain_reads_an_index_again_from_the_cache(house: House) -> None:
    """A list, then one of its texts as a question."""
    model = OllamaEmbeddings(model=MODEL, base_url=house.app.proxy_url)

    miss, hit = await twice(house, lambda: model.embed_documents(TEXTS))
    question = await asyncio.to_thread(lambda: model.embed_query(TEXTS[0]))

    assert miss == hit
    assert question == hit[0]
    assert house.calls("/api/embed") == 1


async def test_llama_index_reads_an_index_again_from_the_cache(house: House) -> None:
    """In batches of its own."""
    model = OllamaEmbedding(model_name=MODEL, base_url=house.app.proxy_url, query_instruction="", text_instruction="")

    miss = await asyncio.to_thread(lambda: model.get_text_embedding_batch(TEXTS))
    await house.settled()
    asked = house.calls("/api/embed")
    hit = await asyncio.to_thread(lambda: model.get_text_embedding_batch(TEXTS))

    assert miss == hit
    assert house.calls("/api/embed") == asked
    assert (await house.stats())["outcomes"][Outcome.EXACT] >= 1
