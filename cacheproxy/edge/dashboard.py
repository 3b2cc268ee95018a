"""The dashboard's files, as the operator's port hands them to browsers.

They are the same for everybody and hold no figure and no text of a caller, so they need no token; what the page shows
it asks of the other pages, with the token that its reader typed. Refuses to open what a request names: the files of the
package's folder `page` are read once, and only those exist.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from importlib import resources
from importlib.resources.abc import Traversable

from aiohttp import web

from cacheproxy.edge.admin import HEADERS, Page, UnnamedWhole, answer

TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml", "txt": "text/plain"}
"""By the end of a file's name; the folder holds no other kind. All are UTF-8."""

FILE_HEADERS: Mapping[str, str] = {
    **HEADERS,
    # Asked for again each time and mostly answered with 304, so that an upgrade never mixes old and new scripts.
    "Cache-Control": "no-cache",
    # No script, style or picture but those files, and no talk with another host; nothing inline.
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
    ),
}


@dataclass(frozen=True, slots=True)
class File:
    """One file. `tag` is its ETag, quotes included."""

    body: bytes
    content_type: str
    tag: str


class Dashboard:
    """`/page/…`, and the page itself for browsers that ask for `/`."""

    def __init__(self) -> None:
        self._files: Mapping[str, File] = {}

    def pages(self) -> Mapping[str, Page]:
        """By path."""
        return {"/page/": Page("files of the dashboard; need no token", {"GET": self._file}, open=True)}

    async def front(self, request: web.BaseRequest) -> web.StreamResponse:
        """The page; the browser then asks for the rest."""
        return _reply(request, (await self._all())["index.html"])

    async def _file(self, request: web.BaseRequest) -> web.StreamResponse:
        file = (await self._all()).get(request.path.removeprefix("/page/"))
        return answer({"error": "the dashboard has no such file"}, 404) if file is None else _reply(request, file)

    async def _all(self) -> Mapping[str, File]:
        """Every file by its path in the folder; read when somebody looks for the first time."""
        if not self._files:
            self._files = await asyncio.to_thread(lambda: read_files(resources.files("cacheproxy") / "page"))
        return self._files


def read_files(folder: Traversable, below: str = "") -> dict[str, File]:
    """Every file of `folder` and its sub-folders that has a type of `TYPES`, by its path with slashes."""
    found: dict[str, File] = {}
    for item in folder.iterdir():
        content_type = TYPES.get(item.name.rpartition(".")[2])
        if item.is_dir():
            found |= read_files(item, f"{below}{item.name}/")
        elif content_type:
            body = item.read_bytes()
            tag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
            found[below + item.name] = File(body, f"{content_type}; charset=utf-8", tag)
    return found


def _reply(request: web.BaseRequest, file: File) -> web.StreamResponse:
    headers = {**FILE_HEADERS, "ETag": file.tag, "Vary": "Accept"}
    if file.tag in request.headers.get("If-None-Match", ""):
        return UnnamedWhole(status=304, headers=headers)
    return UnnamedWhole(body=file.body, headers={**headers, "Content-Type": file.content_type})
