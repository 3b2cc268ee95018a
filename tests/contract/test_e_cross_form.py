"""Which form's answer serves which other form: asked of an open proxy, pair by pair, and held to the page about it.

`CACHEPROXY_WRITE_PAGES=1 pytest tests/contract/test_e_cross_form.py` writes what was found into the page.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.fakes.house import House, open_house
from tests.fakes.ollama import FakeOllama
from tests.fakes.redis_server import RedisServer
from tests.fakes.replies import said
from tests.fakes.wire import Response

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cross-form.md"
MARK = "<!-- tests/contract/test_e_cross_form.py -->"
OPENAI_OPTIONS = {"temperature": 1, "top_p": 1}
COMPLETION_OPTIONS = OPENAI_OPTIONS | {"frequency_penalty": 0, "presence_penalty": 0}


class Form(NamedTuple):
    """One way to put a question, and to be answered."""

    name: str
    path: str
    members: dict[str, Any]

    @property
    def is_chat(self) -> bool:
        """Whether it is a chat: a chat and a prompt are not one question."""
        return self.path not in ("/api/generate", "/v1/completions")

    def body(self, question: str) -> dict[str, Any]:
        """The request; all forms of one family ask for the same with it."""
        if self.path == "/v1/responses":
            return {"model": "qwen3", "input": question} | self.members
        if self.is_chat:
            return {"model": "qwen3", "messages": [{"role": "user", "content": question}]} | self.members
        return {"model": "qwen3", "prompt": question} | self.members


CHAT_OPTIONS = OPENAI_OPTIONS | {"num_predict": 100}
STREAM, WHOLE = {"stream": True}, {"stream": False}
USAGE = STREAM | {"stream_options": {"include_usage": True}}
FORMS = [
    *(Form(f"/api/chat, {name}", "/api/chat", how | {"options": CHAT_OPTIONS})
      for name, how in (("whole", WHOLE), ("stream", STREAM))),
    *(Form(f"/v1/chat/completions, {name}", "/v1/chat/completions", how | {"max_tokens": 100})
      for name, how in (("whole", WHOLE), ("stream with usage", USAGE), ("stream", STREAM))),
    *(Form(f"/v1/messages, {name}", "/v1/messages", how | OPENAI_OPTIONS | {"max_tokens": 100})
      for name, how in (("whole", WHOLE), ("stream", STREAM))),
    *(Form(f"/v1/responses, {name}", "/v1/responses", how | {"top_p": 1, "max_output_tokens": 100})
      for name, how in (("whole", WHOLE), ("stream", STREAM))),
    *(Form(f"/api/generate, {name}", "/api/generate", how | {"options": COMPLETION_OPTIONS})
      for name, how in (("whole", WHOLE), ("stream", STREAM))),
    *(Form(f"/v1/completions, {name}", "/v1/completions", how)
      for name, how in (("whole", WHOLE), ("stream with usage", USAGE), ("stream", STREAM))),
]  # fmt: skip


async def ask(house: House, form: Form, question: str) -> Response:
    """Ask in a form; the answer is kept before this returns."""
    reply = await house.ask("POST", form.path, form.body(question))
    assert reply.status == 200, reply.text
    await house.settled()
    return reply


async def serves(house: House, stored: Form, asked: Form, tag: str) -> bool:
    """Whether what one form stored answers another."""
    question = f"{tag}: {stored.name} for {asked.name}"
    miss, reply = await ask(house, stored, question), await ask(house, asked, question)
    assert (miss.header("X-Cache"), reply.header("X-Cache")) in [("MISS", "EXACT"), ("MISS", "MISS")]
    assert said(reply) == said(miss) or stored.is_chat != asked.is_chat
    return reply.header("X-Cache") == "EXACT"


def table(cells: dict[tuple[str, str], str]) -> str:
    """The matrix in Markdown: a row for each form that stored, a column for each that asks."""
    names = [form.name for form in FORMS]
    rows = [
        f"| {number} {stored} | " + " | ".join(cells[stored, asked] for asked in names) + " |"
        for number, stored in enumerate(names, 1)
    ]
    numbers = [str(number) for number in range(1, len(names) + 1)]
    return "\n".join(
        ["| stored by | " + " | ".join(numbers) + " |", "|---|" + ":-:|" * len(names), *rows],
    )


@pytest.mark.case(70)
@pytest.mark.case(78)
@pytest.mark.case(82)
@pytest.mark.case(85)
@pytest.mark.case(88)
async def test_the_page_tells_which_form_serves_which(fake_ollama: FakeOllama, clean_redis: RedisServer) -> None:
    """Each pair is asked, by default and with `cache.without_durations`."""
    cells: dict[tuple[str, str], str] = {}
    async with (
        open_house(fake_ollama, clean_redis) as strict,
        open_house(fake_ollama, clean_redis, cache={"without_durations": True}) as lenient,
    ):
        for stored in FORMS:
            for asked in FORMS:
                if await serves(strict, stored, asked, "strict"):
                    cells[stored.name, asked.name] = "yes"
                elif await serves(lenient, stored, asked, "lenient"):
                    cells[stored.name, asked.name] = "set"
                else:
                    cells[stored.name, asked.name] = "no"

    before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARK)
    _table, _, after = rest.partition(MARK)
    told = f"\n\n{table(cells)}\n\n"
    if os.environ.get("CACHEPROXY_WRITE_PAGES"):
        PAGE.write_text(before + MARK + told + MARK + after, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8").split(MARK)[1] == told


async def test_an_answer_gives_way_to_a_fuller_one(house: House) -> None:
    """A form that it could not serve asks Ollama, and then all forms are served."""
    whole, stream = FORMS[2], FORMS[4]
    native = FORMS[0]
    for form, expected in [(stream, "MISS"), (whole, "MISS"), (stream, "EXACT"), (native, "MISS"), (whole, "EXACT")]:
        reply = await ask(house, form, "why?")
        assert reply.header("X-Cache") == expected, form.name

    assert sum(house.calls(path) for path in ("/api/chat", "/v1/chat/completions")) == 3
