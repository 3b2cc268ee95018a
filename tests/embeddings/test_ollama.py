from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from embeddings.errors import EmbedError, EngineError, ModelNotFoundError, TextError
from embeddings.load import load

DIGEST = "1b226e2802dbb772b5fc32a58f103ca1804ef7501331012de126ab22f67475ef"


class SmallOllama:
    """A server with Ollama's three routes; `replies` overrides one by (status, raw body)."""

    def __init__(self):
        self.digest = DIGEST
        self.parameters = "num_ctx                        256"
        self.asked = []
        self.replies = {}
        self.hold = threading.Event()
        self.hold.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self):
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
                outer.asked.append((self.path, body))
                outer.hold.wait(10)
                status, raw = outer.replies.get(self.path) or outer.answer(self.path, body)
                self.send_response(status)
                if status == 307:
                    self.send_header("Location", "http://127.0.0.1:9/")
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = _answer  # noqa: N815  http.server looks for these names

            def log_message(self, *_arguments):
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, path, body):
        """What Ollama would say."""
        if path == "/api/tags":
            models = [{"name": name, "digest": self.digest} for name in ("all-minilm:latest", "other:7b")]
            return 200, json.dumps({"models": models}).encode()
        if body["model"] not in ("all-minilm", "other:7b"):
            return 404, b'{"error":"model \\"nope\\" not found, try pulling it first"}'
        if path == "/api/show":
            info = {"bert.context_length": 512, "bert.embedding_length": 4, "general.name": "x"}
            return 200, json.dumps({"parameters": self.parameters, "model_info": info}).encode()
        rows = [[float(len(text)), 1.0, -2.0, 0.5] for text in body["input"]]
        return 200, json.dumps({"embeddings": rows}).encode()


