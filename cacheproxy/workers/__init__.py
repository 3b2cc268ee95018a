"""Several processes on one port: the main one, which is the whole proxy, and fronts that answer exact hits."""
