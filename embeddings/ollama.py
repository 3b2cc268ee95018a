"""The engine without weights of its own: asks an Ollama server's `/api/embed`. Standard library only.

It needs no Python machine learning at all, but its calls queue behind Ollama's generation. Ollama replaces a model
under the same name when somebody pulls it, so the model's digest is part of the fingerprint and is looked up after
each call: vectors of another model are an error, never a silent change of space.
This engine refuses proxies from the environment, redirects, and answers larger than the question explains.
"""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from embeddings.catalog import KnownModel, find
from embeddings.errors import EmbedError, EngineError, ModelNotFoundError, TextError
from embeddings.protocol import Vectors
from embeddings.text import prepared
from embeddings.vector import unit_vectors

_BATCH = 32
_REPLY_BYTES_MAX = 16 * 1024 * 1024  # 32 vectors of 4096 numbers of 25 characters are 3.3 MB; /api/tags is less
_TOKENS_AROUND_MAX = 8  # tokens a model may put around a text: two, or with a leading blank three, and some to spare
_CONTEXT_DEFAULT = 2048  # the smallest num_ctx that any Ollama version gives a model that sets none


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would send the caller's texts to a server nobody configured."""

    def redirect_request(self, *_args: object, **_kwargs: object) -> None:
        return None


class _RefusedError(Exception):
    """Ollama answered with an error status; the text is Ollama's own."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"HTTP {status}: {text}")
        self.status = status


# All that a broken, slow or lying server can make the standard library raise; RecursionError is JSON of deep brackets.
_FAILURES = (_RefusedError, OSError, ValueError, RecursionError, http.client.HTTPException)


class _Client:
    """Small blocking JSON client. Raises what `_FAILURES` lists."""

    def __init__(self, url: str, timeout_s: float) -> None:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise EngineError(f"{url!r} is no URL of an Ollama server; write http://127.0.0.1:11434")
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())

    def call(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """GET, or POST when there is a body. `timeout_s` bounds the whole call, not each read of it."""
        end_s = time.monotonic() + self._timeout_s
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310  the scheme was checked above
            self.url + path, data=data, headers={"Content-Type": "application/json"}
        )
        try:
            with self._opener.open(request, timeout=self._timeout_s) as response:
                raw = self._read(response, end_s)
        except urllib.error.HTTPError as error:
            with error:
                raise _RefusedError(error.code, _error_text(error.read(4096))) from error
        value = json.loads(raw)
        if not isinstance(value, dict):
            raise ValueError(f"{path} answered with a {type(value).__name__}, not an object")
        return value

    def _read(self, response: Any, end_s: float) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while piece := response.read1(65536):
            pieces.append(piece)
            size += len(piece)
            if size > _REPLY_BYTES_MAX:
                raise ValueError(f"the answer is larger than {_REPLY_BYTES_MAX} bytes")
            if time.monotonic() > end_s:
                raise TimeoutError(f"the answer was not complete after {self._timeout_s} s")
        return b"".join(pieces)


class OllamaEmbedder:
    """An `Embedder`. Made by `open_ollama`."""

    engine = "ollama"

    def __init__(
        self, client: _Client, model: str, known: KnownModel | None, *, dims: int, max_tokens: int, digest: str
    ) -> None:
        self.model = model
        self.dims = dims
        self.max_tokens = max_tokens
        # No `threshold`: the catalogue's figures were measured on the published weights, Ollama's are quantised.
        self.threshold: float | None = None
        self._prefix = known.prefix if known else ""
        prefix = f"-{_safe(self._prefix)}" if self._prefix else ""
        self.fingerprint = f"ollama-{_safe(model)[:48]}-{digest[:16]}{prefix}-own-unit"
        self._client = client
        self._digest = digest

    def embed(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder.embed`. Waits for the server, at most `timeout_s` for every 32 texts and once more."""
        ready = prepared(texts, self._prefix)
        rows: list[Any] = []
        try:
            for start in range(0, len(ready), _BATCH):
                rows += _ask(self._client, self.model, ready[start : start + _BATCH])
            if _digest_of(self._client, self.model) != self._digest:
                raise EmbedError(
                    f"Ollama's {self.model!r} was replaced while in use; its vectors do not compare with earlier "
                    "ones. Remedy: load the embedder anew"
                )
        except _FAILURES as error:
            raise EmbedError(f"Ollama at {self._client.url} gave no vectors: {error}") from error
        return unit_vectors(rows, rows=len(ready), dims=self.dims)

    def count_tokens(self, text: str) -> int:
        """An upper bound: a token stands for one byte or more. Texts beyond ASCII may grow when a model folds them."""
        return len(prepared([text], self._prefix)[0].encode()) + _TOKENS_AROUND_MAX

    def fits(self, text: str) -> bool:
        """See `Embedder.fits`. Only for short ASCII texts can it be told from here that nothing is cut or unknown."""
        try:
            return text.isascii() and self.count_tokens(text) <= self.max_tokens
        except TextError:
            return False


