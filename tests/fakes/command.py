"""The installed command as a program of its own, run to its end or serving beside a test."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
COMMAND = (sys.executable, "-m", "cacheproxy")


def environment(**more: str) -> dict[str, str]:
    """The one of the tests, without settings for the program, with `more`."""
    plain = {name: text for name, text in os.environ.items() if not name.startswith(("CACHEPROXY_", "OLLAMA_"))}
    return plain | {"PYTHONPATH": str(ROOT)} | more


def run(*arguments: str, check: int | None = None, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    """The command, run to its end; `check` is the exit code it must have."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
        env=environment(**env),
        stdin=subprocess.DEVNULL,
    )
    if check is not None:
        assert done.returncode == check, done.stdout + done.stderr
    return done


async def run_beside(*arguments: str, check: int = 0, **env: Any) -> subprocess.CompletedProcess[str]:
    """`run` while this test's event loop goes on serving."""
    return await asyncio.to_thread(run, *arguments, check=check, **env)


@contextmanager
def serving(
    folder: Path, *arguments: str, stdin: int = subprocess.DEVNULL, **env: str
) -> Iterator[subprocess.Popen[str]]:
    """`cacheproxy serve` on free ports with its data in `folder`; killed if the test does not end it."""
    env.setdefault("CACHEPROXY_REDIS__DATA_DIR", str(folder))
    process = subprocess.Popen(
        [*COMMAND, "serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", *arguments],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**env),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_banner(process: subprocess.Popen[str]) -> list[str]:
    """The banner's lines, once it is out."""
    assert process.stdout is not None
    assert process.stderr is not None
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith("Point your app here"):
            return lines
    raise AssertionError(process.stderr.read())


def address(line: str) -> tuple[str, int]:
    """Host and port of the first URL in a line of the banner."""
    host, _, port = line.split("http://")[1].split(maxsplit=1)[0].partition(":")
    return host, int(port)


@pytest.fixture(scope="module")
def simulated() -> Iterator[str]:
    """The address of a simulated Ollama in a process of its own, for tests that block."""
    command = [sys.executable, "-m", "cacheproxy.demo.ollama", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1]
    finally:
        process.kill()
        process.communicate()
