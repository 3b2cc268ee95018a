"""What all tests share: the stand-ins of `tests.fakes` as fixtures, and no deadline for an example of Hypothesis.

Its default of 0.2 s measures the machine; what may take how long is tested where it matters.
"""

from hypothesis import settings

pytest_plugins = ["tests.fakes.fixtures", "tests.fakes.redis_server", "tests.fakes.house", "tests.fakes.command"]

settings.register_profile("here", deadline=None)
settings.load_profile("here")
