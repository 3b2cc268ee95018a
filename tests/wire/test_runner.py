"""What a request asks of Ollama's runner."""

import json

import pytest

from cacheproxy.demo.library import RUNNER_OPTIONS as OLLAMAS
from cacheproxy.demo.ollama import INFERENCE
from cacheproxy.wire import runner
from cacheproxy.wire.runner import Needs, named, needs

MESSAGES = [{"role": "user", "content": "why?"}]


def body(**members):
    """A request."""
    return json.dumps({"model": "m"} | members).encode()


def test_it_knows_every_path_that_runs_a_model():
    """And the options that Ollama loads a model with."""
    assert runner.PATHS == INFERENCE
    assert sorted(OLLAMAS) == sorted(runner.RUNNER_OPTIONS)


@pytest.mark.parametrize(
    ("path", "members"),
    [
        ("/api/chat", {"messages": MESSAGES}),
        ("/api/generate", {"prompt": "why?"}),
        ("/api/embed", {"input": ["a", "b"]}),
        ("/api/embeddings", {"prompt": "a"}),
        ("/v1/chat/completions", {"messages": MESSAGES}),
        ("/v1/completions", {"prompt": "why?"}),
        ("/v1/embeddings", {"input": "a"}),
        ("/v1/messages", {"messages": MESSAGES}),
        ("/v1/responses", {"input": "why?"}),
    ],
)
def test_an_ask_needs_its_model(path, members):
    """Whatever its dialect."""
    assert needs(path, body(**members)) == Needs("m", ())


@pytest.mark.parametrize(
    ("path", "raw"),
    [
        ("/api/chat", body()),
        ("/api/chat", body(messages=[])),
        ("/api/generate", body(prompt="")),
        ("/api/generate", body(keep_alive=0)),
        ("/api/embed", body(input="")),
        ("/v1/completions", body(prompt="")),
        ("/api/show", body(prompt="why?")),
        ("/api/generate", b'{"prompt": "why?"}'),
        ("/api/generate", b'{"model": 1, "prompt": "why?"}'),
        ("/api/generate", b'{"model": "m", "model": "n", "prompt": "why?"}'),
        ("/api/generate", b"\xff"),
        ("/api/generate", b"[]"),
        ("/api/generate", b""),
    ],
)
def test_what_runs_nothing_or_cannot_be_read_needs_nothing(path, raw):
    """Loading and unloading never wait, and Ollama words its own refusals."""
    assert needs(path, raw) is None


def test_what_only_loads_or_unloads_names_its_model_all_the_same():
    """It belongs to the Ollama at which that model is loaded."""
    assert named("/api/generate", body(keep_alive=0)) == named("/api/chat", body(messages=MESSAGES)) == "m"
    assert named("/api/generate", b"{") == named("/api/generate", b'{"model": 1}') == named("/api/show", body()) == ""


def test_only_options_that_make_ollama_load_anew_count():
    """Temperature and the like run on any loaded model."""
    options = {"temperature": 1, "num_ctx": 4096, "use_mmap": True, "num_gpu": None, "seed": 1}

    assert needs("/api/chat", body(messages=MESSAGES, options=options)).options == (
        ("num_ctx", "4096"),
        ("use_mmap", "1"),
    )
    assert needs("/api/chat", body(messages=MESSAGES, shift=False)).options == (("shift", "0"),)


def test_a_number_counts_as_ollama_reads_it():
    """It cuts fractions off."""
    assert runner.options({"options": {"num_ctx": 4096.7}}) == runner.options({"options": {"num_ctx": 4096}})


def test_options_below_v1_do_nothing():
    """Ollama ignores them there."""
    assert needs("/v1/chat/completions", body(messages=MESSAGES, options={"num_ctx": 1})).options == ()
