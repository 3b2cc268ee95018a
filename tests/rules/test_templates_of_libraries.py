"""The built-in prompts against the libraries themselves: what they send is split where they put the question."""

from __future__ import annotations

import asyncio
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from haystack import Document
from haystack.components.builders import ChatPromptBuilder, PromptBuilder
from haystack.dataclasses import ChatMessage as HaystackMessage
from haystack_integrations.components.generators.ollama import OllamaChatGenerator
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_ollama import ChatOllama, OllamaLLM
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.chat_engine import CondensePlusContextChatEngine, CondenseQuestionChatEngine, ContextChatEngine
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.llms.ollama import Ollama as LlamaIndexOllama

from cacheproxy.config import Semantic
from cacheproxy.rules.question import Split, split, templates_of
from cacheproxy.wire import dialects
from tests.fakes.garbage import left_over_collected
from tests.fakes.ollama import FakeOllama

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
"""The libraries do not close what they open; that is theirs."""

MODEL = "llama3"
TEMPLATES = templates_of(Semantic())
ONE, OTHER = "How do I reset my password?", "Who may see my invoices?"
FACTS = ["Passwords are reset on the login page.\n\nQuestion: is this a plant?\nAnswer: yes", "Invoices are private."]
OTHER_FACTS = ["Nobody resets passwords.", "Invoices are public."]
Send = Callable[[str, list[str]], Any]
"""Let a library ask a question over documents."""


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Whatever a library left open is closed while its warnings are still ignored."""
    with left_over_collected():
        yield


async def sent(fake: FakeOllama, send: Send, question: str, documents: list[str]) -> list[Split]:
    """What reached Ollama, split; one for each request to a model."""
    seen = len(fake.requests)
    await asyncio.to_thread(send, question, documents)
    asks = [request for request in list(fake.requests)[seen:] if request.path in ("/api/chat", "/api/generate")]
    assert asks
    return [split(dialects.BY_PATH[ask.path].parse(ask.body), TEMPLATES, max_temperature=1.0) for ask in asks]


async def assert_split(fake: FakeOllama, send: Send) -> None:
    """Same documents: one setting and the question to the letter. Other documents: another setting."""
    one = await sent(fake, send, ONE, FACTS)
    other = await sent(fake, send, OTHER, FACTS)
    elsewhere = await sent(fake, send, ONE, OTHER_FACTS)

    assert [part.question for part in one] == [ONE] * len(one)
    assert [part.question for part in other] == [OTHER] * len(other)
    assert [part.question for part in elsewhere] == [ONE] * len(elsewhere)
    assert one[0].setting == other[0].setting != elsewhere[0].setting


async def assert_never(fake: FakeOllama, send: Send) -> None:
    """Not one request is compared by meaning."""
    assert {part.near_off for part in await sent(fake, send, ONE, FACTS)} == {"unclear-prompt"}


# --- LangChain ---

RAG_PROMPT = (
    "You are an assistant for question-answering tasks. Use the following pieces of retrieved context to answer the "
    "question. If you don't know the answer, just say that you don't know. Use three sentences maximum and keep the "
    "answer concise.\nQuestion: {question} \nContext: {context} \nAnswer:"
)
"""rlm/rag-prompt of the hub."""
STUFF_PROMPT = """Use the following pieces of context to answer the question at the end. If you don't know the answer, \
just say that you don't know, don't try to make up an answer.

{context}

