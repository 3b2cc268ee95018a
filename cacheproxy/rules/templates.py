"""The prompts that libraries put around a question, letter for letter, by library. Data only.

{question} is the only part compared by meaning; {context} stands for any text, which must be equal. A pattern without
{question} is a prompt of which nothing may be compared. `tests/rules/test_templates_of_libraries.py` holds these to
what the libraries really send; a prompt that was changed since is not recognised, which costs hits and nothing else.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from types import MappingProxyType

_CONCISE = (
    "You are an assistant for question-answering tasks. Use the following pieces of retrieved context to answer the "
    "question. If you don't know the answer, just say that you don't know. Use three sentences maximum and keep the "
    "answer concise."
)

_LANGCHAIN = (
    # langchain-classic: RetrievalQA and ConversationalRetrievalChain with a completion model, and its tutorial's form.
    (
        "Use the following pieces of context to answer the question at the end. If you don't know the answer, just say "
        "that you don't know, don't try to make up an answer.\n\n{context}\n\nQuestion: {question}\nHelpful Answer:"
    ),
    (
        "Use the following pieces of context to answer the question at the end.\nIf you don't know the answer, just "
        "say that you don't know, don't try to make up an answer.\nUse three sentences maximum and keep the answer as "
        'concise as possible.\nAlways say "thanks for asking!" at the end of the answer.\n\n{context}\n\n'
        "Question: {question}\n\nHelpful Answer:"
    ),
    # The prompt hub: rlm/rag-prompt, rlm/rag-prompt-llama, rlm/rag-prompt-mistral.
    f"{_CONCISE}\nQuestion: {{question}} \nContext: {{context}} \nAnswer:",
    f"[INST]<<SYS>> {_CONCISE}<</SYS>> \nQuestion: {{question}} \nContext: {{context}} \nAnswer: [/INST]",
    f"<s> [INST] {_CONCISE} [/INST] </s> \n[INST] Question: {{question}} \nContext: {{context}} \nAnswer: [/INST]",
    # The documentation's first chain.
    "Answer the question based only on the following context:\n{context}\n\nQuestion: {question}\n",
    "Answer the question based only on the following context:\n{context}\n\nQuestion: {question}",
    # The first example of langchain-ollama's own documentation.
    "Question: {question}\n\nAnswer: Let's think step by step.",
    # chain_type="refine" and "map_reduce".
    (
        "Context information is below. \n------------\n{context}\n------------\nGiven the context information and not "
        "prior knowledge, answer the question: {question}\n"
    ),
    (
        "The original question is as follows: {question}\nWe have provided an existing answer: {context}\n"
        "------------\nGiven the new context, refine the original answer to better answer the question. If the context "
        "isn't useful, return the original answer."
    ),
    "We have the opportunity to refine the existing answer (only if needed) with some more context below.\n{context}",
    "Given the following extracted parts of a long document and a question, create a final answer{context}",
    (
        "Use the following portion of a long document to see if any of the text is relevant to answer the question.\n"
        "Return any relevant text verbatim.\n{context}\nQuestion: {question}\nRelevant text, if any:"
    ),
    # A question that refers back, made whole.
    (
        "Given the following conversation and a follow up question, rephrase the follow up question to be a standalone "
        "question, in its original language.\n\nChat History:\n{context}\nFollow Up Input: {question}\n"
        "Standalone question:"
    ),
    # Chat prompts given to a completion model: one text with the role before each message. Of a longer conversation
    # nobody could tell where the last turn begins, since a message may hold such a line too.
    "Human: {question}",
    "System: {context}\nHuman: {question}",
    "Human: {context}\nAI: {context}",
    "Human: {context}\nHuman: {context}",
    "System: {context}\nAI: {context}",
    "System: {context}\nHuman: {context}\nHuman: {context}",
)

_LLAMAINDEX = (
    # Query engines: the same text to chat and completion models.
    (
        "Context information is below.\n---------------------\n{context}\n---------------------\nGiven the context "
        "information and not prior knowledge, answer the query.\nQuery: {question}\nAnswer: "
    ),
    (
        "Context information from multiple sources is below.\n---------------------\n{context}\n---------------------\n"
        "Given the information from multiple sources and not prior knowledge, answer the query.\nQuery: {question}\n"
        "Answer: "
    ),
    (
        "The original query is as follows: {question}\nWe have provided an existing answer: {context}\n------------\n"
        "Given the new context, refine the original answer to better answer the query. If the context isn't useful, "
        "return the original answer.\nRefined Answer: "
    ),
    (
        "You are an expert Q&A system that strictly operates in two modes when refining existing answers:\n"
        "1. **Rewrite** an original answer using the new context.\n"
        "2. **Repeat** the original answer if the new context isn't useful.\n"
        "Never reference the original answer or context directly in your answer.\n"
        "When in doubt, just repeat the original answer.\n"
        "New Context: {context}\nQuery: {question}\nOriginal Answer: {context}\nNew Answer: "
    ),
    # Chat engines: a question that refers back, made whole.
    (
        "Given a conversation (between Human and Assistant) and a follow up message from Human, rewrite the message to "
        "be a standalone question that captures all relevant context from the conversation.\n\n"
        "<Chat History>\n{context}\n\n<Follow Up Message>\n{question}\n\n<Standalone question>\n"
    ),
    (
        "\n  Given the following conversation between a user and an AI assistant and a follow up question from user,\n"
        "  rephrase the follow up question to be a standalone question.\n\n  Chat History:\n  {context}\n"
        "  Follow Up Input: {question}\n  Standalone question:"
    ),
    "Given an input question, first create a syntactically correct {context}\n\nQuestion: {question}\nSQLQuery: ",
    # Indexing and choosing: there is material in them and no question, or none apart from it.
    "Write a summary of the following. Try to use only the information provided. {context}",
    "Some text is provided below. {context}",
    "A question is provided below. {context}",
    "Some choices are given below. {context}",
    "A list of documents is shown below. {context}",
    "We have provided a table schema below. {context}",
)

_HAYSTACK = tuple(
    # Its prompts are written into programs, whose indent Jinja keeps: at the top, in a function, in a method.
    "\n" + textwrap.indent(pattern, " " * indent) + ("\n" + " " * indent if indent else "")
    for indent in (0, 4, 8)
    for pattern in (
        # The first tutorial on retrieval, and the documentation of pipelines and prompt builders.
        "Given the following information, answer the question.\n\nContext:\n{context}\nQuestion: {question}\nAnswer:",
        "Given the following information, answer the question.\nContext:\n{context}\nQuestion: {question}\nAnswer:",
        "Given these documents, answer the question.\nDocuments:\n{context}\nQuestion: {question}\nAnswer:",
    )
)

_OPEN_WEBUI = (
    # The user's own message comes after the template; the instructions before <context> differ between versions.
    (
        "### Task:\nRespond to the user query using the provided context, incorporating inline citations in the format "
        "[{context}\n</context>\n\n{question}"
    ),
    # Titles, tags, pictures, follow-up questions, search queries, completions: tasks about a whole conversation.
    "### Task:\nGenerate {context}",
    "### Task:\nPredict {context}",
    "### Task:\nSuggest {context}",
    "### Task:\nAnalyze {context}",
    "### Task:\nYou are an autocompletion system.{context}",
    "Your task is to reflect the speaker's likely facial expression {context}",
    "You have been provided with a set of responses from various models {context}",
    "Available Tools: {context}",
)

PATTERNS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"langchain": _LANGCHAIN, "llamaindex": _LLAMAINDEX, "haystack": _HAYSTACK, "open-webui": _OPEN_WEBUI}
)
"""By the names that `semantic.templates` takes."""
