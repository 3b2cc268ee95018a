"""What all tests share: the stand-ins of `tests.fakes` as fixtures."""

pytest_plugins = ["tests.fakes.fixtures"]
