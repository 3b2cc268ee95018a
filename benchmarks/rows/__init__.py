"""One file a subject; each gives rows, a row gives figures. `__main__` knows their order."""
