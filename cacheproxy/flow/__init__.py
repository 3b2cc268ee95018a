"""What happens to one ask, in order; no HTTP and no Redis of its own."""
