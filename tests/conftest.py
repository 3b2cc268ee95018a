"""What all tests share: the stand-ins of `tests.fakes` as fixtures, and no deadline for an example of Hypothesis.

Its default of 0.2 s measures the machine; what may take how long is tested where it matters.
"""

from collections.abc import Generator
from typing import Any

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


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """What a process tells of a test goes to the other as UTF-8; what tests print and log need not be that."""
    return _as_utf8((yield))


def _as_utf8(told: Any) -> Any:
    if isinstance(told, str):
        return told.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(told, dict):
        return {name: _as_utf8(value) for name, value in told.items()}
    if isinstance(told, list | tuple):
        return type(told)(map(_as_utf8, told))
    return told
