"""The program's log: one line an event on standard error, as text or as JSON.

A line cannot be forged or broken by what it tells of: control and bidirectional characters and lone surrogates are
escaped, and no value is longer than `VALUE_MAX`. Prompt text stays out: it is only ever logged as a `Prompt`, which
shows its length unless `log.prompts` is on, and an exception of a library gives its type and place but not its message.
This module refuses to know what an ask is, and never fails its caller: standard error may be closed or full.
"""

from __future__ import annotations

import json
import logging
import math
import traceback
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any, TextIO

from cacheproxy.config import Log
from cacheproxy.errors import CacheproxyError

VALUE_MAX = 4096
"""Longest value in a line, characters; container runtimes cut lines at 16 KiB and would break JSON there."""
CHAIN_MAX = 4
"""Exceptions told of one chain of causes."""
FRAMES_MAX = 6
"""Innermost frames told of each exception."""

_ROOT = "cacheproxy"

# C0 and C1 controls, line separators, and the marks that reorder text in a terminal (Unicode TR 36, "bidi").
_UNSAFE = (
    *range(0x20),
    *range(0x7F, 0xA0),
    0x2028,
    0x2029,
    0x200E,
    0x200F,
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
)
_ESCAPES = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in _UNSAFE} | {
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
}

_PLAIN_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Prompt:
    """Text of a caller's that a line may only show when `log.prompts` is on; else its length stands for it."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return f"[{len(self.text)} characters]"

    __repr__ = __str__


def configure(settings: Log, stream: TextIO | None = None) -> None:
    """Send the log where `settings` say; may be called again to change them.

    `stream`: stands for standard error. Our own loggers follow `log.level`. Those of libraries are heard from warning
    up whatever the level, because what they say below it may quote a request.
    """
    # A log that cannot be written must not print about it either, least of all to the stream that failed.
    logging.raiseExceptions = False
    handler = _Handler(stream)
    handler.setFormatter(JSONLines(settings.prompts) if settings.format == "json" else TextLines(settings.prompts))
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger(_ROOT).setLevel(settings.level.upper())


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that `configure` can find the one it made before."""


class _Lines(logging.Formatter):
    """What both formats share: the parts of a line, each already safe to print."""

    def __init__(self, prompts: bool) -> None:
        super().__init__()
        self._prompts = prompts

    def parts(self, record: logging.LogRecord) -> dict[str, Any]:
        """Time, level, logger and event, then the record's own fields (`extra=`), then the error if there is one."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        parts: dict[str, Any] = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": escape(record.name.removeprefix(_ROOT + ".")),
            "event": escape(self._event(record)),
        }
        for name, value in vars(record).items():
            if name not in _PLAIN_RECORD:
                parts.setdefault(escape(name), self._value(value))
        if record.exc_info and record.exc_info[1]:
            parts["error"] = escape(self._error(record.exc_info[1]))
        return parts

    def _event(self, record: logging.LogRecord) -> str:
        if self._prompts:
            return (record.msg % self._bared(record.args)) if record.args else str(record.msg)
        message = record.getMessage()
        if record.name == _ROOT or record.name.startswith(_ROOT + "."):
            return message
        # asyncio puts the repr of the failed task on the lines below the first, and that quotes the exception.
        return message.partition("\n")[0]

    def _bared(self, args: tuple[object, ...] | Mapping[str, object] | None) -> Any:
        if isinstance(args, tuple):
            return tuple(arg.text if isinstance(arg, Prompt) else arg for arg in args)
        return args

    def _value(self, value: object) -> object:
        if isinstance(value, Prompt) and self._prompts:
            return escape(value.text)
        if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
            return value
        return escape(str(value))

    def _error(self, error: BaseException) -> str:
        return " from ".join(self._one_error(one) for one in _chain(error))

    def _one_error(self, error: BaseException) -> str:
        innermost = deque(traceback.walk_tb(error.__traceback__), maxlen=FRAMES_MAX)
        files = (PurePath(frame.f_code.co_filename).parts[-2:] for frame, _ in innermost)
        places = [f"{'/'.join(file)}:{line}" for file, (_, line) in zip(files, innermost, strict=True)]
        text = type(error).__name__
        # Ours never quote a prompt and the system's cannot; any other may have been handed one.
        if self._prompts or isinstance(error, (CacheproxyError, OSError)):
            text += f": {error}"
        return f"{text} ({' > '.join(places)})" if places else text


class TextLines(_Lines):
    """`2026-11-20T10:00:00.000Z warning store.connection: redis gave no answer waited_s=0.05`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line without its end."""
        parts = self.parts(record)
        head = "{time} {level} {logger}: {event}".format(**parts)
        fields = [f"{name}={_quoted(value)}" for name, value in list(parts.items())[4:]]
        return " ".join([head, *fields])


class JSONLines(_Lines):
    """One flat JSON object a line, ASCII only."""

    def format(self, record: logging.LogRecord) -> str:
        """One line without its end."""
        return json.dumps(self.parts(record))


def escape(text: str) -> str:
    """`text` on one printable line of at most `VALUE_MAX` characters and a note of what was cut."""
    cut = len(text) - VALUE_MAX
    if cut > 0:
        text = text[:VALUE_MAX]
    text = text.translate(_ESCAPES).encode("utf-8", "backslashreplace").decode("utf-8")
    return f"{text}[+{cut} characters]" if cut > 0 else text


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or any(mark in text for mark in ' "=') else text


def _chain(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    for _ in range(CHAIN_MAX):
        if found is None:
            return
        yield found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
