"""Record an upstream reply while it passes: pieces of bytes in, chunks as they complete, one answer at the end.

Only an answer that came to its good end comes out; why not is said in one word. Recording never delays the bytes: it
runs behind them, and gives up when a reply is larger than may be kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cacheproxy.model import Answer
from cacheproxy.wire.frames import Lines
from cacheproxy.wire.native import Fold


class Recorder:
    """One reply. `bytes_max`: beyond it nothing is recorded and `reason` says `too-large`."""

    def __init__(self, fold: Fold, *, bytes_max: int) -> None:
        self._fold = fold
        self._bytes_max = bytes_max
        self._lines = Lines(bytes_max)
        self._size_bytes = 0
        self._reason = ""

    @property
    def too_large(self) -> bool:
        """True once the reply has passed `bytes_max`."""
        return self._reason == "too-large"

    @property
    def unreadable(self) -> bool:
        """True once no more chunks will come out of what follows."""
        return bool(self._reason)

    def feed(self, piece: bytes) -> Sequence[Mapping[str, Any]]:
        """Take the next bytes; return the chunks they complete (none for an unstreamed reply before its end)."""
        self._size_bytes += len(piece)
        if self._size_bytes > self._bytes_max:
            self._reason = "too-large"
        if self._reason:
            return ()
        return [chunk for line in self._lines.feed(piece) for chunk in self._read(line)]

    def end(self) -> Sequence[Mapping[str, Any]]:
        """The reply ended as HTTP says; return what the line without a line end holds, if there is one."""
        rest = self._lines.rest()
        return self._read(rest) if rest else ()

    def answer(self) -> Answer | None:
        """The answer, or None; `reason` then says why."""
        return None if self._reason else self._fold.answer()

    @property
    def reason(self) -> str:
        """Why there is no answer: `too-large`, `malformed`, `error`, `after-done`, or `no-done` (a silent end)."""
        return self._reason or self._fold.trouble or ("" if self._fold.done else "no-done")

    def _read(self, line: bytes) -> Sequence[Mapping[str, Any]]:
        if self._reason:
            return ()
        try:
            chunks = self._fold.read(line)
        except ValueError:
            self._reason = "malformed"
            return ()
        for chunk in chunks:
            self._fold.add(chunk)
        return chunks
