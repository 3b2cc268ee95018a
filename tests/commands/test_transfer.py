"""Entries go to a file and back, into the same Redis or an empty other one, and are proven there."""

from __future__ import annotations

import json
import time

import pytest

from tests.fakes.command import run_beside
from tests.fakes.house import near_ready, open_house
from tests.fakes.redis_server import running_redis

KEY = "a key of ours"


@pytest.fixture
def other_redis(tmp_path):
    """A second Redis, empty."""
    folder = tmp_path / "other"
    folder.mkdir()
    with running_redis(folder) as server:
        yield server


async def filled(house, *questions):
    """Ask each question once and wait until its answer is kept."""
    for question in questions:
        await house.chat(question, stream=False)
        await house.settled()


async def test_an_empty_redis_takes_the_entries_over_and_serves_them(fake_ollama, clean_redis, other_redis, tmp_path):
    """By key and by meaning, for what is left of their time, without asking Ollama; and again it changes nothing."""
    file, semantic = tmp_path / "entries", {"mode": "serve"}
    async with open_house(fake_ollama, clean_redis, semantic=semantic) as house:
        await near_ready(house)
        await filled(house, "How do I enable dark mode?", "Who wrote Faust?")
        written = await run_beside("export", str(file), "--key", KEY, CACHEPROXY_REDIS__URL=clean_redis.unix_url)
    there = {"CACHEPROXY_REDIS__URL": other_redis.unix_url, "CACHEPROXY_EXPORT_KEY": KEY}
    first = json.loads((await run_beside("import", str(file), "--json", **there)).stdout)
    second = json.loads((await run_beside("import", str(file), "--json", **there)).stdout)
    calls = fake_ollama.calls["/api/chat"]
    async with open_house(fake_ollama, other_redis, semantic=semantic) as house:
        await near_ready(house)
        exact = await house.chat("Who wrote Faust?", stream=False)
        near = await house.chat("How can I enable dark mode?", stream=False)
        faults = (await house.stats())["faults"]
    lifetimes = [other_redis.call("PEXPIRETIME", key) for key in other_redis.call("KEYS", "*:answer:*")]

    assert written.stdout.startswith("wrote 2 entries to ")
    assert (file.stat().st_mode & 0o777) == 0o600
    assert (first["kept"], first["secret_taken_over"], first["vectors_dropped"]) == (2, True, 0)
    assert (second["kept"], second["there"], second["secret_taken_over"]) == (0, 2, False)
    assert (exact.header("X-Cache"), near.header("X-Cache")) == ("EXACT", "SEMANTIC")
    assert fake_ollama.calls["/api/chat"] == calls
    assert faults["check_mismatch"] == 0
    assert all(0 < lifetime - 1000 * time.time() <= 3_960_000 for lifetime in lifetimes)


async def test_a_redis_with_entries_of_its_own_refuses_those_of_another(
    fake_ollama, clean_redis, other_redis, tmp_path
):
    """Their proofs would be worth nothing here, and its own would be with the other's secret."""
    file = tmp_path / "entries"
    async with open_house(fake_ollama, clean_redis) as house:
        await filled(house, "why?")
        await run_beside("export", str(file), "--key", KEY, CACHEPROXY_REDIS__URL=clean_redis.unix_url)
    async with open_house(fake_ollama, other_redis) as house:
        await filled(house, "how?")
        refused = await run_beside(
            "import", str(file), "--key", KEY, check=1, CACHEPROXY_REDIS__URL=other_redis.unix_url
        )
        still = await house.chat("how?", stream=False)

    assert "a secret of its own and holds entries" in refused.stderr
    assert still.header("X-Cache") == "EXACT"


async def test_without_a_key_only_the_same_redis_takes_the_file_back(fake_ollama, clean_redis, other_redis, tmp_path):
    """It is signed by that Redis' secret, which does not travel."""
    file = tmp_path / "entries"
    same = {"CACHEPROXY_REDIS__URL": clean_redis.unix_url, "CACHEPROXY_SEMANTIC__MODE": "off"}
    async with open_house(fake_ollama, clean_redis) as house:
        await filled(house, "why?")
        await run_beside("export", str(file), **same)
        await house.admin("DELETE", "/entries?all=true")
        other = await run_beside("import", str(file), check=1, CACHEPROXY_REDIS__URL=other_redis.unix_url)
        back = json.loads((await run_beside("import", str(file), "--json", **same)).stdout)
        again = await house.chat("why?", stream=False)

    assert "or the secret of another Redis signed it; for this Redis export it there with --key" in other.stderr
    assert other_redis.call("KEYS", "*:answer:*") == []
    assert back["kept"] == 1
    assert again.header("X-Cache") == "EXACT"


async def test_vectors_of_another_embedder_are_dropped(fake_ollama, clean_redis, tmp_path):
    """Those entries are found by their exact question only, and it says so."""
    file = tmp_path / "entries"
    redis = {"CACHEPROXY_REDIS__URL": clean_redis.unix_url}
    async with open_house(fake_ollama, clean_redis, semantic={"mode": "serve"}) as house:
        await near_ready(house)
        await filled(house, "Who wrote Faust?")
        await run_beside("export", str(file), **redis)
        await house.admin("DELETE", "/entries?all=true")
        told = await run_beside("import", str(file), CACHEPROXY_SEMANTIC__MODE="off", **redis)
        exact = await house.chat("Who wrote Faust?", stream=False)
        near = await house.chat("Who has written Faust?", stream=False)

    assert "1 of them can be found by their exact question only" in told.stdout
    assert (exact.header("X-Cache"), near.header("X-Cache")) == ("EXACT", "MISS")


async def test_a_changed_file_is_refused_whole(fake_ollama, clean_redis, tmp_path):
    """Nothing of it is kept; a missing file and a short key are told as wrong use."""
    file, signed_here = tmp_path / "entries", tmp_path / "signed_here"
    redis = {"CACHEPROXY_REDIS__URL": clean_redis.unix_url}
    async with open_house(fake_ollama, clean_redis) as house:
        await filled(house, "why?")
        await run_beside("export", str(file), "--key", KEY, **redis)
        await run_beside("export", str(signed_here), **redis)
        await house.admin("DELETE", "/entries?all=true")
    for one in (file, signed_here):
        one.write_bytes(one.read_bytes().replace(b"stop", b"stoq"))
    changed_here = await run_beside("import", str(signed_here), check=1, **redis)
    changed = await run_beside("import", str(file), "--key", KEY, check=1, **redis)
    keyless = await run_beside("import", str(file), check=1, **redis)
    short = await run_beside("export", str(file), "--key", "short", check=2, **redis)
    absent = await run_beside("import", str(tmp_path / "nothing"), check=2, **redis)

    assert "signature is wrong" in changed.stderr
    assert "signature is wrong: either the file was changed or cut off, or" in changed_here.stderr
    assert "CACHEPROXY_EXPORT_KEY" in keyless.stderr
    assert "8 at least" in short.stderr
    assert "nothing" in absent.stderr
    assert clean_redis.call("KEYS", "*:answer:*") == []
