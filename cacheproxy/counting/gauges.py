"""Figures that others keep, read when somebody looks.

Most are gauges; a counter that its owner counts anyway is read in the same way. Refuses names that are not declared in
`families.py`, so that a figure nobody described cannot appear.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cacheproxy.counting.families import FAMILIES
from cacheproxy.counting.labels import Labels

_KNOWN = {family.name: family for family in FAMILIES if family.kind == "gauge" or family.read}


class Gauges:
    """Readers by family. They must be quick and not raise; a figure nobody reads is absent."""

    def __init__(self) -> None:
        self._plain: dict[str, Callable[[], float]] = {}
        self._labelled: dict[str, Callable[[], Mapping[Labels, float]]] = {}

    def watch(self, name: str, read: Callable[[], float]) -> None:
        """Read a figure without labels. Raises KeyError for a name that is none."""
        self._check(name, labels=0)
        self._plain[name] = read

    def watch_one_label(self, name: str, read: Callable[[], Mapping[str, float]]) -> None:
        """Read a figure with one label, by its values. Raises KeyError for a name that is none."""
        self._check(name, labels=1)
        self._labelled[name] = lambda: {(value,): number for value, number in read().items()}

    def watch_any(self, name: str, read: Callable[[], Mapping[Labels, float]]) -> None:
        """Read a figure by all its labels; an empty mapping stands for nothing to say. Raises KeyError as above."""
        self._check(name)
        self._labelled[name] = read

    def read(self, name: str) -> Mapping[Labels, float]:
        """The figures of a family now; empty where nobody watches it."""
        if name in self._plain:
            return {(): self._plain[name]()}
        return self._labelled[name]() if name in self._labelled else {}

    def all_plain(self) -> dict[str, float]:
        """Every figure without labels, now."""
        return {name: read() for name, read in self._plain.items()}

    def _check(self, name: str, labels: int | None = None) -> None:
        family = _KNOWN.get(name)
        if family is None or labels not in (None, len(family.labels)):
            wanted = "" if labels is None else f" with {labels} labels"
            raise KeyError(f"no figure{wanted} to be read is called {name!r}; declare it in families.FAMILIES")
