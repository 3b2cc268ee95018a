"""Where entries are kept: the only home of `redis` and `redisvl`."""