Question: {question}
Helpful Answer:"""
"""langchain_classic.chains.retrieval_qa.prompt"""
STUFF_SYSTEM = """Use the following pieces of context to answer the user's question.
If you don't know the answer, just say that you don't know, don't try to make up an answer.
----------------
{context}"""
"""langchain_classic.chains.question_answering.stuff_prompt, for chat models"""
FIRST_CHAIN = "Answer the question based only on the following context:\n{context}\n\nQuestion: {question}\n"
LANGCHAIN = {
    "hub": ChatPromptTemplate.from_messages([("human", RAG_PROMPT)]),
    "stuff": PromptTemplate.from_template(STUFF_PROMPT),
    "stuff, context in the system message": ChatPromptTemplate.from_messages(
        [("system", STUFF_SYSTEM), ("human", "{question}")]
    ),
    "first chain": ChatPromptTemplate.from_template(FIRST_CHAIN),
}


@pytest.mark.parametrize("prompt", LANGCHAIN)
@pytest.mark.parametrize("model", [ChatOllama, OllamaLLM])
async def test_langchain(fake_ollama: FakeOllama, prompt: str, model: Any) -> None:
    """Chat models get messages; completion models get them written out as one text."""
    chain = LANGCHAIN[prompt] | model(model=MODEL, base_url=fake_ollama.url)

    await assert_split(
        fake_ollama, lambda question, documents: chain.invoke({"question": question, "context": "\n\n".join(documents)})
    )


async def test_langchain_first_example(fake_ollama: FakeOllama) -> None:
    """The words around the question are no part of it."""
    prompt = ChatPromptTemplate.from_template("Question: {question}\n\nAnswer: Let's think step by step.")
    chain = prompt | OllamaLLM(model=MODEL, base_url=fake_ollama.url)

    [one] = await sent(fake_ollama, lambda question, _: chain.invoke({"question": question}), ONE, [])

    assert one.question == ONE


# --- LlamaIndex ---


class Fixed(BaseRetriever):
    """Finds the same documents for every question."""

    def __init__(self, documents: list[str]) -> None:
        super().__init__()
        self.documents = documents

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:  # noqa: ARG002 - its name is fixed
        return [NodeWithScore(node=TextNode(text=text), score=1.0) for text in self.documents]


HISTORY = [
    ChatMessage(role=MessageRole.USER, content="I cannot log in."),
    ChatMessage(role=MessageRole.ASSISTANT, content="What have you tried?"),
]


def llama(fake: FakeOllama) -> LlamaIndexOllama:
    """The integration as its documentation makes it."""
    return LlamaIndexOllama(model=MODEL, base_url=fake.url, context_window=8000)


@pytest.mark.parametrize("mode", ["compact", "tree_summarize", "simple_summarize"])
async def test_llamaindex_query_engine(fake_ollama: FakeOllama, mode: str) -> None:
    """The default prompts of a query engine, whose texts hold a line that looks like a question."""
    llm = llama(fake_ollama)

    def send(question: str, documents: list[str]) -> Any:
        engine = RetrieverQueryEngine.from_args(Fixed(documents), llm=llm, response_mode=mode)
        return engine.query(question)

    await assert_split(fake_ollama, send)


async def test_llamaindex_refines_an_answer_with_more_context(fake_ollama: FakeOllama) -> None:
    """The second prompt has context on both sides of the question, and the answer so far."""
    synthesizer = get_response_synthesizer(llm=llama(fake_ollama), response_mode="refine")

    await assert_split(
        fake_ollama,
        lambda question, documents: synthesizer.synthesize(
            question, nodes=[NodeWithScore(node=TextNode(text=text)) for text in documents]
        ),
    )


async def test_llamaindex_completion(fake_ollama: FakeOllama) -> None:
    """The same prompt through /api/generate."""
    from llama_index.core.prompts.default_prompts import DEFAULT_TEXT_QA_PROMPT

    llm = llama(fake_ollama)

    await assert_split(
        fake_ollama,
        lambda question, documents: llm.complete(
            DEFAULT_TEXT_QA_PROMPT.format(query_str=question, context_str="\n\n".join(documents))
        ),
    )


@pytest.mark.parametrize("kind", ["condense_question", "condense_plus_context", "context"])
async def test_llamaindex_chat_engine(fake_ollama: FakeOllama, kind: str) -> None:
    """First the question is made whole from the conversation, then it is asked; each prompt's own question is found."""
    llm = llama(fake_ollama)

    def send(question: str, documents: list[str]) -> Any:
        if kind == "condense_question":
            query_engine = RetrieverQueryEngine.from_args(Fixed(documents), llm=llm)
            return CondenseQuestionChatEngine.from_defaults(query_engine=query_engine, llm=llm).chat(question, HISTORY)
        engine = CondensePlusContextChatEngine if kind == "condense_plus_context" else ContextChatEngine
        return engine.from_defaults(retriever=Fixed(documents), llm=llm).chat(question, HISTORY)

    one = await sent(fake_ollama, send, ONE, FACTS)
    other = await sent(fake_ollama, send, OTHER, FACTS)

    assert (one[0].question, other[0].question) == (ONE, OTHER)
    assert one[0].setting == other[0].setting
    assert [part.near_off for part in one] == [""] * len(one)


