"""`cacheproxy demo`: the tour. A simulated Ollama, a real proxy with its own Redis, and questions as apps send them.

Each question carries its context, as retrieval (RAG) apps send it, and is asked again in the ways that apps repeat
themselves. Every answer is compared with the one that belongs to the question. Called by `cli.py`.
It refuses to touch anything of the user's: own ports, own directory, and no setting from the environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.live import Live
from rich.text import Text

from cacheproxy import config, log
from cacheproxy.app import App, running
from cacheproxy.commands import admin_port
from cacheproxy.commands.stats import duration, share
from cacheproxy.commands.store import reached
from cacheproxy.counting.outcomes import hit_rate
from cacheproxy.demo.ollama import SimulatedOllama

MODEL = "llama3.2"
SECONDS_TO_FIRST_TOKEN = 0.35
TOKENS_PER_SECOND = 60.0
"""A middling model on a laptop: an answer of 20 words takes 0.7 s, of which each miss of the tour pays all."""
TOGETHER = 6
"""Callers with one question at the same moment."""
READY_S_MAX = 10.0
_QUESTION_WIDTH = 46
_COLOURS = {"EXACT": "green", "SEMANTIC": "green", "JOINED": "cyan", "STALE": "yellow", "MISS": "red"}


@dataclass(frozen=True, slots=True)
class Topic:
    """A passage, what is asked of it, the same in other words, and a question that only looks the same."""

    context: str
    question: str
    reworded: str
    answer: str
    lookalike: str = ""
    lookalike_answer: str = ""


TOPICS = (
    Topic(
        "Leave: full-time staff have 28 days of paid leave a year, part-time staff a share of it. Up to 5 unused days "
        "move into the next year, until the end of March.",
        "How many days of paid leave do full-time staff have?",
        "What is the number of paid leave days for full-time staff?",
        "Full-time staff have 28 days of paid leave a year. Up to five unused days move into the next year.",
        "How many days of paid leave do part-time staff have?",
        "Part-time staff have a share of the 28 days that matches their hours.",
    ),
    Topic(
        "Travel: a trip of 2 days is paid with 80 euros for meals, a trip of 3 days with 120 euros. Receipts are not "
        "needed below 150 euros.",
        "How much is paid for meals on a trip of 2 days?",
        "What do I get for meals when I travel for 2 days?",
        "For a trip of two days 80 euros are paid for meals, and no receipts are needed.",
        "How much is paid for meals on a trip of 3 days?",
        "For a trip of three days 120 euros are paid for meals, and no receipts are needed.",
    ),
    Topic(
        "Display: dark mode is switched on in Settings, Appearance, Theme. It is switched off in the same place.",
        "How do I enable dark mode?",
        "How can I turn on dark mode?",
        "Open Settings, then Appearance, and choose Dark under Theme to switch dark mode on.",
        "How do I disable dark mode?",
        "Open Settings, then Appearance, and choose Light under Theme to switch dark mode off.",
    ),
    Topic(
        "Accounts: a forgotten password is reset with the link below the sign-in form. The link in the mail that "
        "follows works for 30 minutes.",
        "How do I reset my password?",
        "What must I do to reset my password?",
        "Use the link below the sign-in form and follow the mail within thirty minutes to set a new password.",
    ),
    Topic(
        "Invoices: they are due 14 days after delivery. After the second reminder 1 percent a month is added.",
        "When are invoices due?",
        "By when must an invoice be paid?",
        "Invoices are due fourteen days after delivery, and after two reminders one percent a month is added.",
    ),
    Topic(
        "Backups: every night at 02:00 a full copy is made and kept for 90 days. Restoring one takes about 20 minutes.",
        "How long are backups kept?",
        "For how long do you keep backups?",
        "Each nightly full copy is kept for ninety days, and restoring one takes about twenty minutes.",
    ),
)
JOINT = Topic(
    "Office: the doors open at 07:00 and close at 20:00 on working days. On Saturdays they open at 09:00.",
    "When do the doors open on Saturdays?",
    "",
    "On Saturdays the doors open at nine in the morning, two hours later than on working days.",
)

_ANSWERS = {
    question: answer
    for topic in (*TOPICS, JOINT)
    for question, answer in (
        (topic.question, topic.answer),
        (topic.reworded, topic.answer),
        (topic.lookalike, topic.lookalike_answer),
    )
    if question
}


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of the tour. `how`: in what way it repeats an earlier one."""

    question: str
    context: str
    how: str
    stream: bool = False
    shuffled: bool = False

    def body(self) -> bytes:
        """The request as an app would send it; `shuffled`: the same in another order, spacing and spelling."""
        prompt = (
            "Context information is below.\n---------------------\n"
            f"{self.context}\n---------------------\n"
            "Given the context information and not prior knowledge, answer the query.\n"
            f"Query: {self.question}\nAnswer: "
        )
        message = {"role": "user", "content": prompt}
        request = {"model": MODEL, "messages": [message], "stream": self.stream, "options": {"temperature": 0}}
        if not self.shuffled:
            return json.dumps(request).encode()
        request["model"] = f"{MODEL}:latest"
        request["messages"] = [dict(reversed(message.items()))]
        return json.dumps(dict(reversed(request.items())), indent=2, ensure_ascii=False).encode()


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back, and how long it took from the connection to the last byte."""

    ask: Ask
    status: str
    """`X-Cache`."""
    text: str
    seconds: float

    @property
    def right(self) -> bool:
        """Whether the answer belongs to the question."""
        return self.text == _ANSWERS[self.ask.question]


def script() -> Iterator[tuple[Ask, ...]]:
    """What is asked, in order; those of one tuple at the same time. Pure."""
    for topic in TOPICS:
        yield (Ask(topic.question, topic.context, "asked for the first time"),)
    for topic in TOPICS:
        yield (Ask(topic.question, topic.context, "the same once more"),)
    for topic in TOPICS:
        yield (Ask(topic.question, topic.context, "streamed, its JSON in another order", stream=True, shuffled=True),)
    yield tuple(Ask(JOINT.question, JOINT.context, f"asked by {TOGETHER} at once") for _ in range(TOGETHER))
    for topic in TOPICS:
        yield (Ask(topic.reworded, topic.context, "in other words"),)
    for topic in TOPICS:
        if topic.lookalike:
            yield (Ask(topic.lookalike, topic.context, "looks alike, means something else"),)


@dataclass
class Tour:
    """The rows shown so far, and the figures of them."""

    out: Console
    replies: list[Reply] = field(default_factory=list)

    def show(self, reply: Reply) -> None:
        """Print one row and take it into the figures."""
        self.replies.append(reply)
        self.say([self.row(reply)])

    def say(self, lines: Iterable[str | Text]) -> None:
        """Print lines as they are; the terminal may wrap them, nothing is cut."""
        for line in lines:
            self.out.print(line, soft_wrap=True, markup=False)

    def row(self, reply: Reply) -> Text:
        """Tier, time, how much faster than a miss, hit rate so far, question, how it was asked."""
        question = reply.ask.question
        if len(question) > _QUESTION_WIDTH:
            question = question[: _QUESTION_WIDTH - 1] + "…"
        row = Text()
        row.append(f"{reply.status:<9}", style=_COLOURS.get(reply.status, ""))
        row.append(f"{duration(reply.seconds):>7}  {self.faster(reply):>7}  {share(self.hit_rate()):>6}  ")
        row.append(f"{question:<{_QUESTION_WIDTH}}  ")
        row.append(reply.ask.how, style="dim")
        return row if reply.right else row.append("  WRONG ANSWER", style="bold red")

    def faster(self, reply: Reply) -> str:
        """How many times faster than the miss in the middle; empty for a miss and for who waited along with one."""
        misses = self.times("MISS")
        if not misses or reply.status in ("MISS", "JOINED", "BYPASS"):
            return ""
        return f"{statistics.median(misses) / reply.seconds:,.0f} x"

    def times(self, *statuses: str) -> list[float]:
        """Seconds of the replies with one of `statuses`."""
        return [reply.seconds for reply in self.replies if reply.status in statuses]

    def hit_rate(self) -> float | None:
        """As `/stats` has it, 0..1."""
        statuses = [reply.status.lower() for reply in self.replies]
        return hit_rate({status: statuses.count(status) for status in statuses})

    def footer(self) -> Text:
        """The line below the rows while the tour goes on."""
        return Text(f"{len(self.replies)} asks, hit rate {share(self.hit_rate())}", style="bold")

    def summary(self, calls: int) -> list[str]:
        """What it came to. `calls`: how often Ollama was really asked for an answer."""
        misses, hits = self.times("MISS"), self.times("EXACT", "SEMANTIC")
        right = sum(reply.right for reply in self.replies)
        lines = [f"{len(self.replies)} asks, {right} of them answered with what belongs to the question."]
        lines.append(f"Ollama was asked {calls} times: hit rate {share(self.hit_rate())}.")
        if misses and hits:
            miss, hit = statistics.median(misses), statistics.median(hits)
            lines.append(
                f"A miss took {duration(miss)}, a hit {duration(hit)} (medians): {miss / hit:,.0f} times faster."
            )
            lines.append("How long the simulated Ollama thinks is made up; the time of a hit is real.")
        if not self.times("SEMANTIC"):
            lines.append("Questions in other words went to Ollama: near answers are not switched on.")
        return ["", *lines]


def run(*, fast: bool, stay: bool, redis_url: str) -> bool:
    """Give the tour; False when an answer was wrong. `fast`: without thinking time.

    Ctrl-C and SIGTERM end it as a success. Raises ConfigError, StoreUnavailableError.
    """
    # Highlighting would colour digits in the questions; without a terminal, rows are plain lines of any width.
    out = Console(highlight=False)
    log.configure(config.Log(level="error"))
    ends = contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError)
    with ends, tempfile.TemporaryDirectory(prefix="cacheproxy-demo-") as folder:
        return asyncio.run(_tour(out, folder, fast=fast, stay=stay, redis_url=redis_url))
    return True


async def _tour(out: Console, folder: str, *, fast: bool, stay: bool, redis_url: str) -> bool:
    if task := asyncio.current_task():  # or SIGTERM would leave the directory and its Redis behind
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    if redis_url != "embedded":  # or each ask of the tour would be a miss
        async with reached(_settings("http://127.0.0.1", folder, redis_url)):
            pass
    ollama = SimulatedOllama(
        answers=answer_to,
        seconds_to_first_token=0.0 if fast else SECONDS_TO_FIRST_TOKEN,
        tokens_per_second=0.0 if fast else TOKENS_PER_SECOND,
    )
    await ollama.open()
    try:
        async with running(_settings(ollama.url, folder, redis_url)) as app, _forgotten(app, redis_url):
            await _wait_ready(app)
            tour = Tour(out)
            tour.say(_introduction(app, fast=fast))
            with _footer(tour) as refresh:
                await _ask_all(app.proxy_url, tour, refresh)
            tour.say(tour.summary(ollama.calls["/api/chat"]))
            tour.say(_farewell(app, stay=stay))
            if stay:
                await asyncio.Event().wait()
            return all(reply.right for reply in tour.replies)
    finally:
        await ollama.close()


async def _wait_ready(app: App) -> None:
    """Until all parts work, or it has taken too long; what is missing then shows in the rows."""
    await app.wait_ready(READY_S_MAX)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READY_S_MAX):
            while app.readiness().degraded:  # noqa: ASYNC110 - readiness is asked for, it does not call
                await asyncio.sleep(0.01)


def answer_to(prompt: str) -> str:
    """What the simulated Ollama says to a prompt of the tour, and that it knows nothing else."""
    question = prompt.rpartition("Query: ")[2].partition("\n")[0]
    return _ANSWERS.get(question, "I am only a simulated Ollama and know the answers of the tour.")


def _settings(ollama_url: str, folder: str, redis_url: str) -> config.Config:
    redis = {"url": redis_url, "data_dir": folder, "memory": "64MiB", "prefix": "cacheproxy-demo"}
    here = {"listen": "127.0.0.1:0"}
    return config.load(None, {"server": here, "admin": here, "upstream": {"url": ollama_url}, "redis": redis}, env={})


def _introduction(app: App, *, fast: bool) -> Iterable[str]:
    yield f"A simulated Ollama with canned answers at {app.config.upstream.url}: no model runs here."
    yield f"The proxy before it is real: {app.proxy_url}, with {app.report().redis}."
    if fast:
        yield "The simulated Ollama answers without thinking time, so hits cannot be much faster than misses."
    yield ""
    yield f"{'X-CACHE':<9}{'TIME':>7}  {'FASTER':>7}  {'HITS':>6}  {'QUESTION':<{_QUESTION_WIDTH}}  HOW"


def _farewell(app: App, *, stay: bool) -> Iterable[str]:
    if stay:
        yield f"It goes on serving: {app.proxy_url}, model {MODEL}; its figures are at {app.admin_url}/stats."
        yield "Ctrl-C ends it."
    else:
        yield "With --stay it goes on serving, so that you can ask it yourself and look at its /stats."


@contextlib.asynccontextmanager
async def _forgotten(app: App, redis_url: str) -> AsyncIterator[None]:
    """Take the tour's entries out of a Redis that goes on living."""
    try:
        yield
    finally:
        if redis_url != "embedded":
            await asyncio.to_thread(admin_port.purge, admin_port.AdminPort(app.admin_url), {"all": "true"})


