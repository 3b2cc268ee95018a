"""Text to vectors. Usable alone; imports nothing of cacheproxy."""
