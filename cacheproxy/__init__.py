"""A transparent caching proxy in front of Ollama. `docs/architecture.md` is the map."""

__version__ = "0.1.0"
