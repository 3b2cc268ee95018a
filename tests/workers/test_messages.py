"""What the main process and its fronts say to each other comes out as it went in."""

from __future__ import annotations

from dataclasses import replace

from cacheproxy.model import Decision, Identity, Outcome
from cacheproxy.upstream.loaded import LoadedModel, Wish
from cacheproxy.upstream.view import View
from cacheproxy.workers.messages import (
    Gauges,
    Order,
    Report,
    Start,
    encode,
    read_order,
    read_report,
    read_start,
)

VIEW = View(
    86400.0,
    (Identity("registry.ollama.ai/library/llama3.2:latest", "ab" * 32, server_version="0.33.0"),),
    (LoadedModel("", "ab" * 32, 5, 4, 4096, 1e9),),
    {"ab" * 32: Wish(num_ctx=8192, keep_alive=True)},
    tells_loaded=False,
)


def test_orders_come_out_as_they_went_in() -> None:
    """Each thing that can be ordered, and all of them."""
    every = Order(number=7, view=VIEW, clear=True, forget="cacheproxy:answer:…", drain_s=2.5)
    for order in (Order(), Order(view=VIEW), Order(view=View()), Order(clear=True), every):
        line = encode(order)
        assert line.count(b"\n") == 1
        assert read_order(line) == order


def test_reports_come_out_as_they_went_in() -> None:
    """With the kind of each value, since what counts decisions compares outcomes by identity."""
    decision = Decision(
        Outcome.EXACT, "chat", 1e9, 0.001, tier="memory", model="llama3.2:latest", entry="ab" * 16, saved_s=1.5,
        first_byte_s=0.0005, saved_tokens=3, trail="memory:hit", timings_s={"memory": 1e-5},
    )  # fmt: skip
    told = ((decision, 1), (replace(decision, partition="cd" * 16), 20))
    report = Report(3, told, {"ab" * 32: Wish(num_ctx=1)}, {"internal": 2}, Gauges(1, 2, 3))

    read = read_report(encode(report))

    assert read == report
    assert read.decisions[0][0].outcome is Outcome.EXACT
    assert read_report(encode(Report())) == Report()


def test_a_start_comes_out_as_it_went_in() -> None:
    """Its configuration is plain data."""
    start = Start({"server": {"listen": "127.0.0.1:1"}}, "/tmp/x/inside")

    assert read_start(encode(start)) == start
