"""Conformance cases B, 20 to 26: requests that load or unload a model always reach Ollama."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.house import MODEL, House


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        pytest.param("/api/generate", {}, "load", marks=pytest.mark.case(20)),
        pytest.param("/api/chat", {"messages": []}, "load", marks=pytest.mark.case(21)),
        pytest.param("/api/generate", {"prompt": "", "keep_alive": 0}, "unload", marks=pytest.mark.case(22)),
        pytest.param("/api/chat", {"messages": [], "keep_alive": "0s"}, "unload", marks=pytest.mark.case(23)),
    ],
)
async def test_loading_and_unloading_reach_ollama_every_time(
    house: House, path: str, body: dict[str, Any], reason: str
) -> None:
    """One JSON object although streaming is the default, and a call each."""
    for _ in range(2):
        reply = await house.ask("POST", path, {"model": MODEL} | body)
        assert (reply.header("X-Cache"), reply.json()["done_reason"]) == ("BYPASS", reason)

    assert house.calls(path) == 2


@pytest.mark.case(24)
@pytest.mark.parametrize("body", [{}, {"input": ""}, {"input": []}])
async def test_embedding_nothing_reaches_ollama_every_time(house: House, body: dict[str, Any]) -> None:
    """It loads the model."""
    for _ in range(2):
        reply = await house.ask("POST", "/api/embed", {"model": MODEL} | body)
        assert reply.json()["embeddings"] == []

    assert house.calls("/api/embed") == 2


@pytest.mark.case(25)
async def test_an_empty_openai_prompt_reaches_ollama_every_time(house: House) -> None:
    """It loads the model and says so in finish_reason."""
    for _ in range(2):
        reply = await house.ask("POST", "/v1/completions", {"model": MODEL, "prompt": ""})
        assert reply.json()["choices"][0]["finish_reason"] == "load"

    assert house.calls("/v1/completions") == 2


@pytest.mark.case(26)
async def test_asking_how_a_prompt_would_be_rendered_goes_around_the_cache(house: House) -> None:
    """It has no answer to keep."""
    reply = await house.chat(_debug_render_only=True)

    assert reply.header("X-Cache") == "BYPASS"
    assert "detail=debug" in (reply.header("Cache-Status") or "")
