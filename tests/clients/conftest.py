"""Client libraries leave their sockets to the garbage collector; collect them in the test that made them."""

from collections.abc import Iterator

import pytest

from tests.fakes.garbage import left_over_collected


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    with left_over_collected():
        yield
