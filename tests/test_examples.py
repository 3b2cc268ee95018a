"""Every example runs as its reader would run it, and its second run costs Ollama nothing."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cacheproxy.wire.dialects import BY_PATH
from tests.fakes.house import House, open_house
from tests.fakes.redis_server import free_port

EXAMPLES = sorted(
    path for path in (Path(__file__).parent.parent / "examples").iterdir() if path.suffix in (".py", ".sh")
)
ASKS_FRESH = {"ollama_python.py", "curl.sh"}
"""They also show how to ask for a fresh answer, which is one call of Ollama in every run."""


async def run(example, url):
    """The lines an example prints, run as a program of its own with the proxy's address in its environment."""
    env = os.environ | {"CACHEPROXY_URL": url, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    command = ["sh" if example.suffix == ".sh" else sys.executable, str(example)]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, cwd=example.parent
    )
    async with asyncio.timeout(60):
        output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode().splitlines()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
async def test_an_example_prints_an_answer_and_the_second_time_from_the_cache(house: House, example):
    """The simulated Ollama is asked once, and once more a run where the example wants a fresh answer."""
    if example.suffix == ".sh" and shutil.which("curl") is None:
        pytest.skip("needs curl")
    fresh = example.name in ASKS_FRESH
    first = await run(example, house.app.proxy_url)
    await house.settled()
    calls = _calls(house)
    second = await run(example, house.app.proxy_url)
    calls_again = _calls(house) - calls

    assert first
    assert all(first)
    assert (calls, calls_again) == (1 + fresh, 0 + fresh)
    if example.suffix == ".py":
        assert second == first


def _calls(house):
    return sum(house.calls(path) for path in BY_PATH)


async def test_the_shell_example_stops_at_its_first_failure(fake_ollama, clean_redis):
    """The status of its last ask, or of a pipe, must not hide that an earlier one got no answer."""
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    example = next(path for path in EXAMPLES if path.name == "curl.sh")
    away = f"http://127.0.0.1:{free_port()}"
    async with open_house(fake_ollama, clean_redis, ready=False, upstream={"url": away}) as house:
        with pytest.raises(AssertionError, match="502") as caught:
            await run(example, house.app.proxy_url)

    assert str(caught.value).count("502") == 1


async def test_the_shell_example_shows_a_miss_a_hit_and_a_fresh_answer(house: House):
    """What its comments promise is what its readers see."""
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    example = next(path for path in EXAMPLES if path.name == "curl.sh")
    lines = [line.lower() for line in await run(example, house.app.proxy_url)]

    assert [line.split()[1] for line in lines if line.startswith("x-cache:")] == ["miss", "exact", "miss"]
