"""Run a command on a pseudo-terminal, for what programs do only when a person is there (colours, questions)."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Mapping, Sequence


def run_on_terminal(
    command: Sequence[str], *, typed: bytes = b"", env: Mapping[str, str] | None = None, timeout_s: float = 30.0
) -> tuple[int, str]:
    """Exit code and everything shown, with `typed` waiting at the keyboard from the start."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, close_fds=True) as process:
        os.close(theirs)
        os.write(ours, typed)
        shown = b""
        try:
            while piece := _read(ours):
                shown += piece
            code = process.wait(timeout_s)
        finally:
            process.kill()
            os.close(ours)
    return code, shown.decode().replace("\r\n", "\n")


def _read(descriptor: int) -> bytes:
    """The next bytes; empty when the last process has closed its end, which Linux tells as an error."""
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""
