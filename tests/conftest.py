"""What all tests share: the stand-ins of `tests.fakes` as fixtures, and no deadline for an example of Hypothesis.

Its default of 0.2 s measures the machine; what may take how long is tested where it matters.
"""

import pytest
from hypothesis import settings

pytest_plugins = ["tests.fakes.fixtures", "tests.fakes.redis_server", "tests.fakes.house", "tests.fakes.command"]

settings.register_profile("here", deadline=None)
settings.load_profile("here")

WHOLE_FOLDERS = ("tests/page/", "tests/embeddings/")
"""What they share for a session is dear (a browser and a busy proxy; two engines), so one process runs all of one."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several processes share the tests (`pytest -n 2 --dist loadgroup`): a file, or such a folder, to one.

    These folders come first: what takes longest must not be begun last.
    """
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        file = item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(next(filter(file.startswith, WHOLE_FOLDERS), file)))
    items.sort(key=lambda item: not item.nodeid.startswith(WHOLE_FOLDERS))
