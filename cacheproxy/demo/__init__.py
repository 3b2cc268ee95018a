"""The tour for people who have no Ollama at hand."""
