"""What a test leaves to the garbage collector, collected in the test that left it.

With the libraries of all tests loaded, a whole collection takes seconds: what was there before is left out of it.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def left_over_collected() -> Iterator[None]:
    """Collect at the end what was made within."""
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        gc.unfreeze()
