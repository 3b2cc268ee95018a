"""Word lists as they are written in this folder: words apart by spaces, groups by semicolons, readings by lines."""

from __future__ import annotations


def words(text: str) -> frozenset[str]:
    """The words of a list, order and repetition forgotten."""
    return frozenset(text.split())


def groups(text: str) -> list[list[str]]:
    """The groups of a list, each in its order."""
    return [group.split() for group in text.split(";") if group.strip()]


def rewrites(text: str) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Lines `what is said = what is read`, as words."""
    return {
        tuple(said.split()): tuple(read.split())
        for said, read in (line.split("=") for line in text.strip().splitlines())
    }
