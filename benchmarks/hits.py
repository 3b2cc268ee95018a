"""What a hit costs: exact with the near tier on and off, and semantic beyond its embedding, over many entries.

    python benchmarks/hits.py [--entries 10000] [--rounds 5] [--json FILE]

Starts a simulated Ollama and two proxies (near tier on, near tier off), each with an embedded Redis in a temporary
folder, fills the first with `--entries` questions of one scope, and measures from a client on a keep-alive connection.
Both sides of each comparison run in turns within one run; a round's figure is its median, a row shows the median of the
rounds and their range. The share of the embedding comes from the very same requests (`Server-Timing`).
It cannot tell how fast another machine is: read the differences and ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SUBJECTS = ("invoice", "password", "backup", "contract", "delivery", "meeting", "budget", "printer", "holiday", "badge")
VERBS = ("renew", "cancel", "find", "change", "print", "order", "report", "share", "archive", "approve")
PLACES = ("Berlin", "Paris", "Madrid", "Rome", "Vienna", "Prague", "Lisbon", "Dublin", "Oslo", "Athens")


def question(number: int) -> str:
    """One of 10,000 and more different questions."""
    verb, subject, place = VERBS[number % 10], SUBJECTS[number // 10 % 10], PLACES[number // 100 % 10]
    return f"How do I {verb} the {subject} of team {number // 1000 + 1} in {place}?"


def reworded(number: int) -> str:
    """The same question in other words, never asked before."""
    return question(number).replace("How do I", "How can I")


def free_port() -> int:
    """A port nobody listens on right now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def running(*command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of this repository, ended at the end."""
    child = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(20)


class Client:
    """One keep-alive connection to a proxy."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)

    def ask(self, text: str) -> tuple[float, dict[str, str]]:
        """Milliseconds until the whole reply is here, and its headers."""
        body = json.dumps(
            {"model": "llama3.2", "stream": False, "messages": [{"role": "user", "content": text}]}
        ).encode()
        began = time.perf_counter()
        self._connection.request("POST", "/api/chat", body)
        reply = self._connection.getresponse()
        reply.read()
        return (time.perf_counter() - began) * 1000, dict(reply.headers)


def wait_ready(admin_port: int, near: bool) -> None:
    """Wait until the proxy serves, and its near tier too."""
    for _ in range(600):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", admin_port)
            connection.request("GET", "/readyz")
            reply = connection.getresponse()
            parts = json.loads(reply.read())["parts"]
            if reply.status == 200 and (not near or parts["embedder"]["state"] == "ok"):
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise SystemExit("the proxy did not get ready within 30 s")


async def fill(port: int, entries: int) -> None:
    """Ask every question once, 16 at a time."""
    numbers = iter(range(entries))

    def work() -> None:
        client = Client(port)
        for number in numbers:
            client.ask(question(number))

    await asyncio.gather(*(asyncio.to_thread(work) for _ in range(16)))


def timing(headers: dict[str, str], step: str) -> float:
    """A step's milliseconds from `Server-Timing`; 0 where it was not taken."""
    found = re.search(rf"{step};dur=([0-9.]+)", headers.get("Server-Timing", ""))
    return float(found[1]) if found else 0.0


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def measure(on: Client, off: Client, *, entries: int, rounds: int, per_round: int) -> dict[str, list[float]]:
    """All figures, one value a round, in ms."""
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    step = max(1, entries // (rounds * per_round))
    for number in range(rounds):
        exact: dict[str, list[float]] = {"on": [], "off": []}
        for _ in range(per_round * 4):
            for name, client in (("on", on), ("off", off)):
                took, headers = client.ask(question(0))
                assert headers["X-Cache"] == "EXACT", headers
                exact[name].append(took)
        for name, values in exact.items():
            note(f"exact hit, near tier {name}, p50", statistics.median(values))
            note(f"exact hit, near tier {name}, p99", percentile(values, 0.99))
        whole, beyond, embedding, served = [], [], [], 0
        for position in range(per_round):
            took, headers = on.ask(reworded((number * per_round + position) * step % entries))
            served += headers["X-Cache"] == "SEMANTIC"
            if headers["X-Cache"] == "SEMANTIC":
                whole.append(took)
                embedding.append(timing(headers, "embed"))
                beyond.append(took - embedding[-1])
        note("semantic hit, p50", statistics.median(whole))
        note("semantic hit, its embedding, p50", statistics.median(embedding))
        note("semantic hit beyond the embedding, p50", statistics.median(beyond))
        note("semantic hit beyond the embedding, p99", percentile(beyond, 0.99))
        note("rewordings served, share", served / per_round)
    return found


def main() -> None:
    """Run it all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--per-round", type=int, default=100)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        ollama = free_port()
        stack.enter_context(running("cacheproxy.demo.ollama", "--port", str(ollama), "--parallel", "16"))
        clients = {}
        for mode in ("serve", "off"):
            port, admin = free_port(), free_port()
            settings = {
                "CACHEPROXY_SERVER__LISTEN": f"127.0.0.1:{port}",
                "CACHEPROXY_ADMIN__LISTEN": f"127.0.0.1:{admin}",
                "CACHEPROXY_UPSTREAM__URL": f"http://127.0.0.1:{ollama}",
                "CACHEPROXY_UPSTREAM__PARALLEL": "16",
                "CACHEPROXY_REDIS__DATA_DIR": f"{folder}/{mode}",
                "CACHEPROXY_SEMANTIC__MODE": mode,
                "CACHEPROXY_CACHE__HEADERS": "trail",
            }
            stack.enter_context(running("cacheproxy", "serve", **settings))
            wait_ready(admin, near=mode == "serve")
            clients[mode] = Client(port)
            if mode == "serve":
                began = time.perf_counter()
                asyncio.run(fill(port, given.entries))
                print(f"{given.entries} entries asked for and kept in {time.perf_counter() - began:.0f} s")
        for _ in range(20):
            clients["off"].ask(question(0))
            clients["serve"].ask(question(0))
            time.sleep(0.02)
        found = measure(
            clients["serve"], clients["off"], entries=given.entries, rounds=given.rounds, per_round=given.per_round
        )
    report(found, given)


def report(found: dict[str, list[float]], given: Any) -> None:
    """Print the table; write the JSON."""
    print(f"\n| what (ms) | median of {given.rounds} rounds | range |\n|---|---|---|")
    for name, values in found.items():
        print(f"| {name} | {statistics.median(values):.3f} | {min(values):.3f} to {max(values):.3f} |")
    if given.json:
        given.json.write_text(json.dumps({"entries": given.entries, "rounds": found}, indent=1))


if __name__ == "__main__":
    main()
