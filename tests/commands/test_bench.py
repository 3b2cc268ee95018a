"""`bench` measures what it says, and leaves nothing behind."""

from __future__ import annotations

import itertools
import json
import statistics

import pytest

from cacheproxy.commands import bench
from tests.fakes.command import run_beside
from tests.fakes.house import near_ready, open_house
from tests.fakes.redis_server import free_port


async def test_all_kinds_are_measured_and_the_cache_is_as_it_was(fake_ollama, clean_redis, tmp_path):
    """What others stored stays; Ollama answers one ask in full and the rest with one token."""
    async with open_house(fake_ollama, clean_redis, semantic={"mode": "serve"}) as house:
        await near_ready(house)
        await house.chat("mine", stream=False)
        await house.settled()
        before = house.redis.call("KEYS", "*:answer:*")
        out, png = tmp_path / "bench.json", tmp_path / "bench.png"
        ports = ("--url", house.app.proxy_url, "--admin", house.app.admin_url, "--upstream", fake_ollama.url)
        files = ("--out", str(out), "--png", str(png))
        done = await run_beside("bench", "-m", "llama3.2", "--repeats", "20", "--rounds", "3", *ports, *files)
        await house.settled()
        told = json.loads(out.read_text())
        after = house.redis.call("KEYS", "*:answer:*")

    assert set(told["times"]) == {"exact", "semantic", "direct", "miss"}
    assert told["times"]["exact"]["count"] == 20
    assert told["times"]["semantic"]["count"] > 10
    assert told["times"]["direct"]["count"] == told["times"]["miss"]["count"] == 3
    assert told["miss_overhead_s"] == told["times"]["miss"]["p50_s"] - told["times"]["direct"]["p50_s"]
    assert set(told["ratios_of_medians"]) == {"direct/exact", "direct/semantic", "miss/direct"}
    assert after == before
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "deletes at the end" in done.stderr
    assert done.stdout.splitlines()[0].split() == ["TIME", "ASKS", "P50", "P95", "P99", "LONGEST"]


async def test_without_near_answers_the_rest_is_measured_and_it_is_said(house):
    """Semantic hits are missing from the table, with where to look."""
    ports = ("--url", house.app.proxy_url, "--admin", house.app.admin_url, "--upstream", house.ollama.url)
    told = json.loads((await run_beside("bench", "-m", "llama3.2", "--repeats", "5", *ports, "--json")).stdout)

    assert "semantic" not in told["times"]
    assert any("no semantic hit at all" in note for note in told["notes"])
    assert told["times"]["exact"]["count"] == 5


async def test_what_cannot_be_measured_is_told(house):
    """Nobody there, an unknown model, and Ollama's own port in place of the proxy's."""
    admin = ("--admin", house.app.admin_url, "--upstream", house.ollama.url)
    nobody = await run_beside("bench", "-m", "llama3.2", "--url", f"127.0.0.1:{free_port()}", *admin, check=1)
    unknown = await run_beside("bench", "-m", "llama9", "--url", house.app.proxy_url, *admin, check=1)
    ollama = await run_beside("bench", "-m", "llama3.2", "--url", house.ollama.url, *admin, check=1)

    assert "is it running there?" in nobody.stderr
    assert "llama9" in unknown.stderr
    assert "is no cacheproxy" in ollama.stderr


async def test_what_cannot_be_written_or_compared_is_told_before_anything_is_measured(house, tmp_path):
    """A file in a folder that is not there, and a proxy in place of Ollama; both are wrong use."""
    ports = ("--url", house.app.proxy_url, "--admin", house.app.admin_url, "--upstream")
    missing = str(tmp_path / "none" / "x")
    out = await run_beside("bench", "-m", "llama3.2", *ports, house.ollama.url, "--out", missing, check=2)
    png = await run_beside("bench", "-m", "llama3.2", *ports, house.ollama.url, "--png", missing, check=2)
    calls = house.calls("/api/chat")
    proxy = await run_beside("bench", "-m", "llama3.2", *ports, house.app.proxy_url, check=2)

    assert out.stderr == png.stderr == f"cacheproxy: {missing}: there is no {tmp_path / 'none'}\n"
    assert calls == 0
    assert f"{house.app.proxy_url} is a cacheproxy itself" in proxy.stderr
    assert house.calls("/api/chat") == 1


def test_rewordings_are_all_different_and_none_is_the_stored_question():
    """A repeated one would be told from memory and be faster than a reworded question is."""
    found = list(bench.rewordings(7))

    assert len(found) == len(set(found)) > 150
    assert "How do I close account 7?" not in found


@pytest.mark.parametrize("count", [1, 2, 99, 100, 101])
def test_percentiles_are_those_of_nearest_rank(count):
    """A real time of one ask, at least the given share of all below or at it."""
    figures = bench.summary([float(one) for one in range(count, 0, -1)])

    assert figures["p50_s"] == statistics.median_low(range(1, count + 1))
    assert figures["p99_s"] == next(one for one in itertools.count(1) if one >= 0.99 * count)
    assert (figures["count"], figures["longest_s"]) == (count, count)
