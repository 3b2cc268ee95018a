"""Word lists as they are written in this folder: words with spaces between, groups with semicolons."""

from __future__ import annotations


def words(text: str) -> frozenset[str]:
    """The words of a list, order and repetition forgotten."""
    return frozenset(text.split())


def groups(text: str) -> list[list[str]]:
    """The groups of a list, each in its order."""
    return [group.split() for group in text.split(";") if group.strip()]
