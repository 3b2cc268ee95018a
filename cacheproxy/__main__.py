"""`python -m cacheproxy`, and what the installed command `cacheproxy` calls."""

from __future__ import annotations

import contextlib
import os
import sys
import threading

from cacheproxy.cli import commands


def main() -> None:
    """Run the command that the arguments name, and exit with its code."""
    try:
        commands(prog_name="cacheproxy")
    except SystemExit as end:
        # A thread that is inside C++ when Python tears itself down is unwound by force, and the process aborts
        # (pthread_exit through noexcept frames). An embedder that is still being loaded when Ctrl-C comes is one.
        if any(thread.daemon for thread in threading.enumerate()):
            _leave(end.code)
        raise


def _leave(code: str | int | None) -> None:
    """End the process without the teardown; everything of ours is closed by now."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    main()
