"""The process ends with its command's exit code, whatever threads of libraries are still at work."""

import subprocess
import sys

import pytest

from tests.fakes.command import ROOT, environment

PROGRAM = """
import sys, threading
from cacheproxy import __main__

def command(prog_name):
    threading.Thread(target=threading.Event().wait, daemon=DAEMON).start() if DAEMON else None
    print("told")
    raise SystemExit(CODE)

__main__.commands = command
__main__.main()
"""


@pytest.mark.parametrize("daemon", [True, False])
@pytest.mark.parametrize(("code", "expected"), [("None", 0), ("0", 0), ("2", 2), ("'a reason'", 1)])
def test_the_exit_code_is_the_commands_and_nothing_told_is_lost(daemon, code, expected):
    """With a thread left behind the process skips Python's teardown, which could abort it, but not its own output."""
    program = PROGRAM.replace("DAEMON", str(daemon)).replace("CODE", code)
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, env=environment(), cwd=ROOT
    )

    assert done.returncode == expected
    assert done.stdout == "told\n"
