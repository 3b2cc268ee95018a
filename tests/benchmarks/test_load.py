"""What is sent and what is read: requests, wrk's output, replies in pieces, processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.load import processes, wrk
from benchmarks.load.asks import NUMBER, WORDINGS, chat, numbered, question, request, respelt, reworded
from benchmarks.load.pace import pace
from benchmarks.load.wire import Pending
from benchmarks.report.figures import UnavailableError
from cacheproxy.rules.guards import object_to
from cacheproxy.wire import chat as chat_dialect

OUTPUT = """Running 2s test @ http://127.0.0.1:1
  1 threads and 64 connections
Requests/sec:   1000.00
RESULT {"requests":2000,"duration_us":2000000,"errors":3,"p50_us":61.0,"p99_us":250.5}
"""


def test_the_line_of_the_script_is_read():
    """The script's line does not round as the summary does."""
    assert wrk.parse(OUTPUT) == wrk.Result(2000, 2.0, 3, 61.0, 250.5)


def test_output_without_a_result_says_what_came_instead():
    """Such as a script that wrk could not load."""
    with pytest.raises(UnavailableError, match="unable to connect"):
        wrk.parse("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_a_missing_program_names_its_package():
    """The reader can install it and run again."""
    with pytest.raises(UnavailableError, match=r"needs no-such-program: apt-get install some-package"):
        processes.program("no-such-program", "some-package")


def test_respelt_bodies_differ_and_mean_the_same():
    """Else the row would measure the repeat lane, or misses."""
    raws = [numbered(respelt(), number) for number in (100_000_000, 100_000_001)]
    asks = [chat_dialect.parse(raw) for raw in (*raws, chat())]

    assert len(set(raws)) == 2
    assert len({ask.canonical for ask in asks}) == 1


def test_a_numbered_request_keeps_its_length():
    """Nine digits for nine signs: `Content-Length` holds."""
    raw = request(chat(f"question {NUMBER}"))
    head, _, body = numbered(raw, 123_456_789).partition(b"\r\n\r\n")

    assert f"Content-Length: {len(body)}".encode() in head
    assert json.loads(body)["messages"][0]["content"] == "question 123456789"


def test_questions_differ_and_no_guard_objects_to_their_rewordings():
    """A rewording that a guard keeps apart would not be served, and the row would measure less than it says."""
    assert len({question(number) for number in range(3000)}) == 3000
    for wording in range(WORDINGS):
        assert object_to(question(7), reworded(7, wording)) is None


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Cache: EXACT\r\n\r\n", b"hello"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Cache: EXACT\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
    ],
)
def test_a_reply_in_single_bytes_is_read_whole(head, body):
    """Its end is where its length or its last chunk says, not where a read ends."""
    pending = Pending()
    raw = head + body
    early = [pending.feed(bytes([byte])) for byte in raw[:-1]]
    reply = pending.feed(raw[-1:])

    assert early == [None] * (len(raw) - 1)
    assert (reply.status, reply.body, reply.headers["x-cache"]) == (200, body, "EXACT")
    assert 0 < reply.first_s <= reply.total_s


def test_a_reply_that_breaks_off_is_an_error():
    """It must not count as a fast one."""
    pending = Pending()
    pending.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")

    with pytest.raises(ConnectionError):
        pending.feed(b"")


def test_a_process_is_pinned_watched_and_ended(tmp_path):
    """On its core, with the CPU time of its children, and gone after the block."""
    core = frozenset([min(os.sched_getaffinity(0))])
    spin = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"
    with processes.started([sys.executable, "-c", spin], folder=tmp_path, cores=core) as running:
        processes.wait_until(lambda: len(processes.tree(running.pid)) == 2, running, seconds=30)
        child = processes.tree(running.pid)[1]
        before_s = processes.cpu_s(running.pid)
        processes.wait_until(lambda: processes.cpu_s(child) > 0.1, running, seconds=60)

        assert os.sched_getaffinity(child) == core
        assert processes.cpu_s(running.pid) > before_s
        assert processes.rss_bytes(running.pid) > 1024**2
        os.kill(child, 9)
        running.process.wait(30)

    assert running.process.poll() is not None


def test_a_process_that_ends_at_once_says_why(tmp_path):
    """Its last words are what the reader needs."""
    core = frozenset(os.sched_getaffinity(0))
    command = [sys.executable, "-c", "raise SystemExit('no such setting')"]
    with (
        processes.started(command, folder=tmp_path, cores=core) as running,
        pytest.raises(UnavailableError, match="no such setting"),
    ):
        processes.wait_until(lambda: False, running, seconds=60)


def test_cores_are_kept_awake_by_what_gives_way(tmp_path):
    """One process a core, which any other comes before, and which is gone afterwards."""
    core, before = min(os.sched_getaffinity(0)), {*processes.tree(os.getpid())}
    with processes.awake(tmp_path, frozenset({core})):
        (spinning,) = {*processes.tree(os.getpid())} - before
        deadline = time.monotonic() + 10
        while os.sched_getscheduler(spinning) != os.SCHED_IDLE and time.monotonic() < deadline:
            time.sleep(0.01)
        assert os.sched_getscheduler(spinning) == os.SCHED_IDLE
        assert os.getpriority(os.PRIO_PROCESS, spinning) == 19
        assert os.sched_getaffinity(spinning) == {core}

    with pytest.raises(ProcessLookupError):
        os.kill(spinning, 0)


def test_the_pace_of_the_machine_is_that_of_waking_and_of_adding():
    """What it takes to wake a process on another core, and nothing is left of the one that was woken."""
    beside = processes.tree(os.getpid())
    found = pace(processes.find_cores())

    assert 1 < found.adding_ms < 10_000
    assert 1 < found.waking_us < 100_000
    assert set(processes.tree(os.getpid())) <= set(beside)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_run_that_is_told_to_end_leaves_nothing_running(tmp_path):
    """`kill` is no reason to leave servers, and processes that keep a core busy, to whoever measures next."""
    _compiler()
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", "lone"]
    with (tmp_path / "said").open("wb") as said:
        running = subprocess.Popen(command, cwd=processes.ROOT, stdout=said, stderr=said)
    try:
        deadline = time.monotonic() + 60
        while not any("serve" in _command(pid) for pid in processes.tree(running.pid)):
            assert time.monotonic() < deadline, "no proxy was started"
            time.sleep(0.05)
        started = processes.tree(running.pid)
        running.terminate()

        assert running.wait(60) == 128 + signal.SIGTERM
        assert [said for said in map(_command, started) if said] == []
    finally:
        running.kill()
        running.wait()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_one_row_runs_from_the_command_line(tmp_path):
    """The whole way once: origin, Redis and proxy started and timed, table, JSON and picture written."""
    _compiler()
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", "start"]
    command += ["--json", tmp_path / "figures.json", "--png", tmp_path / "figures.png"]
    done = subprocess.run(command, cwd=processes.ROOT, capture_output=True, text=True, check=False, timeout=280)
    found = json.loads((tmp_path / "figures.json").read_text())

    assert done.returncode == 0, done.stderr
    assert "| start: start to first exact hit |" in done.stdout
    assert {figure["row"] for figure in found["figures"]} == {"start"}
    assert not any(remark.startswith("not measured: start") for remark in found["remarks"]), found["remarks"]
    assert (tmp_path / "figures.png").stat().st_size > 1000


def _compiler():
    """Skips where there is none: the stand-in for Ollama is compiled."""
    try:
        processes.program("cc", "gcc libc6-dev")
    except UnavailableError as error:
        pytest.skip(str(error))


def _command(pid):
    """The command line of a process; empty of one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
