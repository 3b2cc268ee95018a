"""The contract's cases meet a whole proxy (`house`) on a real Redis, or its relay alone (`proxy`)."""

from tests.fakes.house import house  # noqa: F401
from tests.fakes.redis_server import clean_redis, redis_server  # noqa: F401
from tests.fakes.relay import proxy  # noqa: F401
