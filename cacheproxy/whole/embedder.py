"""The embedder that the configuration names, loaded the same way for the proxy and for its commands.

Refuses to choose another one where that cannot be had.
"""

from __future__ import annotations

from cacheproxy.config import Config
from embeddings.load import load
from embeddings.protocol import Embedder


def load_embedder(config: Config, *, offline: bool = False) -> Embedder:
    """Load it; blocks for as long as `embeddings.load.load` says. Raises EmbeddingsError.

    `offline`: only from what is on this machine; else a model that is missing is fetched.
    """
    settings = config.embedding
    return load(
        settings.model,
        engine=settings.engine,
        path=settings.path or None,
        threads=settings.threads,
        offline=offline,
        ollama_url=config.upstream.url,
    )
