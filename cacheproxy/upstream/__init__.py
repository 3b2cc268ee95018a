"""Ollama as seen from here: the only home of the `aiohttp` client."""