# --- Haystack ---

TUTORIAL = """
Given the following information, answer the question.

Context:
{% for document in documents %}
    {{ document.content }}
{% endfor %}

Question: {{question}}
Answer:
"""
"""Tutorial 27, the first on retrieval."""


def documented() -> str:
    """The prompt in the documentation of the installed PromptBuilder, as a program would hold it."""
    text = inspect.getdoc(PromptBuilder) or ""
    _, _, rest = text.partition('prompt_template = """')
    return rest.partition('"""')[0].replace("{{query}}", "{{question}}")


HAYSTACK = {
    "tutorial": TUTORIAL,
    "tutorial in a function": textwrap.indent(TUTORIAL, "    ").removesuffix("\n") + "\n    ",
    "documentation": documented(),
    "documentation at the top": textwrap.dedent(documented()).rstrip(" "),
}


@pytest.mark.parametrize("prompt", HAYSTACK)
async def test_haystack(fake_ollama: FakeOllama, prompt: str) -> None:
    """Its prompts are Jinja in the program's text, with the indent they have there."""
    builder = ChatPromptBuilder([HaystackMessage.from_user(HAYSTACK[prompt])], required_variables="*")
    generator = OllamaChatGenerator(model=MODEL, url=fake_ollama.url)

    def send(question: str, texts: list[str]) -> Any:
        documents = [Document(content=text) for text in texts]
        return generator.run(builder.run(question=question, documents=documents)["prompt"])

    await assert_split(fake_ollama, send)


# --- Open WebUI ---

OPEN_WEBUI = """### Task:
Respond to the user query using the provided context, incorporating inline citations in the format [id] **only when \
the <source> tag includes an explicit id attribute** (e.g., <source id="1">).

### Guidelines:
- Ensure citations are concise and directly related to the information provided.

<context>
{{CONTEXT}}
</context>
"""
"""DEFAULT_RAG_TEMPLATE of open_webui.config, most of its guidelines left out."""


def open_webui(fake: FakeOllama) -> Send:
    """What apply_source_context_to_messages of open_webui.utils.middleware makes of the user's message."""

    def send(question: str, texts: list[str]) -> None:
        sources = "\n".join(f'<source id="{number}">{text}</source>' for number, text in enumerate(texts, 1))
        content = f"{OPEN_WEBUI.replace('{{CONTEXT}}', sources)}\n{question}"
        ChatOllama(model=MODEL, base_url=fake.url).invoke([("human", "Hi"), ("ai", "Hello"), ("human", content)])

    return send


async def test_open_webui(fake_ollama: FakeOllama) -> None:
    """The sources stand in front of the user's own words."""
    await assert_split(fake_ollama, open_webui(fake_ollama))


async def test_open_webui_tasks_about_a_conversation_are_never_compared(fake_ollama: FakeOllama) -> None:
    """A title depends on all of the conversation it is for."""
    title = "### Task:\nGenerate a concise title summarizing the chat history.\n### Chat History:\n<chat_history>\n"

    await assert_never(
        fake_ollama,
        lambda question, _: OllamaLLM(model=MODEL, base_url=fake_ollama.url).invoke(
            f"{title}USER: {question}\n</chat_history>"
        ),
    )
