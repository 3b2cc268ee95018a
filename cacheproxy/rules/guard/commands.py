"""Code whose words stand in another order: `cp a b` and `cp b a`, `const int*` and `int* const`.

Knows the commands of a shell that are no English words. Flags may stand anywhere; operators and calls are compared in
`signs.py`.
"""

from __future__ import annotations

import re
from functools import lru_cache

from cacheproxy.rules.guard.lists import words
from cacheproxy.rules.guard.reading import READINGS_MAX, Reading

_COMMANDS = words(
    """cp mv ln scp rsync git docker podman kubectl npm pip chmod chown tar sed awk grep xcopy robocopy mklink comm
    setx sftp psql"""
)
_ENDS = words(
    """do does did mean means in on for with and or using via to into onto from if when so but is are the my how
    what where why without before after then"""
)
"""Words that belong to no command."""
_PINNED = re.compile(r"[*&]\s*const\b")
"""A pointer that is constant itself."""
_AROUND = ".,;:?!\"'`()"


def reordered(a: Reading, b: Reading) -> bool:
    """The arguments of a command changed places, or a pointer is constant instead of what it points at."""
    if "const" in a.text and "const" in b.text and len(_PINNED.findall(a.text)) != len(_PINNED.findall(b.text)):
        return True
    if _COMMANDS.isdisjoint(a.texts & b.texts):
        return False
    one, other = _arguments(a), _arguments(b)
    return one != other and sorted(one) == sorted(other)


@lru_cache(maxsize=READINGS_MAX)
def _arguments(reading: Reading) -> list[str]:
    """All that follows the first command up to a word of prose, without flags."""
    chunks = [chunk.strip(_AROUND) for chunk in reading.text.split()]
    start = next((at for at, chunk in enumerate(chunks) if chunk.lower() in _COMMANDS), len(chunks))
    found: list[str] = []
    for chunk in chunks[start:]:
        if chunk.lower() in _ENDS:
            break
        if not chunk.startswith("-"):
            found.append(chunk)
    return found
