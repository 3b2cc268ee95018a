"""Client libraries leave their sockets to the garbage collector; collect them in the test that made them."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    yield
    gc.collect()
