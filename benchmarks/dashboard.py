"""What an open dashboard costs the asks: exact hits with it open and closed, in turns within one run.

    python -m benchmarks.dashboard [--rounds 9] [--asks 400] [--pages 1] [--browser]

Starts a simulated Ollama and one proxy (near tier off, embedded Redis), and measures exact hits on one keep-alive
connection. Open means `--pages` times what a page asks for, from a process of its own: the event stream, and every 15 s
the history. With `--browser` a real Chromium shows the page instead, on this machine: on few cores its drawing takes
processor time from the proxy, which a browser elsewhere does not, so that row tells of the machine.
Read the ratio; the times are this machine's.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from benchmarks.load.processes import free_port

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or "chromium"
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0")

READER = """
import sys, threading, time, urllib.request
admin, pages = sys.argv[1], int(sys.argv[2])
def get(path):
    with urllib.request.urlopen(admin + path) as reply:
        while reply.read1(65536):
            pass
def page():
    threading.Thread(target=get, args=("/events",), daemon=True).start()
    while True:
        for path in ("/stats", "/series?hours=0.2&step=60", "/similarity?hours=24", "/pairs?around=0.92", "/asks"):
            get(path)
        time.sleep(15)
for _ in range(pages):
    threading.Thread(target=page, daemon=True).start()
time.sleep(3600)
"""


@contextmanager
def running(*command: str, **environment: str) -> Iterator[None]:
    """A process, ended at the end."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    child = subprocess.Popen(command, env=os.environ | environment, **quiet)  # type: ignore[call-overload]
    try:
        yield
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(20)


def ask(connection: http.client.HTTPConnection) -> tuple[float, str]:
    """Milliseconds until the whole reply is here, and how it came about."""
    body = json.dumps({"model": "llama3.2", "prompt": "Why is the sky blue?", "stream": False}).encode()
    began = time.perf_counter()
    connection.request("POST", "/api/generate", body)
    reply = connection.getresponse()
    reply.read()
    return (time.perf_counter() - began) * 1000, reply.headers["X-Cache"]


def first_hit(port: int) -> http.client.HTTPConnection:
    """A connection on which the question is an exact hit."""
    for _ in range(300):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        try:
            if ask(connection)[1] == "EXACT":
                return connection
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit("no exact hit within 30 s")


def asks_of(connection: http.client.HTTPConnection, number: int) -> list[float]:
    """So many hits, a little apart, so that the stream's seconds fall among them."""
    found = []
    for _ in range(number):
        found.append(ask(connection)[0])
        time.sleep(0.002)
    return sorted(found)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--asks", type=int, default=400)
    parser.add_argument("--pages", type=int, default=1)
    parser.add_argument("--browser", action="store_true")
    given = parser.parse_args()
    ollama, proxy, admin = free_port(), free_port(), free_port()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(running(sys.executable, "-m", "cacheproxy.demo.ollama", "--port", str(ollama)))
        settings = {
            "CACHEPROXY_SERVER__LISTEN": f"127.0.0.1:{proxy}",
            "CACHEPROXY_ADMIN__LISTEN": f"127.0.0.1:{admin}",
            "CACHEPROXY_UPSTREAM__URL": f"http://127.0.0.1:{ollama}",
            "CACHEPROXY_REDIS__DATA_DIR": folder,
            "CACHEPROXY_SEMANTIC__MODE": "off",
        }
        stack.enter_context(running(sys.executable, "-m", "cacheproxy", "serve", **settings))
        connection = first_hit(proxy)
        url = f"http://127.0.0.1:{admin}"
        reader = (sys.executable, "-c", READER, url, str(given.pages))
        shown = (CHROMIUM, *FLAGS, f"--user-data-dir={folder}/browser", f"{url}/") if given.browser else reader
        rows: dict[str, list[list[float]]] = {"closed": [], "open": []}
        for _ in range(given.rounds):
            rows["closed"].append(asks_of(connection, given.asks))
            with running(*shown):
                time.sleep(3)  # the page has loaded
                rows["open"].append(asks_of(connection, given.asks))
    for name, rounds in rows.items():
        p50, p99 = (statistics.median(one[int(len(one) * share)] for one in rounds) for share in (0.5, 0.99))
        print(f"dashboard {name:6}: exact hit p50 {p50:.3f} ms, p99 {p99:.3f} ms")
    ratios = [
        statistics.median(one) / statistics.median(other)
        for one, other in zip(rows["open"], rows["closed"], strict=True)
    ]
    print(f"open / closed, p50: {statistics.median(ratios):.3f} (rounds {min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
