"""The HTTP faces: the only home of `aiohttp.web`."""
