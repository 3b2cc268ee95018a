"""What is there for good is not gone through again, and what is not is."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import gc, weakref
from cacheproxy import heap

class Thing:
    pass

def cycle():
    thing = Thing()
    thing.itself = thing
    return thing

kept = cycle()
seen = weakref.ref(kept)
heap.settle()
print(gc.get_freeze_count() > 1000, gc.isenabled(), gc.get_threshold()[0] > 700)
later = weakref.ref(cycle())
gc.collect()
print(later() is None, seen() is kept)
del kept
heap.settle()
print(seen() is None)
"""


def test_garbage_is_found_whenever_it_arose() -> None:
    """In a process of its own, since nothing else here may settle."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["True"] * 6
