"""What all tests share: the stand-ins of `tests.fakes` as fixtures."""

pytest_plugins = ["tests.fakes.fixtures", "tests.fakes.redis_server", "tests.fakes.house", "tests.fakes.command"]
