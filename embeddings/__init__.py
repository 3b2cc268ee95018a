"""Text to vectors. Usable alone; imports nothing of cacheproxy.

from embeddings.load import load

embedder = load("all-MiniLM-L6-v2")
vectors = embedder.embed(["What is the capital of France?"])  # float32 [1, 384], unit length
"""
