"""Stores are tested on a real Redis."""

from tests.fakes.redis_server import clean_redis, redis_server  # noqa: F401
