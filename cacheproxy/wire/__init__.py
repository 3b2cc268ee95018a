"""What Ollama's requests and replies look like as bytes; pure functions."""
