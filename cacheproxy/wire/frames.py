"""Lines out of the arbitrary pieces in which a stream arrives.

A line of Ollama's may span many TCP segments (a final `/api/generate` line with its context passes 512 KiB) and one
segment may hold many lines, so nothing here assumes that pieces and lines agree. Refuses to hold more than a given
number of bytes.
"""

from __future__ import annotations


class Lines:
    """Splits a byte stream at line feeds.

    `line_bytes_max` bounds a line; with a longer one `overflow` turns true and no more lines come out.
    """

    def __init__(self, line_bytes_max: int) -> None:
        self._line_bytes_max = line_bytes_max
        self._parts: list[bytes] = []
        self._held_bytes = 0
        self.overflow = False

    def feed(self, piece: bytes) -> list[bytes]:
        """Take the next piece; return the lines it completes, without their line ends."""
        if self.overflow:
            return []
        lines = []
        *ends, last = piece.split(b"\n")
        for end in ends:
            self._hold(end)
            if self.overflow:
                return lines
            lines.append(self.rest().removesuffix(b"\r"))
            self._parts, self._held_bytes = [], 0
        self._hold(last)
        return lines

    def rest(self) -> bytes:
        """What came after the last line end; empty for a stream that ended as it should."""
        return b"".join(self._parts)

    def _hold(self, part: bytes) -> None:
        if part:
            self._parts.append(part)
            self._held_bytes += len(part)
            if self._held_bytes > self._line_bytes_max:
                self.overflow = True
                self._parts.clear()