@contextlib.contextmanager
def _footer(tour: Tour) -> Iterator[Callable[[], None]]:
    """The running figures below the rows, on a terminal; what it yields renews them."""
    if not sys.stdout.isatty():
        yield lambda: None
        return
    with Live(tour.footer(), console=tour.out, auto_refresh=False, transient=True) as live:
        yield lambda: live.update(tour.footer(), refresh=True)


async def _ask_all(url: str, tour: Tour, refresh: Callable[[], None]) -> None:
    for asks in script():
        tasks = [asyncio.create_task(asyncio.to_thread(send, url, ask)) for ask in asks]
        try:
            for done in asyncio.as_completed(tasks):
                tour.show(await done)
                refresh()
        finally:
            for task in tasks:  # who ends the tour in their midst need not hear how they broke off
                task.cancel()


def send(url: str, ask: Ask) -> Reply:
    """Ask over a connection of its own and read to the end, as a simple client does. Blocks."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    with contextlib.closing(connection):
        connection.request("POST", "/api/chat", ask.body(), {"Content-Type": "application/json"})
        reply = connection.getresponse()
        chunks: list[dict[str, Any]] = [json.loads(line) for line in reply.read().splitlines()]
        seconds = time.perf_counter() - began
    text = "".join(chunk.get("message", {}).get("content", "") for chunk in chunks)
    return Reply(ask, reply.getheader("X-Cache", "?"), text, seconds)