def open_ollama(model: str, *, url: str, timeout_s: float) -> OllamaEmbedder:
    """Ask the server about the model and embed one text, which loads it there.

    Raises ModelNotFoundError when the server lacks the model, else EngineError.
    """
    client = _Client(url, timeout_s)
    known = find(model)
    name = known.ollama if known and known.ollama and model in (known.name, known.repository) else model
    try:
        described = client.call("/api/show", {"model": name})
        digest = _digest_of(client, name)
        (vector,) = _ask(client, name, ["dimensions"])
    except _RefusedError as error:
        if error.status == 404:
            raise ModelNotFoundError(f"Ollama at {url} has no model {name!r}. Remedy: ollama pull {name}") from error
        raise EngineError(f"Ollama at {url} cannot embed with {name!r}: {error}") from error
    except _FAILURES as error:
        raise EngineError(f"Ollama at {url} cannot be asked: {error}. Remedy: start it, or correct the URL") from error
    if not isinstance(vector, list) or not vector:
        raise EngineError(f"Ollama at {url} gave no vector for {name!r}; is it an embedding model?")
    return OllamaEmbedder(client, name, known, dims=len(vector), max_tokens=_max_tokens(described), digest=digest)


def _ask(client: _Client, model: str, texts: Sequence[str]) -> list[Any]:
    reply = client.call("/api/embed", {"model": model, "input": list(texts), "truncate": True})
    rows = reply.get("embeddings")
    if not isinstance(rows, list) or len(rows) != len(texts):
        raise ValueError(f"/api/embed did not answer with {len(texts)} vectors")
    return rows


def _digest_of(client: _Client, model: str) -> str:
    """Digest of the model's manifest. Raises ValueError when the list of models does not hold it."""
    wanted = model.lower() if ":" in model.rpartition("/")[2] else f"{model.lower()}:latest"
    models = client.call("/api/tags").get("models")
    for each in models if isinstance(models, list) else ():
        if isinstance(each, dict) and str(each.get("name", "")).lower() == wanted and each.get("digest"):
            return str(each["digest"]).removeprefix("sha256:")
    raise ValueError(f"/api/tags does not list {wanted!r}")


def _max_tokens(described: Mapping[str, Any]) -> int:
    """What one text may hold: the model's context or the `num_ctx` it is run with, whichever is less."""
    parameter = re.search(r"^num_ctx\s+(\d+)", str(described.get("parameters") or ""), re.MULTILINE)
    limits = [int(parameter[1]) if parameter else _CONTEXT_DEFAULT]
    details = described.get("model_info")
    for key, value in details.items() if isinstance(details, dict) else ():
        if key.endswith(".context_length") and isinstance(value, int) and value > 0:
            limits.append(value)
    return min(limits)


def _error_text(raw: bytes) -> str:
    try:
        return str(json.loads(raw)["error"])
    except (ValueError, KeyError, TypeError):
        return raw[:200].decode("utf-8", "replace").strip() or "no text"


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-")
