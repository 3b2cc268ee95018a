"""Tests of embeddings/, file by file, on the real weights."""