@pytest.fixture
def ollama():
    """A small Ollama on a port of its own."""
    small = SmallOllama()
    thread = threading.Thread(target=small.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield small
    small.hold.set()
    small.server.shutdown()
    small.server.server_close()
    thread.join()


def open_engine(ollama, model="all-minilm", timeout_s=5.0):
    """Load the engine against the small Ollama."""
    return load(model, engine="ollama", ollama_url=ollama.url, ollama_timeout_s=timeout_s)


def test_the_server_tells_dimensions_tokens_and_digest(ollama):
    """Nothing about the model is assumed."""
    embedder = open_engine(ollama)

    assert (
        embedder.model,
        embedder.engine,
        embedder.dims,
        embedder.max_tokens,
        embedder.threshold,
    ) == ("all-minilm", "ollama", 4, 256, None)
    assert f"ollama-all-minilm-{DIGEST[:16]}-own-unit" == embedder.fingerprint


def test_the_catalogue_name_is_asked_for_by_ollamas_name(ollama):
    """One config line serves both kinds of engine."""
    assert open_engine(ollama, "all-MiniLM-L6-v2").model == "all-minilm"


def test_vectors_come_in_order_with_unit_length_however_many(ollama):
    """More texts than one request holds are asked for in several."""
    texts = ["x" * length for length in range(70)]
    embedder = open_engine(ollama)
    ollama.asked.clear()

    vectors = embedder.embed(texts)

    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(vectors[:, 0] / vectors[:, 1], range(70), rtol=1e-5)
    assert [len(body["input"]) for path, body in ollama.asked if path == "/api/embed"] == [32, 32, 6]


def test_no_texts_give_no_rows(ollama):
    """The width is still the model's."""
    assert open_engine(ollama).embed([]).shape == (0, 4)


def test_a_model_pulled_anew_under_the_same_name_is_an_error(ollama):
    """Its vectors lie in another space; the fingerprint would be a lie."""
    embedder = open_engine(ollama)
    ollama.digest = "0" * 64

    with pytest.raises(EmbedError, match="was replaced while in use"):
        embedder.embed(["text"])
    assert open_engine(ollama).fingerprint != embedder.fingerprint


@pytest.mark.parametrize(
    ("parameters", "tokens"), [("num_ctx 256", 256), ("stop x\nnum_ctx   4096\n", 512), ("", 512), (None, 512)]
)
def test_the_smaller_of_context_and_num_ctx_limits_a_text(ollama, parameters, tokens):
    """Ollama cuts at either."""
    ollama.parameters = parameters

    assert tokens == open_engine(ollama).max_tokens


def test_only_what_surely_fits_fits(ollama):
    """Without a tokenizer the bound is bytes, and unknown characters cannot be told."""
    embedder = open_engine(ollama)

    assert embedder.count_tokens("word") == 12
    assert embedder.fits("x" * 248)
    assert not embedder.fits("x" * 249)
    assert not embedder.fits("café")
    with pytest.raises(TextError):
        embedder.count_tokens("\ud800")


def test_a_model_the_server_lacks_names_the_remedy(ollama):
    """`ollama pull` is one command away."""
    with pytest.raises(ModelNotFoundError, match="ollama pull nope"):
        open_engine(ollama, "nope")


@pytest.mark.parametrize(
    ("status", "raw"),
    [
        (500, b'{"error":"runner died"}'),
        (503, b"busy"),
        (307, b""),
        (200, b"not json"),
        (200, b"[]"),
        (200, b"{}"),
        (200, b'{"embeddings":[]}'),
        (200, b'{"embeddings":[[1,2,3]]}'),
        (200, b'{"embeddings":[[1,2,3,NaN]]}'),
        (200, b'{"embeddings":[[0,0,0,0]]}'),
        (200, b'{"embeddings":["abcd"]}'),
        (200, b'{"embeddings":[[1,2,3,4],[1,2,3,4]]}'),
        (200, b'{"embeddings":' + b"[" * 200_000),
        (200, b'{"embeddings":[[1,2,3,' + b"9" * 400 + b"]]}"),
        (200, b" " * (16 * 1024 * 1024 + 1)),
    ],
    ids=lambda value: str(value)[:40],
)
def test_every_odd_answer_is_an_embed_error(ollama, status, raw):
    """Never a wrong vector, never a foreign exception."""
    embedder = open_engine(ollama)
    ollama.replies["/api/embed"] = (status, raw)

    with pytest.raises(EmbedError):
        embedder.embed(["text"])


@pytest.mark.parametrize("reply", [(500, b"{}"), (200, b'{"embeddings":[[]]}'), (200, b'{"embeddings":[3]}')], ids=str)
def test_a_model_that_cannot_embed_is_found_at_start(ollama, reply):
    """A chat model is refused when it is configured, not on the first question."""
    ollama.replies["/api/embed"] = reply

    with pytest.raises(EngineError):
        open_engine(ollama)


def test_a_server_that_does_not_answer_costs_the_timeout_and_no_more(ollama):
    """A busy Ollama must not hold a worker thread for ever."""
    embedder = open_engine(ollama, timeout_s=0.2)
    ollama.hold.clear()

    with pytest.raises(EmbedError, match="timed out"):
        embedder.embed(["text"])


@pytest.mark.parametrize("raw", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"])
def test_a_server_that_does_not_speak_http_is_one_of_our_errors(raw):
    """Some other program on the port, or one that dies midway."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer_once():
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(raw)

        thread = threading.Thread(target=answer_once)
        thread.start()
        with pytest.raises(EngineError, match="cannot be asked"):
            load("all-minilm", engine="ollama", ollama_url=f"http://127.0.0.1:{server.getsockname()[1]}")
        thread.join()


def test_nobody_listening_is_said_with_the_address():
    """The remedy is in the text."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"

        with pytest.raises(EngineError, match="start it, or correct the URL"):
            load("all-minilm", engine="ollama", ollama_url=url)


@pytest.mark.parametrize("url", ["127.0.0.1:11434", "file:///etc/passwd", "http://", ""])
def test_what_is_no_http_url_is_refused(url):
    """Other schemes read files."""
    with pytest.raises(EngineError, match="is no URL of an Ollama server"):
        load("all-minilm", engine="ollama", ollama_url=url)


def test_a_proxy_in_the_environment_does_not_see_the_texts(ollama, monkeypatch):
    """Prompts go to the configured server and nowhere else."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    assert open_engine(ollama).embed(["text"]).shape == (1, 4)
