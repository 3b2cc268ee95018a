"""Conformance cases D, 59 to 66: the exact tier of `/api/generate`, end to end."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.house import House
from tests.fakes.ollama import Fault


@pytest.mark.case(59)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_hit_carries_the_context_of_the_miss(house: House, stream: bool) -> None:
    """The conversation so far, as tokens, in the last chunk."""
    miss = await house.generate(stream=stream)
    await house.settled()
    hit = await house.generate(stream=stream)

    assert hit.header("X-Cache") == "EXACT"
    assert miss.lines()[-1]["context"]
    assert hit.lines()[-1]["context"] == miss.lines()[-1]["context"]


@pytest.mark.case(61)
async def test_raw_replies_have_no_context(house: House) -> None:
    """Neither the miss nor the hit."""
    for outcome in ("MISS", "EXACT"):
        reply = await house.generate(raw=True, stream=False)
        assert reply.header("X-Cache") == outcome
        assert "context" not in reply.json()
        await house.settled()


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"context": [1, 2]}, marks=pytest.mark.case(62)),
        pytest.param({"context": []}, marks=pytest.mark.case(63)),
        pytest.param({"suffix": "end", "model": "codellama"}, marks=pytest.mark.case(64)),
        pytest.param({"template": "{{ .Prompt }}"}, marks=pytest.mark.case(64)),
        pytest.param({"system": "be brief"}, marks=pytest.mark.case(64)),
    ],
)
async def test_what_shapes_the_answer_has_a_key_of_its_own(house: House, other: dict[str, Any]) -> None:
    """The same prompt in another setting is another ask."""
    await house.generate(stream=False)
    await house.settled()

    reply = await house.generate(stream=False, **other)

    assert (reply.status, reply.header("X-Cache")) == (200, "MISS")


@pytest.mark.case(65)
async def test_a_prompt_and_a_chat_turn_never_share(house: House) -> None:
    """They are rendered differently for the model."""
    await house.generate("why?", stream=False)
    await house.settled()

    assert (await house.chat("why?", stream=False)).header("X-Cache") == "MISS"


@pytest.mark.case(66)
async def test_a_last_line_of_more_than_half_a_megabyte_is_kept(house: House) -> None:
    """100,000 tokens of context."""
    house.ollama.next(Fault(context_length=100_000))
    miss = await house.generate()
    await house.settled()
    hit = await house.generate()

    assert len(miss.lines()[-1]["context"]) == 100_000
    assert hit.header("X-Cache") == "EXACT"
    assert hit.lines()[-1]["context"] == miss.lines()[-1]["context"]
